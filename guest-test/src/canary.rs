//! Canaries: every register filled with a known value around one event, and looked at afterwards.
//!
//! [`Canaries`] holds x0..x30, v0..v31, FPCR and FPSR; [`Canaries::around`] loads them all, lets the event happen, and stores them all.
//! [`SystemRegisters`] does the same for the EL1 registers that an image can spare. A value says whose it is and which register it was put into.

use core::arch::{asm, global_asm};

/// What happens between loading and storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// `hvc #0` with whatever x0.. hold.
    Hvc,
    /// `str x2, [x1]`.
    Store,
    /// `ldr x3, [x1]`.
    Load,
    /// `wfi`.
    Wfi,
}

/// All general, FP and SIMD registers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Canaries {
    /// x0..x30, and one word of padding.
    pub x: [u64; 32],
    /// v0..v31.
    pub v: [u128; 32],
    /// FPCR and FPSR.
    pub fp: [u64; 2],
}

unsafe extern "C" {
    fn guest_test_canary_hvc(registers: &mut Canaries);
    fn guest_test_canary_store(registers: &mut Canaries);
    fn guest_test_canary_load(registers: &mut Canaries);
    fn guest_test_canary_wfi(registers: &mut Canaries);
}

global_asm!(
    r#"
    .arch   armv8-a+fp+simd
    .macro  each_pair op:req
    \op     q0, q1, [x0, #256]
    \op     q2, q3, [x0, #288]
    \op     q4, q5, [x0, #320]
    \op     q6, q7, [x0, #352]
    \op     q8, q9, [x0, #384]
    \op     q10, q11, [x0, #416]
    \op     q12, q13, [x0, #448]
    \op     q14, q15, [x0, #480]
    \op     q16, q17, [x0, #512]
    \op     q18, q19, [x0, #544]
    \op     q20, q21, [x0, #576]
    \op     q22, q23, [x0, #608]
    \op     q24, q25, [x0, #640]
    \op     q26, q27, [x0, #672]
    \op     q28, q29, [x0, #704]
    \op     q30, q31, [x0, #736]
    \op     x4, x5, [x0, #32]
    \op     x6, x7, [x0, #48]
    \op     x8, x9, [x0, #64]
    \op     x10, x11, [x0, #80]
    \op     x12, x13, [x0, #96]
    \op     x14, x15, [x0, #112]
    \op     x16, x17, [x0, #128]
    \op     x18, x19, [x0, #144]
    \op     x20, x21, [x0, #160]
    \op     x22, x23, [x0, #176]
    \op     x24, x25, [x0, #192]
    \op     x26, x27, [x0, #208]
    \op     x28, x29, [x0, #224]
    .endm

    .macro  canary name:req, event:vararg
    .text
\name:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    str     x0, [sp, #96]
    add     x1, x0, #768
    ldp     x2, x3, [x1]
    msr     fpcr, x2
    msr     fpsr, x3
    each_pair ldp
    ldr     x30, [x0, #240]
    ldp     x2, x3, [x0, #16]
    ldp     x0, x1, [x0]
    \event
    stp     x0, x1, [sp, #-16]!
    ldr     x0, [sp, #112]
    stp     x2, x3, [x0, #16]
    each_pair stp
    str     x30, [x0, #240]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0]
    add     x1, x0, #768
    mrs     x2, fpcr
    mrs     x3, fpsr
    stp     x2, x3, [x1]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret
    .endm

    canary  guest_test_canary_hvc, hvc #0
    canary  guest_test_canary_store, str x2, [x1]
    canary  guest_test_canary_load, ldr x3, [x1]
    canary  guest_test_canary_wfi, wfi
    "#
);

impl Canaries {
    /// Registers that all say `owner` (16 bits) and their own number.
    #[must_use]
    pub fn of(owner: u16) -> Self {
        let mut canaries = Self {
            x: [0; 32],
            v: [0; 32],
            fp: [1 << 22, 1 << 27],
        };
        for (number, register) in (0..).zip(&mut canaries.x) {
            *register = value(owner, number);
        }
        for (number, register) in (0x100..).zip(&mut canaries.v) {
            let half = u128::from(value(owner, number));
            *register = half << 64 | !half & u128::from(u64::MAX);
        }
        canaries
    }

    /// Loads all registers, lets the event happen, and stores all registers.
    ///
    /// # Safety
    /// The event changes no memory that Rust owns.
    pub unsafe fn around(&mut self, trigger: Trigger) {
        let around = match trigger {
            Trigger::Hvc => guest_test_canary_hvc,
            Trigger::Store => guest_test_canary_store,
            Trigger::Load => guest_test_canary_load,
            Trigger::Wfi => guest_test_canary_wfi,
        };
        // SAFETY: the routines keep the calling convention and use only `self` and the stack.
        unsafe { around(self) }
    }
}

/// The value of register `number` that belongs to `owner`.
#[must_use]
pub fn value(owner: u16, number: u64) -> u64 {
    u64::from(owner) << 48 | 0x00c0_ffee_0000_0000 | number
}

/// A word that came from `owner`'s canaries.
#[must_use]
pub fn belongs_to(owner: u16, word: u64) -> bool {
    word >> 32 == value(owner, 0) >> 32
}

macro_rules! registers {
    ($(#[$doc:meta])+ $names:ident, $read:ident, $write:ident: $($register:literal $mask:literal),+ $(,)?) => {
        $(#[$doc])+
        pub const $names: &[(&str, u64)] = &[$(($register, $mask)),+];

        /// Reads them all.
        #[must_use]
        pub fn $read() -> [u64; $names.len()] {
            // SAFETY: reading has no effect.
            [$(unsafe { let word: u64; asm!(concat!("mrs {0}, ", $register), out(reg) word, options(nomem, nostack)); word }),+]
        }

        /// Writes them all.
        ///
        /// # Safety
        /// No probe runs on this CPU (`TPIDR_EL1` may be among them) and no exception comes until the old values are back.
        pub unsafe fn $write(values: &[u64; $names.len()]) {
            let mut values = values.iter();
            $(if let Some(word) = values.next() {
                // SAFETY: nothing in this image depends on the bits of the mask, see the list.
                unsafe { asm!(concat!("msr ", $register, ", {0}"), in(reg) *word, options(nomem, nostack)) };
            })+
        }
    };
}

/// The values of [`SYSTEM_REGISTERS`].
pub type SystemRegisters = [u64; SYSTEM_REGISTERS.len()];

// EL1 and EL0 registers that neither translation nor exception entry of a running image depends on (DDI 0487 D24.2).
registers! {
    /// Names of the registers, and the bits of each that keep what is written.
    SYSTEM_REGISTERS, read_system_registers, write_system_registers:
    "tpidr_el0" 0xffff_ffff_ffff_ffff,
    "tpidrro_el0" 0xffff_ffff_ffff_ffff,
    "tpidr_el1" 0xffff_ffff_ffff_ffff,
    "sp_el0" 0xffff_ffff_ffff_ffff,
    "elr_el1" 0xffff_ffff_ffff_ffff,
    "far_el1" 0xffff_ffff_ffff_ffff,
    "esr_el1" 0xffff_ffff,
    "spsr_el1" 0xf000_03c0,
    "contextidr_el1" 0xffff_ffff,
    "par_el1" 0x0000_ffff_ffff_f000,
    "csselr_el1" 0xf,
    "cntv_cval_el0" 0xffff_ffff_ffff_ffff,
}

// By encoding, since they are an extension: `APIA`, `APIB`, `APDA`, `APDB`, `APGA`. The images authenticate no pointer.
registers! {
    /// The keys of pointer authentication, where the CPU has them.
    KEYS, read_keys, write_keys:
    "S3_0_C2_C1_0" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C1_1" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C1_2" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C1_3" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C2_0" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C2_1" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C2_2" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C2_3" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C3_0" 0xffff_ffff_ffff_ffff,
    "S3_0_C2_C3_1" 0xffff_ffff_ffff_ffff,
}

/// Values for the system registers that say whose they are.
#[must_use]
pub fn system_canaries(owner: u16) -> SystemRegisters {
    let mut values = [0; SYSTEM_REGISTERS.len()];
    for ((number, place), (_, mask)) in (0x200..).zip(&mut values).zip(SYSTEM_REGISTERS) {
        *place = (value(owner, number) | u64::from(owner) << 16) & mask;
    }
    values
}
