//! Every allocation of every call fails once, though the pool is not dry: the call is refused, nothing has changed and nothing is
//! lost; made again, it succeeds.
//!
//! An allocation is a table, a root, EL2's own tables, or an object on the heap. The specification is not told of the call that
//! fails, and compares everything all the same.

use pinfold_abi::{ACCESS_READ, ACCESS_WRITE, FUNCTION_BASE, HostCall, Status, claim};
use pinfold_core::exit::{Conduit, Exit};
use pinfold_core::hypervisor::CallRegisters;
use pinfold_core::machine::test::{fail_after, fail_no_more};
use pinfold_core::mutant::Mutant;
use pinfold_core::run::Resumption;
use pinfold_spec::GuestEvent;

use crate::directed::{FIRST, RELINQUISH, SHARE, UNSHARE};
use crate::host::GICD;
use crate::lockstep::{GUEST, Judged, Lockstep, RAM, TABLE};
use crate::{alone, judged};

/// SMCCC `INVALID_PARAMETER`.
const INVALID_PARAMETER: u64 = u64::MAX - 2;

/// What is tried.
#[derive(Clone, Copy, Debug)]
enum Attempt {
    /// A call that succeeds.
    Call(HostCall),
    /// A call that may be refused for another reason.
    Other(HostCall),
    /// What the guest that runs calls.
    Guest([u64; 4]),
}

/// A world, what is tried there, and at least how often that asks for memory.
struct Case {
    name: &'static str,
    world: Lockstep,
    attempt: Attempt,
    least: u64,
}

/// A VM that was started and runs, with a folio of 2 MiB, another that is not started, and an ordinary one.
struct Setting {
    world: Lockstep,
    live: claim::Handle,
    new: claim::Handle,
    ordinary: claim::Handle,
}

fn setting() -> Judged<Setting> {
    let mut world = Lockstep::with_pins()?;
    let live = world.live_vm()?;
    world.give(live, GUEST, FIRST, 1, 9)?;
    world.guests_write();
    let new = world.create(1, 2)?;
    world.region(new, GUEST, 1024)?;
    let ordinary = world.create(0, 1)?;
    world.region(ordinary, GUEST, 1024)?;
    world.run(live, 0, 0)?;
    Ok(Setting {
        world,
        live,
        new,
        ordinary,
    })
}

fn donation(vm: claim::Handle, gfn: u64, pfn: u64, count: u64, order: u64) -> Attempt {
    Attempt::Call(HostCall::MemDonate {
        vm,
        gfn: claim::Gfn(gfn),
        pfn: claim::Pfn(pfn),
        count: claim::Count(count),
        order: claim::Order(order),
    })
}

fn share_with_guest(vm: claim::Handle, gfn: u64, count: u64, order: u64) -> Attempt {
    Attempt::Call(HostCall::MemShareGuest {
        vm,
        gfn: claim::Gfn(gfn),
        pfn: claim::Pfn(RAM),
        count: claim::Count(count),
        order: claim::Order(order),
        access: claim::Access(ACCESS_READ),
    })
}

fn pins(table: u64, first: u64, frames: u64) -> Attempt {
    Attempt::Call(HostCall::PinTableRegister {
        table: claim::Pfn(table),
        first: claim::Pfn(first),
        frames: claim::Count(frames),
    })
}

fn gift(first: u64, count: u64) -> Attempt {
    Attempt::Call(HostCall::PoolDonate {
        first: claim::Pfn(first),
        count: claim::Count(count),
    })
}

