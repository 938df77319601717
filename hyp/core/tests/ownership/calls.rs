//! Single calls at their edges: ranges, handles, phases, a dry pool, decoys, large memory.

use crate::life::{FIRST, FRAMES, GUEST, create, donate, ok, status, tear_down};
use crate::oracle::World;
use pinfold_abi::{FUNCTION_BASE, HostCall, Status, claim};
use pinfold_core::addr::Ipa;
use pinfold_core::hypervisor::{CallRegisters, HostAbort, HostAbortOutcome, HostCallOutcome};
use pinfold_core::machine::Vmid;
use pinfold_core::machine::test::{RAM, boot, call};
use pinfold_core::memory::WIPES_PER_CALL;

/// Sizes at which arithmetic goes wrong.
const EDGES: [u64; 8] = [
    0,
    513,
    1 << 27,
    1 << 28,
    (1 << 36) - 1,
    1 << 36,
    u64::MAX - 511,
    u64::MAX,
];

/// Calls that an edge makes senseless.
fn senseless(vm: claim::Handle, edge: u64) -> Vec<HostCall> {
    let (gfn, pfn, count) = (claim::Gfn(GUEST), claim::Pfn(FIRST), claim::Count(edge));
    let (one, order) = (claim::Count(1), claim::Order(0));
    let (table, last) = (claim::Pfn(FIRST), claim::Pfn(RAM + FRAMES - 1));
    let mut calls = vec![
        HostCall::MemDonate {
            vm,
            gfn,
            pfn,
            count,
            order,
        },
        HostCall::MemDonate {
            vm,
            gfn,
            pfn: claim::Pfn(edge),
            count: one,
            order,
        },
        HostCall::MemDonate {
            vm,
            gfn,
            pfn,
            count: one,
            order: claim::Order(edge.max(10)),
        },
        HostCall::PoolDonate { first: pfn, count },
        HostCall::PoolDonate {
            first: claim::Pfn(edge),
            count: one,
        },
        HostCall::PinTableRegister {
            table,
            first: claim::Pfn(edge),
            frames: claim::Count(u64::MAX),
        },
        HostCall::FolioDigest {
            first: last,
            count: claim::Count(edge.max(2)),
        },
    ];
    calls.push(HostCall::MemDonate {
        vm,
        gfn: claim::Gfn(edge),
        pfn,
        count: one,
        order,
    });
    calls
}

#[test]
fn ranges_at_the_edges_are_refused() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    let before = world.snapshot();
    for call in EDGES.into_iter().flat_map(|edge| senseless(vm, edge)) {
        assert!(
            !matches!(status(world.call(call)), Status::Ok | Status::Again),
            "{call:x?}"
        );
    }
    assert_eq!(before, world.snapshot());
}

#[test]
fn the_failing_frame_is_named() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    let first = FIRST + 8;
    for pfn in first..first + 8 {
        world.pin_folio(pfn, 0);
    }
    world.pin(first + 5, 0x4000_0001);
    let (gfn, pfn) = (claim::Gfn(GUEST), claim::Pfn(first));
    let x = world.call(HostCall::MemDonate {
        vm,
        gfn,
        pfn,
        count: claim::Count(8),
        order: claim::Order(0),
    });
    assert_eq!(
        x[..5],
        [0, Status::NotExclusivelyPinned.number(), 5, 0, 0x4000_0001]
    );
    world.pin_folio(first + 5, 0);
    ok(world.call(HostCall::MemDonate {
        vm,
        gfn,
        pfn,
        count: claim::Count(8),
        order: claim::Order(0),
    }));
    let x = world.call(HostCall::PoolDonate {
        first: claim::Pfn(first - 3),
        count: claim::Count(8),
    });
    assert_eq!(
        x[..4],
        [0, Status::NotPermitted.number(), 3, 3 | GUEST << 36]
    );
    // A tail that is pinned by itself spoils its folio.
    world.pin_folio(FIRST + 512, 9);
    world.pin(FIRST + 512 + 77, 1);
    let (gfn, pfn) = (claim::Gfn(GUEST + 512), claim::Pfn(FIRST + 512));
    let x = world.call(HostCall::MemDonate {
        vm,
        gfn,
        pfn,
        count: claim::Count(1),
        order: claim::Order(9),
    });
    assert_eq!(x[..5], [0, Status::NotExclusivelyPinned.number(), 77, 0, 1]);
}

