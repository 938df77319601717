//! Pins and references, as in `mm/gup.c`: the fast path, the slow path, `memfd_pin_folios()`, and giving back.
//!
//! The fast path reads the page table without its lock, takes a reference unless the count is 0, counts in the word, and
//! looks at the page table again. The slow path has the page table's lock, counts in the word, and then adds its
//! reference to those that the mapping guarantees.

use crate::memory::{Entry, Kind, Memory, Page};
use crate::mutant::Mutant;
use crate::word::{Test, Uncounted};
use crate::{Grab, Refusal};
use loom::sync::atomic::Ordering::SeqCst;
use loom::sync::atomic::fence;
use loom::thread;

impl Memory {
    /// `pin_user_pages_fast()` and `get_user_pages_fast()`. Exclusive pins leave the fast path out: it would hold them
    /// for a moment where they are not wanted.
    pub(crate) fn grab(&self, page: Page, grab: Grab) -> Result<Page, Refusal> {
        let fast = match grab {
            Grab::Exclusive => None,
            Grab::Get | Grab::Pin => self.grab_fast(page, grab),
        };
        fast.map_or_else(|| self.grab_slow(page, grab), Ok)
    }

    /// `gup_fast_pte_range()`. Nothing means: ask the slow path.
    pub(crate) fn grab_fast(&self, page: Page, grab: Grab) -> Option<Page> {
        if self.frame(page).entry() != Entry::Present {
            return None;
        }
        let folio = self.try_grab_fast(page, grab)?;
        if self.frame(page).entry() != Entry::Present {
            self.give_up(folio, grab);
            return None;
        }
        self.hold(folio, grab);
        Some(folio)
    }

    /// `try_grab_folio_fast()`.
    fn try_grab_fast(&self, page: Page, grab: Grab) -> Option<Page> {
        let early = self.is(Mutant::TestBeforeReference)
            && self.frame(self.folio_of(page)).word.is_isolated();
        let folio = self.try_get(page)?;
        let granted = match grab {
            Grab::Get if self.is(Mutant::DropFastTest) => true,
            Grab::Get if self.is(Mutant::TestBeforeReference) => !early,
            Grab::Get => !self.frame(folio).word.is_isolated(),
            Grab::Pin | Grab::Exclusive => {
                let test = self.test_unless(Mutant::DropFastTest);
                let order = self.order(folio);
                self.frame(folio).word.grab(grab, order, test).is_ok()
            }
        };
        if !granted {
            self.put(folio, 1);
            return None;
        }
        if grab != Grab::Get {
            fence(SeqCst);
        }
        Some(folio)
    }

    /// `try_get_folio()`: the folio that the page belongs to once there is a reference.
    pub(crate) fn try_get(&self, page: Page) -> Option<Page> {
        loop {
            let folio = self.folio_of(page);
            if !self.frame(folio).refs.try_get() {
                return None;
            }
            if self.folio_of(page) == folio {
                return Some(folio);
            }
            self.put(folio, 1);
        }
    }

    /// `follow_page_pte()`, with the faults that it may need first.
    pub(crate) fn grab_slow(&self, page: Page, grab: Grab) -> Result<Page, Refusal> {
        loop {
            let table = self.lock_page_table();
            match self.frame(page).entry() {
                Entry::Present => {
                    let folio = self.folio_of(page);
                    self.try_grab(folio, grab)?;
                    drop(table);
                    self.hold(folio, grab);
                    return Ok(folio);
                }
                Entry::Migration => {
                    let folio = self.folio_of(page);
                    drop(table);
                    // migration_entry_wait()
                    drop(self.lock_folio(folio));
                }
                Entry::None => {
                    drop(table);
                    self.fault(page)?;
                }
            }
        }
    }

    /// `try_grab_folio()`: the caller knows that there is a reference.
    fn try_grab(&self, folio: Page, grab: Grab) -> Result<(), Refusal> {
        let frame = self.frame(folio);
        if grab == Grab::Get {
            if frame.word.is_isolated() && !self.is(Mutant::DropSlowPathTest) {
                return Err(Refusal::Fault);
            }
            frame.refs.get();
            return Ok(());
        }
        let test = self.test_unless(Mutant::DropSlowPathTest);
        frame.word.grab(grab, self.order(folio), test)?;
        frame.refs.get();
        Ok(())
    }

    fn test_unless(&self, mutant: Mutant) -> Test {
        if self.is(mutant) {
            Test::Ignores
        } else {
            Test::Asks
        }
    }

