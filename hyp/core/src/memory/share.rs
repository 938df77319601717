//! Sharing: a guest lets the host use one of its frames, and takes it back.
//!
//! Only the guest decides (G6). A larger folio is split into frames first, since its parts now differ. Taking back demands
//! of the host's pin what a donation demands (G1): until then the frame stays shared, which is how the guest treats it anyway.

use super::{Lent, Memory};
use crate::addr::{FrameRange, Gfn, Order, Pfn};
use crate::folio::{FolioState, Whole};
use crate::machine::Machine;
use crate::pin_word::Verdict;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Entry, Grain, Mapping, Need};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// A share that was checked whole.
#[must_use = "nothing is shared until it is committed"]
#[derive(Debug)]
pub struct Share<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    folio: Whole,
    /// Where the guest has the head of the folio.
    head: Gfn,
    gfn: Gfn,
    pfn: Pfn,
}

/// The end of a share that was checked whole.
#[must_use = "nothing is taken back until it is committed"]
#[derive(Debug)]
pub struct Unshare<'a, M: Machine> {
    lent: Lent<'a, M>,
    owner: FolioState,
    pfn: Pfn,
}

impl<M: Machine> Memory<M> {
    /// Checks that `guest` may let the host use `gfn`.
    pub fn share<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        gfn: Gfn,
    ) -> Result<Share<'a, M>, Refusal> {
        let (pfn, folio) = self.guest_folio(guest, gfn)?;
        let FolioState::Guest { gfn: head, .. } = folio.state else {
            return Err(self.folios.refusal(0, pfn));
        };
        let tables = self.tables_for_part(guest, (gfn, pfn), folio);
        let lent = Lent::new(self, tables, Need::Ordinary)?;
        Ok(Share {
            lent,
            guest,
            folio,
            head,
            gfn,
            pfn,
        })
    }

    /// Checks that `guest` may take `gfn` back from the host.
    pub fn unshare<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        gfn: Gfn,
    ) -> Result<Unshare<'a, M>, Refusal> {
        let (pfn, folio) = self.guest_folio(guest, gfn)?;
        let FolioState::GuestSharedHost { vm, gfn } = folio.state else {
            return Err(self.folios.refusal(0, pfn));
        };
        let found = self.folios.found(0, pfn);
        match self.pins.frame_verdict(pfn, &self.machine) {
            Verdict::Exclusive => {}
            Verdict::Unknown => return Err(Refusal::NoPinTable(found)),
            Verdict::Other { .. } if mutant!(UnsharesUnpinned) => {}
            Verdict::Other { word, .. } => {
                return Err(Refusal::NotExclusivelyPinned(Found { pin: word, ..found }));
            }
        }
        let lent = Lent::new(self, 0, Need::Ordinary)?;
        Ok(Unshare {
            lent,
            owner: FolioState::Guest { vm, gfn },
            pfn,
        })
    }

    /// How many new tables it may take to make one frame of a folio differ from the rest, for its guest and for the host.
    pub(super) fn tables_for_part(
        &self,
        guest: &GuestMemory,
        frame: (Gfn, Pfn),
        folio: Whole,
    ) -> usize {
        let (gfn, pfn) = frame;
        let page = FrameRange::folio(gfn, Order::FRAME);
        let in_guest = guest
            .stage2
            .tables_needed(page, Grain::Pages, &self.machine);
        let in_host = self.host.tables_needed(
            FrameRange::folio(pfn, Order::FRAME).identity(),
            Grain::Pages,
            &self.machine,
        );
        // A decoy's table goes when the decoy goes.
        let in_host = in_host.max(usize::from(folio.order == Order::BLOCK));
        in_guest.saturating_add(in_host)
    }

    /// The frame behind `gfn`, and its folio.
    pub(super) fn guest_folio(
        &self,
        guest: &GuestMemory,
        gfn: Gfn,
    ) -> Result<(Pfn, Whole), Refusal> {
        match guest.stage2.lookup(gfn, &self.machine).entry {
            Entry::Leaf(pfn) => Ok((pfn, self.folios.whole(pfn))),
            Entry::Vacant | Entry::Parked(_) | Entry::Table(_) => {
                Err(Refusal::NotMapped(Found::default()))
            }
        }
    }
}

impl<M: Machine> Share<'_, M> {
    /// Splits the folio if need be, then lets the host in.
    pub fn commit(mut self) {
        let vm = self.guest.slot;
        let page = FrameRange::folio(self.gfn, Order::FRAME);
        if !mutant!(DecoyOutlivesShare) {
            self.lent.memory.forget_decoys_in(self.folio);
        }
        if self.folio.order == Order::BLOCK {
            let content = Content::Map(self.pfn, self.lent.memory.guest_mapping());
            self.guest
                .stage2
                .set(page, Grain::Pages, content, &mut self.lent.tables());
        }
        let frame = FrameRange::folio(self.pfn, Order::FRAME);
        let folios = &mut self.lent.memory.folios;
        let parts = FolioState::Guest { vm, gfn: self.head };
        folios.change(self.folio.frames(), State::Guest, Order::FRAME, parts);
        let shared = FolioState::GuestSharedHost { vm, gfn: self.gfn };
        if !mutant!(ShareUnnoted) {
            folios.change(frame, State::Guest, Order::FRAME, shared);
        }
        self.lent.set_host(
            frame,
            Grain::Pages,
            Content::Map(
                self.pfn,
                seeded!(SharedIsExecutable, Mapping::Ram, Mapping::SharedRam),
            ),
        );
    }
}

impl<M: Machine> Unshare<'_, M> {
    /// Shuts the host out, then makes the frame the guest's alone.
    pub fn commit(mut self) {
        let frame = FrameRange::folio(self.pfn, Order::FRAME);
        if !mutant!(HostStays) {
            self.lent.set_host(frame, Grain::Pages, Content::Vacant);
        }
        if !mutant!(UnshareUnnoted) {
            let folios = &mut self.lent.memory.folios;
            folios.change(frame, State::GuestSharedHost, Order::FRAME, self.owner);
        }
    }
}
