//! A machine of plain memory for tests: [`FakeMachine`], with a TLB that forgets nothing by itself.
//!
//! Whatever a walker could have cached of an entry that is overwritten stays until exactly the invalidation that removes it. The
//! machine panics when core breaks a rule of the architecture or of Pinfold: makes before it broke, gives a frame a new
//! user while an old one may still reach it, wipes or frees what somebody reaches, links a table before it is published.
//! Beside it, `watch` tells the checker of the protocol what EL2 would do, step by step.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a machine of the tests panics when core breaks a rule"
)]

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::vec::Vec;

use super::{
    HypAccess, Machine, OutOfMemory, RootTables, Scope, TABLE_ENTRIES, Table, TableIndex, Vmid,
};
use crate::addr::{FrameRange, Gfn, Pfn, Physical};
use crate::folio::Folio;
use crate::hypervisor::{CallRegisters, Hypervisor};
use crate::memory::Layout;
use crate::stage2::{Descriptor, Entry, Level};

mod watch;

/// Where the test machine's RAM starts: 1 GiB.
pub const RAM: u64 = 0x40000;
/// Where EL2's own memory starts: 2 MiB into RAM.
pub const EL2: u64 = RAM + 512;
/// Frames of EL2's own memory.
pub const EL2_FRAMES: u64 = 512;
/// Frames of EL2's memory that are the first pool.
pub const POOL_FRAMES: u64 = 96;
/// What EL2 leaves in a frame of its pool.
pub const USED: u64 = 0xDEAD;
/// A page of registers that the host may not reach.
pub const HOLE: u64 = 0x9020;

/// Something that a CPU may have cached, and that is no more in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stale {
    vmid: Vmid,
    gfn: u64,
    frames: u64,
    what: Cached,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cached {
    Leaf(u64),
    Table(u64),
}

impl Stale {
    fn overlaps(&self, vmid: Vmid, gfn: u64, frames: u64) -> bool {
        self.vmid == vmid && self.gfn < gfn + frames && gfn < self.gfn + self.frames
    }

    fn reaches(&self, pfn: u64, frames: u64) -> bool {
        match self.what {
            Cached::Leaf(first) => first < pfn + frames && pfn < first + self.frames,
            Cached::Table(table) => (pfn..pfn + frames).contains(&table),
        }
    }
}

/// A block or page in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The first frame that goes in.
    pub gfn: u64,
    /// The first frame that comes out.
    pub pfn: u64,
    /// How many.
    pub frames: u64,
    /// The descriptor.
    pub raw: u64,
}

/// Where a table hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    vmid: Vmid,
    level: Level,
    first: u64,
}

/// A machine of plain memory.
#[derive(Clone, Debug, Default)]
pub struct FakeMachine {
    tables: watch::Frames,
    watch: watch::Watch,
    places: BTreeMap<u64, Place>,
    roots: BTreeMap<u16, u64>,
    unpublished: BTreeSet<u64>,
    stale: Vec<Stale>,
    /// Regimes of which all was flushed after their last change.
    flushed_whole: BTreeSet<u16>,
    /// By first frame: the leaves of guests that map it, each with its regime and how many frames.
    guest_leaves: BTreeMap<u64, Vec<(Vmid, u64)>>,
    reserve: Vec<u64>,
    donated_free: Vec<u64>,
    donated: BTreeSet<u64>,
    hyp: BTreeMap<u64, HypAccess>,
    pin_words: BTreeMap<(u64, usize), u32>,
    /// What a frame holds: one word stands for all of it; 0 where nothing was written.
    pub content: BTreeMap<u64, u64>,
    /// Frames cleaned so far.
    pub cleaned: u64,
    /// How often the instruction caches were invalidated.
    pub instructions_forgotten: u64,
    /// Frames wiped so far.
    pub wiped: u64,
    /// Which these were; whoever looks empties it.
    pub wiped_frames: Vec<u64>,
    /// Descriptors written so far.
    pub writes: u64,
    /// Somebody runs below EL2, so that walkers look at the tables.
    running: bool,
    /// The page that stands in for frames which the host may not reach; the machine thinks that it is a table.
    decoy: u64,
    /// Makes [`Machine::prepare_hyp`] say no.
    pub hyp_is_full: bool,
}

