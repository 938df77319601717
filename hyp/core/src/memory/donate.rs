//! Donation: folios of the host become a guest's, for good until its teardown.
//!
//! This is where G1 is decided: EL2 itself reads the pin word of every frame at this moment, and refuses unless each folio has
//! exactly one pin, exclusive and isolated.
//!
//! Work per call is bounded by [`MOVES_PER_CALL`] and [`CLEANS_PER_CALL`]. A folio of more frames is taken from the host by one call and cleaned by the next
//! ones; meanwhile it is `Arriving`, reachable by nobody, with its frames parked in the guest's tables. Its pin is not looked at again:
//! the host has lost it. Should the host not go on, the folio comes back with the teardown.

use pinfold_abi::limit;

use super::{Lent, Memory, Progress, moving};
use crate::addr::{FrameRange, Gfn, Intermediate, Order, Pfn, Physical};
use crate::folio::{FolioState, Whole};
use crate::machine::Machine;
use crate::pin_word::Verdict;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Grain, Mapping, Need, Stage2};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// Frames that one call takes from the host, cleans and gives to a guest; of a larger folio none.
pub const MOVES_PER_CALL: u64 = 16;
/// Frames cleaned by one call of a folio that was taken by another one; giving it to the guest counts as [`moving`] does.
pub const CLEANS_PER_CALL: u64 = 72;

/// What a donation is to move, or a share to let somebody use: folios that adjoin in both spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolioClaim {
    /// The first frame of the guest.
    pub gfn: Gfn,
    /// The first frame.
    pub pfn: Pfn,
    /// How many folios.
    pub count: u64,
    /// Their order.
    pub order: Order,
}

/// A donation that was checked whole.
#[must_use = "a donation moves nothing until it is committed"]
#[derive(Debug)]
pub struct Donation<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    frames: FrameRange<Physical>,
    place: FrameRange<Intermediate>,
    claim: FolioClaim,
    /// The folio that an earlier call has taken, and how many of its frames are cleaned.
    begun: Option<(Whole, u16)>,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may give these folios to `guest`.
    pub fn donate<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        claim: FolioClaim,
    ) -> Result<Donation<'a, M>, Refusal> {
        let (_, place) = ranges(claim)?;
        let is_ram = guest.is_ram_range(place) || mutant!(DonatesOutsideRam);
        if !is_ram || !Stage2::reaches(place) {
            return Err(Refusal::Invalid);
        }
        let step = seeded!(
            DonatesUnbounded,
            u64::MAX,
            (MOVES_PER_CALL >> claim.order.raw()).max(1)
        );
        let count = claim.count.min(step);
        let (frames, place) = ranges(FolioClaim { count, ..claim })?;
        if let Some(begun) = self.begun(guest, claim)
            && !mutant!(NeverGoesOn)
        {
            return Ok(Donation {
                lent: Lent::new(self, 0, Need::Ordinary)?,
                guest,
                frames,
                place,
                claim,
                begun: Some(begun),
            });
        }
        let checked = self.folios.expect_host(frames);
        seeded!(DonatesAnything, Ok(()), checked)?;
        self.expect_exclusively_pinned(frames, claim.order)?;
        if let Some(gfn) = guest.stage2.first_occupied(place, &self.machine)
            && !mutant!(DonatesOver)
        {
            let index = gfn.distance_from(place.first()).unwrap_or(0);
            return Err(Refusal::Exists(Found {
                index,
                folio: 0,
                pin: 0,
            }));
        }
        let grain = Grain::of(claim.order);
        let in_guest = guest.stage2.tables_needed(place, grain, &self.machine);
        let in_host = self
            .host
            .tables_needed(frames.identity(), grain, &self.machine);
        let lent = Lent::new(self, in_guest.saturating_add(in_host), Need::Ordinary)?;
        Ok(Donation {
            lent,
            guest,
            frames,
            place,
            claim,
            begun: None,
        })
    }

    /// The folio that the claim begins with, if an earlier call has taken it for just this place.
    fn begun(&self, guest: &GuestMemory, claim: FolioClaim) -> Option<(Whole, u16)> {
        let folio = self.folios.whole(claim.pfn);
        let FolioState::Arriving { vm, gfn, done } = folio.state else {
            return None;
        };
        let is_it = (vm, gfn) == (guest.slot, claim.gfn) && folio.order == claim.order;
        is_it.then_some((folio, done))
    }

    /// Refuses unless the pin words of every folio in `frames` say that the host holds the one exclusive pin.
    fn expect_exclusively_pinned(
        &self,
        frames: FrameRange<Physical>,
        order: Order,
    ) -> Result<(), Refusal> {
        let whole = self.pins.covering(frames);
        for (head, start) in folios_of(frames, order) {
            let folio = FrameRange::folio(head, order);
            let range = whole.or_else(|| self.pins.covering(folio));
            match range.map_or(Verdict::Unknown, |range| {
                range.verdict(head, order, &self.machine)
            }) {
                Verdict::Exclusive => {}
                Verdict::Unknown => {
                    let refusal = Refusal::NoPinTable(self.folios.found(start, head));
                    seeded!(DonatesWithoutTable, Ok(()), Err(refusal))?;
                }
                Verdict::Other { index, word } => {
                    let index = seeded!(IndexWithinFolio, index, start.saturating_add(index));
                    let found = self.folios.found(index, head);
                    let refusal = Refusal::NotExclusivelyPinned(Found { pin: word, ..found });
                    seeded!(SkipsPinCheck, Ok(()), Err(refusal))?;
                }
            }
        }
        Ok(())
    }
}

