//! The rest of the kernel: whoever looks at contents, or takes mappings and pages away, without GUP.
//!
//! Each follows the rule of the series: first a reference (or the lock of the page table), then the question whether
//! the folio is isolated, then the contents.

use crate::Refusal;
use crate::memory::{Entry, Memory, Page};
use crate::mutant::Mutant;
use std::sync::PoisonError;

impl Memory {
    /// `read()` of the file: `shmem_file_read_iter()`.
    pub(crate) fn read_file(&self, page: Page) -> Result<(), Refusal> {
        let (folio, ()) = self.folio_of_file(page, |_| ())?;
        self.frame(page).contents.touch();
        self.put(folio, 1);
        Ok(())
    }

    /// `ksmd`: takes a reference under the page table's lock, and has a checksum made of the page later.
    pub(crate) fn scan(&self, page: Page) {
        let table = self.lock_page_table();
        if self.frame(page).entry() != Entry::Present {
            return;
        }
        let folio = self.folio_of(page);
        self.frame(folio).refs.get();
        drop(table);
        if self.is(Mutant::DropScanTest) || !self.frame(folio).word.is_isolated() {
            self.frame(page).contents.touch();
        }
        self.put(folio, 1);
    }

    /// `fork()` of the owner: a page that may be pinned is copied, others are shared with the child.
    pub(crate) fn fork(&self, page: Page) {
        let _mmap = self
            .mmap_lock
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let _table = self.lock_page_table();
        let frame = self.frame(self.folio_of(page));
        let shares = match self.frame(page).entry() {
            Entry::None => false,
            Entry::Present if frame.word.is_isolated() && !self.is(Mutant::DropForkTest) => false,
            Entry::Present if frame.word.is_pinned() => {
                self.frame(page).contents.touch();
                false
            }
            Entry::Present | Entry::Migration => true,
        };
        assert!(
            !shares || self.held(Page::First).1 == 0,
            "a child shares an exclusively pinned page"
        );
    }

    /// `munmap()`, `MADV_DONTNEED`, exit.
    pub(crate) fn zap(&self, page: Page) {
        let table = self.lock_page_table();
        let frame = self.frame(page);
        let entry = frame.entry();
        let folio = self.folio_of(page);
        match entry {
            Entry::None => return,
            Entry::Present => self.unmap(folio, page, Entry::None),
            Entry::Migration => frame.set_entry(Entry::None),
        }
        drop(table);
        // The batch of zap_pte_range() drops references after the lock.
        if entry == Entry::Present {
            self.put(folio, 1);
        }
    }

    /// A hole is punched where the folio is: `truncate_inode_folio()`.
    pub(crate) fn punch(&self, page: Page) {
        let Some(folio) = self.look_up(page) else {
            return;
        };
        let lock = self.lock_folio(folio);
        let cached = self.cached(folio);
        if cached > 0 {
            self.unmap_all(folio);
            self.leave_file();
        }
        drop(lock);
        self.put(folio, 1 + cached);
    }

    /// Compaction moves the page if it can: `migrate_folio_unmap()`, `__migrate_folio()`, which copies before it freezes.
    pub(crate) fn migrate(&self, page: Page) {
        let Some(folio) = self.try_get(page) else {
            return;
        };
        let lock = self.lock_folio(folio);
        self.unmap_all(folio);
        if self.mappings(folio) == 0 {
            let expected = self.expected(folio) + 1;
            if self.frame(folio).refs.read() == expected {
                self.frame(page).contents.touch();
            }
        }
        self.remap_all(folio);
        drop(lock);
        self.put(folio, 1);
    }
}
