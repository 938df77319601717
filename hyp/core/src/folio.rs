//! Who may use which frame: [`Folio`], one 8-byte word for each 4 KiB frame of RAM, and [`FolioArray`], all of them.
//!
//! # The states page
//!
//! A folio is 2^order frames, aligned to their number, with one state. Its head's word has the state; a tail's word says only
//! that it is one and of what order, so the head is the PFN rounded down. There is one state for all parties together:
//! "owned by two" cannot be written down.
//!
//! | State | Host | Hyp | Guest | Payload | Leaves to |
//! |---|---|---|---|---|---|
//! | `Host` | RWX | – | – | – | `Hyp` (pool), `HostSharedHyp` (pin table), `Guest` or `Arriving` (donate), `HostSharedGuest` (share), `Poisoned` |
//! | `Hyp` | – | RW | – | entries in use, of a table | `Host` (pool reclaim, wiped) |
//! | `HostSharedHyp` | RW | R | – | pins | – |
//! | `HostSharedGuest` | RWX | – | as granted | shares | `Host` (the last unshare) |
//! | `Arriving` | – | – | – | VM, GFN, frames cleaned | `Guest` (when the last frame is cleaned), `Wiping` (reclaim) |
//! | `Guest` | – | – | RWX | VM, GFN | `GuestSharedHost` (share), `Wiping` (reclaim), `Host` (relinquish, wiped) |
//! | `GuestSharedHost` | RW | – | RWX | VM, GFN | `Guest` (unshare), `Wiping` (reclaim) |
//! | `Wiping` | – | a window | – | VM, GFN, frames wiped | `Host` (when the last frame is wiped) |
//! | `Poisoned` | – | – | – | – | – |
//! | `NotRam` | as the boot tables say | – | – | – | – |
//!
//! The host's RW is without execute, so that what two parties write is never what one runs. An ordinary VM trusts its host: what
//! is shared with it stays as it was for the host, and the word says only in how many places guests have it; which VMs they are is in
//! their tables alone. Frames of the host are folios of order 0; larger ones exist between donation and reclaim, or until a share splits
//! one. What was split stays so until its reclaim, since the host's kernel has split its own folio too and takes frames back one by one.
//!
//! The array is the truth; stage-2 tables and EL2's stage 1 are its shadow. It is guarded by EL2's one lock. The only writer
//! of states is [`FolioArray::change`], which keeps the census.
//!
//! Word: bits 30 and 2:0 state, 6:3 order, 7 tail, 23:8 count, 29:24 VM slot, 63:36 GFN.

use pinfold_abi::{State, limit};

use crate::addr::{Frame, FrameRange, Gfn, Order, Pfn, Physical};
use crate::machine::Table;
use crate::refusal::{Found, Refusal};
use crate::vm::VmSlot;

#[cfg(test)]
mod tests;

/// The word of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Folio(u64);

/// Who may use a folio.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FolioState {
    /// The host alone.
    Host,
    /// EL2 alone.
    Hyp {
        /// If it is a stage-2 table: how many of its entries differ from what stands there when nothing was changed.
        entries: u16,
    },
    /// The host, and EL2 reads it.
    HostSharedHyp {
        /// How many uses EL2 has for it.
        pins: u16,
    },
    /// The host, and ordinary VMs.
    HostSharedGuest {
        /// In how many places they have it.
        shares: u16,
    },
    /// Nobody: on its way from the host to a VM.
    Arriving {
        /// The VM that will own it.
        vm: VmSlot,
        /// Where it will have the first frame.
        gfn: Gfn,
        /// How many frames are cleaned.
        done: u16,
    },
    /// One VM alone.
    Guest {
        /// The VM.
        vm: VmSlot,
        /// Where it has the first frame.
        gfn: Gfn,
    },
    /// One VM, which lets the host.
    GuestSharedHost {
        /// The VM.
        vm: VmSlot,
        /// Where it has the first frame.
        gfn: Gfn,
    },
    /// Nobody: on its way from a VM to the host.
    Wiping {
        /// The VM that owned it.
        vm: VmSlot,
        /// Where it had the first frame.
        gfn: Gfn,
        /// How many frames are wiped.
        done: u16,
    },
    /// Nobody, for ever.
    Poisoned,
    /// Not RAM.
    NotRam,
}

