//! EL2 that judges itself: every step of real runs against the specification, mutants that it has to catch, and the storm.

use super::{Bench, GUARD, Tally, Test, ending, mini_host, tap};
use crate::build::{Bin, Cargo, Workspace};
use crate::console::Console;
use crate::machine::{Cpu, Machine};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than the whole set of the mini host takes under the oracle on a loaded machine.
const LONG_GUARD: Duration = Duration::from_secs(1200);

/// Of so many steps of the mini host's set, at most one is passed over: its guests do on purpose what is not specified, which comes to 4 in 1,000. A judge
/// that looks away more often has lost a kind of step.
const OF_SUITE: u64 = 100;
/// The same for storms, of whose steps 3 to 6 in 10,000 are calls for the trace without sense, and for Linux with the demonstration on it, where it is none of
/// 45,000. A short storm has few of them, so chance has its room.
const OF_OTHERS: u64 = 250;
/// Calls an hour that a storm in turns is to reach,
const GOAL: u64 = 5_000_000;
/// and the part of them below which it hangs or crawls, rather than that the machine has other things to do.
const FLOOR: u64 = GOAL / 5;

/// The storm of `make test`.
const STORM: StormOrders = StormOrders {
    seconds: 60,
    seed: Some(1),
    icount: false,
    threads: false,
};

/// A way to break core, a test of the mini host that meets it, and the clause that EL2 names.
struct Case {
    mutant: &'static str,
    test: &'static str,
    clause: &'static str,
}

/// At least one for each family of rules.
const CASES: [Case; 26] = [
    Case {
        mutant: "UnknownCallSucceeds",
        test: "interface::",
        clause: "UnknownCall",
    },
    Case {
        mutant: "HidesPinWord",
        test: "pins::every",
        clause: "RefusalSaysWhere",
    },
    Case {
        mutant: "SkipsPinCheck",
        test: "pins::every",
        clause: "DonateNotPinned",
    },
    Case {
        mutant: "IgnoresIsolation",
        test: "pins::every",
        clause: "DonateNotPinned",
    },
    Case {
        mutant: "GivesUncleaned",
        test: "donation::of_every",
        clause: "DonateCleans",
    },
    Case {
        mutant: "RefusedRelinquishSucceeds",
        test: "sharing::relinquish_one",
        clause: "RelinquishRefused",
    },
    Case {
        mutant: "ShareUncounted",
        test: "ordinary::",
        clause: "ShareGuestLets",
    },
    Case {
        mutant: "UnshareUncounted",
        test: "ordinary::",
        clause: "UnshareGuestTakes",
    },
    Case {
        mutant: "DeniedIsAbort",
        test: "ordinary::what",
        clause: "FaultDenied",
    },
    Case {
        mutant: "MapsOneMore",
        test: "donation::",
        clause: "GuestReachesNoMore",
    },
    Case {
        mutant: "ForgetsOrder",
        test: "donation::of_every",
        clause: "DonateGives",
    },
    Case {
        mutant: "SkipsClean",
        test: "donation::",
        clause: "DonateCleans",
    },
    Case {
        mutant: "SkipsWipe",
        test: "isolation::",
        clause: "ContentWiped",
    },
    Case {
        mutant: "ReclaimedIsShared",
        test: "isolation::",
        clause: "HostReaches",
    },
    Case {
        mutant: "HostStays",
        test: "sharing::",
        clause: "HostShutOut",
    },
    Case {
        mutant: "ForgetsRegisters",
        test: "registers::over_hyper",
        clause: "RegisterSet",
    },
    Case {
        mutant: "DecoyForProcess",
        test: "isolation::",
        clause: "TouchInject",
    },
    Case {
        mutant: "PoolTakesOneMore",
        test: "pool::balance",
        clause: "NothingElseChanges",
    },
    Case {
        mutant: "OldPsci",
        test: "guest::psci_version",
        clause: "PsciVersion",
    },
    Case {
        mutant: "AnyImmediate",
        test: "guest::conduits",
        clause: "CallImmediate",
    },
    Case {
        mutant: "NoCeilings",
        test: "guest::system_registers_read",
        clause: "IdCeiling",
    },
    Case {
        mutant: "UnknownIsZero",
        test: "guest::physical_timer",
        clause: "RegisterUndefined",
    },
    Case {
        mutant: "PromisesSpis",
        test: "guest::gic_identity",
        clause: "GicIdentity",
    },
    Case {
        mutant: "TimerUnheld",
        test: "guest::timer_while_running",
        clause: "TimerHeld",
    },
    Case {
        mutant: "EndsUntold",
        test: "guest::interrupt_line",
        clause: "ListsEnd",
    },
    Case {
        mutant: "HolesStay",
        test: "before::",
        clause: "HostDevices",
    },
];

/// Ways to break core that a storm meets by its large folios, by what guests give back and by its ordinary VMs, and the clause that EL2 names.
const OF_STORMS: [(&str, &str); 3] = [
    ("GivesUncleaned", "DonateCleans"),
    ("RefusedRelinquishSucceeds", "RelinquishRefused"),
    ("UnshareUncounted", "UnshareGuestTakes"),
];

