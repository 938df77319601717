//! Code at EL0: [`run`] goes there, and comes back with the exception that ended it.
//!
//! EL0 sees one GiB of memory, mapped for it by the test with [`mmu::map_user_block`](crate::mmu::map_user_block). Invariant: a probe waits for the exception,
//! so that no register of EL0's is taken for one of ours.

use core::arch::{asm, global_asm};

use crate::probe::{self, Fault};
use crate::{bytes, mmu};

/// The GiB of virtual addresses that EL0 has.
pub const GIB: u64 = 2;

/// How EL0 runs, as SPSR says it (DDI 0487 C5.2.19); interrupts are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `AArch64`.
    Wide,
    /// `AArch32`, the instruction set A32.
    Narrow,
}

impl Mode {
    const fn state(self) -> u64 {
        match self {
            Self::Wide => 0x3c0,
            Self::Narrow => 0x1d0,
        }
    }
}

/// Where a run begins.
#[repr(C)]
struct Start {
    entry: u64,
    argument: u64,
    state: u64,
}

unsafe extern "C" {
    fn guest_test_enter_user(start: u64, unused: u64) -> u64;
}

global_asm!(
    r#"
    .text
guest_test_enter_user:
    ldp     x1, x2, [x0]
    ldr     x3, [x0, #16]
    msr     elr_el1, x1
    msr     spsr_el1, x3
    mov     x0, x2
    eret
    "#
);

/// Memory that EL0 has code in.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// What is added to a physical address.
    shift: u64,
    code: u64,
}

impl User {
    /// Lets EL0 see the GiB that `code` lies in; the instructions of the tests go there.
    ///
    /// # Safety
    /// Nothing of the image lies at [`GIB`], `code` is a frame that Rust does not own, and one CPU does this.
    #[must_use]
    pub unsafe fn at(code: u64) -> Self {
        let gib = code >> 30 << 30;
        // SAFETY: the caller vouches.
        unsafe { mmu::map_user_block(bytes::size(GIB), gib) };
        Self {
            shift: (GIB << 30) - gib,
            code,
        }
    }

    /// Where EL0 sees a physical address of the same GiB.
    #[must_use]
    pub const fn sees(self, address: u64) -> u64 {
        address + self.shift
    }

    /// Runs instructions at EL0 with `argument` in x0, up to the exception that ends them.
    ///
    /// # Safety
    /// They change no memory that Rust owns, and end in an exception.
    pub unsafe fn run(self, mode: Mode, words: &[u32], argument: u64) -> Option<Fault> {
        let code = core::ptr::with_exposed_provenance_mut::<u32>(bytes::size(self.code));
        for (index, word) in words.iter().enumerate() {
            let place = code.wrapping_add(index);
            // SAFETY: the frame is no Rust memory.
            unsafe { place.write_volatile(*word) };
        }
        let seen = self.sees(self.code);
        // SAFETY: cache maintenance by address (DDI 0487 B2.4.4), so that the fetch sees the stores.
        unsafe {
            asm!("dc cvau, {0}", "dsb ish", "ic ivau, {1}", "ic ialluis", "dsb ish", "isb", in(reg) self.code, in(reg) seen,
                options(nostack, preserves_flags));
        }
        let start = Start {
            entry: seen,
            argument,
            state: mode.state(),
        };
        // SAFETY: the caller vouches for the instructions; the exception that ends them is caught.
        unsafe { probe::call(guest_test_enter_user, bytes::address_of(&start), 0) }.err()
    }
}
