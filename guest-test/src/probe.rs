//! Probes: run something that may fault, and get the fault back as a value.
//!
//! [`call`] keeps the callee-saved registers on the stack and its stack pointer in `TPIDR_EL1`; the synchronous vector finds it there and returns
//! from `call` with what it found. Invariant: `TPIDR_EL1` is 0 whenever no probe runs on this CPU (unless a test keeps a canary there and expects no fault).

use core::arch::global_asm;

/// What a synchronous exception told (DDI 0487 D24.2.40 `ESR_EL1`, `FAR_EL1`, `ELR_EL1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fault {
    /// Syndrome.
    pub esr: u64,
    /// Faulting address, if the syndrome says that there is one.
    pub far: u64,
    /// Address of the instruction.
    pub elr: u64,
}

impl Fault {
    /// Exception class, bits 31:26 of the syndrome.
    #[must_use]
    pub const fn class(self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// A data abort from EL1 itself.
    #[must_use]
    pub const fn is_data_abort(self) -> bool {
        self.class() == 0x25
    }

    /// An abort of a data access or a fetch, from EL0 or EL1.
    #[must_use]
    pub const fn is_abort(self) -> bool {
        matches!(self.class(), 0x20 | 0x21 | 0x24 | 0x25)
    }

    /// An instruction that EL1 does not know.
    #[must_use]
    pub const fn is_undefined(self) -> bool {
        self.class() == 0
    }

    /// The mark that EL2 puts on aborts that it injects (ISS.S1PTW, which hardware never sets at EL1).
    #[must_use]
    pub const fn has_hypervisor_mark(self) -> bool {
        self.esr & 1 << 7 != 0
    }

    /// The access was a write (ISS.WnR).
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.esr & 1 << 6 != 0
    }
}

/// A routine that a probe runs: a function of two words, or a piece of code that keeps to the calling convention.
pub type Routine = unsafe extern "C" fn(u64, u64) -> u64;

unsafe extern "C" {
    fn guest_test_probe(routine: Routine, first: u64, second: u64, fault: &mut Fault) -> u64;
}

global_asm!(
    r#"
    .text
guest_test_probe:
    stp     x29, x30, [sp, #-112]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mrs     x5, tpidr_el1
    stp     x3, x5, [sp, #96]
    mov     x4, sp
    msr     tpidr_el1, x4
    mov     x4, x0
    mov     x0, x1
    mov     x1, x2
    blr     x4
9:  ldr     x5, [sp, #104]
    msr     tpidr_el1, x5
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret

    // The synchronous vector jumps here with sp = TPIDR_EL1 when a probe runs.
    .global guest_test_probe_caught
guest_test_probe_caught:
    ldr     x3, [sp, #96]
    mrs     x0, esr_el1
    mrs     x1, far_el1
    mrs     x2, elr_el1
    stp     x0, x1, [x3]
    str     x2, [x3, #16]
    mov     x0, #0x3c5              // EL1h, all interrupts masked
    msr     spsr_el1, x0
    adr     x0, 9b
    msr     elr_el1, x0
    mov     x0, #0
    eret
    "#
);

/// Runs `routine(first, second)` and gives its result, or the fault that ended it.
///
/// # Safety
/// The routine keeps to the calling convention if it returns, and whatever it does before a fault leaves this image's memory sound.
/// It runs with interrupts masked.
pub unsafe fn call(routine: Routine, first: u64, second: u64) -> Result<u64, Fault> {
    let mut fault = Fault {
        esr: 0,
        far: 0,
        elr: 0,
    };
    // SAFETY: the caller vouches for the routine; the assembly keeps every callee-saved register.
    let value = unsafe { guest_test_probe(routine, first, second, &mut fault) };
    if fault.elr == 0 {
        Ok(value)
    } else {
        Err(fault)
    }
}
