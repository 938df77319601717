//! What will come of a step, where nobody is there to be judged: the specification chooses what EL2 may choose.
//!
//! Each step is foretold and then judged like any other, so that a foretelling which breaks a clause is a [`Violation`].

use alloc::format;
use pinfold_abi::{Counter, HostCall, SMCCC_SUCCESS, State as StateNumber, Status};

use crate::calls::Seen;
use crate::clause::{Clause, Violation};
use crate::guest::{GuestDeed, GuestSeen};
use crate::reality::Rights;
use crate::ruling::Ruling;
use crate::spec::{Expected, HostSeen, Spec, expect, unlisted};
use crate::state::State;
use crate::touch::{Touch, TouchSeen};
use crate::vm::GuestRegisters;

/// What comes of a host call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Foretold {
    /// x0 to x17 on return.
    Returned([u64; 18]),
    /// A vCPU is entered with these registers.
    Entered(GuestRegisters),
}

/// What comes of what a guest does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForetoldExit {
    /// The guest's registers.
    pub guest: GuestRegisters,
    /// x0 to x17 of the host, if it is told anything.
    pub host: Option<[u64; 18]>,
}

impl State {
    /// A pool that is never dry.
    fn free(&self) -> u64 {
        self.boot.pool + u64::try_from(self.given.len()).unwrap_or(0)
    }

    /// What is chosen where a rule leaves room; the most of it, the lowest, the last.
    fn choice(&self, call: HostCall) -> u64 {
        if let HostCall::VmCreate { .. } = call {
            let slots = self.slots();
            let slot = (0..=0xFF).find(|slot| !slots.contains(slot)).unwrap_or(0);
            let past = self.handles.iter().filter(|handle| **handle & 0xFF == slot);
            let newest = past.fold(0, |newest, handle| newest.max(handle >> 8));
            return (newest + 1) << 8 | slot;
        }
        if call == (HostCall::PoolReclaim {}) {
            return self.given.iter().last().copied().unwrap_or(0);
        }
        // All of the pin table; nobody to kick.
        u64::MAX
    }
}

impl Spec {
    /// Takes the step of a host call.
    pub fn foretell_call(&mut self, before: &[u64; 18]) -> Result<Foretold, Violation> {
        let foretold = self.answer(before);
        let free = self.state.free();
        let seen = match &foretold {
            Foretold::Returned(after) => HostSeen::Returned(after),
            Foretold::Entered(registers) => HostSeen::Entered(registers),
        };
        self.host_call(before, seen, free)?;
        Ok(foretold)
    }

    fn answer(&self, before: &[u64; 18]) -> Foretold {
        let [function, argument, x2, x3, x4, x5, x6, x7, ..] = *before;
        let call = HostCall::decode([function, argument, x2, x3, x4, x5, x6, x7]);
        let Some(call) = call.filter(|call| self.state.boot.debug_calls || !call.is_debug()) else {
            return Foretold::Returned(with(before, &unlisted(function, argument)));
        };
        let mut next = self.state.clone();
        let seen = Seen {
            status: Some(Status::Ok),
            result: self.state.choice(call),
            free: self.state.free(),
        };
        next.count(Counter::Calls, 1);
        let ruling = next.perform(call, seen);
        let vcpu = next.vms.get(&argument).and_then(|vm| vm.vcpus.get(&x2));
        match (&ruling, vcpu) {
            (Ok(done), Some(vcpu)) if done.enters => Foretold::Entered(vcpu.registers.clone()),
            _ => Foretold::Returned(with(before, &registers(&ruling))),
        }
    }

    /// Takes the step of a guest that does something.
    pub fn foretell_guest(
        &mut self,
        deed: GuestDeed<'_>,
        before: &[u64; 18],
    ) -> Result<ForetoldExit, Violation> {
        let mut next = self.state.clone();
        let nobody = || Violation::new(Clause::HandleUnknown, format!("{:#x} runs", deed.vm));
        let doer = next.vms.get_mut(&deed.vm).ok_or_else(nobody)?;
        let doer = doer.vcpus.get_mut(&deed.vcpu).ok_or_else(nobody)?;
        doer.registers = deed.registers.clone();
        let follows = next.guest(deed.vm, deed.vcpu, deed.event);
        let follows = follows.ok_or_else(nobody)?;
        let vcpu = next
            .vms
            .get(&deed.vm)
            .and_then(|vm| vm.vcpus.get(&deed.vcpu));
        let guest = vcpu.ok_or_else(nobody)?.registers.clone();
        let exit = follows.exit.or_else(|| follows.leeway.exit(None));
        let host = exit.map(|[reason, first, second, third]| {
            let told = [
                SMCCC_SUCCESS,
                Status::Ok.number(),
                reason,
                first,
                second,
                third,
            ];
            with(before, &expect(follows.clause, told))
        });
        let seen = match &host {
            None => GuestSeen::Resumed(&guest),
            Some(after) => GuestSeen::Exited {
                guest: &guest,
                before,
                after,
            },
        };
        let free = self.state.free();
        self.guest_event(deed, seen, free)?;
        Ok(ForetoldExit { guest, host })
    }

    /// Takes the step of an access of the host that stage 2 stops.
    pub fn foretell_touch(&mut self, touch: Touch) -> Result<TouchSeen, Violation> {
        let (_, right) = self.state.touch(touch);
        let seen = right.first().copied().unwrap_or(TouchSeen::Inject);
        self.host_touch(touch, seen)?;
        Ok(seen)
    }

    /// Who may use a frame.
    #[must_use]
    pub fn state_of(&self, frame: u64) -> StateNumber {
        self.state.state_number(frame)
    }

    /// What was last written to a frame.
    #[must_use]
    pub fn content_of(&self, frame: u64) -> u64 {
        self.state.content.get(&frame).copied().unwrap_or(0)
    }

    /// What a VM may do with what it has at a frame.
    #[must_use]
    pub fn guest_rights(&self, handle: u64, gfn: u64) -> Option<Rights> {
        self.state.guest_leaf(handle, gfn).map(|leaf| leaf.rights)
    }

    /// What the host may do with a frame, decoys apart.
    #[must_use]
    pub fn host_rights(&self, frame: u64) -> Option<Rights> {
        self.state.host_view(frame)
    }
}

/// The registers after a call that was ruled upon.
fn registers(ruling: &Ruling) -> Expected {
    match ruling {
        Ok(done) => done.registers(),
        Err(refuse) => refuse.registers(),
    }
}

/// The registers before, with what is expected in place of the first ones.
fn with(before: &[u64; 18], expected: &Expected) -> [u64; 18] {
    let mut after = *before;
    after
        .iter_mut()
        .zip(expected)
        .for_each(|(register, (word, _))| *register = word.value);
    after
}
