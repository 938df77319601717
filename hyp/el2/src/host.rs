//! The host's view of the CPU: what EL2 sets before EL1 runs for the first time, feature by feature.
//!
//! Linux asks a hypervisor for the state that Documentation/arch/arm64/booting.rst lists ("If the kernel is entered at
//! EL1"); one function for each group, each behind its ID field, so that one image serves every CPU. The host keeps all
//! features: nothing is trapped but SMC and what stage 2 refuses. [`enter`] is the only way to EL1 for the first time.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTKCTL_EL1, CNTVOFF_EL2, CPTR_EL2, ELR_EL2, HCR_EL2, ICH_HCR_EL2, MDCR_EL2,
    MIDR_EL1, MPIDR_EL1, SCTLR_EL1, SCTLR_EL2, SPSR_EL2, VMPIDR_EL2, VTCR_EL2,
};

use crate::sysreg::{
    GCSCR_EL1, HAFGRTR_EL2, HCRX_EL2, HDFGRTR_EL2, HDFGRTR2_EL2, HDFGWTR_EL2, HDFGWTR2_EL2,
    HFGITR_EL2, HFGITR2_EL2, HFGRTR_EL2, HFGRTR2_EL2, HFGWTR_EL2, HFGWTR2_EL2, HSTR_EL2,
    ICC_SRE_EL2, ID_AA64DFR0_EL1, ID_AA64ISAR1_EL1, ID_AA64ISAR2_EL1, ID_AA64MMFR0_EL1,
    ID_AA64MMFR1_EL1, ID_AA64MMFR3_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, ID_AA64PFR2_EL1,
    ID_AA64SMFR0_EL1, LORC_EL1, MPAM2_EL2, MPAMHCR_EL2, PMBIDR_EL1, PMCR_EL0, PMSCR_EL2, Readable,
    SMCR_EL2, SMIDR_EL1, SMPRIMAP_EL2, TRBIDR_EL1, TRFCR_EL2, VPIDR_EL2, Writeable, ZCR_EL2, field,
};
use crate::translation::{barrier, root, tlb, watch};

/// HCR_EL2: stage 2 on, SMC trapped, EL1 is AArch64.
const HCR: u64 = HCR_VM | 1 << 19 | 1 << 31;
const HCR_VM: u64 = 1;
/// HCR_EL2 while a CPU boots: no stage 2, EL1 is AArch64, no VHE.
pub(crate) const HCR_BOOT: u64 = 1 << 31;
/// HCR_EL2.API and APK: pointer authentication is the host's own.
const HCR_PAUTH: u64 = 1 << 41 | 1 << 40;
/// HCR_EL2.ATA: so are the tags.
const HCR_TAGS: u64 = 1 << 56;
/// HCR_EL2.EnSCXT: SCXTNUM of FEAT_CSV2_2.
const HCR_SCXT: u64 = 1 << 53;

/// SCTLR_EL1 at reset: MMU, caches and alignment checks off, the RES1 bits one (D24.2.174).
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;

/// VTCR_EL2: RES1, 40-bit IPA (T0SZ = 24), 4 KiB granule, start at level 1, walks write-back and inner shareable.
const VTCR: u64 = 1 << 31 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 0b01 << 6 | 0x18;

/// EL1 with SP_EL1, all interrupts masked.
const EL1H_MASKED: u64 = 0x3c5;

/// Root of the host's stage 2, VMID 0; zero until [`set_stage2`].
static VTTBR: AtomicU64 = AtomicU64::new(0);

/// Says where the host's stage 2 is.
pub(crate) fn set_stage2(root: u64) {
    VTTBR.store(root, Ordering::Relaxed);
}

/// VTTBR_EL2 while the host runs.
pub(crate) fn vttbr() -> u64 {
    VTTBR.load(Ordering::Relaxed)
}

/// VTCR_EL2, the same for the host and the guests.
pub(crate) fn vtcr() -> u64 {
    // PS: the physical range, at most 48 bits without FEAT_LPA2's descriptors.
    VTCR | field(&ID_AA64MMFR0_EL1, 0).min(5) << 16
}

/// HCR_EL2 while the host runs.
pub(crate) fn hcr() -> u64 {
    let pauth = (ID_AA64ISAR1_EL1.get() >> 4) & 0xff != 0
        || (ID_AA64ISAR1_EL1.get() >> 24) & 0xff != 0
        || field(&ID_AA64ISAR2_EL1, 8) != 0;
    let tags = field(&ID_AA64PFR1_EL1, 8) >= 2;
    let scxtnum = field(&ID_AA64PFR0_EL1, 56) >= 2 || field(&ID_AA64PFR1_EL1, 32) >= 1;
    let optional = [(pauth, HCR_PAUTH), (tags, HCR_TAGS), (scxtnum, HCR_SCXT)];
    HCR | one_of_each(optional)
}

