//! `cargo qemu series`: what a maintainer asks of every patch, asked before he does.
//!
//! In a scratch copy of Debian's source the patches are applied one by one. After each one: its style
//! (`checkpatch --strict`), `mm/` and the files that the series touches for two architectures with the
//! option on and off, and that sparse and `W=1` find nothing in the touched files that they did not find
//! without the series. After the last one: a kernel that boots, and the same files without one after another of the features that the
//! series deals with.
//! Each of these counts as one test; the last line is `N passed, N failed`. What was right once is not asked again while its
//! inputs stay as they are, so a run that was cut short goes on where it was.

mod warnings;

use crate::build::{Architecture, Source, Workspace, apply, end, init_alone, link};
use crate::build::{
    allnoconfig, compiler_version, ensure_kept, kernel_make_from, merged, patches_of, touched,
};
use crate::cache::Key;
use crate::console::Console;
use crate::machine::{Boot, Machine, Modules};
use crate::step::Step;
use crate::suite::{Tally, without_complaints};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use warnings::Warnings;

/// A guard against hangs.
const GUARD: Duration = Duration::from_secs(240);

/// The option that the series is about.
const OPTION: &str = "EXCLUSIVE_PIN";

/// Features that `mm/` must also build without.
const FEATURES: [&str; 5] = [
    "TRANSPARENT_HUGEPAGE",
    "HUGETLBFS",
    "KSM",
    "SWAP",
    "NUMA_BALANCING",
];

/// How much is asked.
#[derive(clap::Args)]
pub(crate) struct Extent {
    /// Only the style of each patch, and the whole series for arm64 with the option on
    #[arg(long)]
    quick: bool,
    /// Boot a kernel after each patch, not only after the last
    #[arg(long, conflicts_with = "quick")]
    boot: bool,
}

/// Asks everything.
pub(crate) fn run(workspace: &Workspace, extent: &Extent) -> Result<()> {
    let _lock = workspace.cache.lock("series")?;
    let plain = Source::plain(workspace)?;
    let patches = patches_of(&workspace.path("host-shim/patches"))?;
    let scratch = Scratch::new(workspace, &plain, &patches)?;
    let mut report = Report::new(workspace)?;
    let mut inputs = scratch.inputs()?;
    let variations: &[Variation] = if extent.quick {
        &[Variation::ARM64_ON]
    } else {
        &Variation::ALL
    };
    let architectures: BTreeSet<_> = variations.iter().map(|one| one.architecture).collect();
    let before = architectures
        .into_iter()
        .map(|architecture| {
            let found = scratch.warnings(architecture, &scratch.objects(architecture))?;
            Ok((architecture, found))
        })
        .collect::<Result<Vec<_>>>()?;

    for (place, patch) in patches.iter().enumerate() {
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        let is_last = place + 1 == patches.len();
        inputs = inputs.file(patch)?;
        report.ask(&inputs, &format!("{name}: style"), || {
            style(workspace, &plain, patch)
        })?;
        // What cannot be applied leaves nothing to ask of those that follow.
        apply(patch, &scratch.source)?;
        if extent.quick && !is_last {
            continue;
        }
        for variation in variations {
            let what = format!("{name}: builds for {}", variation.name);
            report.ask(&inputs, &what, || scratch.builds(variation, is_last))?;
        }
        for (architecture, before) in &before {
            // In the end all of them: a later patch may have spoilt what an earlier one touched.
            let objects = if is_last {
                scratch.objects(*architecture)
            } else {
                objects(&scratch.source, *architecture, &touched(patch)?)
            };
            let what = format!("{name}: no new warnings for {}", architecture.name());
            report.ask(&inputs, &what, || {
                let found = scratch.warnings(*architecture, &objects)?;
                found.nothing_new_since(before)
            })?;
        }
        if extent.boot || is_last && !extent.quick {
            report.ask(&inputs, &format!("{name}: boots"), || scratch.boots())?;
        }
    }
    if !extent.quick {
        without_features(&scratch, &inputs, &mut report)?;
    }
    report.tally.conclude()?;
    Ok(fs::remove_dir_all(&scratch.root)?)
}

fn without_features(scratch: &Scratch<'_>, inputs: &Key, report: &mut Report) -> Result<()> {
    for feature in FEATURES {
        for variation in [
            Variation::ARM64_ON,
            Variation::ARM64_OFF,
            Variation::X86_64_ON,
        ] {
            let what = format!("builds for {} without {feature}", variation.name);
            report.ask(inputs, &what, || {
                scratch.builds_without(&variation, feature)
            })?;
        }
    }
    Ok(())
}

/// Says how each question was answered, counts, and remembers what was right.
struct Report {
    tally: Tally,
    /// A file for each question that was answered well, named by its inputs.
    answers: PathBuf,
}

impl Report {
    fn new(workspace: &Workspace) -> Result<Self> {
        let answers = workspace.cache.path("series-answers");
        fs::create_dir_all(&answers)?;
        Ok(Self {
            tally: Tally::default(),
            answers,
        })
    }

