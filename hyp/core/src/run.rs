//! Running a vCPU: from the host's `VCPU_RUN` to the words that it gets back.
//!
//! `begin_run` moves a vCPU out of its VM, `prepare_entry` gives it its interrupts, `guest_exit` decides about each exit,
//! `finish_run` moves it back. Between them EL2 switches worlds and holds no lock.
//!
//! | exit | decided here | the host learns |
//! |---|---|---|
//! | any, from `AArch32` | the vCPU has crashed | that it crashed |
//! | interrupt of the host | nothing | that there was one |
//! | virtual timer, list registers | inject, resume | nothing |
//! | `WFI` | resume if an interrupt waits | when the timer fires |
//! | call | answer, share, give back, PSCI | of sharing: the GFN, which it may decline; of what comes back: the GFN; of PSCI: what to schedule |
//! | vGIC access, trapped register | emulate, or an exception for the guest | whom to kick |
//! | abort in guest RAM | nothing | the GFN, and whether an ordinary VM may not do this there |
//! | abort elsewhere | nothing | address and width; of a store the value |
//!
//! Invariant: PC points to the instruction to execute next, whenever a vCPU is not running.

use crate::addr::{FRAME_SHIFT, Gfn, Ipa};
use crate::call::guest::{GuestCall, INVALID_PARAMETER, NOT_SUPPORTED, SUCCESS};
use crate::exit::{Access, Conduit, DataAbort, Exit, Fault, FaultKind, RegisterAccess};
use crate::hypervisor::{CallRegisters, Hypervisor};
use crate::id_registers::Processor;
use crate::injection::Injection;
use crate::machine::Machine;
use crate::memory::{Memory, Relinquishment, Share, Unshare};
use crate::psci::{Power, PsciCall, PsciOutcome, SystemEvent};
use crate::refusal::Refusal;
use crate::sysreg::Answer;
use crate::vcpu::{Awaited, GuestContext, LoadedVcpu, Vcpu, VcpuExit};
use crate::vgic::Vgic;
use crate::vm::{GuestMemory, Kind, Vm, VmHandle};
use pinfold_abi::Counter;

/// What a `VCPU_RUN` starts.
#[derive(Debug)]
pub enum RunStart {
    /// A run.
    Enter(LoadedVcpu),
    /// Nothing: there is a reason to stop already.
    Stop(VcpuExit),
}

/// What follows from an exit of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// Enter the guest again.
    Guest,
    /// Give the guest the FP/SIMD registers, and enter it again.
    GuestWithFloatingPoint,
    /// Go back to the host.
    Host(VcpuExit),
}

impl<M: Machine> Hypervisor<M> {
    /// Moves vCPU `index` of the VM `handle` out to run on processor `cpu`; `answer` is for its last exit.
    pub fn begin_run(
        &mut self,
        handle: VmHandle,
        index: u64,
        answer: u64,
        cpu: usize,
    ) -> Result<RunStart, Refusal> {
        let vm = self.vms.get(handle)?.expect_live()?;
        let slot = usize::try_from(index).map_err(|_| Refusal::NoSuchVcpu)?;
        let index = u8::try_from(index).map_err(|_| Refusal::NoSuchVcpu)?;
        let mut vcpu = vm.vcpus.load(slot)?;
        if let Some(stop) = reason_to_stop(vm, slot, &mut vcpu) {
            vm.vcpus.unload(slot, vcpu);
            return Ok(RunStart::Stop(stop));
        }
        if let (Awaited::Share(gfn), 1..) = (vcpu.awaited, answer) {
            decline_share(&mut self.memory, &mut vm.memory, &mut vcpu, gfn);
        }
        if mutant!(ForgetsRegisters) {
            vcpu.context.x = GuestContext::default().x;
        }
        vcpu.accept(answer);
        vcpu.ran = true;
        Ok(RunStart::Enter(LoadedVcpu {
            vm: handle,
            index,
            vcpu,
            translation: vm.memory.stage2.translation(),
            lists_changed: true,
            affinity: AFFINITY_RES1 | u64::from(index),
            stale: vm.vcpus.enters(cpu, index),
        }))
    }

