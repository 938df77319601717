//! Instructions put together at run time: [`with`] writes some of them into memory, and a [`Slot`] runs one.
//!
//! Each is followed by instructions that put back what a single one may change of the ground that a probe stands on: the stack pointer that is
//! selected, and masked interrupts. Invariant: one CPU at a time uses the memory.

use core::arch::{asm, global_asm};

use crate::lock::SpinMutex;

use crate::bytes;
use crate::probe::{self, Fault};
use crate::tap::Outcome;

/// How many instructions [`with`] takes at a time.
pub const SLOTS: usize = 256;

/// Bytes of a slot.
const STRIDE: u64 = 16;
/// `msr spsel, #1`, `msr daifset, #0xf`, `ret`.
const TAIL: [u32; 3] = [0xd500_41bf, 0xd503_4fdf, 0xd65f_03c0];
/// Bytes of the smallest cache line that a CPU may have (`CTR_EL0.DminLine` counts words).
const LINE: usize = 16;

#[repr(C, align(4096))]
struct Page([[u32; 4]; SLOTS]);

static PAGE: SpinMutex<Page> = SpinMutex::new(Page([[0; 4]; SLOTS]));

unsafe extern "C" {
    fn guest_test_run_slot(address: u64, argument: u64) -> u64;
}

global_asm!(
    r#"
    .text
guest_test_run_slot:                // x0 and x1 are the argument
    mov     x16, x0
    mov     x0, x1
    br      x16
    "#
);

/// An instruction in memory.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The instruction.
    pub word: u32,
    address: u64,
}

impl Slot {
    /// Runs the instruction with `argument` in x0 and x1; gives x0, or the fault.
    ///
    /// # Safety
    /// The instruction changes no memory that Rust owns, and neither x18 and above nor what translation lives from.
    pub unsafe fn run(self, argument: u64) -> Result<u64, Fault> {
        // SAFETY: the caller vouches for the instruction; what follows it returns.
        unsafe { probe::call(guest_test_run_slot, self.address, argument) }
    }
}

/// Writes the instructions into memory, at most [`SLOTS`], and shows each to `each`.
pub fn with(words: &[u32], mut each: impl FnMut(Slot) -> Outcome) -> Outcome {
    let mut page = PAGE.lock();
    for (slot, word) in page.0.iter_mut().zip(words) {
        let [first, second, third] = TAIL;
        *slot = [*word, first, second, third];
    }
    let first = bytes::address_of(&*page);
    for line in (first..first + bytes::FRAME).step_by(LINE) {
        // SAFETY: cache maintenance by address (DDI 0487 B2.4.4), so that the fetch sees the stores.
        unsafe {
            asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", in(reg) line, options(nostack, preserves_flags));
        };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    for (address, word) in (first..)
        .step_by(bytes::size(STRIDE))
        .zip(words.iter().take(SLOTS))
    {
        each(Slot {
            word: *word,
            address,
        })?;
    }
    Ok(())
}
