//! `pinfold.ko`, built against the host kernel's build directory.

use super::kernel::Kernel;
use super::{Architecture, Workspace, is_kernel_object, kernel_make};
use crate::cache::Key;
use crate::step::Step;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the driver for a kernel; the path is that of the module.
pub(crate) fn build(workspace: &Workspace, kernel: &Kernel) -> Result<PathBuf> {
    let source = workspace.path("host-shim/driver");
    let key = Key::new().text("kernel", &kernel.inputs).tree(&source)?;
    let kind = format!("driver-{}", kernel.who);
    let place = workspace.cache.product(&kind, key, |place| {
        compile(workspace, kernel, &source, place)
    })?;
    Ok(place.join("pinfold.ko"))
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
            kernel_make(Architecture::Arm64)
                .arg("-C")
                .arg(&kernel.directory)
                .arg(format!("M={}", place.display()))
                .arg("modules"),
        )
}
