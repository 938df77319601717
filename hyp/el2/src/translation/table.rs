//! A frame of descriptors: [`Table`], for EL2's stage 1 and all stage 2s.
//!
//! Walkers share it, hence the atomics; nothing but a descriptor is stored, by one 64-bit store. Invariant: whoever has a reference
//! may read; whether a store is allowed is the protocol's matter.

use core::sync::atomic::{AtomicU64, Ordering};

/// Entries of a table.
pub(crate) const ENTRIES: usize = 512;

/// One translation table.
#[repr(C, align(4096))]
pub(crate) struct Table([AtomicU64; ENTRIES]);

impl Table {
    /// A table that says nothing.
    pub(crate) const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    /// The table at `address`.
    ///
    /// # Safety
    /// A frame that is mapped at its own address, holds nothing but descriptors, and is not freed while the reference is used.
    pub(crate) unsafe fn at(address: usize) -> &'static Self {
        let pointer = core::ptr::with_exposed_provenance::<Self>(address);
        // SAFETY: the caller says so; every value is a descriptor, and they are shared as atomics.
        unsafe { &*pointer }
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    fn entry(&self, index: usize) -> &AtomicU64 {
        let Self(entries) = self;
        &entries[index % ENTRIES]
    }

    /// Reads an entry.
    pub(crate) fn load(&self, index: usize) -> u64 {
        self.entry(index).load(Ordering::Relaxed)
    }

    /// Writes an entry.
    pub(crate) fn store(&self, index: usize, descriptor: u64) {
        report!(Store {
            table: super::watch::frame(self.address()),
            index: super::watch::index(index % ENTRIES),
            value: descriptor,
        });
        self.entry(index).store(descriptor, Ordering::Relaxed);
    }

    /// Whether every entry is zero.
    pub(crate) fn is_empty(&self) -> bool {
        let Self(entries) = self;
        entries
            .iter()
            .all(|entry| entry.load(Ordering::Relaxed) == 0)
    }

    /// Where it is.
    pub(crate) fn address(&self) -> usize {
        core::ptr::from_ref(self).expose_provenance()
    }
}
