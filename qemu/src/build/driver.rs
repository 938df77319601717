//! `pinfold.ko`, built against the host kernel's build directory.

use super::kernel::Kernel;
use super::{Workspace, is_kernel_object, kernel_make};
use crate::cache::Key;
use crate::step::Step;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the driver for a kernel; the path is that of the module.
pub(crate) fn build(workspace: &Workspace, kernel: &Kernel) -> Result<PathBuf> {
    let source = workspace.path("host-shim/driver");
    let key = Key::new().text("kernel", &kernel.inputs).tree(&source)?;
    let place = workspace.cache.product("driver", key, |place| {
        compile(workspace, kernel, &source, place)
    })?;
    Ok(place.join("pinfold.ko"))
}

/// Builds the test of the driver's user interface, a static program for the host.
pub(crate) fn test(workspace: &Workspace) -> Result<PathBuf> {
    let source = workspace.path("host-shim/driver/test");
    let program = workspace.out("host/driver-test")?;
    Step::new("driver's test", workspace.log("driver-test")).run(
        Command::new("aarch64-linux-gnu-gcc")
            .args(["-O2", "-static", "-o"])
            .arg(&program)
            .args([source.join("uapi.c"), source.join("guests.S")]),
    )?;
    Ok(program)
}

fn compile(workspace: &Workspace, kernel: &Kernel, source: &Path, place: &Path) -> Result<()> {
    Step::new("driver: copying", workspace.log("driver-copy")).run(
        Command::new("cp")
            .arg("-r")
            .arg(source.join("."))
            .arg(place),
    )?;
    Step::new("driver", workspace.log("driver"))
        .counting(is_kernel_object, 20)
        .run(
            kernel_make()
                .arg("-C")
                .arg(&kernel.directory)
                .arg(format!("M={}", place.display()))
                .arg("modules"),
        )
}
