//! The checker of the page-table protocol on the machine of the tests: [`Watch`] tells it, in primitive steps, what EL2 would do.
//!
//! CPU 0 does everything, and holds the one lock of memory. CPU 1 runs each guest as soon as walkers may see its root, and stops
//! again: whatever was there is in its TLB. A violation panics with `protocol: ` in front.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::Vec;

use pinfold_protocol::{Checker, Dsb, Event, Lock, Memory, Regime, Tlbi, Violation};

use super::{RootTables, Scope, TABLE_ENTRIES, Vmid};

/// Frames that are tables, by number.
pub(super) type Frames = BTreeMap<u64, Arc<[u64; TABLE_ENTRIES]>>;

/// The lock of everything.
const MEMORY: Lock = Lock(0);
/// A frame of zeroes, for a VMID that is only named.
const EMPTY: u64 = 1;
/// Who holds the lock, and who runs guests.
const KEEPER: usize = 0;
const RUNNER: usize = 1;
/// Above this many frames EL2 invalidates a whole VMID.
const MOST_BY_ADDRESS: u64 = 512;

struct Tables<'a>(&'a Frames);

impl Memory for Tables<'_> {
    fn read(&self, frame: u64, index: u16) -> u64 {
        let Self(tables) = self;
        tables
            .get(&frame)
            .map_or(0, |entries| entries[usize::from(index)])
    }
}

/// What the machine tells the checker.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Copied only when something is seen: a search copies machines all the time.
    checker: Arc<Checker<256, 512>>,
    /// Roots that no CPU has had yet, as they stand in `VTTBR_EL2`.
    waiting: Vec<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        let mut watch = Self {
            checker: Arc::new(Checker::new()),
            waiting: Vec::new(),
        };
        let none = Frames::new();
        for cpu in [KEEPER, RUNNER] {
            watch.see(cpu, Event::Start(0), &none);
        }
        watch.see(KEEPER, Event::Empty(EMPTY), &none);
        watch.see(KEEPER, Event::Lock(MEMORY), &none);
        watch
    }
}

fn judged(verdict: Result<(), Violation>) {
    if let Err(violation) = verdict {
        panic!("protocol: {violation}");
    }
}

fn vttbr(vmid: Vmid, root: u64) -> u64 {
    u64::from(vmid.0) << 48 | root << 12
}

impl Watch {
    fn see(&mut self, cpu: usize, event: Event, tables: &Frames) {
        judged(Arc::make_mut(&mut self.checker).observe(cpu, event, &Tables(tables)));
    }

    fn keeper(&mut self, event: Event, tables: &Frames) {
        self.see(KEEPER, event, tables);
    }

    fn select(&mut self, cpu: usize, vttbr: u64, tables: &Frames) {
        self.see(cpu, Event::Vttbr(vttbr), tables);
        self.see(cpu, Event::Isb, tables);
    }

    /// A frame of zeroes has become a table.
    pub(super) fn allocated(&mut self, frame: u64, tables: &Frames) {
        self.keeper(Event::Allocate(frame), tables);
        self.keeper(Event::Zero(frame), tables);
    }

    /// A root has got its name.
    pub(super) fn named(&mut self, root: RootTables, vmid: Vmid, tables: &Frames) {
        let first = root.low.frame().raw();
        let event = Event::Root {
            regime: Regime::Stage2(vmid.0),
            first,
            frames: 2,
            lock: Some(MEMORY),
        };
        self.keeper(event, tables);
        if vmid != Vmid::HOST {
            self.waiting.push(vttbr(vmid, first));
        }
    }

    /// The host runs from here on.
    pub(super) fn started(&mut self, root: u64, tables: &Frames) {
        for cpu in [KEEPER, RUNNER] {
            self.select(cpu, vttbr(Vmid::HOST, root), tables);
        }
    }

    /// A table is about to go.
    pub(super) fn freed(&mut self, frame: u64, tables: &Frames) {
        self.waiting.retain(|vttbr| vttbr << 16 >> 28 != frame);
        self.keeper(Event::Free(frame), tables);
    }

    /// A descriptor is about to be stored.
    pub(super) fn stores(&mut self, table: u64, index: u16, value: u64, tables: &Frames) {
        let event = Event::Store {
            table,
            index,
            value,
        };
        self.keeper(event, tables);
    }

    /// DSB ISHST, ISB.
    pub(super) fn published(&mut self, tables: &Frames) {
        self.keeper(Event::Dsb(Dsb::InnerStores), tables);
        self.keeper(Event::Isb, tables);
        for vttbr in std::mem::take(&mut self.waiting) {
            self.select(RUNNER, vttbr, tables);
            self.select(RUNNER, EMPTY << 12, tables);
        }
    }

    /// The sequences of `tlb.rs` at EL2.
    pub(super) fn invalidated(&mut self, scope: Scope, tables: &Frames) {
        self.published(tables);
        let (Scope::Range(vmid, _) | Scope::All(vmid)) = scope;
        self.select(KEEPER, vttbr(vmid, EMPTY), tables);
        match scope {
            Scope::Range(_, frames) if frames.count() <= MOST_BY_ADDRESS => {
                for frame in frames.frames() {
                    self.keeper(Event::Tlbi(Tlbi::Ipa(frame.raw())), tables);
                }
                self.keeper(Event::Dsb(Dsb::Inner), tables);
                self.keeper(Event::Tlbi(Tlbi::Combined), tables);
            }
            Scope::Range(..) | Scope::All(_) => self.keeper(Event::Tlbi(Tlbi::Vmid), tables),
        }
        self.keeper(Event::Dsb(Dsb::Inner), tables);
        self.select(KEEPER, EMPTY << 12, tables);
    }

    /// EL2 has written a frame.
    pub(super) fn written(&mut self, frame: u64, tables: &Frames) {
        self.keeper(Event::Write(frame), tables);
    }

    /// EL2 has cleaned a frame.
    pub(super) fn cleaned(&mut self, frame: u64, tables: &Frames) {
        self.keeper(Event::Clean(frame), tables);
    }

    /// Nothing is under way: EL2 could release the lock.
    pub(super) fn is_settled(&self) {
        judged(self.checker.settled(KEEPER, MEMORY));
    }
}
