//! The life of VMs and vCPUs: what may be done when, and with which handle.

use guest_test::smccc::psci;
use guest_test::tap::Failure;
use guest_test::{check, check_eq, gic, port, tests, timer};
use pinfold_abi::{VM_PROTECTED, limit};

use super::snapshot::{Snapshot, expect_state};
use crate::calls::{self, ExitReason, State, Status};
use crate::folio::Folio;
use crate::micro::Command;
use crate::vm::{Event, Exit, RAM_GFN, SCRATCH_GFN, Vm, reclaim};
use crate::{pool, smp};

/// Runs vCPU 0 of the VM with this handle, for 500 ms at most; gives the exit reason, or 0x100 + status.
fn run_elsewhere(handle: u64) -> u64 {
    timer::arm_physical(timer::now() + timer::milliseconds(500));
    let reply = calls::vcpu_run(handle, 0, 1 << 40);
    timer::stop_physical();
    while gic::serve().is_some() {}
    let [reason, ..] = reply.results;
    if reply.is(Status::Ok) {
        reason
    } else {
        0x100 + reply.status
    }
}

tests! { "life":
    /// Arguments of `VM_CREATE` and `VCPU_CREATE` without sense.
    creation_garbage {
        let before = Snapshot::take()?;
        for (flags, vcpus) in [(0, 0), (2, 1), (u64::MAX, 1), (VM_PROTECTED, 0), (VM_PROTECTED, limit::MAX_VCPUS + 1), (VM_PROTECTED, u64::MAX)] {
            calls::vm_create(flags, vcpus).refused_as_one_of(&[Status::Invalid, Status::Limit], "VM_CREATE without sense")?;
        }
        before.is_still_so("after refusals")?;
        let vm = Vm::create(2)?;
        for (index, flags) in [(2, 0), (8, 0), (1 << 32, 0), (u64::MAX, 0), (0, 2), (0, u64::MAX)] {
            calls::vcpu_create(vm.handle(), index, flags)
                .refused_as_one_of(&[Status::Invalid, Status::NoSuchVcpu, Status::Limit], "VCPU_CREATE without sense")?;
        }
        pool::fed(|| calls::vcpu_create(vm.handle(), 0, 0))?.done("VCPU_CREATE")?;
        calls::vcpu_create(vm.handle(), 0, 0).refused(Status::Exists, "a second VCPU_CREATE")?;
        vm.end()?;
    }

    /// Memory regions and GIC places without sense.
    configuration_garbage {
        let vm = Vm::create(1)?;
        let handle = vm.handle();
        for (gfn, count) in [(RAM_GFN, 0), (RAM_GFN, u64::MAX), (u64::MAX, 2), (1 << 28, 1), ((1 << 28) - 1, 2), (1 << 52, 1)] {
            calls::vm_memory_region(handle, gfn, count).refused_as_one_of(&[Status::Invalid, Status::Limit], &alloc::format!("region {gfn:#x}+{count:#x}"))?;
        }
        calls::vm_memory_region(handle, RAM_GFN, 16).done("VM_MEMORY_REGION")?;
        for (gfn, count) in [(RAM_GFN, 16), (RAM_GFN + 15, 1), (RAM_GFN - 1, 2), (RAM_GFN - 1, 100)] {
            calls::vm_memory_region(handle, gfn, count).refused_as_one_of(&[Status::Exists, Status::Invalid], "an overlapping region")?;
        }
        for index in 1..16 {
            calls::vm_memory_region(handle, RAM_GFN + index * 32, 16).done("a further region")?;
        }
        calls::vm_memory_region(handle, RAM_GFN + 4096, 16).refused(Status::Limit, "the 17th region")?;
        for (distributor, redistributors) in [(gic::GICD + 4096, gic::GICR), (gic::GICD, gic::GICR + 8), (u64::MAX, gic::GICR), (gic::GICD, gic::GICD)] {
            calls::vm_gic(handle, distributor, redistributors)
                .refused_as_one_of(&[Status::Invalid, Status::Exists, Status::Limit], &alloc::format!("GIC at {distributor:#x} and {redistributors:#x}"))?;
        }
        vm.end()?;
    }

    /// Before `VM_START` nothing runs; after it nothing is configured.
    phases {
        let vm = Vm::configured(1)?;
        let handle = vm.handle();
        calls::vcpu_run(handle, 0, 0).refused(Status::WrongPhase, "VCPU_RUN before VM_START")?;
        calls::mem_reclaim(handle, RAM_GFN, 1).refused(Status::WrongPhase, "MEM_RECLAIM of a living VM")?;
        calls::vm_teardown_finish(handle).refused(Status::WrongPhase, "VM_TEARDOWN_FINISH without BEGIN")?;
        calls::vm_start(handle).done("VM_START")?;
        calls::vm_start(handle).refused(Status::WrongPhase, "a second VM_START")?;
        calls::vm_memory_region(handle, 0x8_0000, 1).refused(Status::WrongPhase, "VM_MEMORY_REGION after VM_START")?;
        calls::vm_gic(handle, gic::GICD, gic::GICR).refused(Status::WrongPhase, "VM_GIC after VM_START")?;
        calls::vcpu_create(handle, 0, 0).refused_as_one_of(&[Status::WrongPhase, Status::Exists], "VCPU_CREATE after VM_START")?;
        calls::mem_reclaim(handle, RAM_GFN, 1).refused(Status::WrongPhase, "MEM_RECLAIM of a living VM")?;
        calls::vm_teardown_begin(handle).done("VM_TEARDOWN_BEGIN")?;
        calls::vcpu_run(handle, 0, 0).refused(Status::WrongPhase, "VCPU_RUN in teardown")?;
        calls::irq_line(handle, 40, 1).refused(Status::WrongPhase, "IRQ_LINE in teardown")?;
        let folio = Folio::take_pinned(0)?;
        calls::mem_donate(handle, RAM_GFN, folio.pfn(), 1, 0).refused(Status::WrongPhase, "MEM_DONATE in teardown")?;
        expect_state(folio.pfn(), State::Host, "after the refusal")?;
        calls::vm_teardown_finish(handle).done("VM_TEARDOWN_FINISH")?;
        calls::vm_teardown_finish(handle).refused(Status::NoSuchVm, "a second VM_TEARDOWN_FINISH")?;
        check!(vm.end().is_err(), "a dead VM ended again");
    }

    /// Registers may be set before the first run only, and only those that there are.
    registers_before_the_first_run {
        let mut vm = Vm::puppet()?;
        for (vcpu, register) in [(0, 31), (0, 33), (0, u64::MAX), (1, 0), (u64::MAX, 0)] {
            calls::vcpu_set_register(vm.handle(), vcpu, register, 1)
                .refused_as_one_of(&[Status::Invalid, Status::NoSuchVcpu], "VCPU_SET_REGISTER without sense")?;
        }
        vm.does(Command::Read { ipa: port::RAM })?;
        for register in [0, 30, 32] {
            calls::vcpu_set_register(vm.handle(), 0, register, 1).refused(Status::WrongPhase, "VCPU_SET_REGISTER after the first run")?;
        }
        vm.end()?;
    }

    /// A dead handle, and one with a forged generation, name nothing.
    dead_and_forged_handles {
        let vm = Vm::configured(1)?;
        let dead = vm.handle();
        vm.end()?;
        let alive = Vm::configured(1)?;
        for handle in [dead, alive.handle() ^ 1 << 8, alive.handle() ^ 1 << 31, alive.handle() | 1 << 32, alive.handle() & 0xff, 0, u64::MAX, 64, 0x1ff] {
            calls::vm_start(handle).refused(Status::NoSuchVm, "VM_START")?;
            calls::vcpu_run(handle, 0, 0).refused(Status::NoSuchVm, "VCPU_RUN")?;
            calls::vm_teardown_begin(handle).refused(Status::NoSuchVm, "VM_TEARDOWN_BEGIN")?;
            calls::vm_teardown_finish(handle).refused(Status::NoSuchVm, "VM_TEARDOWN_FINISH")?;
            calls::mem_reclaim(handle, RAM_GFN, 1).refused(Status::NoSuchVm, "MEM_RECLAIM")?;
            calls::vm_memory_region(handle, RAM_GFN, 1).refused(Status::NoSuchVm, "VM_MEMORY_REGION")?;
            calls::irq_line(handle, 40, 1).refused(Status::NoSuchVm, "IRQ_LINE")?;
            calls::vcpu_set_register(handle, 0, 0, 0).refused(Status::NoSuchVm, "VCPU_SET_REGISTER")?;
        }
        check!(dead != alive.handle(), "a handle was used twice");
        alive.end()?;
    }

    /// A vCPU that is not there, and one that is off.
    absent_and_off_vcpus {
        let vm = Vm::configured(2)?;
        calls::vm_start(vm.handle()).done("VM_START")?;
        for index in [2, 7, 8, 1 << 32, u64::MAX] {
            calls::vcpu_run(vm.handle(), index, 0).refused(Status::NoSuchVcpu, "VCPU_RUN of nobody")?;
        }
        check_eq!(vm.run(1, 0)?.reason, ExitReason::PoweredOff, "exit of a vCPU that is off");
        vm.end()?;
    }

    /// One vCPU cannot run on two CPUs, and a running VM cannot be torn down.
    one_vcpu_on_two_cpus {
        smp::need(2)?;
        let mut vm = Vm::puppet()?;
        check_eq!(vm.next(0, 0)?, Event::Asked, "the puppet's question");
        check_eq!(vm.next(0, 5)?, Event::Asked, "the puppet's second question");
        let job = smp::begin(1, run_elsewhere, vm.handle())?;
        let (mut busy, mut teardown, mut begun) = (0_u32, 0_u32, false);
        while !job.is_done() && !begun {
            // While CPU 1 is not there yet, the run would be ours: ask first whether the VM is in use.
            if calls::vcpu_set_register(vm.handle(), 0, 0, 0).is(Status::Busy) {
                busy += u32::from(vm.try_run(0, 0).is(Status::Busy));
                let reply = vm.teardown_begin();
                teardown += u32::from(reply.is(Status::Busy));
                begun = reply.is(Status::Ok);
            }
        }
        check_eq!(job.result()?, ExitReason::Interrupt.number(), "exit on the other CPU");
        check!(busy > 0 && teardown > 0, "BUSY was seen {busy} times by VCPU_RUN and {teardown} times by VM_TEARDOWN_BEGIN");
    }

    /// The teardown ends only when every frame is back, and says how many are missing.
    teardown_needs_every_frame {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 3, 1)?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        vm.teardown_begin().refused_as_one_of(&[Status::WrongPhase, Status::Ok], "a second VM_TEARDOWN_BEGIN")?;
        let found = calls::vm_teardown_finish(vm.handle()).refused(Status::Busy, "VM_TEARDOWN_FINISH")?;
        check_eq!(found.index, 9, "frames left");
        calls::mem_reclaim(vm.handle(), SCRATCH_GFN + 1, 1).refused(Status::Granule, "MEM_RECLAIM of part of a folio")?;
        for (gfn, count) in [(RAM_GFN, 0), (RAM_GFN, limit::MAX_FRAMES + 1), (u64::MAX, 2), (RAM_GFN, u64::MAX)] {
            calls::mem_reclaim(vm.handle(), gfn, count).refused_as_one_of(&[Status::Invalid, Status::Limit], "MEM_RECLAIM without sense")?;
        }
        reclaim(vm.handle(), RAM_GFN, 512)?;
        let found = calls::vm_teardown_finish(vm.handle()).refused(Status::Busy, "VM_TEARDOWN_FINISH")?;
        check_eq!(found.index, 8, "frames left");
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
    }

    /// `SYSTEM_OFF`, `SYSTEM_RESET` and a crash are told as what they are.
    ends {
        let mut vm = Vm::puppet()?;
        vm.does(Command::Off)?;
        check_eq!(vm.run(0, 0)?.reason, ExitReason::SystemOff, "running a VM that is off");
        vm.end()?;
        let mut vm = Vm::puppet()?;
        match vm.does(Command::Hvc([u64::from(psci::SYSTEM_RESET), 0, 0, 0])) {
            Ok(_) => return Err(Failure::new(format_args!("the guest went on after SYSTEM_RESET"))),
            Err(failure) => check!(failure.reason().contains("SystemReset"), "{}", failure.reason()),
        }
        vm.end()?;
    }

    /// `IRQ_LINE` takes SPIs of 32..287 and levels 0 and 1.
    irq_line_garbage {
        let vm = Vm::configured(1)?;
        for (intid, level) in [(0, 1), (31, 1), (27, 1), (288, 1), (1023, 1), (0x1_0000_0028, 1), (u64::MAX, 1), (40, 2), (40, u64::MAX)] {
            calls::irq_line(vm.handle(), intid, level).refused_as_one_of(&[Status::Invalid], "IRQ_LINE without sense")?;
        }
        for intid in [limit::MIN_SPI, limit::MAX_SPI] {
            check_eq!(calls::irq_line(vm.handle(), intid, 1).value("IRQ_LINE")?, u64::MAX, "vCPU to kick: nobody, the guest enabled nothing");
            calls::irq_line(vm.handle(), intid, 0).done("IRQ_LINE")?;
        }
        vm.end()?;
    }

    /// A guest that computes is brought back by the host's own interrupt, and goes on where it was.
    interrupts_bring_the_host_back {
        let mut vm = Vm::puppet()?;
        check_eq!(vm.next(0, 0)?, Event::Asked, "the puppet's question");
        check_eq!(vm.next(0, 5)?, Event::Asked, "the puppet's second question");
        let before = gic::count(timer::PHYSICAL_INTID);
        for _ in 0..3 {
            check_eq!(vm.run(0, 1 << 40)?.reason, ExitReason::Interrupt, "exit of a guest that computes");
        }
        check!(gic::count(timer::PHYSICAL_INTID) > before, "the host's alarm did not come");
        vm.end()?;
        let mut vm = Vm::puppet()?;
        check_eq!(vm.does(Command::Spin(50_000_000))?, [0; 4], "words told after a long count");
        vm.end()?;
    }

    /// WFI without a timer says that nothing is to be waited for; the next run goes on.
    wfi_says_until_when {
        let mut vm = Vm::puppet()?;
        check_eq!(vm.next(0, 0)?, Event::Asked, "the puppet's question");
        let mut exit = vm.run(0, Command::Wfi.words().0[0])?;
        while exit.reason == ExitReason::Interrupt {
            exit = vm.run(0, 0)?;
        }
        let Exit { reason, details: [deadline, ..] } = exit;
        check_eq!((reason, deadline), (ExitReason::Wfi, u64::MAX), "exit and deadline");
        check_eq!(vm.next(0, 0)?, Event::Told(0), "after the WFI");
        vm.end()?;
    }

    /// A missing page, asked for again and again, is told again and again.
    memory_fault_repeats {
        let vm = Vm::configured(1)?;
        vm.set_register(32, port::RAM + 0x3000)?;
        calls::vm_start(vm.handle()).done("VM_START")?;
        for _ in 0..3 {
            let mut exit = vm.run(0, 0)?;
            while exit.reason == ExitReason::Interrupt {
                exit = vm.run(0, 0)?;
            }
            let Exit { reason, details: [gfn, access, _] } = exit;
            check_eq!(reason, ExitReason::MemoryFault, "exit");
            check_eq!([gfn, access], [RAM_GFN + 3, 2], "gfn, and that it is a fetch");
        }
        vm.end()?;
    }
}
