//! The guest's interrupt controller: a GICv3 distributor, redistributors and the road to the list registers.
//!
//! [`Vgic`] is a register file with values in and effects out; it knows no instruction. It offers one security state
//! (`GICD_CTLR.DS` = 1), Group 1 only, affinity routing only, 256 SPIs, no LPIs. One lock holder at a time; while a
//! vCPU runs, its list registers hold some of the state, and [`Vgic::drain`] brings it back before anything looks.
//!
//! IHI 0069 is the GIC architecture specification.

mod bank;
mod distributor;
mod lists;

pub use distributor::Written;
pub use lists::{ListRegisters, MAX_LISTS};

use crate::exit::VIRTUAL_TIMER_INTID;
use crate::refusal::Refusal;
use crate::vcpus::MAX_VCPUS;
use bank::{Bank, NOBODY, bits};

/// SPIs that a guest has: INTID 32 to 287.
const ROOM_SPIS: usize = 256;
const SHARED_BANKS: usize = ROOM_SPIS / 32;
/// Size of the distributor's frame.
const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// Size of one redistributor: `RD_base` and `SGI_base`.
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;
/// SGIs are edge-triggered, PPIs level-sensitive.
const PRIVATE_LEVEL: u32 = 0xffff_0000;

/// The interrupt controller of one VM.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Vgic {
    count: usize,
    /// IPAs of the distributor and of the first redistributor.
    frames: Option<(u64, u64)>,
    /// `GICD_CTLR.EnableGrp1`.
    forwards: bool,
    private: [Bank; MAX_VCPUS],
    shared: [Bank; SHARED_BANKS],
}

/// A register frame of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The distributor, and the offset in it.
    Distributor(u64),
    /// The redistributor of a vCPU, and the offset in it.
    Redistributor(u8, u64),
}

impl Vgic {
    /// A controller for `count` vCPUs, out of reset and not yet in the address space.
    #[must_use]
    #[inline]
    pub fn new(count: usize) -> Self {
        Self {
            count: count.min(MAX_VCPUS),
            frames: None,
            forwards: false,
            private: [const { Bank::new(PRIVATE_LEVEL) }; MAX_VCPUS],
            shared: [const { Bank::new(u32::MAX) }; SHARED_BANKS],
        }
    }

    /// Puts it into the guest's address space. Both addresses are multiples of 64 KiB, the frames do not overlap.
    #[must_use]
    pub fn place(&mut self, distributor: u64, redistributors: u64) -> bool {
        let aligned = (distributor | redistributors).is_multiple_of(DISTRIBUTOR_SIZE);
        let size = self.redistributors_size();
        let apart = match (
            distributor.checked_add(DISTRIBUTOR_SIZE),
            redistributors.checked_add(size),
        ) {
            (Some(end), Some(other_end)) => end <= redistributors || other_end <= distributor,
            _ => false,
        };
        let fits = aligned && apart || mutant!(GicAnywhere);
        if fits && !mutant!(GicForgotten) {
            self.frames = Some((distributor, redistributors));
        }
        fits
    }

    /// It was placed.
    #[must_use]
    pub fn is_placed(&self) -> bool {
        self.frames.is_some()
    }

    /// The frame that `ipa` is in.
    #[must_use]
    pub fn frame(&self, ipa: u64) -> Option<Frame> {
        let (distributor, redistributors) = self.frames?;
        if let Some(offset) = ipa
            .checked_sub(distributor)
            .filter(|offset| *offset < DISTRIBUTOR_SIZE)
        {
            return Some(Frame::Distributor(offset));
        }
        let offset = ipa
            .checked_sub(redistributors)
            .filter(|offset| *offset < self.redistributors_size())?;
        let vcpu = u8::try_from(offset / REDISTRIBUTOR_SIZE).ok()?;
        Some(Frame::Redistributor(vcpu, offset % REDISTRIBUTOR_SIZE))
    }

    /// Sets the input line of SPI `intid`. Returns the vCPU that it goes to, if it has to look now.
    pub fn set_line(&mut self, intid: u32, high: bool) -> Result<Option<u8>, Refusal> {
        let number = intid.checked_sub(32).ok_or(Refusal::Invalid)?;
        let word = usize::try_from(number / 32).map_err(|_| Refusal::Invalid)?;
        let bit = 1 << (number % 32);
        let bank = self.shared.get_mut(word).ok_or(Refusal::Invalid)?;
        if high {
            bank.raise(bit);
        } else {
            bank.lower(bit);
        }
        let destination = self.destination(word, number % 32);
        Ok(seeded!(LineKicksFirst, Some(0), destination))
    }

