//! Building: what there is to build, from which inputs, into which place.
//!
//! [`Products`] is everything that a machine is started from. Kernels and the driver come out of
//! the cache; Rust images are left to cargo, with a target directory in the cache; the initial
//! file systems are put together anew each time, which takes less than hashing them would.

mod driver;
mod image;
mod initramfs;
mod kernel;

use crate::cache::Cache;
use anyhow::{Context, Result};
use image::Bin;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use image::{Cargo, HOST};
pub(crate) use kernel::checkpatch;

/// Where the clone is and where costly things are kept.
pub(crate) struct Workspace {
    /// The clone.
    pub(crate) root: PathBuf,
    /// Costly products.
    pub(crate) cache: Cache,
}

impl Workspace {
    /// The clone that `cargo qemu` was called in; without cargo, the one that this program was built from.
    pub(crate) fn open() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR");
        let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&package)
            .parent()
            .context("the harness has no place in a clone")?;
        Ok(Self {
            root: root.to_path_buf(),
            cache: Cache::open()?,
        })
    }

    /// A path in the clone.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A place for a product of this clone, in `out/`.
    pub(crate) fn out(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("out").join(name);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        Ok(path)
    }

    /// The log of a step.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.cache.path("logs").join(format!("{step}.log"))
    }
}

/// Everything that a machine is started from.
pub(crate) struct Products {
    /// EL2's image.
    pub(crate) pinfold: PathBuf,
    /// The same with symbols, for gdb.
    pub(crate) pinfold_elf: PathBuf,
    /// The bare-metal host that drives hypercalls at EL1.
    pub(crate) mini_host: PathBuf,
    /// The bare-metal guests, which the bare-metal host runs.
    pub(crate) guest: PathBuf,
    /// The patched host kernel.
    pub(crate) host_kernel: PathBuf,
    /// The host kernel with symbols, for gdb.
    pub(crate) host_kernel_elf: PathBuf,
    /// QEMU's plugin that counts instructions.
    pub(crate) plugin: PathBuf,
    /// The host's initial file system.
    pub(crate) host_initramfs: PathBuf,
}

impl Products {
    /// Builds whatever is not there yet.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let guest_kernel = kernel::guest(workspace)?;
        let host_kernel = kernel::host(workspace)?;
        let driver = driver::build(workspace, &host_kernel)?;
        let cargo = Cargo::new(workspace);
        let pinfold = cargo.image(&Bin::PINFOLD)?;
        let guest = cargo.image(&Bin::GUEST)?;
        let mini_host = cargo.image(&Bin::MINI_HOST)?;
        let program = cargo.host_program()?;
        let plugin = cargo.plugin()?;
        let end = initramfs::end(workspace)?;
        let driver_test = driver::test(workspace)?;
        let parts = initramfs::Parts {
            end: &end,
            program: &program,
            guest_kernel: &guest_kernel.image,
            driver: &driver,
            driver_test: &driver_test,
        };
        let host_initramfs = parts.host(workspace)?;
        Ok(Self {
            pinfold: pinfold.flat,
            pinfold_elf: pinfold.elf,
            mini_host: mini_host.flat,
            guest: guest.flat,
            host_kernel: host_kernel.image,
            host_kernel_elf: host_kernel.directory.join("vmlinux"),
            plugin,
            host_initramfs,
        })
    }
}

/// A `make` of the Linux kernel for arm64, reproducible and gentle.
fn kernel_make() -> Command {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("nice");
    make.args(["make", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"])
        .arg(format!("-j{jobs}"))
        // The outer make's variables are not the kernel's.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL")
        .env("KBUILD_BUILD_TIMESTAMP", "2020-01-01")
        .env("KBUILD_BUILD_USER", "pinfold")
        .env("KBUILD_BUILD_HOST", "pinfold");
    make
}

/// Whether a line of a kernel build says that an object was made.
fn is_kernel_object(line: &str) -> bool {
    const VERBS: [&str; 5] = ["  CC ", "  AS ", "  LD ", "  AR ", "  HOSTCC "];
    VERBS.iter().any(|verb| line.starts_with(verb))
}
