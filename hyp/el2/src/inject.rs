//! Gives the host an exception as if its own hardware had taken it (DDI 0487, AArch64.TakeException and D1.3).
//!
//! An abort that stage 2 made becomes an abort of EL1 with ESR_EL1.S1PTW set, which hardware never sets there: mainline
//! pKVM's private mark, which the host's fault handler knows (host-shim/patches).

use aarch64_cpu::registers::{
    ELR_EL1, ELR_EL2, ESR_EL1, FAR_EL1, SCTLR_EL1, SPSR_EL1, SPSR_EL2, VBAR_EL1,
};

use crate::sysreg::{GCSCR_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR1_EL1, Readable, Writeable, field};

const EC_SHIFT: u32 = 26;
const EC_UNKNOWN: u64 = 0x00;
const EC_FROM_SAME_LEVEL: u64 = 1;
/// The instruction has 32 bits.
const IL: u64 = 1 << 25;
/// The private mark.
const S1PTW: u64 = 1 << 7;
/// ISS of an abort without ISV, SAS, SSE, SRT, SF and AR, which a stage-1 abort does not have.
const ABORT_ISS: u64 = 0x3fff;

const MODE: u64 = 0xf;
const EL1T: u64 = 0x4;
const EL1H: u64 = 0x5;
const AARCH32: u64 = 1 << 4;
const DAIF: u64 = 0xf << 6;
const SSBS: u64 = 1 << 12;
const ALLINT: u64 = 1 << 13;
const PAN: u64 = 1 << 22;
const DIT: u64 = 1 << 24;
const TCO: u64 = 1 << 25;
const EXLOCK: u64 = 1 << 34;
const FLAGS: u64 = 0xf << 28;

/// Injects an abort that EL2's stage 2 made, marked.
pub(crate) fn stage2_abort(syndrome: u64, far: u64) {
    abort(syndrome | S1PTW, far);
}

/// Injects an abort as the machine made it.
pub(crate) fn abort(syndrome: u64, far: u64) {
    FAR_EL1.set(far);
    let class = syndrome >> EC_SHIFT;
    let class = if is_from_el0() {
        class
    } else {
        class | EC_FROM_SAME_LEVEL
    };
    take(class << EC_SHIFT | syndrome & IL | syndrome & ABORT_ISS);
}

/// Whether the exception came from EL0.
pub(crate) fn is_from_el0() -> bool {
    SPSR_EL2.get() & (AARCH32 | 0b1100) != EL1T
}

/// Injects an undefined-instruction exception.
pub(crate) fn undefined() {
    take(EC_UNKNOWN << EC_SHIFT | IL);
}

/// Makes EL1 continue in its vector with `syndrome`.
fn take(syndrome: u64) {
    let old = SPSR_EL2.get();
    ESR_EL1.set(syndrome);
    ELR_EL1.set(ELR_EL2.get());
    SPSR_EL1.set(old);
    let vector = match old & (AARCH32 | MODE) {
        EL1H => 0x200,
        EL1T => 0x000,
        mode if mode & AARCH32 == 0 => 0x400,
        _ => 0x600,
    };
    ELR_EL2.set(VBAR_EL1.get().wrapping_add(vector));
    SPSR_EL2.set(state(old));
}

/// PSTATE in the handler: what stays, what SCTLR_EL1 says, everything else zero.
fn state(old: u64) -> u64 {
    let sctlr = SCTLR_EL1.get();
    let mut new = old & (FLAGS | DIT | PAN) | DAIF | EL1H;
    if field(&ID_AA64MMFR1_EL1, 20) != 0 && sctlr & 1 << 23 == 0 {
        new |= PAN; // SPAN
    }
    if field(&ID_AA64PFR1_EL1, 4) != 0 && sctlr & 1 << 44 != 0 {
        new |= SSBS; // DSSBS
    }
    if field(&ID_AA64PFR1_EL1, 8) >= 2 {
        new |= TCO;
    }
    if field(&ID_AA64PFR1_EL1, 36) != 0 && sctlr & 1 << 62 == 0 {
        new |= ALLINT; // SPINTMASK
    }
    if field(&ID_AA64PFR1_EL1, 44) != 0 && GCSCR_EL1.get() & 1 << 6 != 0 {
        new |= EXLOCK; // EXLOCKEN
    }
    new
}
