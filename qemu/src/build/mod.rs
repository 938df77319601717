//! Building: what there is to build, from which inputs, into which place.
//!
//! [`Products`] is everything that a machine is started from. Kernels and the driver come out of
//! the cache; Rust images are left to cargo, with a target directory in the cache; the initial
//! file systems are put together anew each time, which takes less than hashing them would.

mod driver;
mod image;
mod initramfs;
mod kernel;
mod program;
mod source;

use crate::cache::Cache;
use anyhow::{Context, Result};
use kernel::Recipe;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use image::{BARE_METAL, Bin, Cargo, HOST};

pub(crate) use initramfs::alone as init_alone;
pub(crate) use kernel::{allnoconfig, compiler_version, ensure_kept, function_at, merged};
pub(crate) use program::end;
pub(crate) use source::{Source, apply, link, series as patches_of, touched};

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
    /// The guest's kernel.
    guest_kernel: PathBuf,
    /// What goes into every host's initial file system.
    programs: HostPrograms,
    /// QEMU's plugin that counts instructions.
    pub(crate) plugin: PathBuf,
    /// The host's initial file system.
    pub(crate) host_initramfs: PathBuf,
}

/// The host's programs.
struct HostPrograms {
    end: PathBuf,
    pinfold: PathBuf,
}

impl Products {
    /// Builds whatever is not there yet.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        // A series that does not fit is said before anything else is built.
        Source::patched(workspace)?;
        let guest_kernel = kernel::build(workspace, &Recipe::GUEST)?;
        let host_kernel = kernel::build(workspace, &Recipe::HOST)?;
        let driver = driver::build(workspace, &host_kernel)?;
        let cargo = Cargo::new(workspace);
        let pinfold = cargo.image(&Bin::PINFOLD)?;
        let guest = cargo.image(&Bin::GUEST)?;
        let mini_host = cargo.image(&Bin::MINI_HOST)?;
        let programs = HostPrograms {
            pinfold: cargo.host_program()?,
            end: end(workspace)?,
        };
        let plugin = cargo.plugin()?;
        let parts = initramfs::Parts {
            end: &programs.end,
            program: &programs.pinfold,
            guest_kernel: &guest_kernel.image,
            driver: &driver,
            tests: &[program::driver_test(workspace)?],
        };
        let host_initramfs = parts.host(workspace, "host-initramfs")?;
        Ok(Self {
            pinfold: pinfold.flat,
            pinfold_elf: pinfold.elf,
            mini_host: mini_host.flat,
            guest: guest.flat,
            host_kernel: host_kernel.image,
            host_kernel_elf: host_kernel.directory.join("vmlinux"),
            guest_kernel: guest_kernel.image,
            programs,
            plugin,
            host_initramfs,
        })
    }
}

/// A host that looks for mistakes, with the tests of exclusive pins.
pub(crate) struct DebugHost {
    /// Its kernel.
    pub(crate) kernel: PathBuf,
    /// Where the kernel's functions are.
    pub(crate) system_map: PathBuf,
    /// Its initial file system.
    pub(crate) initramfs: PathBuf,
}

impl DebugHost {
    /// Builds whatever is not there yet.
    pub(crate) fn build(workspace: &Workspace, products: &Products) -> Result<Self> {
        let kernel = kernel::build(workspace, &Recipe::HOST_DEBUG)?;
        let driver = driver::build(workspace, &kernel)?;
        let source = Source::patched(workspace)?;
        let mut tests = program::selftests(workspace, &source)?;
        tests.push(program::donated_test(workspace, &source)?);
        let parts = initramfs::Parts {
            end: &products.programs.end,
            program: &products.programs.pinfold,
            guest_kernel: &products.guest_kernel,
            driver: &driver,
            tests: &tests,
        };
        Ok(Self {
            initramfs: parts.host(workspace, "debug-initramfs")?,
            system_map: kernel.directory.join("System.map"),
            kernel: kernel.image,
        })
    }
}

/// What `make gup-bench` starts: the same small kernel three times.
pub(crate) struct BenchHosts {
    /// Without our series.
    pub(crate) unpatched: BenchKernel,
    /// With it, the option off.
    pub(crate) off: BenchKernel,
    /// With it, the option on.
    pub(crate) on: BenchKernel,
    /// The measurement alone.
    pub(crate) initramfs: PathBuf,
}

/// A kernel that measures itself.
pub(crate) struct BenchKernel {
    /// The bootable Image.
    pub(crate) image: PathBuf,
    /// `mm/gup.o`, the object that the option must not change when it is off.
    pub(crate) object: PathBuf,
}

impl BenchHosts {
    /// Builds whatever is not there yet.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let source = Source::patched(workspace)?;
        let program = program::gup_bench(workspace, &source)?;
        let build = |recipe| {
            kernel::build(workspace, recipe).map(|kernel| BenchKernel {
                image: kernel.image,
                object: kernel.directory.join("mm/gup.o"),
            })
        };
        Ok(Self {
            unpatched: build(&Recipe::BENCH_UNPATCHED)?,
            off: build(&Recipe::BENCH_OFF)?,
            on: build(&Recipe::BENCH_ON)?,
            initramfs: initramfs::alone(workspace, &program, "bench-initramfs")?,
        })
    }
}

/// What a kernel is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Architecture {
    /// The machines that Pinfold runs on.
    Arm64,
    /// This machine's; only to see that the series builds there too.
    X86_64,
}

impl Architecture {
    /// The kernel's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// The directory below `arch` that is its own.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86",
        }
    }
}

/// A `make` of the Linux kernel, reproducible and gentle.
fn kernel_make(architecture: Architecture) -> Command {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut make = Command::new("nice");
    make.arg("make")
        .arg(format!("ARCH={}", architecture.name()))
        .arg(format!("-j{jobs}"))
        // The outer make's variables are not the kernel's.
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL")
        .env("KBUILD_BUILD_TIMESTAMP", "2020-01-01")
        .env("KBUILD_BUILD_USER", "pinfold")
        .env("KBUILD_BUILD_HOST", "pinfold");
    if architecture == Architecture::Arm64 {
        make.arg("CROSS_COMPILE=aarch64-linux-gnu-");
    }
    make
}

/// A [`kernel_make`] of a source tree into a build directory.
pub(crate) fn kernel_make_from(source: &Path, architecture: Architecture, place: &Path) -> Command {
    let mut make = kernel_make(architecture);
    make.arg("-C")
        .arg(source)
        .arg(format!("O={}", place.display()));
    make
}

/// Whether a line of a kernel build says that an object was made.
fn is_kernel_object(line: &str) -> bool {
    const VERBS: [&str; 5] = ["  CC ", "  AS ", "  LD ", "  AR ", "  HOSTCC "];
    VERBS.iter().any(|verb| line.starts_with(verb))
}
