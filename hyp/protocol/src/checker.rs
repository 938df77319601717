//! The checker: [`Checker`] hears of each step and finds the rule that it breaks.
//!
//! This file has what is not about tables: barriers, invalidations, registers, locks, and frames that EL2 writes for others.
//! `rules.rs` has the tables. A checker that has reported a violation may be wrong about what follows: it is asked no more.

use crate::broken::{Broken, NoRoom, Run};
use crate::descriptor::frame_of;
use crate::dirty::Dirty;
use crate::event::{Dsb, Event, Lock, Regime, Tlbi};
use crate::tables::{Order, Role, Tables};
use crate::violation::{Entry, Missing, Rule, Violation};
use crate::{CPUS, Memory};

/// VMIDs from 0 that there may be.
const VMIDS: usize = 80;
/// Locks that there may be.
const LOCKS: usize = 4;
/// Where VTTBR_EL2 holds the VMID, and TTBR0_EL2 an ASID.
const NAME_SHIFT: u32 = 48;

/// Whether a TLB may hold anything of a VMID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cached {
    /// It may.
    Perhaps,
    /// This CPU has invalidated everything, and had no DSB since.
    Invalidated(usize),
    /// It does not.
    Nothing,
}

/// A regime that has a root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    pub(crate) root: u64,
    /// Frames of the root that are not freed.
    pub(crate) frames: u64,
    pub(crate) lock: Option<Lock>,
    pub(crate) cached: Cached,
    /// A CPU has had it in VTTBR_EL2.
    pub(crate) used: bool,
}

/// What is known of a CPU.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    vttbr: u64,
    /// VTTBR_EL2 was written, and no ISB came yet.
    pending: bool,
}

/// Up to `TABLES` tables, and `RUNS` runs of entries that are broken at a time.
#[derive(Clone)]
pub struct Checker<const TABLES: usize, const RUNS: usize> {
    pub(crate) tables: Tables<TABLES>,
    pub(crate) broken: Broken<RUNS>,
    pub(crate) dirty: Dirty,
    own: Option<Translation>,
    vmids: [Option<Translation>; VMIDS],
    locks: [Option<usize>; LOCKS],
    cpus: [Cpu; CPUS],
    empty: Option<u64>,
}

impl<const TABLES: usize, const RUNS: usize> core::fmt::Debug for Checker<TABLES, RUNS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let tables = self.tables.all().len();
        f.debug_struct("Checker")
            .field("tables", &tables)
            .finish_non_exhaustive()
    }
}

impl<const TABLES: usize, const RUNS: usize> Default for Checker<TABLES, RUNS> {
    fn default() -> Self {
        Self::new()
    }
}

/// A breach without more to say of it.
pub(crate) const fn breach(rule: Rule, cpu: usize) -> Violation {
    Violation {
        rule,
        cpu,
        entry: None,
        frame: None,
        missing: None,
    }
}

/// A breach that is about a frame.
pub(crate) const fn breach_of_frame(rule: Rule, cpu: usize, frame: u64) -> Violation {
    Violation {
        frame: Some(frame),
        ..breach(rule, cpu)
    }
}

/// A breach that is about an entry.
pub(crate) const fn breach_of_entry(rule: Rule, cpu: usize, entry: Entry) -> Violation {
    Violation {
        entry: Some(entry),
        ..breach(rule, cpu)
    }
}

/// A breach because of an entry that is not gone.
pub(crate) fn breach_of_run(rule: Rule, cpu: usize, run: &Run) -> Violation {
    Violation {
        missing: Some(run.missing()),
        ..breach_of_entry(rule, cpu, run.entry())
    }
}

/// The outcome of a step.
pub(crate) type Step = Result<(), Violation>;

pub(crate) fn expect(is_so: bool, otherwise: Violation) -> Step {
    if is_so { Ok(()) } else { Err(otherwise) }
}

