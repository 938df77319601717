//! The folio word as its readers see it: [`FolioWord`], decoded; the book's page on the calls has the bits.
//!
//! EL2 hands the word out in refusals and by `FOLIO_QUERY`, and takes none back. A test of core's compares this with what core
//! writes.

use crate::State;

/// A folio word, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FolioWord {
    /// The head of a folio.
    Head {
        /// Who may use it.
        state: State,
        /// The order of the folio.
        order: u8,
        /// Pins, shares, cleaned frames, wiped frames or table entries, by the state.
        count: u16,
        /// Slot of the VM that owns it, and where it has the first frame, if the state has an owner.
        owner: Option<(u8, u64)>,
    },
    /// A frame of a folio whose head is at the PFN rounded down to the order.
    Tail {
        /// The order of the folio.
        order: u8,
    },
}

const TAIL: u8 = 1 << 7;
const STATE: u64 = 0b111;
/// Where the fourth bit of the state stands, and how far above its place.
const STATE_HIGH: u64 = 1 << 30;
const STATE_HIGH_SHIFT: u32 = 27;
const GFN_SHIFT: u32 = 36;
const SLOT: u8 = 0x3F;

impl FolioWord {
    /// What the word says.
    #[must_use]
    pub const fn decode(word: u64) -> Self {
        let [low, count_low, count_high, slot, ..] = word.to_le_bytes();
        let order = low >> 3 & 0xF;
        if low & TAIL != 0 {
            return Self::Tail { order };
        }
        let number = word & STATE | (word & STATE_HIGH) >> STATE_HIGH_SHIFT;
        let state = match State::from_number(number) {
            Some(state) => state,
            // EL2 writes no other number.
            None => State::Poisoned,
        };
        let owner = match state {
            State::Guest | State::GuestSharedHost | State::Arriving | State::Wiping => {
                Some((slot & SLOT, word >> GFN_SHIFT))
            }
            State::Host
            | State::Hyp
            | State::HostSharedHyp
            | State::HostSharedGuest
            | State::Poisoned
            | State::NotRam => None,
        };
        Self::Head {
            state,
            order,
            count: u16::from_le_bytes([count_low, count_high]),
            owner,
        }
    }
}
