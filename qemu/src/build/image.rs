//! What cargo builds: bare-metal images as flat binaries, and the host program.
//!
//! All targets share one target directory in the cache, one per toolchain, so that `core`,
//! `alloc` and the dependencies are compiled once for all clones.

use super::Workspace;
use crate::step::Step;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bare-metal target. Soft float: EL2 must not touch the host's or a guest's FP registers.
pub(crate) const BARE_METAL: &str = "aarch64-unknown-none-softfloat";
/// The host's target.
pub(crate) const HOST: &str = "aarch64-unknown-linux-gnu";
/// How cargo builds `core` and `alloc` for [`BARE_METAL`].
pub(crate) const BUILD_STD: &str = "-Zbuild-std=core,alloc,compiler_builtins";

/// The profile of everything that is not for tests alone.
const RELEASE: &str = "release";

/// How many crates a build from nothing compiles.
const CRATES: u32 = 50;

/// A bare-metal image by its package and binary.
pub(crate) struct Bin {
    crate_name: &'static str,
    binary: &'static str,
    product: &'static str,
    /// Whether it is built with its default features.
    default_features: bool,
    /// Further features.
    features: &'static str,
    /// Cargo's profile.
    profile: &'static str,
}

impl Bin {
    /// Pinfold itself.
    pub(crate) const PINFOLD: Self = Self::new("pinfold-el2", "pinfold", "pinfold");
    /// Pinfold as it is released: without debug calls.
    pub(crate) const RELEASE: Self = Self {
        default_features: false,
        ..Self::new("pinfold-el2", "pinfold", "pinfold-release")
    };
    /// Pinfold with the checker of the page-table protocol.
    pub(crate) const CHECKED: Self = Self {
        features: "check-protocol",
        ..Self::new("pinfold-el2", "pinfold", "pinfold-checked")
    };
    /// Pinfold that judges itself, and can be broken on purpose.
    pub(crate) const ORACLE: Self = Self {
        features: "oracle,mutants",
        profile: "oracle",
        ..Self::new("pinfold-el2", "pinfold", "pinfold-oracle")
    };
    /// The bare-metal guests.
    pub(crate) const GUEST: Self = Self::new("guest-test", "guest", "guest");
    /// The bare-metal host.
    pub(crate) const MINI_HOST: Self = Self::new("guest-test", "mini-host", "mini-host");

    const fn new(crate_name: &'static str, binary: &'static str, product: &'static str) -> Self {
        Self {
            crate_name,
            binary,
            product,
            default_features: true,
            features: "",
            profile: RELEASE,
        }
    }
}

/// An image in both its forms.
pub(crate) struct Image {
    /// What QEMU loads.
    pub(crate) flat: PathBuf,
    /// What gdb reads.
    pub(crate) elf: PathBuf,
}

/// Debian's cargo with our target directory.
pub(crate) struct Cargo<'a> {
    workspace: &'a Workspace,
}

impl<'a> Cargo<'a> {
    /// Cargo for a clone.
    pub(crate) fn new(workspace: &'a Workspace) -> Self {
        Self { workspace }
    }

