//! Runs on a machine of plain memory: what a guest gets, and what the host learns.

use super::*;
use crate::addr::Frame;
use crate::exit::Syndrome;
use crate::id_registers::ID_REGISTERS;
use crate::machine::test::{FakeMachine, RAM, boot, call};
use pinfold_abi::{ExitReason, HostCall, State, Status, claim, pin_word};

const FRAMES: u64 = 4 * 512;
const GUEST: u64 = 0x40000;
const GICD: u64 = 0x800_0000;
const GICR: u64 = 0x80a_0000;
const UART: u64 = 0x900_0000;
/// The frame that is donated as the guest's first one.
const FIRST: u64 = RAM + 2 * 512;

struct Host {
    hypervisor: Hypervisor<FakeMachine>,
    vm: claim::Handle,
    processor: Processor,
    now: u64,
}

impl Host {
    /// A started VM of two vCPUs, the second one off.
    fn new() -> Self {
        let mut hypervisor = boot(FRAMES);
        let mut done = |host_call| {
            let x = call(&mut hypervisor, host_call);
            assert_eq!(x[..2], [0, Status::Ok.number()]);
            x[2]
        };
        // A frame of the table speaks for 1024 frames.
        let table = claim::Pfn(RAM + FRAMES - 2);
        done(HostCall::PinTableRegister {
            table,
            first: claim::Pfn(RAM),
            frames: claim::Count(FRAMES),
        });
        let vm = claim::Handle(done(HostCall::VmCreate {
            flags: claim::Flags(1),
            vcpus: claim::Count(2),
        }));
        done(HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(GUEST),
            count: claim::Count(1024),
        });
        done(HostCall::VmGic {
            vm,
            distributor: claim::Ipa(GICD),
            redistributors: claim::Ipa(GICR),
        });
        for index in 0..2 {
            done(HostCall::VcpuCreate {
                vm,
                vcpu: claim::VcpuIndex(index),
                flags: claim::Flags(index),
            });
        }
        done(HostCall::VmStart { vm });
        let processor = Processor {
            id_registers: [0; ID_REGISTERS],
            list_registers: 4,
        };
        Self {
            hypervisor,
            vm,
            processor,
            now: 0,
        }
    }

    fn pin(&mut self, pfn: u64, word: u32) {
        let index = usize::try_from(pfn - RAM).unwrap();
        let table = RAM + FRAMES - 2 + (pfn - RAM) / 1024;
        self.hypervisor
            .memory
            .machine_mut()
            .set_pin_word(table, index % 1024, word);
    }

    fn donate(&mut self, offset: u64) {
        self.pin(FIRST + offset, pin_word::donatable(0));
        let x = call(
            &mut self.hypervisor,
            HostCall::MemDonate {
                vm: self.vm,
                gfn: claim::Gfn(GUEST + offset),
                pfn: claim::Pfn(FIRST + offset),
                count: claim::Count(1),
                order: claim::Order(0),
            },
        );
        assert_eq!(x[..3], [0, 0, 1]);
    }

    fn begin(&mut self, index: u64, answer: u64) -> RunStart {
        let handle = VmHandle::new(self.vm.0).unwrap();
        self.hypervisor.begin_run(handle, index, answer, 0).unwrap()
    }

    fn enter(&mut self, index: u64, answer: u64) -> LoadedVcpu {
        let RunStart::Enter(mut loaded) = self.begin(index, answer) else {
            panic!("it stops")
        };
        self.hypervisor
            .prepare_entry(&mut loaded, &self.processor, self.now);
        loaded
    }

    fn exit(&mut self, loaded: &mut LoadedVcpu, exit: Exit) -> Resumption {
        self.hypervisor.guest_exit(loaded, exit, &self.processor)
    }

    /// Runs vCPU 0 into `exit`, with `x` in its first registers, and tells what the host sees.
    fn turn(&mut self, answer: u64, x: [u64; 4], exit: Exit) -> [u64; 4] {
        let mut loaded = self.enter(0, answer);
        loaded.vcpu.context.answer(x);
        let Resumption::Host(reason) = self.exit(&mut loaded, exit) else {
            panic!("it resumes")
        };
        self.finish(loaded, reason)
    }

    fn finish(&mut self, loaded: LoadedVcpu, reason: VcpuExit) -> [u64; 4] {
        let mut registers = CallRegisters { x: [0xcafe; 18] };
        self.hypervisor.finish_run(loaded, reason, &mut registers);
        assert_eq!(registers.x[..2], [0, 0]);
        assert_eq!(registers.x[6..], [0xcafe; 12], "more than the exit's words");
        [
            registers.x[2],
            registers.x[3],
            registers.x[4],
            registers.x[5],
        ]
    }
}