    /// Gives a vCPU its interrupts, once before its first entry; `now` is `CNTVCT_EL0`.
    pub fn prepare_entry(&mut self, loaded: &mut LoadedVcpu, processor: &Processor, now: u64) {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return;
        };
        let due = loaded.vcpu.context.timer.is_due(now);
        vm.vcpus.vgic.set_timer(loaded.index, due);
        vm.vcpus.vgic.fill(
            loaded.index,
            &mut loaded.vcpu.lists,
            processor.list_registers,
        );
    }

    /// Decides what follows from `exit`. List registers in use are in `loaded`, and are taken from there again.
    pub fn guest_exit(
        &mut self,
        loaded: &mut LoadedVcpu,
        exit: Exit,
        processor: &Processor,
    ) -> Resumption {
        self.counters.count(Counter::GuestExits);
        if loaded.vcpu.context.is_aarch32() {
            return loaded.crash(ILLEGAL_STATE);
        }
        match exit {
            Exit::Interrupt if mutant!(SwallowsInterrupts) => Resumption::Guest,
            Exit::Interrupt => Resumption::Host(VcpuExit::Interrupt),
            Exit::FloatingPoint if mutant!(NoFloatingPoint) => {
                loaded.inject(Injection::undefined())
            }
            Exit::FloatingPoint => Resumption::GuestWithFloatingPoint,
            Exit::Timer if mutant!(TimerIsHosts) => Resumption::Host(VcpuExit::Interrupt),
            Exit::Timer => {
                self.interrupts(loaded, processor, |vgic, vcpu| vgic.set_timer(vcpu, true))
            }
            Exit::Maintenance => self.interrupts(loaded, processor, |_, _| {}),
            Exit::WaitForInterrupt => self.wait(loaded, processor),
            Exit::WaitForEvent => {
                if !mutant!(EventRepeats) {
                    loaded.vcpu.context.skip_instruction();
                }
                Resumption::Guest
            }
            Exit::Call(conduit) => self.call(loaded, conduit, processor),
            Exit::SystemRegister(access) => self.register(loaded, access, processor),
            Exit::DataAbort(abort) => self.data_abort(loaded, abort, processor),
            Exit::InstructionAbort(fault) => self.instruction_abort(loaded, fault),
            Exit::Undefined if mutant!(SkipsUndefined) => {
                loaded.vcpu.context.skip_instruction();
                Resumption::Guest
            }
            Exit::Undefined => loaded.inject(Injection::undefined()),
            Exit::SystemError(esr) | Exit::Unexpected(esr) => loaded.crash(esr),
        }
    }

    /// Moves a vCPU back into its VM and tells the host why it stopped.
    pub fn finish_run(
        &mut self,
        loaded: LoadedVcpu,
        exit: VcpuExit,
        registers: &mut CallRegisters,
    ) {
        let LoadedVcpu {
            vm,
            index,
            mut vcpu,
            ..
        } = loaded;
        // Known only now that the timer's registers are saved.
        let exit = if let VcpuExit::WaitForInterrupt { .. } = exit {
            VcpuExit::WaitForInterrupt {
                deadline: seeded!(WaitsForEver, u64::MAX, vcpu.context.timer.deadline()),
            }
        } else {
            exit
        };
        exit.report(registers);
        if let Ok(vm) = self.vms.get(vm) {
            vm.vcpus.vgic.drain(index, &mut vcpu.lists);
            vm.vcpus.unload(usize::from(index), vcpu);
        }
    }

    /// Lets `change` act on the interrupt controller, then gives the vCPU its interrupts again.
    fn interrupts<T>(
        &mut self,
        loaded: &mut LoadedVcpu,
        processor: &Processor,
        change: impl FnOnce(&mut Vgic, u8) -> T,
    ) -> Resumption
    where
        T: Kicked,
    {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let vgic = &mut vm.vcpus.vgic;
        vgic.drain(loaded.index, &mut loaded.vcpu.lists);
        let kicked =
            change(vgic, loaded.index).kicked() & vm.vcpus.power.on() & !(1 << loaded.index);
        vgic.fill(
            loaded.index,
            &mut loaded.vcpu.lists,
            processor.list_registers,
        );
        loaded.lists_changed = true;
        if kicked == 0 {
            Resumption::Guest
        } else {
            Resumption::Host(VcpuExit::Kick { vcpus: kicked })
        }
    }

    fn wait(&mut self, loaded: &mut LoadedVcpu, processor: &Processor) -> Resumption {
        loaded.vcpu.context.skip_instruction();
        self.standby(loaded, processor)
    }

    /// Waits unless an interrupt is there already.
    fn standby(&mut self, loaded: &mut LoadedVcpu, processor: &Processor) -> Resumption {
        let mut waits = false;
        let resumption = self.interrupts(loaded, processor, |vgic, vcpu| {
            waits = !vgic.has_deliverable(vcpu);
        });
        if waits {
            Resumption::Host(VcpuExit::WaitForInterrupt { deadline: u64::MAX })
        } else {
            resumption
        }
    }

    fn call(
        &mut self,
        loaded: &mut LoadedVcpu,
        conduit: Conduit,
        processor: &Processor,
    ) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let context = &mut loaded.vcpu.context;
        if matches!(conduit, Conduit::Smc(_)) && !mutant!(SmcRepeats) {
            // It trapped, so that PC is on it; from here on both conduits are alike.
            context.skip_instruction();
        }
        match GuestCall::decode(vm.memory.kind, conduit, context.arguments()) {
            GuestCall::Query(answer) => context.answer(answer),
            GuestCall::Malformed => context.answer([INVALID_PARAMETER, 0, 0, 0]),
            GuestCall::Unknown => {
                let answer = seeded!(UnknownGuestCallSucceeds, SUCCESS, NOT_SUPPORTED);
                context.answer([answer, 0, 0, 0]);
            }
            GuestCall::Psci(call) => return self.power(loaded, call, processor),
            GuestCall::Share(gfn) => return self.share(loaded, gfn),
            GuestCall::Unshare(gfn) => return self.unshare(loaded, gfn),
            GuestCall::Relinquish(gfn) => return self.relinquish(loaded, gfn),
        }
        Resumption::Guest
    }

    fn share(&mut self, loaded: &mut LoadedVcpu, gfn: Gfn) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let context = &mut loaded.vcpu.context;
        match self.memory.share(&mut vm.memory, gfn).map(Share::commit) {
            Ok(()) => {
                context.answer([SUCCESS, 0, 0, 0]);
                loaded.vcpu.awaited = Awaited::Share(gfn);
                Resumption::Host(VcpuExit::Shared {
                    gfn: gfn.raw(),
                    count: 1,
                })
            }
            Err(Refusal::NotMapped(_)) if vm.memory.is_ram(gfn) && !mutant!(MissingIsInvalid) => {
                context.repeat_call();
                Resumption::Host(VcpuExit::MemoryFault {
                    gfn: gfn.raw(),
                    write: true,
                    execute: false,
                    denied: false,
                })
            }
            Err(_) => {
                let answer = seeded!(RefusedShareSucceeds, SUCCESS, INVALID_PARAMETER);
                context.answer([answer, 0, 0, 0]);
                Resumption::Guest
            }
        }
    }

    fn unshare(&mut self, loaded: &mut LoadedVcpu, gfn: Gfn) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let context = &mut loaded.vcpu.context;
        match self
            .memory
            .unshare(&mut vm.memory, gfn)
            .map(Unshare::commit)
        {
            Ok(()) => {
                context.answer([SUCCESS, 0, 0, 0]);
                Resumption::Guest
            }
            Err(Refusal::NotExclusivelyPinned(_) | Refusal::NoPinTable(_)) => {
                context.repeat_call();
                loaded.vcpu.awaited = Awaited::Unshare;
                Resumption::Host(VcpuExit::UnshareRequest {
                    gfn: gfn.raw(),
                    count: 1,
                })
            }
            Err(_) => {
                let answer = seeded!(RefusedUnshareSucceeds, SUCCESS, INVALID_PARAMETER);
                context.answer([answer, 0, 0, 0]);
                Resumption::Guest
            }
        }
    }

    fn relinquish(&mut self, loaded: &mut LoadedVcpu, gfn: Gfn) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let context = &mut loaded.vcpu.context;
        let given = self.memory.relinquish(&mut vm.memory, gfn);
        let answer = match given.map(Relinquishment::commit) {
            Ok(()) => {
                context.answer([SUCCESS, 0, 0, 0]);
                let (gfn, count) = (gfn.raw(), 1);
                return seeded!(
                    RelinquishUntold,
                    Resumption::Guest,
                    Resumption::Host(VcpuExit::Relinquished { gfn, count })
                );
            }
            // There is nothing to give back.
            Err(Refusal::NotMapped(_)) if vm.memory.is_ram(gfn) => {
                seeded!(NothingIsRefused, INVALID_PARAMETER, SUCCESS)
            }
            Err(_) => seeded!(RefusedRelinquishSucceeds, SUCCESS, INVALID_PARAMETER),
        };
        context.answer([answer, 0, 0, 0]);
        Resumption::Guest
    }

    fn power(
        &mut self,
        loaded: &mut LoadedVcpu,
        call: PsciCall,
        processor: &Processor,
    ) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let context = &mut loaded.vcpu.context;
        match vm.vcpus.power.perform(usize::from(loaded.index), call) {
            PsciOutcome::Return(value) => {
                context.answer([value, 0, 0, 0]);
                Resumption::Guest
            }
            PsciOutcome::Started { index } => {
                context.answer([SUCCESS, 0, 0, 0]);
                let index = seeded!(StartsUntold, 0, index);
                Resumption::Host(VcpuExit::CpuOn { index })
            }
            PsciOutcome::Standby => {
                context.answer([seeded!(SuspendFails, NOT_SUPPORTED, SUCCESS), 0, 0, 0]);
                self.standby(loaded, processor)
            }
            PsciOutcome::Off if mutant!(OffIsInterrupt) => Resumption::Host(VcpuExit::Interrupt),
            PsciOutcome::Off => Resumption::Host(VcpuExit::PoweredOff),
            PsciOutcome::System(event) => {
                vm.vcpus.system = Some(event);
                Resumption::Host(seeded!(EndUntold, VcpuExit::Interrupt, event.into()))
            }
        }
    }

    fn register(
        &mut self,
        loaded: &mut LoadedVcpu,
        access: RegisterAccess,
        processor: &Processor,
    ) -> Resumption {
        let context = &mut loaded.vcpu.context;
        let answer = access.answer(processor);
        if answer == Answer::Undefined {
            return loaded.inject(Injection::undefined());
        }
        context.skip_instruction();
        match answer {
            Answer::Value(value) if access.read => context.set_register(access.transfer, value),
            Answer::Value(_) | Answer::Undefined => {}
            Answer::SendSgi => {
                let value = context.register(access.transfer);
                return self.interrupts(loaded, processor, |vgic, vcpu| vgic.send_sgi(vcpu, value));
            }
        }
        Resumption::Guest
    }

    fn data_abort(
        &mut self,
        loaded: &mut LoadedVcpu,
        abort: DataAbort,
        processor: &Processor,
    ) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let fault = abort.fault;
        let denied = is_denied(vm, fault);
        if (fault.kind == FaultKind::Translation || denied) && is_ram(vm, fault.ipa) {
            if !denied && is_mapped(&self.memory, vm, fault.ipa) && !mutant!(FaultsAgain) {
                return Resumption::Guest;
            }
            let write = abort.write || fault.table_walk;
            return Resumption::Host(VcpuExit::MemoryFault {
                gfn: fault.ipa >> FRAME_SHIFT,
                write,
                execute: false,
                denied,
            });
        }
        if fault.kind == FaultKind::Translation && abort.cache_maintenance {
            loaded.vcpu.context.skip_instruction();
            return Resumption::Guest;
        }
        let Some(access) = abort
            .access
            .filter(|_| fault.kind == FaultKind::Translation)
        else {
            return loaded.inject(Injection::data_abort(loaded.vcpu.context.pstate, fault));
        };
        loaded.vcpu.context.skip_instruction();
        if vm.vcpus.vgic.frame(access.ipa).is_some() {
            return self.vgic_access(loaded, access, processor);
        }
        let Access {
            ipa,
            width,
            register,
            ..
        } = access;
        if access.write {
            let value = loaded.vcpu.context.register(register)
                & seeded!(StoreLeaks, u64::MAX, access.mask());
            return Resumption::Host(VcpuExit::MmioWrite { ipa, width, value });
        }
        loaded.vcpu.awaited = Awaited::Load(access);
        let width = seeded!(ReadsWide, 8, width);
        Resumption::Host(VcpuExit::MmioRead { ipa, width })
    }

    fn vgic_access(
        &mut self,
        loaded: &mut LoadedVcpu,
        access: Access,
        processor: &Processor,
    ) -> Resumption {
        let stored = loaded.vcpu.context.register(access.register);
        let mut value = None;
        let resumption = self.interrupts(loaded, processor, |vgic, vcpu| {
            match vgic.frame(access.ipa) {
                Some(frame) if access.write => vgic.write(vcpu, frame, access, stored).kick,
                Some(frame) => {
                    value = Some(vgic.read(frame, access));
                    0
                }
                None => 0,
            }
        });
        if let Some(value) = value {
            loaded
                .vcpu
                .context
                .set_register(access.register, access.extend(value));
        }
        resumption
    }

    fn instruction_abort(&mut self, loaded: &mut LoadedVcpu, fault: Fault) -> Resumption {
        let Ok(vm) = self.vms.get(loaded.vm) else {
            return loaded.crash(0);
        };
        let is_ram = is_ram(vm, fault.ipa) || mutant!(FetchesAnywhere);
        let denied = is_denied(vm, fault);
        if (fault.kind == FaultKind::Translation || denied) && is_ram {
            if !denied && is_mapped(&self.memory, vm, fault.ipa) {
                return Resumption::Guest;
            }
            let gfn = fault.ipa >> FRAME_SHIFT;
            return Resumption::Host(VcpuExit::MemoryFault {
                gfn,
                write: fault.table_walk,
                execute: !mutant!(FetchIsLoad),
                denied,
            });
        }
        loaded.inject(Injection::instruction_abort(
            loaded.vcpu.context.pstate,
            fault,
        ))
    }
}

