//! The demonstration: the mission in one run, each claim with its line of evidence.

use super::{Bench, GUARD, Test};
use crate::build::Workspace;
use crate::console::Console;
use anyhow::{Result, bail, ensure};

/// A claim, and texts that must all stand in one line of the console for it to be shown.
struct Evidence {
    claim: &'static str,
    shown_by: &'static [&'static str],
}

const EVIDENCE: [Evidence; 11] = [
    Evidence {
        claim: "the host runs at EL1",
        shown_by: &["pinfold: entering host at EL1"],
    },
    Evidence {
        claim: "the protected guest is up",
        shown_by: &["guest: Linux", "is up"],
    },
    Evidence {
        claim: "every page of the guest was exclusively pinned at donation",
        shown_by: &["demo: ok: guest pages"],
    },
    Evidence {
        claim: "a donation without any pin is refused",
        shown_by: &["demo: ok: no pin"],
    },
    Evidence {
        claim: "a donation with an ordinary pin is refused",
        shown_by: &["demo: ok: ordinary pin"],
    },
    Evidence {
        claim: "a donation with two pins is refused",
        shown_by: &["demo: ok: two pins"],
    },
    Evidence {
        claim: "a process that reads a donated page is stopped",
        shown_by: &["demo: ok: read"],
    },
    Evidence {
        claim: "a process that writes a donated page is stopped, the pattern intact",
        shown_by: &["demo: ok: write"],
    },
    Evidence {
        claim: "EL2's memory cannot be read",
        shown_by: &["demo: ok: EL2 memory"],
    },
    Evidence {
        claim: "the guest powered off",
        shown_by: &["demo: ok: guest powered off"],
    },
    Evidence {
        claim: "after reclaim the pages are zero and the folio array is as before",
        shown_by: &["demo: ok: reclaimed"],
    },
];

/// The demonstration as a test.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::one("demo", |bench| {
        let mut console = bench.console(&bench.host("\"pinfold demo\""), "demo")?;
        watch(&mut console)
    })]
}

/// The demonstration on the terminal.
pub(crate) fn run_demo(workspace: Workspace) -> Result<()> {
    let bench = Bench::new(workspace)?;
    let mut console = bench
        .console(&bench.host("\"pinfold demo\""), "demo")?
        .echoing();
    watch(&mut console)?;
    println!();
    for evidence in &EVIDENCE {
        let line = line_for(console.seen(), evidence).unwrap_or_default();
        println!("shown: {}\n       {line}", evidence.claim);
    }
    Ok(())
}

fn watch(console: &mut Console) -> Result<()> {
    let ended = console.expect("host: task ended:", GUARD)?;
    console.wait(GUARD)?;
    let missing: Vec<&str> = EVIDENCE
        .iter()
        .filter(|evidence| line_for(console.seen(), evidence).is_none())
        .map(|evidence| evidence.claim)
        .collect();
    if !missing.is_empty() {
        bail!("not shown: {}", missing.join("; "));
    }
    ensure!(
        ended.ends_with("ended: 0"),
        "the demonstration did not succeed: {ended}"
    );
    Ok(())
}

fn line_for<'a>(seen: &'a str, evidence: &Evidence) -> Option<&'a str> {
    seen.lines()
        .find(|line| evidence.shown_by.iter().all(|text| line.contains(text)))
}
