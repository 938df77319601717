//! A [`Snapshot`] of what EL2 says about all memory, to be compared with a later one.
//!
//! Two equal snapshots mean: every folio word of RAM is the same, and so is the pool.

use guest_test::check_eq;
use guest_test::tap::{Failure, Outcome};
use pinfold_abi::limit::MAX_DIGEST;
use spin::Once;

use crate::calls::{self, State, Status};
use crate::platform;

/// Frames of RAM, EL2's among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ram {
    /// First frame.
    pub(crate) first: u64,
    /// Frames.
    pub(crate) count: u64,
}

/// What EL2 says about all memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    census: [u64; 6],
    digest: u64,
    pool: [u64; 2],
}

static RAM: Once<Ram> = Once::new();

/// The state of a frame.
pub(crate) fn state(pfn: u64) -> Result<Option<State>, Failure> {
    let reply = calls::folio_query(pfn);
    if reply.is(Status::NotRam) {
        return Ok(Some(State::NotRam));
    }
    let [_, state, ..] = reply.done("FOLIO_QUERY")?;
    Ok(State::from_number(state))
}

/// Fails unless the frame is in this state.
pub(crate) fn expect_state(pfn: u64, wanted: State, what: &str) -> Outcome {
    check_eq!(state(pfn)?, Some(wanted), "state of pfn {pfn:#x} {what}");
    Ok(())
}

/// All of RAM: from the host's first memory down and up to where EL2 knows none.
pub(crate) fn ram() -> Result<Ram, Failure> {
    if let Some(ram) = RAM.get() {
        return Ok(*ram);
    }
    let known = platform::machine()
        .memory
        .first()
        .map_or(0, |range| range.start >> 12);
    let mut first = known & !0x1ff;
    while state(first - 512)? != Some(State::NotRam) {
        first -= 512;
    }
    let mut end = first;
    while state(end)? != Some(State::NotRam) {
        end += 512;
    }
    Ok(*RAM.call_once(|| Ram {
        first,
        count: end - first,
    }))
}

impl Snapshot {
    /// What EL2 says now.
    pub(crate) fn take() -> Result<Self, Failure> {
        let ram = ram()?;
        let mut digest = 0_u64;
        for offset in (0..ram.count).step_by(1024) {
            let count = MAX_DIGEST.min(ram.count - offset);
            let part = calls::folio_digest(ram.first + offset, count).value("FOLIO_DIGEST")?;
            digest = digest.rotate_left(1) ^ part;
        }
        let census = calls::folio_census().done("FOLIO_CENSUS")?;
        let [free, donated, ..] = calls::pool_status().done("POOL_STATUS")?;
        Ok(Self {
            census,
            digest,
            pool: [free, donated],
        })
    }

    /// Fails if anything is different now.
    pub(crate) fn is_still_so(&self, what: &str) -> Outcome {
        let now = Self::take()?;
        check_eq!(now.census, self.census, "census {what}");
        check_eq!(now.pool, self.pool, "pool {what}");
        check_eq!(now.digest, self.digest, "digest of folio words {what}");
        Ok(())
    }
}
