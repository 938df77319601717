//! Every pair of an address and a length over a small word, for each call that takes a range and for what a guest calls about one of
//! its frames.
//!
//! A word of a few bits stands for a number around a base, to either side: an address around the first of the machine or of a guest,
//! a length around 0, so that half of the lengths reach beyond the end of all numbers. [`Trials`] says what must come of a host's call.

use pinfold_abi::{ACCESS_READ, ExitReason};
use pinfold_core::mutant::Mutant;
use pinfold_spec::GuestEvent;

use crate::directed::{RELINQUISH, SHARE, UNSHARE};
use crate::lockstep::{GUEST, Judged, RAM};
use crate::small::{Action, Pin, World};
use crate::trials::{GUEST_RAM, Trials, Tried, world};
use crate::{alone, judged};

/// Bits of a word: of one of two, of one of three, and of the guest's address where there are four.
const OF_TWO: u32 = 6;
const OF_THREE: u32 = 5;
const OF_FOUR: u32 = 4;

/// SMCCC `INVALID_PARAMETER`.
const INVALID_PARAMETER: u64 = u64::MAX - 2;

/// How many calls there were, and how many of them were done.
type Figures = Result<(u64, u64), String>;

/// All numbers around `base` for which a word of so many bits stands.
fn words(bits: u32, base: u64) -> impl Iterator<Item = u64> {
    let below = 1 << (bits - 1);
    (0..2 * below).map(move |word| base.wrapping_add(word).wrapping_sub(below))
}

fn ranges(trials: &mut Trials) -> Tried {
    for first in words(OF_TWO, RAM) {
        trials.query(first)?;
        trials.poison(first)?;
        for count in words(OF_TWO, 0) {
            trials.pool_donate(first, count)?;
            trials.digest(first, count)?;
        }
    }
    for gfn in words(OF_TWO, GUEST) {
        for count in words(OF_TWO, 0) {
            trials.region(gfn, count)?;
            trials.reclaim(gfn, count)?;
            trials.unshare(gfn, count)?;
            trials.protect(gfn, count, ACCESS_READ)?;
        }
    }
    Ok(())
}

fn tables(trials: &mut Trials) -> Tried {
    for table in words(OF_THREE, RAM) {
        for first in words(OF_THREE, RAM) {
            for frames in words(OF_THREE, 0) {
                trials.register(table, first, frames)?;
            }
        }
    }
    Ok(())
}

fn folios(trials: &mut Trials) -> Tried {
    for gfn in words(OF_FOUR, GUEST) {
        for pfn in words(OF_THREE, RAM) {
            for count in words(OF_THREE, 0) {
                for order in 0..3 {
                    trials.donate(gfn, pfn, count, order)?;
                    trials.share(gfn, pfn, count, order, ACCESS_READ)?;
                }
            }
        }
    }
    Ok(())
}

fn tries(kind: fn(&mut Trials) -> Tried) -> Figures {
    let mut trials = Trials::new()?;
    kind(&mut trials)?;
    Ok((trials.calls, trials.done))
}

/// What a guest that runs has at one of its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Private,
    Shared,
    Missing,
}

/// What a guest's call must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The guest goes on with this in X0.
    Answer(u64),
    /// The host goes on, for this reason and about this frame.
    Exit(u64, u64),
}

/// What the function comes to of this address and second argument, which must be 0 since frames go one by one.
fn outcome(function: u64, ipa: u64, more: u64, places: [Place; 2]) -> Outcome {
    let gfn = ipa / 4096;
    let place = match gfn.checked_sub(GUEST) {
        Some(0) => Some(places[0]),
        Some(1) => Some(places[1]),
        Some(2..GUEST_RAM) => Some(Place::Missing),
        _ => None,
    };
    let exit = |reason: ExitReason| Outcome::Exit(reason.number(), gfn);
    let is_page = ipa.is_multiple_of(4096) && more == 0;
    match (function, place.filter(|_| is_page)) {
        (SHARE, Some(Place::Private)) => exit(ExitReason::Shared),
        (SHARE, Some(Place::Missing)) => exit(ExitReason::MemoryFault),
        // The page is not pinned.
        (UNSHARE, Some(Place::Shared)) => exit(ExitReason::UnshareRequest),
        (RELINQUISH, Some(Place::Private)) => exit(ExitReason::Relinquished),
        (RELINQUISH, Some(Place::Missing)) => Outcome::Answer(0),
        _ => Outcome::Answer(INVALID_PARAMETER),
    }
}

