//! The Linux kernels: Debian's source, our series for the host, a small configuration each.
//!
//! A [`Recipe`] says what a kernel is made from; a [`Kernel`] is what came of it, a directory in the
//! cache. It stays whole where the driver is built against it, else only the files that are used.

use super::source::Source;
use super::{Architecture, Workspace, is_kernel_object, kernel_make_from};
use crate::cache::Key;
use crate::step::Step;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The host kernel's largest size: it is loaded anew by every test.
const HOST_IMAGE_LIMIT: u64 = 10 << 20;

/// Where a build leaves the bootable Image.
const IMAGE: &str = "arch/arm64/boot/Image";

/// What a kernel is made from.
pub(crate) struct Recipe {
    who: &'static str,
    patched: bool,
    /// Parts of the configuration in `qemu/kernel`; a later one overrides an earlier.
    fragments: &'static [&'static str],
    /// Lines that follow them.
    settings: &'static str,
    targets: &'static [&'static str],
    /// Whether the build directory stays, as the driver needs it; else only the files of [`KEPT`].
    stays_whole: bool,
    /// About how many objects are compiled.
    objects: u32,
}

/// What stays of a kernel that nothing is built against.
const KEPT: [&str; 4] = [IMAGE, "System.map", "mm/gup.o", ".config"];

impl Recipe {
    /// The guest's kernel: unmodified source.
    pub(crate) const GUEST: Self = Self {
        who: "guest",
        patched: false,
        fragments: &["guest.config"],
        settings: "",
        targets: &["Image"],
        stays_whole: true,
        objects: 1150,
    };
    /// The host's kernel: source with our series.
    pub(crate) const HOST: Self = Self {
        who: "host",
        patched: true,
        fragments: &["host.config"],
        targets: &["Image", "modules"],
        ..Self::GUEST
    };
    /// The host's kernel that looks for mistakes.
    pub(crate) const HOST_DEBUG: Self = Self {
        who: "host-debug",
        fragments: &["host.config", "host-debug.config"],
        objects: 1300,
        ..Self::HOST
    };
    /// What exclusive pins are measured against.
    pub(crate) const BENCH_UNPATCHED: Self = Self {
        who: "bench-unpatched",
        patched: false,
        ..Self::BENCH_OFF
    };
    /// The series with its option off.
    pub(crate) const BENCH_OFF: Self = Self {
        who: "bench-off",
        patched: true,
        fragments: &["bench.config"],
        settings: "",
        targets: &["Image"],
        stays_whole: false,
        objects: 650,
    };
    /// The series with its option on.
    pub(crate) const BENCH_ON: Self = Self {
        who: "bench-on",
        settings: "CONFIG_EXCLUSIVE_PIN=y\n",
        ..Self::BENCH_OFF
    };
}

/// A kernel that was built.
pub(crate) struct Kernel {
    /// The recipe's name.
    pub(crate) who: &'static str,
    /// The bootable Image.
    pub(crate) image: PathBuf,
    /// The build directory, or what stays of it.
    pub(crate) directory: PathBuf,
    /// The hash of its inputs.
    pub(crate) inputs: String,
}

/// Builds a kernel, unless the cache has it.
pub(crate) fn build(workspace: &Workspace, recipe: &Recipe) -> Result<Kernel> {
    let source = if recipe.patched {
        Source::for_kernel(workspace)?
    } else {
        Source::plain(workspace)?
    };
    let fragments = recipe.fragments.iter();
    let fragments: Vec<PathBuf> = fragments
        .map(|name| workspace.path(&format!("qemu/kernel/{name}")))
        .collect();
    let key = source.key()?.text("compiler", &compiler_version()?);
    let mut key = fragments.iter().try_fold(key, |key, path| key.file(path))?;
    if !recipe.settings.is_empty() {
        key = key.text("settings", recipe.settings);
    }
    let inputs = key.name();
    let again = Key::new().text("inputs", &inputs);
    let directory = workspace
        .cache
        .product(&format!("kernel-{}", recipe.who), again, |place| {
            let mut configuration = fragments
                .iter()
                .map(|path| {
                    fs::read_to_string(path)
                        .with_context(|| format!("cannot read {}", path.display()))
                })
                .collect::<Result<Vec<_>>>()?;
            configuration.push(recipe.settings.to_owned());
            let configuration = merged(&configuration);
            if recipe.stays_whole {
                return compile(workspace, recipe, &source, &configuration, place);
            }
            let whole = place.join("build");
            fs::create_dir(&whole)?;
            compile(workspace, recipe, &source, &configuration, &whole)?;
            for name in KEPT {
                let to = place.join(name);
                if let Some(directory) = to.parent() {
                    fs::create_dir_all(directory)?;
                }
                fs::rename(whole.join(name), to)
                    .with_context(|| format!("the kernel's build left no {name}"))?;
            }
            Ok(fs::remove_dir_all(&whole)?)
        })?;
    let kernel = Kernel {
        who: recipe.who,
        image: directory.join(IMAGE),
        directory,
        inputs,
    };
    if recipe.who == Recipe::HOST.who {
        let size = fs::metadata(&kernel.image)?.len();
        ensure!(
            size <= HOST_IMAGE_LIMIT,
            "the host kernel's Image has {size} bytes, more than the {HOST_IMAGE_LIMIT} of its budget; see qemu/kernel/host.config"
        );
    }
    Ok(kernel)
}

