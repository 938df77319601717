//! The list registers: how pending and active interrupts reach a vCPU, and how they come back.
//!
//! An interrupt is in at most one list register of the machine. Edges move (the latch is cleared when the register
//! takes it and set again if it comes back unseen); levels are copied. IHI 0069 12.4 (`ICH_LR<n>_EL2`, `ICH_HCR_EL2`).

use super::bank::{Bank, NOBODY, bits};
use super::{ROOM_SPIS, SHARED_BANKS, Vgic};
use crate::exit::VIRTUAL_TIMER_INTID;

/// The most list registers that a processor can have.
pub const MAX_LISTS: usize = 16;

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HARDWARE: u64 = 1 << 61;
const GROUP_1: u64 = 1 << 60;
/// Ask for a maintenance interrupt when the guest finishes this one.
const END_OF_INTERRUPT: u64 = 1 << 41;
/// `ICH_HCR_EL2.En`.
const ENABLE: u64 = 1;
/// `ICH_HCR_EL2.UIE`: maintenance interrupt when at most one list register is in use.
const UNDERFLOW: u64 = 1 << 1;
/// `ICH_HCR_EL2.NPIE`: maintenance interrupt when no list register is pending.
const NO_PENDING: u64 = 1 << 3;

/// The list registers of one vCPU, and the control register that goes with them.
#[derive(Clone, Debug, Default)]
pub struct ListRegisters {
    /// `ICH_LR<n>_EL2`; those from `used` on are zero.
    pub values: [u64; MAX_LISTS],
    /// How many are in use.
    pub used: usize,
    /// `ICH_HCR_EL2`, with the count of ended interrupts that had no list register when it comes back.
    pub control: u64,
    /// The virtual timer's interrupt is pending or active for the guest, so the physical one must be active.
    pub timer_held: bool,
}

/// A candidate for a list register: active ones first, then by priority, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    idle: bool,
    priority: u8,
    intid: u32,
}

/// Candidates in order, no more than there is room for.
struct Best {
    entries: [Option<Candidate>; MAX_LISTS],
    room: usize,
    overflow: bool,
}

impl Best {
    fn offer(&mut self, mut candidate: Candidate) {
        for entry in self.entries.iter_mut().take(self.room) {
            match entry {
                None => {
                    *entry = Some(candidate);
                    return;
                }
                Some(other) if candidate < *other => core::mem::swap(other, &mut candidate),
                Some(_) => {}
            }
        }
        self.overflow = true;
    }
}

impl Vgic {
    /// Gives vCPU `vcpu` its interrupts, in `room` list registers. What it held before must be drained.
    pub fn fill(&mut self, vcpu: u8, lists: &mut ListRegisters, room: usize) {
        let mut best = Best {
            entries: [None; MAX_LISTS],
            room: room.min(MAX_LISTS),
            overflow: false,
        };
        if let Some(bank) = self.private.get(usize::from(vcpu)) {
            offer(bank, self.forwards, 0, &mut best, |_| true);
        }
        for (bank, base) in self.shared.iter().zip((32_u32..).step_by(32)) {
            offer(bank, self.forwards, base, &mut best, |bit| {
                self.may_hold(bank, bit, vcpu)
            });
        }
        let mut used = 0;
        lists.timer_held = self.timer_is_high(vcpu);
        for (value, entry) in lists.values.iter_mut().zip(best.entries) {
            let Some(candidate) = entry else { break };
            *value = self.list(vcpu, candidate);
            lists.timer_held |= candidate.intid == VIRTUAL_TIMER_INTID;
            used += 1;
        }
        for value in lists.values.iter_mut().skip(used) {
            *value = 0;
        }
        if mutant!(TimerUnheld) {
            lists.timer_held = false;
        }
        lists.used = used;
        let pending = lists.values.iter().any(|value| value & PENDING != 0);
        lists.control = ENABLE
            | match (best.overflow, used) {
                // One list register alone is underflow at once, and would interrupt without end.
                (true, 0 | 1) if pending => NO_PENDING,
                (false, _) | (true, 0 | 1) => 0,
                // Not LRENPIE: QEMU before 10.2 raises it without an end of interrupt, for ever; the count is drained at
                // each exit.
                (true, _) => seeded!(TellsNothing, 0, UNDERFLOW),
            };
    }

    /// Takes back what vCPU `vcpu` has in its list registers.
    pub fn drain(&mut self, vcpu: u8, lists: &mut ListRegisters) {
        for value in lists.values.iter_mut().take(lists.used) {
            self.unlist(vcpu, core::mem::take(value));
        }
        lists.used = 0;
        // IHI 0069 12.4.5: EOIcount.
        let ended = seeded!(EndsUncounted, 0, lists.control >> 27 & 0x1f);
        for _ in 0..ended {
            self.end_unlisted(vcpu);
        }
        lists.control &= !(0x1f << 27);
    }