fn below(level: Level) -> Level {
    match level {
        Level::One => Level::Two,
        Level::Two | Level::Three => Level::Three,
    }
}

fn entry(level: Level, raw: u64) -> Entry {
    Descriptor::from_raw(raw).entry(level)
}

impl FakeMachine {
    /// A machine whose pool has these frames.
    #[must_use]
    pub fn new(pool: FrameRange<Physical>) -> Self {
        let mut reserve: Vec<u64> = pool.frames().map(Pfn::raw).collect();
        reserve.reverse();
        Self {
            reserve,
            ..Self::default()
        }
    }

    /// Writes a pin word, as the host does.
    pub fn set_pin_word(&mut self, table: u64, index: usize, word: u32) {
        self.pin_words.insert(
            (table + u64::try_from(index / 1024).unwrap(), index % 1024),
            word,
        );
    }

    /// Every leaf of a regime.
    #[must_use]
    pub fn leaves(&self, vmid: Vmid) -> Vec<Leaf> {
        let mut found = Vec::new();
        if let Some(root) = self.roots.get(&vmid.0) {
            for table in [*root, root + 1] {
                self.leaves_below(table, &mut found);
            }
        }
        found
    }

    fn leaves_below(&self, table: u64, found: &mut Vec<Leaf>) {
        let place = self.places[&table];
        for (raw, index) in self.tables[&table].iter().zip(0_u64..) {
            let gfn = place.first + (index << place.level.shift());
            match entry(place.level, *raw) {
                Entry::Leaf(pfn) => found.push(Leaf {
                    gfn,
                    pfn: pfn.raw(),
                    frames: place.level.frames(),
                    raw: *raw,
                }),
                Entry::Table(table) => self.leaves_below(table.frame().raw(), found),
                Entry::Vacant | Entry::Parked(_) => {}
            }
        }
    }

    /// Where a walk for `gfn` ends, if it ends anywhere: the frame, and the descriptor.
    #[must_use]
    pub fn walk(&self, vmid: Vmid, gfn: u64) -> Option<(u64, u64)> {
        let mut table = self.roots.get(&vmid.0)? + (gfn >> 27 & 1);
        loop {
            let level = self.places[&table].level;
            let raw = self.tables[&table][usize::try_from(gfn >> level.shift() & 511).unwrap()];
            match entry(level, raw) {
                Entry::Leaf(pfn) => return Some((pfn.raw() + (gfn & (level.frames() - 1)), raw)),
                Entry::Table(next) => table = next.frame().raw(),
                Entry::Vacant | Entry::Parked(_) => return None,
            }
        }
    }

