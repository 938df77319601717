//! Linux's source in the cache: Debian's as it is, and a copy with our series.
//!
//! The patched tree consists of hard links to the plain one. It is there whole or not at all: a patch
//! that does not fit ends everything with its name, the files and the hunks.

use super::Workspace;
use crate::cache::{Cache, Key};
use crate::step::Step;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's package of the kernel source; the file in it has the same name.
const SOURCE: &str = "linux-source-6.12";

/// Where a patch may change something and leave the kernel as it is.
const BESIDE_THE_KERNEL: [&str; 3] = ["Documentation/", "MAINTAINERS", "tools/"];

/// A source tree.
pub(crate) struct Source {
    /// Where it is.
    pub(crate) directory: PathBuf,
    /// The patches that it is made from, beside Debian's version.
    series: Vec<PathBuf>,
}

impl Source {
    /// Debian's source.
    pub(crate) fn plain(workspace: &Workspace) -> Result<Self> {
        let key = Key::new().text("version", &version()?);
        let directory = workspace.cache.product("linux-source", key, |place| {
            let archive = format!("/usr/src/{SOURCE}.tar.xz");
            Step::new("kernel source: unpacking", workspace.log("linux-source")).run(
                Command::new("tar")
                    .args(["-x", "--strip-components=1", "-f", &archive, "-C"])
                    .arg(place),
            )
        })?;
        Ok(Self {
            directory,
            series: Vec::new(),
        })
    }

    /// Debian's source with our series.
    pub(crate) fn patched(workspace: &Workspace) -> Result<Self> {
        let series = series(&workspace.path("host-shim/patches"))?;
        Self::with(workspace, series)
    }

    /// Debian's source with what of our series a kernel is built from: no new kernel for a new test or a better word.
    pub(crate) fn for_kernel(workspace: &Workspace) -> Result<Self> {
        let series = series_for_kernel(&workspace.path("host-shim/patches"))?;
        Self::with(workspace, series)
    }

    fn with(workspace: &Workspace, series: Vec<PathBuf>) -> Result<Self> {
        let plain = Self::plain(workspace)?.directory;
        let directory = patched(&workspace.cache, &version()?, &plain, &series)?;
        Ok(Self { directory, series })
    }

    /// Linux's own style checker, strict; `--file` and the names of patches or files are missing.
    pub(crate) fn checkpatch(&self) -> Command {
        let mut perl = Command::new("perl");
        perl.arg(self.directory.join("scripts/checkpatch.pl"))
            .args(["--no-tree", "--strict", "--terse", "--no-summary"]);
        perl
    }

    /// A key that stands for the source.
    pub(crate) fn key(&self) -> Result<Key> {
        Ok(series_key(Key::new(), &self.series)?.text("source", &version()?))
    }
}