/// Calls that ask for memory.
fn hungry() -> Judged<Vec<Case>> {
    let Setting { mut world, new, .. } = setting()?;
    // A run of pages that begins at the end of one block.
    (0..16).for_each(|page| world.pin_folio(RAM + page, 0));
    (0..8).for_each(|page| world.pin_folio(RAM + 504 + page, 0));
    world.pin_folio(FIRST + 512, 3);
    let case = |name, attempt, least| Case {
        name,
        world: world.clone(),
        attempt,
        least,
    };
    let mut untouched = Lockstep::boot();
    untouched.call(HostCall::Version {})?;
    let table = |name, attempt, least| Case {
        name,
        world: untouched.clone(),
        attempt,
        least,
    };
    let create = HostCall::VmCreate {
        flags: claim::Flags(1),
        vcpus: claim::Count(2),
    };
    let region = HostCall::VmMemoryRegion {
        vm: new,
        first: claim::Gfn(GUEST + 4096),
        count: claim::Count(1),
    };
    let create_vcpu = HostCall::VcpuCreate {
        vm: new,
        vcpu: claim::VcpuIndex(0),
        flags: claim::Flags(0),
    };
    let share = |gfn: u64| Attempt::Guest([SHARE, gfn << 12, 0, 0]);
    Ok(vec![
        case("a VM", Attempt::Call(create), 2),
        case("a region", Attempt::Call(region), 1),
        case("a vCPU", Attempt::Call(create_vcpu), 1),
        table("a pin table in a block", pins(TABLE, RAM, 2048), 2),
        table("a pin table across blocks", pins(FIRST + 511, RAM, 2048), 3),
        case("a gift out of a block", gift(RAM + 100, 3), 2),
        case("a page", donation(new, GUEST + 8, RAM, 1, 0), 3),
        case("pages", donation(new, GUEST, RAM, 16, 0), 3),
        case(
            "pages across a guest's blocks",
            donation(new, GUEST + 504, RAM, 16, 0),
            4,
        ),
        case("a small folio", donation(new, GUEST, FIRST + 512, 1, 3), 2),
        case("a share out of a block", share(GUEST + 5), 2),
    ])
}

/// Calls that ask for memory, about what stays the host's, what goes for good, and what a guest gives back.
fn hungry_for_others() -> Judged<Vec<Case>> {
    let Setting {
        world, ordinary, ..
    } = setting()?;
    let case = |name, attempt, least| Case {
        name,
        world: world.clone(),
        attempt,
        least,
    };
    let pages = |gfn| share_with_guest(ordinary, gfn, 16, 0);
    let poison = HostCall::MemPoison {
        pfn: claim::Pfn(RAM + 100),
    };
    let relinquish = [RELINQUISH, (GUEST + 5) << 12, 0, 0];
    Ok(vec![
        case("pages for an ordinary guest", pages(GUEST), 2),
        case("pages across its blocks", pages(GUEST + 504), 3),
        case(
            "a block for an ordinary guest",
            share_with_guest(ordinary, GUEST, 1, 9),
            1,
        ),
        case("poison in a block", Attempt::Call(poison), 1),
        case("a frame back out of a block", Attempt::Guest(relinquish), 2),
    ])
}

/// Changes of what is shared with an ordinary guest, as pages and as a block.
fn changes_of_shares() -> Judged<Vec<Case>> {
    let Setting {
        mut world,
        ordinary: vm,
        ..
    } = setting()?;
    world.share_with_guest(vm, (GUEST, RAM, 4, 0), ACCESS_READ)?;
    world.share_with_guest(vm, (GUEST + 512, RAM, 1, 9), ACCESS_READ)?;
    let mut cases = Vec::new();
    for (gfn, count) in [(GUEST + 1, 2), (GUEST + 512, 512)] {
        let (gfn, count) = (claim::Gfn(gfn), claim::Count(count));
        let access = claim::Access(ACCESS_READ | ACCESS_WRITE);
        let protect = HostCall::MemProtectGuest {
            vm,
            gfn,
            count,
            access,
        };
        let unshare = HostCall::MemUnshareGuest { vm, gfn, count };
        cases.extend(
            [("other rights", protect), ("no share", unshare)].map(|(name, call)| Case {
                name,
                world: world.clone(),
                attempt: Attempt::Call(call),
                least: 0,
            }),
        );
    }
    Ok(cases)
}

/// Every call of the table, about VMs that are dying, new, and ordinary, with arguments of the kinds that the table says.
fn others() -> Judged<Vec<Case>> {
    let Setting {
        world,
        live,
        new,
        ordinary,
    } = setting()?;
    let mut shared = world.clone();
    shared.guest(live, 0, [SHARE, GUEST << 12, 0, 0], GuestEvent::Call)?;
    shared.run(live, 0, 0)?;
    shared.pin_folio(FIRST, 0);
    let mut dying = world;
    dying.guest(live, 0, [0; 4], GuestEvent::Interrupt)?;
    dying.begin(live)?;
    dying.pool_donate(RAM, 2)?;
    let all = |vm| HostCall::TABLE.iter().map(move |info| (vm, info));
    let mut cases = Vec::new();
    for (vm, info) in all(live).chain(all(new)).chain(all(ordinary)) {
        let mut words = [FUNCTION_BASE + info.number; 8];
        for (word, field) in words[1..].iter_mut().zip(info.arguments) {
            *word = argument(field.unit, vm);
        }
        cases.push(Case {
            name: info.name,
            world: dying.clone(),
            attempt: Attempt::Other(HostCall::decode(words).unwrap()),
            least: 0,
        });
    }
    cases.push(Case {
        name: "an unshare",
        world: shared,
        attempt: Attempt::Guest([UNSHARE, GUEST << 12, 0, 0]),
        least: 0,
    });
    Ok(cases)
}

