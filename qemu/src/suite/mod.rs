//! Everything that `make test` runs, and how it is counted.
//!
//! A [`Test`] is a name and a function that gives a [`Tally`]. Tests run on as many threads as
//! there are CPUs; each prints one line when it ends, with the cause and the log when it failed.
//! The last line of all is `N passed, N failed`.

mod attacks;
mod bad_input;
mod boot;
mod cost;
mod demonstration;
mod driver;
mod ending;
mod exclusive_pins;
mod mini_host;
mod oracle;
mod program;
mod protocol;
mod scenarios;
mod shell;
mod tap;
mod tools;
mod unit;

use crate::build::{Bin, Cargo, DebugHost, Products, Workspace};
use crate::console::Console;
use crate::machine::{Boot, Machine, Modules};
use anyhow::{Context, Result, anyhow, bail};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

pub(crate) use demonstration::run_demo;
pub(crate) use ending::without_complaints;
pub(crate) use oracle::{StormOrders, run_storm};
pub(crate) use scenarios::on_mini_host;
pub(crate) use unit::cargo_test;

/// A guard against hangs. Longer than anything takes even on a loaded machine.
const GUARD: Duration = Duration::from_secs(240);

/// How many passed, how many failed, and how many this machine cannot run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u32,
    /// Tests that failed.
    pub(crate) failed: u32,
    /// Tests that could not run here; each has printed its reason.
    pub(crate) skipped: u32,
}

impl Tally {
    /// One test that passed.
    pub(crate) const PASS: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One test that failed.
    pub(crate) const FAIL: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One test that could not run.
    pub(crate) const SKIP: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Adds what others came to.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Prints the line that everything ends with; an error if something failed.
    pub(crate) fn conclude(self) -> Result<()> {
        if self.skipped > 0 {
            println!("{} skipped, each with its reason above", self.skipped);
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 || self.passed == 0 {
            bail!("");
        }
        Ok(())
    }
}

/// What tests work on.
pub(crate) struct Bench {
    workspace: Workspace,
    products: Products,
    /// Only there if a test asks for it: its kernel takes minutes to build.
    debug_host: Option<DebugHost>,
    /// The image that judges itself, once a test has asked for it.
    oracle: OnceLock<Result<PathBuf, String>>,
}

/// What a test does.
type Body = Box<dyn FnOnce(&Bench) -> Result<Tally> + Send>;

/// A test by its name.
pub(crate) struct Test {
    name: String,
    needs_debug_host: bool,
    run: Body,
}

impl Test {
    /// A test that counts as one.
    pub(crate) fn one(
        name: impl Into<String>,
        run: impl FnOnce(&Bench) -> Result<()> + Send + 'static,
    ) -> Self {
        Self::many(name, |bench| run(bench).map(|()| Tally::PASS))
    }

    /// A test that counts its parts.
    pub(crate) fn many(
        name: impl Into<String>,
        run: impl FnOnce(&Bench) -> Result<Tally> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            needs_debug_host: false,
            run: Box::new(run),
        }
    }

    /// A test on the host that looks for mistakes; counts its parts.
    fn on_debug_host(
        name: impl Into<String>,
        run: impl FnOnce(&Bench, &DebugHost) -> Result<Tally> + Send + 'static,
    ) -> Self {
        let run = |bench: &Bench| run(bench, bench.debug_host.as_ref().context("no debug host")?);
        Self {
            needs_debug_host: true,
            ..Self::many(name, run)
        }
    }
}

impl Bench {
    /// A bench with everything built.
    pub(crate) fn new(workspace: Workspace) -> Result<Self> {
        let products = Products::build(&workspace)?;
        Ok(Self {
            workspace,
            products,
            debug_host: None,
            oracle: OnceLock::new(),
        })
    }

    fn with_debug_host(self) -> Result<Self> {
        let debug_host = DebugHost::build(&self.workspace, &self.products)?;
        Ok(Self {
            debug_host: Some(debug_host),
            ..self
        })
    }

    /// EL2's image that judges itself.
    fn oracle(&self) -> Result<PathBuf> {
        let build = || {
            let image = Cargo::new(&self.workspace).image(&Bin::ORACLE);
            image
                .map(|image| image.flat)
                .map_err(|error| format!("{error:#}"))
        };
        self.oracle
            .get_or_init(build)
            .clone()
            .map_err(|error| anyhow!(error))
    }

    /// The host under Pinfold, with a task on its command line.
    fn host(&self, task: &str) -> Machine {
        self.host_with(&format!("task=\"{task}\""))
    }

    /// The host under Pinfold, with arguments for its kernel.
    fn host_with(&self, arguments: &str) -> Machine {
        self.host_on(self.products.pinfold.clone(), arguments)
    }

    /// The host under an image of EL2, with arguments for its kernel.
    fn host_on(&self, image: PathBuf, arguments: &str) -> Machine {
        Machine::new(Boot::Hypervisor {
            image,
            host: Some(Modules {
                kernel: self.products.host_kernel.clone(),
                initramfs: Some(self.products.host_initramfs.clone()),
                arguments: format!("console=ttyAMA0 panic=-1 {arguments}"),
            }),
        })
    }

    fn console(&self, machine: &Machine, name: &str) -> Result<Console> {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Console::start(machine, &self.workspace.out(&format!("logs/{name}.log"))?)
    }
}

/// Every test, in the order in which they begin.
fn all() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(unit::tests());
    tests.extend(mini_host::tests());
    tests.extend(boot::tests());
    tests.extend(bad_input::tests());
    tests.extend(program::tests());
    tests.extend(driver::tests());
    tests.extend(shell::tests());
    tests.extend(tools::tests());
    tests.extend(cost::tests());
    tests.extend(exclusive_pins::tests());
    tests.extend(demonstration::tests());
    // What takes longest comes last.
    tests.extend(protocol::tests());
    tests.extend(scenarios::tests());
    tests.extend(oracle::tests());
    tests
}

/// The names of all tests.
#[cfg(test)]
fn names() -> impl Iterator<Item = String> {
    all().into_iter().map(|test| test.name)
}

/// Runs every test whose name contains the filter.
pub(crate) fn run(workspace: Workspace, filter: &str) -> Result<()> {
    let mut tests = all();
    tests.retain(|test| test.name.contains(filter));
    let bench = Bench::new(workspace).and_then(|bench| {
        if tests.iter().any(|test| test.needs_debug_host) {
            bench.with_debug_host()
        } else {
            Ok(bench)
        }
    });
    match bench {
        Ok(bench) => run_all(&bench, tests).conclude(),
        Err(error) => {
            println!("FAIL  build: {error:#}");
            Tally::FAIL.conclude()
        }
    }
}

fn run_all(bench: &Bench, tests: Vec<Test>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(tests.into_iter());
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(test) = next(&waiting) {
                    let tally = run_one(bench, test);
                    if let Ok(mut total) = total.lock() {
                        total.add(tally);
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or(Tally::FAIL)
}

fn next(waiting: &Mutex<impl Iterator<Item = Test>>) -> Option<Test> {
    waiting.lock().ok()?.next()
}

fn run_one(bench: &Bench, test: Test) -> Tally {
    let begun = Instant::now();
    let result = (test.run)(bench);
    let seconds = begun.elapsed().as_secs_f32();
    match result {
        Ok(tally) => {
            let word = if tally.failed == 0 { "ok  " } else { "FAIL" };
            println!("{word}  {} ({seconds:.1} s)", test.name);
            tally
        }
        Err(error) => {
            println!("FAIL  {} ({seconds:.1} s): {error:#}", test.name);
            Tally::FAIL
        }
    }
}