    /// Asks, if it was not answered well before with the same inputs. Fails only if the answer cannot be remembered.
    fn ask(
        &mut self,
        inputs: &Key,
        what: &str,
        question: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let answer = self
            .answers
            .join(inputs.clone().text("question", what).name());
        if answer.exists() {
            println!("ok    {what} (as before)");
            self.tally.passed += 1;
            return Ok(());
        }
        match question() {
            Ok(()) => {
                println!("ok    {what}");
                self.tally.passed += 1;
                fs::write(&answer, what)
                    .with_context(|| format!("cannot write {}", answer.display()))?;
            }
            Err(error) => {
                println!("FAIL  {what}: {error:#}");
                self.tally.failed += 1;
            }
        }
        Ok(())
    }
}

/// An architecture with the option on or off.
struct Variation {
    name: &'static str,
    architecture: Architecture,
    on: bool,
}

impl Variation {
    const ARM64_ON: Self = Self::new("arm64, on", Architecture::Arm64, true);
    const ARM64_OFF: Self = Self::new("arm64, off", Architecture::Arm64, false);
    const X86_64_ON: Self = Self::new("x86_64, on", Architecture::X86_64, true);
    const ALL: [Self; 4] = [
        Self::ARM64_ON,
        Self::ARM64_OFF,
        Self::X86_64_ON,
        Self::new("x86_64, off", Architecture::X86_64, false),
    ];

    const fn new(name: &'static str, architecture: Architecture, on: bool) -> Self {
        Self {
            name,
            architecture,
            on,
        }
    }

    /// The build directory's name.
    fn directory(&self) -> String {
        self.name.replace(", ", "-")
    }
}

/// The source with some of the patches, and a build directory for each variation.
struct Scratch<'a> {
    workspace: &'a Workspace,
    plain: &'a Source,
    root: PathBuf,
    source: PathBuf,
    /// What any of the patches touches.
    touched: BTreeSet<String>,
}

impl<'a> Scratch<'a> {
    /// The unpatched source. Build directories do not outlive a run: make goes by time, and this source is older than they.
    fn new(workspace: &'a Workspace, plain: &'a Source, patches: &[PathBuf]) -> Result<Self> {
        let root = workspace.cache.path("series");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let source = root.join("source");
        fs::create_dir_all(&source)?;
        link(&plain.directory, &source)?;
        let mut all = BTreeSet::new();
        for patch in patches {
            all.extend(touched(patch)?);
        }
        Ok(Self {
            workspace,
            plain,
            root,
            source,
            touched: all,
        })
    }

    /// What every answer depends on, besides the patches: the source, the configurations, the compilers, the files that are asked about.
    fn inputs(&self) -> Result<Key> {
        let mut key = self.plain.key()?;
        for fragment in ["series.config", "bench.config"] {
            key = key.file(&self.workspace.path("qemu/kernel").join(fragment))?;
        }
        for file in &self.touched {
            key = key.text("touched", file);
        }
        // What is asked, and how.
        for text in [
            include_str!("series.rs"),
            include_str!("series/warnings.rs"),
            include_str!("build/kernel.rs"),
        ] {
            key = key.text("questions", text);
        }
        key = key.text("compiler", &compiler_version()?);
        for compiler in ["gcc", "sparse"] {
            let version = Command::new(compiler)
                .arg("--version")
                .output()
                .with_context(|| format!("cannot run {compiler}"))?;
            key = key.text(compiler, &String::from_utf8_lossy(&version.stdout));
        }
        Ok(key)
    }

    fn objects(&self, architecture: Architecture) -> Vec<String> {
        objects(&self.source, architecture, &self.touched)
    }

    fn builds(&self, variation: &Variation, is_last: bool) -> Result<()> {
        let directory = variation.directory();
        let settings = self.configure(variation.architecture, variation.on, &directory, "")?;
        if is_last {
            ensure_kept("series.config", &settings, &self.root.join(&directory))?;
        }
        self.compile(variation, &directory)
    }

    fn builds_without(&self, variation: &Variation, feature: &str) -> Result<()> {
        let directory = variation.directory();
        let off = format!("# CONFIG_{feature} is not set\n");
        self.configure(variation.architecture, variation.on, &directory, &off)?;
        let config = self.root.join(&directory).join(".config");
        let config = fs::read_to_string(&config)
            .with_context(|| format!("cannot read {}", config.display()))?;
        let on = format!("CONFIG_{feature}=y");
        ensure!(!config.lines().any(|line| line == on), "{on} all the same");
        self.compile(variation, &directory)
    }

    fn compile(&self, variation: &Variation, directory: &str) -> Result<()> {
        let mut make = self.make(variation.architecture, directory);
        let elsewhere = self.objects(variation.architecture);
        let elsewhere = elsewhere.iter().filter(|object| !object.starts_with("mm/"));
        let step = self.step(directory);
        step.run(make.arg("mm/").args(elsewhere))
    }

