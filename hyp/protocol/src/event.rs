//! What a CPU does, in primitive steps: [`Event`].
//!
//! Frames are numbers of 4 KiB frames, physical for tables and outputs, of the input address for what is translated.

/// Whose translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Regime {
    /// EL2's own stage 1.
    Own,
    /// The stage 2 that this VMID names.
    Stage2(u16),
}

/// A lock by its number, below 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock(pub u8);

/// A data synchronization barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dsb {
    /// ISHST: orders stores, and waits for no TLBI.
    InnerStores,
    /// ISH.
    Inner,
    /// NSH: waits for what this CPU's own walker and TLB do.
    Local,
    /// SY.
    System,
}

/// A TLB invalidation. What is not called local is broadcast to the inner shareable domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// IPAS2E1IS: what was made from stage 2 alone for this frame, of the current VMID.
    Ipa(u64),
    /// VMALLE1IS: stage 1 and combined entries of the current VMID.
    Combined,
    /// VMALLE1: the same on this CPU.
    CombinedLocal,
    /// VMALLS12E1IS: everything of the current VMID.
    Vmid,
    /// ALLE1IS: everything of EL1 and EL0.
    El1,
    /// ALLE1: the same on this CPU.
    El1Local,
    /// VAE2IS: EL2's own translation of this frame.
    Own(u64),
    /// VAE2: the same on this CPU.
    OwnLocal(u64),
}

/// One step of one CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The CPU starts, with this in VTTBR_EL2.
    Start(u64),
    /// These tables, which translate already, are EL2's own from here on; this lock guards them.
    Adopt {
        /// The root.
        root: u64,
        /// Who holds it may store.
        lock: Option<Lock>,
    },
    /// Entry `n` of this table is written and used by CPU `n` alone, without a lock.
    Private(u64),
    /// A frame whose tables are all zeroes for good, that stands in VTTBR_EL2 while a VMID is only named.
    Empty(u64),
    /// A frame was taken out of the pool, to be a table.
    Allocate(u64),
    /// A table's frame was overwritten with zeroes.
    Zero(u64),
    /// These frames are the root of `regime` from here on.
    Root {
        /// The regime that they translate.
        regime: Regime,
        /// The first frame.
        first: u64,
        /// How many frames.
        frames: u64,
        /// Who holds it may store.
        lock: Option<Lock>,
    },
    /// A table's frame goes back to the pool. A root stops being one.
    Free(u64),
    /// A descriptor is about to be stored.
    Store {
        /// The frame of the table.
        table: u64,
        /// The entry, below 512.
        index: u16,
        /// What will stand there.
        value: u64,
    },
    /// A barrier was done.
    Dsb(Dsb),
    /// An instruction barrier was done.
    Isb,
    /// An invalidation was issued.
    Tlbi(Tlbi),
    /// VTTBR_EL2 was written.
    Vttbr(u64),
    /// TTBR0_EL2 was written.
    Ttbr(u64),
    /// EL2 wrote into a frame that is to be somebody else's.
    Write(u64),
    /// A frame was cleaned to the point of coherency.
    Clean(u64),
    /// A lock was taken.
    Lock(Lock),
    /// A lock is about to be released.
    Unlock(Lock),
}
