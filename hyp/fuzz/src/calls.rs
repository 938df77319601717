//! Fuzzes the core with calls that are nearly right, in lockstep with the specification.
//!
//! The specification's state is fed back as coverage: libFuzzer keeps an input that leads to a state with a new outline, even if it
//! runs no new code.
#![no_main]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzzer finds things by panicking"
)]

#[path = "../../spec/tests/fuzzed/grammar.rs"]
#[expect(dead_code, reason = "the other target's part")]
mod grammar;
#[path = "../../spec/tests/agree/host.rs"]
#[expect(dead_code, reason = "what tests do with it")]
mod host;
#[path = "../../spec/tests/agree/lockstep.rs"]
#[expect(dead_code, reason = "what tests do with it")]
mod lockstep;

use libfuzzer_sys::fuzz_target;
use std::sync::atomic::{AtomicU8, Ordering};

const OUTLINES: usize = 1 << 14;

/// One counter for each outline, modulo their number.
// SAFETY: libFuzzer reads and clears the bytes of this section between two inputs, while nothing else runs.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static SEEN: [AtomicU8; OUTLINES] = [const { AtomicU8::new(0) }; OUTLINES];

fn note(outline: u64) {
    let place = usize::try_from(outline % 16_381).unwrap();
    SEEN[place].store(1, Ordering::Relaxed);
}

fuzz_target!(|input: &[u8]| {
    if let Err(violation) = grammar::play(input, &mut note) {
        panic!("{violation:?}");
    }
});
