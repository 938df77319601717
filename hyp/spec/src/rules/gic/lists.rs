//! The list registers: what a vCPU is entered with, and what it makes of that.
//!
//! At an entry they must hold what is pending or active for the vCPU ([`Gic::fill`]). When it stops they hold what it has taken and ended
//! ([`Spec::guest_left`]).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Gic, Interrupt, TIMER, low, name};
use crate::clause::{Clause, Violation};
use crate::spec::Spec;
use crate::vm::Vm;

/// A list register (IHI 0069, `ICH_LR<n>_EL2`).
const ACTIVE: u64 = 1 << 63;
const PENDING: u64 = 1 << 62;
const STATE: u64 = ACTIVE | PENDING;
const HARDWARE: u64 = 1 << 61;
const GROUP_1: u64 = 1 << 60;
const PHYSICAL: u64 = 0x3FF << 32;
const TELLS_END: u64 = 1 << 41;
/// `ICH_HCR_EL2` (IHI 0069, 12.4.5): on; tells when at most one list register is in use; tells when none is pending.
const ON: u64 = 1;
const TELLS_FEW: u64 = 1 << 1;
const TELLS_NONE_PENDING: u64 = 1 << 3;
/// `ICH_HCR_EL2.EOIcount`: how many interrupts the guest ended that were in no list register.
const ENDED: u64 = 0x1F << 27;

/// What the list registers of a vCPU hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Lists {
    by_intid: BTreeMap<u32, u64>,
    /// There was more than they can hold.
    overflow: bool,
    control: u64,
    timer_held: bool,
    /// How many interrupts the guest ended that were in none.
    ended: u64,
}

/// What a vCPU is entered with, or has when it stops.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The list registers in use.
    pub lists: &'a [u64],
    /// `ICH_HCR_EL2`.
    pub control: u64,
    /// EL2 keeps the physical interrupt of the virtual timer active.
    pub timer_held: bool,
}

/// Whether a CPU interface can make `now` of a list register that held `before`: what is pending may be taken, what is active ended.
const fn is_reached(before: u64, now: u64) -> bool {
    let can_be_active = before & STATE != 0;
    let is_taken_once = now & STATE != STATE || before & STATE == STATE;
    let is_sound = now & PENDING <= before & PENDING && (now & ACTIVE == 0 || can_be_active);
    is_sound && is_taken_once && before & !STATE == now & !STATE
}

impl Gic {
    /// Fills the list registers of a vCPU: active interrupts first, then by priority, then by number.
    pub(super) fn fill(&mut self, vcpu: u64, room: usize) {
        let mut mine: Vec<_> = self
            .known
            .iter()
            .filter(|(name, interrupt)| {
                Self::owner(**name, **interrupt) == vcpu
                    && (interrupt.active || self.is_deliverable(**interrupt))
            })
            .map(|(name, interrupt)| (!interrupt.active, interrupt.priority, name.1))
            .collect();
        mine.sort_unstable();
        let overflow = mine.len() > room;
        mine.truncate(room);
        let line = self.interrupt((Some(vcpu), TIMER)).line;
        let mut lists = Lists {
            overflow,
            timer_held: line || mine.iter().any(|(_, _, intid)| *intid == TIMER),
            ..Lists::default()
        };
        for (_, _, intid) in mine {
            let value = self.list(vcpu, intid);
            lists.by_intid.insert(intid, value);
        }
        let is_pending = lists.by_intid.values().any(|value| value & PENDING != 0);
        lists.control = ON
            | match (overflow, room) {
                (true, 2..) => TELLS_FEW,
                (true, _) if is_pending => TELLS_NONE_PENDING,
                (true | false, _) => 0,
            };
        self.lists.insert(vcpu, lists);
    }

    /// The list register of an interrupt, which is the vCPU's from now on. An edge is in the list register and nowhere else.
    fn list(&mut self, vcpu: u64, intid: u32) -> u64 {
        let name = name(vcpu, intid);
        let interrupt = self.interrupt(name);
        let is_timer = intid == TIMER;
        // The hardware's own interrupt is pending or active, never both.
        let is_pending = self.is_deliverable(interrupt) && !(is_timer && interrupt.active);
        self.change(name, |interrupt| {
            interrupt.taken_by = Some(vcpu);
            interrupt.latched &= !(is_pending && interrupt.edge);
        });
        let mut value = u64::from(intid) | GROUP_1 | u64::from(interrupt.priority) << 48;
        if is_pending {
            value |= PENDING;
        }
        if interrupt.active {
            value |= ACTIVE;
        }
        if is_timer {
            value |= HARDWARE | u64::from(TIMER) << 32;
        } else if is_pending && !interrupt.edge {
            value |= TELLS_END;
        }
        value
    }

