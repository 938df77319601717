//! Calls that take a range, and what they must come to: arithmetic in 128 bits, on a machine of which it is known who has each frame.
//!
//! The oracle here knows who owns the few frames of a small machine, and what a range is; the specification judges beside it.
//! Frame numbers have 36 bits, guests' addresses 40.

use std::collections::BTreeSet;

use pinfold_abi::{HostCall, Status, claim, limit};

use crate::judged;
use crate::lockstep::{GUEST, Judged, RAM};
use crate::small::{ADDRESSES, Action, FRAMES, Pin, TABLE, World};

/// What came of a trial that was wrong.
pub(crate) type Tried = Result<(), String>;

/// How many frames of RAM each guest has: a region of two, and one of the rest.
pub(crate) const GUEST_RAM: u64 = 16;
/// The page that is shared with an ordinary guest.
const SHARED: u64 = RAM + 4;

/// Whether it is a range of frame numbers of `bits` bits.
fn is_range(first: u64, count: u64, bits: u32) -> bool {
    let end = u128::from(first) + u128::from(count);
    count > 0 && end <= 1 << bits
}

/// Who has the frames of the world: page 0 a guest, page 1 the pool, page 4 the host and an ordinary guest, the last of the eight
/// first a pin table, the rest the host.
fn is_hosts(frame: u128) -> Result<(), Status> {
    let at = |frame: u64| u128::from(frame);
    match frame {
        _ if !(at(RAM)..at(RAM + FRAMES)).contains(&frame) => Err(Status::NotRam),
        _ if frame >= at(TABLE) || frame < at(RAM + 2) || frame == at(SHARED) => {
            Err(Status::NotPermitted)
        }
        _ => Ok(()),
    }
}

/// The status for the first frame of which that is not so; nothing if it is of all.
fn first_error(
    first: u64,
    count: u64,
    is_so: fn(u128) -> Result<(), Status>,
) -> Option<(u64, Status)> {
    (0..count).find_map(|index| {
        let frame = u128::from(first) + u128::from(index);
        is_so(frame).err().map(|status| (index, status))
    })
}

fn all_hosts(first: u64, count: u64) -> Option<(u64, Status)> {
    first_error(first, count, is_hosts)
}

/// What a call must come to: a status, and the index of a frame if it names one.
type Expected = (Status, Option<u64>);

const INVALID: Expected = (Status::Invalid, None);

fn refused_at(found: Option<(u64, Status)>) -> Option<Expected> {
    found.map(|(index, status)| (status, Some(index)))
}

fn pool_donate(first: u64, count: u64) -> Expected {
    if !is_range(first, count, 36) || count > limit::MAX_GIFT {
        return INVALID;
    }
    refused_at(all_hosts(first, count)).unwrap_or((Status::Ok, None))
}

fn register(table: u64, first: u64, frames: u64) -> Expected {
    let table_frames = frames.div_ceil(1024);
    if !is_range(first, frames, 36) || !is_range(table, table_frames, 36) {
        return INVALID;
    }
    // The range of the world speaks for all of RAM.
    let overlaps = u128::from(first) < u128::from(RAM + FRAMES)
        && u128::from(RAM) < u128::from(first) + u128::from(frames);
    if overlaps {
        return (Status::Exists, Some(0));
    }
    let step = table_frames.min(256);
    let done = if step == table_frames {
        Status::Ok
    } else {
        Status::Again
    };
    refused_at(all_hosts(table, step)).unwrap_or((done, None))
}

fn region(first: u64, count: u64) -> Expected {
    if !is_range(first, count, 28) {
        return INVALID;
    }
    let overlaps = u128::from(first) < u128::from(GUEST + GUEST_RAM)
        && u128::from(GUEST) < u128::from(first) + u128::from(count);
    if overlaps {
        (Status::Exists, Some(0))
    } else {
        (Status::Ok, None)
    }
}

/// Frames of folios that are few enough, aligned, and where the guests have RAM.
fn folios(gfn: u64, pfn: u64, count: u64, order: u64) -> Result<u64, Expected> {
    let frames = u128::from(count) << order.min(64);
    let frames = u64::try_from(frames).map_err(|_| INVALID)?;
    let is_sound = order <= u64::from(limit::MAX_ORDER)
        && frames <= limit::MAX_FRAMES
        && is_range(pfn, frames, 36)
        && is_range(gfn, frames, 36);
    if !is_sound {
        return Err(INVALID);
    }
    let size = 1 << order;
    if !pfn.is_multiple_of(size) || !gfn.is_multiple_of(size) {
        return Err((Status::Granule, Some(0)));
    }
    // It must lie in one of the two regions, though they adjoin.
    let (first, second) = (
        GUEST..GUEST + ADDRESSES,
        GUEST + ADDRESSES..GUEST + GUEST_RAM,
    );
    let last = gfn + frames - 1;
    let inside = [first, second]
        .iter()
        .any(|region| region.contains(&gfn) && region.contains(&last));
    if inside { Ok(frames) } else { Err(INVALID) }
}

