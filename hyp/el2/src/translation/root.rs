//! VTTBR_EL2: which stage 2 this CPU's walker takes, and which VMID a TLBI means.
//!
//! Invariant: it holds the root of a regime under that regime's own VMID, or [`EMPTY`] under any.

use aarch64_cpu::registers::{Readable, VTTBR_EL2, Writeable};
use pinfold_core::machine::Vmid;

use crate::width::wide;

/// Where VTTBR_EL2 holds the VMID.
const VMID_SHIFT: u64 = 48;

/// A stage 2 that maps nothing: what a walker finds while a VMID is in VTTBR_EL2 only to name it.
#[repr(C, align(8192))]
struct EmptyRoot([u64; 1024]);

static EMPTY: EmptyRoot = EmptyRoot([0; 1024]);

/// Where the root is that maps nothing.
pub(crate) fn empty() -> u64 {
    wide(EMPTY.0.as_ptr().addr())
}

/// What this CPU has.
pub(crate) fn selected() -> u64 {
    VTTBR_EL2.get()
}

/// Whether a TLBI of this CPU means `vmid` now.
pub(crate) fn names(vmid: Vmid) -> bool {
    selected() >> VMID_SHIFT == u64::from(vmid.0)
}

/// Makes this CPU's walker take another root, from the next ISB on.
pub(crate) fn select(vttbr: u64) {
    VTTBR_EL2.set(vttbr);
    report!(Vttbr(vttbr));
}

/// Makes a TLBI of this CPU mean `vmid`, from the next ISB on, and lets its walker find nothing.
pub(crate) fn name(vmid: Vmid) {
    select(u64::from(vmid.0) << VMID_SHIFT | empty());
}
