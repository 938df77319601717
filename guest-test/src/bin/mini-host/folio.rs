//! A [`Folio`]: 2^order frames of the arena that one test owns, with their content and their pin.
//!
//! Invariant: whoever holds the folio is its only user on the host's side; whether the host can still reach it is what the tests find out.

use core::mem::ManuallyDrop;

use guest_test::bytes::{self, FRAME};
use guest_test::memory_probe;
use guest_test::probe::Fault;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, mmu};

use pinfold_abi::pin_word;

use crate::frames;

/// Frames of the arena, owned by a test until they are given back.
#[derive(Debug)]
pub(crate) struct Folio {
    pfn: u64,
    order: u8,
}

impl Folio {
    /// A folio without a pin.
    pub(crate) fn take(order: u8) -> Result<Self, Failure> {
        Ok(Self {
            pfn: frames::take(order)?,
            order,
        })
    }

    /// A folio that may be donated: the only pin is exclusive, and the folio is isolated.
    pub(crate) fn take_pinned(order: u8) -> Result<Self, Failure> {
        frames::register()?;
        let folio = Self::take(order)?;
        folio.set_pin(pin_word::donatable(order));
        Ok(folio)
    }

    /// First frame.
    pub(crate) const fn pfn(&self) -> u64 {
        self.pfn
    }

    /// Log2 of the number of frames.
    pub(crate) const fn order(&self) -> u8 {
        self.order
    }

    /// Frames.
    pub(crate) const fn frames(&self) -> u64 {
        1 << self.order
    }

    /// Physical address, which is also its low virtual address.
    pub(crate) const fn address(&self) -> u64 {
        self.pfn * FRAME
    }

    /// Its address through TTBR1, what Linux would call a kernel address.
    pub(crate) const fn kernel_address(&self) -> u64 {
        self.address() | mmu::HIGH
    }

    /// Sets the pin word of the head.
    pub(crate) fn set_pin(&self, word: u32) {
        frames::set_pin(self.pfn, word);
    }

    /// Gives each frame a pin word of its own, if the head has one that speaks for all: what the kernel does when it splits.
    pub(crate) fn split_pin(&self) {
        if self.order > 0 && frames::pin(self.pfn) == pin_word::donatable(self.order) {
            for frame in self.pfn..self.pfn + self.frames() {
                frames::set_pin(frame, pin_word::donatable(0));
            }
        }
    }

    /// Its lower and its upper half, of a folio that has them; nothing is freed, and pins stay as they are.
    pub(crate) fn halves(self) -> (Self, Self) {
        let whole = ManuallyDrop::new(self);
        let order = whole.order.saturating_sub(1);
        let half = |pfn| Self { pfn, order };
        (half(whole.pfn), half(whole.pfn + (1 << order)))
    }

    /// Reads the word at a byte offset.
    pub(crate) fn read(&self, offset: u64) -> Result<u64, Fault> {
        memory_probe::read(self.address() + offset)
    }

    /// Writes the word at a byte offset.
    pub(crate) fn write(&self, offset: u64, word: u64) -> Result<(), Fault> {
        // SAFETY: the arena is no Rust memory.
        unsafe { memory_probe::write(self.address() + offset, word) }
    }

    /// Fills every 64-bit word with what [`pattern`] says.
    pub(crate) fn fill(&self, seed: u64) -> Outcome {
        self.fill_each(8, seed)
    }

    /// Fills the words at multiples of `stride` with what [`pattern`] says.
    pub(crate) fn fill_each(&self, stride: u64, seed: u64) -> Outcome {
        for offset in (0..self.frames() * FRAME).step_by(bytes::size(stride)) {
            check!(
                self.write(offset, pattern(seed, offset)).is_ok(),
                "filling pfn {:#x} aborted",
                self.pfn
            );
        }
        Ok(())
    }

    /// Every word is `wanted(offset)`.
    pub(crate) fn holds(&self, what: &str, wanted: impl Fn(u64) -> u64) -> Outcome {
        for offset in (0..self.frames() * FRAME).step_by(8) {
            let found = self.read(offset);
            let word = wanted(offset);
            check!(
                found == Ok(word),
                "{what}: pfn {:#x}+{offset:#x} is {found:x?}, not {word:#x}",
                self.pfn
            );
        }
        Ok(())
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        frames::give(self.pfn, self.order);
    }
}

/// A word that depends on seed and place.
pub(crate) const fn pattern(seed: u64, offset: u64) -> u64 {
    (seed ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
