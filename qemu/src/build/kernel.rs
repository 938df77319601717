//! The two Linux kernels: Debian's source, our series for the host, a small configuration each.
//!
//! A [`Kernel`] is a build directory in the cache. It stays whole, because the driver is built
//! against it. The patched source is a tree of hard links to the plain one.

use super::{Workspace, is_kernel_object, kernel_make};
use crate::cache::Key;
use crate::step::Step;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's package of the kernel source; the file in it has the same name.
const SOURCE: &str = "linux-source-6.12";

/// The host kernel's largest size: it is loaded anew by every test.
const HOST_IMAGE_LIMIT: u64 = 10 << 20;

/// A kernel that was built.
pub(crate) struct Kernel {
    /// The bootable Image.
    pub(crate) image: PathBuf,
    /// The build directory.
    pub(crate) directory: PathBuf,
    /// The hash of its inputs.
    pub(crate) inputs: String,
}

/// The guest's kernel: unmodified source.
pub(crate) fn guest(workspace: &Workspace) -> Result<Kernel> {
    let source = plain_source(workspace)?;
    build(workspace, "guest", &source, Key::new())
}

/// The host's kernel: source with our series.
pub(crate) fn host(workspace: &Workspace) -> Result<Kernel> {
    let patches = workspace.path("host-shim/patches");
    let source = patched_source(workspace, &patches)?;
    let kernel = build(workspace, "host", &source, Key::new().tree(&patches)?)?;
    let size = fs::metadata(&kernel.image)?.len();
    ensure!(
        size <= HOST_IMAGE_LIMIT,
        "the host kernel's Image has {size} bytes, more than the {HOST_IMAGE_LIMIT} of its budget; see qemu/kernel/host.config"
    );
    Ok(kernel)
}

/// Linux's own style checker, once the source is in the cache.
pub(crate) fn checkpatch(workspace: &Workspace) -> Result<PathBuf> {
    Ok(plain_source(workspace)?.join("scripts/checkpatch.pl"))
}

fn source_version() -> Result<String> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", SOURCE])
        .output()
        .context("cannot ask dpkg for the kernel source's version")?;
    ensure!(
        query.status.success(),
        "{SOURCE} is not installed; `make setup` installs it"
    );
    Ok(String::from_utf8_lossy(&query.stdout).into_owned())
}

fn plain_source(workspace: &Workspace) -> Result<PathBuf> {
    let key = Key::new().text("version", &source_version()?);
    let place = workspace.cache.product("linux-source", key, |place| {
        let archive = format!("/usr/src/{SOURCE}.tar.xz");
        Step::new("kernel source: unpacking", workspace.log("linux-source")).run(
            Command::new("tar")
                .args(["-x", "--strip-components=1", "-f", &archive, "-C"])
                .arg(place),
        )
    })?;
    Ok(place)
}

fn patched_source(workspace: &Workspace, patches: &Path) -> Result<PathBuf> {
    let plain = plain_source(workspace)?;
    let key = Key::new()
        .text("version", &source_version()?)
        .tree(patches)?;
    workspace.cache.product("linux-patched", key, |place| {
        // Hard links are safe: patch writes a new file and renames it over the old name.
        Step::new(
            "host kernel: linking the source",
            workspace.log("linux-patched"),
        )
        .run(
            Command::new("cp")
                .arg("-al")
                .arg(plain.join("."))
                .arg(place),
        )?;
        series(patches)?
            .iter()
            .try_for_each(|patch| apply(patch, place))
    })
}

/// The patches in the order of the series file.
fn series(patches: &Path) -> Result<Vec<PathBuf>> {
    let file = patches.join("series");
    let names =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(names
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|name| patches.join(name))
        .collect())
}

/// Applies one patch; context must match to the line.
fn apply(patch: &Path, tree: &Path) -> Result<()> {
    let output = Command::new("patch")
        .args([
            "-p1",
            "--fuzz=0",
            "--forward",
            "--reject-file=-",
            "--no-backup-if-mismatch",
        ])
        .arg("-i")
        .arg(patch)
        .current_dir(tree)
        .output()
        .context("cannot start patch")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!(
            "{} does not apply to {SOURCE}: {}",
            patch.display(),
            culprits(&said)
        );
    }
    Ok(())
}