/// The bits whose feature is there.
fn one_of_each<const N: usize>(features: [(bool, u64); N]) -> u64 {
    features
        .into_iter()
        .filter(|(present, _)| *present)
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// Sets every EL2 register that EL1 depends on. Once on each CPU, at boot, `CPU_ON` and resume.
pub(crate) fn set_up_cpu() {
    watch::set_up_cpu();
    identity();
    timer();
    interrupt_controller();
    extended_controls();
    fine_grained_traps();
    more_fine_grained_traps();
    debug();
    partitions_and_regions();
    vectors();
    stage2();
    barrier::context();
    tlb::invalidate_all_of_this_cpu();
}

fn identity() {
    VPIDR_EL2.set(MIDR_EL1.get());
    VMPIDR_EL2.set(MPIDR_EL1.get());
    HSTR_EL2.set(0);
}

/// The physical timer and counter are the host's; the virtual counter has no offset.
fn timer() {
    CNTHCTL_EL2.set(0b11);
    CNTVOFF_EL2.set(0);
    CNTKCTL_EL1.set(0);
}

/// System registers, also for EL1, and no virtual interface.
fn interrupt_controller() {
    if field(&ID_AA64PFR0_EL1, 24) != 0 {
        ICC_SRE_EL2.set(ICC_SRE_EL2.get() | 1 << 3 | 1);
        barrier::context();
        ICH_HCR_EL2.set(0);
    }
}

/// HCRX_EL2: each new facility is the host's where it exists.
fn extended_controls() {
    if field(&ID_AA64MMFR1_EL1, 40) == 0 {
        return;
    }
    HCRX_EL2.set(one_of_each([
        (field(&ID_AA64ISAR2_EL1, 16) != 0, 1 << 11), // MSCEn: memory copy
        (field(&ID_AA64MMFR3_EL1, 0) != 0, 1 << 14),  // TCR2En
        (field(&ID_AA64MMFR3_EL1, 4) != 0, 1 << 15),  // SCTLR2En
        (field(&ID_AA64PFR1_EL1, 44) != 0, 1 << 22),  // GCSEn
        (field(&ID_AA64PFR2_EL1, 32) != 0, 1 << 23),  // EnFPM
    ]));
}

/// The first set: zero traps nothing, but for the fields of later features, which trap unless they are one.
fn fine_grained_traps() {
    if field(&ID_AA64MMFR0_EL1, 56) == 0 {
        return;
    }
    let gcs = field(&ID_AA64PFR1_EL1, 44) != 0;
    let registers = one_of_each([
        (field(&ID_AA64ISAR1_EL1, 60) >= 3, 1 << 50), // ACCDATA_EL1
        (gcs, 1 << 53 | 1 << 52),                     // GCS registers
        (field(&ID_AA64PFR1_EL1, 24) != 0, 1 << 55 | 1 << 54), // TPIDR2_EL0, SMPRI_EL1
        (field(&ID_AA64PFR1_EL1, 48) != 0, 1 << 56),  // RCWMASK_EL1
        (field(&ID_AA64MMFR3_EL1, 8) != 0, 1 << 58 | 1 << 57), // PIR_EL1, PIRE0_EL1
        (field(&ID_AA64MMFR3_EL1, 16) != 0, 1 << 60 | 1 << 59), // POR_EL1, POR_EL0
        (field(&ID_AA64MMFR3_EL1, 20) != 0, 1 << 61), // S2POR_EL1
        (field(&ID_AA64MMFR3_EL1, 24) != 0, 1 << 63 | 1 << 62), // AMAIR2_EL1, MAIR2_EL1
    ]);
    HFGRTR_EL2.set(registers);
    HFGWTR_EL2.set(registers);
    let branch_records = field(&ID_AA64DFR0_EL1, 52) != 0;
    HFGITR_EL2.set(one_of_each([
        (gcs, 0b111 << 57),
        (branch_records, 0b11 << 55),
    ]));
    let debug = one_of_each([
        (branch_records, 0b111 << 59),
        (field(&ID_AA64DFR0_EL1, 32) >= 3, 1 << 62),
    ]);
    HDFGRTR_EL2.set(debug);
    HDFGWTR_EL2.set(debug & !(1 << 59)); // BRBIDR0_EL1 cannot be written
    if field(&ID_AA64PFR0_EL1, 44) != 0 {
        HAFGRTR_EL2.set(0);
    }
}

/// The second set (FEAT_FGT2).
fn more_fine_grained_traps() {
    if field(&ID_AA64MMFR0_EL1, 56) < 2 {
        return;
    }
    let pmu = field(&ID_AA64DFR0_EL1, 8);
    let counters = if (9..15).contains(&pmu) {
        0b111 << 2
    } else {
        0
    };
    HDFGRTR2_EL2.set(counters);
    HDFGWTR2_EL2.set(if counters == 0 { 0 } else { counters | 1 << 21 });
    HFGRTR2_EL2.set(0);
    HFGWTR2_EL2.set(0);
    HFGITR2_EL2.set(0);
}

/// Whether there is a PMU of the architecture's (ID_AA64DFR0_EL1.PMUVer).
pub(crate) fn has_counters() -> bool {
    const IMPLEMENTATION_DEFINED: u64 = 15;
    let version = field(&ID_AA64DFR0_EL1, 8);
    version != 0 && version != IMPLEMENTATION_DEFINED
}

/// All counters, and the profiling and trace buffers where the secure world left them, are EL1's.
fn debug() {
    let mut mdcr = 0;
    if has_counters() {
        mdcr |= (PMCR_EL0.get() >> 11) & 0x1f; // HPMN
    }
    if has_counters() && field(&ID_AA64DFR0_EL1, 8) >= 4 {
        mdcr |= 1 << 17; // HPMD: events at EL2 are not counted (FEAT_PMUv3p1)
    }
    if field(&ID_AA64DFR0_EL1, 32) != 0 {
        if PMBIDR_EL1.get() & 1 << 4 == 0 {
            PMSCR_EL2.set(1 << 6 | 1 << 4); // PCT, PA
        }
        mdcr |= 0b11 << 12; // E2PB
    }
    if field(&ID_AA64DFR0_EL1, 44) != 0 && TRBIDR_EL1.get() & 1 << 4 == 0 {
        mdcr |= 0b11 << 24; // E2TB
    }
    MDCR_EL2.set(mdcr);
    if field(&ID_AA64DFR0_EL1, 40) != 0 {
        TRFCR_EL2.set(0);
    }
}

fn partitions_and_regions() {
    if field(&ID_AA64PFR0_EL1, 40) != 0 || field(&ID_AA64PFR1_EL1, 16) != 0 {
        MPAM2_EL2.set(0);
        MPAMHCR_EL2.set(0);
    }
    if field(&ID_AA64MMFR1_EL1, 16) != 0 {
        LORC_EL1.set(0);
    }
    if field(&ID_AA64PFR1_EL1, 44) != 0 {
        GCSCR_EL1.set(0);
    }
}

/// Floating point, SVE and SME are the host's, with the longest vectors; the same on every CPU.
fn vectors() {
    const RES1: u64 = 0x33ff;
    const SVE: u64 = 1 << 8;
    const SME: u64 = 1 << 12;
    let sve = field(&ID_AA64PFR0_EL1, 32) != 0;
    let sme = field(&ID_AA64PFR1_EL1, 24) != 0;
    CPTR_EL2.set(RES1 & !one_of_each([(sve, SVE), (sme, SME)]));
    barrier::context();
    if sve {
        ZCR_EL2.set(0xf);
    }
    if sme {
        SCTLR_EL2.set(SCTLR_EL2.get() | 1 << 60); // EnTP2
        let features = ID_AA64SMFR0_EL1.get();
        let optional = [
            (features >> 63 != 0, 1 << 31),
            ((features >> 56) & 0xf != 0, 1 << 30),
        ]; // FA64, EZT0
        SMCR_EL2.set(0xf | one_of_each(optional));
        if SMIDR_EL1.get() & 1 << 15 != 0 {
            SMPRIMAP_EL2.set(0);
        }
    }
}

fn stage2() {
    VTCR_EL2.set(vtcr());
    root::select(vttbr());
    HCR_EL2.set(hcr());
}

unsafe extern "C" {
    /// vectors.S: empties the stack and the registers and leaves for EL1 with `argument` in x0.
    fn enter_el1(argument: u64) -> !;
}

/// Leaves EL2 for the host's first instruction on this CPU, MMU off, as the boot protocol and PSCI want it.
pub(crate) fn enter(entry: u64, argument: u64) -> ! {
    SCTLR_EL1.set(SCTLR_EL1_RESET);
    ELR_EL2.set(entry);
    SPSR_EL2.set(EL1H_MASKED);
    barrier::context();
    // SAFETY: EL1 is set up; nothing of EL2's stack is used again.
    unsafe { enter_el1(argument) }
}
