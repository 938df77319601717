//! What the history of calls comes to: [`State`], in plain maps.
//!
//! A frame of RAM that is in no map is the host's alone. Everything is per frame: a folio is frames that say the same order.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pinfold_abi::{Counter, State as StateNumber, limit, pin_word};

use crate::clause::Clause;
use crate::map::{Map, Set};
use crate::rules::Processors;
use crate::ruling::{Refuse, refuse};
use crate::vm::Vm;
use pinfold_abi::Status;

/// Frame numbers have 36 bits: 48-bit addresses.
pub(crate) const FRAME_LIMIT: u64 = 1 << 36;
/// Stage 2 has 40-bit addresses.
pub(crate) const GFN_LIMIT: u64 = 1 << 28;
/// Pin words in a frame of the table.
pub(crate) const WORDS_PER_FRAME: u64 = 1024;

/// What only a gift to the pool may take of it: frames with which EL2 can always make the tables for the next gift.
pub(crate) const POOL_FLOOR: u64 = 32;

/// What EL2 found at boot. Ranges are first frame and count.
#[derive(Clone, Debug)]
pub struct Boot {
    /// RAM.
    pub ram: Vec<(u64, u64)>,
    /// The part of RAM that is EL2's.
    pub hyp: Vec<(u64, u64)>,
    /// What the host may not reach although it is not RAM.
    pub holes: Vec<(u64, u64)>,
    /// EL2's page of zeroes that stands in for others; one of EL2's.
    pub decoy: u64,
    /// How many of EL2's frames are its first pool.
    pub pool: u64,
    /// How many of those EL2 has set aside for decoys, their page included.
    pub set_aside: u64,
    /// The debug calls are there.
    pub debug_calls: bool,
}

/// A folio of a VM, as one of its frames says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    /// The VM's handle.
    pub(crate) vm: u64,
    /// Where the VM has this frame.
    pub(crate) gfn: u64,
    /// The order of the folio.
    pub(crate) order: u8,
}

/// Who has a frame of RAM that is not the host's alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// EL2.
    Hyp,
    /// The host, and EL2 reads it: the pin table. EL2's own decoy page is said to be one, too.
    SharedHyp,
    /// The host, and ordinary VMs in so many places.
    SharedGuest(u64),
    /// Nobody, until `cleaned` is all of the folio.
    Arriving {
        /// Who will have it.
        held: Held,
        /// How many frames of the folio are cleaned.
        cleaned: u64,
    },
    /// Nobody, for good.
    Poisoned,
    /// A VM alone.
    Guest(Held),
    /// A VM, which lets the host.
    GuestShared(Held),
    /// Nobody, until `wiped` is all of the folio.
    Wiping {
        /// Who had it.
        held: Held,
        /// How many frames of the folio are wiped.
        wiped: u64,
    },
}

impl Owner {
    /// Nobody but a VM reaches it, or will, or did.
    pub(crate) const fn is_a_guests(self) -> bool {
        matches!(
            self,
            Self::Arriving { .. } | Self::Guest(_) | Self::Wiping { .. }
        )
    }

    /// The VM that has the frame, or will, or had it last.
    pub(crate) const fn held(self) -> Option<Held> {
        match self {
            Self::Guest(held)
            | Self::GuestShared(held)
            | Self::Arriving { held, .. }
            | Self::Wiping { held, .. } => Some(held),
            Self::Hyp | Self::SharedHyp | Self::SharedGuest(_) | Self::Poisoned => None,
        }
    }
}

/// A folio word, as far as the specification knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    /// The bits.
    pub(crate) value: u64,
    /// Which of them are specified.
    pub(crate) mask: u64,
}

impl Word {
    /// Every bit is specified.
    pub(crate) const fn exactly(value: u64) -> Self {
        Self {
            value,
            mask: u64::MAX,
        }
    }

    /// Whether `seen` is right.
    pub(crate) const fn admits(self, seen: u64) -> bool {
        self.value & self.mask == seen & self.mask
    }
}

/// A range of the pin table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pins {
    /// The first frame of the table.
    pub(crate) table: u64,
    /// The frame that its first word speaks for.
    pub(crate) first: u64,
    /// How many it speaks for.
    pub(crate) count: u64,
    /// How many frames of the table EL2 can read.
    pub(crate) shared: u64,
}

impl Pins {
    /// Frames of the table.
    pub(crate) const fn table_frames(self) -> u64 {
        self.count.div_ceil(WORDS_PER_FRAME)
    }

    /// EL2 can read all of it.
    pub(crate) const fn is_complete(self) -> bool {
        self.shared >= self.table_frames()
    }

