//! The initial file systems of hosts and guest, as cpio archives ("newc").
//!
//! They are not compressed: the machine is emulated and unpacking would cost more than loading.
//! Nothing in them depends on time or user, so that equal contents give equal archives.

use super::Workspace;
use super::program::Program;
use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What goes into the archives beside the scripts.
pub(crate) struct Parts<'a> {
    /// A first process that ends at once.
    pub(crate) end: &'a Path,
    /// The host program.
    pub(crate) program: &'a Path,
    /// The guest's kernel.
    pub(crate) guest_kernel: &'a Path,
    /// The host's driver.
    pub(crate) driver: &'a Path,
    /// The host's tests, by their names in `/bin`.
    pub(crate) tests: &'a [Program],
}

impl Parts<'_> {
    /// The host's archive in `out/`, with the guest's kernel and archive inside.
    pub(crate) fn host(&self, workspace: &Workspace, name: &str) -> Result<PathBuf> {
        let scripts = workspace.path("qemu/initramfs");
        let guest = guest(workspace)?;
        let mut archive = Archive::with_busybox(workspace)?;
        archive.program("init", &scripts.join("host-init"))?;
        archive.program("bin/end", self.end)?;
        archive.program("bin/pinfold", self.program)?;
        for test in self.tests {
            archive.program(&format!("bin/{}", test.name), &test.path)?;
        }
        archive.file("scenarios", &crate::scenario::Corpus::write(workspace)?)?;
        archive.directory("etc")?;
        archive.file("etc/motd", &scripts.join("motd"))?;
        archive.directory("guest")?;
        archive.file("guest/Image", self.guest_kernel)?;
        archive.file("guest/initramfs", &guest)?;
        archive.directory("lib")?;
        archive.directory("lib/modules")?;
        archive.file("lib/modules/pinfold.ko", self.driver)?;
        archive.write(&workspace.out(name)?)
    }
}

/// The guest's archive.
fn guest(workspace: &Workspace) -> Result<PathBuf> {
    let scripts = workspace.path("qemu/initramfs");
    let mut archive = Archive::with_busybox(workspace)?;
    archive.program("init", &scripts.join("guest-init"))?;
    for script in ["check-disk", "keep-pattern", "check-pattern"] {
        archive.program(&format!("bin/{script}"), &scripts.join(script))?;
    }
    archive.write(&workspace.out("guest-initramfs")?)
}

/// An archive with nothing but a first process.
pub(crate) fn alone(workspace: &Workspace, init: &Path, name: &str) -> Result<PathBuf> {
    let mut archive = Archive::with_console()?;
    archive.program("init", init)?;
    archive.write(&workspace.out(name)?)
}

/// A cpio archive in memory.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// An archive with a console, a shell and busybox.
    fn with_busybox(workspace: &Workspace) -> Result<Self> {
        let mut archive = Self::with_console()?;
        archive.directory("bin")?;
        archive.program("bin/busybox", &workspace.cache.path("busybox-arm64"))?;
        let shell = archive.entry("bin/sh", 0o777, ModeFileType::Symlink);
        archive.add(shell, b"busybox")?;
        Ok(archive)
    }

    fn with_console() -> Result<Self> {
        let mut archive = Self::default();
        archive.directory("dev")?;
        let console = archive
            .entry("dev/console", 0o600, ModeFileType::Char)
            .rdev_major(5)
            .rdev_minor(1);
        archive.add(console, &[])?;
        Ok(archive)
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let directory = self.entry(name, 0o755, ModeFileType::Directory);
        self.add(directory, &[])
    }

    fn program(&mut self, name: &str, from: &Path) -> Result<()> {
        self.contents(name, 0o755, from)
    }

    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        self.contents(name, 0o644, from)
    }

    fn contents(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let entry = self.entry(name, mode, ModeFileType::Regular);
        self.add(entry, &contents)
    }

    fn entry(&mut self, name: &str, mode: u32, kind: ModeFileType) -> Builder {
        self.inode += 1;
        Builder::new(name)
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .set_mode_file_type(kind)
    }

    fn add(&mut self, entry: Builder, contents: &[u8]) -> Result<()> {
        let size =
            u32::try_from(contents.len()).context("a file of an archive has 4 GiB or more")?;
        let mut writer = entry.write(&mut self.bytes, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    }

    fn write(self, to: &Path) -> Result<PathBuf> {
        fs::write(to, trailer(self.bytes)?)
            .with_context(|| format!("cannot write {}", to.display()))?;
        Ok(to.to_path_buf())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    #[test]
    fn an_archive_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::write(&source, "text").unwrap();
        let mut archive = Archive::default();
        archive.directory("etc").unwrap();
        archive.program("etc/run", &source).unwrap();
        let path = archive.write(&directory.path().join("archive")).unwrap();

        let reader = Reader::new(fs::File::open(path).unwrap()).unwrap();
        assert_eq!(
            (reader.entry().name(), reader.entry().mode()),
            ("etc", 0o040_755)
        );
        let reader = Reader::new(reader.finish().unwrap()).unwrap();
        assert_eq!(
            (reader.entry().name(), reader.entry().mode()),
            ("etc/run", 0o100_755)
        );
        assert_eq!(reader.entry().file_size(), 4);
        let reader = Reader::new(reader.finish().unwrap()).unwrap();
        assert!(reader.entry().is_trailer());
    }
}
