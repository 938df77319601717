//! Sharing: a guest lets the host use one of its frames, and takes it back.
//!
//! Only the guest decides (G6). A larger folio is split into frames first, since its parts now differ. Taking back demands
//! of the host's pin what a donation demands (G1): until then the frame stays shared, which is how the guest treats it anyway.

use super::part::Part;
use super::{Lent, Memory};
use crate::addr::{FrameRange, Gfn, Order, Pfn};
use crate::folio::FolioState;
use crate::machine::Machine;
use crate::pin_word::Verdict;
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Grain, Mapping, Need};
use crate::vm::GuestMemory;
use pinfold_abi::State;

/// A share that was checked whole.
#[must_use = "nothing is shared until it is committed"]
#[derive(Debug)]
pub struct Share<'a, M: Machine>(Part<'a, M>);

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
        self.part(guest, gfn).map(Share)
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
}

impl<M: Machine> Share<'_, M> {
    /// Splits the folio if need be, then lets the host in.
    pub fn commit(self) {
        let Self(mut part) = self;
        if !mutant!(DecoyOutlivesShare) {
            part.lent.memory.forget_decoys_in(part.folio);
        }
        if part.folio.order == Order::BLOCK {
            let mapping = part.lent.memory.guest_mapping();
            part.set_guest(Content::Map(part.pfn, mapping));
        }
        part.split();
        if !mutant!(ShareUnnoted) {
            part.hand_to(FolioState::GuestSharedHost {
                vm: part.guest.slot,
                gfn: part.gfn,
            });
        }
        part.set_host(seeded!(
            SharedIsExecutable,
            Mapping::Ram,
            Mapping::SharedRam
        ));
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
