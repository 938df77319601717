//! The corpus of scenarios on real EL2: under the mini host and under Linux; each must come to what the specification says.
//!
//! That core comes to the same is tested without a machine. A scenario whose outcome differs has failed, also where it passed by itself.

use super::{Bench, GUARD, Tally, Test, mini_host, tap};
use crate::build::Workspace;
use crate::console::Console;
use crate::machine::{Cpu, Machine};
use crate::scenario::{Corpus, Digests};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// On the mini host, and on Linux.
pub(crate) fn tests() -> Vec<Test> {
    let on_mini_host = |bench: &Bench| {
        let corpus = Corpus::of(&bench.workspace)?;
        let products = &bench.products;
        on_mini_host(
            &bench.workspace,
            &products.pinfold,
            &products.mini_host,
            &corpus,
        )
    };
    vec![
        Test::many("scenarios on the mini host", on_mini_host),
        Test::many("scenarios on Linux", on_linux),
    ]
}

/// Runs the corpus in the host, and compares its outcomes.
fn on_linux(bench: &Bench) -> Result<Tally> {
    let corpus = Corpus::of(&bench.workspace)?;
    let machine = bench.host("pinfold scenario /scenarios");
    let mut console = bench.console(&machine, "scenarios-linux")?;
    console.expect("host: task ended", GUARD)?;
    let status = console.wait(GUARD)?;
    ensure!(status.success(), "QEMU ended with {status}");
    compared(console.seen(), &corpus.specified()?)
}

/// Runs scenarios on the mini host with four CPUs, and compares their outcomes.
pub(crate) fn on_mini_host(
    workspace: &Workspace,
    pinfold: &Path,
    host: &Path,
    corpus: &Corpus,
) -> Result<Tally> {
    let texts = workspace.out("scenarios-asked-for")?;
    std::fs::write(&texts, &corpus.bundle)?;
    let machine = Machine {
        cpu: Cpu::Max,
        ..mini_host::machine([pinfold, host, &texts], "scenarios")
    };
    let mut console = Console::start(&machine, &workspace.out("logs/scenarios-mini-host.log")?)?;
    mini_host::ended(&mut console, GUARD)?;
    compared(console.seen(), &corpus.specified()?)
}

/// The results of a run, of which those that came to something else than the specification says have failed.
fn compared(seen: &str, specified: &Digests) -> Result<Tally> {
    let mut tally = tap::count(seen)?;
    show_reasons(seen);
    let (passed, mut compared) = (tally.passed, 0);
    for line in seen.lines() {
        let Some(outcome) = line.trim().strip_prefix("# outcome ") else {
            continue;
        };
        let (name, digest) = outcome
            .split_once(' ')
            .context("an outcome without a digest")?;
        let digest = u64::from_str_radix(digest, 16)?;
        let expected = specified
            .get(name)
            .with_context(|| format!("there is no scenario {name}"))?;
        compared += 1;
        if digest != *expected {
            println!("      {name} came to something else than the specification says");
            tally.passed -= 1;
            tally.failed += 1;
        }
    }
    ensure!(
        compared == passed,
        "{passed} scenarios passed, {compared} said to what they came"
    );
    println!("      {compared} outcomes compared with the specification");
    Ok(tally)
}

/// Prints why scenarios failed.
fn show_reasons(seen: &str) {
    let mut lines = seen.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("not ok ")
            && let Some(reason) = lines.next()
        {
            println!("      {reason}");
        }
    }
}
