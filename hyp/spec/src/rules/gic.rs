//! The interrupt controller of a VM, as its vCPUs find it: a GICv3 (IHI 0069) with one security state, Group 1 and affinity routing
//! only, 256 SPIs, no LPIs.
//!
//! An interrupt is pending, active, enabled and so on by what came in, what the guest wrote and what its vCPUs took and ended. What
//! its registers show of that is in `words`, what the list registers hold of it in `lists`. While a vCPU runs, what its list registers
//! hold is its alone to change.

mod lists;
mod words;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::vms::NOBODY;
use crate::clause::Clause;
use crate::guest::{Follows, Leeway, extend, goes_on};
use crate::state::State;
use crate::vm::{Extension, Power, Vm};
pub use lists::Entry;
use lists::Lists;

/// The virtual timer's.
const TIMER: u32 = 27;
/// The last SPI.
const LAST: u32 = 287;

/// An interrupt: of a vCPU below 32, of the VM above.
type Name = (Option<u64>, u32);

const fn name(vcpu: u64, intid: u32) -> Name {
    (if intid < 32 { Some(vcpu) } else { None }, intid)
}

/// What is known of an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a bit of a register, or a line"
)]
struct Interrupt {
    enabled: bool,
    /// An edge came, or software made it pending.
    latched: bool,
    line: bool,
    edge: bool,
    active: bool,
    priority: u8,
    route: u64,
    /// The vCPU that took it, or that has it in a list register.
    taken_by: Option<u64>,
    /// It was in a list register, and the guest did not take it.
    returned: bool,
}

impl Interrupt {
    const fn new(intid: u32) -> Self {
        Self {
            enabled: false,
            latched: false,
            line: false,
            edge: intid < 16,
            active: false,
            priority: 0,
            route: 0,
            taken_by: None,
            returned: false,
        }
    }

    const fn is_pending(self) -> bool {
        self.latched || self.line && !self.edge
    }
}

/// The controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Gic {
    forwards: bool,
    known: BTreeMap<Name, Interrupt>,
    lists: BTreeMap<u64, Lists>,
}

impl Gic {
    /// Out of reset.
    pub(crate) const fn new() -> Self {
        Self {
            forwards: false,
            known: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    fn interrupt(&self, name: Name) -> Interrupt {
        let known = self.known.get(&name).copied();
        known.unwrap_or(Interrupt::new(name.1))
    }

    fn change(&mut self, name: Name, change: impl FnOnce(&mut Interrupt)) {
        let interrupt = self
            .known
            .entry(name)
            .or_insert_with(|| Interrupt::new(name.1));
        change(interrupt);
    }

    /// The vCPU that it is for.
    fn owner(name: Name, interrupt: Interrupt) -> u64 {
        // `Interrupt_Routing_Mode`: any will do, and the first one is chosen.
        let route = if interrupt.route >> 31 & 1 == 1 {
            0
        } else {
            interrupt.route
        };
        name.0.or(interrupt.taken_by).unwrap_or(route)
    }

    fn is_deliverable(&self, interrupt: Interrupt) -> bool {
        self.forwards && interrupt.enabled && interrupt.is_pending()
    }

    /// What can be signalled, and to whom.
    fn deliverable(&self) -> BTreeSet<(u64, Name)> {
        let known = self.known.iter();
        known
            .filter(|(_, interrupt)| self.is_deliverable(**interrupt))
            .map(|(name, interrupt)| (Self::owner(*name, *interrupt), *name))
            .collect()
    }

    /// Something waits for the vCPU: surely, and perhaps, since it is active still.
    fn waits(&self, vcpu: u64) -> (bool, bool) {
        let mine: Vec<_> = self
            .deliverable()
            .into_iter()
            .filter(|(owner, _)| *owner == vcpu)
            .collect();
        let is_idle = |(_, name): &(u64, Name)| !self.interrupt(*name).active;
        (mine.iter().any(is_idle), !mine.is_empty())
    }

    /// The input line of an SPI. Says whom to kick.
    fn set_line(&mut self, intid: u32, high: bool) -> Option<u64> {
        let name = (None, intid);
        self.change(name, |interrupt| {
            interrupt.latched |= interrupt.edge && high && !interrupt.line;
            interrupt.line = high;
        });
        let interrupt = self.interrupt(name);
        let is_due = interrupt.taken_by.is_some() || self.is_deliverable(interrupt);
        is_due.then(|| Self::owner(name, interrupt))
    }

    /// `ICC_SGI1R_EL1` (IHI 0069, 12.2.20). Says whom it reaches.
    fn send(&mut self, sender: u64, value: u64, count: u64) -> u64 {
        let intid = u32::try_from(value >> 24 & 0xF).unwrap_or(0);
        let is_others = value >> 40 & 1 == 1;
        // Aff1, Aff2, range selector, Aff3: there is nobody there.
        let is_elsewhere = value & 0x00FF_F0FF_00FF_0000 != 0;
        let listed = if is_elsewhere { 0 } else { value & 0xFFFF };
        let targets = if is_others { !(1 << sender) } else { listed };
        let mut reached = 0;
        for vcpu in (0..count).filter(|vcpu| targets >> vcpu & 1 == 1) {
            self.change((Some(vcpu), intid), |interrupt| interrupt.latched = true);
            reached |= 1 << vcpu;
        }
        reached
    }
}

impl Vm {
    /// vCPUs that are on, one bit each, but for one.
    fn others(&self, vcpu: u64) -> u64 {
        let on = self
            .vcpus
            .iter()
            .filter(|(index, other)| **index != vcpu && other.power == Power::On);
        on.fold(0, |sum, (index, _)| sum | 1 << index)
    }

    /// Takes back the list registers of a vCPU that runs no longer.
    pub(crate) fn drain(&mut self, vcpu: u64) {
        if self.interrupts.lists.contains_key(&vcpu) {
            Arc::make_mut(&mut self.interrupts).drain(vcpu);
        }
    }

    /// Lets `change` act on the controller, while the list registers of `vcpu` are taken back. Says who must be kicked, and who may.
    fn act<T>(
        &mut self,
        vcpu: u64,
        room: usize,
        change: impl FnOnce(&mut Gic) -> T,
    ) -> (T, u64, u64) {
        let others = self.others(vcpu);
        let gic = Arc::make_mut(&mut self.interrupts);
        gic.drain(vcpu);
        let before = gic.deliverable();
        let result = change(gic);
        let after = gic.deliverable();
        let mask = |all: &mut dyn Iterator<Item = &(u64, Name)>| {
            all.filter(|(owner, _)| *owner < 64)
                .fold(0, |sum, (owner, _)| sum | 1 << owner)
                & others
        };
        let is_idle = |due: &&(u64, Name)| !gic.interrupt(due.1).active;
        let must = mask(&mut after.difference(&before).filter(is_idle));
        let may = mask(&mut after.iter());
        gic.fill(vcpu, room);
        (result, must, may)
    }
}

/// A load or store of a guest.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub(crate) ipa: u64,
    pub(crate) width: u8,
    pub(crate) write: bool,
    pub(crate) register: u8,
    pub(crate) extension: Extension,
}

impl State {
    /// How many list registers there are, if interrupts are judged.
    pub(crate) fn room(&self) -> Option<usize> {
        Some(self.processors?.list_registers)
    }

