//! EL2's pool, as the host feeds and drains it.
//!
//! Invariant: frames that the tests gave to the pool are known here; [`drain`] takes them all back.

use alloc::vec::Vec;

use guest_test::check;
use guest_test::tap::{Failure, Outcome};
use spin::mutex::SpinMutex;

use crate::calls::{self, Reply, Status};
use crate::folio::Folio;

/// What the pool holds of ours.
static GIVEN: SpinMutex<Vec<Folio>> = SpinMutex::new(Vec::new());

/// Gives the pool 16 frames.
pub(crate) fn feed() -> Outcome {
    let folio = Folio::take(4)?;
    let taken = calls::pool_donate(folio.pfn(), folio.frames()).value("feeding the pool")?;
    check!(
        taken == folio.frames(),
        "the pool took {taken} of {} frames",
        folio.frames()
    );
    GIVEN.lock().push(folio);
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
    let mut frames = 0;
    loop {
        let reply = calls::pool_reclaim();
        if reply.is(Status::NoMemory) {
            break;
        }
        reply.done("draining the pool")?;
        frames += 1;
    }
    let [_, outstanding, ..] = calls::pool_status().done("pool status")?;
    if outstanding == 0 {
        GIVEN.lock().clear();
    }
    Ok(frames)
}
