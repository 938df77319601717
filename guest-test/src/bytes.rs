//! Conversions between the machine's 64-bit words and Rust's `usize`, in one place.
//!
//! Invariant: the only target is 64 bits wide, so none of these loses a bit.

/// Bytes in a frame.
pub const FRAME: u64 = 4096;

const _: () = assert!(
    size_of::<usize>() == size_of::<u64>(),
    "the images are AArch64 only"
);

/// A size or an address as a register holds it.
#[must_use]
#[expect(
    clippy::as_conversions,
    reason = "usize and u64 have the same width, asserted above"
)]
pub const fn word(value: usize) -> u64 {
    value as u64
}

/// A register's value as a size or an address.
#[must_use]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "usize and u64 have the same width, asserted above"
)]
pub const fn size(value: u64) -> usize {
    value as usize
}

/// The low 32 bits of a register.
#[must_use]
#[expect(clippy::as_conversions, reason = "the mask keeps what fits")]
pub const fn low32(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// The address that a reference points to.
#[must_use]
pub fn address_of<T: ?Sized>(place: &T) -> u64 {
    word(core::ptr::from_ref(place).cast::<u8>().expose_provenance())
}