    /// The regimes there are.
    pub fn vmids(&self) -> impl Iterator<Item = Vmid> + '_ {
        self.roots.keys().map(|vmid| Vmid(*vmid))
    }

    /// Whether no CPU has anything cached that is not in the tables any more. Asked between two calls only.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.watch.is_settled();
        self.stale.is_empty()
    }

    /// How many frames of the pool are tables, or stand for the decoy page.
    #[must_use]
    pub fn tables_in_use(&self) -> u64 {
        u64::try_from(self.tables.len()).unwrap()
    }

    /// The frames that EL2 maps besides its own, and how.
    #[must_use]
    pub fn hyp_frames(&self) -> Vec<(u64, HypAccess)> {
        self.hyp
            .iter()
            .map(|(pfn, access)| (*pfn, *access))
            .collect()
    }

    /// Whether EL2 maps a frame that was not its own from the start.
    #[must_use]
    pub fn hyp_access(&self, pfn: u64) -> Option<HypAccess> {
        self.hyp.get(&pfn).copied()
    }

    /// Panics if anybody but EL2 may reach the frames, by a table or by what a CPU has cached.
    fn expect_unreachable(&self, pfn: u64, frames: u64, why: &str) {
        if !self.running {
            return;
        }
        if let Some(stale) = self.stale.iter().find(|stale| stale.reaches(pfn, frames)) {
            panic!("{why}: {pfn:#x} is still in a TLB: {stale:?}");
        }
        let by_host = self
            .walk(Vmid::HOST, pfn)
            .is_some_and(|(found, _)| found == pfn);
        assert!(!by_host, "{why}: {pfn:#x} is mapped by the host");
        let by_guest = self.guest_of(pfn, frames);
        assert!(
            by_guest.is_none(),
            "{why}: {pfn:#x} is mapped by a guest: {by_guest:?}"
        );
    }

    /// A regime of a guest's that maps one of these frames.
    fn guest_of(&self, pfn: u64, frames: u64) -> Option<Vmid> {
        let most = Level::Two.frames();
        let near = self
            .guest_leaves
            .range(pfn.saturating_sub(most)..pfn + frames);
        let mut leaves =
            near.flat_map(|(first, leaves)| leaves.iter().map(move |leaf| (first, leaf)));
        leaves
            .find(|(first, (_, count))| *first + count > pfn)
            .map(|(_, (vmid, _))| *vmid)
    }

    /// Whether all of these frames are the host's to execute, so that it may share them with as many as it likes.
    fn is_hosts(&self, pfn: u64, frames: u64) -> bool {
        const EXECUTE_NEVER: u64 = 1 << 54;
        (pfn..pfn + frames).all(|frame| {
            let found = self.walk(Vmid::HOST, frame);
            found.is_some_and(|(found, raw)| found == frame && raw & EXECUTE_NEVER == 0)
        })
    }

    /// Notes what CPUs may have cached of a live entry that goes, and of what hangs below.
    fn retire(&mut self, place: Place, gfn: u64, raw: u64) {
        match entry(place.level, raw) {
            Entry::Leaf(pfn) => {
                if place.vmid != Vmid::HOST {
                    let leaves = self.guest_leaves.entry(pfn.raw()).or_default();
                    let leaf = (place.vmid, place.level.frames());
                    if let Some(index) = leaves.iter().position(|other| *other == leaf) {
                        leaves.swap_remove(index);
                    }
                }
                self.linger(place, gfn, Cached::Leaf(pfn.raw()));
            }
            Entry::Table(table) => {
                let table = table.frame().raw();
                self.linger(place, gfn, Cached::Table(table));
                let child = self
                    .places
                    .remove(&table)
                    .expect("a linked table has a place");
                for (raw, index) in self.tables[&table].clone().iter().zip(0_u64..) {
                    self.retire(child, child.first + (index << child.level.shift()), *raw);
                }
            }
            Entry::Vacant | Entry::Parked(_) => {}
        }
    }

    fn linger(&mut self, place: Place, gfn: u64, what: Cached) {
        if self.running {
            self.stale.push(Stale {
                vmid: place.vmid,
                gfn,
                frames: place.level.frames(),
                what,
            });
        }
    }

    /// Checks an entry that becomes live, and gives the tables below a place.
    fn enlist(&mut self, place: Place, gfn: u64, raw: u64) {
        let frames = place.level.frames();
        if Descriptor::from_raw(raw).is_valid()
            && let Some(stale) = self
                .stale
                .iter()
                .find(|stale| stale.overlaps(place.vmid, gfn, frames))
        {
            panic!(
                "made before it was broken and flushed: {gfn:#x} of {:?}, {stale:?}",
                place.vmid
            );
        }
        match entry(place.level, raw) {
            Entry::Leaf(pfn) => {
                let pfn = pfn.raw();
                let stale = self.stale.iter().find(|stale| stale.reaches(pfn, frames));
                assert!(
                    stale.is_none(),
                    "{pfn:#x} gets a new user while it is still in a TLB: {stale:?}"
                );
                let is_table = self.running
                    && self
                        .tables
                        .range(pfn..pfn + frames)
                        .any(|(table, _)| *table != self.decoy);
                assert!(!is_table, "{pfn:#x} is mapped, and a table is in it");
                if place.vmid != Vmid::HOST {
                    let twice = self.guest_of(pfn, frames);
                    assert!(
                        twice.is_none() || self.is_hosts(pfn, frames),
                        "{pfn:#x} is mapped by two guests, or twice by one"
                    );
                    let leaves = self.guest_leaves.entry(pfn).or_default();
                    leaves.push((place.vmid, frames));
                }
            }
            Entry::Table(table) => {
                let table = table.frame().raw();
                assert!(
                    !self.unpublished.contains(&table),
                    "table {table:#x} is linked before it is published"
                );
                let level = below(place.level);
                let child = Place {
                    vmid: place.vmid,
                    level,
                    first: gfn,
                };
                assert!(
                    self.places.insert(table, child).is_none(),
                    "table {table:#x} is linked twice"
                );
                for (raw, index) in self.tables[&table].clone().iter().zip(0_u64..) {
                    self.enlist(child, gfn + (index << level.shift()), *raw);
                }
            }
            Entry::Vacant | Entry::Parked(_) => {}
        }
    }

    fn take_frame(&mut self) -> Option<u64> {
        self.reserve.pop().or_else(|| self.donated_free.pop())
    }

    fn new_table(&mut self, frame: u64) -> Table {
        self.expect_unreachable(frame, 1, "a table is allocated");
        assert!(
            self.tables
                .insert(frame, Arc::new([0; TABLE_ENTRIES]))
                .is_none(),
            "table {frame:#x} is in use"
        );
        self.watch.allocated(frame, &self.tables);
        Table::vouch(Pfn::new(frame).unwrap())
    }

    fn put_frame(&mut self, frame: u64) {
        self.watch.freed(frame, &self.tables);
        self.tables.remove(&frame).expect("only a table is freed");
        self.unpublished.remove(&frame);
        assert!(
            !self.places.contains_key(&frame),
            "table {frame:#x} is freed while it is linked"
        );
        let stale = self.stale.iter().find(|stale| stale.reaches(frame, 1));
        assert!(
            stale.is_none(),
            "table {frame:#x} is freed while a walker may be in it: {stale:?}"
        );
        self.content.insert(frame, USED);
        if self.donated.contains(&frame) {
            self.donated_free.push(frame);
        } else {
            self.reserve.push(frame);
        }
    }
}

