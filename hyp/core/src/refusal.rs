//! Why a call was refused: [`Refusal`], and the one place where it becomes a number.
//!
//! A refusal carries what was found, so that the caller need not guess: which frame of the range, the folio word there,
//! and the pin word, if one was read. A refused call has changed nothing.

use pinfold_abi::Status;

use crate::machine::OutOfMemory;

/// Where a range was refused, and what was found there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The index of the frame within the call's range.
    pub index: u64,
    /// The folio word there.
    pub folio: u64,
    /// The pin word there; 0 if none was read.
    pub pin: u32,
}

impl Found {
    /// The same, `frames` further on.
    const fn further(self, frames: u64) -> Self {
        Self {
            index: self.index.saturating_add(frames),
            ..self
        }
    }
}

/// Why a call was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The folio is in a state that does not allow this.
    State(Found),
    /// The frame, the vCPU or the VM is in use.
    Busy(Found),
    /// The pool is dry.
    OutOfMemory,
    /// The range cuts a folio, or the folio is not aligned to its size.
    Granule(Found),
    /// Nothing is mapped there.
    NotMapped(Found),
    /// The frame may never be used again.
    Poisoned(Found),
    /// An argument is malformed.
    Invalid,
    /// The pin word does not say: one pin, exclusive, isolated, of just this folio.
    NotExclusivelyPinned(Found),
    /// No registered pin table speaks for the frame.
    NoPinTable(Found),
    /// The handle names no VM.
    NoSuchVm,
    /// The VM has no such vCPU.
    NoSuchVcpu,
    /// The VM is past or before the phase in which this may be done.
    WrongPhase,
    /// The VM is protected and this is for ordinary ones, or the other way round.
    WrongKind,
    /// There is one already.
    Exists(Found),
    /// A fixed limit is reached.
    Limit,
    /// The frame is not RAM.
    NotRam(Found),
}

impl Refusal {
    /// The same, found in a part of the call's range that begins `frames` after its first frame.
    #[must_use]
    pub const fn further(self, frames: u64) -> Self {
        match self {
            Self::State(found) => Self::State(found.further(frames)),
            Self::NotRam(found) => Self::NotRam(found.further(frames)),
            Self::Poisoned(found) => Self::Poisoned(found.further(frames)),
            Self::Busy(_)
            | Self::OutOfMemory
            | Self::Granule(_)
            | Self::NotMapped(_)
            | Self::Invalid
            | Self::NotExclusivelyPinned(_)
            | Self::NoPinTable(_)
            | Self::NoSuchVm
            | Self::NoSuchVcpu
            | Self::WrongPhase
            | Self::WrongKind
            | Self::Exists(_)
            | Self::Limit => self,
        }
    }

    /// The status that the caller sees, and what was found.
    #[must_use]
    pub const fn status(self) -> (Status, Found) {
        const NOTHING: Found = Found {
            index: 0,
            folio: 0,
            pin: 0,
        };
        match self {
            Self::State(found) => (Status::NotPermitted, found),
            Self::Busy(found) => (Status::Busy, found),
            Self::OutOfMemory => (Status::NoMemory, NOTHING),
            Self::Granule(found) => (Status::Granule, found),
            Self::NotMapped(found) => (Status::NotMapped, found),
            Self::Poisoned(found) => (Status::Poisoned, found),
            Self::Invalid => (Status::Invalid, NOTHING),
            Self::NotExclusivelyPinned(found) => (Status::NotExclusivelyPinned, found),
            Self::NoPinTable(found) => (Status::NoPinTable, found),
            Self::NoSuchVm => (Status::NoSuchVm, NOTHING),
            Self::NoSuchVcpu => (Status::NoSuchVcpu, NOTHING),
            Self::WrongPhase => (Status::WrongPhase, NOTHING),
            Self::WrongKind => (Status::WrongKind, NOTHING),
            Self::Exists(found) => (Status::Exists, found),
            Self::Limit => (Status::Limit, NOTHING),
            Self::NotRam(found) => (Status::NotRam, found),
        }
    }
}

impl From<OutOfMemory> for Refusal {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
