//! Static C programs for the machines: tests, and first processes.
//!
//! They take less to compile than their inputs to hash, so they are built anew each time.

use super::Workspace;
use super::source::Source;
use crate::step::Step;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Selftests by name, and which sources they have beside their own.
const SELFTESTS: [(&str, &[&str]); 3] = [
    ("exclusive_pin", &["exclusive_pin_cases.c"]),
    ("exclusive_pin_stress", &[]),
    ("gup_test", &[]),
];

/// A first process that powers off at once. It has no C library.
pub(crate) fn end(workspace: &Workspace) -> Result<PathBuf> {
    compile(workspace, "end", |gcc| {
        gcc.args(["-Os", "-nostdlib", "-ffreestanding", "-Werror"])
            .arg(workspace.path("qemu/initramfs/end.c"));
    })
}

/// The test of the driver's user interface.
pub(crate) fn driver_test(workspace: &Workspace) -> Result<Program> {
    let name = "driver-test";
    let here = workspace.path("host-shim/driver/test");
    let path = compile(workspace, name, |gcc| {
        gcc.args(["uapi.c", "vm.c", "large.c", "guests.S"].map(|source| here.join(source)));
    })?;
    Ok(Program { name, path })
}

/// The selftests of the series and of pinned pages, from the patched source.
pub(crate) fn selftests(workspace: &Workspace, source: &Source) -> Result<Vec<Program>> {
    SELFTESTS
        .into_iter()
        .map(|(name, more)| {
            let path = compile(workspace, name, |gcc| {
                let directory = selftest_directory(source);
                kernel_headers(gcc, &source.directory);
                gcc.arg(directory.join(format!("{name}.c")))
                    .args(["vm_util.c", "thp_settings.c"].map(|helper| directory.join(helper)))
                    .args(more.iter().map(|source| directory.join(source)));
            })?;
            Ok(Program { name, path })
        })
        .collect()
}

/// The cases of the selftest with pages that EL2 really has.
pub(crate) fn donated_test(workspace: &Workspace, source: &Source) -> Result<Program> {
    let name = "donated-test";
    let here = workspace.path("host-shim/driver/test");
    let path = compile(workspace, name, |gcc| {
        let cases = selftest_directory(source);
        gcc.arg("-I")
            .args([&cases, &here.join("donated.c"), &here.join("guests.S")])
            .arg(cases.join("exclusive_pin_cases.c"));
    })?;
    Ok(Program { name, path })
}

/// The measurement of `make gup-bench`, which is the first process of its machine.
pub(crate) fn gup_bench(workspace: &Workspace, source: &Source) -> Result<PathBuf> {
    compile(workspace, "gup-bench", |gcc| {
        gcc.args(["-Werror", "-I"])
            .arg(&source.directory)
            .arg(workspace.path("qemu/initramfs/gup-bench.c"));
    })
}

/// A program by its name in the machine.
pub(crate) struct Program {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) path: PathBuf,
}

fn selftest_directory(source: &Source) -> PathBuf {
    source.directory.join("tools/testing/selftests/mm")
}

/// The kernel tree's own headers, for what the C library's copy does not know yet.
fn kernel_headers(gcc: &mut Command, tree: &Path) {
    gcc.arg("-I")
        .arg(tree)
        .arg("-isystem")
        .arg(tree.join("tools/include/uapi"));
}

fn compile(
    workspace: &Workspace,
    name: &str,
    complete: impl FnOnce(&mut Command),
) -> Result<PathBuf> {
    let program = workspace.out(&format!("host/{name}"))?;
    let mut gcc = Command::new("aarch64-linux-gnu-gcc");
    gcc.args(["-O2", "-Wall", "-static", "-pthread", "-o"])
        .arg(&program);
    complete(&mut gcc);
    Step::new(name, workspace.log(name)).run(&mut gcc)?;
    Ok(program)
}
