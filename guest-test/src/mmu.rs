//! Stage 1 of both images: one level-1 table of 1 GiB blocks, virtual = physical, used for both halves of the address space.
//!
//! The first GiB (devices on the `virt` machine and in Pinfold's guests) is Device-nGnRnE, the rest Normal write-back.
//! 39-bit addresses: TTBR0 gives the low half, TTBR1 the same memory again from [`HIGH`] up (bit 55 set: what Linux would call a kernel address).
//! Invariant: the table is written once, before any CPU turns translation on, except by [`map_block`] and its like.

use core::arch::asm;
use core::cell::UnsafeCell;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    ID_AA64MMFR0_EL1, MAIR_EL1, Readable, SCTLR_EL1, TCR_EL1, TTBR0_EL1, TTBR1_EL1, Writeable,
};

use crate::bytes;

/// What is added to a physical address to reach it through TTBR1.
pub const HIGH: u64 = 0xffff_ff80_0000_0000;

/// Entries of the table: 512 GiB in blocks of one.
const ENTRIES: usize = 512;

/// Valid block, access flag, inner shareable, never executable at EL0 (DDI 0487 D8.3).
const BLOCK: u64 = 1 | 1 << 10 | 3 << 8 | USER_NEVER;
/// `UXN`: never executable at EL0.
const USER_NEVER: u64 = 1 << 54;
/// `AP[1]`: EL0 reads and writes, and EL1 does not execute.
const USER: u64 = 1 << 6;
/// Index 1 of MAIR: Normal, inner and outer write-back.
const NORMAL: u64 = 1 << 2;
/// Index 0 of MAIR, and never executable at EL1.
const DEVICE: u64 = 1 << 53;

/// A translation table that the walker reads.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; ENTRIES]>);

// SAFETY: it is written by CPU 0 before other CPUs run (see `fill`), and by `map_block`, whose callers vouch.
unsafe impl Sync for Table {}

static ROOT: Table = Table(UnsafeCell::new([0; ENTRIES]));

/// Writes the table; on CPU 0, before [`enable`].
pub(crate) fn fill() {
    for index in 0..ENTRIES {
        let attributes = if index == 0 { DEVICE } else { NORMAL };
        // SAFETY: the image is alone on its first CPU and translation is off.
        unsafe { write_entry(index, bytes::word(index) << 30 | attributes | BLOCK) };
    }
}

/// Makes the GiB at `virtual_gib` of both halves show `address`, as Normal memory.
///
/// # Safety
/// Nothing of the image lies in that GiB, and only one CPU does this at a time.
pub unsafe fn map_block(virtual_gib: usize, address: u64) {
    // SAFETY: the caller vouches.
    unsafe { replace_entry(virtual_gib, address | NORMAL | BLOCK) };
}

/// Makes the GiB at `virtual_gib` show `address` to EL0 too, which may run what is there.
///
/// # Safety
/// As for [`map_block`].
pub unsafe fn map_user_block(virtual_gib: usize, address: u64) {
    // SAFETY: the caller vouches.
    unsafe { replace_entry(virtual_gib, (address | NORMAL | BLOCK | USER) & !USER_NEVER) };
}

/// Makes the GiB at `virtual_gib` be translated by the level-2 table at `address`, whatever is there.
///
/// # Safety
/// As for [`map_block`].
pub unsafe fn map_table(virtual_gib: usize, address: u64) {
    // SAFETY: the caller vouches.
    unsafe { replace_entry(virtual_gib, address | 3) };
}

/// Break, then make (DDI 0487 D8.16.1).
///
/// # Safety
/// As for [`write_entry`].
unsafe fn replace_entry(index: usize, descriptor: u64) {
    // SAFETY: the caller vouches.
    unsafe { write_entry(index, 0) };
    invalidate();
    // SAFETY: as above.
    unsafe { write_entry(index, descriptor) };
    invalidate();
}

/// # Safety
/// No one else writes the table, and nothing in use goes away.
unsafe fn write_entry(index: usize, descriptor: u64) {
    if index < ENTRIES {
        let table = ROOT.0.get().cast::<u64>();
        // SAFETY: the index is inside the table.
        let entry = unsafe { table.add(index) };
        // SAFETY: the caller vouches for being alone; the walker reads whole words.
        unsafe { entry.write_volatile(descriptor) };
    }
}

/// Drops all of this VMID's EL1 translations on all CPUs.
pub fn invalidate() {
    // SAFETY: dropping translations only costs walks.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        );
    };
}

/// Turns translation and caches on for this CPU.
pub(crate) fn enable() {
    MAIR_EL1.set(0xff << 8);
    TCR_EL1.write(
        TCR_EL1::T0SZ.val(25)
            + TCR_EL1::T1SZ.val(25)
            + TCR_EL1::TG0::KiB_4
            + TCR_EL1::TG1::KiB_4
            + TCR_EL1::SH0::Inner
            + TCR_EL1::SH1::Inner
            + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::ORGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::IRGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::IPS.val(ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(5)),
    );
    let root = bytes::address_of(&ROOT);
    TTBR0_EL1.set(root);
    TTBR1_EL1.set(root);
    invalidate();
    // RES1 bits as for a CPU without the optional features (Linux's INIT_SCTLR_EL1_MMU_OFF), then M, C and I.
    SCTLR_EL1.set(0x30d0_0800 | 1 | 1 << 2 | 1 << 12);
    barrier::isb(barrier::SY);
}
