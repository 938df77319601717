//! Memory of ordinary VMs: the host shares frames of its own, changes what the guest may do with them, and ends the sharing.
//!
//! The host keeps such frames, with all its rights and in the blocks in which it has them, so its tables are not touched and no pin is
//! needed: what the guest must not see is the host's to decide. EL2 sees to it that a frame which some guest has goes to nobody
//! else, by the count in its folio word. That count is taken down only when the guest's entry is gone from all TLBs.
//!
//! Aging is not offered: a host that wants to know whether a frame is used ends its sharing and waits for the fault.

use pinfold_abi::limit;

use super::donate::{FolioClaim, ranges};
use super::{Lent, Memory, Progress};
use crate::addr::{FrameRange, Gfn, Intermediate, Order, Pfn, Physical};
use crate::machine::Machine;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Access, Content, Entry, Grain, Level, Mapping, Need, Stage2};
use crate::vm::GuestMemory;

/// Frames shared in one call, where a single folio has not more.
const SHARES_PER_CALL: u64 = 32;
/// Frames whose sharing is ended or changed in one call; a block counts as all of them.
const CHANGES_PER_CALL: u64 = 10;

/// A share with a guest that was checked whole.
#[must_use = "nothing is shared until it is committed"]
#[derive(Debug)]
pub struct GuestShare<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    frames: FrameRange<Physical>,
    place: FrameRange<Intermediate>,
    claim: FolioClaim,
    access: Access,
}

/// What is to happen to frames that are shared with a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedChange {
    /// The guest has them no more.
    Unshare,
    /// The guest may do this with them.
    Protect(Access),
}

/// A change of what is shared with a guest that was checked whole.
#[must_use = "nothing changes until it is committed"]
#[derive(Debug)]
pub struct SharedRange<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    range: FrameRange<Intermediate>,
    change: SharedChange,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may share these folios, or as many of them as one call shares, with `guest`.
    pub fn share_with_guest<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        claim: FolioClaim,
        access: Access,
    ) -> Result<GuestShare<'a, M>, Refusal> {
        let (_, whole) = ranges(claim)?;
        let is_ram = guest.is_ram_range(whole) || mutant!(SharesOutsideRam);
        if !is_ram || !Stage2::reaches(whole) {
            return Err(Refusal::Invalid);
        }
        let step = seeded!(
            SharesUnbounded,
            u64::MAX,
            (SHARES_PER_CALL >> claim.order.raw()).max(1)
        );
        let count = claim.count.min(step);
        let (frames, place) = ranges(FolioClaim { count, ..claim })?;
        let checked = self.folios.expect_shareable(frames);
        seeded!(SharesAnybodys, Ok(()), checked)?;
        if let Some(gfn) = guest.stage2.first_occupied(place, &self.machine)
            && !mutant!(SharesOver)
        {
            return Err(Refusal::Exists(Found {
                index: gfn.distance_from(place.first()).unwrap_or(0),
                folio: 0,
                pin: 0,
            }));
        }
        let grain = Grain::of(claim.order);
        let needed = guest.stage2.tables_needed(place, grain, &self.machine);
        let lent = Lent::new(self, needed, Need::Ordinary)?;
        Ok(GuestShare {
            lent,
            guest,
            frames,
            place,
            claim,
            access,
        })
    }

    /// Checks that `range` of what is shared with `guest` may change: it does not start within a block, nor end within its first. A
    /// later block that it cuts is left for another call.
    pub fn change_shared<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        range: FrameRange<Intermediate>,
        change: SharedChange,
    ) -> Result<SharedRange<'a, M>, Refusal> {
        let is_long = range.count() > limit::MAX_FRAMES && !mutant!(LongChange);
        if is_long || !Stage2::reaches(range) {
            return Err(Refusal::Invalid);
        }
        if let Some((pfn, order)) = self.shared_at(guest, range.first()) {
            let block = FrameRange::folio(range.first(), order);
            if !range.covers(block) && !mutant!(CutsBlocks) {
                return Err(Refusal::Granule(self.folios.found(0, pfn)));
            }
        }
        let lent = Lent::new(self, 0, Need::Ordinary)?;
        Ok(SharedRange {
            lent,
            guest,
            range,
            change,
        })
    }

    /// The frame that is shared at `gfn`, and the order of the entry that says so.
    fn shared_at(&self, guest: &GuestMemory, gfn: Gfn) -> Option<(Pfn, Order)> {
        let found = guest.stage2.lookup(gfn, &self.machine);
        let order = match found.level {
            Level::One | Level::Two => Order::BLOCK,
            Level::Three => Order::FRAME,
        };
        match found.entry {
            Entry::Leaf(pfn) => Some((pfn, order)),
            Entry::Vacant | Entry::Parked(_) | Entry::Table(_) => None,
        }
    }

    /// How frames of the host's are mapped for a guest.
    fn granted_mapping(&self, access: Access) -> Mapping {
        if self.machine.forces_write_back() {
            Mapping::ForcedGranted(access)
        } else {
            Mapping::Granted(access)
        }
    }
}

