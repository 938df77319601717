//! The pin word, as in `mm/exclusive_pin.c`.
//!
//! [`PinWord`] counts the pins of a folio and says whether the only one is exclusive and whether the folio is isolated.
//!
//! Invariant: a word with [`EXCLUSIVE`] has a count of 1, or of 0 while its folio is being isolated or split.

use crate::mutant::Mutant;
use crate::{Grab, Refusal};
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// The pins on the folio. (Linux gives those that are not exclusive the bits of the order, too.)
pub(crate) const COUNT: u32 = 0x00ff_ffff;
/// The order of the folio, if it is exclusively pinned.
pub(crate) const ORDER: u32 = 0x0f00_0000;
/// The one pin admits no other.
pub(crate) const EXCLUSIVE: u32 = 1 << 30;
/// Hands off the contents.
pub(crate) const ISOLATED: u32 = 1 << 31;

/// Whether a grab asks what the word says, or is a mutant that does not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Asks,
    Ignores,
}

/// What became of the reference that goes with an uncounted pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Uncounted {
    /// The caller drops it.
    Drop,
    /// The folio is isolated: the caller leaves it alone.
    Leak,
}

/// The word of one page frame.
pub(crate) struct PinWord {
    word: AtomicU32,
    mutant: Option<Mutant>,
}

