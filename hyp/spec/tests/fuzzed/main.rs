//! The fuzzers' seeds, played again without a fuzzer, and inputs of random bytes.
//!
//! `hyp/fuzz` has the fuzzers; they share [`grammar`] with this test. The seeds must be worth having: they find broken cores.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it found by panicking"
)]

mod grammar;
#[path = "../agree/host.rs"]
#[expect(dead_code, reason = "what other tests do with it")]
mod host;
#[path = "../agree/lockstep.rs"]
#[expect(dead_code, reason = "what other tests do with it")]
mod lockstep;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pinfold_core::mutant::{Mutant, select};

use lockstep::Judged;

/// The seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let place = Path::new("../fuzz/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(place.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Inputs of random bytes, the same every time (Marsaglia's xorshift, 64 bits).
fn noise(inputs: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..inputs).map(move |_| {
        let length = next() % 200;
        (0..length).map(|_| next().to_le_bytes()[3]).collect()
    })
}

/// Whether some seed finds the core broken.
fn is_found(seeds: &[Vec<u8>]) -> bool {
    seeds.iter().any(|seed| {
        let play = AssertUnwindSafe(|| grammar::play(seed, &mut |_| {}));
        // A machine that panics has seen a rule of the architecture broken.
        catch_unwind(play).map_or(true, |judged| judged.is_err())
    })
}

const MUTANTS: [Mutant; 9] = [
    Mutant::SkipsPinCheck,
    Mutant::DonatesAnything,
    Mutant::SkipsWipe,
    Mutant::ShareUnnoted,
    Mutant::HostStays,
    Mutant::OwnedStays,
    Mutant::TeardownWhileLoaded,
    Mutant::RelinquishUntold,
    Mutant::RefusedRelinquishSucceeds,
];

/// One test, since mutants are chosen for the whole process.
#[test]
fn seeds_and_noise_are_as_specified() {
    let calls = seeds("calls");
    let (mut outlines, mut steps) = (BTreeSet::new(), 0);
    for input in calls.iter().cloned().chain(noise(150)) {
        let judged: Judged<u64> = grammar::play(&input, &mut |outline| {
            outlines.insert(outline);
        });
        steps += judged.unwrap();
    }
    let registers = seeds("registers");
    let decoded: u64 = registers
        .iter()
        .cloned()
        .chain(noise(150))
        .map(|input| grammar::decode(&input).unwrap())
        .sum();
    println!(
        "{} and {} seeds, {steps} steps judged, {} outlines, {decoded} sets of registers",
        calls.len(),
        registers.len(),
        outlines.len()
    );
    assert!(
        calls.len() >= 16 && registers.len() >= 8,
        "seeds are missing"
    );
    assert!(steps >= 2000 && outlines.len() >= 150 && decoded >= 100);
    std::panic::set_hook(Box::new(|_| {}));
    let alive: Vec<_> = MUTANTS
        .into_iter()
        .filter(|mutant| {
            select(Some(*mutant));
            !is_found(&calls)
        })
        .collect();
    select(None);
    drop(std::panic::take_hook());
    assert!(alive.is_empty(), "no seed finds {alive:?}");
}
