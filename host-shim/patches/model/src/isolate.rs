//! Isolation and the split of what is isolated, as in `mm/exclusive_pin.c`.
//!
//! Under the folio lock the folio is unmapped, and the reference count frozen at what the page cache and the owner's pin
//! account for. That it could be frozen proves that nobody else had a
//! reference; while it is frozen nobody gets one; the isolated bit is set meanwhile, so whoever gets one later sees it.
//! The folios of a batch stay locked and unmapped until all of them are marked, or one cannot be and none is any more.
//! Whoever comes by a mapping or reads the file waits for that. `memfd_pin_folios()` does not: it would be refused
//! anyway, but may be told `-EFAULT` of an isolation that fails.
//!
//! Not modelled: the look at the count before the folio is unmapped, and the draining of the LRU batches, which only
//! make success more likely; giving up when the locks cannot be had; the TLBs.

use crate::memory::{Entry, Kind, Memory, Page};
use crate::mutant::Mutant;
use crate::word::{ISOLATED, ORDER, exclusive};
use crate::{Grab, Refusal};
use loom::sync::MutexGuard;
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::fence;
use std::sync::PoisonError;

impl Memory {
    /// `folios_isolate_exclusive()`, with the `mmap_lock` that its caller has: all of the folios or none.
    pub(crate) fn isolate(&self, folios: &[Page]) -> Result<(), Refusal> {
        if folios.len() > 1 && self.is(Mutant::FolioByFolio) {
            return self.isolate_one_by_one(folios);
        }
        let pinned = |folio| self.frame(folio).word.read() == exclusive(self.order(folio));
        if !folios.iter().copied().all(pinned) {
            return Err(Refusal::Busy);
        }
        let _mmap = (!self.is(Mutant::NoMmapLock)).then(|| {
            self.mmap_lock
                .read()
                .unwrap_or_else(PoisonError::into_inner)
        });
        let _locks = (!self.is(Mutant::NoFolioLock)).then(|| self.lock_all(folios));
        self.isolate_locked(folios)
    }

    /// [`Mutant::FolioByFolio`].
    fn isolate_one_by_one(&self, folios: &[Page]) -> Result<(), Refusal> {
        for (done, &folio) in folios.iter().enumerate() {
            let isolated = self.isolate(&[folio]);
            if isolated.is_err() {
                for before in folios.iter().take(done) {
                    self.frame(*before).word.clear_isolated();
                }
                return isolated;
            }
        }
        Ok(())
    }

