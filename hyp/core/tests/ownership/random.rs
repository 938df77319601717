//! Random runs of calls: after each, the tables say what the folio array says, a refusal has changed nothing, what left a
//! guest is wiped; and when all VMs are gone, everything is as it was.

use crate::oracle::World;
use pinfold_abi::{HostCall, Status, claim};
use pinfold_core::addr::Ipa;
use pinfold_core::hypervisor::{HostAbort, HostAbortOutcome};
use pinfold_core::machine::Vmid;
use pinfold_core::machine::test::{RAM, gfn};
use pinfold_core::memory::{Share, Unshare};
use pinfold_core::vm::VmHandle;
use proptest::prelude::*;

const FRAMES: u64 = 5 * 512;
/// Where guests have their RAM: two blocks.
const GUEST: u64 = 0x40000;
const GUEST_FRAMES: u64 = 1024;

/// One step of a run. VMs are named by the order of their creation.
#[derive(Clone, Debug)]
enum Step {
    Create,
    /// Pins folios properly, then donates them.
    Donate {
        vm: usize,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u8,
    },
    /// Writes a pin word that is not right, then donates one folio.
    DonateBadly {
        vm: usize,
        gfn: u64,
        pfn: u64,
        order: u8,
        word: u32,
    },
    Share {
        vm: usize,
        gfn: u64,
    },
    Unshare {
        vm: usize,
        gfn: u64,
        pinned: bool,
    },
    Touch {
        pfn: u64,
        kernel: bool,
        write: bool,
        fetch: bool,
    },
    Run(usize),
    Plain(Plain),
}

/// A step that is one call and nothing else.
#[derive(Clone, Debug)]
enum Plain {
    Start(usize),
    Begin(usize),
    Reclaim { vm: usize, gfn: u64, count: u64 },
    Finish(usize),
    PoolDonate { pfn: u64, count: u64 },
    PoolReclaim,
    Words([u64; 8]),
}

fn pfn() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..4, 0_u64..64).prop_map(|(block, at)| RAM + block * 512 + at * 8),
        2 => (0_u64..5).prop_map(|block| RAM + block * 512),
        1 => RAM - 2..RAM + FRAMES + 2,
    ]
}

fn guest_frame() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..128).prop_map(|at| GUEST + at * 8),
        2 => (0_u64..2).prop_map(|block| GUEST + block * 512),
        1 => GUEST - 2..GUEST + GUEST_FRAMES + 2,
    ]
}

fn order() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0_u8), 2 => 1_u8..4, 3 => Just(9_u8)]
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(0x4000_0001),
        Just(0x8000_0001),
        Just(0xC000_0002),
        Just(0xC100_0001),
        any::<u32>()
    ]
}

fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        pfn(),
        guest_frame(),
        Just(0x100),
        Just(0x101),
        Just(u64::MAX),
        Just(1 << 36),
        any::<u64>()
    ]
}

