//! Set-up and end of a scenario: VMs, frames and pins are made, and taken back.

use alloc::format;
use alloc::string::ToString;
use pinfold_abi::claim::{
    Access, Count, Flags, Gfn, Handle, Ipa, Number, Order, Pfn, Value, VcpuIndex,
};
use pinfold_abi::{
    ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, HostCall, State, Status, VCPU_POWERED_OFF,
    VM_PROTECTED,
};

use super::{Made, Run, Thing, wrong};
use crate::executor::{Outcome, Step, Trouble};
use crate::program::{Expression, Pin, PinKind, VmKind, layout};
use crate::puppet;

/// Frames in one call.
const STEP: u64 = 512;

impl Run<'_> {
    /// A call that has to succeed.
    pub(super) fn must(&mut self, call: HostCall) -> Result<[u64; 6], Trouble> {
        let step = Step::Call(call.encode());
        let outcome = self.fed(&step)?;
        self.note(&step, &outcome);
        match outcome {
            Outcome::Answer {
                x: [0, 0, results @ ..],
                ..
            } => Ok(results),
            Outcome::Answer { .. }
            | Outcome::Exit { .. }
            | Outcome::Value(_)
            | Outcome::Done
            | Outcome::Abort
            | Outcome::Decoy => wrong(format!("{call:x?} came to {outcome}")),
        }
    }

    /// A VM with guest RAM, an interrupt controller, vCPUs of which the first is on, and the puppet at home. It is started.
    pub(super) fn make_vm(
        &mut self,
        name: &str,
        vcpus: &Expression,
        kind: VmKind,
    ) -> Result<(), Trouble> {
        let vcpus = self.value(vcpus)?;
        let flags = match kind {
            VmKind::Protected => VM_PROTECTED,
            VmKind::Ordinary => 0,
        };
        let create = HostCall::VmCreate {
            flags: Flags(flags),
            vcpus: Count(vcpus),
        };
        let [handle, ..] = self.must(create)?;
        self.names.insert(name.to_string(), Thing::Number(handle));
        let vm = Handle(handle);
        for (first, count) in [(layout::RAM, layout::RAM_FRAMES), (layout::HOME, 1)] {
            self.must(HostCall::VmMemoryRegion {
                vm,
                first: Gfn(first),
                count: Count(count),
            })?;
        }
        let (distributor, redistributors) = (Ipa(layout::GICD), Ipa(layout::GICR));
        self.must(HostCall::VmGic {
            vm,
            distributor,
            redistributors,
        })?;
        for index in 0..vcpus {
            let flags = Flags(if index == 0 { 0 } else { VCPU_POWERED_OFF });
            self.must(HostCall::VcpuCreate {
                vm,
                vcpu: VcpuIndex(index),
                flags,
            })?;
        }
        for (register, value) in [(0, layout::PORT), (32, layout::HOME << 12)] {
            let (register, value) = (Number(register), Value(value));
            self.must(HostCall::VcpuSetRegister {
                vm,
                vcpu: VcpuIndex(0),
                register,
                value,
            })?;
        }
        self.must(HostCall::VmStart { vm })?;
        self.move_in(vm, kind)
    }

    /// Puts the puppet where a VM starts.
    fn move_in(&mut self, vm: Handle, kind: VmKind) -> Result<(), Trouble> {
        let home = self.on.take(0, 1)?;
        self.taken.push((home, 0, 1));
        self.on.load(home, puppet::CODE)?;
        let (gfn, pfn, count, order) = (Gfn(layout::HOME), Pfn(home), Count(1), Order(0));
        let give = match kind {
            VmKind::Protected => {
                let kind = PinKind::Isolated;
                self.on.pin(home, 0, Pin { kind, count: 1 })?;
                HostCall::MemDonate {
                    vm,
                    gfn,
                    pfn,
                    count,
                    order,
                }
            }
            VmKind::Ordinary => HostCall::MemShareGuest {
                vm,
                gfn,
                pfn,
                count,
                order,
                access: Access(ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE),
            },
        };
        self.must(give).map(|_| ())
    }

    pub(super) fn take(
        &mut self,
        name: &str,
        order: &Expression,
        count: &Expression,
    ) -> Result<(), Trouble> {
        let (order, count) = (self.value(order)?, self.value(count)?);
        let order = u8::try_from(order).ok().filter(|order| *order <= 9);
        let (Some(order), 1..=STEP) = (order, count) else {
            return wrong("orders are 0 to 9, counts 1 to 512".into());
        };
        let first = self.on.take(order, count)?;
        self.taken.push((first, order, count));
        self.names.insert(
            name.to_string(),
            Thing::Frames {
                first,
                order,
                count,
            },
        );
        Ok(())
    }

    pub(super) fn pin(
        &mut self,
        what: &Expression,
        whole: Option<&str>,
        order: Option<&Expression>,
        pin: (PinKind, &Expression),
    ) -> Result<(), Trouble> {
        let (kind, count) = pin;
        let Ok(count) = u32::try_from(self.value(count)?) else {
            return wrong("a pin word has 32 bits".into());
        };
        let pin = Pin { kind, count };
        let first = self.value(what)?;
        let order = order.map(|order| self.value(order)).transpose()?;
        let (own, frames) = match whole.and_then(|name| self.names.get(name)) {
            Some(Thing::Frames { order, count, .. }) => (*order, count << order),
            Some(Thing::Number(_)) | None => (0, 1),
        };
        let order = order.map_or(Some(own), |order| {
            u8::try_from(order).ok().filter(|order| *order <= 15)
        });
        let Some(order) = order else {
            return wrong("a pin word has orders 0 to 15".into());
        };
        for head in (first..first + frames).step_by(1 << order) {
            self.on.pin(head, order, pin)?;
        }
        Ok(())
    }

    /// Everything is the host's again.
    pub(super) fn end(&mut self) -> Result<(), Trouble> {
        for made in core::mem::take(&mut self.vms).iter().rev() {
            self.end_vm(made)?;
        }
        if self.lent {
            self.empty_pool()?;
        }
        for (first, order, count) in core::mem::take(&mut self.taken) {
            if self.is_hosts(first, count << order)? {
                self.on.give_back(first, order, count);
            }
        }
        Ok(())
    }

    fn status(&mut self, call: HostCall) -> Result<(Option<Status>, u64), Trouble> {
        match self.on.step(&Step::Call(call.encode()))? {
            Outcome::Answer {
                x: [0, status, first, ..],
                ..
            } => Ok((Status::from_number(status), first)),
            outcome @ (Outcome::Answer { .. }
            | Outcome::Exit { .. }
            | Outcome::Value(_)
            | Outcome::Done
            | Outcome::Abort
            | Outcome::Decoy) => wrong(format!("at the end {call:x?} came to {outcome}")),
        }
    }

    fn end_vm(&mut self, made: &Made) -> Result<(), Trouble> {
        let vm = Handle(made.handle);
        match self.status(HostCall::VmTeardownBegin { vm })? {
            (Some(Status::NoSuchVm), _) => return Ok(()),
            (Some(Status::Ok), _) => {}
            (status, _) => {
                return wrong(format!(
                    "at the end VM {:#x} cannot be torn down: {status:?}",
                    made.handle
                ));
            }
        }
        for (first, count) in &made.given {
            self.take_back((vm, made.kind), *first, *count)?;
        }
        match self.status(HostCall::VmTeardownFinish { vm })? {
            (Some(Status::Ok), _) => Ok(()),
            (status, left) => wrong(format!(
                "at the end VM {:#x} does not go: {status:?}, {left} frames left",
                made.handle
            )),
        }
    }

    fn take_back(
        &mut self,
        (vm, kind): (Handle, VmKind),
        first: u64,
        count: u64,
    ) -> Result<(), Trouble> {
        let mut done = 0;
        for _ in 0..=count {
            if done >= count {
                return Ok(());
            }
            let (gfn, count) = (Gfn(first + done), Count((count - done).min(STEP)));
            let call = match kind {
                VmKind::Protected => HostCall::MemReclaim { vm, gfn, count },
                VmKind::Ordinary => HostCall::MemUnshareGuest { vm, gfn, count },
            };
            match self.status(call)? {
                (Some(Status::Ok | Status::Again), frames) => done += frames,
                (status, _) => {
                    return wrong(format!(
                        "at the end GFN {:#x} does not come back: {status:?}",
                        first + done
                    ));
                }
            }
        }
        if done >= count {
            Ok(())
        } else {
            wrong(format!("at the end GFN {first:#x} does not come back"))
        }
    }

    fn empty_pool(&mut self) -> Result<(), Trouble> {
        loop {
            match self.status(HostCall::PoolReclaim {})? {
                (Some(Status::Ok), _) => {}
                (Some(Status::NoMemory), _) => return Ok(()),
                (status, _) => {
                    return wrong(format!(
                        "at the end the pool gives nothing back: {status:?}"
                    ));
                }
            }
        }
    }

    fn is_hosts(&mut self, first: u64, count: u64) -> Result<bool, Trouble> {
        let mut frame = first;
        while frame < first + count {
            let [frames, state, ..] = self.must(HostCall::FolioRange { first: Pfn(frame) })?;
            if state != State::Host.number() {
                return Ok(false);
            }
            frame += frames.max(1);
        }
        Ok(true)
    }
}
