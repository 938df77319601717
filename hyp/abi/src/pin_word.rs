//! The pin word: how the host says who holds a frame, 32 bits for each, little endian in the pin table.
//!
//! Of an exclusive pin: bits 23:0 pin count, 27:24 folio order, 30 exclusive, 31 isolated; bits 28 and 29 are 0. Otherwise bits 29:0
//! are the pin count. The word of a folio is at its head, those of its tails are 0.

/// Bits 23:0: how many pins the folio has, of which one is exclusive.
pub const COUNT_MASK: u32 = 0x00FF_FFFF;
/// Where the order starts.
pub const ORDER_SHIFT: u32 = 24;
/// Bits 27:24: the order of the folio, if its pin is exclusive.
pub const ORDER_MASK: u32 = 0x0F00_0000;
/// Bit 30: the pin is exclusive.
pub const EXCLUSIVE: u32 = 1 << 30;
/// Bit 31: nothing but the pin refers to the folio.
pub const ISOLATED: u32 = 1 << 31;

/// The only word with which a folio of `order` may be donated: one pin, exclusive, isolated, of just this size.
#[must_use]
pub const fn donatable(order: u8) -> u32 {
    ISOLATED | EXCLUSIVE | (u32::from_le_bytes([order, 0, 0, 0]) << ORDER_SHIFT & ORDER_MASK) | 1
}
