//! `_refcount`, as in `include/linux/page_ref.h`.
//!
//! [`RefCount`] keeps the kernel's memory ordering, or a weaker one: what returns a value there has full barriers (here:
//! acquire and release), what returns nothing has none.
//!
//! Invariant: a count of 0 is frozen or free, and nobody adds to it or takes from it.

use crate::mutant::Mutant;
use loom::sync::atomic::AtomicI32;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// A folio's count of references.
pub(crate) struct RefCount {
    count: AtomicI32,
    mutant: Option<Mutant>,
}

/// Whether that was the last reference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Some,
    None,
}

impl RefCount {
    pub(crate) fn new(count: i32, mutant: Option<Mutant>) -> Self {
        Self {
            count: AtomicI32::new(count),
            mutant,
        }
    }

    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// `folio_ref_count()`.
    pub(crate) fn read(&self) -> i32 {
        self.count.load(Relaxed)
    }

    /// `folio_try_get()`, `folio_ref_try_add()`: adds a reference unless the count is 0.
    pub(crate) fn try_get(&self) -> bool {
        if self.is(Mutant::AddToFrozen) {
            self.get();
            return true;
        }
        let mut old = self.count.load(Relaxed);
        while old != 0 {
            match self.count.compare_exchange(old, old + 1, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(found) => old = found,
            }
        }
        false
    }

    /// `folio_get()`, `folio_ref_add()`, of one who knows that there is a reference.
    pub(crate) fn get(&self) {
        let old = self.count.fetch_add(1, Relaxed);
        assert!(old > 0, "a reference was added to a frozen count");
    }

    /// `folio_ref_dec()`, of one who keeps a reference.
    pub(crate) fn dec(&self) {
        let old = self.count.fetch_sub(1, Relaxed);
        assert!(old > 1, "references were dropped that were not there");
    }

    /// `folio_put_refs()`.
    pub(crate) fn put(&self, count: i32) -> Left {
        let order = if self.is(Mutant::RelaxedPut) {
            Relaxed
        } else {
            AcqRel
        };
        let old = self.count.fetch_sub(count, order);
        assert!(old >= count, "references were dropped that were not there");
        if old == count { Left::None } else { Left::Some }
    }

    /// `folio_ref_freeze()`: takes away all references if there are as many as `expected`.
    pub(crate) fn freeze(&self, expected: i32) -> bool {
        if self.is(Mutant::CompareOnly) {
            return self.count.load(Acquire) == expected;
        }
        self.count
            .compare_exchange(expected, 0, AcqRel, Relaxed)
            .is_ok()
    }

    /// `folio_ref_unfreeze()`.
    pub(crate) fn unfreeze(&self, count: i32) {
        let order = if self.is(Mutant::RelaxedUnfreeze) {
            Relaxed
        } else {
            Release
        };
        self.count.store(count, order);
    }
}
