//! The storm: all CPUs make valid, nearly valid and garbage calls for as long as they are told, while two guests watch their memory.
//!
//! Bootargs: `storm=<seconds>` and `seed=<number>`. Everything depends on the seed alone, so that under a counted clock (QEMU's
//! icount) a storm can be had again. Valid calls act on [`Ward`]s and [`Tenant`]s, whose answers are known before; the others on a [`Stray`] of
//! each CPU. The first answer that is wrong ends it.

pub(crate) mod sentry;
mod stray;
pub(crate) mod tally;
mod tenant;
mod ward;

use alloc::vec::Vec;

use guest_test::lock::{SpinMutex, Yield};
use guest_test::random::Random;
use guest_test::tap::{Failure, Outcome, Test};
use guest_test::{bytes, check, line, timer};
use spin::relax::RelaxStrategy;

use crate::suites::el2_frame;
use crate::{frames, platform, pool, smp};
use sentry::Sentry;
use stray::Stray;
use tenant::Tenant;
use ward::Ward;

/// Protected VMs that come and go.
const WARDS: usize = 6;
/// Guests that watch.
const SENTRIES: usize = 2;
/// The first round of the first sentry; the next one begins as much further on.
const ROUNDS: u64 = 1 << 40;
/// Of a hundred calls, how many must be done.
const LEAST_DONE: u64 = 20;

static WARD: [SpinMutex<Ward>; WARDS] = [const { SpinMutex::new(Ward::new()) }; WARDS];
/// Ordinary VMs that come and go.
static TENANT: [SpinMutex<Tenant>; 3] = [
    SpinMutex::new(Tenant::new(0)),
    SpinMutex::new(Tenant::new(1)),
    SpinMutex::new(Tenant::new(2)),
];
static SENTRY: [SpinMutex<Option<Sentry>>; SENTRIES] = [const { SpinMutex::new(None) }; SENTRIES];
/// What all CPUs want to know: the seed, when it ends, and frames that are not to be had.
static ORDERS: SpinMutex<[u64; 4]> = SpinMutex::new([0; 4]);

/// The storm as a test.
pub(crate) const TESTS: &[Test] = &[Test {
    name: "storm",
    run: storm,
}];

/// How many seconds the boot arguments ask for, if any.
fn seconds() -> Option<u64> {
    platform::machine().option("storm=")?.parse().ok()
}

/// Whether the boot arguments ask for a storm.
pub(crate) fn is_wanted() -> bool {
    seconds().is_some()
}

fn storm() -> Outcome {
    let seconds = seconds().unwrap_or(0);
    let seed = platform::machine().option("seed=").unwrap_or("1");
    let seed: u64 = seed
        .parse()
        .map_err(|_| Failure::new(format_args!("seed={seed} is not a number")))?;
    line!("# storm: {seconds} s on {} CPUs, seed {seed}", smp::cpus());
    frames::register()?;
    pool::feed()?;
    tenant::open()?;
    for (number, place) in (1..).zip(&SENTRY) {
        *place.lock() = Some(Sentry::post(number * ROUNDS)?);
    }
    let watched = SENTRY
        .first()
        .and_then(|place| place.lock().as_ref().map(Sentry::frame));
    let watched = watched.ok_or_else(|| Failure::new(format_args!("no sentry")))??;
    let hyp = el2_frame()?;
    tally::begin();
    let begun = timer::now();
    let end = begun + timer::milliseconds(seconds * 1000);
    *ORDERS.lock() = [seed, end, hyp, watched];
    let jobs: Vec<_> = (1..smp::cpus())
        .map(|cpu| smp::begin(cpu, rage, bytes::word(cpu)))
        .collect();
    rage(0);
    for job in jobs {
        job?.result()?;
    }
    let taken = timer::now() - begun;
    let concluded = conclude(taken);
    tally::verdict().and(concluded)
}

/// Puts everything in order and says what there was.
fn conclude(taken: u64) -> Outcome {
    let [calls, done] = tally::totals();
    tally::print();
    let per_hour =
        u128::from(calls) * u128::from(timer::milliseconds(3_600_000)) / u128::from(taken.max(1));
    line!(
        "# storm: {calls} calls, {done} of them done, {per_hour} calls an hour, digest {:#018x}",
        tally::digest()
    );
    // Which words are looked at does not matter now.
    let mut random = Random::new(0);
    for ward in &WARD {
        ward.lock().end(&mut random)?;
    }
    for tenant in &TENANT {
        tenant.lock().end()?;
    }
    tenant::close();
    for (number, place) in (1..).zip(&SENTRY) {
        if let Some(sentry) = place.lock().take() {
            let rounds = sentry.rounds(number * ROUNDS);
            line!("# storm: sentry {number} watched {rounds} rounds");
            check!(rounds > 0, "a sentry slept");
            sentry.relieve()?;
        }
    }
    pool::drain()?;
    check!(
        done * 100 >= calls * LEAST_DONE,
        "only {done} of {calls} calls were done: the storm is a breeze"
    );
    Ok(())
}

/// One CPU's part.
fn rage(cpu: u64) -> u64 {
    if let Err(failure) = rage_on(cpu) {
        tally::report(failure);
    }
    0
}

fn rage_on(cpu: u64) -> Outcome {
    let [seed, end, hyp, watched] = *ORDERS.lock();
    let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ cpu << 56);
    let mut stray = Stray::new([hyp, watched])?;
    while timer::now() < end && !tally::is_wrong() {
        match random.below(64) {
            0 => watch(&mut random)?,
            1..=24 => care(&mut random, watched)?,
            25..=28 => let_use(&mut random, watched)?,
            29..=56 => stray.nearly_valid(&mut random)?,
            _ => stray.garbage(&mut random)?,
        }
        // Where CPUs take turns, calls mix.
        Yield::relax();
    }
    stray.clear_away()?;
    // The bait may be in the pool, and comes back when that is drained.
    core::mem::forget(stray);
    Ok(())
}

/// Lets a sentry watch, unless another CPU does.
fn watch(random: &mut Random) -> Outcome {
    let place = bytes::size(random.below(bytes::word(SENTRIES)));
    let sentry = SENTRY.get(place).and_then(SpinMutex::try_lock);
    match sentry {
        Some(mut sentry) => sentry.as_mut().map_or(Ok(()), Sentry::watch),
        None => Ok(()),
    }
}

/// Does something for a ward, unless another CPU does.
fn care(random: &mut Random, watched: u64) -> Outcome {
    let number = random.below(bytes::word(WARDS));
    let ward = WARD.get(bytes::size(number)).and_then(SpinMutex::try_lock);
    let Some(mut ward) = ward else {
        return Ok(());
    };
    let outcome = ward.step(random, watched);
    outcome.map_err(|failure| of("ward", number, &failure))
}

/// Does something with a tenant, unless another CPU does.
fn let_use(random: &mut Random, watched: u64) -> Outcome {
    let number = random.below(bytes::word(TENANT.len()));
    let tenant = TENANT
        .get(bytes::size(number))
        .and_then(SpinMutex::try_lock);
    let Some(mut tenant) = tenant else {
        return Ok(());
    };
    let outcome = tenant.step(random, watched);
    outcome.map_err(|failure| of("tenant", number, &failure))
}

/// The failure that ends a storm, with whom it came from.
fn of(whom: &str, number: u64, failure: &Failure) -> Failure {
    Failure::new(format_args!("{whom} {number}: {}", failure.reason()))
}
