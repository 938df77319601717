//! Cache maintenance by address, and the clearing of a frame.
//!
//! The line sizes come from CTR_EL0 and DCZID_EL0 (DDI 0487, D7.5 and D24.2.34). Invariant: the caller passes addresses
//! that EL2 maps; nothing outside of `length` bytes from `start` is lost.

use core::arch::asm;

use aarch64_cpu::registers::Readable;
use pinfold_core::addr::FRAME_SHIFT;

use crate::sysreg::{CTR_EL0, DCZID_EL0};
use crate::translation::barrier;

const FRAME: usize = 1 << FRAME_SHIFT;
/// Operations in a turn of the loop over a frame.
const PER_TURN: usize = 16;

/// Bytes in a line of the data caches.
fn line() -> usize {
    4 << ((CTR_EL0.get() >> 16) & 0xf)
}

macro_rules! by_line {
    ($name:ident, $operation:literal, $meaning:literal) => {
        #[doc = $meaning]
        pub(crate) fn $name(start: usize, length: usize) {
            let line = line();
            for at in (start & !(line - 1)..start + length).step_by(line) {
                // SAFETY: cleaning a line makes memory hold what the CPUs already see there; no value changes.
                unsafe { asm!(concat!("dc ", $operation, ", {}"), in(reg) at, options(nostack, preserves_flags)) };
            }
            barrier::system();
        }
    };
}

by_line!(
    clean,
    "cvac",
    "Writes the bytes back to the point of coherency."
);
by_line!(
    clean_and_invalidate,
    "civac",
    "Writes the bytes back to the point of coherency and drops them from the caches."
);

/// Does it every `$step` bytes, a power of two, to the frame at `$frame`; to move a folio is mostly this.
macro_rules! throughout {
    ($operation:literal, $frame:expr, $step:expr) => {
        let start: usize = $frame;
        // A step that divides a line or a block does the same more than once.
        let step = usize::min($step, FRAME / PER_TURN);
        for turn in (start..start + FRAME).step_by(step * PER_TURN) {
            asm!(
                throughout!(@four $operation), throughout!(@four $operation),
                throughout!(@four $operation), throughout!(@four $operation),
                at = inout(reg) turn => _, step = in(reg) step, options(nostack, preserves_flags)
            );
        }
    };
    (@four $operation:literal) => {
        concat!(
            throughout!(@one $operation), throughout!(@one $operation),
            throughout!(@one $operation), throughout!(@one $operation),
        )
    };
    (@one $operation:literal) => {
        concat!("dc ", $operation, ", {at}\nadd {at}, {at}, {step}\n")
    };
}

/// Writes the frame at `address` back to the point of coherency and drops it from the caches.
pub(crate) fn clean_and_invalidate_frame(address: usize) {
    // SAFETY: cleaning a line makes memory hold what the CPUs already see there; no value changes.
    unsafe {
        throughout!("civac", address, line());
    }
    barrier::system();
}

/// Makes all CPUs fetch instructions anew: those of a frame that changes hands may be in a cache still (DDI 0487, D7.5.9).
pub(crate) fn forget_instructions() {
    barrier::system();
    // SAFETY: the next fetch reads the instructions again.
    unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
    barrier::system();
    barrier::context();
}

/// Overwrites the frame at `address` with zeroes.
///
/// # Safety
/// The frame is mapped writable at `address`, and no reference into it exists.
pub(crate) unsafe fn clear_frame(address: usize) {
    let zva = DCZID_EL0.get();
    if zva & 0x10 == 0 {
        // SAFETY: the blocks are those of the frame, which the caller lets us overwrite.
        unsafe {
            throughout!("zva", address, 4 << (zva & 0xf));
        }
    } else {
        for at in (address..address + FRAME).step_by(8) {
            let word = core::ptr::with_exposed_provenance_mut::<u64>(at);
            // SAFETY: an aligned word of the frame that the caller lets us overwrite.
            unsafe { word.write_volatile(0) };
        }
    }
}