impl PinWord {
    pub(crate) fn new(mutant: Option<Mutant>) -> Self {
        Self {
            word: AtomicU32::new(0),
            mutant,
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// `folio_pin_word()`.
    pub(crate) fn read(&self) -> u32 {
        self.word.load(Relaxed)
    }

    /// `folio_isolated_exclusive()`. Who is told "no" sees what the owner did to the contents before he ended the isolation: this is
    /// the partner of the barrier in [`Self::clear_isolated`].
    pub(crate) fn is_isolated(&self) -> bool {
        let order = if self.is(Mutant::RelaxedTest) {
            Relaxed
        } else {
            Acquire
        };
        self.word.load(order) & ISOLATED != 0
    }

    /// `pin_word_grab()`: counts a new pin.
    pub(crate) fn grab(&self, grab: Grab, order: u32, test: Test) -> Result<(), Refusal> {
        if self.is(Mutant::NonAtomicGrab) {
            return self.grab_in_steps(grab, order);
        }
        if self.is(Mutant::LookAfterwards) {
            return self.grab_and_look(grab);
        }
        if grab == Grab::Exclusive {
            return self.grab_exclusive(order);
        }
        self.update(|old| {
            if test == Test::Asks {
                refuse(old)?;
            }
            Ok(if self.is(Mutant::DropCount) {
                old
            } else {
                old + 1
            })
        })
    }

    fn grab_exclusive(&self, order: u32) -> Result<(), Refusal> {
        if self.is(Mutant::IgnoreOtherPins) {
            self.word.store(exclusive(order), Relaxed);
            return Ok(());
        }
        self.exchange(0, exclusive(order))
    }

    /// [`Mutant::NonAtomicGrab`].
    fn grab_in_steps(&self, grab: Grab, order: u32) -> Result<(), Refusal> {
        let old = self.read();
        refuse(old)?;
        if grab == Grab::Exclusive {
            if old != 0 {
                return Err(Refusal::Busy);
            }
            self.word.store(exclusive(order), Relaxed);
        } else {
            self.word.store(old + 1, Relaxed);
        }
        Ok(())
    }

    /// [`Mutant::LookAfterwards`].
    fn grab_and_look(&self, grab: Grab) -> Result<(), Refusal> {
        let (more, other) = match grab {
            Grab::Exclusive => (EXCLUSIVE | 1, COUNT),
            Grab::Get | Grab::Pin => (1, EXCLUSIVE),
        };
        self.word.fetch_add(more, AcqRel);
        if (self.word.fetch_add(0, AcqRel) - more) & other == 0 {
            return Ok(());
        }
        self.take_back(grab);
        Err(Refusal::Busy)
    }

    /// [`Mutant::LookAfterwards`].
    pub(crate) fn take_back(&self, grab: Grab) {
        let less = if grab == Grab::Exclusive {
            EXCLUSIVE | 1
        } else {
            1
        };
        self.word.fetch_sub(less, AcqRel);
    }

    /// `pin_word_add()`: one more pin on a folio that the caller has pinned.
    pub(crate) fn add(&self) {
        let added = self.update(|old| {
            assert_eq!(old & EXCLUSIVE, 0, "a second pin beside an exclusive one");
            Ok::<_, Refusal>(old + 1)
        });
        assert_eq!(added, Ok(()));
    }

    /// `pin_word_put()` and, where the word has a bit set, `pin_word_put_slow()`: uncounts a pin whose reference is still there.
    pub(crate) fn put(&self) -> Uncounted {
        let old = self.word.fetch_sub(1, Release);
        assert_ne!(old & COUNT, 0, "uncounted a pin that was not counted");
        if old & ISOLATED != 0 && !self.is(Mutant::FreeIsolated) {
            self.word.fetch_add(1, Relaxed);
            return Uncounted::Leak;
        }
        if old & EXCLUSIVE != 0 {
            self.word.store(0, Release);
        }
        Uncounted::Drop
    }

    /// `folio_pin_make_exclusive()`.
    pub(crate) fn make_exclusive(&self, order: u32) -> Result<(), Refusal> {
        if self.is(Mutant::PromoteAnyPin) {
            self.word.store(exclusive(order), Relaxed);
            return Ok(());
        }
        self.exchange(1, exclusive(order))
    }

    /// `folio_pin_make_ordinary()`.
    pub(crate) fn make_ordinary(&self, order: u32) {
        let made = self.exchange(exclusive(order), 1);
        assert_eq!(made, Ok(()), "the pin was not exclusive");
    }

    /// Clears the isolated bit, after all that came before: `smp_mb__before_atomic(); atomic_andnot()`.
    pub(crate) fn clear_isolated(&self) {
        let old = self.word.fetch_and(!ISOLATED, Release);
        assert_ne!(old & ISOLATED, 0, "the isolation was ended twice");
    }

    /// For a while the word says that there is no pin, and yet lets none come: otherwise `try_to_migrate()` leaves alone what
    /// is pinned.
    pub(crate) fn begin_isolation(&self, order: u32) -> Result<(), Refusal> {
        self.exchange(exclusive(order), exclusive(order) - 1)
    }

    /// `folio_maybe_dma_pinned()`.
    pub(crate) fn is_pinned(&self) -> bool {
        self.read() & COUNT != 0
    }

    /// `atomic_set()`, where nobody else may write.
    pub(crate) fn write(&self, word: u32) {
        self.word.store(word, Relaxed);
    }

    /// `atomic_cmpxchg()`: the kernel's has full barriers; acquire and release have to do here.
    fn exchange(&self, old: u32, new: u32) -> Result<(), Refusal> {
        self.word
            .compare_exchange(old, new, AcqRel, Relaxed)
            .map_err(|_| Refusal::Busy)?;
        Ok(())
    }

    /// The loop around `atomic_try_cmpxchg()`.
    fn update<E>(&self, new: impl Fn(u32) -> Result<u32, E>) -> Result<(), E> {
        let mut old = self.read();
        loop {
            let next = new(old)?;
            match self.word.compare_exchange(old, next, AcqRel, Acquire) {
                Ok(_) => return Ok(()),
                Err(found) => old = found,
            }
        }
    }
}

/// The word of a folio that is pinned exclusively.
pub(crate) const fn exclusive(order: u32) -> u32 {
    EXCLUSIVE | order << ORDER.trailing_zeros() | 1
}

/// What an ordinary taker is told.
fn refuse(word: u32) -> Result<(), Refusal> {
    if word & ISOLATED != 0 {
        return Err(Refusal::Fault);
    }
    if word & EXCLUSIVE != 0 {
        return Err(Refusal::Busy);
    }
    Ok(())
}
