//! `usize` and `u64`, which are one width on AArch64: the conversions that Rust has no lossless form of.

const _: () = assert!(usize::BITS == u64::BITS);

/// `value` as a register or a descriptor holds it.
#[expect(clippy::as_conversions, reason = "the same width")]
pub(crate) const fn wide(value: usize) -> u64 {
    value as u64
}

/// `value` as Rust counts memory.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the same width"
)]
pub(crate) const fn narrow(value: u64) -> usize {
    value as usize
}
