//! Do scenarios notice? Core is broken on purpose, and the scenario that is meant must fail on it.
//!
//! The mutants are chosen for the whole process, so this is a program of its own with one test.
#![expect(clippy::unwrap_used, reason = "a test says what it found by panicking")]

use std::path::Path;

use pinfold_core::mutant::{Mutant, select};
use pinfold_scenario::{Program, Trouble, on_core, parse};

/// Ways to break core, and a scenario that shows it.
const MEANT: [(Mutant, &str); 10] = [
    (Mutant::SkipsPinCheck, "donate/with-no-pin"),
    (Mutant::IgnoresPinCount, "donate/with-a-second-pin"),
    (Mutant::IgnoresIsolation, "donate/with-an-exclusive-pin"),
    (
        Mutant::DonatesAnything,
        "attack/03-the-same-page-to-two-guests",
    ),
    (Mutant::PoolTakesAnything, "pool/donate-guest"),
    (Mutant::ReclaimsFromLiving, "reclaim/from-the-living"),
    (Mutant::SkipsWipe, "reclaim/comes-back-wiped"),
    (Mutant::HandleComesBack, "vm/a-handle-is-not-used-again"),
    (Mutant::TeardownWhileLoaded, "race/teardown-while-it-runs"),
    (Mutant::DecoyForProcess, "touch/guest"),
];

fn scenario(name: &str) -> Program {
    let path = Path::new("corpus").join(name).with_extension("scenario");
    parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs a scenario on core; a machine of the tests that panics has noticed something, too.
fn fails(program: &Program) -> bool {
    let ended = std::panic::catch_unwind(|| on_core(program));
    !matches!(ended, Ok(Ok(_) | Err(Trouble::Cannot(_))))
}

#[test]
fn a_core_that_is_broken_fails_the_scenario_that_is_meant() {
    for (mutant, name) in MEANT {
        let program = scenario(name);
        select(None);
        assert!(!fails(&program), "{name} fails on a core that is right");
        select(Some(mutant));
        assert!(fails(&program), "{name} does not notice {mutant:?}");
    }
    select(None);
}
