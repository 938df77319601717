//! Mutants: the model with one thing wrong.
//!
//! A checker that has never found anything proves nothing. Each [`Mutant`] leaves out or misplaces one step of the
//! algorithms, in the code that the unharmed model runs too; `tests/mutants.rs` demands that the checker notices,
//! in a scenario named beforehand and for the reason named beforehand.

/// One thing that is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Isolation does not unmap the folio before it freezes the reference count.
    DropUnmap,
    /// The slow path of GUP does not ask whether the folio is exclusively pinned or isolated.
    DropSlowPathTest,
    /// The fast path of GUP does not ask whether the folio is exclusively pinned or isolated.
    DropFastTest,
    /// A lookup in the page cache does not ask whether the folio is isolated.
    DropCacheTest,
    /// The scan for mergeable pages does not ask whether the folio is isolated.
    DropScanTest,
    /// `fork()` does not ask whether the folio is isolated.
    DropForkTest,
    /// Ordinary pins are not counted in the word.
    DropCount,
    /// Pins that are given back are not uncounted.
    DropUncount,
    /// Whoever wants the contents asks for the isolated bit before he has a reference.
    TestBeforeReference,
    /// The fast path adds its reference also to a count of 0.
    AddToFrozen,
    /// The isolated bit is set after the reference count was unfrozen.
    MarkAfterUnfreeze,
    /// The reference count is compared, not frozen.
    CompareOnly,
    /// The reference count is unfrozen without release semantics.
    RelaxedUnfreeze,
    /// References are dropped without release semantics.
    RelaxedPut,
    /// Whoever asks for the isolated bit reads it without acquire semantics.
    RelaxedTest,
    /// The word is read, tested and written in three steps.
    NonAtomicGrab,
    /// Takers write first and look afterwards, and take back what they wrote: a flag and a count that do not meet.
    LookAfterwards,
    /// An exclusive taker does not look for other pins.
    IgnoreOtherPins,
    /// An ordinary pin becomes exclusive although it is not the only one.
    PromoteAnyPin,
    /// An unpin drops the reference before it uncounts the pin.
    PutReferenceBeforeWord,
    /// An isolated folio that is unpinned goes back to the allocator.
    FreeIsolated,
    /// The owner ends the isolation before he has the contents back.
    UnisolateTooEarly,
    /// An isolation that fails leaves the owner's pin a plain reference.
    ForgetPin,
    /// An isolation that fails leaves the migration entries where they are.
    ForgetRemap,
    /// Each folio of a batch is mapped again as soon as it is marked.
    RemapBeforeDecision,
    /// The folios of a batch are isolated one after the other, and those before one that fails are taken back.
    FolioByFolio,
    /// Isolation does without the folio lock.
    NoFolioLock,
    /// Isolation does without the `mmap_lock`.
    NoMmapLock,
    /// A split sets the words of the tail pages after their reference counts.
    TailWordsLate,
    /// A split tells by the words of the tail pages which of them the owner has kept.
    GuessByWord,
    /// A split does not set the words of the tail pages.
    TailWordsNever,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::DropUnmap,
        Self::DropSlowPathTest,
        Self::DropFastTest,
        Self::DropCacheTest,
        Self::DropScanTest,
        Self::DropForkTest,
        Self::DropCount,
        Self::DropUncount,
        Self::TestBeforeReference,
        Self::AddToFrozen,
        Self::MarkAfterUnfreeze,
        Self::CompareOnly,
        Self::RelaxedUnfreeze,
        Self::RelaxedPut,
        Self::RelaxedTest,
        Self::NonAtomicGrab,
        Self::LookAfterwards,
        Self::IgnoreOtherPins,
        Self::PromoteAnyPin,
        Self::PutReferenceBeforeWord,
        Self::FreeIsolated,
        Self::UnisolateTooEarly,
        Self::ForgetPin,
        Self::ForgetRemap,
        Self::RemapBeforeDecision,
        Self::FolioByFolio,
        Self::NoFolioLock,
        Self::NoMmapLock,
        Self::TailWordsLate,
        Self::GuessByWord,
        Self::TailWordsNever,
    ];
}
