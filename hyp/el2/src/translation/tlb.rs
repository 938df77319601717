//! TLB maintenance, each function one complete sequence of DDI 0487 D8.17, barriers included.
//!
//! A stage-2 change takes two steps: entries made from stage 2 alone (by IPA), then combined entries of stage 1 and 2,
//! which no IPA finds (by VMID). They act on the VMID in VTTBR_EL2, so a guest's regime is put there for that time.
//! Invariant: on return no CPU holds a translation that was named.

use core::arch::asm;

use pinfold_core::addr::{FRAME_SHIFT, FrameRange, Intermediate};
use pinfold_core::machine::Vmid;

use super::{barrier, root};
use crate::width::wide;

/// Above this many frames one invalidation of the whole VMID is cheaper.
const MOST_BY_ADDRESS: u64 = 512;

/// One instruction, and what the checker calls it.
macro_rules! tlbi {
    ($operation:literal, $name:ident) => {
        // SAFETY: removing cached translations changes no memory; the next access walks the tables again.
        unsafe { asm!(concat!("tlbi ", $operation), options(nostack, preserves_flags)) };
        report!(Tlbi(pinfold_protocol::Tlbi::$name));
    };
    ($operation:literal, $name:ident($operand:expr)) => {
        let operand: u64 = $operand;
        // SAFETY: as above.
        unsafe { asm!(concat!("tlbi ", $operation, ", {}"), in(reg) operand, options(nostack, preserves_flags)) };
        report!(Tlbi(pinfold_protocol::Tlbi::$name(operand)));
    };
}

/// Makes stores to descriptors visible to walkers, before a TLBI.
fn stores_first() {
    if !fault!(NoDsbBefore) {
        barrier::descriptors_written();
    }
}

/// Waits until a TLBI is done on all CPUs.
fn wait() {
    if !fault!(NoDsbAfter) {
        barrier::all_cpus();
    }
    barrier::context();
}

/// Runs `operations` with `vmid` in VTTBR_EL2, as TLBI needs it.
fn with_vmid(vmid: Vmid, operations: impl FnOnce()) {
    let vmid = if fault!(OtherVmid) {
        Vmid(vmid.0 ^ 1)
    } else {
        vmid
    };
    if root::names(vmid) {
        operations();
        return;
    }
    let current = root::selected();
    root::name(vmid);
    if !fault!(NoIsb) {
        barrier::context();
    }
    operations();
    root::select(current);
    barrier::context();
}

/// Removes what was made from the stage-2 entries of `frames`.
pub(crate) fn invalidate_range(vmid: Vmid, frames: FrameRange<Intermediate>) {
    if frames.count() > MOST_BY_ADDRESS {
        invalidate_vmid(vmid);
        return;
    }
    stores_first();
    if fault!(OneCpu) {
        tlbi!("alle1", El1Local);
        return wait();
    }
    if fault!(NoTlbi) {
        return wait();
    }
    with_vmid(vmid, || {
        let first = frames.first().raw();
        let count = frames.count() - u64::from(fault!(ShortRange));
        for frame in first..first + count {
            tlbi!("ipas2e1is", Ipa(frame));
        }
        if !fault!(NoDsbBetween) {
            barrier::all_cpus();
        }
        if !fault!(NoCombined) {
            tlbi!("vmalle1is", Combined);
        }
        wait();
    });
}

/// Removes everything of one regime.
pub(crate) fn invalidate_vmid(vmid: Vmid) {
    stores_first();
    with_vmid(vmid, || {
        tlbi!("vmalls12e1is", Vmid);
        wait();
    });
}

/// Removes everything of the regime in VTTBR_EL2 from this CPU, and its instructions from the cache: another vCPU of the VM
/// ran here, whose private translations are not this one's.
pub(crate) fn invalidate_vmid_of_this_cpu() {
    tlbi!("vmalle1", CombinedLocal);
    // SAFETY: the next fetch reads the instructions again.
    unsafe { asm!("ic iallu", options(nostack, preserves_flags)) };
    barrier::this_cpu();
    barrier::context();
}

/// Removes everything of EL1 and EL0, all regimes, from this CPU: its state at reset.
pub(crate) fn invalidate_all_of_this_cpu() {
    barrier::descriptors_written();
    tlbi!("alle1", El1Local);
    barrier::this_cpu();
    barrier::context();
}

/// Removes everything of EL1 and EL0, all regimes, from all CPUs.
pub(crate) fn invalidate_all() {
    barrier::descriptors_written();
    tlbi!("alle1is", El1);
    barrier::all_cpus();
    barrier::context();
}

/// Removes EL2's own translation of `address` from all CPUs.
pub(crate) fn invalidate_own(address: usize) {
    stores_first();
    if !fault!(NoOwnTlbi) {
        tlbi!("vae2is", Own(wide(address >> FRAME_SHIFT)));
    }
    wait();
}

/// Removes EL2's own translation of `address` from this CPU: for a window, which no other CPU uses.
pub(crate) fn invalidate_own_here(address: usize) {
    barrier::descriptors_written();
    if !fault!(NoWindowTlbi) {
        tlbi!("vae2", OwnLocal(wide(address >> FRAME_SHIFT)));
    }
    barrier::this_cpu();
    barrier::context();
}
