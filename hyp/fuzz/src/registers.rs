//! Fuzzes the decoders and what refuses: registers of host and guest that hold anything.
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

fuzz_target!(|input: &[u8]| {
    if let Err(violation) = grammar::decode(input) {
        panic!("{violation:?}");
    }
});