    /// The virtual timer of `vcpu` is due, or not any more.
    pub fn set_timer(&mut self, vcpu: u8, due: bool) {
        if let Some(bank) = self.private.get_mut(usize::from(vcpu)) {
            if due && !mutant!(TimerNeverDue) {
                bank.raise(1 << VIRTUAL_TIMER_INTID);
            } else {
                bank.lower(1 << VIRTUAL_TIMER_INTID);
            }
        }
    }

    /// Sends the SGI that `value` of `ICC_SGI1R_EL1` describes (IHI 0069 12.2.20). Returns the vCPUs it went to.
    pub fn send_sgi(&mut self, sender: u8, value: u64) -> u64 {
        let bit = 1_u32 << (value >> 24 & 0xf);
        let others = value >> 40 & 1 == 1;
        // Aff3, Aff2, Aff1 and the range selector: our vCPUs have Aff0 0 to 7 and zeroes above.
        let elsewhere = value & 0x00ff_f0ff_00ff_0000 != 0 && !mutant!(SgisGoAnywhere);
        let targets = match (others, elsewhere) {
            (true, _) => !(1 << sender),
            (false, true) => 0,
            (false, false) => value & 0xffff,
        };
        let mut sent = 0;
        for (index, bank) in self.private.iter_mut().enumerate().take(self.count) {
            if targets >> index & 1 == 1 {
                bank.latch |= bit;
                sent |= 1 << index;
            }
        }
        sent
    }

    /// Some interrupt waits for `vcpu`. What it has in list registers must be drained.
    #[must_use]
    pub fn has_deliverable(&self, vcpu: u8) -> bool {
        let private = self
            .private
            .get(usize::from(vcpu))
            .is_some_and(|bank| bank.deliverable() & !bank.active != 0);
        let shared = || (0..SHARED_BANKS).any(|word| self.destinations(word) >> vcpu & 1 == 1);
        self.forwards && (private || shared()) && !mutant!(SleepsThrough)
    }

    /// The vCPUs for which some interrupt waits, one bit each.
    fn waiting(&self) -> u64 {
        let mut waiting = 0;
        for vcpu in (0..).take(self.count) {
            waiting |= u64::from(self.has_deliverable(vcpu)) << vcpu;
        }
        waiting
    }

    /// The vCPUs that shared bank `word` has something for that nobody holds yet, one bit each.
    fn destinations(&self, word: usize) -> u64 {
        let deliverable = self.shared.get(word).map_or(0, Bank::deliverable);
        bits(deliverable)
            .filter_map(|bit| self.destination(word, bit))
            .fold(0, |all, vcpu| all | 1 << vcpu)
    }

    /// The vCPU that has to look at interrupt `bit` of shared bank `word` now.
    fn destination(&self, word: usize, bit: u32) -> Option<u8> {
        let bank = self.shared.get(word)?;
        let number = usize::try_from(bit).ok()?;
        match *bank.holder.get(number)? {
            NOBODY if self.forwards && bank.deliverable() >> bit & 1 == 1 => {
                self.target(*bank.router.get(number)?)
            }
            NOBODY => None,
            // Its list register has to follow the line.
            holder => Some(holder),
        }
    }

    /// The vCPU that a `GICD_IROUTER<n>` names; with `Interrupt_Routing_Mode` set, the first one.
    fn target(&self, router: u64) -> Option<u8> {
        const ANY: u64 = 1 << 31;
        let affinity = if router & ANY == 0 {
            router & 0xff_00ff_ffff
        } else {
            0
        };
        u8::try_from(affinity)
            .ok()
            .filter(|index| usize::from(*index) < self.count)
    }

    fn timer_is_high(&self, vcpu: u8) -> bool {
        self.private
            .get(usize::from(vcpu))
            .is_some_and(|bank| bank.line >> VIRTUAL_TIMER_INTID & 1 == 1)
    }

    fn redistributors_size(&self) -> u64 {
        u64::try_from(self.count).map_or(0, |count| count * REDISTRIBUTOR_SIZE)
    }
}

#[cfg(test)]
mod tests;