    /// What sparse and `W=1` say of some objects.
    fn warnings(&self, architecture: Architecture, objects: &[String]) -> Result<Warnings> {
        if objects.is_empty() {
            return Ok(Warnings::default());
        }
        let directory = format!("{}-warnings", architecture.name());
        self.configure(architecture, true, &directory, "")?;
        let log = self.workspace.log(&format!("series-{directory}"));
        let mut make = self.make(architecture, &directory);
        self.step(&directory)
            .run(make.args(["W=1", "C=2"]).args(objects))?;
        let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        Ok(Warnings::of(&said, &self.source, &self.touched))
    }

    /// Builds the small kernel of `make gup-bench` with the option on, and boots it to its first process.
    fn boots(&self) -> Result<()> {
        let workspace = self.workspace;
        let directory = "boot";
        let fragment = fs::read_to_string(workspace.path("qemu/kernel/bench.config"))?;
        let on = format!("CONFIG_{OPTION}=y\n");
        self.allnoconfig(Architecture::Arm64, directory, &merged(&[fragment, on]))?;
        self.step("a bootable kernel")
            .run(self.make(Architecture::Arm64, directory).arg("Image"))?;
        let machine = Machine::new(Boot::Bare(Modules {
            kernel: self.root.join(directory).join("arch/arm64/boot/Image"),
            initramfs: Some(init_alone(workspace, &end(workspace)?, "series-initramfs")?),
            arguments: "console=ttyAMA0 panic=-1".to_owned(),
        }));
        let mut console = Console::start(&machine, &workspace.out("logs/series.log")?)?;
        console.expect("Run /init as init process", GUARD)?;
        without_complaints(&mut console)
    }

    /// Configures with everything that the series touches; returns what was asked for.
    fn configure(
        &self,
        architecture: Architecture,
        on: bool,
        directory: &str,
        more: &str,
    ) -> Result<String> {
        let fragment = fs::read_to_string(self.workspace.path("qemu/kernel/series.config"))?;
        let own = match architecture {
            // Tags of memory, and what they depend on.
            Architecture::Arm64 => {
                "CONFIG_ARM64_PAN=y\nCONFIG_ARM64_TAGGED_ADDR_ABI=y\nCONFIG_ARM64_MTE=y\n"
            }
            // What memory failure depends on there.
            Architecture::X86_64 => "CONFIG_X86_MCE=y\n",
        };
        let option = if on {
            format!("CONFIG_{OPTION}=y\n")
        } else {
            format!("# CONFIG_{OPTION} is not set\n")
        };
        let settings = merged(&[fragment, own.to_owned(), option, more.to_owned()]);
        self.allnoconfig(architecture, directory, &settings)?;
        Ok(settings)
    }

    fn allnoconfig(
        &self,
        architecture: Architecture,
        directory: &str,
        settings: &str,
    ) -> Result<()> {
        let place = self.root.join(directory);
        let mut make = allnoconfig(architecture, &self.source, &place, settings)?;
        self.step(&format!("{directory} configuring"))
            .run(&mut make)
    }

    fn make(&self, architecture: Architecture, directory: &str) -> Command {
        kernel_make_from(&self.source, architecture, &self.root.join(directory))
    }

    fn step(&self, what: &str) -> Step {
        let what = format!("series {what}");
        let log = self.workspace.log(&what.replace(' ', "-"));
        Step::new(what, log)
    }
}

fn style(workspace: &Workspace, plain: &Source, patch: &Path) -> Result<()> {
    Step::new("checkpatch", workspace.log("series-checkpatch"))
        .run(plain.checkpatch().arg("--show-types").arg(patch))
}

/// The objects of touched files that are there and belong to an architecture's kernel.
fn objects(source: &Path, architecture: Architecture, touched: &BTreeSet<String>) -> Vec<String> {
    let own = format!("arch/{}/", architecture.directory());
    touched
        .iter()
        .filter(|file| !file.starts_with("arch/") || file.starts_with(&own))
        .filter(|file| !file.starts_with("tools/") && source.join(file).exists())
        .filter_map(|file| file.strip_suffix(".c"))
        .map(|stem| format!("{stem}.o"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_those_of_the_architecture() {
        let directory = tempfile::tempdir().unwrap();
        let patch = directory.path().join("a.patch");
        let files = [
            "mm/gup.c",
            "mm/new.c",
            "include/linux/mm.h",
            "arch/arm64/mm/fault.c",
            "tools/testing/a.c",
        ];
        fs::write(&patch, files.map(|file| format!("+++ b/{file}\n")).concat()).unwrap();
        for file in files.iter().filter(|file| !file.contains("new")) {
            let place = directory.path().join(file);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, "").unwrap();
        }
        let touched = touched(&patch).unwrap();
        let on = |architecture| objects(directory.path(), architecture, &touched);
        assert_eq!(
            on(Architecture::Arm64),
            ["arch/arm64/mm/fault.o", "mm/gup.o"]
        );
        assert_eq!(on(Architecture::X86_64), ["mm/gup.o"]);
    }
}