/// What EL2 says when it ends and was right all the time.
const JUDGED: &str = "steps judged";

/// All of them.
pub(crate) fn tests() -> Vec<Test> {
    let whole = Test::many("oracle: the mini host's tests, 4 CPUs", |bench| {
        let machine = judged_mini_host(&bench.oracle()?, bench, "");
        let mut console = bench.console(&machine, "oracle-mini-host")?;
        run(&mut console, LONG_GUARD, OF_SUITE)
    });
    let linux = Test::one("oracle: Linux, and the demonstration on it", demonstration);
    let storm = Test::one("oracle: a storm of 60 s", |bench| {
        let summary = storm_of(bench, &STORM, "storm")?;
        keeps_pace(&summary)
    });
    let threads = Test::one("oracle: a storm of 20 s on four threads", |bench| {
        let orders = StormOrders {
            seconds: 20,
            threads: true,
            ..STORM
        };
        storm_of(bench, &orders, "storm-threads").map(|_| ())
    });
    let again = Test::one("oracle: a counted storm, twice the same", |bench| {
        let orders = StormOrders {
            seconds: 1,
            icount: true,
            ..STORM
        };
        let first = storm_of(bench, &orders, "storm-counted")?;
        let second = storm_of(bench, &orders, "storm-counted-again")?;
        ensure!(first == second, "{first} the first time, then {second}");
        Ok(())
    });
    let mutants = CASES.into_iter().map(|case| {
        let name = format!("oracle: EL2 catches {}", case.mutant);
        Test::one(name, move |bench| caught(bench, &case))
    });
    let storms = OF_STORMS.into_iter().map(|(mutant, clause)| {
        let name = format!("oracle: a storm meets {mutant}");
        Test::one(name, move |bench| met(bench, mutant, clause))
    });
    [whole, linux, storm, threads, again]
        .into_iter()
        .chain(mutants)
        .chain(storms)
        .collect()
}

fn judged_mini_host(oracle: &Path, bench: &Bench, filter: &str) -> Machine {
    Machine {
        cpu: Cpu::A76,
        ..mini_host::on(bench, oracle, &format!("test={filter}"))
    }
}

/// Reads TAP until the power goes off, and what was judged: of `quota` steps, at most one was passed over.
fn run(console: &mut Console, guard: Duration, quota: u64) -> Result<Tally> {
    mini_host::ended(console, guard)?;
    is_judged(console, quota)?;
    tap::count(console.seen())
}

/// Prints EL2's last line, which must say that it looked away seldom.
fn is_judged(console: &Console, quota: u64) -> Result<()> {
    let mut lines = console.seen().lines();
    let judged = lines.find(|line| line.contains(JUDGED));
    let judged = judged.context("EL2 does not say that all steps were judged")?;
    println!("      {}", judged.trim());
    looks_away_seldom(judged, quota)
}

/// The line says how many steps there were, and how many of them were passed over: not more than one of `quota`.
fn looks_away_seldom(line: &str, quota: u64) -> Result<()> {
    let steps = number_before(line, " steps judged")?;
    let passed_over = number_before(line, " of them passed over")?;
    ensure!(steps > 0, "no step was judged: {line}");
    ensure!(
        passed_over * quota <= steps,
        "{passed_over} of {steps} steps were passed over, more than 1 in {quota}: what kind of step does the oracle not judge any more?"
    );
    Ok(())
}

/// A storm in turns makes calls as fast as can be expected.
fn keeps_pace(summary: &str) -> Result<()> {
    let pace = number_before(summary, " calls an hour")?;
    ensure!(
        pace >= FLOOR,
        "{pace} calls an hour, expected at least {FLOOR}: a fifth of the {GOAL} that a core with nothing else to do must reach"
    );
    Ok(())
}

/// The number that stands before `words`.
fn number_before(line: &str, words: &str) -> Result<u64> {
    let (before, _) = line
        .split_once(words)
        .with_context(|| format!("no \"{words}\" in: {line}"))?;
    let number = before.rsplit(' ').next().unwrap_or_default();
    number
        .parse()
        .with_context(|| format!("no number before \"{words}\" in: {line}"))
}

fn demonstration(bench: &Bench) -> Result<()> {
    let machine = bench.host_on(bench.oracle()?, "quiet task=\"pinfold demo\"");
    let mut console = bench.console(&machine, "oracle-linux")?;
    console.expect("demo: ok 10", LONG_GUARD)?;
    ending::without_complaints(&mut console)?;
    is_judged(&console, OF_OTHERS)
}

/// A broken EL2 says which clause it broke, and stops.
fn caught(bench: &Bench, case: &Case) -> Result<()> {
    let machine = Machine {
        cpus: 1,
        own_arguments: format!("pinfold.mutant={}", case.mutant),
        ..judged_mini_host(&bench.oracle()?, bench, case.test)
    };
    let mut console = bench.console(&machine, &format!("oracle-{}", case.mutant))?;
    names(&mut console, case.clause)
}