/// An argument that is likely to be right.
fn argument(unit: &str, vm: claim::Handle) -> u64 {
    match unit {
        claim::Handle::UNIT => vm.0,
        claim::Pfn::UNIT => FIRST + 512,
        claim::Gfn::UNIT => GUEST,
        claim::Ipa::UNIT => GICD,
        claim::Count::UNIT | claim::Flags::UNIT | claim::Access::UNIT => 1,
        _ => 0,
    }
}

/// Makes the attempt without the specification; says whether it was told that memory is missing.
fn starve(world: &mut Lockstep, attempt: Attempt) -> bool {
    match attempt {
        Attempt::Call(call) | Attempt::Other(call) => {
            let mut registers = CallRegisters::default();
            registers.x[..8].copy_from_slice(&call.encode());
            drop(world.hypervisor.host_call(&mut registers, 0));
            registers.x[..2] == [0, Status::NoMemory.number()]
        }
        Attempt::Guest(x) => {
            let (loaded, _) = world.loaded.values_mut().next().unwrap();
            loaded.vcpu.context.x[..4].copy_from_slice(&x);
            let exit = Exit::Call(Conduit::Hvc(0));
            let resumption = world.hypervisor.guest_exit(loaded, exit, &world.processor);
            resumption == Resumption::Guest && loaded.vcpu.context.x[0] == INVALID_PARAMETER
        }
    }
}

/// Makes the attempt, judged; says whether it succeeded.
fn feed(world: &mut Lockstep, attempt: Attempt) -> Judged<bool> {
    match attempt {
        Attempt::Call(call) => Ok(world.call(call)?[..2] == [0, 0]),
        Attempt::Other(call) => world.call(call).map(|_| true),
        Attempt::Guest(x) => {
            let (vm, index) = *world.loaded.keys().next().unwrap();
            world.guest(claim::Handle(vm), index, x, GuestEvent::Call)?;
            let running = world.loaded.get(&(vm, index));
            Ok(running.is_none_or(|(loaded, _)| loaded.vcpu.context.x[0] == 0))
        }
    }
}

/// How often the attempt asks for memory, if each of its failures is clean.
fn sweep(case: &Case) -> Result<u64, String> {
    for step in 0.. {
        let wrong = |what: &str| format!("{}, allocation {step}: {what}", case.name);
        let mut world = case.world.clone();
        fail_after(step);
        let told = starve(&mut world, case.attempt);
        if !fail_no_more() {
            let mut world = case.world.clone();
            let done =
                feed(&mut world, case.attempt).map_err(|found| wrong(&format!("{found:?}")))?;
            return if done {
                Ok(step)
            } else {
                Err(wrong("does not succeed"))
            };
        }
        if !told {
            return Err(wrong("nobody is told that memory is missing"));
        }
        let again = judged(|| {
            world.compare()?;
            feed(&mut world, case.attempt)
        });
        if !again.map_err(|found| wrong(&format!("{found:?}")))? {
            return Err(wrong("does not succeed afterwards"));
        }
    }
    Ok(0)
}

#[test]
fn every_allocation_fails_once() {
    alone(None, || {
        let mut failures = 0;
        let cases = [hungry(), hungry_for_others(), others()];
        for case in cases.into_iter().flat_map(Result::unwrap) {
            let count = sweep(&case).unwrap_or_else(|wrong| panic!("{wrong}"));
            println!("{}: {count} allocations", case.name);
            assert!(count >= case.least, "{} asks too seldom", case.name);
            failures += count;
        }
        println!("{failures} failures of allocations in all");
        assert!(failures >= 35, "only {failures} allocations");
    });
}

/// A host that needs its memory elsewhere ends a share at once, so that must not fail for want of memory.
#[test]
fn the_end_of_a_share_asks_for_no_memory() {
    alone(None, || {
        for case in changes_of_shares().unwrap() {
            assert_eq!(sweep(&case), Ok(0), "{}", case.name);
        }
    });
}

#[test]
fn what_is_lost_on_failure_is_found() {
    for mutant in [Mutant::ReserveLeaks, Mutant::RootStays] {
        let found = alone(Some(mutant), || {
            hungry().unwrap().iter().find_map(|case| sweep(case).err())
        });
        println!("{mutant:?}: {found:?}");
        assert!(
            found.is_some_and(|found| found.contains("PoolBalance") || found.contains("tables"))
        );
    }
}