const ORDER_SHIFT: u32 = 3;
const TAIL: u64 = 1 << 7;
const COUNT_SHIFT: u32 = 8;
const SLOT_SHIFT: u32 = 24;
const GFN_SHIFT: u32 = 36;
/// How far the highest bit of the state is from its place.
const STATE_HIGH_SHIFT: u32 = 27;

/// Bits of a guest frame number: 40-bit IPAs.
pub const GFN_BITS: u32 = 28;

impl FolioState {
    /// The state without its payload.
    #[must_use]
    pub const fn number(self) -> State {
        match self {
            Self::Host => State::Host,
            Self::Hyp { .. } => State::Hyp,
            Self::HostSharedHyp { .. } => State::HostSharedHyp,
            Self::HostSharedGuest { .. } => State::HostSharedGuest,
            Self::Arriving { .. } => State::Arriving,
            Self::Guest { .. } => State::Guest,
            Self::GuestSharedHost { .. } => State::GuestSharedHost,
            Self::Wiping { .. } => State::Wiping,
            Self::Poisoned => State::Poisoned,
            Self::NotRam => State::NotRam,
        }
    }

    /// The VM that owns the folio, or will, or owned it last and has not lost it wholly, and where.
    #[must_use]
    pub const fn owner(self) -> Option<(VmSlot, Gfn)> {
        match self {
            Self::Guest { vm, gfn }
            | Self::GuestSharedHost { vm, gfn }
            | Self::Arriving { vm, gfn, .. }
            | Self::Wiping { vm, gfn, .. } => Some((vm, gfn)),
            Self::Host
            | Self::Hyp { .. }
            | Self::HostSharedHyp { .. }
            | Self::HostSharedGuest { .. }
            | Self::Poisoned
            | Self::NotRam => None,
        }
    }

    /// Whether the host's stage 2 maps it.
    #[must_use]
    pub const fn host_may_access(self) -> bool {
        match self {
            Self::Host
            | Self::HostSharedHyp { .. }
            | Self::HostSharedGuest { .. }
            | Self::GuestSharedHost { .. } => true,
            Self::Hyp { .. }
            | Self::Arriving { .. }
            | Self::Guest { .. }
            | Self::Wiping { .. }
            | Self::Poisoned
            | Self::NotRam => false,
        }
    }

    /// The count that the word has room for.
    const fn count(self) -> u16 {
        match self {
            Self::Hyp { entries: count }
            | Self::HostSharedHyp { pins: count }
            | Self::HostSharedGuest { shares: count }
            | Self::Arriving { done: count, .. }
            | Self::Wiping { done: count, .. } => count,
            Self::Host
            | Self::Guest { .. }
            | Self::GuestSharedHost { .. }
            | Self::Poisoned
            | Self::NotRam => 0,
        }
    }
}

impl Folio {
    /// A frame of the host: the word 0.
    pub const HOST: Self = Self(0);

    /// The head of a folio.
    #[must_use]
    pub fn head(state: FolioState, order: Order) -> Self {
        let (slot, gfn) = match state.owner() {
            Some((vm, gfn)) => (u64::from(vm.raw()), gfn.raw()),
            None => (0, 0),
        };
        let number = state.number().number();
        Self(
            number & 7
                | (number & 8) << STATE_HIGH_SHIFT
                | u64::from(order.raw()) << ORDER_SHIFT
                | u64::from(state.count()) << COUNT_SHIFT
                | slot << SLOT_SHIFT
                | gfn << GFN_SHIFT,
        )
    }

    /// A frame of the host that guests have in so many places.
    fn shared(shares: u16) -> Self {
        match shares {
            0 => Self::HOST,
            _ => Self::head(FolioState::HostSharedGuest { shares }, Order::FRAME),
        }
    }

    /// A tail of a folio.
    #[must_use]
    pub fn tail(order: Order) -> Self {
        Self(TAIL | u64::from(order.raw()) << ORDER_SHIFT)
    }

    /// The word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether the state is in another word, that of the head.
    #[must_use]
    pub const fn is_tail(self) -> bool {
        self.0 & TAIL != 0
    }

    /// The order of the folio that the frame belongs to.
    #[must_use]
    pub fn order(self) -> Order {
        let [low, ..] = self.0.to_le_bytes();
        Order::new(low >> ORDER_SHIFT & 0xF).unwrap_or(Order::FRAME)
    }

