//! Every ordered pair of calls, on two processors, while a third runs a vCPU: every order in which they can take the lock.
//!
//! There is one lock, and a call holds it from its first look to its last change. So an execution on several processors is an
//! order of the stretches under the lock, and trying all orders is trying all executions. Only a run of a vCPU has more than one
//! stretch: its registers are moved out, the guest runs without the lock and comes back for each exit, and they are moved in.
//! After each stretch the specification judges the call and everything else, so each outcome is one that the calls have in that order.
//! What is not behind the lock is not in core: kicks, and what a processor keeps for itself.

use std::collections::BTreeSet;

use pinfold_abi::{ACCESS_READ, HostCall, Status, claim};
use pinfold_core::mutant::Mutant;
use pinfold_spec::GuestEvent;

use crate::directed::{SHARE, UNSHARE};
use crate::host::{GICD, GICR};
use crate::lockstep::{GUEST, Judged, RAM};
use crate::small::{Action, Pin, World};
use crate::{alone, judged};

/// A stretch under the lock.
#[derive(Clone, Copy, Debug)]
enum Stretch {
    Call(HostCall),
    /// What vCPU 0 does, if it runs.
    Guest([u64; 4], GuestEvent),
}

/// How the orders went.
#[derive(Debug, Default)]
struct Figures {
    pairs: u64,
    orders: u64,
    stretches: u64,
}

fn run(vm: claim::Handle, vcpu: u64) -> HostCall {
    HostCall::VcpuRun {
        vm,
        vcpu: claim::VcpuIndex(vcpu),
        answer: claim::Value(1),
    }
}

/// What a processor does that runs the vCPU of a protected VM: it shares one page, and is told that the host will not have it, or
/// takes another back.
fn runs_protected(vm: claim::Handle) -> [Stretch; 4] {
    let page = |function, gfn: u64| Stretch::Guest([function, gfn << 12, 0, 0], GuestEvent::Call);
    [
        Stretch::Call(run(vm, 0)),
        page(SHARE, GUEST),
        Stretch::Call(run(vm, 0)),
        page(UNSHARE, GUEST + 1),
    ]
}

/// The same of an ordinary VM: it writes to one page and reads another.
fn runs_ordinary(vm: claim::Handle) -> [Stretch; 4] {
    let access = |gfn: u64, write| {
        let event = GuestEvent::Access {
            ipa: gfn << 12,
            width: 8,
            write,
            register: 2,
        };
        Stretch::Guest([0; 4], event)
    };
    [
        Stretch::Call(run(vm, 0)),
        access(GUEST, true),
        Stretch::Call(run(vm, 0)),
        access(GUEST + 1, false),
    ]
}

/// Calls that are not among [`calls`], and why.
const LEFT_OUT: [(&str, &str); 6] = [
    ("VERSION", "its answer is a constant"),
    ("FOLIO_DIGEST", "it reads words, as FOLIO_QUERY does"),
    ("FOLIO_RANGE", "it reads words, as FOLIO_QUERY does"),
    ("COUNTER", "it reads a number, as FOLIO_CENSUS does"),
    ("TRACE_STATUS", "core reads no memory and no VM for it"),
    ("TRACE_READ", "core reads no memory and no VM for it"),
];

/// Calls about one VM and its pages, each of which changes something or is refused, as it comes.
fn calls(vm: claim::Handle) -> Vec<HostCall> {
    let mut calls = about_memory(vm).to_vec();
    calls.extend(about_vm(vm));
    calls
}

