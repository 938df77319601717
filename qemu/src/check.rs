//! `make check`: what can be said about the source without starting a machine.
//!
//! Format, lints on every target, tests on this machine, documentation, shell scripts, C style, and the
//! budget of `unsafe`. Every check runs, also after one that failed; the last line counts them.

mod budget;
mod one_place;

use crate::build::{BARE_METAL, Cargo, Source, Workspace};
use crate::step::Step;
use crate::suite::{Tally, cargo_test};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A check by its name.
type Check = (&'static str, fn(&Workspace) -> Result<()>);

const CHECKS: [Check; 12] = [
    ("format", format),
    ("lock file of the fuzzers", lock_of_fuzzers),
    ("lints on x86_64", lint_here),
    ("lints of the bare-metal images", lint_bare_metal),
    ("lints of the host program", lint_host),
    ("no seeded mutants, checker or oracle in the image", mutants),
    ("walkers and TLBs in one place", one_place::check),
    ("tests on x86_64", test),
    ("documentation", document),
    ("shell scripts", shell),
    ("style of the driver and the series", style),
    ("budget of unsafe", budget::check),
];

/// Runs every check.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut tally = Tally::default();
    for (name, check) in CHECKS {
        match check(workspace) {
            Ok(()) => {
                println!("ok    {name}");
                tally.passed += 1;
            }
            Err(error) => {
                println!("FAIL  {name}: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally.conclude()
}

fn format(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    cargo.step("format").run(
        cargo
            .command("fmt")
            .args(["--all", "--check", "--", "-l", "--color", "never"]),
    )
}

/// The fuzzers are a workspace of their own, which nothing else here builds.
fn lock_of_fuzzers(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut metadata = cargo.command("metadata");
    metadata.args(["--manifest-path", "hyp/fuzz/Cargo.toml", "--locked"]);
    metadata.args(["--format-version", "1"]);
    cargo.step("lock of the fuzzers").run(&mut metadata)
}

fn lint_here(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut clippy = cargo.command("clippy");
    clippy.args(["--all-targets", "--", "-D", "warnings"]);
    cargo.step("clippy x86_64").run(&mut clippy)
}

fn lint_bare_metal(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut clippy = cargo.bare_metal("clippy");
    clippy.args([
        "--package",
        "pinfold-el2",
        "--package",
        "guest-test",
        "--",
        "-D",
        "warnings",
    ]);
    cargo.step("clippy bare metal").run(&mut clippy)?;
    let mut clippy = cargo.bare_metal("clippy");
    clippy.args(["--package", "pinfold-el2", "--features", "oracle"]);
    clippy.args(["--", "-D", "warnings"]);
    cargo.step("clippy oracle").run(&mut clippy)
}

fn lint_host(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut clippy = cargo.command("clippy");
    clippy.args([
        "--package",
        "pinfold",
        "--target",
        crate::build::HOST,
        "--",
        "-D",
        "warnings",
    ]);
    cargo.step("clippy host program").run(&mut clippy)
}

/// Looks up with which features the image's core is built, and that the checker of the protocol, which comes with faults of its own, is
/// not there. With mutants, core refuses to be a part of a release image, besides.
fn mutants(workspace: &Workspace) -> Result<()> {
    let mut tree = Cargo::new(workspace).command("tree");
    tree.args(["--package", "pinfold-el2", "--target", BARE_METAL]);
    tree.args([
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{lib} {f}",
    ]);
    let output = tree.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let features = text
        .lines()
        .find_map(|line| line.strip_prefix("pinfold_core "))
        .with_context(|| format!("cargo tree: {}", output.status))?;
    let odd = features
        .split(',')
        .find(|feature| ["mutants", "test-machine"].contains(feature));
    anyhow::ensure!(odd.is_none(), "the image's core has {features}");
    let checker = text
        .lines()
        .any(|line| line.starts_with("pinfold_protocol"));
    anyhow::ensure!(!checker, "the image has the checker of the protocol");
    let has_oracle = text.lines().any(|line| line.starts_with("pinfold_spec "));
    anyhow::ensure!(!has_oracle, "the image has the specification in it");
    Ok(())
}

fn test(workspace: &Workspace) -> Result<()> {
    let tally = cargo_test(&Cargo::new(workspace))?;
    anyhow::ensure!(
        tally.failed == 0,
        "{} of {} failed",
        tally.failed,
        tally.passed + tally.failed
    );
    Ok(())
}

fn document(workspace: &Workspace) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut doc = cargo.command("doc");
    // The documentation is for those who work here: private items are in it, and links to them are right.
    doc.args(["--no-deps", "--document-private-items", "--all-features"])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        );
    cargo.step("documentation").run(&mut doc)
}

fn shell(workspace: &Workspace) -> Result<()> {
    let scripts = ["qemu/setup.sh", ".ci/run"]
        .into_iter()
        .map(|name| workspace.path(name));
    let in_machines = crate::cache::files_below(&workspace.path("qemu/initramfs"))?;
    let in_machines = in_machines
        .into_iter()
        .filter(|path| starts_with(path, b"#!"));
    let scripts: Vec<PathBuf> = scripts.chain(in_machines).collect();
    Step::new("shellcheck", workspace.log("shellcheck"))
        .run(Command::new("shellcheck").args(scripts))
}

fn style(workspace: &Workspace) -> Result<()> {
    let source = Source::plain(workspace)?;
    let driver = crate::cache::files_below(&workspace.path("host-shim/driver"))?;
    let driver = driver
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "c" || end == "h"));
    let patches = crate::cache::files_below(&workspace.path("host-shim/patches"))?;
    let patches = patches
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "patch"));
    let step = Step::new("checkpatch", workspace.log("checkpatch"));
    step.run(source.checkpatch().arg("--file").args(driver))?;
    step.run(source.checkpatch().args(patches))
}

fn starts_with(path: &Path, bytes: &[u8]) -> bool {
    std::fs::read(path).is_ok_and(|contents| contents.starts_with(bytes))
}
