//! Guarantee G4: the host sees no guest register beyond what the exit needs, and loses none of its own.

use guest_test::canary::{self, Canaries, Event, SYSTEM_REGISTERS};
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, console, gic, port, tests};
use pinfold_abi::HostCall;
use pinfold_abi::claim::{Handle, Value, VcpuIndex};

use crate::calls::{ExitReason, Reply};
use crate::vm::{Exit, Vm, exit_of};

/// Owners of canaries.
const HOST: u16 = 0x4057;
const GUEST: u16 = 0x6e57;

/// One `VCPU_RUN` with canaries in every register of the host's that the call does not use.
fn guarded_run(vm: &Vm, answer: u64) -> Result<Exit, Failure> {
    let mut canaries = Canaries::of(HOST);
    let call = HostCall::VcpuRun {
        vm: Handle(vm.handle()),
        vcpu: VcpuIndex(0),
        answer: Value(answer),
    }
    .encode();
    for (place, word) in canaries.x.iter_mut().zip(call).take(4) {
        *place = word;
    }
    let before = canaries.clone();
    let own = canary::read_system_registers();
    let system = canary::system_canaries(HOST);
    // SAFETY: nothing faults until the old values are back.
    unsafe { canary::write_system_registers(&system) };
    // SAFETY: running a guest changes no memory of the host's.
    unsafe { canaries.around(Event::Hvc) };
    let system_after = canary::read_system_registers();
    // SAFETY: these are the values that were there.
    unsafe { canary::write_system_registers(&own) };
    judge(&canaries, &before)?;
    for ((name, mask), (found, wanted)) in
        SYSTEM_REGISTERS.iter().zip(system_after.iter().zip(system))
    {
        check!(
            found & mask == wanted,
            "{name} is {found:#x}, was {wanted:#x}"
        );
    }
    exit_of(Reply::of(&canaries.x))
}

/// After a run: results in x0..x6, everything else as before, and nothing of the guest's but a written value.
fn judge(after: &Canaries, before: &Canaries) -> Outcome {
    let [_, _, reason, _, _, value, ..] = after.x;
    let written = reason == ExitReason::MmioWrite.number();
    for (register, (found, wanted)) in after.x.iter().zip(before.x).enumerate() {
        let allowed = register == 5 && written && *found == value;
        check!(
            allowed || !canary::belongs_to(GUEST, *found),
            "x{register} is the guest's {found:#x}"
        );
        check!(
            register <= 6 || *found == wanted,
            "x{register} is {found:#x}, was {wanted:#x}"
        );
    }
    for (register, (found, wanted)) in after.v.iter().zip(before.v).enumerate() {
        check!(
            *found == wanted,
            "v{register} is {found:#x}, was {wanted:#x}"
        );
    }
    check!(
        after.fp == before.fp,
        "FPCR and FPSR are {:x?}, were {:x?}",
        after.fp,
        before.fp
    );
    Ok(())
}

/// Runs one of the guest's register tests with a guarded run each time.
fn guarded(test: &str) -> Outcome {
    let mut vm = Vm::image(test, 1)?;
    let mut answer = 0;
    for _ in 0..100_000 {
        let exit = guarded_run(&vm, answer)?;
        answer = 0;
        let [first, _, third] = exit.details;
        match exit.reason {
            ExitReason::Interrupt => while gic::serve().is_some() {},
            ExitReason::Wfi | ExitReason::Kick => (),
            ExitReason::MemoryFault => vm.give_filled(first, 0, 0)?,
            ExitReason::MmioWrite if first == port::VERDICT => {
                check!(third == 0, "the guest says that its registers changed");
                return vm.end();
            }
            ExitReason::MmioWrite if first == console::UART || first == port::TELL => (),
            ExitReason::MmioRead if first == port::ASK => answer = canary::value(HOST, 0x300),
            ExitReason::MmioRead
            | ExitReason::MmioWrite
            | ExitReason::Shared
            | ExitReason::UnshareRequest
            | ExitReason::CpuOn
            | ExitReason::PoweredOff
            | ExitReason::SystemOff
            | ExitReason::SystemReset
            | ExitReason::Crashed => {
                return Err(Failure::new(format_args!("{exit:x?}")));
            }
        }
    }
    Err(Failure::new(format_args!("100,000 runs without a verdict")))
}

tests! { "registers":
    /// Over calls that EL2 answers without the host.
    over_hypercalls {
        guarded("registers::over_hypercall")?;
    }

    /// Over device writes: the host gets the value, and nothing else.
    over_device_writes {
        guarded("registers::over_device_write")?;
    }

    /// Over device reads: the host gives the value, and nothing else.
    over_device_reads {
        guarded("registers::over_device_read")?;
    }

    /// Over first touches of memory.
    over_memory_faults {
        guarded("registers::over_memory_fault")?;
    }

    /// Over WFI.
    over_wfi {
        guarded("registers::over_wfi")?;
    }
}
