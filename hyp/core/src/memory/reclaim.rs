//! Reclaim: the host takes a dying VM's frames back, wiped.
//!
//! Work per call is bounded by [`WIPES_PER_CALL`]. A folio that is larger than what is left of a call stays `Wiping`, reachable by
//! nobody, with its frames parked in the guest's tables, and the next call goes on with it. No memory is needed: the host's
//! tables still have the places that the folio left.

use pinfold_abi::limit;

use super::{Lent, Memory, moving};
use crate::addr::{FrameRange, Gfn, Intermediate, Order, Pfn};
use crate::folio::{FolioState, Whole};
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::stage2::{Content, Entry, Grain, Mapping, Need};
use crate::vm::GuestMemory;

/// Frames wiped in one call: some 400 instructions each at EL2. Taking a folio from its VM, and giving it back, count as [`moving`] does.
pub const WIPES_PER_CALL: u64 = 40;
/// As many frames might be wiped while a folio moves that stands far from others.
const WIPES_PER_FOLIO: u64 = 6;

/// A reclaim that was checked whole.
#[must_use = "nothing is reclaimed until it is committed"]
#[derive(Debug)]
pub struct Reclaim<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    range: FrameRange<Intermediate>,
}

/// How far a reclaim got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Frames of the range that are done, holes included.
    pub done: u64,
    /// Whether that is all of them.
    pub complete: bool,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may take `range` back from a dying `guest`: it does not start
    /// within a folio, nor end within its first. A later folio that it cuts is left for another call.
    pub fn reclaim<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        range: FrameRange<Intermediate>,
    ) -> Result<Reclaim<'a, M>, Refusal> {
        let is_long = range.count() > limit::MAX_FRAMES && !mutant!(LongReclaim);
        if is_long || !crate::stage2::Stage2::reaches(range) {
            return Err(Refusal::Invalid);
        }
        if let Some((pfn, folio)) = self.held_folio(guest, range.first()) {
            let fits = range.covers(FrameRange::folio(range.first(), folio.order));
            if (pfn != folio.head || !fits) && !mutant!(CutsFolios) {
                return Err(Refusal::Granule(self.folios.found(0, pfn)));
            }
        }
        let lent = Lent::new(self, 0, Need::Ordinary)?;
        Ok(Reclaim { lent, guest, range })
    }

    /// The frame that stands at `gfn`, mapped or parked, and its folio.
    fn held_folio(&self, guest: &GuestMemory, gfn: Gfn) -> Option<(Pfn, Whole)> {
        match guest.stage2.lookup(gfn, &self.machine).entry {
            Entry::Leaf(pfn) | Entry::Parked(pfn) => Some((pfn, self.folios.whole(pfn))),
            Entry::Vacant | Entry::Table(_) => None,
        }
    }
}

impl<M: Machine> Reclaim<'_, M> {
    /// Wipes and gives back as much as one call may.
    #[must_use]
    pub fn commit(mut self) -> Progress {
        let mut wipes = seeded!(Unbounded, u64::MAX, WIPES_PER_CALL);
        let mut next = Some(self.range.first());
        while let Some(rest) = next.and_then(|gfn| self.rest(gfn)) {
            let Some(gfn) = self
                .guest
                .stage2
                .first_occupied(rest, &self.lent.memory.machine)
            else {
                break;
            };
            let done = gfn.distance_from(self.range.first()).unwrap_or(0);
            let Some((_, folio)) = self.lent.memory.held_folio(self.guest, gfn) else {
                break;
            };
            let is_whole = self.range.covers(FrameRange::folio(gfn, folio.order));
            if !is_whole && !mutant!(TakesCutFolio) {
                return Progress {
                    done,
                    complete: false,
                };
            }
            let Some(left) = self.wipe(gfn, folio, wipes) else {
                return Progress {
                    done,
                    complete: false,
                };
            };
            wipes = left.saturating_sub(seeded!(Unbounded, 0, WIPES_PER_FOLIO));
            self.give_back(folio);
            next = gfn.checked_add(folio.order.frames());
        }
        Progress {
            done: self.range.count(),
            complete: !mutant!(NeverDone),
        }
    }

    /// The part of the range from `gfn` on.
    fn rest(&self, gfn: Gfn) -> Option<FrameRange<Intermediate>> {
        let done = gfn.distance_from(self.range.first())?;
        FrameRange::new(gfn, self.range.count().checked_sub(done)?)
    }

    /// Takes the folio from everybody who may use it, unless an earlier call has; if it is not wiped by this call, it waits parked.
    fn unmap(&mut self, gfn: Gfn, folio: Whole, waits: bool) {
        let vm = self.guest.slot;
        let is_shared = matches!(folio.state, FolioState::GuestSharedHost { .. });
        if is_shared && !mutant!(SharedStaysMapped) {
            self.lent
                .set_host(folio.frames(), Grain::Pages, Content::Vacant);
        }
        let is_parked = matches!(folio.state, FolioState::Wiping { .. });
        if !is_parked || !waits {
            let content = if waits {
                Content::Park(folio.head)
            } else {
                Content::Vacant
            };
            let place = FrameRange::folio(gfn, folio.order);
            let grain = Grain::of(folio.order);
            self.guest
                .stage2
                .set(place, grain, content, &mut self.lent.tables());
        }
        if waits && !is_parked {
            let wiping = FolioState::Wiping { vm, gfn, done: 0 };
            let folios = &mut self.lent.memory.folios;
            folios.change(folio.frames(), folio.state.number(), folio.order, wiping);
        }
    }

    /// Wipes what is left of a folio, at most `wipes` frames; returns how many more may be wiped, if all of it is and it can be
    /// given back.
    fn wipe(&mut self, gfn: Gfn, folio: Whole, wipes: u64) -> Option<u64> {
        let (done, unmapping) = if let FolioState::Wiping { done, .. } = folio.state {
            (done, 0)
        } else {
            (0, moving(folio.order))
        };
        let wipes = wipes.checked_sub(unmapping).filter(|wipes| *wipes > 0)?;
        let left = folio.order.frames().saturating_sub(u64::from(done));
        let rest = wipes.checked_sub(left.saturating_add(moving(folio.order)));
        self.unmap(gfn, folio, rest.is_none());
        let now = left.min(wipes);
        let memory = &mut *self.lent.memory;
        let frames = folio.frames().frames().skip(usize::from(done));
        frames.zip(0..now).for_each(|(frame, _)| memory.wipe(frame));
        if rest.is_none() {
            let sum = u16::try_from(now).unwrap_or(u16::MAX).saturating_add(done);
            let folio = memory.folios.whole(folio.head);
            memory.folios.note_done(folio, sum);
        }
        rest
    }

    /// Makes a wiped folio the host's.
    fn give_back(&mut self, folio: Whole) {
        let count = folio.order.frames();
        let gone = seeded!(OwnedStays, 0, count);
        self.guest.owned = self.guest.owned.saturating_sub(gone);
        let memory = &mut *self.lent.memory;
        memory.forget_decoys_in(folio);
        memory.tally.reclaimed = memory.tally.reclaimed.wrapping_add(count);
        memory.folios.change(
            folio.frames(),
            folio.state.number(),
            Order::FRAME,
            FolioState::Host,
        );
        self.lent.set_host(
            folio.frames(),
            Grain::of(folio.order),
            Content::Map(
                folio.head,
                seeded!(ReclaimedIsShared, Mapping::SharedRam, Mapping::Ram),
            ),
        );
    }
}
