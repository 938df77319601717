//! One VM from its creation to its end, call by call, with the oracle after each.

use crate::calls::touch;
use crate::oracle::World;
use pinfold_abi::{HostCall, Status, claim};
use pinfold_core::hypervisor::HostAbortOutcome;
use pinfold_core::machine::Vmid;
use pinfold_core::machine::test::{RAM, gfn};
use pinfold_core::memory::{Share, Unshare};
use pinfold_core::vm::VmHandle;

pub(crate) const FRAMES: u64 = 8 * 512;
/// The first frame that the tests donate.
pub(crate) const FIRST: u64 = RAM + 2 * 512;
/// Where the guest has it.
pub(crate) const GUEST: u64 = 0x40000;

pub(crate) fn ok(x: [u64; 8]) -> u64 {
    assert_eq!(x[..2], [0, Status::Ok.number()], "refused: {x:#x?}");
    x[2]
}

pub(crate) fn status(x: [u64; 8]) -> Status {
    assert_eq!(x[0], 0);
    Status::from_number(x[1]).unwrap()
}

pub(crate) fn create(world: &mut World) -> claim::Handle {
    let vm = claim::Handle(ok(world.call(HostCall::VmCreate {
        flags: claim::Flags(1),
        vcpus: claim::Count(2),
    })));
    ok(world.call(HostCall::VmMemoryRegion {
        vm,
        first: claim::Gfn(GUEST),
        count: claim::Count(4 * 512),
    }));
    vm
}

pub(crate) fn donate(
    world: &mut World,
    vm: claim::Handle,
    offset: u64,
    count: u64,
    order: u8,
) -> [u64; 8] {
    for folio in 0..count {
        world.pin_folio(FIRST + offset + (folio << order), order);
    }
    let mut done = 0;
    loop {
        let offset = offset + (done << order);
        let mut x = world.call(HostCall::MemDonate {
            vm,
            gfn: claim::Gfn(GUEST + offset),
            pfn: claim::Pfn(FIRST + offset),
            count: claim::Count(count - done),
            order: claim::Order(u64::from(order)),
        });
        if status(x) == Status::Again {
            done += x[2];
            continue;
        }
        if status(x) == Status::Ok {
            x[2] += done;
        }
        return x;
    }
}

pub(crate) fn tear_down(world: &mut World, vm: claim::Handle) {
    ok(world.call(HostCall::VmTeardownBegin { vm }));
    for first in (0..4 * 512).step_by(512) {
        let mut done = 0;
        while done < 512 {
            let x = world.call(HostCall::MemReclaim {
                vm,
                gfn: claim::Gfn(GUEST + first + done),
                count: claim::Count(512 - done),
            });
            world.check();
            assert!(matches!(status(x), Status::Ok | Status::Again));
            done += x[2];
        }
    }
    ok(world.call(HostCall::VmTeardownFinish { vm }));
    world.check();
}

fn share(world: &mut World, vm: claim::Handle, at: u64) -> bool {
    let vm = world
        .hypervisor
        .vms
        .get(VmHandle::new(vm.0).unwrap())
        .unwrap();
    world
        .hypervisor
        .memory
        .share(&mut vm.memory, gfn(at))
        .map(Share::commit)
        .is_ok()
}

fn unshare(world: &mut World, vm: claim::Handle, at: u64) -> bool {
    let vm = world
        .hypervisor
        .vms
        .get(VmHandle::new(vm.0).unwrap())
        .unwrap();
    world
        .hypervisor
        .memory
        .unshare(&mut vm.memory, gfn(at))
        .map(Unshare::commit)
        .is_ok()
}

#[test]
fn boot_maps_the_largest_blocks() {
    let world = World::new(FRAMES);
    world.check();
    let leaves = world.machine().leaves(Vmid::HOST);
    // The GiB of registers with a hole; all other GiBs but that of RAM; RAM itself; what follows RAM.
    let below = 511 + 511;
    let blocks_of_ram = 8 - 2;
    let pages_of_pin_table = 512;
    assert_eq!(
        leaves.len(),
        below + 1022 + blocks_of_ram + pages_of_pin_table + (512 - 8)
    );
}

