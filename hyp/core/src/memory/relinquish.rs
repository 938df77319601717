//! Relinquish: a guest gives a frame of its own back to the host, wiped.
//!
//! Only the guest decides (G6), and only about what is its alone: what it shares it takes back first. A larger folio is split into
//! frames, as by a share. The host is told afterwards which frame it may let go of.

use super::Memory;
use super::part::Part;
use crate::addr::Gfn;
use crate::folio::FolioState;
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::stage2::{Content, Mapping};
use crate::vm::GuestMemory;

/// A gift of a guest's to the host that was checked whole.
#[must_use = "nothing is given back until it is committed"]
#[derive(Debug)]
pub struct Relinquishment<'a, M: Machine>(Part<'a, M>);

impl<M: Machine> Memory<M> {
    /// Checks that `guest` may give the host what it has at `gfn`.
    pub fn relinquish<'a>(
        &'a mut self,
        guest: &'a mut GuestMemory,
        gfn: Gfn,
    ) -> Result<Relinquishment<'a, M>, Refusal> {
        self.part(guest, gfn).map(Relinquishment)
    }
}

impl<M: Machine> Relinquishment<'_, M> {
    /// Takes the frame from the guest, wipes it, and gives it to the host.
    pub fn commit(self) {
        let Self(mut part) = self;
        part.lent.memory.forget_decoys_in(part.folio);
        part.set_guest(Content::Vacant);
        part.guest.owned = part.guest.owned.saturating_sub(1);
        part.split();
        let memory = &mut *part.lent.memory;
        memory.wipe(part.pfn);
        memory.tally.reclaimed = memory.tally.reclaimed.wrapping_add(1);
        part.hand_to(FolioState::Host);
        part.set_host(Mapping::Ram);
    }
}
