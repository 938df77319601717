//! The real core against its specification: directed scenarios that exercise every clause, and random runs.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it found by panicking"
)]

mod directed;
mod host;
mod lockstep;
mod random;

use pinfold_abi::{HostCall, claim};
use pinfold_spec::{Clause, Exercised};

/// Runs all scenarios; returns what they exercised.
fn run_all() -> Exercised {
    let mut exercised = Exercised::default();
    let mut wrong = Vec::new();
    for (name, scenario) in directed::scenarios() {
        match scenario() {
            Ok(both) => exercised.add(both.spec.exercised()),
            Err(violation) => wrong.push((name, violation)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    exercised
}

/// The clause that keeps a call to the phase that the table states for it.
fn clause_of_phase(phase: &str) -> Option<Clause> {
    match phase {
        "before VM_START" | "once" => Some(Clause::OnlyBeforeStart),
        "before VM_TEARDOWN_BEGIN" => Some(Clause::OnlyBeforeTeardown),
        "after VM_TEARDOWN_BEGIN" => Some(Clause::OnlyAfterTeardownBegin),
        "between VM_START and VM_TEARDOWN_BEGIN" => Some(Clause::OnlyWhileLive),
        _ => None,
    }
}

#[test]
fn every_clause_is_exercised_and_kept() {
    let exercised = run_all();
    let missing: Vec<Clause> = exercised.missing().collect();
    assert!(missing.is_empty(), "not exercised: {missing:?}");
    for call in HostCall::TABLE {
        let takes_vm = call
            .arguments
            .iter()
            .any(|argument| argument.unit == claim::Handle::UNIT);
        let clauses = takes_vm.then_some(Clause::HandleUnknown);
        for clause in clauses.into_iter().chain(clause_of_phase(call.phase)) {
            let is_tried = exercised.by(clause).any(|what| what == call.name);
            assert!(is_tried, "{clause:?} is not exercised by {}", call.name);
        }
    }
}

#[test]
fn random_runs_are_as_specified() {
    let outcome = random::runs(random::cases(), true);
    assert!(outcome.failure.is_none(), "{}", outcome.failure.unwrap().1);
    let missing: Vec<_> = outcome.exercised.missing().collect();
    println!("{} steps judged; not exercised: {missing:?}", outcome.steps);
}
