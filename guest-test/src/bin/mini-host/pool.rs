//! EL2's pool, as the host feeds and drains it.
//!
//! Invariant: frames that the tests gave to the pool are known here; [`drain`] takes them all back.

use alloc::vec::Vec;

use guest_test::check;
use guest_test::lock::SpinMutex;
use guest_test::tap::{Failure, Outcome};

use crate::calls::{self, Reply, Status};
use crate::folio::Folio;
use crate::frames;

/// What the pool holds of ours.
static GIVEN: SpinMutex<Vec<u64>> = SpinMutex::new(Vec::new());

/// Gives the pool 16 frames.
pub(crate) fn feed() -> Outcome {
    let folio = Folio::take(4)?;
    let taken = calls::pool_donate(folio.pfn(), folio.frames()).value("feeding the pool")?;
    check!(
        taken == folio.frames(),
        "the pool took {taken} of {} frames",
        folio.frames()
    );
    GIVEN
        .lock()
        .extend(folio.pfn()..folio.pfn() + folio.frames());
    // Each of its frames comes back by itself.
    core::mem::forget(folio);
    Ok(())
}

/// A frame came back: if it is one of ours, it is free again.
fn came_back(pfn: u64) {
    let mut given = GIVEN.lock();
    if let Some(place) = given.iter().position(|frame| *frame == pfn) {
        given.swap_remove(place);
        frames::give(pfn, 0);
    }
}

/// Takes one frame back, if there is a free one.
pub(crate) fn shed() -> Outcome {
    let reply = calls::pool_reclaim();
    if !reply.is(Status::NoMemory) {
        came_back(reply.value("taking a frame out of the pool")?);
    }
    Ok(())
}

/// Calls, and feeds the pool as often as it is dry.
pub(crate) fn fed(mut call: impl FnMut() -> Reply) -> Result<Reply, Failure> {
    for _ in 0..64 {
        let reply = call();
        if !reply.is(Status::NoMemory) {
            return Ok(reply);
        }
        feed()?;
    }
    Err(Failure::new(format_args!("the pool is dry after 64 meals")))
}

/// Takes back what was given, and gives how many frames came.
pub(crate) fn drain() -> Result<u64, Failure> {
    let mut count = 0;
    loop {
        let reply = calls::pool_reclaim();
        if reply.is(Status::NoMemory) {
            break;
        }
        came_back(reply.value("draining the pool")?);
        count += 1;
    }
    Ok(count)
}
