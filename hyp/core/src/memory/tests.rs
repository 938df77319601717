//! The matrix: every state of a folio against every transition. [`MATRIX`] is the documentation, too.

use pinfold_abi::{HostCall, State, Status, claim, pin_word};
use std::vec::Vec;

use super::*;
use crate::addr::{Frame, Ipa};
use crate::hypervisor::{HostAbort, HostAbortOutcome, Hypervisor};
use crate::machine::test::{EL2, FakeMachine, RAM, boot, call, gfn};
use crate::vm::VmHandle;

/// What a party may want to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    /// The host gives it to a VM, properly pinned.
    Donate,
    /// The host gives it to a VM, with another pin on it.
    DonateShared,
    /// The host gives it to the pool.
    Pool,
    /// The host makes it a pin table.
    Pins,
    /// Its guest shares it.
    Share,
    /// Its guest takes it back; the host holds an exclusive pin again.
    Unshare,
    /// Its guest takes it back; the host has an ordinary pin.
    UnsharePinned,
    /// The host takes it back from the dying VM.
    Reclaim,
}

const DEEDS: [Deed; 8] = [
    Deed::Donate,
    Deed::DonateShared,
    Deed::Pool,
    Deed::Pins,
    Deed::Share,
    Deed::Unshare,
    Deed::UnsharePinned,
    Deed::Reclaim,
];

use Status::{
    NotExclusivelyPinned as Pinned, NotMapped as Hole, NotPermitted as Denied, NotRam, Ok as Fine,
    Poisoned as Poison,
};

#[rustfmt::skip]
/// For each state: what each deed, in the order of [`DEEDS`], returns. A deed on a gfn where the guest has nothing finds a hole;
/// a reclaim skips holes.
const MATRIX: [(State, [Status; 8]); 10] = [
    //                        donate  +pin    pool    pins    share   unshare +pin    reclaim
    (State::Host,            [Fine,   Pinned, Fine,   Fine,   Hole,   Hole,   Hole,   Fine]),
    (State::Hyp,             [Denied, Denied, Denied, Denied, Hole,   Hole,   Hole,   Fine]),
    (State::HostSharedHyp,   [Denied, Denied, Denied, Denied, Hole,   Hole,   Hole,   Fine]),
    (State::HostSharedGuest, [Denied, Denied, Denied, Denied, Hole,   Hole,   Hole,   Fine]),
    (State::Arriving,        [Denied, Denied, Denied, Denied, Hole,   Hole,   Hole,   Fine]),
    (State::Guest,           [Denied, Denied, Denied, Denied, Fine,   Denied, Denied, Fine]),
    (State::GuestSharedHost, [Denied, Denied, Denied, Denied, Denied, Fine,   Pinned, Fine]),
    (State::Wiping,          [Denied, Denied, Denied, Denied, Hole,   Hole,   Hole,   Fine]),
    (State::Poisoned,        [Poison, Poison, Poison, Poison, Hole,   Hole,   Hole,   Fine]),
    (State::NotRam,          [NotRam, NotRam, NotRam, NotRam, Hole,   Hole,   Hole,   Fine]),
];

/// The state after, where the deed is done.
fn after(state: State, deed: Deed) -> State {
    match (state, deed) {
        (State::Host, Deed::Pool) => State::Hyp,
        (State::Host, Deed::Pins) => State::HostSharedHyp,
        (State::Guest, Deed::Share) => State::GuestSharedHost,
        (State::Host, Deed::Donate) | (State::GuestSharedHost, Deed::Unshare) => State::Guest,
        (
            State::Arriving | State::Guest | State::GuestSharedHost | State::Wiping,
            Deed::Reclaim,
        ) => State::Host,
        (state, _) => state,
    }
}

const FRAMES: u64 = 6 * 512;
/// The frame that the matrix is about: the head of a block, so that it can be one large folio being wiped.
const IT: u64 = RAM + 1024;
/// Where its guest has it, and where another gfn is free.
const GUEST: u64 = 0x40000;
const FREE: u64 = GUEST + 512;
const PIN_TABLE: u64 = RAM + 5 * 512;

type Fake = Hypervisor<FakeMachine>;

fn pfn(raw: u64) -> Pfn {
    Frame::new(raw).unwrap()
}

fn state_of(fake: &Fake, frame: u64) -> State {
    fake.memory.folios.whole(pfn(frame)).state.number()
}

fn status(fake: &mut Fake, host_call: HostCall) -> Status {
    let x = call(fake, host_call);
    assert_eq!(x[0], 0);
    Status::from_number(x[1]).unwrap()
}

