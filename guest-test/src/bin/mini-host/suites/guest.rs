//! The guest image's own tests, each in a fresh VM.

use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, tests};

use crate::calls::{self, ExitReason};
use crate::vm::{Event, Vm};

/// What the mini host does when the guest tells or asks something, and what it answers.
type Partner = fn(&Vm, Event) -> u64;

/// A partner for tests that need none.
fn silent(_: &Vm, _: Event) -> u64 {
    0
}

/// Runs one test of the guest image to its verdict and `SYSTEM_OFF`.
fn passes(test: &str, vcpus: u64, partner: Partner) -> Outcome {
    let mut vm = Vm::image(test, vcpus)?;
    let mut answer = 0;
    let mut passed = None;
    let mut others_on = 0_u64;
    for _ in 0..1_000_000 {
        if others_on != 0 {
            others_on = run_others(&mut vm, vcpus, others_on)?;
        }
        let event = vm.next(0, answer)?;
        answer = 0;
        match event {
            Event::Verdict(verdict) => passed = Some(verdict),
            Event::Told(_) | Event::Asked => answer = partner(&vm, event),
            Event::Exit(exit) => match exit.reason {
                ExitReason::SystemOff | ExitReason::SystemReset => {
                    check_eq!(
                        passed,
                        Some(true),
                        "the guest's verdict (it says why above)"
                    );
                    return vm.end();
                }
                ExitReason::CpuOn => {
                    let [index, ..] = exit.details;
                    others_on |= 1 << index;
                }
                ExitReason::Kick => (),
                ExitReason::Interrupt
                | ExitReason::Wfi
                | ExitReason::MemoryFault
                | ExitReason::MmioRead
                | ExitReason::MmioWrite
                | ExitReason::Shared
                | ExitReason::UnshareRequest
                | ExitReason::Relinquished
                | ExitReason::PoweredOff
                | ExitReason::Crashed => {
                    return Err(Failure::new(format_args!("{test}: {event:x?}")));
                }
            },
        }
    }
    Err(Failure::new(format_args!(
        "{test}: a million events without an end"
    )))
}

/// Runs the other vCPUs that are on until they are off or told something.
fn run_others(vm: &mut Vm, vcpus: u64, on: u64) -> Result<u64, Failure> {
    let mut on = on;
    for index in 1..vcpus {
        if on >> index & 1 == 0 {
            continue;
        }
        let event = vm.next(index, 0)?;
        if let Event::Exit(exit) = event {
            match exit.reason {
                ExitReason::PoweredOff => on &= !(1 << index),
                ExitReason::Kick => (),
                ExitReason::Interrupt
                | ExitReason::Wfi
                | ExitReason::MemoryFault
                | ExitReason::MmioRead
                | ExitReason::MmioWrite
                | ExitReason::Shared
                | ExitReason::UnshareRequest
                | ExitReason::Relinquished
                | ExitReason::CpuOn
                | ExitReason::SystemOff
                | ExitReason::SystemReset
                | ExitReason::Crashed => {
                    return Err(Failure::new(format_args!("vCPU {index}: {exit:x?}")));
                }
            }
        }
    }
    Ok(on)
}

/// Answers reads of every width with the value of the test.
fn widths(_: &Vm, event: Event) -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static WIDTH: AtomicU64 = AtomicU64::new(0);
    match event {
        Event::Told(width) => {
            WIDTH.store(width, Ordering::Relaxed);
            0
        }
        Event::Asked => match WIDTH.load(Ordering::Relaxed) {
            1 => 0xffff_ff80,
            2 => 0xffff_8001,
            4 => 0xffff_ffff_8000_0001,
            _ => 0x8000_0000_0000_0001,
        },
        Event::Verdict(_) | Event::Exit(_) => 0,
    }
}

/// Sets a line to the level that the guest tells; the guest sees for itself whether that was done.
fn set_line(vm: &Vm, event: Event, intid: u64) -> u64 {
    if let Event::Told(level) = event {
        calls::irq_line(vm.handle(), intid, level);
    }
    0
}

