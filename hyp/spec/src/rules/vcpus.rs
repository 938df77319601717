//! vCPUs: created, set, run.

use pinfold_abi::{ExitReason, Status, VCPU_POWERED_OFF};

use crate::clause::Clause;
use crate::guest::INVALID_PARAMETER;
use crate::ruling::{Done, Ruling, done, refuse, require};
use crate::state::State;
use crate::vm::{Awaits, GuestRegisters, Phase, Power, Vcpu, Vm};

/// The number of the PC for `VCPU_SET_REGISTER`.
const PC: u64 = 32;

/// Why a vCPU does not run when the host runs it.
fn reason_to_stop(vm: &Vm, vcpu: &Vcpu) -> Option<Done> {
    if let Some((reason, kind)) = vm.ended {
        return Some(done(Clause::RunSystemEnded, &[reason, kind, 0, 0]));
    }
    if let Some(esr) = vcpu.crashed {
        return Some(done(
            Clause::RunCrashed,
            &[ExitReason::Crashed.number(), esr, 0, 0],
        ));
    }
    // A vCPU that never ran is off because it was created so.
    let clause = if vcpu.ran {
        Clause::RunOff
    } else {
        Clause::VcpuCreate
    };
    let off = done(clause, &[ExitReason::PoweredOff.number(), 0, 0, 0]);
    (vcpu.power == Power::Off).then_some(off)
}

impl State {
    pub(crate) fn create_vcpu(&mut self, handle: u64, index: u64, flags: u64) -> Ruling {
        let is_sound = flags & !VCPU_POWERED_OFF == 0;
        require(is_sound, refuse(Clause::VcpuMalformed, Status::Invalid))?;
        let timer = self.processors.map(|_| (0, 0));
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeStart, &[Phase::Created])?;
        require(
            index < vm.count,
            refuse(Clause::VcpuUnknown, Status::NoSuchVcpu),
        )?;
        require(
            !vm.vcpus.contains_key(&index),
            refuse(Clause::VcpuExists, Status::Exists),
        )?;
        let vcpu = Vcpu {
            registers: GuestRegisters::default(),
            power: if flags & VCPU_POWERED_OFF == 0 {
                Power::On
            } else {
                Power::Off
            },
            ran: false,
            loaded: false,
            crashed: None,
            awaits: Awaits::Nothing,
            timer,
        };
        vm.vcpus.insert(index, vcpu);
        Ok(done(Clause::VcpuCreate, &[]))
    }

    pub(crate) fn set_register(
        &mut self,
        handle: u64,
        index: u64,
        register: u64,
        value: u64,
    ) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeTeardown, &[Phase::Created, Phase::Live])?;
        let vcpu = vm.vcpu(index)?;
        require(!vcpu.loaded, refuse(Clause::VcpuLoaded, Status::Busy))?;
        require(!vcpu.ran, refuse(Clause::RegisterRan, Status::WrongPhase))?;
        match u8::try_from(register) {
            Ok(number @ 0..=30) => vcpu.registers.write(number, value),
            _ if register == PC => vcpu.registers.pc = value,
            _ => return Err(refuse(Clause::RegisterMalformed, Status::Invalid)),
        }
        Ok(done(Clause::RegisterSet, &[]))
    }

    pub(crate) fn run(&mut self, handle: u64, index: u64, answer: u64) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyWhileLive, &[Phase::Live])?;
        let vcpu = vm.vcpu(index)?.clone();
        require(!vcpu.loaded, refuse(Clause::VcpuLoaded, Status::Busy))?;
        if let Some(stop) = reason_to_stop(vm, &vcpu) {
            return Ok(stop);
        }
        let mut vcpu = vcpu;
        let clause = self.enter(handle, &mut vcpu, answer);
        let hides = |owner: crate::state::Owner| owner.held().is_some_and(|held| held.vm == handle);
        let owners = &self.owners;
        self.decoys
            .retain(|frame| !owners.get(frame).copied().is_some_and(hides));
        vcpu.awaits = Awaits::Nothing;
        (vcpu.ran, vcpu.loaded) = (true, true);
        if let Some(vm) = self.vms.get_mut(&handle) {
            vm.vcpus.insert(index, vcpu);
        }
        Ok(Done {
            enters: true,
            ..done(clause, &[])
        })
    }

    /// What the registers are on entry, and by which clause.
    fn enter(&mut self, handle: u64, vcpu: &mut Vcpu, answer: u64) -> Clause {
        if let Power::Starting { entry, argument } = vcpu.power {
            vcpu.power = Power::On;
            vcpu.registers = GuestRegisters::started(entry, argument);
            vcpu.timer = vcpu.timer.map(|_| (0, 0));
            return Clause::RunStarts;
        }
        match vcpu.awaits {
            Awaits::Nothing if !vcpu.ran => Clause::RegisterSet,
            Awaits::Nothing => Clause::RunKeeps,
            Awaits::Load {
                width,
                register,
                extension,
            } => {
                let value = extension.loaded(answer, width);
                vcpu.registers.write(register, value);
                Clause::MmioAnswer
            }
            Awaits::Share { .. } if answer == 0 => Clause::RunKeeps,
            Awaits::Share { gfn } if self.unshare(handle, gfn) => {
                vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
                Clause::ShareDeclined
            }
            Awaits::Share { .. } => Clause::ShareStands,
            Awaits::Unshare if answer == 0 => Clause::UnshareRepeats,
            Awaits::Unshare => {
                vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
                vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
                Clause::UnshareDeclined
            }
        }
    }
}