#[test]
fn a_vm_comes_and_goes() {
    let mut world = World::new(FRAMES);
    let before = world.machine().leaves(Vmid::HOST);
    let pool = world.machine().tables_in_use();
    for round in 0..6 {
        let vm = create(&mut world);
        assert_eq!(ok(donate(&mut world, vm, 0, 1, 9)), 1);
        world.check();
        assert_eq!(ok(donate(&mut world, vm, 512, 3, 0)), 3);
        assert_eq!(ok(donate(&mut world, vm, 516, 4, 2)), 4);
        assert_eq!(ok(donate(&mut world, vm, 1024 + 250, 512, 0)), 512);
        world.check();
        world.guests_write();
        ok(world.call(HostCall::VmStart { vm }));
        if round % 2 == 0 {
            assert!(share(&mut world, vm, GUEST + 7));
            world.check();
            assert!(share(&mut world, vm, GUEST + 517));
            world.check();
            assert!(!share(&mut world, vm, GUEST + 517), "twice");
            assert!(unshare(&mut world, vm, GUEST + 517));
            world.check();
        }
        tear_down(&mut world, vm);
        assert_eq!(
            world.machine().leaves(Vmid::HOST),
            before,
            "the host's entries are not what they were"
        );
        assert_eq!(world.machine().tables_in_use(), pool, "tables were lost");
    }
}

/// What the host does to its pin words when it splits a folio that it has isolated.
fn split_pins(world: &mut World, order: u8) {
    for frame in FIRST..FIRST + (1 << order) {
        world.pin(frame, pinfold_abi::pin_word::donatable(0));
    }
}

#[test]
fn one_page_of_a_large_folio_is_shared_and_taken_back() {
    for order in 1..=9 {
        let mut world = World::new(FRAMES);
        let (before, pool) = (
            world.machine().leaves(Vmid::HOST),
            world.machine().tables_in_use(),
        );
        let vm = create(&mut world);
        let size = 1 << order;
        assert_eq!(ok(donate(&mut world, vm, 0, 1, order)), 1);
        ok(world.call(HostCall::VmStart { vm }));
        world.guests_write();
        // The host's kernel has a decoy in it, next to the page and in the page.
        for decoy in [0, size / 2] {
            assert_eq!(touch(&mut world, FIRST + decoy), HostAbortOutcome::Decoy);
        }
        for page in [size / 2, size - 1, 0] {
            let at = GUEST + page;
            assert!(share(&mut world, vm, at), "order {order}, page {page}");
            world.check();
            // Before the host splits its own folio, its word still speaks for all pages of it.
            assert!(unshare(&mut world, vm, at));
            world.check();
            assert!(share(&mut world, vm, at));
            split_pins(&mut world, order);
            world.pin(FIRST + page, 1);
            assert!(!unshare(&mut world, vm, at), "the host has it");
            world.pin(FIRST + page, pinfold_abi::pin_word::donatable(0));
            assert!(unshare(&mut world, vm, at));
            world.check();
            world.pin_folio(FIRST, order);
        }
        // A mix for the end: pages, shared pages, a page with a decoy.
        split_pins(&mut world, order);
        assert!(share(&mut world, vm, GUEST + 1));
        assert_eq!(touch(&mut world, FIRST), HostAbortOutcome::Decoy);
        world.guests_write();
        world.check();
        tear_down(&mut world, vm);
        assert_eq!(world.machine().leaves(Vmid::HOST), before);
        assert_eq!(world.machine().tables_in_use(), pool, "tables were lost");
    }
}

#[test]
fn the_end_of_the_machine_leaves_nothing_of_guests() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    assert_eq!(ok(donate(&mut world, vm, 0, 1, 9)), 1);
    assert_eq!(ok(donate(&mut world, vm, 512, 3, 0)), 3);
    world.guests_write();
    let is_written = |world: &World, pfn| world.machine().content.contains_key(&pfn);
    assert!(is_written(&world, FIRST) && is_written(&world, FIRST + 512));
    let wiped = world.machine().wiped;
    world.hypervisor.end_guests();
    for pfn in FIRST..FIRST + 515 {
        assert!(!is_written(&world, pfn), "frame {pfn:#x} was not wiped");
    }
    assert_eq!(world.machine().wiped - wiped, 515);
    let left = world.machine().vmids().filter(|vmid| *vmid != Vmid::HOST);
    for vmid in left {
        assert!(world.machine().leaves(vmid).is_empty(), "a guest goes on");
    }
}

#[test]
fn a_donation_forgets_instructions() {
    let mut world = World::new(FRAMES);
    let vm = create(&mut world);
    let before = world.machine().instructions_forgotten;
    assert_eq!(ok(donate(&mut world, vm, 0, 2, 0)), 2);
    assert_eq!(world.machine().instructions_forgotten, before + 1);
}