fn set_pins(fake: &mut Fake, frame: u64, order: u8, word: u32) {
    let machine = fake.memory.machine_mut();
    let index = |frame: u64| usize::try_from(frame - RAM).unwrap();
    (frame..frame + (1 << order)).for_each(|tail| machine.set_pin_word(PIN_TABLE, index(tail), 0));
    machine.set_pin_word(PIN_TABLE, index(frame), word);
}

fn donate(fake: &mut Fake, vm: claim::Handle, to: u64, frame: u64, order: u8) -> Status {
    let (count, order) = (claim::Count(1), claim::Order(u64::from(order)));
    status(
        fake,
        HostCall::MemDonate {
            vm,
            gfn: claim::Gfn(to),
            pfn: claim::Pfn(frame),
            count,
            order,
        },
    )
}

fn reclaim(fake: &mut Fake, vm: claim::Handle, at: u64, count: u64) -> Status {
    status(
        fake,
        HostCall::MemReclaim {
            vm,
            gfn: claim::Gfn(at),
            count: claim::Count(count),
        },
    )
}

/// A world in which the frame is in `state`, with its VM (dying if it must be to get there).
fn world(state: State) -> (Fake, claim::Handle, u64) {
    let mut fake = boot(FRAMES);
    let (table, first) = (claim::Pfn(PIN_TABLE), claim::Pfn(RAM));
    let frames = claim::Count(FRAMES);
    assert_eq!(
        status(
            &mut fake,
            HostCall::PinTableRegister {
                table,
                first,
                frames
            }
        ),
        Fine
    );
    let vm = create(&mut fake, 1, 1024);
    let mut it = IT;
    match state {
        State::Host => {}
        State::Hyp => it = EL2,
        State::HostSharedHyp => it = PIN_TABLE,
        State::NotRam => it = RAM + FRAMES,
        State::Poisoned => {
            let pfn = claim::Pfn(IT);
            assert_eq!(status(&mut fake, HostCall::MemPoison { pfn }), Fine);
        }
        State::HostSharedGuest => lend(&mut fake, IT),
        State::Guest | State::GuestSharedHost => {
            set_pins(&mut fake, IT, 0, pin_word::donatable(0));
            assert_eq!(donate(&mut fake, vm, GUEST, IT, 0), Fine);
            if state == State::GuestSharedHost {
                assert_eq!(share(&mut fake, vm), Fine);
            }
        }
        State::Arriving => {
            set_pins(&mut fake, IT, 9, pin_word::donatable(9));
            assert_eq!(donate(&mut fake, vm, GUEST, IT, 9), Status::Again);
        }
        State::Wiping => {
            set_pins(&mut fake, IT, 9, pin_word::donatable(9));
            while donate(&mut fake, vm, GUEST, IT, 9) == Status::Again {}
            assert_eq!(state_of(&fake, IT), State::Guest);
            assert_eq!(status(&mut fake, HostCall::VmTeardownBegin { vm }), Fine);
            assert_eq!(reclaim(&mut fake, vm, GUEST, 512), Status::Again);
        }
    }
    assert_eq!(state_of(&fake, it), state);
    (fake, vm, it)
}

/// A VM with guest RAM.
fn create(fake: &mut Fake, flags: u64, frames: u64) -> claim::Handle {
    let (flags, vcpus) = (claim::Flags(flags), claim::Count(1));
    let vm = claim::Handle(call(fake, HostCall::VmCreate { flags, vcpus })[2]);
    let (first, count) = (claim::Gfn(GUEST), claim::Count(frames));
    let region = HostCall::VmMemoryRegion { vm, first, count };
    assert_eq!(status(fake, region), Fine);
    vm
}

/// Shares the frame with an ordinary VM.
fn lend(fake: &mut Fake, frame: u64) {
    let vm = create(fake, 0, 1);
    let share = HostCall::MemShareGuest {
        vm,
        gfn: claim::Gfn(GUEST),
        pfn: claim::Pfn(frame),
        count: claim::Count(1),
        order: claim::Order(0),
        access: claim::Access(7),
    };
    assert_eq!(status(fake, share), Fine);
}

fn share(fake: &mut Fake, vm: claim::Handle) -> Status {
    let vm = fake.vms.get(VmHandle::new(vm.0).unwrap()).unwrap();
    let done = fake
        .memory
        .share(&mut vm.memory, gfn(GUEST))
        .map(Share::commit);
    done.map_or_else(|refusal| refusal.status().0, |()| Fine)
}

