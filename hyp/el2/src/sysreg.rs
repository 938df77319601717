//! The system registers that `aarch64-cpu` lacks, in its style, and the fields of ID registers.
//!
//! Named by encoding (`S<op0>_<op1>_C<crn>_C<crm>_<op2>`, DDI 0487 C5.1.3), since an assembler knows the new ones only with
//! their feature switched on. The only home of MRS and MSR in Rust. Invariant: a register that may be absent is touched
//! only behind its feature's ID field ([`field`]).

#![expect(
    non_camel_case_types,
    reason = "the Arm ARM's names, as aarch64-cpu has them"
)]

use core::arch::asm;

pub(crate) use aarch64_cpu::registers::{Readable, Writeable};

macro_rules! readable {
    ($($(#[$meta:meta])* $name:ident = $encoding:literal;)*) => {$(
        $(#[$meta])*
        pub(crate) struct $name;

        impl Readable for $name {
            type T = u64;
            type R = ();

            fn get(&self) -> u64 {
                let value: u64;
                // SAFETY: reading this register has no effect but the value.
                unsafe { asm!(concat!("mrs {}, ", $encoding), out(reg) value, options(nomem, nostack, preserves_flags)) };
                value
            }
        }
    )*};
}

macro_rules! writeable {
    ($($(#[$meta:meta])* $name:ident = $encoding:literal;)*) => {
        readable! { $($(#[$meta])* $name = $encoding;)* }
        $(impl Writeable for $name {
            type T = u64;
            type R = ();

            fn set(&self, value: u64) {
                // SAFETY: this register governs EL1, EL0 and their traps; no value of it changes what EL2 itself reaches.
                unsafe { asm!(concat!("msr ", $encoding, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
            }
        })*
    };
}

readable! {
    /// Cache line sizes.
    CTR_EL0 = "S3_3_C0_C0_1";
    /// Size of what DC ZVA clears.
    DCZID_EL0 = "S3_3_C0_C0_7";
    /// Features: SVE, GIC, AMU, RAS, MPAM.
    ID_AA64PFR0_EL1 = "S3_0_C0_C4_0";
    /// Features: SME, MTE, GCS, THE.
    ID_AA64PFR1_EL1 = "S3_0_C0_C4_1";
    /// Features: FPMR.
    ID_AA64PFR2_EL1 = "S3_0_C0_C4_2";
    /// Features of SME.
    ID_AA64SMFR0_EL1 = "S3_0_C0_C4_5";
    /// Features: PMU, SPE, trace.
    ID_AA64DFR0_EL1 = "S3_0_C0_C5_0";
    /// Features: pointer authentication.
    ID_AA64ISAR1_EL1 = "S3_0_C0_C6_1";
    /// Features: MOPS.
    ID_AA64ISAR2_EL1 = "S3_0_C0_C6_2";
    /// Features: physical address range, fine-grained traps, ECV.
    ID_AA64MMFR0_EL1 = "S3_0_C0_C7_0";
    /// Features: HCRX, PAN, LOR.
    ID_AA64MMFR1_EL1 = "S3_0_C0_C7_1";
    /// Features: TCRX, SCTLRX, permission indirection.
    ID_AA64MMFR3_EL1 = "S3_0_C0_C7_3";
    /// Features: E2H0.
    ID_AA64MMFR4_EL1 = "S3_0_C0_C7_4";
    /// Identification of the SME unit.
    SMIDR_EL1 = "S3_1_C0_C0_6";
    /// Control of the PMU; field N is the number of counters.
    PMCR_EL0 = "S3_3_C9_C12_0";
    /// Identification of the profiling buffer.
    PMBIDR_EL1 = "S3_0_C9_C10_7";
    /// INTID of the highest pending interrupt, not acknowledged.
    ICC_HPPIR1_EL1 = "S3_0_C12_C12_2";
    /// Identification of the trace buffer.
    TRBIDR_EL1 = "S3_0_C9_C11_7";
}

writeable! {
    /// MIDR_EL1 as EL1 reads it.
    VPIDR_EL2 = "S3_4_C0_C0_0";
    /// Traps of AArch32 system registers.
    HSTR_EL2 = "S3_4_C1_C1_3";
    /// More of HCR_EL2.
    HCRX_EL2 = "S3_4_C1_C2_2";
    /// Fine-grained traps of reads.
    HFGRTR_EL2 = "S3_4_C1_C1_4";
    /// Fine-grained traps of writes.
    HFGWTR_EL2 = "S3_4_C1_C1_5";
    /// Fine-grained traps of instructions.
    HFGITR_EL2 = "S3_4_C1_C1_6";
    /// Fine-grained traps of reads, debug.
    HDFGRTR_EL2 = "S3_4_C3_C1_4";
    /// Fine-grained traps of writes, debug.
    HDFGWTR_EL2 = "S3_4_C3_C1_5";
    /// Fine-grained traps of the activity monitors.
    HAFGRTR_EL2 = "S3_4_C3_C1_6";
    /// Fine-grained traps of reads, debug, second set.
    HDFGRTR2_EL2 = "S3_4_C3_C1_0";
    /// Fine-grained traps of writes, debug, second set.
    HDFGWTR2_EL2 = "S3_4_C3_C1_1";
    /// Fine-grained traps of reads, second set.
    HFGRTR2_EL2 = "S3_4_C3_C1_2";
    /// Fine-grained traps of writes, second set.
    HFGWTR2_EL2 = "S3_4_C3_C1_3";
    /// Fine-grained traps of instructions, second set.
    HFGITR2_EL2 = "S3_4_C3_C1_7";
    /// Vector length of SVE.
    ZCR_EL2 = "S3_4_C1_C2_0";
    /// Vector length and extras of SME.
    SMCR_EL2 = "S3_4_C1_C2_6";
    /// Priorities of streaming execution.
    SMPRIMAP_EL2 = "S3_4_C1_C2_5";
    /// Profiling at EL2.
    PMSCR_EL2 = "S3_4_C9_C9_0";
    /// Trace filter at EL2.
    TRFCR_EL2 = "S3_4_C1_C2_1";
    /// Memory partitioning at EL2.
    MPAM2_EL2 = "S3_4_C10_C5_0";
    /// Memory partitioning, traps.
    MPAMHCR_EL2 = "S3_4_C10_C4_0";
    /// Limited ordering regions.
    LORC_EL1 = "S3_0_C10_C4_3";
    /// System-register interface of the GIC at EL2.
    ICC_SRE_EL2 = "S3_4_C12_C9_5";
    /// Streaming mode and ZA.
    #[expect(clippy::upper_case_acronyms, reason = "its name")]
    SVCR = "S3_3_C4_C2_2";
    /// Deferred virtual errors.
    VDISR_EL2 = "S3_4_C12_C1_1";
    /// Exception syndrome of EL1.
    ESR_EL1 = "S3_0_C5_C2_0";
    /// Return address of EL1.
    ELR_EL1 = "S3_0_C4_C0_1";
    /// Return state of EL1.
    SPSR_EL1 = "S3_0_C4_C0_0";
    /// Which counters count: set.
    PMCNTENSET_EL0 = "S3_3_C9_C12_1";
    /// Which counters count: clear.
    PMCNTENCLR_EL0 = "S3_3_C9_C12_2";
    /// Profiling at EL1.
    PMSCR_EL1 = "S3_0_C9_C9_0";
    /// Limit of the profiling buffer.
    PMBLIMITR_EL1 = "S3_0_C9_C10_0";
    /// Trace filter at EL1.
    TRFCR_EL1 = "S3_0_C1_C2_1";
    /// Limit of the trace buffer.
    TRBLIMITR_EL1 = "S3_0_C9_C11_0";
    /// Guarded control stack of EL1.
    GCSCR_EL1 = "S3_0_C2_C5_0";
}

/// Four bits of an ID register.
pub(crate) fn field(register: &impl Readable<T = u64>, shift: u32) -> u64 {
    (register.get() >> shift) & 0xf
}

/// Asks for the stage-1 translation of `address` as EL1 would read it; the answer is in PAR_EL1.
pub(crate) fn translate_as_el1_reads(address: u64) {
    // SAFETY: AT changes nothing but PAR_EL1.
    unsafe { asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack, preserves_flags)) };
}

/// Waits for an event that makes the CPU worth running again.
pub(crate) fn wait_for_interrupt() {
    aarch64_cpu::asm::wfi();
}
