//! `cargo qemu scenario`: scenarios without a machine, and, if it is asked for, on real EL2.
//!
//! A [`Corpus`] is what was read; `Expected` is what each of its scenarios must come to everywhere, by the digest of its outcomes.

use crate::build::{Bin, Cargo, Workspace};
use crate::cache::files_below;
use crate::suite::{Tally, on_mini_host};
use anyhow::{Context, Result, bail};
use pinfold_scenario::{Program, Trouble, bundle, on_core, on_specification, parse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the scenarios of the clone are.
const CORPUS: &str = "hyp/scenario/corpus";

/// What can be asked for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Scenario files; the whole corpus if there are none.
    files: Vec<PathBuf>,
    /// Run them on real EL2 as well, under the mini host.
    #[arg(long)]
    el2: bool,
}

/// Scenarios that were read.
pub(crate) struct Corpus {
    programs: Vec<Program>,
    /// All of them, for a machine.
    pub(crate) bundle: String,
}

/// The digest of each scenario's outcomes, by name.
pub(crate) type Digests = BTreeMap<String, u64>;

impl Corpus {
    /// The clone's own.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        let root = workspace.path(CORPUS);
        Self::read(&files_below(&root)?, &root)
    }

    /// Puts the clone's own into one file, for machines.
    pub(crate) fn write(workspace: &Workspace) -> Result<PathBuf> {
        let path = workspace.out("scenarios")?;
        std::fs::write(&path, Self::of(workspace)?.bundle)?;
        Ok(path)
    }

    /// These files; names are paths below `root`, if they are there.
    fn read(files: &[PathBuf], root: &Path) -> Result<Self> {
        let mut corpus = Self {
            programs: Vec::new(),
            bundle: String::new(),
        };
        for path in files {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(path).with_extension("");
            let name = name.to_string_lossy();
            let program = parse(&name, &text);
            corpus
                .programs
                .push(program.map_err(|error| anyhow::anyhow!("{}:{error}", path.display()))?);
            corpus.bundle.push_str(&bundle::entry(&name, &text));
        }
        Ok(corpus)
    }

    /// What the specification says of each.
    pub(crate) fn specified(&self) -> Result<Digests> {
        let specified = self
            .programs
            .iter()
            .map(|program| match on_specification(program) {
                Ok(explored) => Ok((program.name.clone(), explored.report.digest)),
                Err(trouble) => bail!("{}: {}", program.name, text(&trouble)),
            });
        specified.collect()
    }
}

fn text(trouble: &Trouble) -> &str {
    match trouble {
        Trouble::Cannot(what) | Trouble::Wrong(what) => what,
    }
}

/// Runs what was asked for, and says of each scenario how it went.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let corpus = if arguments.files.is_empty() {
        Corpus::of(workspace)?
    } else {
        Corpus::read(&arguments.files, &workspace.path(CORPUS))?
    };
    let mut tally = Tally::default();
    for program in &corpus.programs {
        tally.add(without_machine(program));
    }
    if arguments.el2 {
        let cargo = Cargo::new(workspace);
        let (pinfold, mini_host) = (cargo.image(&Bin::PINFOLD)?, cargo.image(&Bin::MINI_HOST)?);
        tally.add(on_mini_host(
            workspace,
            &pinfold.flat,
            &mini_host.flat,
            &corpus,
        )?);
    }
    tally.conclude()
}

/// Runs a scenario on the specification and on core.
fn without_machine(program: &Program) -> Tally {
    let name = &program.name;
    match (on_specification(program), on_core(program)) {
        (Ok(specified), Ok(core)) if specified.report.digest == core.report.digest => {
            let orders = match core.orders {
                1 => String::new(),
                orders => format!(", in {orders} orders"),
            };
            println!("ok    {name}: specification and core agree{orders}");
            Tally::PASS
        }
        (Ok(specified), Ok(core)) => {
            println!("FAIL  {name}: specification and core disagree");
            for (specified, core) in specified
                .report
                .transcript
                .iter()
                .zip(&core.report.transcript)
            {
                if specified != core {
                    println!("      line {specified} by the specification, {core} on core");
                }
            }
            Tally::FAIL
        }
        (specified, core) => {
            for (who, trouble) in [("specification", specified.err()), ("core", core.err())] {
                if let Some(trouble) = trouble {
                    println!("FAIL  {name} on the {who}: {}", text(&trouble));
                }
            }
            Tally::FAIL
        }
    }
}