impl<const TABLES: usize, const RUNS: usize> Checker<TABLES, RUNS> {
    /// Knows of no table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tables: Tables::new(),
            broken: Broken::new(),
            dirty: Dirty::new(),
            own: None,
            vmids: [None; VMIDS],
            locks: [None; LOCKS],
            cpus: [Cpu {
                vttbr: 0,
                pending: false,
            }; CPUS],
            empty: None,
        }
    }

    /// Hears of a step of `cpu`. A store is reported before it is done, anything else when it is done, or is about to be.
    pub fn observe(&mut self, cpu: usize, event: Event, memory: &impl Memory) -> Step {
        match event {
            Event::Start(vttbr) => self.start(cpu, vttbr),
            Event::Adopt { root, lock } => self.adopt(cpu, root, lock, memory),
            Event::Private(table) => self.make_private(cpu, table),
            Event::Empty(frame) => {
                self.empty = Some(frame);
                Ok(())
            }
            Event::Allocate(frame) => self.allocate(cpu, frame),
            Event::Zero(frame) => self.zero(cpu, frame, memory),
            Event::Root {
                regime,
                first,
                frames,
                lock,
            } => self.root(cpu, regime, (first, frames), lock, memory),
            Event::Free(frame) => self.free(cpu, frame, memory),
            Event::Store {
                table,
                index,
                value,
            } => self.store(cpu, table, index, value, memory),
            Event::Dsb(dsb) => {
                self.dsb(cpu, dsb);
                Ok(())
            }
            Event::Isb => {
                self.cpu(cpu)?.pending = false;
                Ok(())
            }
            Event::Tlbi(tlbi) => self.tlbi(cpu, tlbi),
            Event::Vttbr(value) => self.vttbr(cpu, value, memory),
            Event::Ttbr(value) => self.ttbr(cpu, value),
            Event::Write(frame) => self.write(cpu, frame),
            Event::Clean(frame) => {
                self.clean(frame);
                Ok(())
            }
            Event::Lock(lock) => self.lock(cpu, lock),
            Event::Unlock(lock) => self.unlock(cpu, lock),
        }
    }

    /// Whether `cpu` could release `lock` now: nothing that it guards is under way.
    pub fn settled(&self, cpu: usize, lock: Lock) -> Step {
        let is_guarded = |regime| {
            self.translation(regime)
                .is_some_and(|translation| translation.lock == Some(lock))
        };
        if let Some(run) = self.broken.shared_of(is_guarded) {
            return Err(breach_of_run(Rule::LeftUnclean, cpu, &run));
        }
        for table in self.tables.all() {
            match table.role {
                Role::Linked(place) | Role::Root(place) if is_guarded(place.regime) => {
                    let is_seen = table.order == Order::Ordered || table.private;
                    let is_used =
                        matches!(table.role, Role::Linked(_)) || self.is_used(place.regime);
                    let rule = Rule::LeftUnpublished;
                    expect(is_seen || !is_used, breach_of_frame(rule, cpu, table.frame))?;
                }
                // What hung on a root that maps nothing any more was severed from it, and is not used again.
                Role::Unlinked(regime) if is_guarded(regime) && self.maps_something(regime) => {
                    return Err(breach_of_frame(Rule::Leaked, cpu, table.frame));
                }
                Role::Fresh | Role::Linked(_) | Role::Root(_) | Role::Unlinked(_) => {}
            }
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: usize) -> Result<&mut Cpu, Violation> {
        self.cpus.get_mut(cpu).ok_or(breach(Rule::Full, cpu))
    }

    pub(crate) fn translation(&self, regime: Regime) -> Option<&Translation> {
        match regime {
            Regime::Own => self.own.as_ref(),
            Regime::Stage2(vmid) => self.vmids.get(usize::from(vmid))?.as_ref(),
        }
    }

    /// The place of a regime, if there may be one.
    pub(crate) fn translation_mut(&mut self, regime: Regime) -> Option<&mut Option<Translation>> {
        match regime {
            Regime::Own => Some(&mut self.own),
            Regime::Stage2(vmid) => self.vmids.get_mut(usize::from(vmid)),
        }
    }

    pub(crate) fn is_used(&self, regime: Regime) -> bool {
        regime == Regime::Own || self.translation(regime).is_some_and(|known| known.used)
    }

    fn maps_something(&self, regime: Regime) -> bool {
        let known = self.translation(regime);
        known.is_some_and(|known| {
            self.tables
                .within(known.root, known.frames)
                .any(|table| table.valid != 0)
        })
    }

    /// Whether the root that begins at `root` stands in a CPU's VTTBR_EL2.
    pub(crate) fn is_selected(&self, root: u64) -> bool {
        self.cpus.iter().any(|cpu| frame_of(cpu.vttbr) == root)
    }

    pub(crate) fn holds(&self, cpu: usize, lock: Lock) -> bool {
        self.locks.get(usize::from(lock.0)) == Some(&Some(cpu))
    }

    fn start(&mut self, cpu: usize, vttbr: u64) -> Step {
        *self.cpu(cpu)? = Cpu {
            vttbr,
            pending: false,
        };
        Ok(())
    }

    fn dsb(&mut self, cpu: usize, dsb: Dsb) {
        self.broken.dsb(cpu, dsb);
        let holds_one = self.locks.contains(&Some(cpu));
        let is_wide = dsb != Dsb::Local;
        for table in self.tables.all_mut() {
            let orders = match table.order {
                Order::Ordered => false,
                Order::By(writer) => writer == cpu && (is_wide || table.private),
                Order::Passed => holds_one && is_wide,
            };
            if orders {
                table.order = Order::Ordered;
            }
        }
        let waits = dsb == Dsb::Inner || dsb == Dsb::System;
        for known in self.vmids.iter_mut().flatten() {
            if waits && known.cached == Cached::Invalidated(cpu) {
                known.cached = Cached::Nothing;
            }
        }
    }

    fn tlbi(&mut self, cpu: usize, tlbi: Tlbi) -> Step {
        let state = *self.cpu(cpu)?;
        let (by_vmid, everything) = match tlbi {
            Tlbi::Ipa(_) | Tlbi::Combined | Tlbi::CombinedLocal => (true, false),
            Tlbi::Vmid => (true, true),
            Tlbi::El1 => (false, true),
            Tlbi::El1Local | Tlbi::Own(_) | Tlbi::OwnLocal(_) => (false, false),
        };
        expect(!(by_vmid && state.pending), breach(Rule::NoIsb, cpu))?;
        let vmid = vmid_of(state.vttbr);
        self.broken
            .tlbi(cpu, tlbi, vmid)
            .map_err(|NoRoom| breach(Rule::Full, cpu))?;
        for (number, known) in (0..).zip(&mut self.vmids) {
            if let Some(known) = known
                && everything
                && (!by_vmid || number == vmid)
            {
                known.cached = Cached::Invalidated(cpu);
            }
        }
        Ok(())
    }

    fn vttbr(&mut self, cpu: usize, value: u64, memory: &impl Memory) -> Step {
        let (vmid, root) = (vmid_of(value), frame_of(value));
        *self.cpu(cpu)? = Cpu {
            vttbr: value,
            pending: true,
        };
        if self.empty == Some(root) {
            return Ok(());
        }
        let regime = Regime::Stage2(vmid);
        let own = self.translation(regime).is_some_and(|own| own.root == root);
        if !own {
            let is_root = self.vmids.iter().flatten().any(|known| known.root == root);
            let rule = if is_root {
                Rule::WrongVmid
            } else {
                Rule::NoTable
            };
            return Err(breach_of_frame(rule, cpu, root));
        }
        let was_used = self.is_used(regime);
        if let Some(Some(known)) = self.translation_mut(regime) {
            known.cached = Cached::Perhaps;
            known.used = true;
        }
        if was_used {
            Ok(())
        } else {
            self.begin_use(cpu, regime, memory)
        }
    }

    fn ttbr(&self, cpu: usize, value: u64) -> Step {
        expect(value >> NAME_SHIFT == 0, breach(Rule::Asid, cpu))?;
        let root = frame_of(value);
        let is_own = self.own.is_some_and(|own| own.root == root);
        expect(is_own, breach_of_frame(Rule::NoTable, cpu, root))
    }

    fn write(&mut self, cpu: usize, frame: u64) -> Step {
        if let Some(run) = self.broken.reaching(frame, 1) {
            let breach = breach_of_run(Rule::ReusedTooSoon, cpu, &run);
            return Err(Violation {
                frame: Some(frame),
                ..breach
            });
        }
        let has_room = match self.tables.find_mut(frame) {
            Some(table) if table.role == Role::Fresh => {
                table.dirty = true;
                true
            }
            Some(_) => return Err(breach_of_frame(Rule::TableWritten, cpu, frame)),
            None => self.dirty.add(frame),
        };
        expect(has_room, breach(Rule::Full, cpu))
    }

    fn clean(&mut self, frame: u64) {
        self.dirty.remove(frame);
        if let Some(table) = self.tables.find_mut(frame) {
            table.dirty = false;
        }
    }

    fn lock(&mut self, cpu: usize, lock: Lock) -> Step {
        let place = self.locks.get_mut(usize::from(lock.0));
        let place = place.ok_or(breach(Rule::Full, cpu))?;
        expect(place.is_none(), breach(Rule::LockHeld, cpu))?;
        *place = Some(cpu);
        Ok(())
    }

    fn unlock(&mut self, cpu: usize, lock: Lock) -> Step {
        expect(self.holds(cpu, lock), breach(Rule::LockNotHeld, cpu))?;
        self.settled(cpu, lock)?;
        if let Some(place) = self.locks.get_mut(usize::from(lock.0)) {
            *place = None;
        }
        for table in self.tables.all_mut() {
            if table.order == Order::By(cpu) && !table.private {
                table.order = Order::Passed;
            }
        }
        Ok(())
    }

    /// What removing a VMID from all TLBs lacks, if anything.
    pub(crate) fn missing_of(known: &Translation) -> Option<Missing> {
        match known.cached {
            Cached::Perhaps => Some(Missing::Tlbi),
            Cached::Invalidated(_) => Some(Missing::DsbAfterTlbi),
            Cached::Nothing => None,
        }
    }
}

fn vmid_of(vttbr: u64) -> u16 {
    let [.., low, high] = vttbr.to_le_bytes();
    u16::from_le_bytes([low, high])
}