/// The files that patch could not change, with what it said about each.
fn culprits(said: &str) -> String {
    let mut file = "";
    let mut found = Vec::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("patching file ") {
            file = name;
        } else if line.starts_with("Hunk") && line.contains("FAILED") {
            found.push(format!("{file}: {line}"));
        } else if line.contains("can't find file")
            || line.contains("Reversed")
            || line.contains("malformed")
        {
            found.push(line.to_owned());
        }
    }
    found.join("; ")
}

fn build(workspace: &Workspace, who: &str, source: &Path, key: Key) -> Result<Kernel> {
    let config = workspace.path(&format!("qemu/kernel/{who}.config"));
    let key = key
        .text("source", &source_version()?)
        .text("compiler", &compiler_version()?)
        .file(&config)?;
    let inputs = key.name();
    let again = Key::new().text("inputs", &inputs);
    let directory = workspace
        .cache
        .product(&format!("kernel-{who}"), again, |place| {
            let make = |target: &str| {
                let mut make = kernel_make();
                make.arg("-C")
                    .arg(source)
                    .arg(format!("O={}", place.display()))
                    .arg(target);
                make
            };
            Step::new(
                format!("{who} kernel: configuring"),
                workspace.log(&format!("kernel-{who}-config")),
            )
            .run(make("allnoconfig").env("KCONFIG_ALLCONFIG", &config))?;
            check_config(&config, &place.join(".config"))?;
            let targets: &[&str] = if who == "host" {
                &["Image", "modules"]
            } else {
                &["Image"]
            };
            targets.iter().try_for_each(|target| {
                Step::new(
                    format!("{who} kernel: {target}"),
                    workspace.log(&format!("kernel-{who}-{target}")),
                )
                .counting(is_kernel_object, 1150)
                .run(&mut make(target))
            })
        })?;
    Ok(Kernel {
        image: directory.join("arch/arm64/boot/Image"),
        directory,
        inputs,
    })
}

fn compiler_version() -> Result<String> {
    let output = Command::new("aarch64-linux-gnu-gcc")
        .arg("--version")
        .output()
        .context("aarch64-linux-gnu-gcc is not installed; `make setup` installs it")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every setting that we name must have come through: kconfig drops what it cannot keep in silence.
fn check_config(fragment: &Path, result: &Path) -> Result<()> {
    let result = fs::read_to_string(result)?;
    let lost: Vec<String> = fs::read_to_string(fragment)?
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !result.lines().any(|kept| kept == *line))
        .map(str::to_owned)
        .collect();
    ensure!(
        lost.is_empty(),
        "{}: the kernel's configuration does not keep {}",
        fragment.display(),
        lost.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_does_not_apply_is_named_with_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a.c"), "one\ntwo\n").unwrap();
        let patch = directory.path().join("0001-change-three.patch");
        fs::write(
            &patch,
            "--- a/a.c\n+++ b/a.c\n@@ -1,1 +1,1 @@\n-three\n+four\n",
        )
        .unwrap();
        let error = apply(&patch, &tree).unwrap_err().to_string();
        assert!(
            error.contains("0001-change-three.patch") && error.contains("a.c"),
            "{error}"
        );
    }

    #[test]
    fn the_series_file_gives_the_order() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("series"),
            "# ours\nb.patch\n\na.patch\n",
        )
        .unwrap();
        let names: Vec<_> = series(directory.path()).unwrap();
        assert_eq!(
            names,
            [
                directory.path().join("b.patch"),
                directory.path().join("a.patch")
            ]
        );
    }

    #[test]
    fn a_lost_setting_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (fragment, result) = (
            directory.path().join("host.config"),
            directory.path().join(".config"),
        );
        fs::write(&fragment, "# text\nCONFIG_A=y\nCONFIG_B=y\n").unwrap();
        fs::write(&result, "CONFIG_A=y\n# CONFIG_B is not set\n").unwrap();
        let error = check_config(&fragment, &result).unwrap_err().to_string();
        assert!(error.contains("CONFIG_B=y") && !error.contains("CONFIG_A"));
    }
}