#[test]
fn without_a_pin_table_nothing_is_donated() {
    let mut hypervisor = boot(FRAMES);
    let vm = claim::Handle(ok(call(
        &mut hypervisor,
        HostCall::VmCreate {
            flags: claim::Flags(1),
            vcpus: claim::Count(1),
        },
    )));
    ok(call(
        &mut hypervisor,
        HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(GUEST),
            count: claim::Count(8),
        },
    ));
    let (gfn, pfn) = (claim::Gfn(GUEST), claim::Pfn(FIRST));
    let donation = HostCall::MemDonate {
        vm,
        gfn,
        pfn,
        count: claim::Count(1),
        order: claim::Order(0),
    };
    assert_eq!(status(call(&mut hypervisor, donation)), Status::NoPinTable);
}

#[test]
fn a_large_pin_table_takes_several_calls() {
    let mut hypervisor = boot(FRAMES);
    let register = |frames| HostCall::PinTableRegister {
        table: claim::Pfn(FIRST),
        first: claim::Pfn(RAM),
        frames: claim::Count(frames),
    };
    let whole = register(150 * 1024);
    for done in [64, 128] {
        let x = call(&mut hypervisor, whole);
        assert_eq!((status(x), x[2]), (Status::Again, done));
        assert_eq!(
            status(call(&mut hypervisor, register(1024))),
            Status::Exists,
            "it overlaps"
        );
    }
    assert_eq!(ok(call(&mut hypervisor, whole)), 150);
    assert_eq!(status(call(&mut hypervisor, whole)), Status::Exists);
}

#[test]
fn the_failing_frame_is_named_in_every_step() {
    let mut hypervisor = boot(FRAMES);
    let (table, first) = (claim::Pfn(FIRST), claim::Pfn(RAM));
    let (first_of_pool, count) = (claim::Pfn(FIRST + 75), claim::Count(1));
    let gift = HostCall::PoolDonate {
        first: first_of_pool,
        count,
    };
    ok(call(&mut hypervisor, gift));
    let register = HostCall::PinTableRegister {
        table,
        first,
        frames: claim::Count(150 * 1024),
    };
    assert_eq!(status(call(&mut hypervisor, register)), Status::Again);
    let x = call(&mut hypervisor, register);
    assert_eq!((status(x), x[2]), (Status::NotPermitted, 75));
}

#[test]
fn handles_and_phases() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    for raw in [0, 1, vm.0 + 0x100, vm.0 + 1, vm.0 | 1 << 32, u64::MAX] {
        assert_eq!(
            status(world.call(HostCall::VmStart {
                vm: claim::Handle(raw)
            })),
            Status::NoSuchVm
        );
    }
    let region = HostCall::VmMemoryRegion {
        vm,
        first: claim::Gfn(GUEST + 7),
        count: claim::Count(1),
    };
    assert_eq!(status(world.call(region)), Status::Exists);
    assert_eq!(
        status(world.call(HostCall::VmTeardownFinish { vm })),
        Status::WrongPhase
    );
    ok(world.call(HostCall::VcpuCreate {
        vm,
        vcpu: claim::VcpuIndex(0),
        flags: claim::Flags(0),
    }));
    ok(world.call(HostCall::VmStart { vm }));
    assert_eq!(
        status(world.call(HostCall::VmStart { vm })),
        Status::WrongPhase
    );
    assert_eq!(status(world.call(region)), Status::WrongPhase);
    let reclaim = HostCall::MemReclaim {
        vm,
        gfn: claim::Gfn(GUEST),
        count: claim::Count(1),
    };
    assert_eq!(status(world.call(reclaim)), Status::WrongPhase);
    ok(donate(&mut world, vm, 0, 2, 0));
    ok(world.call(HostCall::VmTeardownBegin { vm }));
    assert_eq!(status(donate(&mut world, vm, 8, 1, 0)), Status::WrongPhase);
    let x = world.call(HostCall::VmTeardownFinish { vm });
    assert_eq!((status(x), x[2]), (Status::Busy, 2));
    tear_down(&mut world, vm);
    assert_eq!(
        status(world.call(HostCall::VmTeardownBegin { vm })),
        Status::NoSuchVm
    );
    let next = create(&mut world);
    assert_ne!(next, vm, "a handle names one VM for ever");
}