fn about_memory(vm: claim::Handle) -> [HostCall; 14] {
    let donation = |gfn, page| HostCall::MemDonate {
        vm,
        gfn: claim::Gfn(gfn),
        pfn: claim::Pfn(RAM + page),
        count: claim::Count(1),
        order: claim::Order(0),
    };
    [
        HostCall::PinTableRegister {
            table: claim::Pfn(RAM + 3),
            first: claim::Pfn(0),
            frames: claim::Count(1),
        },
        HostCall::PoolDonate {
            first: claim::Pfn(RAM + 2),
            count: claim::Count(2),
        },
        HostCall::PoolReclaim {},
        HostCall::PoolStatus {},
        donation(GUEST, 2),
        donation(GUEST + 1, 0),
        HostCall::MemReclaim {
            vm,
            gfn: claim::Gfn(GUEST),
            count: claim::Count(2),
        },
        HostCall::MemShareGuest {
            vm,
            gfn: claim::Gfn(GUEST + 1),
            pfn: claim::Pfn(RAM + 2),
            count: claim::Count(1),
            order: claim::Order(0),
            access: claim::Access(7),
        },
        HostCall::MemUnshareGuest {
            vm,
            gfn: claim::Gfn(GUEST + 1),
            count: claim::Count(1),
        },
        HostCall::MemProtectGuest {
            vm,
            gfn: claim::Gfn(GUEST),
            count: claim::Count(2),
            access: claim::Access(ACCESS_READ),
        },
        HostCall::MemPoison {
            pfn: claim::Pfn(RAM + 2),
        },
        HostCall::FolioQuery {
            pfn: claim::Pfn(RAM),
        },
        HostCall::FolioCensus {},
        HostCall::Features {},
    ]
}

fn about_vm(vm: claim::Handle) -> [HostCall; 11] {
    let count = claim::Count(1);
    [
        HostCall::VmCreate {
            flags: claim::Flags(1),
            vcpus: count,
        },
        HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(GUEST + 2),
            count,
        },
        HostCall::VmGic {
            vm,
            distributor: claim::Ipa(GICD),
            redistributors: claim::Ipa(GICR),
        },
        HostCall::VmStart { vm },
        HostCall::VmTeardownBegin { vm },
        HostCall::VmTeardownFinish { vm },
        HostCall::VcpuCreate {
            vm,
            vcpu: claim::VcpuIndex(1),
            flags: claim::Flags(0),
        },
        HostCall::VcpuSetRegister {
            vm,
            vcpu: claim::VcpuIndex(0),
            register: claim::Number(3),
            value: claim::Value(0x77),
        },
        run(vm, 0),
        run(vm, 1),
        HostCall::IrqLine {
            vm,
            intid: claim::Number(40),
            level: claim::Number(1),
        },
    ]
}

/// A world, and the VM in it that calls are about.
struct Scene {
    world: World,
    vm: claim::Handle,
    is_protected: bool,
}

/// All orders of what three processors do.
struct Orders {
    figures: Figures,
    vm: claim::Handle,
    is_protected: bool,
}

impl Orders {
    /// Goes on from `world` in every order; `done` says how far each processor is.
    fn go_on(&mut self, world: &World, work: &[&[Stretch]; 3], done: [usize; 3]) -> Judged {
        let mut is_over = true;
        for processor in 0..3 {
            let Some(stretch) = work[processor].get(done[processor]) else {
                continue;
            };
            is_over = false;
            let mut next = world.clone();
            self.figures.stretches += 1;
            match *stretch {
                Stretch::Call(call) => next.call(call)?,
                Stretch::Guest(x, event) => next.both.guest(self.vm, 0, x, event)?,
            }
            let mut further = done;
            further[processor] += 1;
            self.go_on(&next, work, further)?;
        }
        if is_over {
            self.figures.orders += 1;
            self.end(world.clone())?;
        }
        Ok(())
    }

    /// Whatever came of it can be ended, and leaves nothing.
    fn end(&mut self, mut world: World) -> Judged {
        world.both.compares = false;
        let running: Vec<_> = world.both.loaded.keys().copied().collect();
        for (vm, vcpu) in running {
            let vm = claim::Handle(vm);
            world.both.guest(vm, vcpu, [0; 4], GuestEvent::Interrupt)?;
        }
        world.both.begin(self.vm)?;
        if self.is_protected {
            world.both.reclaim(self.vm, GUEST, 3)?;
        } else {
            world.both.unshare_from_guest(self.vm, GUEST, 3)?;
        }
        let x = world.both.finish(self.vm)?;
        world.both.compares = true;
        world.both.compare()?;
        let is_gone = [Status::Ok, Status::NoSuchVm]
            .map(Status::number)
            .contains(&x[1]);
        if !is_gone || world.both.spec.guests_frames().next().is_some() {
            let what = format!("a guest has frames after its end: {x:x?}");
            let clause = pinfold_spec::Clause::TeardownFinish;
            return Err(pinfold_spec::Violation::new(clause, what));
        }
        Ok(())
    }
}