    /// Takes back what a vCPU has done to its list registers.
    pub(super) fn drain(&mut self, vcpu: u64) {
        let Some(lists) = self.lists.remove(&vcpu) else {
            return;
        };
        for (intid, value) in lists.by_intid {
            let (is_pending, is_active) = (value & PENDING != 0, value & ACTIVE != 0);
            self.change(name(vcpu, intid), |interrupt| {
                interrupt.active = is_active;
                interrupt.taken_by = is_active.then_some(vcpu);
                interrupt.returned = is_pending;
                if is_pending {
                    interrupt.latched |= interrupt.edge;
                } else if !interrupt.edge {
                    interrupt.latched = false;
                    interrupt.line &= intid != TIMER;
                }
            });
        }
        for _ in 0..lists.ended {
            let active = self.known.iter().filter(|(name, interrupt)| {
                interrupt.active && Self::owner(**name, **interrupt) == vcpu
            });
            let most_urgent = active.min_by_key(|(name, interrupt)| (interrupt.priority, name.1));
            if let Some(name) = most_urgent.map(|(name, _)| *name) {
                self.change(name, |interrupt| {
                    interrupt.active = false;
                    interrupt.taken_by = None;
                });
            }
        }
    }
}

impl Spec {
    /// What the list registers of a vCPU hold when it stops.
    pub fn guest_left(&mut self, vm: u64, vcpu: u64, seen: Entry<'_>) {
        let holds = |vm: &Vm| vm.interrupts.lists.contains_key(&vcpu);
        let vm = self.state.vms.get_mut(&vm);
        let Some(vm) = vm.filter(|vm| holds(vm)) else {
            return;
        };
        let Some(lists) = Arc::make_mut(&mut vm.interrupts).lists.get_mut(&vcpu) else {
            return;
        };
        for now in seen.lists {
            if let Some(value) = lists.by_intid.get_mut(&low(*now))
                && is_reached(*value, *now)
            {
                *value = *now;
            }
        }
        lists.ended = (seen.control & ENDED) >> ENDED.trailing_zeros();
    }

    /// A vCPU that is about to be entered for the first time of a run gets its interrupts, at this value of `CNTVCT_EL0`.
    pub fn guest_prepared(&mut self, vm: u64, vcpu: u64, now: u64) {
        let Some(room) = self.state.room() else {
            return;
        };
        let deadline = self.state.vcpu_of(vm, vcpu);
        let deadline = deadline.and_then(|vcpu| vcpu.deadline());
        let is_due = deadline.is_some_and(|deadline| deadline != u64::MAX && deadline <= now);
        if let Some(vm) = self.state.vms.get_mut(&vm) {
            let gic = Arc::make_mut(&mut vm.interrupts);
            gic.change((Some(vcpu), TIMER), |timer| timer.line = is_due);
            gic.fill(vcpu, room);
        }
    }

    /// Judges what a vCPU is entered with.
    pub fn guest_enters(&mut self, vm: u64, vcpu: u64, entry: Entry<'_>) -> Result<(), Violation> {
        let gic = self.state.vms.get(&vm).map(|vm| Arc::clone(&vm.interrupts));
        let Some((gic, lists)) = gic
            .as_ref()
            .and_then(|gic| Some((gic, gic.lists.get(&vcpu)?)))
        else {
            return Ok(());
        };
        let seen: BTreeMap<_, _> = entry.lists.iter().map(|list| (low(*list), *list)).collect();
        let intids: BTreeSet<u32> = lists.by_intid.keys().chain(seen.keys()).copied().collect();
        for intid in intids {
            let (right, found) = (lists.by_intid.get(&intid), seen.get(&intid));
            let interrupt = gic.interrupt(name(vcpu, intid));
            for (clause, mask) in clauses(lists, intid, interrupt, right) {
                self.exercised.note(clause, self.last.what);
                let part = |value: Option<&u64>| value.copied().unwrap_or(0) & mask;
                if part(right) != part(found) {
                    let what =
                        format!("INTID {intid} is {found:x?} in a list register, not {right:x?}");
                    return Err(Violation::new(clause, what));
                }
            }
        }
        self.exercised.note(Clause::ListsTell, self.last.what);
        self.exercised.note(Clause::TimerHeld, self.last.what);
        let control = entry.control & !ENDED;
        if control != lists.control {
            let what = format!("ICH_HCR is {control:#x}, not {:#x}", lists.control);
            return Err(Violation::new(Clause::ListsTell, what));
        }
        if entry.timer_held != lists.timer_held {
            let what = String::from("the physical interrupt of the timer");
            return Err(Violation::new(Clause::TimerHeld, what));
        }
        Ok(())
    }
}

/// The clauses that say what a list register holds, and the bits that each says.
fn clauses(
    lists: &Lists,
    intid: u32,
    interrupt: Interrupt,
    right: Option<&u64>,
) -> Vec<(Clause, u64)> {
    let presence = match right {
        _ if intid == TIMER => Clause::TimerDue,
        _ if lists.overflow => Clause::ListsChoose,
        Some(value) if value & ACTIVE != 0 => Clause::ListsActive,
        Some(_) if interrupt.returned => Clause::EdgeStays,
        _ => Clause::ListsHold,
    };
    let source = if intid == TIMER {
        (Clause::ListsTimer, HARDWARE | PHYSICAL)
    } else {
        (Clause::ListsEnd, HARDWARE | PHYSICAL)
    };
    let rest = !(STATE | HARDWARE | PHYSICAL);
    Vec::from([(presence, STATE), source, (Clause::ListsName, rest)])
}