#[test]
fn a_loaded_vcpu_keeps_its_vm() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    ok(world.call(HostCall::VcpuCreate {
        vm,
        vcpu: claim::VcpuIndex(0),
        flags: claim::Flags(0),
    }));
    ok(world.call(HostCall::VmStart { vm }));
    let run = HostCall::VcpuRun {
        vm,
        vcpu: claim::VcpuIndex(0),
        answer: claim::Value(0),
    };
    let mut registers = CallRegisters::default();
    registers.x[..8].copy_from_slice(&run.encode());
    let HostCallOutcome::Run(loaded) = world.hypervisor.host_call(&mut registers, 0) else {
        panic!("it does not run");
    };
    assert_eq!(status(world.call(run)), Status::Busy);
    assert_eq!(
        status(world.call(HostCall::VmTeardownBegin { vm })),
        Status::Busy
    );
    world.hypervisor.finish_run(
        loaded,
        pinfold_core::vcpu::VcpuExit::Interrupt,
        &mut registers,
    );
    ok(world.call(HostCall::VmTeardownBegin { vm }));
}

#[test]
fn a_dry_pool_refuses_and_can_be_filled() {
    let mut world = World::new(FRAMES);
    let mut vms = Vec::new();
    let refused = loop {
        let x = world.call(HostCall::VmCreate {
            flags: claim::Flags(1),
            vcpus: claim::Count(1),
        });
        if status(x) != Status::Ok {
            break status(x);
        }
        vms.push(claim::Handle(x[2]));
    };
    assert_eq!(refused, Status::NoMemory);
    assert_eq!(
        status(world.call(HostCall::PoolReclaim {})),
        Status::NoMemory,
        "EL2's own reserve is not the host's"
    );
    ok(world.call(HostCall::PoolDonate {
        first: claim::Pfn(FIRST),
        count: claim::Count(64),
    }));
    world.check();
    vms.push(claim::Handle(ok(world.call(HostCall::VmCreate {
        flags: claim::Flags(1),
        vcpus: claim::Count(1),
    }))));
    for vm in vms {
        ok(world.call(HostCall::VmTeardownBegin { vm }));
        ok(world.call(HostCall::VmTeardownFinish { vm }));
    }
    let x = world.call(HostCall::PoolStatus {});
    assert_eq!(x[3], 64);
    for _ in 0..64 {
        ok(world.call(HostCall::PoolReclaim {}));
    }
    assert_eq!(
        status(world.call(HostCall::PoolReclaim {})),
        Status::NoMemory
    );
    world.check();
}

#[test]
fn work_per_call_is_bounded() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    ok(donate(&mut world, vm, 0, 1, 9));
    ok(donate(&mut world, vm, 512, 512, 0));
    world.guests_write();
    ok(world.call(HostCall::VmTeardownBegin { vm }));
    let mut done = 0;
    while done < 1024 {
        let wiped = world.machine().wiped;
        let count = claim::Count((1024 - done).min(512));
        let x = world.call(HostCall::MemReclaim {
            vm,
            gfn: claim::Gfn(GUEST + done),
            count,
        });
        assert!(matches!(status(x), Status::Ok | Status::Again));
        assert!((1..=WIPES_PER_CALL).contains(&(world.machine().wiped - wiped)));
        world.check();
        done += x[2];
    }
    assert_eq!(world.machine().wiped, 1024);
}

pub(crate) fn touch(world: &mut World, pfn: u64) -> HostAbortOutcome {
    let ipa = Ipa::new(pfn << 12).unwrap();
    let abort = HostAbort {
        ipa,
        far_is_kernel: true,
        from_el0: false,
        write: true,
        instruction: false,
        pc: 0,
    };
    world.hypervisor.host_abort(abort)
}

#[test]
fn decoys_are_zero_and_go() {
    let mut world = World::new(FRAMES);
    let before = world.machine().leaves(Vmid::HOST);
    let vm = create(&mut world);
    ok(world.call(HostCall::VcpuCreate {
        vm,
        vcpu: claim::VcpuIndex(0),
        flags: claim::Flags(0),
    }));
    ok(donate(&mut world, vm, 0, 1, 9));
    ok(donate(&mut world, vm, 512, 20, 0));
    ok(world.call(HostCall::VmStart { vm }));
    let tables = world.machine().tables_in_use();
    let decoy = world.hypervisor.memory.decoy_page().raw();
    // More folios than there can be decoys, and two frames of the large one.
    for offset in [0, 100, 512, 513, 514, 515, 516, 517, 3] {
        assert_eq!(touch(&mut world, FIRST + offset), HostAbortOutcome::Decoy);
        assert_eq!(
            world.machine().walk(Vmid::HOST, FIRST + offset).unwrap().0,
            decoy
        );
        world.check();
    }
    let run = HostCall::VcpuRun {
        vm,
        vcpu: claim::VcpuIndex(0),
        answer: claim::Value(0),
    };
    let mut registers = CallRegisters::default();
    registers.x[..8].copy_from_slice(&run.encode());
    let HostCallOutcome::Run(loaded) = world.hypervisor.host_call(&mut registers, 0) else {
        panic!("it does not run");
    };
    assert_eq!(
        world.machine().walk(Vmid::HOST, FIRST),
        None,
        "the guest runs"
    );
    world.hypervisor.finish_run(
        loaded,
        pinfold_core::vcpu::VcpuExit::Interrupt,
        &mut registers,
    );
    assert_eq!(world.machine().tables_in_use(), tables, "a table was lost");
    assert_eq!(touch(&mut world, FIRST + 1), HostAbortOutcome::Decoy);
    tear_down(&mut world, vm);
    assert_eq!(world.machine().leaves(Vmid::HOST), before);
}

