//! The exclusive check: what EL2 reads about the host's pins before a folio changes hands.
//!
//! [`PinTable`] knows the ranges that the host registered. A word is read once, as volatile, and yields nothing but the verdict:
//! the host may write it at any time, and can only hurt itself by lying, since what protects a guest is that EL2 unmaps the
//! frame from the host.
//!
//! Invariant: a range takes part only when all frames of its table are `HostSharedHyp` and mapped.

use core::ops::Range;

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
        let folio = FrameRange::folio(head, order);
        let start = head.distance_from(self.frames.first());
        let Some(start) = start.filter(|_| self.frames.covers(folio)) else {
            return Verdict::Unknown;
        };
        let mut seen = 0;
        for (frame, indices) in self.places(start, folio.count()) {
            for index in indices {
                let word = machine.read_pin_word(frame, index);
                let is_ignored = expected == 0 && mutant!(IgnoresTails);
                if (word ^ expected) & bits_that_count() != 0 && !is_ignored {
                    return Verdict::Other { index: seen, word };
                }
                expected = 0;
                seen += 1;
            }
        }
        if seen == folio.count() {
            Verdict::Exclusive
        } else {
            Verdict::Unknown
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.frames.overlaps(other.frames) && !mutant!(PinsOverlap)
    }

    fn word<M: Machine>(&self, pfn: Pfn, machine: &M) -> Option<u32> {
        let distance = pfn
            .distance_from(self.frames.first())
            .filter(|_| self.frames.contains(pfn))?;
        let (frame, mut indices) = self.places(distance, 1).next()?;
        Some(machine.read_pin_word(frame, indices.next()?))
    }

    /// Where the table has `count` words from the one at `start` on: its frames, and the indices there.
    fn places(&self, start: u64, count: u64) -> impl Iterator<Item = (Pfn, Range<usize>)> {
        let table = self.table;
        let mut left = start..start.saturating_add(count);
        core::iter::from_fn(move || {
            let frame = table.first().checked_add(left.start / WORDS_PER_FRAME);
            let frame = frame.filter(|frame| !left.is_empty() && table.contains(*frame))?;
            let first = left.start % WORDS_PER_FRAME;
            let now = (left.end - left.start).min(WORDS_PER_FRAME - first);
            left.start += now;
            let indices = usize::try_from(first).ok()?..usize::try_from(first + now).ok()?;
            Some((frame, indices))
        })
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
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
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
    ///
    /// Tails have the word 0, so the first other word, from the frame upwards, must be that of its head. A word of the frame's own
    /// is not overruled by one of a larger folio: when the host split that, the parts got words of their own.
    pub fn frame_verdict<M: Machine>(&self, pfn: Pfn, machine: &M) -> Verdict {
        let Some(own) = self.word(pfn, machine) else {
            return Verdict::Unknown;
        };
        let heads = orders().map(|order| pfn.align_down(order));
        let mut words = heads.map_while(|head| Some((head, self.word(head, machine)?)));
        let found = words.find(|(_, word)| *word != 0);
        let (head, word) = found.unwrap_or((pfn, own));
        let speaks_for_it = |order: Order| {
            word == pin_word::donatable(order.raw())
                && (pfn.align_down(order) == head || mutant!(AnyWordSpeaks))
        };
        if orders().any(speaks_for_it) {
            Verdict::Exclusive
        } else {
            Verdict::Other { index: 0, word }
        }
    }
}

/// The bits of a pin word that count: all of them.
fn bits_that_count() -> u32 {
    let order = seeded!(IgnoresPinOrder, pin_word::ORDER_MASK, 0);
    let isolation = seeded!(IgnoresIsolation, pin_word::ISOLATED, 0);
    let count = seeded!(IgnoresPinCount, pin_word::COUNT_MASK, 0);
    !(order | isolation | count)
}

/// All orders that a folio can have.
fn orders() -> impl Iterator<Item = Order> {
    (0..=limit::MAX_ORDER).filter_map(Order::new)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Frame;
    use crate::machine::test::{FakeMachine, RAM, boot, call};
    use pinfold_abi::{HostCall, claim};

    const TABLE: u64 = RAM + 1024;
    const FRAMES: u64 = 512;
    /// A block of RAM but for its last 16 frames, of which the table does not speak.
    const SPOKEN: u64 = FRAMES - 16;

    /// What the words say of `RAM + offset` when these are all that are not 0.
    fn verdict(offset: u64, words: &[(usize, u32)]) -> Verdict {
        let mut fake = boot(3 * 512);
        let (table, first) = (claim::Pfn(TABLE), claim::Pfn(RAM));
        let frames = claim::Count(SPOKEN);
        let call = call(
            &mut fake,
            HostCall::PinTableRegister {
                table,
                first,
                frames,
            },
        );
        assert_eq!(call[..2], [0, 0]);
        for (index, word) in words {
            let machine: &mut FakeMachine = fake.memory.machine_mut();
            machine.set_pin_word(TABLE, *index, *word);
        }
        let pfn = Frame::new(RAM + offset).unwrap();
        fake.memory.pins.frame_verdict(pfn, fake.memory.machine())
    }

    fn other(word: u32) -> Verdict {
        Verdict::Other { index: 0, word }
    }

    #[test]
    fn the_head_of_any_order_speaks_for_its_frames() {
        for order in 0..=limit::MAX_ORDER {
            let size = 1_usize << order;
            let head = if order == limit::MAX_ORDER { 0 } else { size };
            let good = [(head, pin_word::donatable(order))];
            let first = u64::try_from(head).unwrap();
            let last = (first + u64::try_from(size).unwrap()).min(SPOKEN) - 1;
            assert_eq!(verdict(first, &good), Verdict::Exclusive, "order {order}");
            assert_eq!(verdict(last, &good), Verdict::Exclusive, "order {order}");
            if order < limit::MAX_ORDER {
                assert_ne!(
                    verdict(last + 1, &good),
                    Verdict::Exclusive,
                    "order {order}"
                );
            }
        }
    }

    #[test]
    fn a_word_nearer_to_the_frame_is_the_one_that_counts() {
        let block = (0, pin_word::donatable(9));
        assert_eq!(verdict(5, &[block]), Verdict::Exclusive);
        // The host split its folio: the parts have words of their own.
        let split = [(0, pin_word::donatable(0)), (5, pin_word::donatable(0))];
        assert_eq!(verdict(5, &split), Verdict::Exclusive);
        assert_eq!(verdict(6, &split), other(pin_word::donatable(0)));
        for word in [1, 2, pin_word::EXCLUSIVE | 1, pin_word::donatable(2)] {
            assert_eq!(verdict(5, &[block, (5, word)]), other(word));
        }
        for word in [1, 2, pin_word::EXCLUSIVE | 1] {
            assert_eq!(verdict(5, &[block, (4, word)]), other(word));
        }
    }

    #[test]
    fn no_word_is_no_pin() {
        assert_eq!(verdict(5, &[]), other(0));
        assert_eq!(
            verdict(SPOKEN, &[(0, pin_word::donatable(9))]),
            Verdict::Unknown
        );
    }
}