    /// The count of a head whose state has one.
    fn count(self) -> u16 {
        let [_, low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The state, if this is a head.
    #[must_use]
    pub fn state(self) -> FolioState {
        let [_, _, _, slot, ..] = self.0.to_le_bytes();
        let count = self.count();
        let owner = VmSlot::new(slot & 0x3F).zip(Frame::new(self.0 >> GFN_SHIFT));
        let state = State::from_number(self.0 & 7 | self.0 >> STATE_HIGH_SHIFT & 8);
        match (state, owner) {
            (Some(State::Host), _) => FolioState::Host,
            (Some(State::Hyp), _) => FolioState::Hyp { entries: count },
            (Some(State::HostSharedHyp), _) => FolioState::HostSharedHyp { pins: count },
            (Some(State::HostSharedGuest), _) => FolioState::HostSharedGuest { shares: count },
            (Some(State::Guest), Some((vm, gfn))) => FolioState::Guest { vm, gfn },
            (Some(State::GuestSharedHost), Some((vm, gfn))) => {
                FolioState::GuestSharedHost { vm, gfn }
            }
            (Some(State::Arriving), Some((vm, gfn))) => FolioState::Arriving {
                vm,
                gfn,
                done: count,
            },
            (Some(State::Wiping), Some((vm, gfn))) => FolioState::Wiping {
                vm,
                gfn,
                done: count,
            },
            (Some(State::NotRam), _) => FolioState::NotRam,
            (
                Some(
                    State::Poisoned
                    | State::Guest
                    | State::GuestSharedHost
                    | State::Arriving
                    | State::Wiping,
                )
                | None,
                _,
            ) => FolioState::Poisoned,
        }
    }
}

impl core::fmt::Debug for Folio {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.is_tail() {
            write!(f, "tail of order {}", self.order().raw())
        } else {
            write!(f, "{:?} of order {}", self.state(), self.order().raw())
        }
    }
}

/// How many frames are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census([u64; 10]);

impl Census {
    /// How many frames are in `state`.
    #[must_use]
    pub fn frames(&self, state: State) -> u64 {
        self.0
            .iter()
            .zip(State::TABLE)
            .find(|(_, info)| info.number == state.number())
            .map_or(0, |(count, _)| *count)
    }

    fn place(&mut self, state: State) -> &mut u64 {
        let [
            host,
            hyp,
            host_shared_hyp,
            guest,
            guest_shared_host,
            wiping,
            poisoned,
            not_ram,
            host_shared_guest,
            arriving,
        ] = &mut self.0;
        match state {
            State::Host => host,
            State::Hyp => hyp,
            State::HostSharedHyp => host_shared_hyp,
            State::HostSharedGuest => host_shared_guest,
            State::Arriving => arriving,
            State::Guest => guest,
            State::GuestSharedHost => guest_shared_host,
            State::Wiping => wiping,
            State::Poisoned => poisoned,
            State::NotRam => not_ram,
        }
    }

    fn add(&mut self, state: State, frames: u64) {
        let place = self.place(state);
        *place = place.saturating_add(frames);
    }

    fn take(&mut self, state: State, frames: u64) {
        let place = self.place(state);
        *place = place.saturating_sub(frames);
    }
}

/// The words of all frames from the first of RAM to the last.
#[derive(Debug)]
pub struct FolioArray {
    first: Pfn,
    folios: &'static mut [Folio],
    census: Census,
}

/// A frame's folio: its head, its order, its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whole {
    /// The first frame.
    pub head: Pfn,
    /// The size.
    pub order: Order,
    /// Who may use it.
    pub state: FolioState,
}

impl Whole {
    /// Its frames.
    #[must_use]
    pub const fn frames(self) -> FrameRange<Physical> {
        FrameRange::folio(self.head, self.order)
    }
}

#[cfg(any(test, feature = "test-machine"))]
impl Clone for FolioArray {
    fn clone(&self) -> Self {
        Self {
            first: self.first,
            folios: crate::machine::test::words_like(self.folios),
            census: self.census,
        }
    }
}

#[cfg(any(test, feature = "test-machine"))]
impl Drop for FolioArray {
    fn drop(&mut self) {
        crate::machine::test::keep_words(core::mem::take(&mut self.folios));
    }
}

impl FolioArray {
    /// Takes the memory for the words, the first of which speaks for `first`. Every frame is `NotRam` until it is said to be more.
    #[must_use]
    pub fn new(first: Pfn, folios: &'static mut [Folio]) -> Self {
        folios.fill(Folio::head(FolioState::NotRam, Order::FRAME));
        let mut census = Census::default();
        census.add(
            State::NotRam,
            u64::try_from(folios.len()).unwrap_or(u64::MAX),
        );
        Self {
            first,
            folios,
            census,
        }
    }

