//! The demonstration: the mission in one run, each claim with its line of evidence.

use super::{Bench, GUARD, Test, ending};
use crate::build::Workspace;
use crate::console::Console;
use anyhow::{Result, bail, ensure};

/// The kernel's arguments: no messages of its own between the lines of evidence.
const DEMO: &str = "quiet task=\"pinfold demo\"";

/// A claim, and how the line of the console begins that shows it.
struct Evidence {
    claim: &'static str,
    shown_by: &'static str,
}

const EVIDENCE: [Evidence; 10] = [
    Evidence {
        claim: "the host runs at EL1",
        shown_by: "demo: ok 1 host at EL1 under Pinfold",
    },
    Evidence {
        claim: "the protected guest is up",
        shown_by: "demo: ok 2 protected guest up",
    },
    Evidence {
        claim: "every page of the guest was exclusively pinned at donation",
        shown_by: "demo: ok 3 guest's pages exclusively pinned",
    },
    Evidence {
        claim: "a donation without any pin is refused",
        shown_by: "demo: ok 4 donation without a pin refused",
    },
    Evidence {
        claim: "a donation with an ordinary pin is refused",
        shown_by: "demo: ok 5 donation with an ordinary pin refused",
    },
    Evidence {
        claim: "a donation with two pins is refused",
        shown_by: "demo: ok 6 donation with two pins refused",
    },
    Evidence {
        claim: "processes that read and write a donated page are stopped, the guest's pattern intact",
        shown_by: "demo: ok 7 host's touch stopped, pattern intact",
    },
    Evidence {
        claim: "EL2's memory cannot be read",
        shown_by: "demo: ok 8 EL2 memory unreadable",
    },
    Evidence {
        claim: "the guest powered off",
        shown_by: "demo: ok 9 guest powered off",
    },
    Evidence {
        claim: "after reclaim the pages are zero and the folio array is as before",
        shown_by: "demo: ok 10 reclaimed pages zero, folios as before",
    },
];

/// The demonstration as a test.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::one("demo", |bench| {
        let mut console = bench.console(&bench.host_with(DEMO), "demo")?;
        watch(&mut console)
    })]
}

/// The demonstration on the terminal.
pub(crate) fn run_demo(workspace: Workspace) -> Result<()> {
    let bench = Bench::new(workspace)?;
    let mut console = bench.console(&bench.host_with(DEMO), "demo")?.echoing();
    watch(&mut console)?;
    println!(
        "\nshown: all {} claims, each by its line above",
        EVIDENCE.len()
    );
    Ok(())
}

fn watch(console: &mut Console) -> Result<()> {
    let ended = console.expect("host: task ended:", GUARD)?;
    ending::without_complaints(console)?;
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
        .find(|line| line.starts_with(evidence.shown_by))
}
