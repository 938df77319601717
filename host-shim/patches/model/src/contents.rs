//! What is in a page, and who may touch it.
//!
//! [`Contents`] belongs to the host or to EL2. loom's cell sees two touches that no synchronisation orders; the owner is
//! compared at each touch, which sees the host touch what it has given away, however well ordered.
//!
//! Invariant: whoever touches the contents is their owner, and all touches are ordered.

use loom::cell::UnsafeCell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// One page's contents. The flags are the checker's own and no part of the model: no loom types.
pub(crate) struct Contents {
    bytes: UnsafeCell<()>,
    at_el2: AtomicBool,
    free: AtomicBool,
}

impl Contents {
    pub(crate) fn new() -> Self {
        Self {
            bytes: UnsafeCell::new(()),
            at_el2: AtomicBool::new(false),
            free: AtomicBool::new(false),
        }
    }

    /// The host uses the page through its own mapping of all memory. That two of the host's actors do so at a time is
    /// their own affair, so this is a read for loom, and the accesses of EL2 are writes.
    pub(crate) fn touch(&self) {
        assert!(
            !self.at_el2.load(Relaxed),
            "the host touched a page of EL2's"
        );
        assert!(!self.free.load(Relaxed), "the host touched a free page");
        self.bytes.with(|_| ());
    }

    /// The page is donated: EL2 and the guest use it.
    pub(crate) fn donate(&self) {
        self.bytes.with_mut(|_| ());
        self.at_el2.store(true, Relaxed);
    }

    /// EL2 wipes the page and gives it back.
    pub(crate) fn give_back(&self) {
        self.bytes.with_mut(|_| ());
        self.at_el2.store(false, Relaxed);
    }

    /// The last reference is gone.
    pub(crate) fn free(&self) {
        assert!(!self.at_el2.load(Relaxed), "a page of EL2's was freed");
        self.free.store(true, Relaxed);
    }
}
