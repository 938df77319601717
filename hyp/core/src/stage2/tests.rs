//! Ranges in chunks, and what a regime does at its edges.

use std::vec::Vec;

use super::*;

fn range(first: u64, count: u64) -> FrameRange<Intermediate> {
    FrameRange::new(Gfn::new(first).unwrap(), count).unwrap()
}

fn split(first: u64, count: u64) -> Vec<(u64, u64)> {
    chunks(range(first, count))
        .map(|chunk| (chunk.first().raw(), chunk.count()))
        .collect()
}

#[test]
fn chunks_end_where_blocks_end() {
    assert_eq!(split(0, 512), [(0, 512)]);
    assert_eq!(split(511, 2), [(511, 1), (512, 1)]);
    assert_eq!(split(100, 1000), [(100, 412), (512, 512), (1024, 76)]);
    assert_eq!(split((1 << 36) - 1, 1), [((1 << 36) - 1, 1)]);
}

#[test]
fn a_regime_reaches_40_bits() {
    assert!(Stage2::reaches(range((1 << 28) - 1, 1)));
    assert!(!Stage2::reaches(range((1 << 28) - 1, 2)));
    assert!(!Stage2::reaches(range(1 << 28, 1)));
}
