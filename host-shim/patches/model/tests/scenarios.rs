//! Every scenario holds, in every order. `cargo test -p pinfold-pin-model -- --nocapture` prints how many there are.

use pinfold_pin_model::{PREEMPTIONS, SCENARIOS, check};

/// Checks the scenarios that have this bound on preemptions, or none.
fn all_hold(preemptions: Option<usize>) {
    let mut violations = Vec::new();
    let mut executions = 0;
    for scenario in SCENARIOS {
        if scenario.preemptions != preemptions {
            continue;
        }
        let outcome = check(scenario, None);
        executions += outcome.executions;
        println!(
            "{:6} {:60} {:6} executions",
            scenario.race, scenario.name, outcome.executions
        );
        if let Some(violation) = outcome.violation {
            violations.push(format!("{}: {violation}", scenario.name));
        }
    }
    println!("{executions} executions, preemptions: {preemptions:?}");
    assert!(executions > 1000, "the checker explored next to nothing");
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn two_actors_in_every_order() {
    all_hold(None);
}

#[test]
fn the_rest_with_few_preemptions() {
    all_hold(Some(PREEMPTIONS));
}