    /// Moves one interrupt to the value of a list register.
    fn list(&mut self, vcpu: u8, candidate: Candidate) -> u64 {
        let forwards = self.forwards;
        let Some((bank, number, bit)) = self.bank_of(vcpu, candidate.intid) else {
            return 0;
        };
        let active = bank.active & bit != 0;
        let level = bank.level & bit != 0;
        let hardware = candidate.intid == VIRTUAL_TIMER_INTID;
        // Pending and active at once is for software only (IHI 0069 12.4.9).
        let pending = forwards && bank.deliverable() & bit != 0 && !(hardware && active);
        if pending && !level {
            bank.latch &= !bit;
        }
        if let Some(holder) = bank.holder.get_mut(number) {
            *holder = vcpu;
        }
        let priority = u64::from(seeded!(ListsFlat, 0, candidate.priority));
        let mut value = GROUP_1 | priority << 48 | u64::from(candidate.intid);
        if pending {
            value |= PENDING;
        }
        if active {
            value |= ACTIVE;
        }
        if hardware && !mutant!(TimerIsSoftware) {
            value |= HARDWARE | u64::from(candidate.intid) << 32;
        } else if level && pending && !mutant!(EndsUntold) {
            value |= END_OF_INTERRUPT;
        }
        value
    }

    fn unlist(&mut self, vcpu: u8, value: u64) {
        let [a, b, c, d, ..] = value.to_le_bytes();
        let intid = u32::from_le_bytes([a, b, c, d]);
        let Some((bank, number, bit)) = self.bank_of(vcpu, intid) else {
            return;
        };
        let level = bank.level & bit != 0;
        if value & PENDING != 0 {
            if !level && !mutant!(LosesEdges) {
                bank.latch |= bit;
            }
        } else if level {
            bank.latch &= !bit;
            if intid == VIRTUAL_TIMER_INTID {
                // The hardware raises it again after the guest has finished it, if it is still due.
                bank.lower(bit);
            }
        }
        let active = value & ACTIVE != 0 && !mutant!(ForgetsActive);
        bank.active = bank.active & !bit | if active { bit } else { 0 };
        if let Some(holder) = bank.holder.get_mut(number) {
            *holder = if active { vcpu } else { NOBODY };
        }
    }

    /// The guest ended an interrupt that had no list register: the most urgent active one.
    fn end_unlisted(&mut self, vcpu: u8) {
        let mut best = Best {
            entries: [None; MAX_LISTS],
            room: 1,
            overflow: false,
        };
        if let Some(bank) = self.private.get(usize::from(vcpu)) {
            offer(bank, false, 0, &mut best, |_| true);
        }
        for (bank, base) in self.shared.iter().zip((32_u32..).step_by(32)) {
            offer(bank, false, base, &mut best, |bit| {
                self.may_hold(bank, bit, vcpu)
            });
        }
        let [Some(candidate), ..] = best.entries else {
            return;
        };
        if let Some((bank, number, bit)) = self.bank_of(vcpu, candidate.intid) {
            bank.active &= !bit;
            if let Some(holder) = bank.holder.get_mut(number) {
                *holder = NOBODY;
            }
        }
    }

    /// The shared interrupt `bit` of `bank` goes to `vcpu`, or is there already.
    fn may_hold(&self, bank: &Bank, bit: u32, vcpu: u8) -> bool {
        let Ok(number) = usize::try_from(bit) else {
            return false;
        };
        match bank.holder.get(number) {
            Some(&NOBODY) => bank
                .router
                .get(number)
                .is_some_and(|router| self.target(*router) == Some(vcpu)),
            Some(&holder) => holder == vcpu,
            None => false,
        }
    }

    /// Bank, number in the bank and bit of an interrupt as `vcpu` sees it.
    fn bank_of(&mut self, vcpu: u8, intid: u32) -> Option<(&mut Bank, usize, u32)> {
        const { assert!(SHARED_BANKS * 32 == ROOM_SPIS) };
        let bank = match usize::try_from(intid / 32).ok()? {
            0 => self.private.get_mut(usize::from(vcpu))?,
            shared => self.shared.get_mut(shared - 1)?,
        };
        Some((bank, usize::try_from(intid % 32).ok()?, 1 << (intid % 32)))
    }
}

/// Offers the active interrupts of `bank`, and the deliverable ones if it `forwards` them.
fn offer(bank: &Bank, forwards: bool, base: u32, best: &mut Best, mine: impl Fn(u32) -> bool) {
    let deliverable = if forwards { bank.deliverable() } else { 0 };
    for bit in bits(deliverable | bank.active) {
        let priority = usize::try_from(bit)
            .ok()
            .and_then(|number| bank.priority.get(number));
        if let Some(&priority) = priority.filter(|_| mine(bit)) {
            best.offer(Candidate {
                idle: bank.active >> bit & 1 == 0 && !mutant!(ChoosesUrgent),
                priority,
                intid: base + bit,
            });
        }
    }
}
