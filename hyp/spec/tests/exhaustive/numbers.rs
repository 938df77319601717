//! Every first frame and every count around every limit, for each call that takes a range, against arithmetic in 128 bits.
//!
//! The oracle here knows who owns the few frames of a small machine, and what a range is; the specification judges beside it.
//! Frame numbers have 36 bits, guests' addresses 40.

use pinfold_abi::{HostCall, Status, claim, limit};
use pinfold_core::mutant::Mutant;

use crate::lockstep::{GUEST, Judged, RAM};
use crate::small::{ADDRESSES, Action, EL2, EL2_FRAMES, FRAMES, Pin, TABLE, World};
use crate::{alone, judged};

/// Every number around each of these.
fn around(limits: &[u64], near: u64) -> Vec<u64> {
    let mut numbers: Vec<_> = limits
        .iter()
        .flat_map(|limit| {
            (0..=2 * near).map(move |step| limit.wrapping_sub(near).wrapping_add(step))
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Where the limits of frame numbers and addresses are.
const LIMITS: [u64; 7] = [0, 1 << 24, 1 << 28, 1 << 36, 1 << 52, 1 << 63, u64::MAX];

fn first_frames() -> Vec<u64> {
    let mut places = LIMITS.to_vec();
    places.extend([RAM, RAM + 4, TABLE, EL2 + EL2_FRAMES]);
    around(&places, 2)
}

fn guest_frames() -> Vec<u64> {
    let mut places = LIMITS.to_vec();
    places.push(GUEST);
    around(&places, 2)
}

fn counts() -> Vec<u64> {
    let mut places = LIMITS.to_vec();
    places.extend([
        4,
        FRAMES,
        limit::MAX_GIFT,
        limit::MAX_FRAMES,
        1024,
        1024 * 256,
    ]);
    around(&places, 2)
}

/// Whether it is a range of frame numbers of `bits` bits.
fn is_range(first: u64, count: u64, bits: u32) -> bool {
    let end = u128::from(first) + u128::from(count);
    count > 0 && end <= 1 << bits
}

/// Who has the frames of the world: page 0 a guest, page 1 the pool, the last of the eight first a pin table, the rest the host.
fn is_hosts(frame: u128) -> Result<(), Status> {
    let at = |frame: u64| u128::from(frame);
    match frame {
        _ if !(at(RAM)..at(RAM + FRAMES)).contains(&frame) => Err(Status::NotRam),
        _ if frame >= at(TABLE) || frame < at(RAM + 2) => Err(Status::NotPermitted),
        _ => Ok(()),
    }
}

/// The status for the first frame that is not the host's; nothing if all are.
fn all_hosts(first: u64, count: u64) -> Option<(u64, Status)> {
    (0..count).find_map(|index| {
        let frame = u128::from(first) + u128::from(index);
        is_hosts(frame).err().map(|status| (index, status))
    })
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
    let overlaps = u128::from(first) < u128::from(GUEST + ADDRESSES)
        && u128::from(GUEST) < u128::from(first) + u128::from(count);
    if overlaps {
        (Status::Exists, Some(0))
    } else {
        (Status::Ok, None)
    }
}

fn donate(gfn: u64, pfn: u64, count: u64, order: u64) -> Expected {
    let frames = u128::from(count) << order.min(64);
    let Ok(frames) = u64::try_from(frames) else {
        return INVALID;
    };
    let is_sound = order <= u64::from(limit::MAX_ORDER)
        && frames <= limit::MAX_FRAMES
        && is_range(pfn, frames, 36)
        && is_range(gfn, frames, 36);
    if !is_sound {
        return INVALID;
    }
    let size = 1 << order;
    if !pfn.is_multiple_of(size) || !gfn.is_multiple_of(size) {
        return (Status::Granule, Some(0));
    }
    let inside = gfn >= GUEST && gfn + frames <= GUEST + ADDRESSES;
    if !inside {
        return INVALID;
    }
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

/// A world with a VM that has page 0, and a pool that has page 1; of the VM a copy that is dying.
struct Worlds {
    created: World,
    dying: World,
}

impl Worlds {
    fn new() -> Judged<Self> {
        let mut created = World::new(4, false)?;
        let donation = Action::Donate {
            vm: 0,
            gfn: 0,
            page: 0,
            count: 1,
            order: 0,
            pin: Pin::Right,
        };
        for action in [Action::Create, donation, Action::PoolDonate(1)] {
            created.take(action)?;
        }
        (2..4).for_each(|page| created.both.pin_folio(RAM + page, 0));
        let mut dying = created.clone();
        dying.take(Action::Begin(0))?;
        Ok(Self { created, dying })
    }
}

/// Tries calls, and counts them.
struct Trials {
    worlds: Worlds,
    calls: u64,
    done: u64,
}

impl Trials {
    fn vm(&self) -> claim::Handle {
        self.worlds.created.vms[0].unwrap()
    }

    fn attempt(&mut self, call: HostCall, expected: Expected) -> Result<(), String> {
        let is_reclaim = matches!(call, HostCall::MemReclaim { .. });
        let world = if is_reclaim {
            &mut self.worlds.dying
        } else {
            &mut self.worlds.created
        };
        self.calls += 1;
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

    fn ranges(&mut self) -> Result<(), String> {
        let vm = self.vm();
        for first in first_frames() {
            let pfn = claim::Pfn(first);
            self.attempt(HostCall::FolioQuery { pfn }, one_frame(first))?;
            self.attempt(HostCall::FolioRange { first: pfn }, one_frame(first))?;
            for count in counts() {
                let frames = claim::Count(count);
                let call = HostCall::PoolDonate {
                    first: pfn,
                    count: frames,
                };
                self.attempt(call, pool_donate(first, count))?;
                let call = HostCall::FolioDigest {
                    first: pfn,
                    count: frames,
                };
                self.attempt(call, digest(first, count))?;
            }
        }
        for gfn in guest_frames() {
            for count in counts() {
                let (first, frames) = (claim::Gfn(gfn), claim::Count(count));
                let call = HostCall::VmMemoryRegion {
                    vm,
                    first,
                    count: frames,
                };
                self.attempt(call, region(gfn, count))?;
                let call = HostCall::MemReclaim {
                    vm,
                    gfn: first,
                    count: frames,
                };
                self.attempt(call, reclaim(gfn, count))?;
            }
        }
        Ok(())
    }

    fn tables(&mut self) -> Result<(), String> {
        for table in first_frames() {
            for first in around(&[0, RAM, RAM + FRAMES, 1 << 36, u64::MAX], 1) {
                for frames in around(&[0, 1024, 256 * 1024, 1 << 36, u64::MAX], 1) {
                    let call = HostCall::PinTableRegister {
                        table: claim::Pfn(table),
                        first: claim::Pfn(first),
                        frames: claim::Count(frames),
                    };
                    self.attempt(call, register(table, first, frames))?;
                }
            }
        }
        Ok(())
    }

    fn donations(&mut self) -> Result<(), String> {
        let vm = self.vm();
        let counts = around(&[1, 2, 512, 1 << 36, 1 << 60, u64::MAX], 1);
        for gfn in around(&[0, GUEST, 1 << 28, 1 << 36, u64::MAX], 1) {
            for pfn in around(&[0, RAM, RAM + 3, TABLE, 1 << 36, u64::MAX], 1) {
                for count in &counts {
                    for order in [0, 1, 9, 10, 63, 64, u64::MAX] {
                        let call = HostCall::MemDonate {
                            vm,
                            gfn: claim::Gfn(gfn),
                            pfn: claim::Pfn(pfn),
                            count: claim::Count(*count),
                            order: claim::Order(order),
                        };
                        self.attempt(call, donate(gfn, pfn, *count, order))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn all() -> Result<(u64, u64), String> {
    let worlds = Worlds::new().map_err(|found| format!("{found:?}"))?;
    let mut trials = Trials {
        worlds,
        calls: 0,
        done: 0,
    };
    trials.ranges()?;
    trials.tables()?;
    trials.donations()?;
    Ok((trials.calls, trials.done))
}

#[test]
fn every_range_is_decided_as_in_wide_arithmetic() {
    let (calls, done) = alone(None, all).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{calls} calls with ranges around every limit, {done} of them done");
    assert!(calls >= 30_000 && done >= 500, "{calls} calls, {done} done");
}

#[test]
fn wrong_limits_are_found() {
    for (mutant, call) in [
        (Mutant::LargeGift, "PoolDonate"),
        (Mutant::CutsPfn, "FolioQuery"),
        (Mutant::CutsRangePfn, "FolioRange"),
        (Mutant::RegionBeyondReach, "VmMemoryRegion"),
        (Mutant::DonatesUnaligned, "MemDonate"),
        (Mutant::EmptyIsLimit, "PinTableRegister"),
        (Mutant::LongReclaim, "MemReclaim"),
    ] {
        let found = alone(Some(mutant), all);
        println!("{mutant:?}: {found:?}");
        assert!(
            found.is_err_and(|found| found.starts_with(call)),
            "{mutant:?} is not found"
        );
    }
}