fn donate(gfn: u64, pfn: u64, count: u64, order: u64) -> Expected {
    let frames = match folios(gfn, pfn, count, order) {
        Ok(frames) => frames,
        Err(refused) => return refused,
    };
    if let Some(refused) = refused_at(all_hosts(pfn, frames)) {
        return refused;
    }
    // Pages 2 and 3 are pinned, each alone. Page 0 is at the first address.
    let is_pinned = |frame: u64| order == 0 && (RAM + 2..RAM + 4).contains(&frame);
    if let Some(index) = (0..frames).find(|index| !is_pinned(pfn + index)) {
        return (Status::NotExclusivelyPinned, Some(index));
    }
    if gfn == GUEST {
        return (Status::Exists, Some(0));
    }
    (Status::Ok, None)
}

fn share(gfn: u64, pfn: u64, count: u64, order: u64, access: u64) -> Expected {
    if !is_access(access) {
        return INVALID;
    }
    let frames = match folios(gfn, pfn, count, order) {
        Ok(frames) => frames,
        Err(refused) => return refused,
    };
    let is_shareable = |frame: u128| match frame {
        _ if frame == u128::from(SHARED) => Ok(()),
        _ => is_hosts(frame),
    };
    if let Some(refused) = refused_at(first_error(pfn, frames, is_shareable)) {
        return refused;
    }
    // Page 4 is at the first address.
    if gfn == GUEST {
        return (Status::Exists, Some(0));
    }
    (Status::Ok, Some(count))
}

/// Reading at least, and nothing that there is not.
fn is_access(access: u64) -> bool {
    !access.is_multiple_of(2) && access < 8
}

/// A change of what is shared with a guest; holes count as done.
fn change_shared(gfn: u64, count: u64) -> Expected {
    if is_range(gfn, count, 28) && count <= limit::MAX_FRAMES {
        (Status::Ok, Some(count))
    } else {
        INVALID
    }
}

fn poison(frame: u64) -> Expected {
    if !is_range(frame, 1, 36) {
        return INVALID;
    }
    refused_at(all_hosts(frame, 1)).unwrap_or((Status::Ok, None))
}

fn reclaim(gfn: u64, count: u64) -> Expected {
    if is_range(gfn, count, 28) && count <= limit::MAX_FRAMES {
        (Status::Ok, None)
    } else {
        INVALID
    }
}

fn digest(first: u64, count: u64) -> Expected {
    let end = u128::from(first) + u128::from(count);
    let is_known = first >= RAM && end <= u128::from(RAM + FRAMES);
    if is_known && count > 0 && count <= 1024 {
        (Status::Ok, None)
    } else {
        INVALID
    }
}

fn one_frame(first: u64) -> Expected {
    if first < 1 << 36 {
        (Status::Ok, None)
    } else {
        INVALID
    }
}

/// A world with a VM that has page 0, a pool that has page 1, and an ordinary VM with which page 4 is shared; of it a copy in which
/// the first VM is dying.
struct Worlds {
    created: World,
    dying: World,
}

/// The world in which calls are tried.
pub(crate) fn world() -> Judged<World> {
    let mut world = World::new(4, true)?;
    let donation = Action::Donate {
        vm: 0,
        gfn: 0,
        page: 0,
        count: 1,
        order: 0,
        pin: Pin::Right,
    };
    let share = Action::ShareGuest {
        vm: 1,
        gfn: 0,
        page: SHARED - RAM,
        count: 1,
        order: 0,
    };
    let steps = [Action::Create, donation, Action::PoolDonate(1)];
    for action in steps.into_iter().chain([Action::Create, share]) {
        world.take(action)?;
    }
    for vm in world.vms.into_iter().flatten() {
        let rest = GUEST_RAM - ADDRESSES;
        world.both.region(vm, GUEST + ADDRESSES, rest)?;
    }
    (2..4).for_each(|page| world.both.pin_folio(RAM + page, 0));
    Ok(world)
}

/// Tries calls, and counts them.
pub(crate) struct Trials {
    worlds: Worlds,
    pub(crate) calls: u64,
    pub(crate) done: u64,
    /// The numbers of the calls.
    pub(crate) tried: BTreeSet<u64>,
}

impl Trials {
    pub(crate) fn new() -> Result<Self, String> {
        let worlds = world().and_then(|created| {
            let mut dying = created.clone();
            dying.take(Action::Begin(0))?;
            Ok(Worlds { created, dying })
        });
        Ok(Self {
            worlds: worlds.map_err(|found| format!("{found:?}"))?,
            calls: 0,
            done: 0,
            tried: BTreeSet::new(),
        })
    }

    fn vm(&self) -> claim::Handle {
        self.worlds.created.vms[0].unwrap()
    }