/// A world in which the first VM runs, with page 0 at its first address; at the second it has page 2 or nothing.
fn running(second: Place) -> Judged<World> {
    let mut world = world()?;
    let (vm, gfn) = (0, 1);
    let run = Action::Run {
        vm,
        answer: 0,
        pin: Pin::Missing,
    };
    let donation = Action::Donate {
        vm,
        gfn,
        page: 2,
        count: 1,
        order: 0,
        pin: Pin::Right,
    };
    let gives = [donation, Action::Start(vm), run, Action::Share { vm, gfn }];
    let steps = match second {
        Place::Private => &gives[..2],
        Place::Shared => &gives[..],
        Place::Missing => &gives[1..2],
    };
    for action in steps.iter().chain([&run]) {
        world.take(*action)?;
    }
    Ok(world)
}

/// Lets the guest call; says what came of it.
fn call(world: &mut World, x: [u64; 4]) -> Judged<Outcome> {
    let vm = world.vms[0].unwrap();
    let told = world.both.guest_exits(vm, 0, x, GuestEvent::Call)?;
    if let Some(host) = told {
        return Ok(Outcome::Exit(host[2], host[3]));
    }
    let (loaded, _) = &world.both.loaded[&(vm.0, 0)];
    Ok(Outcome::Answer(loaded.vcpu.context.x[0]))
}

const FUNCTIONS: [(&str, u64); 3] = [
    ("MEM_SHARE", SHARE),
    ("MEM_UNSHARE", UNSHARE),
    ("MEM_RELINQUISH", RELINQUISH),
];

/// A guest with a page, and with this at its second address, calls with every address and every second argument.
fn guest(second: Place) -> Figures {
    let world = running(second).map_err(|found| format!("{found:?}"))?;
    let glance = world.glance();
    let (mut calls, mut done) = (0, 0);
    for ipa in words(OF_TWO, GUEST * 2).map(|half| half * 2048) {
        for more in words(OF_TWO, 0) {
            for (name, function) in FUNCTIONS {
                let expected = outcome(function, ipa, more, [Place::Private, second]);
                let is_refused = matches!(expected, Outcome::Answer(_));
                let mut trial = world.clone();
                trial.both.compares = !is_refused;
                let seen = judged(|| call(&mut trial, [function, ipa, more, 0]));
                let said = format!("{name} of {ipa:#x}, {more:#x}: {seen:x?}");
                if seen != Ok(expected) {
                    return Err(format!("{said}, not {expected:x?}"));
                }
                if is_refused && trial.glance() != glance {
                    return Err(format!("{said}, and something changed"));
                }
                calls += 1;
                done += u64::from(!is_refused);
            }
        }
    }
    Ok((calls, done))
}

fn guests() -> Figures {
    let (mut calls, mut done) = (0, 0);
    for second in [Place::Private, Place::Shared, Place::Missing] {
        let (more, more_done) = guest(second)?;
        (calls, done) = (calls + more, done + more_done);
    }
    Ok((calls, done))
}

const KINDS: [fn() -> Figures; 4] = [|| tries(ranges), || tries(tables), || tries(folios), guests];

#[test]
fn every_pair_over_a_small_word() {
    let least = [(20_000, 8_000), (30_000, 500), (90_000, 100), (36_000, 50)];
    for (kind, (calls, done)) in KINDS.into_iter().zip(least) {
        let found = alone(None, kind).unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{} calls with words, {} of them done", found.0, found.1);
        assert!(found.0 >= calls && found.1 >= done, "{found:?}");
    }
}

#[test]
fn broken_pairs_are_found() {
    let [ranges, tables, folios, guests] = KINDS;
    for (mutant, kind, call) in [
        (Mutant::PoolTakesAnything, ranges, "PoolDonate"),
        (Mutant::PoisonsAnything, ranges, "MemPoison"),
        (Mutant::RegionsOverlap, ranges, "VmMemoryRegion"),
        (Mutant::NeverDone, ranges, "MemReclaim"),
        (Mutant::HolesAreLeft, ranges, "MemUnshareGuest"),
        (Mutant::ProtectsNothing, ranges, "MemProtectGuest"),
        (Mutant::PinsOverlap, tables, "PinTableRegister"),
        (Mutant::DonatesOutsideRam, folios, "MemDonate"),
        (Mutant::SharesOutsideRam, folios, "MemShareGuest"),
        (Mutant::MissingIsInvalid, guests, "MEM_SHARE of"),
        (Mutant::RefusedUnshareSucceeds, guests, "MEM_UNSHARE of"),
        (
            Mutant::RefusedRelinquishSucceeds,
            guests,
            "MEM_RELINQUISH of",
        ),
        (Mutant::NothingIsRefused, guests, "MEM_RELINQUISH of"),
    ] {
        let found = alone(Some(mutant), kind);
        println!("{mutant:?}: {found:?}");
        assert!(
            found.is_err_and(|found| found.starts_with(call)),
            "{mutant:?} is not found"
        );
    }
}