    fn position(&self, pfn: Pfn) -> Option<usize> {
        usize::try_from(pfn.distance_from(self.first)?).ok()
    }

    /// The word of a frame; that of a hole for what the array does not reach.
    #[must_use]
    pub fn word(&self, pfn: Pfn) -> Folio {
        let word = self
            .position(pfn)
            .and_then(|position| self.folios.get(position))
            .copied();
        word.unwrap_or_else(|| Folio::head(FolioState::NotRam, Order::FRAME))
    }

    /// The folio that a frame belongs to.
    #[must_use]
    pub fn whole(&self, pfn: Pfn) -> Whole {
        let order = self.word(pfn).order();
        let head = pfn.align_down(order);
        Whole {
            head,
            order,
            state: self.word(head).state(),
        }
    }

    /// The words of `range`, as far as the array reaches.
    fn words_mut(&mut self, range: FrameRange<Physical>) -> &mut [Folio] {
        let start = self.position(range.first());
        let end = start
            .zip(usize::try_from(range.count()).ok())
            .and_then(|(start, count)| start.checked_add(count));
        match start.zip(end) {
            Some((start, end)) => self.folios.get_mut(start..end).unwrap_or(&mut []),
            None => &mut [],
        }
    }

    /// The words of `range`, as far as the array reaches.
    #[must_use]
    pub fn words(&self, range: FrameRange<Physical>) -> &[Folio] {
        let start = self.position(range.first());
        let end = start
            .zip(usize::try_from(range.count()).ok())
            .and_then(|(start, count)| start.checked_add(count));
        start
            .zip(end)
            .and_then(|(start, end)| self.folios.get(start..end))
            .unwrap_or(&[])
    }

    /// Refuses unless every frame of `range` is the host's alone, naming the first that is not.
    pub fn expect_host(&self, range: FrameRange<Physical>) -> Result<(), Refusal> {
        let words = self.words(range);
        let odd = match words.iter().position(|word| *word != Folio::HOST) {
            None if !words.is_empty() => return Ok(()),
            None => range
                .frames()
                .position(|pfn| self.word(pfn) != Folio::HOST)
                .unwrap_or(0),
            Some(index) => index,
        };
        let index = u64::try_from(odd).unwrap_or(0);
        Err(range
            .first()
            .checked_add(index)
            .map_or(Refusal::Invalid, |pfn| self.refusal(index, pfn)))
    }

    /// Refuses unless every frame of `range` is the host's and can be shared with one more guest, naming the first that is not.
    pub fn expect_shareable(&self, range: FrameRange<Physical>) -> Result<(), Refusal> {
        let is_odd = |folio: &Folio| match folio.state() {
            FolioState::Host => folio.is_tail(),
            FolioState::HostSharedGuest { shares } => {
                shares >= limit::MAX_SHARES && !mutant!(SharesWithoutEnd)
            }
            FolioState::Hyp { .. }
            | FolioState::HostSharedHyp { .. }
            | FolioState::Arriving { .. }
            | FolioState::Guest { .. }
            | FolioState::GuestSharedHost { .. }
            | FolioState::Wiping { .. }
            | FolioState::Poisoned
            | FolioState::NotRam => true,
        };
        let words = self.words(range);
        // Mostly they are the host's alone.
        let may_share = |folio: &Folio| *folio == Folio::HOST || !is_odd(folio);
        if !words.is_empty() && words.iter().all(may_share) {
            return Ok(());
        }
        let mut frames = (0..).zip(range.frames());
        let odd = frames.find(|(_, pfn)| is_odd(&self.word(*pfn)));
        odd.map_or(Ok(()), |(index, pfn)| Err(self.refusal(index, pfn)))
    }

    /// Counts one more place in which a guest has each frame of `range`, all of which can be shared.
    pub fn count_shares(&mut self, range: FrameRange<Physical>) {
        let mut new = 0;
        for folio in self.words_mut(range) {
            let shares = folio.count();
            new += u64::from(shares == 0);
            *folio = Folio::shared(shares.saturating_add(1));
        }
        self.census.take(State::Host, new);
        self.census.add(State::HostSharedGuest, new);
    }