    fn ordinary(&self) -> claim::Handle {
        self.worlds.created.vms[1].unwrap()
    }

    fn attempt(&mut self, call: HostCall, expected: Expected) -> Tried {
        let is_reclaim = matches!(call, HostCall::MemReclaim { .. });
        let world = if is_reclaim {
            &mut self.worlds.dying
        } else {
            &mut self.worlds.created
        };
        self.calls += 1;
        self.tried.insert(call.number());
        let (before, glance) = (world.clone(), world.glance());
        let x = judged(|| {
            world.both.compares = expected.0 == Status::Ok || expected.0 == Status::Again;
            world.both.call(call)
        });
        let x = x.map_err(|found| format!("{call:x?}: {found:?}"))?;
        let is_right = x[0] == 0
            && x[1] == expected.0.number()
            && expected.1.is_none_or(|index| x[2] == index);
        if !is_right {
            return Err(format!(
                "{call:x?} came to {:x?}, not {expected:?}",
                &x[..4]
            ));
        }
        if expected.0 == Status::Ok || expected.0 == Status::Again {
            self.done += 1;
            *world = before;
        } else if world.glance() != glance {
            return Err(format!("{call:x?} was refused, and changed something"));
        }
        Ok(())
    }

    /// Looks at a frame, and at those that follow.
    pub(crate) fn query(&mut self, frame: u64) -> Tried {
        let pfn = claim::Pfn(frame);
        self.attempt(HostCall::FolioQuery { pfn }, one_frame(frame))?;
        self.attempt(HostCall::FolioRange { first: pfn }, one_frame(frame))
    }

    pub(crate) fn poison(&mut self, frame: u64) -> Tried {
        let pfn = claim::Pfn(frame);
        self.attempt(HostCall::MemPoison { pfn }, poison(frame))
    }

    pub(crate) fn pool_donate(&mut self, first: u64, count: u64) -> Tried {
        let call = HostCall::PoolDonate {
            first: claim::Pfn(first),
            count: claim::Count(count),
        };
        self.attempt(call, pool_donate(first, count))
    }

    pub(crate) fn digest(&mut self, first: u64, count: u64) -> Tried {
        let call = HostCall::FolioDigest {
            first: claim::Pfn(first),
            count: claim::Count(count),
        };
        self.attempt(call, digest(first, count))
    }

    pub(crate) fn register(&mut self, table: u64, first: u64, frames: u64) -> Tried {
        let call = HostCall::PinTableRegister {
            table: claim::Pfn(table),
            first: claim::Pfn(first),
            frames: claim::Count(frames),
        };
        self.attempt(call, register(table, first, frames))
    }

    pub(crate) fn region(&mut self, first: u64, count: u64) -> Tried {
        let call = HostCall::VmMemoryRegion {
            vm: self.vm(),
            first: claim::Gfn(first),
            count: claim::Count(count),
        };
        self.attempt(call, region(first, count))
    }

    pub(crate) fn reclaim(&mut self, gfn: u64, count: u64) -> Tried {
        let call = HostCall::MemReclaim {
            vm: self.vm(),
            gfn: claim::Gfn(gfn),
            count: claim::Count(count),
        };
        self.attempt(call, reclaim(gfn, count))
    }

    pub(crate) fn donate(&mut self, gfn: u64, pfn: u64, count: u64, order: u64) -> Tried {
        let call = HostCall::MemDonate {
            vm: self.vm(),
            gfn: claim::Gfn(gfn),
            pfn: claim::Pfn(pfn),
            count: claim::Count(count),
            order: claim::Order(order),
        };
        self.attempt(call, donate(gfn, pfn, count, order))
    }

    pub(crate) fn share(
        &mut self,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u64,
        access: u64,
    ) -> Tried {
        let call = HostCall::MemShareGuest {
            vm: self.ordinary(),
            gfn: claim::Gfn(gfn),
            pfn: claim::Pfn(pfn),
            count: claim::Count(count),
            order: claim::Order(order),
            access: claim::Access(access),
        };
        self.attempt(call, share(gfn, pfn, count, order, access))
    }

    pub(crate) fn unshare(&mut self, gfn: u64, count: u64) -> Tried {
        let call = HostCall::MemUnshareGuest {
            vm: self.ordinary(),
            gfn: claim::Gfn(gfn),
            count: claim::Count(count),
        };
        self.attempt(call, change_shared(gfn, count))
    }

    pub(crate) fn protect(&mut self, gfn: u64, count: u64, access: u64) -> Tried {
        let call = HostCall::MemProtectGuest {
            vm: self.ordinary(),
            gfn: claim::Gfn(gfn),
            count: claim::Count(count),
            access: claim::Access(access),
        };
        let expected = if is_access(access) {
            change_shared(gfn, count)
        } else {
            INVALID
        };
        self.attempt(call, expected)
    }
}