impl Machine for FakeMachine {
    fn allocate_table(&mut self) -> Option<Table> {
        if is_scarce() {
            return None;
        }
        let frame = self.take_frame()?;
        Some(self.new_table(frame))
    }

    fn allocate_root(&mut self) -> Option<RootTables> {
        if is_scarce() {
            return None;
        }
        let find = |frames: &[u64]| {
            frames
                .iter()
                .copied()
                .find(|low| low % 2 == 0 && frames.contains(&(low + 1)))
        };
        let low = find(&self.reserve).or_else(|| find(&self.donated_free))?;
        for frames in [&mut self.reserve, &mut self.donated_free] {
            frames.retain(|frame| *frame != low && *frame != low + 1);
        }
        let root = RootTables {
            low: self.new_table(low),
            high: self.new_table(low + 1),
        };
        Some(root)
    }

    fn name_root(&mut self, root: RootTables, vmid: Vmid) {
        self.watch.named(root, vmid, &self.tables);
        let low = root.low.frame().raw();
        self.roots.insert(vmid.0, low);
        self.flushed_whole.remove(&vmid.0);
        for (table, first) in [(low, 0), (low + 1, 1 << 27)] {
            self.places.insert(
                table,
                Place {
                    vmid,
                    level: Level::One,
                    first,
                },
            );
        }
    }

    fn free_table(&mut self, table: Table) {
        self.put_frame(table.frame().raw());
    }

    fn free_root(&mut self, root: RootTables) {
        for table in [root.low, root.high] {
            let frame = table.frame().raw();
            let place = self.places.remove(&frame).expect("a root has a place");
            assert!(
                self.tables[&frame].iter().all(|raw| *raw == 0),
                "a root is freed while it maps something"
            );
            assert!(
                self.flushed_whole.contains(&place.vmid.0),
                "a root is freed before its flush"
            );
            self.roots.remove(&place.vmid.0);
            self.put_frame(frame);
        }
    }

    fn read(&self, table: Table, index: TableIndex) -> u64 {
        self.tables
            .get(&table.frame().raw())
            .expect("a table is read")[usize::from(index.raw())]
    }