    /// Counts one place less in which a guest has each frame of `range`; after the last one a frame is the host's alone.
    pub fn uncount_shares(&mut self, range: FrameRange<Physical>) {
        let mut gone = 0;
        for folio in self.words_mut(range) {
            let shares = folio.count().saturating_sub(1);
            gone += u64::from(shares == 0);
            *folio = Folio::shared(shares);
        }
        self.census.take(State::HostSharedGuest, gone);
        self.census.add(State::Host, gone);
    }

    /// The refusal that the state of a frame calls for.
    #[must_use]
    pub fn refusal(&self, index: u64, pfn: Pfn) -> Refusal {
        let found = self.found(index, pfn);
        match self.whole(pfn).state {
            FolioState::NotRam => Refusal::NotRam(found),
            FolioState::Poisoned => Refusal::Poisoned(found),
            FolioState::Host
            | FolioState::Hyp { .. }
            | FolioState::HostSharedHyp { .. }
            | FolioState::HostSharedGuest { .. }
            | FolioState::Arriving { .. }
            | FolioState::Guest { .. }
            | FolioState::GuestSharedHost { .. }
            | FolioState::Wiping { .. } => Refusal::State(found),
        }
    }

    /// What a refusal shows of a frame.
    #[must_use]
    pub fn found(&self, index: u64, pfn: Pfn) -> Found {
        Found {
            index,
            folio: self.word(pfn).word(),
            pin: 0,
        }
    }

    /// Makes `range`, all of which was in the state `from`, folios of `order` in the state `to`; the GFN of an owner counts on
    /// from one folio to the next.
    pub fn change(
        &mut self,
        range: FrameRange<Physical>,
        from: State,
        order: Order,
        to: FolioState,
    ) {
        self.census
            .take(from, seeded!(CensusDrifts, 0, range.count()));
        self.census.add(to.number(), range.count());
        let tail = Folio::tail(order);
        let size = usize::try_from(order.frames()).unwrap_or(1);
        let step = if to.owner().is_some() {
            order.frames() << GFN_SHIFT
        } else {
            0
        };
        let mut head = Folio::head(to, order);
        if order == Order::FRAME && step == 0 {
            // All of RAM goes through here at boot.
            self.words_mut(range).fill(head);
            return;
        }
        for folio in self.words_mut(range).chunks_mut(size) {
            folio.fill(tail);
            if let Some(first) = folio.first_mut() {
                *first = head;
            }
            head = Folio(head.0.wrapping_add(step));
        }
    }

    /// Notes how many frames of a folio on its way are cleaned or wiped.
    pub fn note_done(&mut self, folio: Whole, frames: u16) {
        let done = frames;
        let state = match folio.state {
            FolioState::Arriving { vm, gfn, .. } => FolioState::Arriving { vm, gfn, done },
            FolioState::Wiping { vm, gfn, .. } => FolioState::Wiping { vm, gfn, done },
            FolioState::Host
            | FolioState::Hyp { .. }
            | FolioState::HostSharedHyp { .. }
            | FolioState::HostSharedGuest { .. }
            | FolioState::Guest { .. }
            | FolioState::GuestSharedHost { .. }
            | FolioState::Poisoned
            | FolioState::NotRam => return,
        };
        let head = FrameRange::folio(folio.head, Order::FRAME);
        if let Some(word) = self.words_mut(head).first_mut() {
            *word = Folio::head(state, folio.order);
        }
    }

    /// How many entries of a stage-2 table are in use.
    #[must_use]
    pub fn entries(&self, table: Table) -> u16 {
        self.word(table.frame()).count()
    }

    /// Notes how many entries of a stage-2 table are in use.
    pub fn set_entries(&mut self, table: Table, entries: u16) {
        if let Some(word) = self
            .words_mut(FrameRange::folio(table.frame(), Order::FRAME))
            .first_mut()
        {
            *word = Folio::head(FolioState::Hyp { entries }, Order::FRAME);
        }
    }

    /// How many frames are in each state.
    #[must_use]
    pub const fn census(&self) -> Census {
        self.census
    }

    /// The frames that the array speaks for.
    #[must_use]
    pub fn frames(&self) -> Option<FrameRange<Physical>> {
        FrameRange::new(self.first, u64::try_from(self.folios.len()).ok()?)
    }

    /// 64-bit FNV-1a over the words of `range`, a word being the unit.
    #[must_use]
    pub fn digest(&self, range: FrameRange<Physical>) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        self.words(range).iter().fold(OFFSET, |hash, folio| {
            (hash ^ seeded!(DigestsNothing, 0, folio.word())).wrapping_mul(PRIME)
        })
    }
}
