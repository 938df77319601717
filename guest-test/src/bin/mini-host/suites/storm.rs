//! Storms: pseudo-random calls from all CPUs at once; EL2 stands, and afterwards everything can be put in order again.

use guest_test::bytes::{self, FRAME};
use guest_test::lock::SpinMutex;
use guest_test::random::Random;
use guest_test::tap::Outcome;
use guest_test::{check, gic, line, tests, timer};
use pinfold_abi::{FUNCTION_BASE, HostCall, VM_PROTECTED, pin_word};

use super::processors;
use super::snapshot::Snapshot;
use crate::calls::{self, Status};
use crate::folio::Folio;
use crate::vm::{RAM_GFN, reclaim};
use crate::{frames, pool, smp};

/// Calls of each CPU, at most.
const CALLS: u64 = 6000;
/// Milliseconds of one storm, at most.
const TIME: u64 = 3000;
/// Guest frames that the storm uses.
const GFNS: u64 = 16;

/// Handles that the storm got.
static HANDLES: SpinMutex<[u64; 64]> = SpinMutex::new([0; 64]);
/// The frames that the storm plays with: first, and how many.
static FIELD: SpinMutex<[u64; 2]> = SpinMutex::new([0; 2]);

/// A word that may make sense as an argument.
fn word(random: &mut Random, field: [u64; 2], handle: u64, el2: u64) -> u64 {
    let [first, count] = field;
    match random.below(16) {
        0..=3 => first + random.below(count),
        4..=6 => handle,
        7 | 8 => RAM_GFN + random.below(GFNS),
        9..=11 => random.below(4),
        12 => el2 + random.below(64),
        13 => random.below(1 << 28) & !frame_mask(),
        14 => random.word(),
        _ => 1 << random.below(64),
    }
}

/// Keeps random frame numbers out of the machine's RAM, which the mini host lives in.
const fn frame_mask() -> u64 {
    0xfff_ffff & !0xffff
}

/// One CPU's part: `seed` in the low half, a frame of EL2's in the high half.
fn rage(argument: u64) -> u64 {
    let mut random = Random::new(argument & 0xffff_ffff);
    let el2 = argument >> 32;
    let field = *FIELD.lock();
    let [first, count] = field;
    let mut handle = 0;
    let mut done = 0;
    let deadline = timer::now() + timer::milliseconds(TIME);
    for _ in 0..CALLS {
        if timer::now() > deadline {
            break;
        }
        if random.below(8) == 0 {
            handle = HANDLES
                .lock()
                .get(bytes::size(random.below(64)))
                .copied()
                .unwrap_or(0);
        }
        if random.below(4) == 0 {
            let order = bytes::low32(random.below(3));
            let word = if random.below(2) == 0 {
                pin_word::donatable(0)
            } else {
                bytes::low32(random.word()) ^ order
            };
            frames::set_pin(first + random.below(count), word);
        }
        let number = match random.below(8) {
            0 => random.below(0x100),
            1 | 2 => 0x40 + random.below(5),
            3 => 0x30 + random.below(6),
            _ => random.below(0x70),
        };
        let mut arguments = [0; 7];
        for place in &mut arguments {
            *place = word(&mut random, field, handle, el2);
        }
        done += u64::from(one(number, &mut arguments, &mut random));
    }
    done
}

