//! All that can happen on a machine which is small enough to try it, on the real core, judged by the specification.
//!
//! | File | Tries |
//! |---|---|
//! | `breadth` | every state of a few pages, two VMs and two addresses, breadth first |
//! | `failures` | every allocation of every call fails once |
//! | `numbers` | every first frame and count around every limit, against arithmetic in 128 bits |
//! | `turns` | every pair of calls, in every order, while a vCPU runs |
//! | `words` | every pair of an address and a length over a small word |
//! | here | random runs are made smaller until they are easy to read |
//!
//! Mutants are chosen for the whole process, so tests take turns: [`alone`].
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it found by panicking"
)]

mod breadth;
#[path = "../agree/directed/mod.rs"]
#[expect(dead_code, reason = "random runs take a few names from there")]
mod directed;
mod failures;
#[path = "../agree/host.rs"]
mod host;
#[path = "../agree/lockstep.rs"]
mod lockstep;
mod numbers;
#[path = "../agree/random.rs"]
#[expect(dead_code, reason = "what other tests do with it")]
mod random;
mod small;
mod trials;
mod turns;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use pinfold_core::mutant::{Mutant, select};
use pinfold_spec::{Clause, Violation};

static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` with core broken in this way, or not at all, while no other test runs.
fn alone<T>(mutant: Option<Mutant>, test: impl FnOnce() -> T) -> T {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    select(mutant);
    if mutant.is_some() {
        // What panics is a machine that saw a rule of the architecture broken, and is told as a violation.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let result = catch_unwind(AssertUnwindSafe(test));
    if mutant.is_some() {
        drop(std::panic::take_hook());
    }
    select(None);
    drop(turn);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Takes a step. A machine that panics has seen a rule of the architecture broken.
fn judged<T>(step: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        Err(Violation::new(Clause::MachineRules, what))
    })
}

#[test]
fn random_failures_become_small() {
    for (mutant, most) in [
        (Mutant::DonatesAnything, 6),
        (Mutant::UnshareUnnoted, 6),
        (Mutant::OwnedStays, 6),
    ] {
        let outcome = alone(Some(mutant), || random::runs(300, false));
        let (length, smallest) = outcome.failure.unwrap();
        println!("{mutant:?}: {length} steps: {smallest}");
        assert!(length <= most, "{mutant:?} takes {length} steps");
    }
}
