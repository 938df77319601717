//! `cargo qemu <verb>`: builds everything, starts it in QEMU, tests it.
//!
//! The Makefile's commands are these verbs. [`build::Products`] is what there is to start,
//! [`machine::Machine`] what it is started on, [`console::Console`] how it is watched.

mod build;
mod cache;
mod check;
mod console;
mod coverage;
mod fuzz;
mod gup_bench;
mod interactive;
mod long;
mod machine;
mod scenario;
mod series;
mod step;
mod suite;

use anyhow::Result;
use build::{Products, Source, Workspace};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds Pinfold and runs it in QEMU.
#[derive(Parser)]
#[command(name = "cargo qemu", bin_name = "cargo qemu")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything that runs, into out/.
    Build,
    /// Start the host and stay at its shell.
    Run(interactive::Shape),
    /// Show the whole mission without a keyboard.
    Demo,
    /// Run the tests; ends with `N passed, N failed`.
    Test {
        /// Only tests whose name contains this.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Run scenarios on the specification and on core, and with --el2 on real EL2 under the mini host.
    Scenario(scenario::Arguments),
    /// Format, lints, tests on this machine, documentation, unsafe budget.
    Check,
    /// Which lines of the core the tests on this machine run; fails below the share that they must.
    Coverage,
    /// Look for inputs that break the core, guided by coverage and by the specification's state.
    Fuzz(fuzz::Extent),
    /// Everything that takes hours: all states, long random runs, long fuzzing.
    Long(long::Extent),
    /// Random calls from four CPUs, judged one by one by EL2's specification.
    Storm(suite::StormOrders),
    /// What exclusive pins cost, in instructions for each page; fails when a budget is exceeded.
    GupBench,
    /// What a maintainer asks of every patch of the series; ends with `N passed, N failed`.
    Series(series::Extent),
    /// Unpack the kernel's source and apply the series; says which patch no longer fits.
    Source,
    /// Start like `run`, stopped at the first instruction, with gdb on it.
    Gdb(interactive::Shape),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            if !error.is_empty() {
                eprintln!("pinfold: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<()> {
    let workspace = Workspace::open()?;
    match verb {
        Verb::Build => Products::build(&workspace).map(|_| ()),
        Verb::Run(shape) => interactive::run(&workspace, &shape),
        Verb::Demo => suite::run_demo(workspace),
        Verb::Test { filter } => suite::run(workspace, &filter),
        Verb::Scenario(arguments) => scenario::run(&workspace, &arguments),
        Verb::Storm(orders) => suite::run_storm(&workspace, &orders),
        Verb::Check => check::run(&workspace),
        Verb::Coverage => coverage::run(&workspace),
        Verb::Fuzz(extent) => fuzz::run(&workspace, &extent),
        Verb::Long(extent) => long::run(&workspace, &extent),
        Verb::GupBench => gup_bench::run(&workspace),
        Verb::Series(extent) => series::run(&workspace, &extent),
        Verb::Source => Source::patched(&workspace).map(|_| ()),
        Verb::Gdb(shape) => interactive::gdb(&workspace, &shape),
    }
}