macro_rules! alone {
    ($($(#[$doc:meta])+ $name:ident = $test:literal),+ $(,)?) => {
        tests! { "guest":
            $($(#[$doc])+ $name { passes($test, 1, silent)?; })+

            /// The second vCPU comes and goes three times.
            psci_cpu_on { passes("calls::psci_cpu_on", 2, silent)?; }

            /// Device accesses of all widths.
            device_widths { passes("devices::widths", 1, widths)?; }

            /// A line raised and lowered by the host.
            interrupt_line { passes("interrupts::line", 1, |vm, event| set_line(vm, event, 40))?; }

            /// A line raised before it is enabled.
            interrupt_line_raised_early { passes("interrupts::line_raised_early", 1, |vm, event| set_line(vm, event, 41))?; }

            /// The guest asks for a reset, and the host hears it.
            system_reset {
                let mut vm = Vm::image("calls::system_reset", 1)?;
                let event = vm.next(0, 0)?;
                check!(matches!(event, Event::Exit(exit) if exit.reason == ExitReason::SystemReset), "{event:x?}");
                vm.end()?;
            }
        }
    };
}

alone! {
    /// PSCI is 1.1.
    psci_version = "calls::psci_version",
    /// `PSCI_FEATURES`.
    psci_features = "calls::psci_features",
    /// PSCI calls for vCPUs that are not there.
    psci_garbage = "calls::psci_garbage",
    /// SMCCC version.
    smccc_version = "calls::smccc_version",
    /// KVM's UUID.
    kvm_uuid = "calls::kvm_uuid",
    /// KVM's features.
    kvm_features = "calls::kvm_features",
    /// `HYP_MEMINFO`.
    meminfo = "calls::meminfo",
    /// Sharing what cannot be shared.
    share_garbage = "calls::share_garbage",
    /// Sharing and taking back, twice.
    share_twice = "calls::share_twice",
    /// Calls that are not there.
    unknown_calls = "calls::unknown_calls",
    /// A sweep of call ids.
    unknown_calls_swept = "calls::unknown_calls_swept",
    /// Accesses without a syndrome.
    device_access_without_syndrome = "devices::without_syndrome",
    /// Fetching from a device.
    fetch_from_device = "devices::fetch_from_device",
    /// All registers of the virtual GIC.
    gic_swept = "devices::gic_swept",
    /// Identity of the virtual GIC.
    gic_identity = "devices::gic_identity",
    /// HVC with an immediate, and SMC.
    conduits = "faults::conduits",
    /// Reading every system register.
    system_registers_read = "faults::system_registers_read",
    /// Writing system registers.
    system_registers_written = "faults::system_registers_written",
    /// EL2's and EL3's registers.
    higher_registers_are_undefined = "faults::higher_registers_are_undefined",
    /// Instructions of higher levels and of hidden extensions.
    undefined_instructions = "faults::instructions",
    /// Cache and TLB maintenance, hints.
    harmless_instructions = "faults::harmless_instructions",
    /// Addresses beyond the guest's space.
    beyond_the_end = "faults::beyond_the_end",
    /// Translation tables in a hole.
    tables_in_a_hole = "faults::tables_in_a_hole",
    /// Illegal exception returns.
    illegal_return = "faults::illegal_return",
    /// An SGI to oneself.
    sgi_to_self = "interrupts::sgi_to_self",
    /// The virtual timer, while the guest computes.
    timer_while_running = "interrupts::timer_while_running",
    /// The virtual timer ends a WFI.
    timer_ends_wfi = "interrupts::timer_ends_wfi",
    /// A timer whose interrupt is not enabled.
    timer_disabled_is_silent = "interrupts::timer_disabled_is_silent",
    /// The physical timer.
    physical_timer_is_undefined = "interrupts::physical_timer_is_undefined",
    /// Registers over hypercalls.
    registers_over_hypercall = "registers::over_hypercall",
    /// Registers over device writes.
    registers_over_device_write = "registers::over_device_write",
    /// Registers over memory faults.
    registers_over_memory_fault = "registers::over_memory_fault",
    /// Registers over WFI.
    registers_over_wfi = "registers::over_wfi",
    /// ID registers.
    identity = "registers::identity",
}
