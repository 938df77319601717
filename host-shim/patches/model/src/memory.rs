//! The state that the actors of a scenario share: one or two pages, mapped once, by one process.
//!
//! [`Memory`] is the folio that they are, or the two folios, with the page table that maps them. The page table is
//! written under its lock and read by the fast path without. `page_folio()`, the mapping count and the page cache are
//! what 6.12 has, as far as the algorithms look.
//!
//! Invariant: the reference count of a folio that is neither frozen nor being changed is its mappings, plus its pages
//! if it is in the page cache, plus what the actors hold. A pin is one reference, and one in the word; `_pincount` of large
//! folios decides nothing here and is left out.

use crate::Grab;
use crate::contents::Contents;
use crate::mutant::Mutant;
use crate::refcount::{Left, RefCount};
use crate::word::PinWord;
use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicBool, AtomicI32, AtomicU8};
use loom::sync::{Mutex, MutexGuard, RwLock};
use std::sync::PoisonError;
use std::sync::atomic::AtomicI32 as Ghost;

/// A page. A folio is called by its first page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Page {
    First,
    Second,
}

/// Where the memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Anon,
    Shmem,
}

/// Which folios there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// One of one page.
    Small,
    /// One of two pages.
    Large,
    /// Two of one page each.
    Pair,
}

/// A page table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    None,
    Present,
    Migration,
}

/// One page frame with all that the kernel has for it.
pub(crate) struct Frame {
    pub(crate) word: PinWord,
    pub(crate) refs: RefCount,
    pub(crate) contents: Contents,
    mapcount: AtomicI32,
    entry: AtomicU8,
    /// What a pin is for: the exclusive one excludes the others here as a writer does readers.
    claim: UnsafeCell<()>,
    /// Pins that actors hold, in the checker's own books.
    ordinary: Ghost,
    exclusive: Ghost,
}

/// The shared state of a scenario.
pub(crate) struct Memory {
    first: Frame,
    second: Frame,
    kind: Kind,
    layout: Layout,
    /// Whether the second page is a tail of the first.
    compound: AtomicBool,
    /// Whether the file still has its folios: `folio->mapping`, and the entry of the page cache.
    in_file: AtomicBool,
    page_table: Mutex<()>,
    first_lock: Mutex<()>,
    second_lock: Mutex<()>,
    pub(crate) mmap_lock: RwLock<()>,
    mutant: Option<Mutant>,
}

impl Frame {
    fn new(references: i32, mapcount: i32, entry: Entry, mutant: Option<Mutant>) -> Self {
        Self {
            word: PinWord::new(mutant),
            refs: RefCount::new(references, mutant),
            contents: Contents::new(),
            mapcount: AtomicI32::new(mapcount),
            entry: AtomicU8::new(entry.number()),
            claim: UnsafeCell::new(()),
            ordinary: Ghost::new(0),
            exclusive: Ghost::new(0),
        }
    }

    /// Reads the entry that maps the page. Written under the lock of the page table.
    pub(crate) fn entry(&self) -> Entry {
        Entry::of(self.entry.load(Relaxed))
    }

    pub(crate) fn set_entry(&self, entry: Entry) {
        self.entry.store(entry.number(), Release);
    }
}

impl Entry {
    const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Present => 1,
            Self::Migration => 2,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Present,
            _ => Self::Migration,
        }
    }
}

