//! All tests, in the order in which they run: what needs no pin table first, storms last, and what takes a CPU away.

use guest_test::tap::Test;

mod attacks;
mod before;
mod donation;
mod guest;
mod interface;
mod isolation;
mod leaks;
mod life;
mod matrix;
mod neighbours;
mod ordinary;
mod pins;
mod pool_frames;
mod processors;
mod registers;
mod sharing;
mod snapshot;
mod storm;
mod work;

pub(crate) use processors::el2_frame;

/// Every suite.
pub(crate) const ALL: &[&[Test]] = &[
    before::TESTS,
    interface::TESTS,
    processors::TESTS,
    pins::TESTS,
    donation::TESTS,
    isolation::TESTS,
    pool_frames::TESTS,
    life::TESTS,
    registers::TESTS,
    sharing::TESTS,
    ordinary::TESTS,
    guest::TESTS,
    attacks::TESTS,
    neighbours::TESTS,
    matrix::TESTS,
    leaks::TESTS,
    work::TESTS,
    storm::TESTS,
    attacks::last::TESTS,
];