/// An ordinary VM with which two pages are shared, live.
fn ordinary() -> Judged<Scene> {
    let mut world = World::new(4, true)?;
    let vm = 1;
    let share = |gfn| Action::ShareGuest {
        vm,
        gfn,
        page: gfn,
        count: 1,
        order: 0,
    };
    for action in [
        Action::Create,
        Action::Create,
        share(0),
        share(1),
        Action::Start(vm),
    ] {
        world.take(action)?;
    }
    Ok(Scene {
        vm: world.vms[vm].unwrap(),
        world,
        is_protected: false,
    })
}

/// A protected VM with both its pages, the second of which it shares: created, live, or dying.
fn protected() -> Judged<[Scene; 3]> {
    let mut created = World::new(4, false)?;
    created.take(Action::Create)?;
    let donation = |gfn, page| Action::Donate {
        vm: 0,
        gfn,
        page,
        count: 1,
        order: 0,
        pin: Pin::Right,
    };
    created.take(donation(0, 0))?;
    created.take(donation(1, 1))?;
    let mut live = created.clone();
    live.take(Action::Start(0))?;
    let pin = Pin::Right;
    let run = Action::Run {
        vm: 0,
        answer: 0,
        pin,
    };
    let share = Action::Share { vm: 0, gfn: 1 };
    for action in [run, share, run, Action::Interrupt(0)] {
        live.take(action)?;
    }
    let mut dying = live.clone();
    dying.take(Action::Begin(0))?;
    Ok([live, created, dying].map(|world| Scene {
        vm: world.vms[0].unwrap(),
        world,
        is_protected: true,
    }))
}

fn all() -> Judged<Figures> {
    let mut figures = Figures::default();
    let scenes = std::iter::once(ordinary()?).chain(protected()?);
    for scene in scenes {
        let Scene {
            mut world,
            vm,
            is_protected,
        } = scene;
        (0..4).for_each(|page| world.both.pin_folio(RAM + page, 0));
        let first = if is_protected {
            runs_protected(vm)
        } else {
            runs_ordinary(vm)
        };
        let mut orders = Orders {
            figures,
            vm,
            is_protected,
        };
        for one in calls(vm) {
            for other in calls(vm) {
                let (one, other) = ([Stretch::Call(one)], [Stretch::Call(other)]);
                orders.figures.pairs += 1;
                judged(|| orders.go_on(&world, &[&first, &one, &other], [0; 3]))?;
            }
        }
        figures = orders.figures;
    }
    Ok(figures)
}

#[test]
fn every_pair_of_calls_in_every_order() {
    let start = std::time::Instant::now();
    let figures = alone(None, all).unwrap_or_else(|found| panic!("{found:?}"));
    println!("{figures:?}, {:.1?}", start.elapsed());
    assert!(figures.pairs >= 4 * 600 && figures.orders >= 30 * figures.pairs);
}

#[test]
fn every_call_is_tried_or_left_out_for_a_reason() {
    let calls = calls(claim::Handle(0));
    let tried: BTreeSet<_> = calls.iter().map(HostCall::number).collect();
    let mut left_out = BTreeSet::from(LEFT_OUT.map(|(name, _)| name));
    for info in HostCall::TABLE {
        let is_left_out = left_out.remove(info.name);
        let is_tried = tried.contains(&info.number);
        assert!(
            is_tried != is_left_out,
            "{} is tried: {is_tried}",
            info.name
        );
    }
    assert!(left_out.is_empty(), "no calls: {left_out:?}");
}

#[test]
fn broken_turns_are_found() {
    for mutant in [
        Mutant::TeardownWhileLoaded,
        Mutant::LoadedIsGone,
        Mutant::DyingThoughBusy,
        Mutant::PoisonsAnything,
        Mutant::ProtectsNothing,
        Mutant::UnshareUncounted,
        Mutant::DeniedIsAbort,
    ] {
        let found = alone(Some(mutant), all);
        println!("{mutant:?}: {:?}", found.as_ref().err());
        assert!(found.is_err(), "{mutant:?} is not found");
    }
}
