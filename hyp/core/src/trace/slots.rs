//! Entries of words that one CPU writes while others read them, without a lock: [`Slots`].
//!
//! An entry counts once `written` says so. A reader looks at `written` before and after it has read: what it got is an entry if the
//! slot of that one was not begun anew meanwhile. `tests/slots.rs` runs this file in all orders that the memory model allows.

use super::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The words of an entry.
pub(crate) type Words<const WORDS: usize> = [AtomicU64; WORDS];

/// The last entries, of which `LENGTH - 1` are kept: the slot of the oldest may be half overwritten.
#[derive(Debug)]
pub(crate) struct Slots<const WORDS: usize, const LENGTH: usize> {
    pub(crate) slots: [Words<WORDS>; LENGTH],
    /// How many entries there were.
    pub(crate) written: AtomicUsize,
}

impl<const WORDS: usize, const LENGTH: usize> Slots<WORDS, LENGTH> {
    /// How many entries there were, as their writer knows.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// The words of the next entry, which is `entry`, for their writer.
    pub(crate) fn begin(&self, entry: usize) -> Option<&Words<WORDS>> {
        let slot = self.slots.get(entry % LENGTH);
        // Who reads one of the words to come finds, too, that the entry before this one was written.
        fence(Ordering::Release);
        slot
    }

    /// Counts `entry`, which was begun; returns how many there are with it.
    pub(crate) fn publish(&self, entry: usize) -> usize {
        let written = entry.wrapping_add(1);
        self.written.store(written, Ordering::Release);
        written
    }

    /// The oldest entry that is kept, and the one that will be written next.
    pub(crate) fn kept(&self) -> (usize, usize) {
        let written = self.written.load(Ordering::Acquire);
        (written.saturating_sub(LENGTH - 1), written)
    }

    fn keeps(&self, entry: usize) -> bool {
        let (oldest, next) = self.kept();
        (oldest..next).contains(&entry)
    }

    /// The words of an entry, if it is kept.
    pub(crate) fn read(&self, entry: usize) -> Option<[u64; WORDS]> {
        if !self.keeps(entry) {
            return None;
        }
        let slot = self.slots.get(entry % LENGTH)?;
        let words = core::array::from_fn(|index| {
            slot.get(index)
                .map_or(0, |word| word.load(Ordering::Acquire))
        });
        self.keeps(entry).then_some(words)
    }
}
