//! Nobody panics EL2: a guest tries everything, and so does the host itself; a victim beside them keeps its memory, and the host its machine.
//!
//! The guest's part is `guest/matrix.rs`; here its turns are served, with garbage for every device that it reads. Of the host's own instructions, registers and
//! calls only those are left out that would end the test (they are named where that is). EL2 stands if the next call is answered; a panic of EL2 ends the machine.

use guest_test::bytes::FRAME;
use guest_test::instruction::{self, Slot};
use guest_test::probe::Fault;
use guest_test::smccc::{self, psci};
use guest_test::tap::{Failure, Outcome};
use guest_test::user::{Mode, User};
use guest_test::{accesses, bytes, check, check_eq, gic, line, mmu, start, sweep, tests, timer};
use pinfold_abi::FUNCTION_BASE;

use super::processors::el2_frame;
use super::snapshot::Snapshot;
use crate::calls::{self, ExitReason};
use crate::folio::Folio;
use crate::interrupts::Wiring;
use crate::vm::{Event, SCRATCH_GFN, Vm};

/// What the victim keeps.
const SECRET: u64 = 0x005e_c3e7_5ec3_e700;
/// What a device of the host's reads as.
const GARBAGE: u64 = 0xdead_beef_8000_0001;

/// The ESR of a guest that crashed for an illegal state.
const ILLEGAL_STATE: u64 = 0x0e << 26;

/// How a guest's test ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With its verdict, and off.
    Verdict,
    /// EL2 ends it for an illegal state; or with its verdict, where the CPU does not know that state.
    Illegal,
}

/// A further VM that nothing is to happen to.
struct Victim(Vm);

impl Victim {
    fn new() -> Result<Self, Failure> {
        let mut vm = Vm::puppet()?;
        vm.writes(SCRATCH_GFN * FRAME, SECRET)?;
        Ok(Self(vm))
    }

    fn keeps_its_secret(mut self) -> Outcome {
        check_eq!(
            self.0.reads(SCRATCH_GFN * FRAME)?,
            SECRET,
            "the victim's view"
        );
        self.0.end()
    }
}

/// Runs a test of the guest image to its end, whatever it does on the way.
fn endures(test: &str, vcpus: u64, end: End) -> Outcome {
    let victim = Victim::new()?;
    let wiring = Wiring::read();
    let mut vm = Vm::image(test, vcpus)?;
    let (mut answer, mut turns, mut passed) = (0, 0_u32, false);
    loop {
        let event = vm.next(0, answer)?;
        answer = GARBAGE;
        turns += 1;
        let Event::Exit(exit) = event else {
            if let Event::Verdict(verdict) = event {
                passed = verdict;
            }
            continue;
        };
        match exit.reason {
            ExitReason::MmioRead | ExitReason::MmioWrite | ExitReason::Kick => (),
            ExitReason::CpuOn => run_elsewhere(&vm, exit.details)?,
            ExitReason::SystemOff => break,
            ExitReason::Crashed => {
                let [esr, ..] = exit.details;
                check!(
                    end == End::Illegal && esr == ILLEGAL_STATE,
                    "the guest crashed with ESR {esr:#x}"
                );
                check_eq!(vm.run(0, 0)?, exit, "running what crashed");
                passed = true;
                break;
            }
            ExitReason::Interrupt
            | ExitReason::Wfi
            | ExitReason::MemoryFault
            | ExitReason::Shared
            | ExitReason::UnshareRequest
            | ExitReason::Relinquished
            | ExitReason::PoweredOff
            | ExitReason::SystemReset => {
                return Err(Failure::new(format_args!("{exit:x?}")));
            }
        }
    }
    line!("# {test}: {turns} turns that the host heard of");
    check!(passed, "the guest's verdict (it says why above)");
    vm.end()?;
    check!(
        wiring == Wiring::read(),
        "the guest changed the machine's interrupt controller"
    );
    victim.keeps_its_secret()
}

/// A vCPU that starts nowhere: it may want memory, or be busy with faults of its own until the host's interrupt; EL2 is not.
fn run_elsewhere(vm: &Vm, details: [u64; 3]) -> Outcome {
    let [vcpu, ..] = details;
    for _ in 0..3 {
        let exit = vm.run(vcpu, 0)?;
        check!(
            matches!(exit.reason, ExitReason::Interrupt | ExitReason::MemoryFault),
            "vCPU {vcpu}, which starts nowhere: {exit:x?}"
        );
    }
    Ok(())
}

