//! Parts: [`Part`], one frame of a folio that is its guest's alone, on the way to differ from the rest.
//!
//! A larger folio is split into frames for it: in the array, where all of them become folios, and in the tables, where a block of 2 MiB becomes pages.

use super::{Lent, Memory};
use crate::addr::{FrameRange, Gfn, Order, Pfn, Physical};
use crate::folio::{FolioState, Whole};
use crate::machine::Machine;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Entry, Grain, Mapping, Need};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// One frame of a guest's, its folio, and the tables that it may take.
#[derive(Debug)]
pub(super) struct Part<'a, M: Machine> {
    pub(super) lent: Lent<'a, M>,
    pub(super) guest: &'a mut GuestMemory,
    pub(super) folio: Whole,
    /// Where the guest has the head of the folio.
    head: Gfn,
    pub(super) gfn: Gfn,
    pub(super) pfn: Pfn,
}

impl<M: Machine> Memory<M> {
    /// The frame at `gfn`, refused unless it is the guest's alone.
    pub(super) fn part<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        gfn: Gfn,
    ) -> Result<Part<'a, M>, Refusal> {
        let (pfn, folio) = self.guest_folio(guest, gfn)?;
        let FolioState::Guest { gfn: head, .. } = folio.state else {
            return Err(self.folios.refusal(0, pfn));
        };
        let tables = self.tables_for_part(guest, (gfn, pfn), folio);
        let lent = Lent::new(self, tables, Need::Ordinary)?;
        Ok(Part {
            lent,
            guest,
            folio,
            head,
            gfn,
            pfn,
        })
    }

    /// How many new tables it may take to make one frame of a folio differ from the rest, for its guest and for the host.
    fn tables_for_part(&self, guest: &GuestMemory, frame: (Gfn, Pfn), folio: Whole) -> usize {
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

impl<M: Machine> Part<'_, M> {
    fn frame(&self) -> FrameRange<Physical> {
        FrameRange::folio(self.pfn, Order::FRAME)
    }

    /// Makes the frames of the folio folios of the guest's.
    pub(super) fn split(&mut self) {
        let vm = self.guest.slot;
        let parts = FolioState::Guest { vm, gfn: self.head };
        let folios = &mut self.lent.memory.folios;
        folios.change(self.folio.frames(), State::Guest, Order::FRAME, parts);
    }

    /// Makes the frame, which is a folio by now, `owner`'s.
    pub(super) fn hand_to(&mut self, owner: FolioState) {
        let frame = self.frame();
        let folios = &mut self.lent.memory.folios;
        folios.change(frame, State::Guest, Order::FRAME, owner);
    }

    /// Makes the guest's page say `content`.
    pub(super) fn set_guest(&mut self, content: Content) {
        let page = FrameRange::folio(self.gfn, Order::FRAME);
        self.guest
            .stage2
            .set(page, Grain::Pages, content, &mut self.lent.tables());
    }

    /// Lets the host use the frame.
    pub(super) fn set_host(&mut self, mapping: Mapping) {
        let content = Content::Map(self.pfn, mapping);
        self.lent.set_host(self.frame(), Grain::Pages, content);
    }
}