/// The version of Debian's package.
pub(crate) fn version() -> Result<String> {
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

/// The patches in the order of the series file.
pub(crate) fn series(patches: &Path) -> Result<Vec<PathBuf>> {
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

/// The patches of the series that change more than documents and tests.
fn series_for_kernel(patches: &Path) -> Result<Vec<PathBuf>> {
    let is_beside = |file: &String| {
        BESIDE_THE_KERNEL
            .iter()
            .any(|beside| file.starts_with(beside))
    };
    let mut kept = Vec::new();
    for patch in series(patches)? {
        if !touched(&patch)?.iter().all(is_beside) {
            kept.push(patch);
        }
    }
    Ok(kept)
}

/// The files that a patch touches and leaves there.
pub(crate) fn touched(patch: &Path) -> Result<BTreeSet<String>> {
    let text =
        fs::read_to_string(patch).with_context(|| format!("cannot read {}", patch.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("+++ b/"))
        .map(str::to_owned)
        .collect())
}

/// Copies a source tree by hard links. That is safe as long as whoever changes a file writes a new one
/// and renames it over the old name, as patch does.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp")
        .arg("-al")
        .arg(from.join("."))
        .arg(to)
        .output()
        .context("cannot start cp")?;
    ensure!(
        output.status.success(),
        "cannot link {} to {}: {}",
        from.display(),
        to.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Applies one patch; context must match to the line.
pub(crate) fn apply(patch: &Path, tree: &Path) -> Result<()> {
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

fn patched(cache: &Cache, version: &str, plain: &Path, series: &[PathBuf]) -> Result<PathBuf> {
    let key = series_key(Key::new().text("version", version), series)?;
    cache.product("linux-patched", key, |place| {
        link(plain, place)?;
        series
            .iter()
            .try_for_each(|patch| apply(patch, place))
            .with_context(|| {
                format!(
                    "the series does not fit the kernel source {version}, and no kernel is built from half of it"
                )
            })
    })
}

/// Adds the patches in their order.
fn series_key(key: Key, series: &[PathBuf]) -> Result<Key> {
    series.iter().try_fold(key, |key, file| key.file(file))
}

/// The files that patch could not change, with what it said about each.
fn culprits(said: &str) -> String {
    let mut file = "";
    let mut found = Vec::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("patching file ") {
            file = name;
        } else if let Some(name) = line.strip_prefix("|+++ b/") {
            // Only a file that is not there has its heading quoted.
            file = name.split('\t').next().unwrap_or(name);
            found.push(format!("{file}: no such file in the source"));
        } else if line.contains("FAILED") || line.contains("Reversed") || line.contains("malformed")
        {
            found.push(format!("{file}: {line}"));
        }
    }
    if found.is_empty() {
        found.extend(said.lines().map(str::to_owned).take(3));
    }
    found.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FITS: &str = "--- a/a.c\n+++ b/a.c\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n";
    const FITS_THE_OLDER: &str =
        "--- a/mm/b.c\n+++ b/mm/b.c\n@@ -1,1 +1,1 @@\n-int old;\n+int ours;\n";

    /// A cache, a source tree and a series of two patches.
    struct Scene {
        directory: tempfile::TempDir,
        cache: Cache,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache::at(directory.path().join("cache")).unwrap();
            let scene = Self { directory, cache };
            fs::create_dir_all(scene.plain().join("mm")).unwrap();
            fs::create_dir(scene.patches()).unwrap();
            fs::write(scene.plain().join("a.c"), "one\ntwo\n").unwrap();
            fs::write(scene.plain().join("mm/b.c"), "int old;\n").unwrap();
            fs::write(scene.patches().join("0001-a.patch"), FITS).unwrap();
            fs::write(scene.patches().join("0002-b.patch"), FITS_THE_OLDER).unwrap();
            fs::write(
                scene.patches().join("series"),
                "0001-a.patch\n0002-b.patch\n",
            )
            .unwrap();
            scene
        }

        fn plain(&self) -> PathBuf {
            self.directory.path().join("plain")
        }

        fn patches(&self) -> PathBuf {
            self.directory.path().join("patches")
        }

        fn patched(&self, version: &str) -> Result<PathBuf> {
            let series = series(&self.patches())?;
            patched(&self.cache, version, &self.plain(), &series)
        }

        /// What the cache holds of source trees, whole or not.
        fn trees(&self) -> Vec<String> {
            fs::read_dir(self.directory.path().join("cache"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.contains("linux-patched"))
                .collect()
        }
    }

    #[test]
    fn a_newer_source_stops_with_patch_and_file_and_leaves_nothing() {
        let scene = Scene::new();
        let whole = scene.patched("6.12.1").unwrap();
        assert_eq!(
            fs::read_to_string(whole.join("mm/b.c")).unwrap(),
            "int ours;\n"
        );
        let trees = scene.trees();

        fs::remove_file(scene.plain().join("mm/b.c")).unwrap();
        fs::write(scene.plain().join("mm/b.c"), "int newer;\n").unwrap();
        let error = format!("{:#}", scene.patched("6.12.2").unwrap_err());
        for part in ["6.12.2", "0002-b.patch", "mm/b.c: Hunk #1 FAILED"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert_eq!(scene.trees(), trees, "the half-patched tree is still there");
        // The plain tree is as it was, although the patched one consists of links to it.
        assert_eq!(
            fs::read_to_string(scene.plain().join("a.c")).unwrap(),
            "one\ntwo\n"
        );
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let scene = Scene::new();
        fs::remove_file(scene.plain().join("mm/b.c")).unwrap();
        let error = format!("{:#}", scene.patched("6.12.2").unwrap_err());
        assert!(
            error.contains("0002-b.patch") && error.contains("mm/b.c: no such file"),
            "{error}"
        );
        assert!(scene.trees().is_empty());
    }

    #[test]
    fn a_patch_that_the_source_already_has_is_no_fit() {
        let scene = Scene::new();
        fs::write(scene.plain().join("a.c"), "one\nthree\n").unwrap();
        let error = format!("{:#}", scene.patched("6.12.2").unwrap_err());
        assert!(
            error.contains("0001-a.patch") && error.contains("a.c"),
            "{error}"
        );
    }

    #[test]
    fn only_the_series_counts() {
        let scene = Scene::new();
        let key = || {
            let series = series(&scene.patches()).unwrap();
            series_key(Key::new(), &series).unwrap().name()
        };
        let before = key();
        fs::write(scene.patches().join("README.md"), "words").unwrap();
        assert_eq!(before, key());
        fs::write(scene.patches().join("0001-a.patch"), FITS_THE_OLDER).unwrap();
        assert_ne!(before, key());
    }

    #[test]
    fn documents_and_tests_make_no_new_kernel() {
        let scene = Scene::new();
        let write = |name, file| {
            let text = format!("--- a/{file}\n+++ b/{file}\n@@ -1,1 +1,1 @@\n-one\n+two\n");
            fs::write(scene.patches().join(name), text).unwrap();
        };
        write("0003-words.patch", "Documentation/a.rst");
        write("0004-test.patch", "tools/testing/b.c");
        write("0005-code.patch", "mm/c.c");
        let names = ["0001-a", "0002-b", "0003-words", "0004-test", "0005-code"];
        let lines = names.map(|name| format!("{name}.patch\n")).concat();
        fs::write(scene.patches().join("series"), lines).unwrap();
        let kept = series_for_kernel(&scene.patches()).unwrap();
        let expected = ["0001-a.patch", "0002-b.patch", "0005-code.patch"];
        assert_eq!(kept, expected.map(|name| scene.patches().join(name)));
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
}