/// What a guest that went to `AArch32` at EL0 crashes with: an illegal state (DDI 0487 D24.2.37), since no ID register offers it.
const ILLEGAL_STATE: u64 = 0x0e << 26;

/// Bit 31 of an MPIDR is RES1 (DDI 0487 D24.2.124).
const AFFINITY_RES1: u64 = 1 << 31;

/// Why vCPU `index` does not run now, if it does not; a vCPU that another one started gets its reset values.
fn reason_to_stop(vm: &mut Vm, index: usize, vcpu: &mut Vcpu) -> Option<VcpuExit> {
    if let Some(event) = vm.vcpus.system
        && !mutant!(RunsOn)
    {
        return Some(event.into());
    }
    if let Some(esr) = vcpu.crashed
        && !mutant!(RunsCrashed)
    {
        return Some(VcpuExit::Crashed { esr });
    }
    match vm.vcpus.power.power(index) {
        Power::Off if vcpu.ran && mutant!(RunsOff) => None,
        Power::Absent | Power::Off => Some(VcpuExit::PoweredOff),
        Power::Starting { .. } => {
            if let Some((entry, argument)) = vm.vcpus.power.take_start(index) {
                *vcpu = Vcpu::started(seeded!(StartsElsewhere, 0, entry), argument);
            }
            None
        }
        Power::On => None,
    }
}

