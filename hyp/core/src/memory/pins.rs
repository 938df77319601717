//! Registration of the pin table: its frames become `HostSharedHyp`, and EL2 maps them read-only.
//!
//! A large table takes several calls of the same words, each of which shares at most [`FRAMES_PER_CALL`] frames.

use pinfold_abi::State;

use super::{Lent, Memory, Progress};
use crate::addr::{FrameRange, Order, Physical};
use crate::folio::FolioState;
use crate::machine::{HypAccess, Machine};
use crate::pin_word::{PinRange, Place};
use crate::refusal::{Found, Refusal};
use crate::stage2::{Content, Grain, Mapping, Need};

/// Table frames shared in one call.
const FRAMES_PER_CALL: u64 = 64;

/// One step of a registration that was checked whole.
#[must_use = "nothing is registered until it is committed"]
#[derive(Debug)]
pub struct PinTableShare<'a, M: Machine> {
    lent: Lent<'a, M>,
    index: usize,
    range: PinRange,
    frames: FrameRange<Physical>,
}

impl<M: Machine> Memory<M> {
    /// Checks that the host may register `range`, or go on with it.
    pub fn register_pins(&mut self, range: PinRange) -> Result<PinTableShare<'_, M>, Refusal> {
        let (index, range) = match self.pins.place(range) {
            Place::At(index, range) => (index, range),
            Place::Taken => return Err(Refusal::Exists(Found::default())),
            Place::Full => {
                return Err(seeded!(
                    FullIsTaken,
                    Refusal::Exists(Found::default()),
                    Refusal::Limit
                ));
            }
        };
        let count = range
            .table()
            .count()
            .saturating_sub(range.shared())
            .min(FRAMES_PER_CALL);
        let first = range.table().first().checked_add(range.shared());
        let frames = first
            .and_then(|first| FrameRange::new(first, count))
            .ok_or(Refusal::Invalid)?;
        let checked = self.folios.expect_host(frames);
        seeded!(SharesAnything, Ok(()), checked)
            .map_err(|refusal| refusal.further(seeded!(IndexWithinStep, 0, range.shared())))?;
        let needed = self
            .host
            .tables_needed(frames.identity(), Grain::Pages, &self.machine);
        let lent = Lent::new(self, needed, Need::Ordinary)?;
        lent.memory.machine.prepare_hyp(frames)?;
        Ok(PinTableShare {
            lent,
            index,
            range,
            frames,
        })
    }
}

impl<M: Machine> PinTableShare<'_, M> {
    /// Shares the frames with EL2, and says how far the table is.
    #[must_use]
    pub fn commit(mut self) -> Progress {
        let content = Content::Map(self.frames.first(), Mapping::SharedRam);
        self.lent.set_host(self.frames, Grain::Pages, content);
        let memory = &mut *self.lent.memory;
        memory.folios.change(
            self.frames,
            State::Host,
            Order::FRAME,
            FolioState::HostSharedHyp {
                pins: seeded!(PinTableUncounted, 0, 1),
            },
        );
        self.frames
            .frames()
            .for_each(|frame| memory.machine.map_hyp(frame, HypAccess::ReadOnly));
        let shared = self.range.shared().saturating_add(self.frames.count());
        memory.pins.put(self.index, self.range, shared);
        Progress {
            done: shared,
            complete: shared >= self.range.table().count() || mutant!(DoneTooSoon),
        }
    }
}