/// The heads of the folios of `order` in `frames`, and how far each is from the first.
fn folios_of(frames: FrameRange<Physical>, order: Order) -> impl Iterator<Item = (Pfn, u64)> {
    (0..frames.count() >> order.raw()).filter_map(move |index| {
        let start = index << order.raw();
        Some((frames.first().checked_add(start)?, start))
    })
}

/// The frames of a claim in both spaces, if they are aligned and not too many.
pub(super) fn ranges(
    claim: FolioClaim,
) -> Result<(FrameRange<Physical>, FrameRange<Intermediate>), Refusal> {
    let count = claim
        .count
        .checked_mul(claim.order.frames())
        .filter(|count| *count <= limit::MAX_FRAMES || mutant!(LargeDonation));
    let count = count.ok_or(Refusal::Invalid)?;
    let frames = FrameRange::new(claim.pfn, count).ok_or(Refusal::Invalid)?;
    let place = FrameRange::new(claim.gfn, count).ok_or(Refusal::Invalid)?;
    let is_aligned = claim.pfn.is_aligned(claim.order) && claim.gfn.is_aligned(claim.order);
    if is_aligned || mutant!(DonatesUnaligned) {
        Ok((frames, place))
    } else {
        Err(Refusal::Granule(Found::default()))
    }
}

impl<M: Machine> Donation<'_, M> {
    /// Takes the folios from the host, then gives them to the guest; of a large one, does the next part of that.
    #[must_use]
    pub fn commit(mut self) -> Progress {
        if let Some((folio, cleaned)) = self.begun {
            return self.go_on(folio, cleaned);
        }
        let is_clean = self.lent.memory.machine.forces_write_back();
        if self.claim.order.frames() > MOVES_PER_CALL && !is_clean && !mutant!(DonatesUnbounded) {
            self.take(FolioState::Arriving {
                vm: self.guest.slot,
                gfn: self.place.first(),
                done: 0,
            });
            self.set_guest(Content::Park(self.frames.first()));
            return self.progress(0);
        }
        self.take(FolioState::Guest {
            vm: self.guest.slot,
            gfn: self.place.first(),
        });
        if !is_clean {
            self.clean(self.frames);
        }
        self.give();
        self.progress(self.frames.count() >> self.claim.order.raw())
    }

    /// Cleans a part of a folio that was taken by an earlier call, and gives it to the guest after the last part.
    fn go_on(mut self, folio: Whole, cleaned: u16) -> Progress {
        let left = folio.order.frames().saturating_sub(u64::from(cleaned));
        let now = left.min(CLEANS_PER_CALL);
        let first = folio.head.checked_add(u64::from(cleaned));
        let part = first.and_then(|first| FrameRange::new(first, now));
        if let Some(part) = part
            && !(cleaned > 0 && mutant!(GivesUncleaned))
        {
            self.clean(part);
        }
        let given = left.saturating_add(moving(folio.order));
        if given > CLEANS_PER_CALL {
            let done = u16::try_from(now).unwrap_or(0).saturating_add(cleaned);
            self.lent.memory.folios.note_done(folio, done);
            return self.progress(0);
        }
        let owner = FolioState::Guest {
            vm: self.guest.slot,
            gfn: self.place.first(),
        };
        self.lent
            .memory
            .folios
            .change(self.frames, State::Arriving, folio.order, owner);
        self.give();
        self.progress(1)
    }

    /// So many folios are the guest's.
    fn progress(&self, done: u64) -> Progress {
        Progress {
            done,
            complete: done == self.claim.count,
        }
    }

    /// Takes the frames from the host.
    fn take(&mut self, owner: FolioState) {
        let grain = Grain::of(self.claim.order);
        self.lent.set_host(self.frames, grain, Content::Vacant);
        let memory = &mut *self.lent.memory;
        let order = seeded!(ForgetsOrder, Order::FRAME, self.claim.order);
        memory.folios.change(self.frames, State::Host, order, owner);
        let count = self.frames.count();
        memory.tally.donated = memory.tally.donated.wrapping_add(count);
        self.guest.owned = self.guest.owned.saturating_add(count);
    }

    fn clean(&mut self, frames: FrameRange<Physical>) {
        let machine = &mut self.lent.memory.machine;
        if !mutant!(SkipsClean) {
            frames.frames().for_each(|frame| machine.clean(frame));
        }
    }

    /// Gives the frames to the guest.
    fn give(&mut self) {
        let memory = &mut *self.lent.memory;
        if mutant!(WipesDonation) {
            self.frames
                .frames()
                .for_each(|frame| memory.machine.wipe(frame));
        }
        if !mutant!(KeepsInstructions) {
            memory.machine.forget_instructions();
        }
        let mapping = seeded!(
            GuestCannotExecute,
            Mapping::SharedRam,
            memory.guest_mapping()
        );
        self.set_guest(Content::Map(self.frames.first(), mapping));
    }

    fn set_guest(&mut self, content: Content) {
        let place = seeded!(MapsOneMore, self.place.longer(), self.place);
        self.guest.stage2.set_range(
            place,
            Grain::of(self.claim.order),
            content,
            &mut self.lent.tables(),
        );
    }
}