/// One call; what would give away memory that the mini host lives in is kept to the field.
fn one(number: u64, arguments: &mut [u64; 7], random: &mut Random) -> bool {
    let [first, count] = *FIELD.lock();
    match number {
        // The pin table can be registered only once, and stays; so does poison: not a matter for a storm.
        0x10 | 0x45 => return false,
        0x20 => *arguments = [first + random.below(count), 1, 0, 0, 0, 0, 0],
        0x30 => {
            *arguments = [
                random.below(4) & VM_PROTECTED,
                1 + random.below(3),
                0,
                0,
                0,
                0,
                0,
            ];
        }
        0x31 => {
            let [_, gfn, frames, ..] = arguments;
            (*gfn, *frames) = (RAM_GFN, GFNS);
        }
        // An ordinary guest may write to what it gets.
        0x42 => {
            let [_, _, pfn, folios, order, ..] = arguments;
            *order = random.below(4);
            (*pfn, *folios) = (first + (random.below(count) & !7), 1);
        }
        0x39 => {
            let [_, _, register, value, ..] = arguments;
            (*register, *value) = (32, RAM_GFN * FRAME);
        }
        0x3a => timer::arm_physical(timer::now() + timer::milliseconds(1)),
        _ => (),
    }
    let reply = calls::call(bytes::low32(FUNCTION_BASE + number), arguments.as_slice());
    if number == 0x3a {
        timer::stop_physical();
        while gic::serve().is_some() {}
    }
    let done = reply.is(Status::Ok);
    if number == 0x30 && done {
        let [handle, ..] = reply.results;
        if let Some(place) = HANDLES.lock().get_mut(bytes::size(handle & 0x3f)) {
            *place = handle;
        }
    }
    done
}

/// Puts everything in order: all VMs gone, all frames back.
fn tidy_up() -> Outcome {
    let handles = core::mem::replace(&mut *HANDLES.lock(), [0; 64]);
    for handle in handles.into_iter().filter(|handle| *handle != 0) {
        let begun = calls::vm_teardown_begin(handle);
        if !begun.is(Status::NoSuchVm) {
            reclaim(handle, RAM_GFN, GFNS)?;
            calls::vm_teardown_finish(handle).done("VM_TEARDOWN_FINISH after the storm")?;
        }
    }
    pool::drain().map(|_| ())
}

/// One storm on `cpus` CPUs, in which at least so many calls must be more than refused.
fn storm(cpus: usize, seed: u64, least: u64) -> Outcome {
    frames::register()?;
    pool::drain()?;
    let before = Snapshot::take()?;
    let field = Folio::take(6)?;
    let food = Folio::take(6)?;
    calls::pool_donate(food.pfn(), food.frames()).done("feeding the pool")?;
    *FIELD.lock() = [field.pfn(), field.frames()];
    let el2 = processors::el2_frame()?;
    let argument = |cpu: usize| el2 << 32 | seed << 8 | bytes::word(cpu);
    let jobs: alloc::vec::Vec<_> = (1..cpus)
        .map(|cpu| smp::begin(cpu, rage, argument(cpu)))
        .collect();
    let mut done = rage(argument(0));
    for job in jobs {
        done += job?.result()?;
    }
    tidy_up()?;
    line!("# {done} calls of {cpus} CPUs were done");
    check!(
        done >= least,
        "only {done} calls did anything: the storm is a breeze"
    );
    for frame in 0..field.frames() {
        frames::set_pin(field.pfn() + frame, 0);
        check!(
            field.write(frame * FRAME, 1).is_ok(),
            "frame {frame} did not come back"
        );
    }
    before.is_still_so("after the storm")
}

tests! { "storm":
    /// One CPU calls at random.
    one_cpu {
        storm(1, 1, 100)?;
    }

    /// All CPUs call at random at once, several times.
    all_cpus {
        smp::need(2)?;
        // Where fewer real CPUs than virtual ones take turns at EL2's lock, few calls get through.
        for seed in 2..5 {
            storm(smp::cpus(), seed, 1)?;
        }
    }

    /// All calls of the table with arguments of all ones, all zeroes, and single bits.
    extreme_arguments {
        let before = Snapshot::take()?;
        for call in HostCall::TABLE {
            let id = bytes::low32(FUNCTION_BASE + call.number);
            // These may rightly be done with a single bit: a pin table, a frame for the pool, a frame of the pool, a VM, poison.
            let may_succeed = matches!(call.number, 0x10 | 0x20 | 0x21 | 0x30 | 0x45);
            for bit in 0..64 {
                if !may_succeed {
                    calls::call(id, &[1 << bit; 7]);
                }
                calls::call(id, &[u64::MAX << bit; 7]);
            }
        }
        before.is_still_so("after nonsense")?;
    }
}
