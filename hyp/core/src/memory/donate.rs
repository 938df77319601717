//! Donation: folios of the host become a guest's, for good until its teardown.
//!
//! This is where G1 is decided: EL2 itself reads the pin word of every frame at this moment, and refuses unless each folio has
//! exactly one pin, exclusive and isolated.

use pinfold_abi::limit;

use super::{Lent, Memory};
use crate::addr::{FrameRange, Gfn, Intermediate, Order, Pfn, Physical};
use crate::folio::FolioState;
use crate::machine::Machine;
use crate::pin_word::Verdict;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Grain, Mapping, Need, Stage2};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// What a donation is to move: folios that adjoin in both spaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DonationClaim {
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
    order: Order,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may give these folios to `guest`.
    pub fn donate<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        claim: DonationClaim,
    ) -> Result<Donation<'a, M>, Refusal> {
        let (frames, place) = ranges(claim)?;
        let is_ram = guest.is_ram_range(place) || mutant!(DonatesOutsideRam);
        if !is_ram || !Stage2::reaches(place) {
            return Err(Refusal::Invalid);
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
            order: claim.order,
        })
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
fn ranges(
    claim: DonationClaim,
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
    /// Takes the folios from the host, then gives them to the guest.
    pub fn commit(mut self) {
        let grain = Grain::of(self.order);
        self.lent.set_host(self.frames, grain, Content::Vacant);
        let memory = &mut *self.lent.memory;
        let owner = FolioState::Guest {
            vm: self.guest.slot,
            gfn: self.place.first(),
        };
        let order = seeded!(ForgetsOrder, Order::FRAME, self.order);
        memory.folios.change(self.frames, State::Host, order, owner);
        if !memory.machine.forces_write_back() && !mutant!(SkipsClean) {
            self.frames
                .frames()
                .for_each(|frame| memory.machine.clean(frame));
        }
        if mutant!(WipesDonation) {
            self.frames
                .frames()
                .for_each(|frame| memory.machine.wipe(frame));
        }
        if !mutant!(KeepsInstructions) {
            memory.machine.forget_instructions();
        }
        let count = self.frames.count();
        memory.tally.donated = memory.tally.donated.wrapping_add(count);
        self.guest.owned = self.guest.owned.saturating_add(count);
        let mapping = seeded!(
            GuestCannotExecute,
            Mapping::SharedRam,
            memory.guest_mapping()
        );
        let content = Content::Map(self.frames.first(), mapping);
        let place = seeded!(MapsOneMore, self.place.longer(), self.place);
        self.guest
            .stage2
            .set_range(place, grain, content, &mut self.lent.tables());
    }
}
