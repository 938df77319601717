//! The judge of what is not a host call: what guests do, what the host touches, the end of the machine.

use alloc::format;
use pinfold_abi::{Counter, SMCCC_SUCCESS, Status};

use crate::clause::{Clause, Violation};
use crate::guest::{Follows, GuestDeed, GuestEvent, GuestSeen, INVALID_PARAMETER, goes_on};
use crate::spec::{Last, MOST_WANTED, Spec, compare, expect};
use crate::state::{POOL_FLOOR, State};
use crate::touch::{Touch, TouchSeen};
use crate::vm::{Awaits, GuestRegisters, Vcpu};

impl State {
    /// The vCPU that did something.
    fn doer(&mut self, deed: &GuestDeed<'_>) -> Option<&mut Vcpu> {
        self.vms.get_mut(&deed.vm)?.vcpus.get_mut(&deed.vcpu)
    }

    /// The guest's share found no table frame: it is told so, and nothing has changed.
    fn refuse_dry(&mut self, deed: &GuestDeed<'_>) -> Follows {
        if let Some(vcpu) = self.doer(deed) {
            vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
            if let GuestEvent::CallBy { smc: true, .. } = deed.event {
                vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
            }
            vcpu.awaits = Awaits::Nothing;
        }
        Follows {
            takes_memory: true,
            ..goes_on(Clause::NoMemoryOnlyWhenDry)
        }
    }
}

impl Spec {
    /// Judges what followed from what a guest did; `free` frames of the pool were free before.
    pub fn guest_event(
        &mut self,
        deed: GuestDeed<'_>,
        seen: GuestSeen<'_>,
        free: u64,
    ) -> Result<(), Violation> {
        let (mut next, follows) = self.follow(&deed, seen, free)?;
        let (guest, exit) = match seen {
            GuestSeen::Resumed(guest) => (guest, None),
            GuestSeen::Exited {
                guest,
                before,
                after,
            } => (guest, Some((before, after))),
        };
        if exit.is_some()
            && let Some(vm) = next.vms.get_mut(&deed.vm)
        {
            vm.drain(deed.vcpu);
        }
        if let Some(vcpu) = next.doer(&deed) {
            vcpu.loaded = exit.is_none();
            if follows.loose {
                vcpu.registers = guest.clone();
            }
        }
        let Follows { clause, .. } = follows;
        let words = exit.map(|(_, after)| {
            let [_, _, reason, first, second, third, ..] = *after;
            [reason, first, second, third]
        });
        let way = follows.leeway.clause(words);
        let told = follows.exit.or_else(|| follows.leeway.exit(words));
        let pool = follows.takes_memory.then_some((free, POOL_FLOOR));
        self.step(
            next,
            Last {
                pool,
                takes: follows.takes,
                ..Last::new(clause, deed.event.name())
            },
        );
        if let Some(way) = way {
            self.exercised.note(way, deed.event.name());
        }
        match (exit, told) {
            (None, None) => {}
            (Some((before, after)), Some(words)) => {
                let mut expected = expect(clause, [SMCCC_SUCCESS, Status::Ok.number()]);
                expected.extend(expect(way.unwrap_or(clause), words));
                compare(before, after, &expected)?;
            }
            (seen, told) => {
                return Err(Violation::new(
                    way.unwrap_or(clause),
                    format!("the host is told {seen:x?}, not {told:x?}"),
                ));
            }
        }
        self.compare_guest((deed.vm, deed.vcpu), guest, clause)
    }

    /// A vCPU, named by handle and index, did something of which nothing is specified, but that it changes nothing of who owns
    /// what. The guest has these registers then; the host's are `after`, if the run ended.
    pub fn guest_passed_over(
        &mut self,
        name: (u64, u64),
        what: &'static str,
        guest: &GuestRegisters,
        after: Option<&[u64; 18]>,
    ) {
        let (handle, index) = name;
        let mut next = self.state.clone();
        next.count(Counter::GuestExits, 1);
        if after.is_some()
            && let Some(vm) = next.vms.get_mut(&handle)
        {
            vm.drain(index);
        }
        if let Some(vcpu) = next.vcpu_of(handle, index) {
            vcpu.registers = guest.clone();
            vcpu.loaded = after.is_none();
            vcpu.awaits = Awaits::Nothing;
        }
        self.step(next, Last::new(Clause::NothingElseChanges, what));
    }

    /// Whether an address is guest RAM of the VM that a handle names.
    #[must_use]
    pub fn is_guest_ram(&self, handle: u64, ipa: u64) -> bool {
        let vm = self.state.vms.get(&handle);
        vm.is_some_and(|vm| vm.is_ram(ipa >> 12, 1))
    }

    /// What must follow, and the state then.
    fn follow(
        &self,
        deed: &GuestDeed<'_>,
        seen: GuestSeen<'_>,
        free: u64,
    ) -> Result<(State, Follows), Violation> {
        let mut state = self.state.clone();
        state.count(Counter::GuestExits, 1);
        if let Some(vcpu) = state.doer(deed) {
            vcpu.registers = deed.registers.clone();
        }
        let mut next = state.clone();
        let Some(follows) = next.guest(deed.vm, deed.vcpu, deed.event) else {
            return Err(Violation::new(
                Clause::HandleUnknown,
                format!("{:#x} runs", deed.vm),
            ));
        };
        let is_dry = free < POOL_FLOOR + MOST_WANTED && matches!(seen, GuestSeen::Resumed(_));
        if follows.takes_memory && is_dry {
            let follows = state.refuse_dry(deed);
            return Ok((state, follows));
        }
        Ok((next, follows))
    }

    /// Compares the registers of a vCPU, named by handle and index, with what they must be.
    pub(crate) fn compare_guest(
        &self,
        name: (u64, u64),
        seen: &GuestRegisters,
        clause: Clause,
    ) -> Result<(), Violation> {
        let (handle, index) = name;
        let vcpu = self
            .state
            .vms
            .get(&handle)
            .and_then(|vm| vm.vcpus.get(&index));
        match vcpu {
            Some(vcpu) if vcpu.registers == *seen => Ok(()),
            _ => Err(Violation::new(
                clause,
                format!("the guest has {seen:x?}, not {vcpu:x?}"),
            )),
        }
    }

    /// Judges what came of an access of the host that stage 2 stopped.
    pub fn host_touch(&mut self, touch: Touch, seen: TouchSeen) -> Result<(), Violation> {
        let (clause, right) = self.state.touch(touch);
        let is_new = !self.state.folio_has_decoy(touch.frame);
        let mut next = self.state.clone();
        next.note_touch(touch, seen);
        let decoy = (seen == TouchSeen::Decoy).then_some((touch.frame, is_new));
        self.step(
            next,
            Last {
                decoy,
                ..Last::new(clause, "host touch")
            },
        );
        if right.contains(&seen) {
            Ok(())
        } else {
            Err(Violation::new(
                clause,
                format!("{touch:x?} comes to {seen:?}, not {right:?}"),
            ))
        }
    }

    /// The machine ends: nothing but [`Spec::compare_end`] may follow.
    pub fn ends(&mut self) {
        let mut next = self.state.clone();
        next.end();
        self.step(next, Last::new(Clause::MachineEnds, "end"));
    }
}
