//! Relinquish: a guest gives a frame of its own back to the host, wiped.
//!
//! Only the guest decides (G6), and only about what is its alone: what it shares it takes back first. A larger folio is split into
//! frames, as by a share. The host is told afterwards which frame it may let go of.

use super::{Lent, Memory};
use crate::addr::{FrameRange, Gfn, Order, Pfn};
use crate::folio::{FolioState, Whole};
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::stage2::{Content, Grain, Mapping, Need};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// A gift of a guest's to the host that was checked whole.
#[must_use = "nothing is given back until it is committed"]
#[derive(Debug)]
pub struct Relinquishment<'a, M: Machine> {
    lent: Lent<'a, M>,
    guest: &'a mut GuestMemory,
    folio: Whole,
    /// Where the guest has the head of the folio.
    head: Gfn,
    gfn: Gfn,
    pfn: Pfn,
}

impl<M: Machine> Memory<M> {
    /// Checks that `guest` may give the host what it has at `gfn`.
    pub fn relinquish<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        gfn: Gfn,
    ) -> Result<Relinquishment<'a, M>, Refusal> {
        let (pfn, folio) = self.guest_folio(guest, gfn)?;
        let FolioState::Guest { gfn: head, .. } = folio.state else {
            return Err(self.folios.refusal(0, pfn));
        };
        let tables = self.tables_for_part(guest, (gfn, pfn), folio);
        let lent = Lent::new(self, tables, Need::Ordinary)?;
        Ok(Relinquishment {
            lent,
            guest,
            folio,
            head,
            gfn,
            pfn,
        })
    }
}

impl<M: Machine> Relinquishment<'_, M> {
    /// Takes the frame from the guest, wipes it, and gives it to the host.
    pub fn commit(mut self) {
        let vm = self.guest.slot;
        let page = FrameRange::folio(self.gfn, Order::FRAME);
        self.lent.memory.forget_decoys_in(self.folio);
        self.guest
            .stage2
            .set(page, Grain::Pages, Content::Vacant, &mut self.lent.tables());
        self.guest.owned = self.guest.owned.saturating_sub(1);
        let frame = FrameRange::folio(self.pfn, Order::FRAME);
        let memory = &mut *self.lent.memory;
        let parts = FolioState::Guest { vm, gfn: self.head };
        let folios = &mut memory.folios;
        folios.change(self.folio.frames(), State::Guest, Order::FRAME, parts);
        memory.wipe(self.pfn);
        memory
            .folios
            .change(frame, State::Guest, Order::FRAME, FolioState::Host);
        memory.tally.reclaimed = memory.tally.reclaimed.wrapping_add(1);
        let content = Content::Map(self.pfn, Mapping::Ram);
        self.lent.set_host(frame, Grain::Pages, content);
    }
}