const HVC: Exit = Exit::Call(Conduit::Hvc(0));

/// A 32-bit access of X2.
fn access(ipa: u64, write: bool) -> Exit {
    let iss = 1 << 24 | 2 << 22 | 2 << 16 | u64::from(write) << 6 | 7;
    Exit::decode(Syndrome {
        esr: 0x24 << 26 | iss,
        far: ipa & 0xfff,
        hpfar: ipa >> 12 << 4,
    })
}

#[test]
fn a_device_write_tells_address_width_and_value() {
    let mut host = Host::new();
    let words = host.turn(0, [1, 2, 0xdead_beef_1234_5678, 4], access(UART + 4, true));
    assert_eq!(
        words,
        [ExitReason::MmioWrite.number(), UART + 4, 4, 0x1234_5678]
    );
    assert_eq!(host.enter(0, 99).vcpu.context.pc, 4, "the store is over");
}

#[test]
fn a_device_read_takes_the_answer_once() {
    let mut host = Host::new();
    let words = host.turn(0, [1, 2, 3, 4], access(UART, false));
    assert_eq!(words, [ExitReason::MmioRead.number(), UART, 4, 0]);
    let mut loaded = host.enter(0, 0xffff_ffff_8000_0001);
    assert_eq!(loaded.vcpu.context.arguments(), [1, 2, 0x8000_0001, 4]);
    assert_eq!(loaded.vcpu.context.pc, 4);
    let Resumption::Host(reason) = host.exit(&mut loaded, Exit::Interrupt) else {
        panic!("it resumes")
    };
    assert_eq!(host.finish(loaded, reason), [0; 4]);
    assert_eq!(
        host.enter(0, 77).vcpu.context.arguments(),
        [1, 2, 0x8000_0001, 4],
        "an answer to nothing"
    );
}

#[test]
fn guest_ram_that_is_missing_is_told_by_frame() {
    let mut host = Host::new();
    let fault = access((GUEST + 5) << 12 | 0x123, true);
    assert_eq!(
        host.turn(0, [0; 4], fault),
        [ExitReason::MemoryFault.number(), GUEST + 5, 1, 0]
    );
    assert_eq!(
        host.enter(0, 0).vcpu.context.pc,
        0,
        "the store is tried again"
    );
}

#[test]
fn sharing_asks_for_the_frame_first() {
    let mut host = Host::new();
    let share = [0xc600_0003, (GUEST + 3) << 12, 0, 0];
    let mut loaded = host.enter(0, 0);
    loaded.vcpu.context.answer(share);
    loaded.vcpu.context.pc = 0x104;
    let Resumption::Host(reason) = host.exit(&mut loaded, HVC) else {
        panic!("it resumes")
    };
    assert_eq!(loaded.vcpu.context.pc, 0x100, "the call is repeated");
    assert_eq!(
        host.finish(loaded, reason)[..2],
        [ExitReason::MemoryFault.number(), GUEST + 3]
    );
    host.donate(3);
    assert_eq!(
        host.turn(0, share, HVC)[..3],
        [ExitReason::Shared.number(), GUEST + 3, 1]
    );
    assert_eq!(
        host.enter(0, 0).vcpu.context.arguments(),
        [SUCCESS, 0, 0, 0]
    );
}

