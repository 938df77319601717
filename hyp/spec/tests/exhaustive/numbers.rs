//! Every first frame and every count around every limit, for each call that takes a range, against arithmetic in 128 bits.

use pinfold_abi::{ACCESS_READ, HostCall, claim, limit};
use pinfold_core::mutant::Mutant;

use crate::alone;
use crate::lockstep::{GUEST, RAM};
use crate::small::{EL2, EL2_FRAMES, FRAMES, TABLE};
use crate::trials::{Trials, Tried};

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

fn ranges(trials: &mut Trials) -> Tried {
    for first in first_frames() {
        trials.query(first)?;
        trials.poison(first)?;
        for count in counts() {
            trials.pool_donate(first, count)?;
            trials.digest(first, count)?;
        }
    }
    for gfn in guest_frames() {
        for count in counts() {
            trials.region(gfn, count)?;
            trials.reclaim(gfn, count)?;
            trials.unshare(gfn, count)?;
            trials.protect(gfn, count, ACCESS_READ)?;
        }
    }
    Ok(())
}

fn tables(trials: &mut Trials) -> Tried {
    for table in first_frames() {
        for first in around(&[0, RAM, RAM + FRAMES, 1 << 36, u64::MAX], 1) {
            for frames in around(&[0, 1024, 256 * 1024, 1 << 36, u64::MAX], 1) {
                trials.register(table, first, frames)?;
            }
        }
    }
    Ok(())
}

fn folios(trials: &mut Trials) -> Tried {
    let counts = around(&[1, 2, 512, 1 << 36, 1 << 60, u64::MAX], 1);
    for gfn in around(&[0, GUEST, 1 << 28, 1 << 36, u64::MAX], 1) {
        for pfn in around(&[0, RAM, RAM + 3, TABLE, 1 << 36, u64::MAX], 1) {
            for count in &counts {
                for order in [0, 1, 9, 10, 63, 64, u64::MAX] {
                    trials.donate(gfn, pfn, *count, order)?;
                    trials.share(gfn, pfn, *count, order, ACCESS_READ)?;
                }
            }
        }
    }
    Ok(())
}

/// Every set of rights around every limit.
fn rights(trials: &mut Trials) -> Tried {
    for access in around(&[0, 8, 1 << 32, 1 << 63], 8) {
        trials.protect(GUEST, 1, access)?;
        trials.share(GUEST + 1, RAM + 4, 1, 0, access)?;
    }
    Ok(())
}

fn all() -> Result<Trials, String> {
    let mut trials = Trials::new()?;
    for tries in [ranges, tables, folios, rights] {
        tries(&mut trials)?;
    }
    Ok(trials)
}

#[test]
fn every_range_is_decided_as_in_wide_arithmetic() {
    let trials = alone(None, all).unwrap_or_else(|wrong| panic!("{wrong}"));
    let (calls, done) = (trials.calls, trials.done);
    println!("{calls} calls with ranges around every limit, {done} of them done");
    assert!(
        calls >= 60_000 && done >= 1000,
        "{calls} calls, {done} done"
    );
    let is_frame = |unit| [claim::Pfn::UNIT, claim::Gfn::UNIT].contains(&unit);
    for info in HostCall::TABLE {
        let takes_frame = info.arguments.iter().any(|field| is_frame(field.unit));
        let is_tried = trials.tried.contains(&info.number);
        assert_eq!(takes_frame, is_tried, "{}", info.name);
    }
}

#[test]
fn wrong_limits_are_found() {
    for (mutant, call) in [
        (Mutant::LargeGift, "PoolDonate"),
        (Mutant::CutsPfn, "FolioQuery"),
        (Mutant::CutsRangePfn, "FolioRange"),
        (Mutant::CutsPoisonPfn, "MemPoison"),
        (Mutant::RegionBeyondReach, "VmMemoryRegion"),
        (Mutant::DonatesUnaligned, "MemDonate"),
        (Mutant::EmptyIsLimit, "PinTableRegister"),
        (Mutant::LongReclaim, "MemReclaim"),
        (Mutant::SharesOutsideRam, "MemShareGuest"),
        (Mutant::LongChange, "MemUnshareGuest"),
        (Mutant::WritesWithoutReading, "MemProtectGuest"),
    ] {
        let found = alone(Some(mutant), all).err();
        println!("{mutant:?}: {found:?}");
        assert!(
            found.is_some_and(|found| found.starts_with(call)),
            "{mutant:?} is not found"
        );
    }
}