    /// What must follow from an access to the controller; the PC is behind it.
    pub(crate) fn gic_access(
        &mut self,
        handle: u64,
        index: u64,
        access: Access,
        room: usize,
    ) -> Option<Follows> {
        let Access {
            ipa,
            width,
            write,
            register,
            extension,
        } = access;
        let vm = self.vms.get_mut(&handle)?;
        let (distributor, redistributors) = vm.gic?;
        let is_distributor = (distributor..distributor + 0x1_0000).contains(&ipa);
        let offset = ipa
            - if is_distributor {
                distributor
            } else {
                redistributors
            };
        let stored = vm.vcpus.get(&index)?.registers.read(register);
        let (start, shift) = (offset & !3, 8 * (offset & 3));
        let words = if width == 8 { 2 } else { 1 };
        let count = vm.count;
        let place = |number: u64| words::place(is_distributor, start + 4 * number, count);
        let (value, must, may) = vm.act(index, room, |gic| {
            (0..words).fold(0, |sum, number| {
                let value = (extend(stored, width) << shift) >> (32 * number);
                let mask = (extend(u64::MAX, width) << shift) >> (32 * number);
                if write {
                    gic.write_word(place(number), low(value), low(mask));
                }
                sum | u64::from(gic.read_word(place(number))) << (32 * number)
            })
        });
        if !write {
            let registers = &mut vm.vcpus.get_mut(&index)?.registers;
            registers.write(register, extension.loaded(value >> shift, width));
        }
        Some(Follows {
            leeway: Leeway::Kick { must, may },
            ..goes_on(place(0).clause())
        })
    }

    /// What must follow from `ICC_SGI1R_EL1` = `value`; the PC is behind it.
    pub(crate) fn sends_sgi(
        &mut self,
        handle: u64,
        index: u64,
        value: u64,
        room: usize,
    ) -> Option<Follows> {
        let vm = self.vms.get_mut(&handle)?;
        let count = vm.count;
        let (reached, must, may) = vm.act(index, room, |gic| gic.send(index, value, count));
        let may = may | reached & vm.others(index);
        Some(Follows {
            leeway: Leeway::Kick { must, may },
            ..goes_on(Clause::SgiSends)
        })
    }

    /// Whether a vCPU that would wait may do so, and whether it may go on.
    pub(crate) fn may_wait(&mut self, handle: u64, index: u64) -> (bool, bool) {
        let room = self.room();
        let Some((room, vm)) = room.zip(self.vms.get_mut(&handle)) else {
            return (true, true);
        };
        let ((surely, perhaps), _, _) = vm.act(index, room, |gic| gic.waits(index));
        (!surely, perhaps)
    }

    /// The list registers want attention, or the virtual timer fires.
    pub(crate) fn attends(&mut self, handle: u64, index: u64, timer: bool) {
        let room = self.room();
        if let Some((room, vm)) = room.zip(self.vms.get_mut(&handle)) {
            vm.act(index, room, |gic| {
                if timer {
                    gic.change((Some(index), TIMER), |timer| timer.line = true);
                }
            });
        }
    }

    /// `IRQ_LINE`: whom to kick, if that is known.
    pub(crate) fn set_watched_line(&mut self, handle: u64, intid: u64, high: bool) -> Option<u64> {
        self.room()?;
        let vm = self.vms.get_mut(&handle)?;
        let gic = Arc::make_mut(&mut vm.interrupts);
        let kicked = gic.set_line(u32::try_from(intid).ok()?, high);
        Some(kicked.filter(|vcpu| *vcpu < vm.count).unwrap_or(NOBODY))
    }
}

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