fn words() -> impl Strategy<Value = [u64; 8]> {
    let number = prop_oneof![0_u64..0x70, any::<u64>()];
    (number, prop::array::uniform7(argument())).prop_map(|(number, rest)| {
        let mut x = [
            pinfold_abi::FUNCTION_BASE.wrapping_add(number),
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        x[1..].copy_from_slice(&rest);
        x
    })
}

fn step() -> impl Strategy<Value = Step> {
    let vm = || 0_usize..3;
    prop_oneof![
        2 => Just(Step::Create),
        8 => (vm(), guest_frame(), pfn(), 1_u64..20, order())
            .prop_map(|(vm, gfn, pfn, count, order)| Step::Donate { vm, gfn, pfn, count, order }),
        2 => (vm(), guest_frame(), pfn(), order(), word())
            .prop_map(|(vm, gfn, pfn, order, word)| Step::DonateBadly { vm, gfn, pfn, order, word }),
        4 => (vm(), guest_frame()).prop_map(|(vm, gfn)| Step::Share { vm, gfn }),
        3 => (vm(), guest_frame(), any::<bool>()).prop_map(|(vm, gfn, pinned)| Step::Unshare { vm, gfn, pinned }),
        3 => (pfn(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(pfn, kernel, write, fetch)| Step::Touch { pfn, kernel, write, fetch }),
        1 => vm().prop_map(Step::Run),
        12 => plain().prop_map(Step::Plain).boxed(),
    ]
}

fn plain() -> impl Strategy<Value = Plain> {
    let vm = || 0_usize..3;
    prop_oneof![
        1 => vm().prop_map(Plain::Start),
        1 => vm().prop_map(Plain::Begin),
        4 => (vm(), guest_frame(), 1_u64..513).prop_map(|(vm, gfn, count)| Plain::Reclaim { vm, gfn, count }),
        1 => vm().prop_map(Plain::Finish),
        2 => (pfn(), 1_u64..40).prop_map(|(pfn, count)| Plain::PoolDonate { pfn, count }),
        2 => Just(Plain::PoolReclaim),
        3 => words().prop_map(Plain::Words).boxed(),
    ]
}

/// A run: the world, and the VMs that were created.
struct Run {
    world: World,
    vms: Vec<u64>,
}

impl Run {
    fn vm(&self, vm: usize) -> claim::Handle {
        claim::Handle(self.vms.get(vm).copied().unwrap_or(0x100))
    }

    /// Makes a call and checks that a refusal changed nothing.
    fn call(&mut self, call: HostCall) -> Option<(Status, u64)> {
        let before = self.world.snapshot();
        let x = self.world.call(call);
        if x[0] != 0 {
            assert_eq!(
                before,
                self.world.snapshot(),
                "{call:x?} is not known and changed something"
            );
            return None;
        }
        let status = Status::from_number(x[1]).unwrap();
        if !matches!(status, Status::Ok | Status::Again) {
            assert_eq!(
                before,
                self.world.snapshot(),
                "{call:x?} was refused as {status:?} and changed something"
            );
        }
        Some((status, x[2]))
    }

    fn donate(&mut self, vm: usize, gfn: u64, pfn: u64, count: u64, order: u8) -> Status {
        let call = HostCall::MemDonate {
            vm: self.vm(vm),
            gfn: claim::Gfn(gfn),
            pfn: claim::Pfn(pfn),
            count: claim::Count(count),
            order: claim::Order(u64::from(order)),
        };
        self.call(call).unwrap().0
    }

    fn share(&mut self, vm: usize, at: u64) {
        let before = self.world.snapshot();
        let Some(handle) = VmHandle::new(self.vm(vm).0) else {
            return;
        };
        let hypervisor = &mut self.world.hypervisor;
        let Ok(vm) = hypervisor.vms.get(handle) else {
            return;
        };
        if hypervisor
            .memory
            .share(&mut vm.memory, gfn(at))
            .map(Share::commit)
            .is_err()
        {
            assert_eq!(before, self.world.snapshot());
        }
    }

    fn unshare(&mut self, vm: usize, at: u64, pinned: bool) {
        let Some(handle) = VmHandle::new(self.vm(vm).0) else {
            return;
        };
        let Ok(owner) = self.world.hypervisor.vms.get(handle) else {
            return;
        };
        let vmid = owner.memory.slot().vmid();
        if let Some((pfn, _)) = self.world.machine().walk(vmid, at) {
            let word = if pinned {
                pinfold_abi::pin_word::donatable(0)
            } else {
                1
            };
            self.world.pin(pfn, word);
        }
        let before = self.world.snapshot();
        let hypervisor = &mut self.world.hypervisor;
        let vm = hypervisor.vms.get(handle).unwrap();
        let done = hypervisor
            .memory
            .unshare(&mut vm.memory, gfn(at))
            .map(Unshare::commit)
            .is_ok();
        assert!(pinned || !done, "taken back without an exclusive pin");
        if !done {
            assert_eq!(before, self.world.snapshot());
        }
    }

    fn touch(&mut self, pfn: u64, kernel: bool, write: bool, instruction: bool) {
        let ipa = Ipa::new(pfn << 12).unwrap();
        let abort = HostAbort {
            ipa,
            far_is_kernel: kernel,
            from_el0: !kernel,
            write,
            instruction,
            pc: 0x1000,
        };
        let outcome = self.world.hypervisor.host_abort(abort);
        let found = self.world.machine().walk(Vmid::HOST, pfn);
        match outcome {
            HostAbortOutcome::Retry | HostAbortOutcome::Decoy => {
                assert!(found.is_some(), "it would fault for ever");
            }
            HostAbortOutcome::Inject => {}
        }
    }

    fn create(&mut self) {
        let call = HostCall::VmCreate {
            flags: claim::Flags(1),
            vcpus: claim::Count(1),
        };
        let Some((Status::Ok, handle)) = self.call(call) else {
            return;
        };
        self.vms.push(handle);
        let vm = claim::Handle(handle);
        self.call(HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(GUEST),
            count: claim::Count(GUEST_FRAMES),
        });
        self.call(HostCall::VcpuCreate {
            vm,
            vcpu: claim::VcpuIndex(0),
            flags: claim::Flags(0),
        });
    }

    fn donate_pinned(&mut self, vm: usize, gfn: u64, pfn: u64, count: u64, order: u8) {
        let size = 1 << order;
        let (pfn, count) = (pfn & !(size - 1), count.min(512 / size));
        for head in (0..count).map(|folio| pfn + folio * size) {
            if head >= RAM && head + size <= RAM + FRAMES {
                self.world.pin_folio(head, order);
            }
        }
        self.donate(vm, gfn & !(size - 1), pfn, count, order);
    }

    fn donate_badly(&mut self, vm: usize, gfn: u64, pfn: u64, order: u8, word: u32) {
        let size = 1 << order;
        let pfn = pfn & !(size - 1);
        if pfn >= RAM
            && pfn + size <= RAM + FRAMES
            && word != pinfold_abi::pin_word::donatable(order)
        {
            self.world.pin_folio(pfn, order);
            self.world.pin(pfn, word);
            let status = self.donate(vm, gfn & !(size - 1), pfn, 1, order);
            assert_ne!(status, Status::Ok, "donated with the pin word {word:#x}");
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Create => self.create(),
            Step::Donate {
                vm,
                gfn,
                pfn,
                count,
                order,
            } => self.donate_pinned(vm, gfn, pfn, count, order),
            Step::DonateBadly {
                vm,
                gfn,
                pfn,
                order,
                word,
            } => self.donate_badly(vm, gfn, pfn, order, word),
            Step::Share { vm, gfn } => self.share(vm, gfn),
            Step::Unshare { vm, gfn, pinned } => self.unshare(vm, gfn, pinned),
            Step::Touch {
                pfn,
                kernel,
                write,
                fetch,
            } => self.touch(pfn, kernel, write, fetch),
            Step::Run(vm) => self.enter(vm),
            Step::Plain(ref plain) => {
                let call = self.plain(plain);
                // A VM that a random call made would not be torn down at the end.
                if let Some(call) = call.filter(|call| !matches!(call, HostCall::VmCreate { .. })) {
                    self.call(call);
                }
            }
        }
    }

    fn plain(&self, plain: &Plain) -> Option<HostCall> {
        match *plain {
            Plain::Start(vm) => Some(HostCall::VmStart { vm: self.vm(vm) }),
            Plain::Begin(vm) => Some(HostCall::VmTeardownBegin { vm: self.vm(vm) }),
            Plain::Finish(vm) => Some(HostCall::VmTeardownFinish { vm: self.vm(vm) }),
            Plain::Reclaim { vm, gfn, count } => Some(HostCall::MemReclaim {
                vm: self.vm(vm),
                gfn: claim::Gfn(gfn),
                count: claim::Count(count),
            }),
            Plain::PoolDonate { pfn, count } => Some(HostCall::PoolDonate {
                first: claim::Pfn(pfn),
                count: claim::Count(count),
            }),
            Plain::PoolReclaim => Some(HostCall::PoolReclaim {}),
            Plain::Words(x) => HostCall::decode(x),
        }
    }

    /// Runs a vCPU until the next interrupt of the host.
    fn enter(&mut self, vm: usize) {
        use pinfold_core::hypervisor::{CallRegisters, HostCallOutcome};
        use pinfold_core::vcpu::VcpuExit;
        let call = HostCall::VcpuRun {
            vm: self.vm(vm),
            vcpu: claim::VcpuIndex(0),
            answer: claim::Value(0),
        };
        let mut registers = CallRegisters::default();
        registers.x[..8].copy_from_slice(&call.encode());
        let outcome = self.world.hypervisor.host_call(&mut registers, 0);
        if let HostCallOutcome::Run(loaded) = outcome {
            self.world
                .hypervisor
                .finish_run(loaded, VcpuExit::Interrupt, &mut registers);
        }
    }

    /// Tears every VM down and empties the pool.
    fn end(&mut self) {
        for vm in 0..self.vms.len() {
            self.call(HostCall::VmTeardownBegin { vm: self.vm(vm) });
            let mut done = 0;
            while done < GUEST_FRAMES {
                let count = claim::Count((GUEST_FRAMES - done).min(512));
                let call = HostCall::MemReclaim {
                    vm: self.vm(vm),
                    gfn: claim::Gfn(GUEST + done),
                    count,
                };
                let Some((Status::Ok | Status::Again, now)) = self.call(call) else {
                    break;
                };
                done += now;
            }
            self.call(HostCall::VmTeardownFinish { vm: self.vm(vm) });
            self.world.check();
        }
        while let Some((Status::Ok, _)) = self.call(HostCall::PoolReclaim {}) {}
        self.world.check();
    }
}

/// A few runs each time, and as many as `PROPTEST_CASES` says for a night.
fn config() -> ProptestConfig {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default().cases
    } else {
        24
    };
    ProptestConfig {
        cases,
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tables_follow_the_folio_array(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run { world: World::new(FRAMES), vms: Vec::new() };
        let (leaves, tables) = (run.world.machine().leaves(Vmid::HOST), run.world.machine().tables_in_use());
        for step in &steps {
            run.step(step);
            run.world.check();
            run.world.guests_write();
        }
        run.end();
        // Pin-table registrations by random words stay; they are rare and make their own tables.
        if run.world.machine().hyp_frames().len() == 3 {
            prop_assert_eq!(leaves, run.world.machine().leaves(Vmid::HOST), "the host's entries are not what they were");
            prop_assert_eq!(tables, run.world.machine().tables_in_use());
        }
    }
}