impl<M: Machine> GuestShare<'_, M> {
    /// Counts the shares, then lets the guest in.
    #[must_use]
    pub fn commit(mut self) -> Progress {
        let memory = &mut *self.lent.memory;
        if !mutant!(ShareUncounted) {
            memory.folios.count_shares(self.frames);
        }
        if self.access.executes() {
            memory.machine.forget_instructions();
        }
        self.guest.owned = self.guest.owned.saturating_add(self.frames.count());
        let access = seeded!(GrantsAll, Access::All, self.access);
        let mapping = memory.granted_mapping(access);
        self.guest.stage2.set_range(
            self.place,
            Grain::of(self.claim.order),
            Content::Map(self.frames.first(), mapping),
            &mut self.lent.tables(),
        );
        let done = self.frames.count() >> self.claim.order.raw();
        Progress {
            done,
            complete: done == self.claim.count,
        }
    }
}

impl<M: Machine> SharedRange<'_, M> {
    /// Changes as much as one call may.
    #[must_use]
    pub fn commit(mut self) -> Progress {
        let mut left = seeded!(ChangesUnbounded, u64::MAX, CHANGES_PER_CALL);
        let mut next = Some(self.range.first());
        while let Some(rest) = next.and_then(|gfn| self.rest(gfn)) {
            let memory = &*self.lent.memory;
            let Some(gfn) = self.guest.stage2.first_occupied(rest, &memory.machine) else {
                break;
            };
            let Some((pfn, order)) = memory.shared_at(self.guest, gfn) else {
                break;
            };
            let is_whole = self.range.covers(FrameRange::folio(gfn, order));
            if left == 0 || !is_whole && !mutant!(TakesCutBlock) {
                return Progress {
                    done: gfn.distance_from(self.range.first()).unwrap_or(0),
                    complete: false,
                };
            }
            match self.change {
                SharedChange::Unshare => self.unshare(gfn, pfn, order),
                SharedChange::Protect(access) => self.protect(gfn, pfn, order, access),
            }
            left = left.saturating_sub(order.frames());
            next = gfn.checked_add(order.frames());
        }
        Progress {
            done: self.range.count(),
            complete: !mutant!(HolesAreLeft),
        }
    }

    /// The part of the range from `gfn` on.
    fn rest(&self, gfn: Gfn) -> Option<FrameRange<Intermediate>> {
        let done = gfn.distance_from(self.range.first())?;
        FrameRange::new(gfn, self.range.count().checked_sub(done)?)
    }

    /// Shuts the guest out, then takes the count down.
    fn unshare(&mut self, gfn: Gfn, pfn: Pfn, order: Order) {
        self.set(gfn, order, Content::Vacant);
        let gone = seeded!(UnsharedStays, 0, order.frames());
        self.guest.owned = self.guest.owned.saturating_sub(gone);
        let frames = FrameRange::folio(pfn, order);
        if !mutant!(UnshareUncounted) {
            self.lent.memory.folios.uncount_shares(frames);
        }
    }

    fn protect(&mut self, gfn: Gfn, pfn: Pfn, order: Order, access: Access) {
        if access.executes() {
            self.lent.memory.machine.forget_instructions();
        }
        let mapping = self.lent.memory.granted_mapping(access);
        if !mutant!(ProtectsNothing) {
            self.set(gfn, order, Content::Map(pfn, mapping));
        }
    }

    fn set(&mut self, gfn: Gfn, order: Order, content: Content) {
        let place = FrameRange::folio(gfn, order);
        let mut tables = self.lent.tables();
        self.guest
            .stage2
            .set(place, Grain::of(order), content, &mut tables);
    }
}
