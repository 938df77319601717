//! TLB maintenance, each function one complete sequence of DDI 0487 D8.17, barriers included.
//!
//! A stage-2 change takes two steps: entries made from stage 2 alone (by IPA), then combined entries of stage 1 and 2,
//! which no IPA finds (by VMID). They act on the VMID in VTTBR_EL2, so a guest's regime is put there for that time.
//! Invariant: on return no CPU holds a translation that was named.

use core::arch::asm;

use aarch64_cpu::registers::{Readable, VTTBR_EL2, Writeable};
use pinfold_core::addr::{FRAME_SHIFT, FrameRange, Intermediate};
use pinfold_core::machine::Vmid;

use crate::barrier;
use crate::width::wide;

/// Where VTTBR_EL2 holds the VMID.
const VMID_SHIFT: u64 = 48;

/// Above this many frames one invalidation of the whole VMID is cheaper.
const MOST_BY_ADDRESS: u64 = 512;

macro_rules! tlbi {
    ($operation:literal) => {
        // SAFETY: removing cached translations changes no memory; the next access walks the tables again.
        unsafe { asm!(concat!("tlbi ", $operation), options(nostack, preserves_flags)) }
    };
    ($operation:literal, $operand:expr) => {
        // SAFETY: as above.
        unsafe { asm!(concat!("tlbi ", $operation, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

/// A stage 2 that maps nothing: what a walker finds while a VMID is in VTTBR_EL2 only to name it.
#[repr(C, align(8192))]
struct EmptyRoot([u64; 1024]);

static EMPTY_ROOT: EmptyRoot = EmptyRoot([0; 1024]);

/// Runs `operations` with `vmid` in VTTBR_EL2, as TLBI needs it.
fn with_vmid(vmid: Vmid, operations: impl FnOnce()) {
    let current = VTTBR_EL2.get();
    if current >> VMID_SHIFT == u64::from(vmid.0) {
        operations();
        return;
    }
    VTTBR_EL2.set(u64::from(vmid.0) << VMID_SHIFT | wide(EMPTY_ROOT.0.as_ptr().addr()));
    barrier::context();
    operations();
    VTTBR_EL2.set(current);
    barrier::context();
}

/// Removes what was made from the stage-2 entries of `frames`.
pub(crate) fn invalidate_range(vmid: Vmid, frames: FrameRange<Intermediate>) {
    if frames.count() > MOST_BY_ADDRESS {
        invalidate_vmid(vmid);
        return;
    }
    barrier::descriptors_written();
    with_vmid(vmid, || {
        for frame in frames.frames() {
            tlbi!("ipas2e1is", frame.address().raw() >> FRAME_SHIFT);
        }
        barrier::all_cpus();
        tlbi!("vmalle1is");
        barrier::all_cpus();
        barrier::context();
    });
}

/// Removes everything of one regime.
pub(crate) fn invalidate_vmid(vmid: Vmid) {
    barrier::descriptors_written();
    with_vmid(vmid, || {
        tlbi!("vmalls12e1is");
        barrier::all_cpus();
        barrier::context();
    });
}

/// Removes everything of the regime in VTTBR_EL2 from this CPU, and its instructions from the cache: another vCPU of the VM
/// ran here, whose private translations are not this one's.
pub(crate) fn invalidate_vmid_of_this_cpu() {
    tlbi!("vmalle1");
    // SAFETY: the next fetch reads the instructions again.
    unsafe { asm!("ic iallu", options(nostack, preserves_flags)) };
    barrier::this_cpu();
    barrier::context();
}

/// Removes everything of EL1 and EL0, all regimes, from this CPU: its state at reset.
pub(crate) fn invalidate_all_of_this_cpu() {
    barrier::descriptors_written();
    tlbi!("alle1");
    barrier::this_cpu();
    barrier::context();
}

/// Removes everything of EL1 and EL0, all regimes, from all CPUs.
pub(crate) fn invalidate_all() {
    barrier::descriptors_written();
    tlbi!("alle1is");
    barrier::all_cpus();
    barrier::context();
}

/// Removes EL2's own translation of `address` from all CPUs.
pub(crate) fn invalidate_own(address: usize) {
    barrier::descriptors_written();
    tlbi!("vae2is", address >> FRAME_SHIFT);
    barrier::all_cpus();
    barrier::context();
}

/// Removes EL2's own translation of `address` from this CPU: for a window, which no other CPU uses.
pub(crate) fn invalidate_own_here(address: usize) {
    barrier::descriptors_written();
    tlbi!("vae2", address >> FRAME_SHIFT);
    barrier::this_cpu();
    barrier::context();
}