/// Takes back what the guest shared and the host cannot use, and tells the guest. A frame whose pin word says that the host can use
/// it stays shared, whatever the host answers.
fn decline_share<M: Machine>(
    memory: &mut Memory<M>,
    guest: &mut GuestMemory,
    vcpu: &mut Vcpu,
    gfn: Gfn,
) {
    let is_undone = memory.unshare(guest, gfn).map(Unshare::commit).is_ok();
    let is_told = seeded!(DeclineUntold, false, is_undone);
    if is_told || mutant!(DeclineAlwaysTold) {
        vcpu.context.answer([INVALID_PARAMETER, 0, 0, 0]);
    }
}

fn is_ram(vm: &Vm, ipa: u64) -> bool {
    Ipa::new(ipa).is_some_and(|ipa| vm.memory.is_ram(ipa.frame()))
}

/// Whether the host lets an ordinary VM do less with the frame than it tried. Then the host is asked, as for a missing one.
fn is_denied(vm: &Vm, fault: Fault) -> bool {
    let is_ordinary = vm.memory.kind == Kind::Ordinary && !mutant!(DeniedIsAbort);
    fault.kind == FaultKind::Permission && is_ordinary
}

/// Whether the frame is there by now: another vCPU of the VM had faulted on it too, or shared a part of its block.
fn is_mapped<M: Machine>(memory: &Memory<M>, vm: &Vm, ipa: u64) -> bool {
    Ipa::new(ipa).is_some_and(|ipa| memory.guest_maps(&vm.memory, ipa.frame()))
}

