//! The exclusive check: what EL2 reads about the host's pins before a folio changes hands.
//!
//! [`PinTable`] knows the ranges that the host registered. A word is read once, as volatile, and yields nothing but the verdict:
//! the host may write it at any time, and can only hurt itself by lying, since what protects a guest is that EL2 unmaps the
//! frame from the host.
//!
//! Invariant: a range takes part only when all frames of its table are `HostSharedHyp` and mapped.

use pinfold_abi::{limit, pin_word};

use crate::addr::{FrameRange, Order, Pfn, Physical};
use crate::machine::Machine;

/// Pin words of one frame of the table.
const WORDS_PER_FRAME: u64 = 1024;

/// A range of frames, and the table that speaks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinRange {
    table: FrameRange<Physical>,
    frames: FrameRange<Physical>,
    shared: u64,
}

impl PinRange {
    /// The range in which the table that starts at `table` speaks for `count` frames from `first`.
    #[must_use]
    pub fn new(table: Pfn, first: Pfn, count: u64) -> Option<Self> {
        let frames = FrameRange::new(first, count)?;
        let table = FrameRange::new(table, count.div_ceil(WORDS_PER_FRAME))?;
        Some(Self {
            table,
            frames,
            shared: 0,
        })
    }

    /// The frames of the table.
    #[must_use]
    pub const fn table(&self) -> FrameRange<Physical> {
        self.table
    }

    /// How many frames of the table EL2 can read.
    #[must_use]
    pub const fn shared(&self) -> u64 {
        self.shared
    }

    /// Whether EL2 can read all of it.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.shared >= self.table.count()
    }

    /// The same range, apart from how far it got.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.table == other.table && self.frames == other.frames
    }

    /// What the words of the folio of `order` at `head`, for which the range speaks, say.
    pub fn verdict<M: Machine>(&self, head: Pfn, order: Order, machine: &M) -> Verdict {
        let mut expected = pin_word::donatable(order.raw());
        for (pfn, index) in FrameRange::folio(head, order).frames().zip(0..) {
            match self.word(pfn, machine) {
                Some(word) if word == expected => expected = 0,
                Some(word) => return Verdict::Other { index, word },
                None => return Verdict::Unknown,
            }
        }
        Verdict::Exclusive
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.frames.overlaps(other.frames)
    }

    fn word<M: Machine>(&self, pfn: Pfn, machine: &M) -> Option<u32> {
        let distance = pfn
            .distance_from(self.frames.first())
            .filter(|_| self.frames.contains(pfn))?;
        let frame = self.table.first().checked_add(distance / WORDS_PER_FRAME)?;
        let index = usize::try_from(distance % WORDS_PER_FRAME).ok()?;
        Some(machine.read_pin_word(frame, index))
    }
}

/// Where a new range may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Here: it is new, or it was begun and not ended. The range in it says how far it got.
    At(usize, PinRange),
    /// It, or one that overlaps it, is there already.
    Taken,
    /// There are as many ranges as there can be.
    Full,
}

/// The ranges that the host registered.
#[derive(Debug, Default)]
pub struct PinTable {
    ranges: [Option<PinRange>; limit::MAX_PIN_RANGES],
}

impl PinTable {
    /// Where `range` may go.
    #[must_use]
    pub fn place(&self, range: PinRange) -> Place {
        let known = self.ranges.iter().zip(0..).find_map(|(known, index)| {
            known
                .map(|known| (index, known))
                .filter(|(_, known)| known.overlaps(&range))
        });
        match known {
            Some((index, known)) if known.is_same(&range) && !known.is_complete() => {
                Place::At(index, known)
            }
            Some(_) => Place::Taken,
            None => self
                .ranges
                .iter()
                .position(Option::is_none)
                .map_or(Place::Full, |index| Place::At(index, range)),
        }
    }

    /// Notes that `shared` frames of the table of `range` can be read.
    pub fn put(&mut self, index: usize, range: PinRange, shared: u64) {
        if let Some(place) = self.ranges.get_mut(index) {
            *place = Some(PinRange { shared, ..range });
        }
    }

    /// The pin word of a frame, if a complete range speaks for it.
    pub fn word<M: Machine>(&self, pfn: Pfn, machine: &M) -> Option<u32> {
        let range = self
            .ranges
            .iter()
            .flatten()
            .find(|range| range.is_complete() && range.frames.contains(pfn))?;
        range.word(pfn, machine)
    }

    /// The complete range that speaks for all of `frames`.
    #[must_use]
    pub fn covering(&self, frames: FrameRange<Physical>) -> Option<&PinRange> {
        let mut ranges = self.ranges.iter().flatten();
        ranges.find(|range| range.is_complete() && range.frames.covers(frames))
    }

    /// What the words say of the one frame, which may be part of a larger folio of the host's.
    pub fn frame_verdict<M: Machine>(&self, pfn: Pfn, machine: &M) -> Verdict {
        let mut last = None;
        for order in (0..=limit::MAX_ORDER).filter_map(Order::new) {
            let Some(word) = self.word(pfn.align_down(order), machine) else {
                break;
            };
            if word == pin_word::donatable(order.raw()) {
                return Verdict::Exclusive;
            }
            last = last.filter(|last| *last != 0).or(Some(word));
        }
        last.map_or(Verdict::Unknown, |word| Verdict::Other { index: 0, word })
    }
}

/// What the pin words say of a folio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// One pin, exclusive, isolated, of just this folio.
    Exclusive,
    /// Something else.
    Other {
        /// The frame within the folio whose word is not as it must be.
        index: u64,
        /// The word.
        word: u32,
    },
    /// No complete range speaks for all of it.
    Unknown,
}
