//! What core asks of the hardware: [`Machine`], a dozen verbs without a decision in them.
//!
//! `hyp/el2` implements it with instructions; [`test::FakeMachine`] with plain memory and a hostile model of the TLB.
//! Nothing here is refused by a machine except for want of memory, and that only in the verbs that return an
//! [`Option`] or [`OutOfMemory`]; everything else cannot fail, which is what lets a checked change be done whole.
//!
//! Invariant: core names only frames to which the folio array entitles EL2 at that moment. A [`Table`] is made by the
//! machine, out of its pool, or read from a table descriptor that core wrote; nothing else makes one.

use crate::addr::{FrameRange, Intermediate, Pfn, Physical};
use crate::trace::Ring;

#[cfg(any(test, feature = "test-machine"))]
pub mod test;

/// Entries of one translation table (4 KiB granule).
pub const TABLE_ENTRIES: usize = 512;

/// A frame of EL2 that holds descriptors of a stage-2 table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Table(Pfn);

impl Table {
    /// Vouches that `frame` is one of EL2's own and holds nothing but descriptors.
    #[must_use]
    pub const fn vouch(frame: Pfn) -> Self {
        Self(frame)
    }

    /// The frame.
    #[must_use]
    pub const fn frame(self) -> Pfn {
        self.0
    }
}

/// Two adjoining tables, 8 KiB aligned: the concatenated level-1 root of a 40-bit stage 2 (DDI 0487, D8.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RootTables {
    /// The table for the lower 512 GiB; its frame number is even.
    pub low: Table,
    /// The table for the upper 512 GiB, in the frame after `low`.
    pub high: Table,
}

/// The position of a descriptor in its table, below 512.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableIndex(u16);

impl TableIndex {
    /// The low nine bits of `raw`.
    #[must_use]
    pub const fn of(raw: u64) -> Self {
        let [low, high, ..] = raw.to_le_bytes();
        Self(u16::from_le_bytes([low, high & 1]))
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// Names one stage-2 regime in the TLB. 0 is the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vmid(pub u16);

impl Vmid {
    /// The host's.
    pub const HOST: Self = Self(0);
}

/// Which cached translations have to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those that were made from stage-2 entries of these frames.
    Range(Vmid, FrameRange<Intermediate>),
    /// All of one regime.
    All(Vmid),
}

/// What EL2 may do with a frame that it maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HypAccess {
    /// Read, and never write: frames of a pin table.
    ReadOnly,
    /// Read and write: frames of the pool.
    ReadWrite,
}

/// The pool has no frame left for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// The hardware, as core sees it.
pub trait Machine {
    /// Takes a frame of zeroes out of the pool, for a table.
    fn allocate_table(&mut self) -> Option<Table>;

    /// Takes two adjoining frames of zeroes out of the pool, for a root.
    fn allocate_root(&mut self) -> Option<RootTables>;

    /// Makes `root`, which says nothing yet, the regime that `vmid` names in the TLB, until it is freed.
    fn name_root(&mut self, root: RootTables, vmid: Vmid);

    /// Puts a table's frame back into the pool. No walker can reach it any more.
    fn free_table(&mut self, table: Table);

    /// Puts a root's frames back into the pool. No walker can reach them any more.
    fn free_root(&mut self, root: RootTables);

    /// Reads one descriptor.
    fn read(&self, table: Table, index: TableIndex) -> u64;

    /// Writes one descriptor, by one 64-bit store. Walkers may see it at once, or only after [`Machine::publish`].
    fn write(&mut self, table: Table, index: TableIndex, descriptor: u64);

    /// Makes every earlier [`Machine::write`] visible to the walkers of all CPUs (DSB ISHST, ISB).
    fn publish(&mut self);

    /// Publishes, then removes what any CPU has cached within `scope`, stage 2 and combined, and waits for the end of it
    /// (DDI 0487, D8.17: DSB ISHST; TLBI IPAS2E1IS for each or VMALLS12E1IS; DSB ISH; TLBI VMALLE1IS; DSB ISH; ISB).
    fn invalidate(&mut self, scope: Scope);

    /// Overwrites a frame with zeroes and cleans it to the point of coherency.
    fn wipe(&mut self, frame: Pfn);

    /// Whether guests run with `HCR_EL2.FWB` set: then their stage 2 forces write-back, is encoded otherwise (DDI 0487, D8.6.6), and
    /// frames need no cleaning on their way in.
    fn forces_write_back(&self) -> bool {
        false
    }

    /// Cleans and invalidates a frame to the point of coherency.
    fn clean(&mut self, frame: Pfn);

    /// Makes every CPU forget the instructions that it has fetched, before a frame is somebody else's to execute.
    fn forget_instructions(&mut self);

    /// Makes sure that [`Machine::map_hyp`] will have the tables it needs for `frames`.
    fn prepare_hyp(&mut self, frames: FrameRange<Physical>) -> Result<(), OutOfMemory>;

    /// Maps a frame, for which [`Machine::prepare_hyp`] has said yes, into EL2's stage 1 at its own address.
    fn map_hyp(&mut self, frame: Pfn, access: HypAccess);

    /// Unmaps a frame from EL2's stage 1 and flushes.
    fn unmap_hyp(&mut self, frame: Pfn);

    /// Reads the 32-bit little-endian word `index` (below 1024) of a mapped pin-table frame, once and as volatile.
    fn read_pin_word(&self, frame: Pfn, index: usize) -> u32;

    /// Adds a frame that the host gave, mapped by [`Machine::map_hyp`], to the pool.
    fn pool_insert(&mut self, frame: Pfn);

    /// Takes one free frame that the host gave out of the pool; `None` when none of those is free.
    fn pool_remove(&mut self) -> Option<Pfn>;

    /// How many frames' worth of the pool are free.
    fn pool_free(&self) -> u64;

    /// The trace of a CPU, in the order of the device tree; `None` if there is no such CPU, or no trace.
    fn trace(&self, _cpu: usize) -> Option<&Ring> {
        None
    }
}