#[test]
fn decoys_take_no_more_tables_than_were_put_aside() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    ok(donate(&mut world, vm, 0, 1, 9));
    ok(donate(&mut world, vm, 512, 20, 0));
    let tables = world.machine().tables_in_use();
    for offset in [512, 0, 513, 514, 515, 516, 1, 517, 518, 519, 520, 2] {
        assert_eq!(touch(&mut world, FIRST + offset), HostAbortOutcome::Decoy);
        assert_eq!(world.machine().tables_in_use(), tables, "at {offset}");
    }
}

#[test]
fn a_gib_of_ram_is_one_block_again() {
    const GIB: u64 = 1 << 18;
    let mut hypervisor = boot(3 * GIB);
    let before = hypervisor.memory.machine().leaves(Vmid::HOST);
    assert_eq!(
        before
            .iter()
            .filter(|leaf| leaf.pfn == RAM + GIB && leaf.frames == GIB)
            .count(),
        1
    );
    let first = RAM + GIB + 5 * 512;
    ok(call(
        &mut hypervisor,
        HostCall::PoolDonate {
            first: claim::Pfn(first + 7),
            count: claim::Count(3),
        },
    ));
    assert_eq!(
        hypervisor.memory.machine().leaves(Vmid::HOST).len(),
        before.len() - 1 + 511 + 509
    );
    for _ in 0..3 {
        ok(call(&mut hypervisor, HostCall::PoolReclaim {}));
    }
    assert_eq!(hypervisor.memory.machine().leaves(Vmid::HOST), before);
}

#[test]
fn unknown_functions_are_not_supported() {
    let mut world = World::new(FRAMES);
    let before = world.snapshot();
    for function in [
        FUNCTION_BASE + 2,
        FUNCTION_BASE + 0xFF,
        0xC600_0000,
        0x8400_0000,
        0,
        u64::MAX,
    ] {
        let mut registers = CallRegisters { x: [7; 18] };
        registers.x[0] = function;
        world.hypervisor.host_call(&mut registers, 0);
        let mut expected = [7; 18];
        expected[0] = u64::MAX;
        assert_eq!(registers.x, expected);
    }
    assert_eq!(before, world.snapshot());
}

#[test]
fn a_call_leaves_other_registers_alone() {
    let mut world = World::new(FRAMES);
    let mut registers = CallRegisters { x: [7; 18] };
    registers.x[..8].copy_from_slice(&HostCall::Version {}.encode());
    world.hypervisor.host_call(&mut registers, 0);
    assert_eq!(registers.x[..3], [0, 0, 0x1_0000]);
    assert_eq!(registers.x[8..], [7; 10]);
}

#[test]
fn a_pool_donation_that_el2_cannot_map_changes_nothing() {
    let mut world = World::new(FRAMES);
    let before = world.snapshot();
    world.hypervisor.memory.machine_mut().hyp_is_full = true;
    let donation = HostCall::PoolDonate {
        first: claim::Pfn(FIRST),
        count: claim::Count(4),
    };
    assert_eq!(status(world.call(donation)), Status::NoMemory);
    assert_eq!(before, world.snapshot());
}

#[test]
fn beyond_40_bits_there_is_nothing() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    for pfn in [RAM | 1 << 28, (1 << 36) - 1] {
        let ipa = Ipa::new(pfn << 12).unwrap();
        let abort = HostAbort {
            ipa,
            far_is_kernel: true,
            from_el0: false,
            write: false,
            instruction: false,
            pc: 0,
        };
        assert_eq!(world.hypervisor.host_abort(abort), HostAbortOutcome::Inject);
        let region = HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(pfn),
            count: claim::Count(1),
        };
        assert_eq!(status(world.call(region)), Status::Invalid);
    }
}