/// A broken EL2 says so before the storm is over.
fn met(bench: &Bench, mutant: &str, clause: &str) -> Result<()> {
    let products = &bench.products;
    let images = [&bench.oracle()?, &products.mini_host, &products.guest];
    let orders = StormOrders {
        seconds: 600,
        ..STORM
    };
    let machine = Machine {
        own_arguments: format!("pinfold.mutant={mutant}"),
        ..stormy(&orders, 1, images.map(PathBuf::as_path))
    };
    let mut console = bench.console(&machine, &format!("storm-{mutant}"))?;
    names(&mut console, clause)
}

/// EL2 is broken on purpose, and names the clause.
fn names(console: &mut Console, clause: &str) -> Result<()> {
    console.expect("broken on purpose", GUARD)?;
    let line = console.expect("oracle: ", LONG_GUARD)?;
    let line = if line.contains("the boot is as specified") {
        console.expect("oracle: ", LONG_GUARD)?
    } else {
        line
    };
    ensure!(
        line.contains(&format!("breaks {clause}:")),
        "not caught by {clause}: {line}"
    );
    Ok(())
}

/// How a storm is to be.
#[derive(clap::Args)]
pub(crate) struct StormOrders {
    /// How long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where its random words begin; without one, a new one is chosen.
    #[arg(long)]
    seed: Option<u64>,
    /// Count instructions instead of time, one a nanosecond: the same seed gives the same storm.
    #[arg(long)]
    icount: bool,
    /// A thread for each CPU, rather than one for all: they race, and wait for one another longer than they work.
    #[arg(long, conflicts_with = "icount")]
    threads: bool,
}

/// The storm alone.
pub(crate) fn run_storm(workspace: &Workspace, orders: &StormOrders) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let build = |bin| cargo.image(bin).map(|image| image.flat);
    let images = [
        build(&Bin::ORACLE)?,
        build(&Bin::MINI_HOST)?,
        build(&Bin::GUEST)?,
    ];
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let seed = orders.seed.unwrap_or(now);
    println!("storm: seed {seed}");
    let images = images.each_ref().map(PathBuf::as_path);
    let machine = stormy(orders, seed, images);
    let log = workspace.out("logs/storm.log")?;
    storm_ends(&mut Console::start(&machine, &log)?.echoing(), orders).map(|_| ())
}

/// A storm as a test; returns what [`storm_ends`] does.
fn storm_of(bench: &Bench, orders: &StormOrders, log: &str) -> Result<String> {
    let products = &bench.products;
    let images = [&bench.oracle()?, &products.mini_host, &products.guest];
    let machine = stormy(
        orders,
        orders.seed.unwrap_or(1),
        images.map(PathBuf::as_path),
    );
    storm_ends(&mut bench.console(&machine, log)?, orders)
}

fn stormy(orders: &StormOrders, seed: u64, images: [&Path; 3]) -> Machine {
    let arguments = format!("storm={} seed={seed}", orders.seconds);
    Machine {
        cpu: Cpu::A76,
        counts_instructions: orders.icount,
        takes_turns: !orders.icount && !orders.threads,
        ..mini_host::machine(images, &arguments)
    }
}

/// Waits for the end, and returns the line that says how many calls there were, with a digest of their answers.
fn storm_ends(console: &mut Console, orders: &StormOrders) -> Result<String> {
    // A counted second takes much longer than a second.
    let factor = if orders.icount { 200 } else { 2 };
    let guard = LONG_GUARD + Duration::from_secs(orders.seconds * factor);
    let tally = run(console, guard, OF_OTHERS)?;
    let summary = console
        .seen()
        .lines()
        .find(|line| line.contains("calls an hour"));
    let summary = summary.context("no storm")?.trim().to_owned();
    println!("      {summary}");
    ensure!(tally == Tally::PASS, "the storm did damage");
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oracle_that_looks_away_too_often_is_noticed() {
        let line = |steps, passed_over| {
            format!(
                "pinfold: oracle: {steps} steps judged, {passed_over} of them passed over, everything compared"
            )
        };
        assert!(looks_away_seldom(&line(100_000, 100), 1000).is_ok());
        assert!(looks_away_seldom(&line(100_000, 101), 1000).is_err());
        assert!(looks_away_seldom(&line(0, 0), 1000).is_err());
        assert!(looks_away_seldom("pinfold: oracle: all is well", 1000).is_err());
    }

    #[test]
    fn a_storm_that_crawls_is_noticed() {
        let line =
            |pace| format!("# storm: 7 calls, 5 of them done, {pace} calls an hour, digest 0x1");
        assert!(keeps_pace(&line(GOAL / 5)).is_ok());
        let slow = keeps_pace(&line(GOAL / 5 - 1)).unwrap_err().to_string();
        assert!(slow.contains("expected at least 1000000"), "{slow}");
        assert!(keeps_pace("# storm: many calls").is_err());
    }
}