/// Runs one test of the guest image that comes to a verdict.
fn passes(test: &str) -> Outcome {
    endures(test, 1, End::Verdict)
}

/// Does something to this CPU and EL2; afterwards folios are as before, EL2 answers, and the host has its alarm.
fn stands(what: impl FnOnce() -> Outcome) -> Outcome {
    let before = Snapshot::take()?;
    what()?;
    gic::start(0);
    gic::enable(0, timer::PHYSICAL_INTID);
    check_eq!(start::exception_level(), 1, "CurrentEL");
    before.is_still_so("after all that")?;
    let mut victim = Victim::new()?;
    check_eq!(
        victim.0.does(crate::micro::Command::Spin(1000))?,
        [0; 4],
        "a guest that runs after all that"
    );
    victim.keeps_its_secret()
}

/// The host's instruction came back, or ended in an exception of EL1.
fn own(word: u32, found: Result<u64, Fault>) -> Outcome {
    const CLASSES: [u64; 9] = [0x00, 0x07, 0x0e, 0x18, 0x19, 0x1d, 0x21, 0x25, 0x2d];
    check!(
        found.is_ok() || found.is_err_and(|fault| CLASSES.contains(&fault.class())),
        "{word:#x}: {found:x?}"
    );
    Ok(())
}

/// Whether the form moves no data of its own, or may fail before it does: cache maintenance, `AT`, `PRFM`, store-exclusives.
fn may_come_back(word: u32) -> bool {
    word >> 24 == 0xd5
        || word >> 8 == 0x00f9_8000
        || matches!(word, 0xc803_7c01 | 0xc803_fc01 | 0xc823_0801)
}

/// Every form on an address.
fn each_form(address: u64, mut judge: impl FnMut(Slot, Result<u64, Fault>) -> Outcome) -> Outcome {
    for forms in [accesses::PLAIN.as_slice(), accesses::ODD.as_slice()] {
        // SAFETY: the callers' addresses are devices, or not the host's.
        instruction::with(forms, |slot| judge(slot, unsafe { slot.run(address) }))?;
    }
    Ok(())
}

/// Control frame of CPU 0's redistributor.
const REDISTRIBUTOR: u64 = gic::GICR;
/// The GiB of virtual addresses that shows the devices' as Normal memory.
const NORMAL_GIB: u64 = 300;