fn compile(
    workspace: &Workspace,
    recipe: &Recipe,
    source: &Source,
    configuration: &str,
    place: &Path,
) -> Result<()> {
    let who = recipe.who;
    let architecture = Architecture::Arm64;
    Step::new(
        format!("{who} kernel: configuring"),
        workspace.log(&format!("kernel-{who}-config")),
    )
    .run(&mut allnoconfig(
        architecture,
        &source.directory,
        place,
        configuration,
    )?)?;
    ensure_kept(&recipe.fragments.join(" and "), configuration, place)?;
    recipe.targets.iter().try_for_each(|target| {
        Step::new(
            format!("{who} kernel: {target}"),
            workspace.log(&format!("kernel-{who}-{target}")),
        )
        .counting(is_kernel_object, recipe.objects)
        .run(kernel_make_from(&source.directory, architecture, place).arg(target))
    })
}

/// What the compiler of the kernels says of itself.
pub(crate) fn compiler_version() -> Result<String> {
    let output = Command::new("aarch64-linux-gnu-gcc")
        .arg("--version")
        .output()
        .context("aarch64-linux-gnu-gcc is not installed; `make setup` installs it")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The setting that a line is about: `CONFIG_A=y` and `# CONFIG_A is not set`.
fn setting(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    line.starts_with("CONFIG_")
        .then(|| line.split(['=', ' ']).next())
        .flatten()
}

/// Fragments in one, each setting as the last of them has it.
pub(crate) fn merged(fragments: &[String]) -> String {
    let lines: Vec<&str> = fragments.iter().flat_map(|text| text.lines()).collect();
    let mut kept = String::new();
    for (place, line) in lines.iter().enumerate() {
        let later = lines.get(place + 1..).unwrap_or_default();
        let overridden = setting(line)
            .is_some_and(|name| later.iter().any(|later| setting(later) == Some(name)));
        if !overridden {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The `make` that configures a build directory with these settings, and all others off.
pub(crate) fn allnoconfig(
    architecture: Architecture,
    source: &Path,
    place: &Path,
    settings: &str,
) -> Result<Command> {
    fs::create_dir_all(place)?;
    let wanted = place.join(".wanted-config");
    fs::write(&wanted, settings)?;
    let mut make = kernel_make_from(source, architecture, place);
    make.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &wanted);
    Ok(make)
}

/// Fails with the settings that a configured build directory does not have.
pub(crate) fn ensure_kept(fragments: &str, wanted: &str, place: &Path) -> Result<()> {
    let result = fs::read_to_string(place.join(".config"))?;
    let lost = lost_settings(wanted, &result);
    ensure!(
        lost.is_empty(),
        "qemu/kernel/{fragments}: the kernel's configuration does not keep {}",
        lost.join(", ")
    );
    Ok(())
}

/// Every setting that we name must have come through: kconfig drops what it cannot keep in silence.
fn lost_settings<'a>(wanted: &'a str, result: &str) -> Vec<&'a str> {
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") && !result.lines().any(|kept| kept == *line))
        .collect()
}

/// The function that an address of the kernel's own code lies in, by its `System.map`.
pub(crate) fn function_at(system_map: &str, address: u64) -> Option<&str> {
    let mut best: Option<(u64, &str)> = None;
    let mut end = 0;
    for line in system_map.lines() {
        let mut words = line.split(' ');
        let (Some(at), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(at) = u64::from_str_radix(at, 16) else {
            continue;
        };
        if name == "_etext" {
            end = at;
        }
        // `$x` and the like mark code for the assembler; `__pi_` names are second names.
        if matches!(kind, "t" | "T" | "w" | "W")
            && !name.starts_with('$')
            && at <= address
            && best
                .is_none_or(|(found, name)| at > found || at == found && name.starts_with("__pi_"))
        {
            best = Some((at, name));
        }
    }
    best.filter(|_| address < end).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_setting_is_named() {
        let lost = lost_settings(
            "# text\nCONFIG_A=y\nCONFIG_B=y\n",
            "CONFIG_A=y\n# CONFIG_B is not set\n",
        );
        assert_eq!(lost, ["CONFIG_B=y"]);
    }

    #[test]
    fn a_later_fragment_overrides() {
        let first = "# the first\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_AB=y\n".to_owned();
        let second = "CONFIG_B=y\n# CONFIG_A is not set\n".to_owned();
        assert_eq!(
            merged(&[first, second]),
            "# the first\nCONFIG_AB=y\nCONFIG_B=y\n# CONFIG_A is not set\n"
        );
    }

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let map = "ffff800080000000 T _text\nffff800080010000 T copy_page\nffff800080010080 t $x\nffff800080010100 T clear_page\nffff800080020000 D _etext\n";
        assert_eq!(function_at(map, 0xffff_8000_8001_0084), Some("copy_page"));
        assert_eq!(function_at(map, 0xffff_8000_8001_0100), Some("clear_page"));
        assert_eq!(function_at(map, 0xffff_8000_8002_0004), None);
        assert_eq!(function_at(map, 0x10), None);
    }
}