impl Memory {
    pub(crate) fn new(kind: Kind, layout: Layout, mutant: Option<Mutant>) -> Self {
        let (first, second, entry) = match layout {
            Layout::Small => (1, 0, Entry::None),
            Layout::Large => (2, 0, Entry::Present),
            Layout::Pair => (1, 1, Entry::Present),
        };
        // Each page has a mapping, and a place in the file.
        let references = |pages| {
            if kind == Kind::Shmem {
                2 * pages
            } else {
                pages
            }
        };
        Self {
            first: Frame::new(references(first), first, Entry::Present, mutant),
            second: Frame::new(references(second), second, entry, mutant),
            kind,
            layout,
            compound: AtomicBool::new(layout == Layout::Large),
            in_file: AtomicBool::new(kind == Kind::Shmem),
            page_table: Mutex::new(()),
            first_lock: Mutex::new(()),
            second_lock: Mutex::new(()),
            mmap_lock: RwLock::new(()),
            mutant,
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn frame(&self, page: Page) -> &Frame {
        match page {
            Page::First => &self.first,
            Page::Second => &self.second,
        }
    }

    /// `page_folio()`: stays true as long as there is a reference.
    pub(crate) fn folio_of(&self, page: Page) -> Page {
        if page == Page::Second && self.compound.load(Acquire) {
            Page::First
        } else {
            page
        }
    }

    /// The second page becomes a folio of its own.
    pub(crate) fn part(&self) {
        self.compound.store(false, Release);
    }

    /// `folio_test_large()`, of one who has a reference or the lock.
    pub(crate) fn is_large(&self, folio: Page) -> bool {
        self.layout == Layout::Large && folio == Page::First && self.compound.load(Acquire)
    }

    pub(crate) fn order(&self, folio: Page) -> u32 {
        u32::from(self.is_large(folio))
    }

    /// The pages of a folio: the first one, and the second if it is large.
    pub(crate) fn pages(&self, folio: Page) -> impl Iterator<Item = Page> {
        let second = self.is_large(folio).then_some(Page::Second);
        [Some(folio), second].into_iter().flatten()
    }

    /// `spin_lock(ptl)`.
    pub(crate) fn lock_page_table(&self) -> MutexGuard<'_, ()> {
        self.page_table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `folio_lock()`.
    pub(crate) fn lock_folio(&self, folio: Page) -> MutexGuard<'_, ()> {
        self.lock_of(folio)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `folio_trylock()`.
    pub(crate) fn try_lock_folio(&self, folio: Page) -> Option<MutexGuard<'_, ()>> {
        self.lock_of(folio).try_lock().ok()
    }

    /// The pages that a split makes stay locked until it is over, so that one lock can stand for all of them.
    fn lock_of(&self, folio: Page) -> &Mutex<()> {
        match (self.layout, folio) {
            (Layout::Pair, Page::Second) => &self.second_lock,
            (Layout::Pair | Layout::Small | Layout::Large, _) => &self.first_lock,
        }
    }

    /// `folio_mapped()`.
    pub(crate) fn mappings(&self, folio: Page) -> i32 {
        self.frame(folio).mapcount.load(Relaxed)
    }

    /// A page gains a mapping: `folio_add_*_rmap_pte()`. The caller has the lock of the page table.
    pub(crate) fn map(&self, folio: Page, page: Page) {
        self.frame(folio).mapcount.fetch_add(1, Relaxed);
        self.frame(page).set_entry(Entry::Present);
    }

    /// A page loses its mapping. The caller has the lock of the page table and drops the reference.
    pub(crate) fn unmap(&self, folio: Page, page: Page, left: Entry) {
        self.frame(page).set_entry(left);
        self.frame(folio).mapcount.fetch_sub(1, AcqRel);
    }

    /// Whether the file has the folio. The newest value: how the page cache reads its tree is not modelled.
    pub(crate) fn is_in_file(&self) -> bool {
        self.in_file.fetch_or(false, AcqRel)
    }

    /// The file lets go of the folio. The caller has its lock and drops the references.
    pub(crate) fn leave_file(&self) {
        self.in_file.store(false, Release);
    }

    /// References of the page cache.
    pub(crate) fn cached(&self, folio: Page) -> i32 {
        if self.kind == Kind::Anon || !self.is_in_file() {
            return 0;
        }
        if self.is_large(folio) { 2 } else { 1 }
    }

    /// `folio_expected_ref_count()`.
    pub(crate) fn expected(&self, folio: Page) -> i32 {
        self.cached(folio) + self.mappings(folio)
    }

    /// `folio_put_refs()`. Nothing that is still pinned, or EL2's, may become free.
    pub(crate) fn put(&self, folio: Page, count: i32) {
        let pages: Vec<Page> = self.pages(folio).collect();
        let frame = self.frame(folio);
        if frame.refs.put(count) == Left::None {
            assert_eq!(frame.word.read(), 0, "a pinned folio was freed");
            for page in pages {
                self.frame(page).contents.free();
            }
        }
    }

    /// Writes down that an actor has a pin. Whoever does so next to an exclusive one has found a violation. The claim finds it
    /// too where loom does not let the two meet, because nothing orders them.
    pub(crate) fn hold(&self, folio: Page, grab: Grab) {
        use std::sync::atomic::Ordering::Relaxed;
        let frame = self.frame(folio);
        match grab {
            Grab::Get => return,
            Grab::Pin => {
                frame.claim.with(|_| ());
                frame.ordinary.fetch_add(1, Relaxed)
            }
            Grab::Exclusive => {
                frame.claim.with_mut(|_| ());
                frame.exclusive.fetch_add(1, Relaxed)
            }
        };
        let (ordinary, exclusive) = self.held(folio);
        assert!(
            exclusive == 0 || (exclusive == 1 && ordinary == 0),
            "an exclusive pin is not the only one"
        );
    }

    /// Writes down that an actor is about to give up a pin.
    pub(crate) fn release(&self, folio: Page, grab: Grab) {
        use std::sync::atomic::Ordering::Relaxed;
        let frame = self.frame(folio);
        match grab {
            Grab::Get => 0,
            Grab::Pin => frame.ordinary.fetch_sub(1, Relaxed),
            Grab::Exclusive => frame.exclusive.fetch_sub(1, Relaxed),
        };
    }

    /// The pins that actors hold: ordinary and exclusive ones.
    pub(crate) fn held(&self, folio: Page) -> (i32, i32) {
        use std::sync::atomic::Ordering::Relaxed;
        let frame = self.frame(folio);
        (frame.ordinary.load(Relaxed), frame.exclusive.load(Relaxed))
    }
}
