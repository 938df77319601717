//! Does the checker of the page-table protocol notice what core can get wrong there? Core is broken in each such way, one at a time,
//! and the checker must say which rule that breaks.
//!
//! The mutants are chosen for the whole process, so this is a program of its own with one test.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it found by panicking"
)]

#[path = "../agree/directed/mod.rs"]
mod directed;
#[path = "../agree/host.rs"]
mod host;
#[path = "../agree/lockstep.rs"]
mod lockstep;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pinfold_core::mutant::{Mutant, select};

use directed::{Scenario, scenarios};

/// What the checker must say of each mutant, in whatever scenario it shows.
const MEANT: &[(Mutant, &str)] = &[
    (Mutant::SkipsFlush, "MadeTooSoon missing DsbAfterStore"),
    (Mutant::SkipsFlush, "ReusedTooSoon missing Tlbi"),
    (Mutant::SkipsFlush, "LeftUnclean missing Tlbi"),
    (Mutant::SkipsBreak, "NoBreak"),
    (Mutant::LeaksTables, "Leaked"),
    (
        Mutant::FlushesOtherVmid,
        "MadeTooSoon missing TlbiOfItsVmid",
    ),
    (
        Mutant::FlushesOneLess,
        "MadeTooSoon missing TlbiOfItsAddress",
    ),
    (
        Mutant::FlushesOneLess,
        "LeftUnclean missing TlbiOfItsAddress",
    ),
    (
        Mutant::FreesBeforeFlush,
        "FreedTooSoon missing DsbAfterStore",
    ),
    (Mutant::SkipsPublish, "Unpublished"),
];

/// The rule that the checker finds broken in a scenario, and what is missing.
fn verdict((_, scenario): &Scenario) -> Option<String> {
    let run = AssertUnwindSafe(|| drop(scenario()));
    let panic = catch_unwind(run).err()?;
    let said = panic.downcast_ref::<String>()?.strip_prefix("protocol: ")?;
    let rule = said.split(' ').next()?;
    let missing = said.split_once(", missing ");
    Some(missing.map_or(rule.to_owned(), |(_, what)| {
        format!("{rule} missing {what}")
    }))
}

#[test]
fn every_breach_of_core_is_named() {
    // Mutants that panic are expected; what they say is in the verdict.
    std::panic::set_hook(Box::new(|_| {}));
    select(None);
    let innocent: BTreeSet<String> = scenarios().filter_map(verdict).collect();
    let mut unseen = Vec::new();
    for (mutant, rule) in MEANT {
        select(Some(*mutant));
        let verdicts: BTreeSet<String> = scenarios().filter_map(verdict).collect();
        if !verdicts.contains(*rule) {
            unseen.push((mutant, rule, verdicts));
        }
    }
    select(None);
    drop(std::panic::take_hook());
    assert!(innocent.is_empty(), "{innocent:?}");
    assert!(unseen.is_empty(), "{unseen:#?}");
}
