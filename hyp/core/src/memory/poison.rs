//! Poison: a frame that nobody may use any more, because the host says that its memory fails.
//!
//! Only a frame that is the host's alone is poisoned. Were a guest's one, the host could take memory out of a running guest, and
//! donate other memory there: so it waits until the guest gives it back or is gone, and the wipe on that way is what touches it last.

use super::{Lent, Memory};
use crate::addr::{FrameRange, Order, Pfn, Physical};
use crate::folio::FolioState;
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::stage2::{Content, Grain, Need};
use pinfold_abi::State;

/// The end of a frame that was checked whole.
#[must_use = "nothing is poisoned until it is committed"]
#[derive(Debug)]
pub struct Poisoning<'a, M: Machine> {
    lent: Lent<'a, M>,
    frame: FrameRange<Physical>,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may give up `frame` for good.
    pub fn poison(&mut self, frame: Pfn) -> Result<Poisoning<'_, M>, Refusal> {
        let frame = FrameRange::folio(frame, Order::FRAME);
        let checked = self.folios.expect_host(frame);
        seeded!(PoisonsAnything, Ok(()), checked)?;
        let needed = self
            .host
            .tables_needed(frame.identity(), Grain::Pages, &self.machine);
        let lent = Lent::new(self, needed, Need::Ordinary)?;
        Ok(Poisoning { lent, frame })
    }
}

impl<M: Machine> Poisoning<'_, M> {
    /// Takes the frame from the host.
    pub fn commit(mut self) {
        self.lent
            .set_host(self.frame, Grain::Pages, Content::Vacant);
        let state = seeded!(
            PoisonForgotten,
            FolioState::Hyp { entries: 0 },
            FolioState::Poisoned
        );
        let folios = &mut self.lent.memory.folios;
        folios.change(self.frame, State::Host, Order::FRAME, state);
    }
}