    /// `memfd_pin_folios()`.
    pub(crate) fn pin_in_file(&self, page: Page) -> Result<Page, Refusal> {
        let folio = self.look_up(page).ok_or(Refusal::NotThere)?;
        let grabbed = self.try_grab(folio, Grab::Pin);
        self.put(folio, 1);
        grabbed?;
        self.hold(folio, Grab::Pin);
        Ok(folio)
    }

    /// `filemap_get_entry()`: a reference from the page cache. Spins while the folio is frozen.
    pub(crate) fn look_up(&self, page: Page) -> Option<Page> {
        while self.is_in_file() {
            if let Some(folio) = self.try_get(page) {
                return Some(folio);
            }
            thread::yield_now();
        }
        None
    }

    /// `shmem_get_folio_gfp()`: the folio with a reference and locked in between, or what the file says instead.
    pub(crate) fn folio_of_file<T>(
        &self,
        page: Page,
        locked: impl FnOnce(Page) -> T,
    ) -> Result<(Page, T), Refusal> {
        let early = self.is(Mutant::TestBeforeReference)
            && self.frame(self.folio_of(page)).word.is_isolated();
        let folio = self.look_up(page).ok_or(Refusal::NotThere)?;
        let lock = self.lock_folio(folio);
        let isolated = match self.mutant_of_cache() {
            Some(Mutant::TestBeforeReference) => early,
            Some(_) => false,
            None => self.frame(folio).word.is_isolated(),
        };
        if isolated || !self.is_in_file() {
            drop(lock);
            self.put(folio, 1);
            return Err(Refusal::Fault);
        }
        let value = locked(folio);
        drop(lock);
        Ok((folio, value))
    }

    fn mutant_of_cache(&self) -> Option<Mutant> {
        [Mutant::DropCacheTest, Mutant::TestBeforeReference]
            .into_iter()
            .find(|mutant| self.is(*mutant))
    }

    /// A page fault where nothing is mapped. An anonymous page is another one afterwards.
    fn fault(&self, page: Page) -> Result<(), Refusal> {
        if self.kind() == Kind::Anon {
            return Err(Refusal::NotThere);
        }
        let (folio, mapped) = self.folio_of_file(page, |folio| {
            let _table = self.lock_page_table();
            let was = self.frame(page).entry();
            if was == Entry::None {
                self.map(folio, page);
            }
            was == Entry::None
        })?;
        // The reference becomes the mapping's.
        if !mapped {
            self.put(folio, 1);
        }
        Ok(())
    }

    /// `folio_add_pin()`: one more pin on a folio that the caller has pinned.
    pub(crate) fn add_pin(&self, folio: Page) {
        self.frame(folio).word.add();
        self.frame(folio).refs.get();
        self.hold(folio, Grab::Pin);
    }

    /// `unpin_user_page()`, `put_page()`.
    pub(crate) fn give(&self, folio: Page, grab: Grab) -> Uncounted {
        self.release(folio, grab);
        self.give_up(folio, grab)
    }

    /// `gup_put_folio()`.
    fn give_up(&self, folio: Page, grab: Grab) -> Uncounted {
        if grab == Grab::Get {
            self.put(folio, 1);
            return Uncounted::Drop;
        }
        if self.is(Mutant::PutReferenceBeforeWord) {
            self.put(folio, 1);
            return self.frame(folio).word.put();
        }
        if self.is(Mutant::DropUncount) || self.is(Mutant::DropCount) && grab == Grab::Pin {
            self.put(folio, 1);
            return Uncounted::Drop;
        }
        if self.is(Mutant::LookAfterwards) {
            self.frame(folio).word.take_back(grab);
            self.put(folio, 1);
            return Uncounted::Drop;
        }
        let uncounted = self.frame(folio).word.put();
        if uncounted == Uncounted::Drop {
            self.put(folio, 1);
        }
        uncounted
    }

    /// `folio_pin_make_exclusive()`.
    pub(crate) fn make_exclusive(&self, folio: Page) -> Result<(), Refusal> {
        self.frame(folio).word.make_exclusive(self.order(folio))?;
        self.release(folio, Grab::Pin);
        self.hold(folio, Grab::Exclusive);
        Ok(())
    }

    /// `folio_pin_make_ordinary()`.
    pub(crate) fn make_ordinary(&self, folio: Page) {
        self.release(folio, Grab::Exclusive);
        self.frame(folio).word.make_ordinary(self.order(folio));
        self.hold(folio, Grab::Pin);
    }
}