#[test]
fn unsharing_waits_for_the_pin() {
    let mut host = Host::new();
    host.donate(0);
    host.turn(0, [0xc600_0003, GUEST << 12, 0, 0], HVC);
    host.pin(FIRST, 1);
    let unshare = [0xc600_0004, GUEST << 12, 0, 0];
    let request = [ExitReason::UnshareRequest.number(), GUEST, 1, 0];
    assert_eq!(host.turn(0, unshare, HVC), request);
    let loaded = host.enter(0, 1);
    assert_eq!(
        loaded.vcpu.context.arguments(),
        [INVALID_PARAMETER, 0, 0, 0],
        "the host could not"
    );
    host.finish(loaded, VcpuExit::Interrupt);
    assert_eq!(host.turn(0, unshare, HVC), request);
    host.pin(FIRST, pin_word::donatable(0));
    let mut loaded = host.enter(0, 0);
    assert_eq!(loaded.vcpu.context.arguments(), unshare);
    assert_eq!(host.exit(&mut loaded, HVC), Resumption::Guest);
    assert_eq!(loaded.vcpu.context.arguments(), [SUCCESS, 0, 0, 0]);
}

#[test]
fn a_host_may_decline_what_is_shared() {
    let mut host = Host::new();
    host.donate(0);
    let share = [0xc600_0003, GUEST << 12, 0, 0];
    let shared = [ExitReason::Shared.number(), GUEST, 1, 0];
    assert_eq!(host.turn(0, share, HVC), shared);
    let loaded = host.enter(0, 1);
    assert_eq!(
        loaded.vcpu.context.arguments(),
        [INVALID_PARAMETER, 0, 0, 0]
    );
    host.finish(loaded, VcpuExit::Interrupt);
    let state = |host: &Host| {
        let folios = host.hypervisor.memory.folios();
        folios.whole(Frame::new(FIRST).unwrap()).state.number()
    };
    assert_eq!(state(&host), State::Guest);

    // With a pin word by which the host can use it, it is the host's to use.
    assert_eq!(host.turn(0, share, HVC), shared);
    host.pin(FIRST, 1);
    let loaded = host.enter(0, 1);
    assert_eq!(loaded.vcpu.context.arguments(), [SUCCESS, 0, 0, 0]);
    assert_eq!(state(&host), State::GuestSharedHost);
    host.finish(loaded, VcpuExit::Interrupt);
    // The answer was for that exit, and for no later one.
    host.pin(FIRST, pin_word::donatable(0));
    let loaded = host.enter(0, 1);
    assert_eq!(loaded.vcpu.context.arguments(), [SUCCESS, 0, 0, 0]);
    assert_eq!(state(&host), State::GuestSharedHost);
}

#[test]
fn the_end_of_the_machine_leaves_no_registers() {
    let mut host = Host::new();
    let mut loaded = host.enter(0, 0);
    loaded.vcpu.context.x = [0x005e_c7e7; 31];
    loaded.vcpu.context.fp.v = [0x005e_c7e7; 32];
    host.finish(loaded, VcpuExit::Interrupt);
    host.hypervisor.end_guests();
    let vm = host.hypervisor.vms.get(VmHandle::new(host.vm.0).unwrap());
    let vcpu = vm.unwrap().vcpus.load(0).unwrap();
    assert_eq!(vcpu.context.x, [0; 31]);
    assert_eq!(vcpu.context.fp.v, [0; 32]);
}