    /// It speaks for all of the `count` frames from `first`.
    const fn covers(self, first: u64, count: u64) -> bool {
        self.first <= first && first + count <= self.first + self.count
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) boot: Arc<Boot>,
    /// Frames of RAM that are not the host's alone.
    pub(crate) owners: Map<u64, Owner>,
    /// Frames that the host gave to the pool and has not back.
    pub(crate) given: Set<u64>,
    /// By handle.
    pub(crate) vms: Map<u64, Vm>,
    /// Every handle that was ever given out.
    pub(crate) handles: Set<u64>,
    pub(crate) pins: Vec<Pins>,
    /// By frame and index: what the host last wrote there, if that was not 0.
    pub(crate) pin_words: Map<(u64, u64), u32>,
    /// Frames where the host's kernel may find a decoy.
    pub(crate) decoys: Set<u64>,
    /// By frame: what was last written there, if that was not 0.
    pub(crate) content: Map<u64, u64>,
    /// Frames that were wiped in the step at hand.
    pub(crate) wiped: Vec<u64>,
    counters: BTreeMap<Counter, u64>,
    /// How many frames had to be cleaned.
    pub(crate) cleaned: u64,
    /// What the processors are, if guests' interrupts and ID registers are judged.
    pub(crate) processors: Option<Processors>,
    /// How often instructions had to be forgotten.
    pub(crate) forgotten: u64,
}

/// The frames of a list of ranges.
pub(crate) fn in_ranges(ranges: &[(u64, u64)], frame: u64) -> bool {
    ranges
        .iter()
        .any(|(first, count)| (*first..first + count).contains(&frame))
}

impl State {
    /// As EL2 leaves its boot.
    pub(crate) fn new(boot: Boot) -> Self {
        let hyp = boot
            .hyp
            .iter()
            .flat_map(|(first, count)| *first..first + count);
        let mut owners: Map<_, _> = hyp.map(|frame| (frame, Owner::Hyp)).collect();
        owners.insert(boot.decoy, Owner::SharedHyp);
        Self {
            boot: Arc::new(boot),
            owners,
            given: Set::new(),
            vms: Map::new(),
            handles: Set::new(),
            pins: Vec::new(),
            pin_words: Map::new(),
            decoys: Set::new(),
            content: Map::new(),
            wiped: Vec::new(),
            counters: BTreeMap::new(),
            cleaned: 0,
            processors: None,
            forgotten: 0,
        }
    }

    /// Whether the frame is RAM.
    pub(crate) fn is_ram(&self, frame: u64) -> bool {
        in_ranges(&self.boot.ram, frame)
    }