    fn write(&mut self, table: Table, index: TableIndex, descriptor: u64) {
        self.writes += 1;
        let frame = table.frame().raw();
        self.watch
            .stores(frame, index.raw(), descriptor, &self.tables);
        let old = self.read(table, index);
        self.unpublished.insert(frame);
        if old == descriptor {
            return;
        }
        let place = self.places.get(&frame).copied();
        let live = place.map(|place| {
            (
                place,
                place.first + (u64::from(index.raw()) << place.level.shift()),
            )
        });
        if let Some((place, gfn)) = live {
            let swap =
                Descriptor::from_raw(old).is_valid() && Descriptor::from_raw(descriptor).is_valid();
            assert!(
                !swap,
                "{gfn:#x} of {:?} is replaced without a break",
                place.vmid
            );
            self.flushed_whole.remove(&place.vmid.0);
            self.retire(place, gfn, old);
        }
        let entries = Arc::make_mut(self.tables.get_mut(&frame).unwrap());
        entries[usize::from(index.raw())] = descriptor;
        if let Some((place, gfn)) = live {
            self.enlist(place, gfn, descriptor);
        }
    }

    fn publish(&mut self) {
        self.watch.published(&self.tables);
        self.unpublished.clear();
    }

    fn invalidate(&mut self, scope: Scope) {
        self.watch.invalidated(scope, &self.tables);
        self.unpublished.clear();
        match scope {
            Scope::All(vmid) => {
                self.stale.retain(|stale| stale.vmid != vmid);
                self.flushed_whole.insert(vmid.0);
            }
            Scope::Range(vmid, range) => {
                let (first, count) = (range.first().raw(), range.count());
                self.stale.retain(|stale| {
                    let whole = first <= stale.gfn && stale.gfn + stale.frames <= first + count;
                    match stale.what {
                        Cached::Leaf(_) => !stale.overlaps(vmid, first, count),
                        Cached::Table(_) => stale.vmid != vmid || !whole,
                    }
                });
            }
        }
    }

    fn wipe(&mut self, frame: Pfn) {
        self.watch.written(frame.raw(), &self.tables);
        self.watch.cleaned(frame.raw(), &self.tables);
        self.expect_unreachable(frame.raw(), 1, "a frame is wiped");
        self.wiped += 1;
        self.wiped_frames.push(frame.raw());
        self.content.remove(&frame.raw());
    }

    fn clean(&mut self, frame: Pfn) {
        self.watch.cleaned(frame.raw(), &self.tables);
        self.expect_unreachable(frame.raw(), 1, "a frame is cleaned");
        self.cleaned += 1;
    }

    fn forget_instructions(&mut self) {
        self.instructions_forgotten += 1;
    }

    fn prepare_hyp(&mut self, _: FrameRange<Physical>) -> Result<(), OutOfMemory> {
        if self.hyp_is_full || is_scarce() {
            Err(OutOfMemory)
        } else {
            Ok(())
        }
    }

    fn map_hyp(&mut self, frame: Pfn, access: HypAccess) {
        if access == HypAccess::ReadWrite {
            self.expect_unreachable(frame.raw(), 1, "EL2 takes a frame");
        }
        assert!(
            self.hyp.insert(frame.raw(), access).is_none(),
            "EL2 maps {frame:?} twice"
        );
    }

    fn unmap_hyp(&mut self, frame: Pfn) {
        assert!(
            self.hyp.remove(&frame.raw()).is_some(),
            "EL2 does not map {frame:?}"
        );
    }

    fn read_pin_word(&self, frame: Pfn, index: usize) -> u32 {
        assert_eq!(
            self.hyp_access(frame.raw()),
            Some(HypAccess::ReadOnly),
            "a pin word is read that is not mapped"
        );
        self.pin_words
            .get(&(frame.raw(), index))
            .copied()
            .unwrap_or(0)
    }

    fn pool_insert(&mut self, frame: Pfn) {
        assert_eq!(
            self.hyp_access(frame.raw()),
            Some(HypAccess::ReadWrite),
            "the pool gets a frame that is not mapped"
        );
        self.donated.insert(frame.raw());
        self.content.insert(frame.raw(), USED);
        self.donated_free.push(frame.raw());
    }

    fn pool_remove(&mut self) -> Option<Pfn> {
        let frame = self.donated_free.pop()?;
        self.donated.remove(&frame);
        self.watch.written(frame, &self.tables);
        Pfn::new(frame)
    }

    fn pool_free(&self) -> u64 {
        u64::try_from(self.reserve.len() + self.donated_free.len()).unwrap()
    }
}

/// A range of frames, for tests.
#[must_use]
pub fn frames(first: u64, count: u64) -> FrameRange<Physical> {
    FrameRange::new(Pfn::new(first).unwrap(), count).unwrap()
}

