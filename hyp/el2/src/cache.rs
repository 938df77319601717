//! Cache maintenance by address, and the clearing of a frame.
//!
//! The line sizes come from CTR_EL0 and DCZID_EL0 (DDI 0487, D7.5 and D24.2.34). Invariant: the caller passes addresses
//! that EL2 maps; nothing outside of `length` bytes from `start` is lost.

use core::arch::asm;

use aarch64_cpu::registers::Readable;
use pinfold_core::addr::FRAME_SIZE;

use crate::sysreg::{CTR_EL0, DCZID_EL0};
use crate::translation::barrier;
use crate::width::narrow;

macro_rules! by_line {
    ($name:ident, $operation:literal, $meaning:literal) => {
        #[doc = $meaning]
        pub(crate) fn $name(start: usize, length: usize) {
            let line = 4usize << ((CTR_EL0.get() >> 16) & 0xf);
            let mut at = start & !(line - 1);
            while at < start + length {
                // SAFETY: cleaning a line makes memory hold what the CPUs already see there; no value changes.
                unsafe { asm!(concat!("dc ", $operation, ", {}"), in(reg) at, options(nostack, preserves_flags)) };
                at += line;
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
    let size = narrow(FRAME_SIZE);
    let zva = DCZID_EL0.get();
    if zva & 0x10 == 0 {
        let block = 4usize << (zva & 0xf);
        for at in (address..address + size).step_by(block) {
            // SAFETY: the block lies in the frame, which the caller lets us overwrite.
            unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) };
        }
    } else {
        for at in (address..address + size).step_by(8) {
            let word = core::ptr::with_exposed_provenance_mut::<u64>(at);
            // SAFETY: an aligned word of the frame that the caller lets us overwrite.
            unsafe { word.write_volatile(0) };
        }
    }
}