#[test]
fn only_the_guest_says_where_a_vcpu_starts() {
    let mut host = Host::new();
    assert!(matches!(
        host.begin(1, 0),
        RunStart::Stop(VcpuExit::PoweredOff)
    ));
    let set = |host: &mut Host| {
        let (vm, vcpu) = (host.vm, claim::VcpuIndex(1));
        let (register, value) = (claim::Number(32), claim::Value(0xbad));
        call(
            &mut host.hypervisor,
            HostCall::VcpuSetRegister {
                vm,
                vcpu,
                register,
                value,
            },
        )
    };
    set(&mut host);
    let words = host.turn(0, [0xc400_0003, 1, 0x4008_0000, 7], HVC);
    assert_eq!(words[..2], [ExitReason::CpuOn.number(), 1]);
    set(&mut host);
    let mut loaded = host.enter(1, 0);
    assert_eq!(
        (loaded.vcpu.context.pc, loaded.vcpu.context.x[0]),
        (0x4008_0000, 7)
    );
    assert_eq!(loaded.affinity, 1 << 31 | 1);
    loaded.vcpu.context.answer([0x8400_0002, 0, 0, 0]);
    let Resumption::Host(reason) = host.exit(&mut loaded, HVC) else {
        panic!("it resumes")
    };
    assert_eq!(
        host.finish(loaded, reason)[0],
        ExitReason::PoweredOff.number()
    );
    assert!(matches!(
        host.begin(1, 0),
        RunStart::Stop(VcpuExit::PoweredOff)
    ));
}

#[test]
fn a_vcpu_runs_on_one_processor_at_a_time() {
    let mut host = Host::new();
    let loaded = host.enter(0, 0);
    let handle = VmHandle::new(host.vm.0).unwrap();
    assert!(matches!(
        host.hypervisor.begin_run(handle, 0, 0, 1),
        Err(Refusal::Busy(_))
    ));
    host.finish(loaded, VcpuExit::Interrupt);
    assert!(!host.enter(0, 0).stale);
}

#[test]
fn another_vcpu_on_the_same_processor_finds_it_stale() {
    let mut host = Host::new();
    host.turn(0, [0xc400_0003, 1, 0, 0], HVC);
    let loaded = host.enter(1, 0);
    assert!(loaded.stale);
    host.finish(loaded, VcpuExit::Interrupt);
    assert!(host.enter(0, 0).stale);
}

#[test]
fn a_system_that_is_off_stays_off() {
    let mut host = Host::new();
    assert_eq!(
        host.turn(0, [0x8400_0008, 0, 0, 0], HVC)[0],
        ExitReason::SystemOff.number()
    );
    assert!(matches!(
        host.begin(0, 0),
        RunStart::Stop(VcpuExit::SystemOff)
    ));
    assert!(matches!(
        host.begin(1, 0),
        RunStart::Stop(VcpuExit::SystemOff)
    ));
}

#[test]
fn a_crash_is_final_and_shows_no_operand() {
    let mut host = Host::new();
    let illegal = Exit::decode(Syndrome {
        esr: 0x0e << 26 | 0x1ff_ffff,
        far: 1,
        hpfar: 2,
    });
    let words = [ExitReason::Crashed.number(), 0x0e << 26, 0, 0];
    assert_eq!(host.turn(0, [1, 2, 3, 4], illegal), words);
    assert!(matches!(
        host.begin(0, 0),
        RunStart::Stop(VcpuExit::Crashed { .. })
    ));
}

#[test]
fn what_comes_from_aarch32_ends_the_vcpu() {
    for exit in [
        Exit::Interrupt,
        Exit::Call(Conduit::Hvc(0)),
        Exit::Undefined,
    ] {
        let mut host = Host::new();
        let mut loaded = host.enter(0, 0);
        loaded.vcpu.context.pstate = 0x1d0;
        let resumption = host.exit(&mut loaded, exit);
        let esr = 0x0e << 26;
        assert_eq!(resumption, Resumption::Host(VcpuExit::Crashed { esr }));
        assert_eq!(loaded.vcpu.crashed, Some(esr));
    }
}