    /// Every frame of RAM, in order.
    pub(crate) fn ram(&self) -> impl Iterator<Item = u64> + use<'_> {
        self.boot
            .ram
            .iter()
            .flat_map(|(first, count)| *first..first + count)
    }

    /// Whether the frame is the host's alone.
    pub(crate) fn is_hosts(&self, frame: u64) -> bool {
        self.is_ram(frame) && !self.owners.contains_key(&frame)
    }

    /// Who has a frame of RAM.
    pub(crate) fn owner(&self, frame: u64) -> Option<Owner> {
        self.owners.get(&frame).copied()
    }

    /// Makes the frame somebody's.
    pub(crate) fn give(&mut self, frame: u64, owner: Owner) {
        self.owners.insert(frame, owner);
    }

    /// Makes the frame the host's alone.
    pub(crate) fn give_host(&mut self, frame: u64) {
        self.owners.remove(&frame);
        self.decoys.remove(&frame);
    }

    /// Frames that say `order`, and hold `frame`.
    pub(crate) const fn folio(frame: u64, order: u8) -> core::ops::Range<u64> {
        let size = 1 << order;
        let head = frame & !(size - 1);
        head..head + size
    }

    /// The number of the frame's state.
    pub(crate) fn state_number(&self, frame: u64) -> StateNumber {
        match self.owner(frame) {
            _ if !self.is_ram(frame) => StateNumber::NotRam,
            None => StateNumber::Host,
            Some(Owner::Hyp) => StateNumber::Hyp,
            Some(Owner::SharedHyp) => StateNumber::HostSharedHyp,
            Some(Owner::SharedGuest(_)) => StateNumber::HostSharedGuest,
            Some(Owner::Poisoned) => StateNumber::Poisoned,
            Some(Owner::Arriving { .. }) => StateNumber::Arriving,
            Some(Owner::Guest(_)) => StateNumber::Guest,
            Some(Owner::GuestShared(_)) => StateNumber::GuestSharedHost,
            Some(Owner::Wiping { .. }) => StateNumber::Wiping,
        }
    }

    /// The folio word: bits 30 and 2:0 state, 6:3 order, 7 tail, 23:8 count, 29:24 VM slot, 63:36 GFN. A tail has order and bit 7 only.
    /// The count of one of EL2's frames is EL2's own business.
    pub(crate) fn word(&self, frame: u64) -> Word {
        let number = self.state_number(frame).number();
        let owner = self.owner(frame);
        let Some(held) = owner.and_then(Owner::held) else {
            return match owner {
                Some(Owner::Hyp) => Word {
                    value: number,
                    mask: !0xFF_FF00,
                },
                Some(Owner::SharedHyp) => Word::exactly(number | 1 << 8),
                Some(Owner::SharedGuest(shares)) => Word::exactly(1 << 30 | shares << 8),
                _ => Word::exactly(number),
            };
        };
        let order = u64::from(held.order) << 3;
        if Self::folio(frame, held.order).start != frame {
            return Word::exactly(1 << 7 | order);
        }
        let done = match owner {
            Some(Owner::Arriving { cleaned, .. }) => cleaned,
            Some(Owner::Wiping { wiped, .. }) => wiped,
            _ => 0,
        };
        let number = number & 7 | (number & 8) << 27;
        Word::exactly(number | order | done << 8 | (held.vm & 0x3F) << 24 | held.gfn << 36)
    }

    /// The words of the frames of a range.
    pub(crate) fn words(&self, first: u64, count: u64) -> impl Iterator<Item = Word> {
        let frames = first..first + count;
        let mut owned = self.owners.range(frames.clone()).peekable();
        frames.map(move |frame| {
            if owned.next_if(|(other, _)| **other == frame).is_some() || !self.is_ram(frame) {
                self.word(frame)
            } else {
                Word::exactly(StateNumber::Host.number())
            }
        })
    }

    /// The refusal that the state of a frame calls for, by `clause`.
    pub(crate) fn refuse_state(&self, clause: Clause, index: u64, frame: u64) -> Refuse {
        let status = match self.owner(frame) {
            _ if !self.is_ram(frame) => Status::NotRam,
            Some(Owner::Poisoned) => Status::Poisoned,
            _ => Status::NotPermitted,
        };
        refuse(clause, status).at(index, self.word(frame))
    }

    /// Refuses by `clause` unless all of the range is the host's alone; names the first frame that is not.
    pub(crate) fn require_hosts(
        &self,
        clause: Clause,
        first: u64,
        count: u64,
    ) -> Result<(), Refuse> {
        match (0..count).find(|index| !self.is_hosts(first + index)) {
            None => Ok(()),
            Some(index) => Err(self.refuse_state(clause, index, first + index)),
        }
    }

    /// The range of the pin table that speaks for all of the folio, if EL2 can read all of it.
    pub(crate) fn pins_for(&self, first: u64, count: u64) -> Option<Pins> {
        let mut complete = self.pins.iter().filter(|pins| pins.is_complete());
        complete.find(|pins| pins.covers(first, count)).copied()
    }

    /// The pin word of a frame, if the table speaks for it.
    pub(crate) fn pin_word(&self, frame: u64) -> Option<u32> {
        let pins = self.pins_for(frame, 1)?;
        let distance = frame - pins.first;
        let place = (
            pins.table + distance / WORDS_PER_FRAME,
            distance % WORDS_PER_FRAME,
        );
        Some(self.pin_words.get(&place).copied().unwrap_or(0))
    }

    /// Whether the host holds the one exclusive pin of the isolated folio that the frame is in.
    ///
    /// The host's folio may be larger than the guest's. Its word stands at its head, and those of its tails are 0: so the
    /// nearest head whose word is not 0 speaks, and must speak for a folio that the frame is in.
    pub(crate) fn is_exclusively_pinned(&self, frame: u64) -> bool {
        for order in 0..=limit::MAX_ORDER {
            let head = Self::folio(frame, order).start;
            match self.pin_word(head) {
                None => return false,
                Some(0) => {}
                Some(word) => {
                    return (0..=limit::MAX_ORDER).any(|order| {
                        word == pin_word::donatable(order)
                            && Self::folio(frame, order).start == head
                    });
                }
            }
        }
        false
    }

    /// How often something happened.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or(0)
    }

    /// It happened `times` more.
    pub(crate) fn count(&mut self, counter: Counter, times: u64) {
        *self.counters.entry(counter).or_default() += times;
    }

    /// Overwrites a frame with zeroes.
    pub(crate) fn wipe(&mut self, frame: u64) {
        self.content.remove(&frame);
        self.wiped.push(frame);
        self.count(Counter::FramesWiped, 1);
    }
}