std::thread_local! {
    /// How many more allocations succeed before one fails.
    static PLENTY: Cell<Option<u64>> = const { Cell::new(None) };
    /// Folio arrays that nobody uses any more.
    static SPARE_WORDS: RefCell<Vec<&'static mut [Folio]>> = const { RefCell::new(Vec::new()) };
}

/// Lets `plenty` allocations of this thread succeed, frames of the pool and objects on the heap alike, and the one after those fail.
pub fn fail_after(plenty: u64) {
    PLENTY.set(Some(plenty));
}

/// Lets all allocations succeed; says whether one was refused.
#[must_use]
pub fn fail_no_more() -> bool {
    PLENTY.take().is_none()
}

/// Whether this allocation is the one that fails.
pub(crate) fn is_scarce() -> bool {
    let plenty = PLENTY.get();
    PLENTY.set(plenty.and_then(|plenty| plenty.checked_sub(1)));
    plenty == Some(0)
}

/// A copy of a folio array, in memory that is used again.
pub(crate) fn words_like(words: &[Folio]) -> &'static mut [Folio] {
    let found = SPARE_WORDS.with_borrow_mut(|spare| {
        let place = spare.iter().position(|spare| spare.len() == words.len())?;
        Some(spare.swap_remove(place))
    });
    let copy = found.unwrap_or_else(|| std::vec![Folio::HOST; words.len()].leak());
    copy.copy_from_slice(words);
    copy
}

/// Takes a folio array that nobody uses any more.
pub(crate) fn keep_words(words: &'static mut [Folio]) {
    // A thread that ends has no use for it.
    SPARE_WORDS
        .try_with(|spare| spare.borrow_mut().push(words))
        .unwrap_or_default();
}

/// What a test machine has. RAM begins at [`RAM`].
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Frames of RAM.
    pub frames: u64,
    /// EL2's part of it: the first frame, and how many.
    pub el2: (u64, u64),
    /// How many of those are the first pool: the last ones.
    pub pool: u64,
    /// What the host may not reach although it is not RAM.
    pub hole: Option<u64>,
}

impl Plan {
    /// A machine with `frames` of RAM, in blocks of which one is EL2's.
    #[must_use]
    pub const fn of(frames: u64) -> Self {
        Self {
            frames,
            el2: (EL2, EL2_FRAMES),
            pool: POOL_FRAMES,
            hole: Some(HOLE),
        }
    }
}

/// A hypervisor on a fake machine with `count` frames of RAM from [`RAM`].
#[must_use]
pub fn boot(count: u64) -> Hypervisor<FakeMachine> {
    boot_on(Plan::of(count))
}

/// A hypervisor on this machine.
#[must_use]
pub fn boot_on(plan: Plan) -> Hypervisor<FakeMachine> {
    let (first, count) = plan.el2;
    let machine = FakeMachine::new(frames(first + count - plan.pool, plan.pool));
    let words = std::vec![Folio::HOST; usize::try_from(plan.frames).unwrap()];
    let holes: Vec<_> = plan.hole.map(|hole| frames(hole, 1)).into_iter().collect();
    let layout = Layout {
        ram: &[frames(RAM, plan.frames)],
        hyp: &[frames(first, count)],
        holes: &holes,
    };
    let mut hypervisor =
        Hypervisor::new(machine, Pfn::new(RAM).unwrap(), words.leak(), &layout).unwrap();
    let decoy = hypervisor.memory.decoy_page().raw();
    let root = hypervisor.memory.host().root().low.frame().raw();
    let machine = hypervisor.memory.machine_mut();
    machine.running = true;
    machine.decoy = decoy;
    machine.watch.started(root, &machine.tables);
    hypervisor
}

/// Makes a host call with these arguments, and returns x0 to x7.
pub fn call(hypervisor: &mut Hypervisor<FakeMachine>, call: pinfold_abi::HostCall) -> [u64; 8] {
    let mut registers = CallRegisters::default();
    for (register, value) in registers.x.iter_mut().zip(call.encode()) {
        *register = value;
    }
    drop(hypervisor.host_call(&mut registers, 0));
    let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = registers.x;
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// A guest frame number, for tests.
#[must_use]
pub fn gfn(raw: u64) -> Gfn {
    Gfn::new(raw).unwrap()
}