#[test]
fn waiting_ends_with_the_timer_or_an_interrupt() {
    let mut host = Host::new();
    let mut loaded = host.enter(0, 0);
    loaded.vcpu.context.timer = crate::vcpu::TimerState {
        control: 1,
        compare: 1000,
    };
    let Resumption::Host(reason) = host.exit(&mut loaded, Exit::WaitForInterrupt) else {
        panic!("it resumes")
    };
    assert_eq!(
        host.finish(loaded, reason),
        [ExitReason::Wfi.number(), 1000, 0, 0]
    );
    // Distributor on, PPI 27 enabled.
    let mut write = |ipa, value| {
        let mut loaded = host.enter(0, 0);
        loaded.vcpu.context.answer([0, 0, value, 0]);
        assert_eq!(host.exit(&mut loaded, access(ipa, true)), Resumption::Guest);
        host.finish(loaded, VcpuExit::Interrupt);
    };
    write(GICD, 2);
    write(GICR + 0x1_0100, 1 << 27);
    host.now = 1000;
    let mut loaded = host.enter(0, 0);
    assert_eq!(
        (loaded.vcpu.lists.used, loaded.vcpu.lists.timer_held),
        (1, true)
    );
    assert_eq!(
        host.exit(&mut loaded, Exit::WaitForInterrupt),
        Resumption::Guest
    );
}

#[test]
fn an_sgi_to_another_vcpu_kicks_it() {
    let mut host = Host::new();
    host.turn(0, [0xc400_0003, 1, 0, 0], HVC);
    let loaded = host.enter(1, 0);
    host.finish(loaded, VcpuExit::Interrupt);
    let sgi = Exit::decode(Syndrome {
        esr: 0x18 << 26 | 3 << 20 | 5 << 17 | 12 << 10 | 2 << 5 | 11 << 1,
        far: 0,
        hpfar: 0,
    });
    assert_eq!(
        host.turn(0, [0, 0, 3 << 24 | 0b10, 0], sgi)[..2],
        [ExitReason::Kick.number(), 0b10]
    );
    let mut loaded = host.enter(0, 0);
    loaded.vcpu.context.answer([0, 0, 3 << 24 | 0b01, 0]);
    assert_eq!(host.exit(&mut loaded, sgi), Resumption::Guest, "to itself");
}

#[test]
fn an_unknown_register_is_undefined_for_the_guest() {
    let mut host = Host::new();
    let mut loaded = host.enter(0, 0);
    let pmcr = Exit::decode(Syndrome {
        esr: 0x18 << 26 | 3 << 20 | 3 << 14 | 9 << 10 | 12 << 1 | 1,
        far: 0,
        hpfar: 0,
    });
    assert_eq!(host.exit(&mut loaded, pmcr), Resumption::Guest);
    assert_eq!(
        (loaded.vcpu.injection, loaded.vcpu.context.pc),
        (Some(Injection::undefined()), 0)
    );
}

#[test]
fn an_access_that_nobody_can_emulate_is_the_guests_abort() {
    let mut host = Host::new();
    let mut loaded = host.enter(0, 0);
    let without_isv = Exit::decode(Syndrome {
        esr: 0x24 << 26 | 7,
        far: 0,
        hpfar: UART >> 8,
    });
    assert_eq!(host.exit(&mut loaded, without_isv), Resumption::Guest);
    assert!(loaded.vcpu.injection.is_some());
    loaded.vcpu.injection = None;
    let fetch = Exit::decode(Syndrome {
        esr: 0x20 << 26 | 7,
        far: 0,
        hpfar: UART >> 8,
    });
    assert_eq!(host.exit(&mut loaded, fetch), Resumption::Guest);
    assert!(loaded.vcpu.injection.is_some());
}

#[test]
fn no_exit_panics() {
    let mut host = Host::new();
    for class in 0..64 {
        for pattern in [0, 0x1ff_ffff, 0x155_5555, 0xaa_aaaa, 0x1e0_0047] {
            for conduit in [0, u64::MAX] {
                let mut loaded = host.enter(0, 0);
                loaded.vcpu.context.x = [conduit; 31];
                let syndrome = Syndrome {
                    esr: class << 26 | pattern,
                    far: u64::MAX,
                    hpfar: u64::MAX,
                };
                if let Resumption::Host(reason) = host.exit(&mut loaded, Exit::decode(syndrome)) {
                    // The next round needs a vCPU that runs.
                    loaded.vcpu.crashed = None;
                    host.finish(loaded, reason);
                } else {
                    host.finish(loaded, VcpuExit::Interrupt);
                }
            }
        }
    }
}