/// What a change of the interrupt controller asks of other vCPUs.
trait Kicked {
    fn kicked(self) -> u64;
}

impl Kicked for () {
    fn kicked(self) -> u64 {
        0
    }
}

impl Kicked for u64 {
    fn kicked(self) -> u64 {
        self
    }
}

impl Vcpu {
    /// Takes what the host answered to the last exit.
    fn accept(&mut self, answer: u64) {
        match core::mem::take(&mut self.awaited) {
            Awaited::Nothing | Awaited::Share(_) => {}
            Awaited::Load(access) => self.context.set_register(
                access.register,
                seeded!(AnswerUncut, answer, access.extend(answer)),
            ),
            // The call is repeated, and looks at the pin word again.
            Awaited::Unshare if answer == 0 && !mutant!(AgreementIsDecline) => {}
            Awaited::Unshare => {
                self.context.skip_instruction();
                let answer = seeded!(DeclinedUnshareSucceeds, SUCCESS, INVALID_PARAMETER);
                self.context.answer([answer, 0, 0, 0]);
            }
        }
    }
}

impl LoadedVcpu {
    fn inject(&mut self, injection: Injection) -> Resumption {
        self.vcpu.injection = Some(injection);
        Resumption::Guest
    }

    fn crash(&mut self, esr: u64) -> Resumption {
        let esr = seeded!(CrashUnclassed, 0, esr);
        self.vcpu.crashed = Some(esr);
        Resumption::Host(VcpuExit::Crashed { esr })
    }
}

impl GuestContext {
    fn arguments(&self) -> [u64; 4] {
        [
            self.register(0),
            self.register(1),
            self.register(2),
            self.register(3),
        ]
    }

    fn answer(&mut self, values: [u64; 4]) {
        for (number, value) in (0..).zip(values) {
            self.set_register(number, value);
        }
    }
}

impl From<SystemEvent> for VcpuExit {
    fn from(event: SystemEvent) -> Self {
        match event {
            SystemEvent::Off => Self::SystemOff,
            SystemEvent::Reset(kind) => Self::SystemReset { kind },
        }
    }
}

#[cfg(test)]
mod tests;
