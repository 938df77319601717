//! Guarantee G4: the host sees no guest register beyond what the exit needs, and loses none of its own.

use core::arch::{asm, global_asm};

use aarch64_cpu::registers::{ID_AA64PFR0_EL1, Readable};
use guest_test::canary::{self, Canaries, SYSTEM_REGISTERS, Trigger};
use guest_test::tap::{Failure, Outcome};
use guest_test::{bytes, check, console, gic, port, tests};
use pinfold_abi::HostCall;
use pinfold_abi::claim::{Handle, Value, VcpuIndex};

use crate::calls::{ExitReason, Reply};
use crate::vm::{Event, Exit, Vm, exit_of};

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
    unsafe { canaries.around(Trigger::Hvc) };
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

/// After a run: results in x0..x6, everything else as before, and nothing of the guest's but a written value, or the time at
/// which a guest that waits wants to be woken.
fn judge(after: &Canaries, before: &Canaries) -> Outcome {
    let [_, _, reason, _, _, value, ..] = after.x;
    let written = reason == ExitReason::MmioWrite.number();
    let waits = reason == ExitReason::Wfi.number();
    for (register, (found, wanted)) in after.x.iter().zip(before.x).enumerate() {
        let allowed = register == 5 && written && *found == value || register == 3 && waits;
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
            | ExitReason::Relinquished
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

/// Bytes of the longest vector that the architecture allows, times 32 registers.
const VECTORS: usize = 256 * 32;

unsafe extern "C" {
    fn mini_host_fill_vectors(first: u64);
    fn mini_host_store_vectors(place: *mut u8) -> u64;
}

global_asm!(
    r#"
    .arch   armv8-a+sve
    .text
mini_host_fill_vectors:             // z<n> = x0 + n in every doubleword
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    add     x1, x0, #\n
    dup     z\n\().d, x1
    .endr
    ret
mini_host_store_vectors:            // all at x0; returns the bytes of one
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     z\n, [x0, #\n, mul vl]
    .endr
    rdvl    x0, #1
    ret
    "#
);

/// Opens SVE at its full length for this CPU (`CPACR_EL1.ZEN`, `ZCR_EL1.LEN`).
fn open_sve() {
    // SAFETY: this image uses no vectors of its own.
    unsafe {
        asm!("mrs {0}, cpacr_el1", "orr {0}, {0}, #(3 << 16)", "msr cpacr_el1, {0}", "isb", "msr s3_0_c1_c2_0, {1}", "isb",
            out(reg) _, in(reg) 0xf_u64, options(nostack));
    }
}

/// The host's vectors at their full length, around one run of a guest that fills its own.
fn run_with_vectors(vm: &mut Vm, answer: u64) -> Result<Event, Failure> {
    let first = canary::value(HOST, 0x400);
    // SAFETY: this image uses no vectors of its own.
    unsafe { mini_host_fill_vectors(first) };
    let event = vm.next(0, answer)?;
    let mut vectors = alloc::vec![0_u8; VECTORS];
    // SAFETY: the place is large enough for the longest vectors.
    let length = unsafe { mini_host_store_vectors(vectors.as_mut_ptr()) };
    let words = bytes::size(length) / 8;
    check!(words >= 2, "vectors of {length} bytes");
    for (index, word) in vectors.chunks_exact(8).enumerate().take(32 * words) {
        let found = word
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let register = bytes::word(index.checked_div(words).unwrap_or(0));
        check!(
            found == first + register,
            "z{register} is {found:#x} at doubleword {index}"
        );
    }
    Ok(event)
}

tests! { "registers":
    /// The host's SVE registers keep all their bits over a guest that fills its SIMD registers.
    long_vectors_survive {
        if ID_AA64PFR0_EL1.read(ID_AA64PFR0_EL1::SVE) == 0 {
            return Err(Failure::skip(format_args!("this CPU has no SVE")));
        }
        open_sve();
        let mut vm = Vm::image("registers::over_device_write", 1)?;
        let mut runs = 0;
        loop {
            runs += 1;
            match run_with_vectors(&mut vm, 0)? {
                Event::Verdict(passed) => {
                    check!(passed && runs > 1, "the guest says that its registers changed");
                    break;
                }
                Event::Told(_) | Event::Asked => (),
                Event::Exit(exit) => return Err(Failure::new(format_args!("{exit:x?}"))),
            }
        }
        vm.end()?;
    }

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
