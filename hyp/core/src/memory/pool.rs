//! The pool's frames: the host gives EL2 frames for tables and objects, and takes free ones back.
//!
//! Giving is the one way out of a dry pool, so it may take the pool's last frames for the tables it needs itself. It gains most
//! when the frames adjoin: a run within one 2 MiB block costs at most two tables at each side.

use pinfold_abi::{State, limit};

use super::{Lent, Memory};
use crate::addr::{FrameRange, Order, Pfn, Physical};
use crate::folio::FolioState;
use crate::machine::{HypAccess, Machine};
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Grain, Mapping, Need};

/// A donation to the pool that was checked whole.
#[must_use = "a donation moves nothing until it is committed"]
#[derive(Debug)]
pub struct PoolDonation<'a, M: Machine> {
    lent: Lent<'a, M>,
    frames: FrameRange<Physical>,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may give `frames` to the pool.
    pub fn donate_to_pool(
        &mut self,
        frames: FrameRange<Physical>,
    ) -> Result<PoolDonation<'_, M>, Refusal> {
        if frames.count() > limit::MAX_GIFT && !mutant!(LargeGift) {
            return Err(Refusal::Invalid);
        }
        let checked = self.folios.expect_host(frames);
        seeded!(PoolTakesAnything, Ok(()), checked)?;
        let needed = self
            .host
            .tables_needed(frames.identity(), Grain::Pages, &self.machine);
        let lent = Lent::new(self, needed, Need::Replenishing)?;
        lent.memory.machine.prepare_hyp(frames)?;
        Ok(PoolDonation { lent, frames })
    }

    /// Takes one free frame out of the pool and gives it to the host, wiped. The host's tables have its place still.
    pub fn reclaim_from_pool(&mut self) -> Result<Pfn, Refusal> {
        let mut lent = Lent::new(self, 0, Need::Replenishing)?;
        let memory = &mut *lent.memory;
        let none = seeded!(
            NoneIsBusy,
            Refusal::Busy(Found::default()),
            Refusal::OutOfMemory
        );
        let pfn = memory.machine.pool_remove().ok_or(none)?;
        let frame = FrameRange::folio(pfn, Order::FRAME);
        memory.forget_decoys_in(memory.folios.whole(pfn));
        if !mutant!(KeepsHypMapping) {
            memory.machine.unmap_hyp(pfn);
        }
        memory.wipe(pfn);
        let owner = seeded!(
            ReclaimedStaysHyp,
            FolioState::Hyp { entries: 0 },
            FolioState::Host
        );
        memory.folios.change(frame, State::Hyp, Order::FRAME, owner);
        memory.given_to_pool = memory.given_to_pool.saturating_sub(1);
        lent.set_host(frame, Grain::Pages, Content::Map(pfn, Mapping::Ram));
        Ok(pfn)
    }

    /// How many frames the host gave to the pool and has not back.
    #[must_use]
    pub const fn given_to_pool(&self) -> u64 {
        self.given_to_pool
    }
}

impl<M: Machine> PoolDonation<'_, M> {
    /// Takes the frames from the host, then puts them into the pool.
    pub fn commit(mut self) {
        self.lent
            .set_host(self.frames, Grain::Pages, Content::Vacant);
        let memory = &mut *self.lent.memory;
        let noted = seeded!(PoolTakesOneMore, self.frames.longer(), self.frames);
        let owner = seeded!(
            GiftStaysHosts,
            FolioState::Host,
            FolioState::Hyp { entries: 0 }
        );
        memory
            .folios
            .change(noted, State::Host, Order::FRAME, owner);
        for frame in self.frames.frames() {
            memory.machine.map_hyp(frame, HypAccess::ReadWrite);
            memory.machine.pool_insert(frame);
        }
        let given = seeded!(GiftUncounted, 0, self.frames.count());
        memory.given_to_pool = memory.given_to_pool.saturating_add(given);
    }
}