macro_rules! matrix {
    ($($(#[$doc:meta])+ $name:ident = $test:literal),+ $(,)?) => {
        tests! { "matrix":
            $($(#[$doc])+ $name { passes($test)?; })+

            /// `AArch32` at EL0 of a guest, which it was not offered, ends it at its next abort.
            guest_aarch32_touch { endures("matrix::narrow_touch", 1, End::Illegal)?; }

            /// The same at the host's next interrupt.
            guest_aarch32_spin { endures("matrix::narrow_spin", 1, End::Illegal)?; }

            /// vCPUs of a guest that start nowhere.
            guest_entry_points { endures("matrix::entry_points", 8, End::Verdict)?; }

            /// PSCI calls of a guest that end its turn, with garbage for arguments.
            guest_endings {
                for (function, wanted) in [
                    (0x8400_0001, ExitReason::Wfi), (0xc400_0001, ExitReason::Wfi), (0x8400_0002, ExitReason::PoweredOff),
                    (0x8400_0008, ExitReason::SystemOff), (0x8400_0009, ExitReason::SystemReset), (0x8400_0012, ExitReason::SystemReset),
                    (0xc400_0012, ExitReason::SystemReset),
                ] {
                    for garbage in [0, 1, 1 << 16, 1 << 31, 1 << 63, u64::MAX] {
                        let mut vm = Vm::puppet()?;
                        // SYSTEM_RESET2 of a type that is neither 0 nor a vendor's (DEN0022, 5.1.11).
                        if function & !(1 << 30) == 0x8400_0012 && matches!(garbage, 1 | 0x1_0000) {
                            check_eq!(smccc::signed(vm.calls(function, garbage)?), psci::INVALID_PARAMETERS, "{function:#x} with {garbage:#x}");
                            vm.end()?;
                            continue;
                        }
                        let exit = vm.last_words([function, garbage, garbage, garbage])?;
                        check_eq!(exit.reason, wanted, "exit after {function:#x} with {garbage:#x}");
                        vm.end()?;
                    }
                }
            }

            /// The host's own registers, all 32,768 encodings read and written.
            host_registers {
                // SAFETY: interrupts are masked.
                stands(|| unsafe { sweep::registers(own) })?;
            }

            /// The host's system instructions, all encodings.
            host_system_instructions {
                // SAFETY: interrupts are masked.
                stands(|| unsafe { sweep::instructions(own) })?;
            }

            /// The host's hints, barriers and changes of PSTATE; its alarm ends what waits.
            host_hints {
                let before = |word| if sweep::waits(word) { timer::arm_physical(0) } else { timer::stop_physical() };
                // SAFETY: the alarm is served.
                stands(|| unsafe { sweep::hints(before, own) })?;
                timer::stop_physical();
            }

            /// `HVC` and `SMC` with an immediate are no calls of the host's either.
            host_immediates {
                stands(|| {
                    for immediate in (0..16).map(|bit| 1 << bit).chain([3, 0x4a48, 0xffff]) {
                        for call in [0xd400_0002_u32, 0xd400_0003] {
                            for function in [u64::from(psci::SYSTEM_OFF), u64::from(psci::CPU_OFF), FUNCTION_BASE, FUNCTION_BASE + 0x21, FUNCTION_BASE + 0x30] {
                                instruction::with(&[call | immediate << 5], |slot| {
                                    // SAFETY: a call changes no memory of this image.
                                    let found = unsafe { slot.run(function) };
                                    check_eq!(found, Ok(smccc::NOT_SUPPORTED), "{:#x} of {function:#x}", slot.word);
                                    Ok(())
                                })?;
                            }
                        }
                    }
                    Ok(())
                })?;
            }

            /// SMCs of every owner with garbage, but for those that power off, reset, or turn this CPU off.
            host_smcs {
                stands(|| {
                    for owner in 0..64_u32 {
                        for kind in [0_u32, 1 << 30, 1 << 31, 3 << 30] {
                            for number in (0..0x40).chain((6..16).map(|bit| 1 << bit)).chain([0xff00, 0xff01, 0xff03, 0xffff]) {
                                let function = kind | owner << 24 | number;
                                if matches!(function, psci::SYSTEM_OFF | psci::SYSTEM_RESET | psci::CPU_OFF) {
                                    continue;
                                }
                                // A suspended CPU comes back with its alarm.
                                timer::arm_physical(timer::now());
                                let [x0, ..] = smccc::smc(function, &[u64::MAX, u64::MAX - 1, 1 << 63]);
                                let is_psci = owner == 4 && kind >> 31 == 1;
                                check!(is_psci || smccc::signed(x0) == smccc::NOT_SUPPORTED, "SMC {function:#x} gave {x0:#x}");
                            }
                        }
                    }
                    timer::stop_physical();
                    Ok(())
                })?;
            }

            /// Every form of access to the frames that EL2 keeps for itself: an abort, and nothing has moved.
            host_accesses_to_el2 {
                let frame = el2_frame()?;
                stands(|| {
                    for offset in [0, 1, 4, 8, 0xff0, 0xff9] {
                        each_form(frame * FRAME + offset, |slot, found| {
                            let refused = found.is_err_and(|fault| fault.is_abort() || fault.is_undefined() || matches!(fault.class(), 0x07 | 0x19));
                            check!(refused || found.is_ok() && may_come_back(slot.word), "{:#x} of EL2's memory: {found:x?}", slot.word);
                            Ok(())
                        })?;
                    }
                    Ok(())
                })?;
            }

            /// Every form of access to the redistributor's frame, which EL2 serves, to `fw_cfg` and to the ITS.
            host_accesses_to_devices {
                // SAFETY: the GiB is used by nothing.
                unsafe { mmu::map_block(bytes::size(NORMAL_GIB), 0) };
                stands(|| {
                    for register in [0, 0x4, 0x8, 0xa, 0xd, 0x70, 0x7c, 0xffe8, 0xfffd] {
                        for address in [REDISTRIBUTOR, 0x0902_0000, 0x0808_0000] {
                            for alias in [address + register, (NORMAL_GIB << 30) + address + register] {
                                each_form(alias, |slot, found| own(slot.word, found))?;
                            }
                        }
                    }
                    Ok(())
                })?;
            }

            /// The host's EL0, in both instruction sets, at EL2's memory and a guest's: aborts of EL0, with EL2's mark, and nothing else.
            host_user_accesses {
                let mut vm = Vm::puppet()?;
                vm.writes(SCRATCH_GFN * FRAME, SECRET)?;
                let taken = [el2_frame()? * FRAME, vm.folio(SCRATCH_GFN)?.address()];
                let code = Folio::take(0)?;
                // SAFETY: the folio is the test's, and nothing lies at EL0's GiB.
                let user = unsafe { User::at(code.address()) };
                for address in taken {
                    let place = user.sees(address);
                    for (mode, words, class) in [
                        (Mode::Wide, &[0xf940_0000, 0xd400_0001], 0x24), (Mode::Wide, &[0xf900_0000, 0xd400_0001], 0x24), (Mode::Wide, &[0xd61f_0000, 0xd400_0001], 0x20),
                        // ldr r0, [r0]; str r0, [r0]; bx r0; ldrd r0, r1, [r0]; svc #0.
                        (Mode::Narrow, &[0xe590_0000, 0xef00_0000], 0x24), (Mode::Narrow, &[0xe580_0000, 0xef00_0000], 0x24),
                        (Mode::Narrow, &[0xe12f_ff10, 0xef00_0000], 0x20), (Mode::Narrow, &[0xe1c0_00d0, 0xef00_0000], 0x24),
                    ] {
                        // SAFETY: the memory is not the host's.
                        let found = unsafe { user.run(mode, words, place) };
                        let is_absent = mode == Mode::Narrow && found.is_some_and(|fault| fault.class() == 0x0e);
                        check!(is_absent || found.is_some_and(|fault| fault.class() == class && fault.has_hypervisor_mark() && fault.far == place),
                            "{mode:?} {words:x?} at {address:#x}: {found:x?}");
                    }
                }
                check_eq!(vm.reads(SCRATCH_GFN * FRAME)?, SECRET, "the guest's view");
                vm.end()?;
            }

            /// EL0 of the host calls nobody: `HVC` and `SMC` are undefined there, in both instruction sets.
            host_user_calls {
                let code = Folio::take(0)?;
                // SAFETY: the folio is the test's, and nothing lies at EL0's GiB.
                let user = unsafe { User::at(code.address()) };
                let unknown = calls::counter(calls::Counter::Calls)?;
                for (mode, word) in [
                    (Mode::Wide, 0xd400_0002_u32), (Mode::Wide, 0xd400_0003), (Mode::Wide, 0xd69f_03e0), (Mode::Narrow, 0xe140_0070), (Mode::Narrow, 0xe160_0070),
                    // mrc p15, 4, r0, c1, c1, 0 (HCR).
                    (Mode::Narrow, 0xee91_0f11),
                ] {
                    // SAFETY: none of them does anything.
                    let found = unsafe { user.run(mode, &[word], FUNCTION_BASE) };
                    check!(found.is_some_and(|fault| matches!(fault.class(), 0x00 | 0x03 | 0x0e)), "{mode:?} {word:#x}: {found:x?}");
                }
                check_eq!(calls::counter(calls::Counter::Calls)? - unknown, 1, "calls that EL2 counted");
            }
        }
    };
}

matrix! {
    /// All system registers, read and written by a guest.
    guest_registers = "matrix::registers",
    /// All system instructions of a guest.
    guest_system_instructions = "matrix::system_instructions",
    /// All hints, barriers and changes of PSTATE of a guest.
    guest_hints = "matrix::hints",
    /// `HVC` and `SMC` of a guest with an immediate.
    guest_immediates = "matrix::immediates",
    /// Every class of exception that a guest's instructions can make.
    guest_classes = "matrix::classes",
    /// A guest's breakpoints, watchpoints and single steps.
    guest_debug = "matrix::debug",
    /// Call numbers of a guest, of all owners and kinds.
    guest_calls = "matrix::calls",
    /// Arguments of a guest's calls.
    guest_call_arguments = "matrix::call_arguments",
    /// Accesses of a guest to its GIC.
    guest_gic_accesses = "matrix::gic_accesses",
    /// Accesses of a guest to nothing, and to the host's devices.
    guest_vacant_accesses = "matrix::vacant_accesses",
    /// Accesses of a guest to what it shares.
    guest_shared_accesses = "matrix::shared_accesses",
    /// First touches of a guest's memory in every form.
    guest_first_touches = "matrix::first_touches",
    /// Fetches of a guest from all but memory.
    guest_fetches = "matrix::fetches",
    /// A guest's own tables in memory that is missing.
    guest_tables_in_missing_memory = "matrix::tables_in_missing_memory",
    /// EL0 of a guest: instructions and registers.
    guest_user_instructions = "matrix::user_instructions",
    /// EL0 of a guest: accesses.
    guest_user_accesses = "matrix::user_accesses",
}