    /// A cargo command.
    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo
            .arg(verb)
            .current_dir(&self.workspace.root)
            .env("RUSTC", "/usr/bin/rustc")
            .env("CARGO_TARGET_DIR", self.target())
            // Several clones share the directory: what is fresh is told by content, not by time. See the Makefile.
            .env("CARGO_UNSTABLE_CHECKSUM_FRESHNESS", "true")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TERM_COLOR", "never");
        cargo
    }

    /// A cargo command whose products are kept apart in `place`, because `flags` for rustc change all of them.
    pub(crate) fn instrumented(&self, verb: &str, place: &str, flags: &[&str]) -> Command {
        let mut cargo = self.command(verb);
        cargo
            .env("CARGO_TARGET_DIR", self.target().join(place))
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        cargo
    }

    /// Where [`Cargo::instrumented`] leaves its products.
    pub(crate) fn place(&self, place: &str) -> PathBuf {
        self.target().join(place)
    }

    /// A cargo command for the bare-metal target.
    pub(crate) fn bare_metal(&self, verb: &str) -> Command {
        self.bare_metal_as(verb, RELEASE)
    }

    fn bare_metal_as(&self, verb: &str, profile: &str) -> Command {
        let mut cargo = self.command(verb);
        cargo.args([BUILD_STD, "--target", BARE_METAL, "--profile", profile]);
        cargo
    }

    /// Builds a bare-metal image into `out/`.
    pub(crate) fn image(&self, bin: &Bin) -> Result<Image> {
        let _lock = self.workspace.cache.lock("bare-metal")?;
        let mut build = self.bare_metal_as("build", bin.profile);
        build.args(["--package", bin.crate_name, "--bin", bin.binary]);
        if !bin.default_features {
            build.arg("--no-default-features");
        }
        if !bin.features.is_empty() {
            build.args(["--features", bin.features]);
        }
        self.step(bin.product).run(&mut build)?;
        let elf = self.workspace.out(&format!("{}.elf", bin.product))?;
        self.collect(&format!("{BARE_METAL}/{}", bin.profile), bin.binary, &elf)?;
        let flat = self.workspace.out(&format!("{}.img", bin.product))?;
        Step::new(
            format!("{}: flat image", bin.product),
            self.workspace.log(&format!("{}-objcopy", bin.product)),
        )
        .run(
            Command::new("aarch64-linux-gnu-objcopy")
                .args(["-O", "binary"])
                .args([&elf, &flat]),
        )?;
        Ok(Image { flat, elf })
    }

    /// Builds the host program `pinfold`, static, into `out/`.
    pub(crate) fn host_program(&self) -> Result<PathBuf> {
        let _lock = self.workspace.cache.lock("host-program")?;
        self.step("host program").run(self.command("build").args([
            "--release",
            "--target",
            HOST,
            "--package",
            "pinfold",
        ]))?;
        let whole = self.workspace.out("host/pinfold.elf")?;
        self.collect(&format!("{HOST}/{RELEASE}"), "pinfold", &whole)?;
        let program = self.workspace.out("host/pinfold")?;
        // Debugging information is nine tenths of it, and every boot unpacks it.
        self.step("host program stripping").run(
            Command::new("aarch64-linux-gnu-objcopy")
                .arg("--strip-debug")
                .args([&whole, &program]),
        )?;
        Ok(program)
    }

    /// Builds QEMU's plugin, for this machine, into `out/`.
    pub(crate) fn plugin(&self) -> Result<PathBuf> {
        let _lock = self.workspace.cache.lock("plugin")?;
        self.step("plugin").run(self.command("build").args([
            "--release",
            "--package",
            "pinfold-plugin",
        ]))?;
        let plugin = self.workspace.out("libpinfold_plugin.so")?;
        self.collect(RELEASE, "libpinfold_plugin.so", &plugin)?;
        Ok(plugin)
    }

    /// A step of the name, logged under it, that counts crates.
    pub(crate) fn step(&self, what: &str) -> Step {
        Step::new(what, self.workspace.log(&what.replace(' ', "-"))).counting(is_crate, CRATES)
    }

    fn collect(&self, place: &str, binary: &str, to: &Path) -> Result<()> {
        let from = self.target().join(place).join(binary);
        // Through a new name: a running QEMU or another run may have the old file open.
        let new = to.with_extension("new");
        fs::copy(&from, &new).with_context(|| format!("cargo left no {}", from.display()))?;
        Ok(fs::rename(&new, to)?)
    }

    fn target(&self) -> PathBuf {
        self.workspace.cache.path("target")
    }
}

/// Whether a line of cargo's says that a crate is looked at.
fn is_crate(line: &str) -> bool {
    ["Compiling ", "Checking ", "Documenting "]
        .iter()
        .any(|verb| line.trim_start().starts_with(verb))
}