fn unshare(fake: &mut Fake, vm: claim::Handle) -> Status {
    let vm = fake.vms.get(VmHandle::new(vm.0).unwrap()).unwrap();
    let done = fake
        .memory
        .unshare(&mut vm.memory, gfn(GUEST))
        .map(Unshare::commit);
    done.map_or_else(|refusal| refusal.status().0, |()| Fine)
}

/// A VM besides the one that may be dying, to give frames to.
fn taker(fake: &mut Fake) -> claim::Handle {
    let vm = claim::Handle(
        call(
            fake,
            HostCall::VmCreate {
                flags: claim::Flags(1),
                vcpus: claim::Count(1),
            },
        )[2],
    );
    let region = HostCall::VmMemoryRegion {
        vm,
        first: claim::Gfn(GUEST),
        count: claim::Count(1024),
    };
    assert_eq!(status(fake, region), Fine);
    vm
}

fn perform(fake: &mut Fake, vm: claim::Handle, it: u64, deed: Deed) -> Status {
    let ordinary = pin_word::donatable(0) + 1;
    match deed {
        Deed::Donate | Deed::DonateShared => {
            let word = if deed == Deed::Donate {
                pin_word::donatable(0)
            } else {
                ordinary
            };
            if it < RAM + FRAMES {
                set_pins(fake, it, 0, word);
            }
            let vm = taker(fake);
            donate(fake, vm, FREE, it, 0)
        }
        Deed::Pool => status(
            fake,
            HostCall::PoolDonate {
                first: claim::Pfn(it),
                count: claim::Count(1),
            },
        ),
        Deed::Pins => {
            let (table, first) = (claim::Pfn(it), claim::Pfn(1));
            status(
                fake,
                HostCall::PinTableRegister {
                    table,
                    first,
                    frames: claim::Count(1),
                },
            )
        }
        Deed::Share => share(fake, vm),
        Deed::Unshare | Deed::UnsharePinned => {
            let word = if deed == Deed::Unshare {
                pin_word::donatable(0)
            } else {
                ordinary
            };
            if it < RAM + FRAMES {
                set_pins(fake, it, 0, word);
            }
            unshare(fake, vm)
        }
        Deed::Reclaim => {
            assert_eq!(status(fake, HostCall::VmTeardownBegin { vm }), Fine);
            (0..20)
                .map(|_| reclaim(fake, vm, GUEST, 512))
                .find(|status| *status != Status::Again)
                .unwrap()
        }
    }
}

#[test]
fn matrix() {
    let mut wrong = Vec::new();
    for (state, row) in MATRIX {
        for (deed, expected) in DEEDS.into_iter().zip(row) {
            let (mut fake, vm, it) = world(state);
            let found = perform(&mut fake, vm, it, deed);
            let then = state_of(&fake, it);
            if (found, then) != (expected, after(state, deed)) {
                wrong.push((state, deed, found, then));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[rustfmt::skip]
/// Who touches, and what comes of it: the host, a process or the kernel for it, the kernel itself, a fetch by the kernel.
const TOUCHES: [(State, [HostAbortOutcome; 3]); 8] = {
    use HostAbortOutcome::{Decoy, Inject, Retry};
    [
        //                        process  kernel   fetch
        (State::Host,            [Retry,   Retry,   Retry]),
        (State::Hyp,             [Inject,  Inject,  Inject]),
        (State::HostSharedHyp,   [Retry,   Retry,   Inject]),
        (State::Guest,           [Inject,  Decoy,   Inject]),
        (State::GuestSharedHost, [Retry,   Retry,   Inject]),
        (State::Wiping,          [Inject,  Decoy,   Inject]),
        (State::Poisoned,        [Inject,  Decoy,   Inject]),
        // Beyond RAM the host finds device registers.
        (State::NotRam,          [Retry,   Retry,   Inject]),
    ]
};

#[test]
fn touches() {
    for (state, row) in TOUCHES {
        for (kind, expected) in row.into_iter().enumerate() {
            let (mut fake, _, it) = world(state);
            let abort = HostAbort {
                ipa: Ipa::new(it << 12).unwrap(),
                far_is_kernel: kind > 0,
                from_el0: kind == 0,
                write: true,
                instruction: kind == 2,
                pc: 0,
            };
            assert_eq!(fake.host_abort(abort), expected, "{state:?}, {kind}");
            assert_eq!(state_of(&fake, it), state);
        }
    }
}