    /// `lock_all()`: waits for a lock only with none in hand.
    fn lock_all(&self, folios: &[Page]) -> Vec<MutexGuard<'_, ()>> {
        loop {
            let locks: Result<Vec<_>, Page> = folios
                .iter()
                .map(|&folio| self.try_lock_folio(folio).ok_or(folio))
                .collect();
            match locks {
                Ok(locks) => return locks,
                // folio_wait_locked()
                Err(busy) => drop(self.lock_folio(busy)),
            }
        }
    }

    /// `isolate_locked()`: nobody else sees which folios are marked before it is decided that all of them are, or none.
    fn isolate_locked(&self, folios: &[Page]) -> Result<(), Refusal> {
        let mut begun = Vec::new();
        let all_begun = folios.iter().try_for_each(|&folio| {
            self.begin_isolation(folio)?;
            begun.push(folio);
            Ok(())
        });
        let decision = all_begun.and_then(|()| {
            begun
                .iter()
                .try_for_each(|&folio| self.mark_if_unmapped(folio))
        });
        for folio in begun {
            if decision.is_err() && !self.is(Mutant::ForgetPin) {
                // unmark()
                self.frame(folio).word.write(exclusive(self.order(folio)));
            }
            if decision.is_ok() || !self.is(Mutant::ForgetRemap) {
                // end_isolation()
                self.remap_all(folio);
            }
        }
        decision
    }

    /// `begin_isolation()`.
    fn begin_isolation(&self, folio: Page) -> Result<(), Refusal> {
        let order = self.order(folio);
        self.frame(folio).word.begin_isolation(order)?;
        if !self.is(Mutant::DropUnmap) {
            self.unmap_all(folio);
        }
        Ok(())
    }

    /// `mark_isolated()`, if there is no mapping any more.
    fn mark_if_unmapped(&self, folio: Page) -> Result<(), Refusal> {
        let unmapped = self.mappings(folio) == 0 || self.is(Mutant::DropUnmap);
        let isolated = ISOLATED | exclusive(self.order(folio));
        if !unmapped || !self.mark_isolated(folio, isolated) {
            return Err(Refusal::Again);
        }
        if self.is(Mutant::RemapBeforeDecision) {
            self.remap_all(folio);
        }
        Ok(())
    }

    /// `mark_isolated()`.
    fn mark_isolated(&self, folio: Page, isolated: u32) -> bool {
        let frame = self.frame(folio);
        let expected = self.expected(folio) + 1;
        if !frame.refs.freeze(expected) {
            return false;
        }
        let late = self.is(Mutant::MarkAfterUnfreeze);
        if !late {
            frame.word.write(isolated);
        }
        if !self.is(Mutant::CompareOnly) {
            frame.refs.unfreeze(expected);
        }
        if late {
            frame.word.write(isolated);
        }
        true
    }

    /// `try_to_migrate()` and `try_to_unmap()`.
    pub(crate) fn unmap_all(&self, folio: Page) {
        for page in self.pages(folio) {
            let _table = self.lock_page_table();
            let frame = self.frame(page);
            if frame.entry() != Entry::Present {
                continue;
            }
            if self.kind() == Kind::Shmem {
                self.unmap(folio, page, Entry::None);
            } else {
                // folio_try_share_anon_rmap_pte(): what is pinned stays mapped.
                frame.set_entry(Entry::None);
                fence(SeqCst);
                if self.frame(folio).word.is_pinned() {
                    frame.set_entry(Entry::Present);
                    return;
                }
                self.unmap(folio, page, Entry::Migration);
            }
            self.put(folio, 1);
        }
    }

    /// `remove_migration_ptes()`: there are none for shmem.
    pub(crate) fn remap_all(&self, folio: Page) {
        for page in self.pages(folio) {
            let _table = self.lock_page_table();
            if self.frame(page).entry() == Entry::Migration {
                self.frame(folio).refs.get();
                self.map(folio, page);
            }
        }
    }

    /// `folio_unisolate_exclusive()`, after EL2 has given the pages back. The folio stays pinned exclusively.
    pub(crate) fn unisolate(&self, folio: Page) {
        if self.is(Mutant::UnisolateTooEarly) {
            self.frame(folio).word.clear_isolated();
            self.give_back(folio);
            return;
        }
        self.give_back(folio);
        self.frame(folio).word.clear_isolated();
    }

    /// EL2 takes the pages of an isolated folio.
    pub(crate) fn donate(&self, folio: Page) {
        for page in self.pages(folio) {
            self.frame(page).contents.donate();
        }
    }

    fn give_back(&self, folio: Page) {
        for page in self.pages(folio) {
            self.frame(page).contents.give_back();
        }
    }

    /// `page_split_exclusive()`: a large folio becomes single pages. If it is isolated they are all pinned and isolated, otherwise
    /// only `page` is still pinned.
    pub(crate) fn split(&self, page: Page) -> Result<(), Refusal> {
        let folio = Page::First;
        let _mmap = self
            .mmap_lock
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        // folio_isolate_lru()
        self.frame(folio).refs.get();
        let lock = self.lock_folio(folio);
        let split = self.split_locked(folio, page);
        drop(lock);
        // folio_putback_lru()
        self.put(folio, 1);
        split
    }

    /// `split_locked()`. The words of the tails are there before anybody can find the tails.
    fn split_locked(&self, folio: Page, page: Page) -> Result<(), Refusal> {
        let (first, second) = (self.frame(folio), self.frame(Page::Second));
        let whole = first.word.read();
        let all = whole & ISOLATED != 0;
        let single = whole & !ORDER;
        let late = self.is(Mutant::TailWordsLate);
        let pins_second = all || page == Page::Second;
        let never = self.is(Mutant::TailWordsNever);
        if pins_second && !late && !never {
            second.word.write(single);
        }
        first.word.write(single - 1);
        first.refs.dec();
        if !self.split_to_list(folio) {
            first.refs.get();
            second.word.write(0);
            first.word.write(whole);
            return Err(Refusal::Again);
        }
        self.release(folio, Grab::Exclusive);
        if all || page == Page::First {
            first.refs.get();
            first.word.write(single);
            self.hold(Page::First, Grab::Exclusive);
        } else {
            first.word.write(0);
        }
        if pins_second && late && !never {
            second.word.write(single);
        }
        // Not: if its word says that it is pinned. Somebody else may have come by now.
        if pins_second || self.is(Mutant::GuessByWord) && second.word.read() != 0 {
            // folio_get()
            second.refs.get();
            if pins_second {
                self.hold(Page::Second, Grab::Exclusive);
            }
        }
        // folio_putback_lru()
        self.put(Page::Second, 1);
        Ok(())
    }

    /// `split_folio_to_list()`, of one who has a reference and the lock: every part has one reference for him.
    fn split_to_list(&self, folio: Page) -> bool {
        self.unmap_all(folio);
        let cached = self.cached(folio);
        let frozen = self.mappings(folio) == 0 && self.frame(folio).refs.freeze(cached + 1);
        if frozen {
            self.part();
            self.frame(Page::Second).refs.unfreeze(cached / 2 + 1);
            self.frame(folio).refs.unfreeze(cached / 2 + 1);
        }
        self.remap_all(Page::First);
        if frozen {
            self.remap_all(Page::Second);
        }
        frozen
    }
}
