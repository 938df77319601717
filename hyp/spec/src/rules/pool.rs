//! `POOL_DONATE` and `POOL_RECLAIM`: frames that the host lends EL2.

use pinfold_abi::{Status, limit};

use super::is_range;
use crate::calls::Seen;
use crate::clause::Clause;
use crate::ruling::{Ruling, done, refuse, require};
use crate::state::{FRAME_LIMIT, Owner, State};

impl State {
    pub(crate) fn donate_to_pool(&mut self, first: u64, count: u64) -> Ruling {
        let is_sound = is_range(first, count, FRAME_LIMIT) && count <= limit::MAX_GIFT;
        require(is_sound, refuse(Clause::PoolMalformed, Status::Invalid))?;
        self.require_hosts(Clause::PoolNotHosts, first, count)?;
        for frame in first..first + count {
            self.give(frame, Owner::Hyp);
            self.given.insert(frame);
        }
        Ok(done(Clause::PoolDonate, &[count]))
    }

    /// EL2 chooses the frame. Which ones it uses is its own business, but when more are free than it had at first, one of
    /// those is the host's.
    pub(crate) fn reclaim_from_pool(&mut self, seen: Seen) -> Ruling {
        let must_be_one = seen.free > self.boot.pool;
        let none = refuse(Clause::PoolReclaimNone, Status::NoMemory);
        if self.given.is_empty() || !must_be_one && !seen.is_done() {
            return Err(none);
        }
        let is_legal = self.given.remove(&seen.result);
        let frame = if is_legal { seen.result } else { u64::MAX };
        self.give_host(frame);
        self.wipe(frame);
        Ok(done(Clause::PoolReclaim, &[frame]))
    }
}
