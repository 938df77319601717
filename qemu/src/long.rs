//! `make long`: everything that takes hours and starts no machine.
//!
//! All states of the machine of four pages, random runs with other seeds, and fuzzing. The time is divided between the last two.

use crate::build::{Cargo, Workspace};
use crate::fuzz;
use crate::suite::Tally;
use anyhow::{Result, ensure};
use clap::Args;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs that one pass of random runs makes.
const RUNS: &str = "2000";

/// How long.
#[derive(Args)]
pub(crate) struct Extent {
    /// Hours, besides what all states take.
    #[arg(long, default_value_t = 2)]
    hours: u64,
    /// The first seed of the random runs; each pass takes the next.
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

/// Runs everything, also after something that failed; the last line counts it.
pub(crate) fn run(workspace: &Workspace, extent: &Extent) -> Result<()> {
    let half = Duration::from_secs(extent.hours.saturating_mul(1800));
    let mut tally = Tally::default();
    let mut count = |name: &str, result: Result<()>| match result {
        Ok(()) => tally.passed += 1,
        Err(error) => {
            println!("FAIL  {name}: {error:#}");
            tally.failed += 1;
        }
    };
    count("all states", all_states(workspace));
    count("random runs", random_runs(workspace, half, extent.seed));
    let fuzzing = fuzz::Extent {
        seconds: half.as_secs(),
        seed: extent.seed,
        input: None,
    };
    count("fuzzing", fuzz::run(workspace, &fuzzing));
    tally.conclude()
}

/// Tests of the specification, in a build of its own: it is optimised.
fn tests(workspace: &Workspace, test: &str, arguments: &[&str]) -> Command {
    let mut cargo = Cargo::new(workspace).command("test");
    cargo.args([
        "--package",
        "pinfold-spec",
        "--test",
        test,
        "--",
        "--nocapture",
    ]);
    cargo.args(arguments);
    cargo
}

fn all_states(workspace: &Workspace) -> Result<()> {
    let output = tests(workspace, "exhaustive", &["--ignored"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}", text.trim());
    for line in text.lines().filter(|line| line.contains("Figures")) {
        println!("ok    {}", line.rsplit("... ").next().unwrap_or(line));
    }
    Ok(())
}

fn random_runs(workspace: &Workspace, time: Duration, first: u32) -> Result<()> {
    let start = Instant::now();
    let mut passes = 0;
    for seed in first.. {
        let mut command = tests(workspace, "agree", &["random_runs"]);
        command
            .env("PINFOLD_SEED", seed.to_string())
            .env("PROPTEST_CASES", RUNS);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "seed {seed}: {}", text.trim());
        passes += 1;
        if start.elapsed() >= time {
            break;
        }
    }
    println!("ok    random runs: {passes} times {RUNS}, seeds from {first}");
    Ok(())
}
