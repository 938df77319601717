//! Addresses and frame numbers, each with the space that it counts in its type.
//!
//! [`Address`] counts bytes and [`Frame`] counts 4 KiB frames of one [`Space`]; the four names used everywhere are
//! [`PhysAddr`], [`Ipa`], [`Pfn`] and [`Gfn`]. Nothing converts one space into another: the host's stage 2 is an
//! identity, and the two places that use it say so by [`Frame::identity`].
//!
//! Invariant: an [`Address`] is below 2^48 and a [`Frame`] below 2^36 (DDI 0487, D8.1.7: the largest output address
//! without `FEAT_LPA2`), so shifting one into the other never loses a bit. Arithmetic is checked.

use core::fmt;
use core::marker::PhantomData;

/// Bytes of a frame, as a power of two.
pub const FRAME_SHIFT: u32 = 12;

/// Bytes of a frame.
pub const FRAME_SIZE: u64 = 1 << FRAME_SHIFT;

/// Bits of the largest address of any space.
pub const ADDRESS_BITS: u32 = 48;

mod sealed {
    pub trait Sealed {}
}

/// What an address counts in.
pub trait Space: sealed::Sealed + Copy + Ord + core::hash::Hash + fmt::Debug + 'static {
    /// The letters that a debug print puts before the number.
    const NAME: &'static str;
}

/// Physical memory: what stage 2 puts out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Physical {}

/// Intermediate physical memory: what stage 2 takes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Intermediate {}

impl sealed::Sealed for Physical {}
impl sealed::Sealed for Intermediate {}
impl Space for Physical {
    const NAME: &'static str = "pa";
}
impl Space for Intermediate {
    const NAME: &'static str = "ipa";
}

/// A byte address of the space `S`, below 2^48.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address<S: Space>(u64, PhantomData<S>);

/// The number of a 4 KiB frame of the space `S`, below 2^36.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame<S: Space>(u64, PhantomData<S>);

/// A physical address.
pub type PhysAddr = Address<Physical>;
/// An intermediate physical address: a guest's, or the host's.
pub type Ipa = Address<Intermediate>;
/// The number of a physical frame.
pub type Pfn = Frame<Physical>;
/// The number of a frame as a guest, or the host, counts them.
pub type Gfn = Frame<Intermediate>;

impl<S: Space> Address<S> {
    /// The address `raw`, if it is below 2^48.
    #[must_use]
    pub const fn new(raw: u64) -> Option<Self> {
        if raw >> ADDRESS_BITS == 0 {
            Some(Self(raw, PhantomData))
        } else {
            None
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The frame that holds this byte.
    #[must_use]
    pub const fn frame(self) -> Frame<S> {
        Frame(self.0 >> FRAME_SHIFT, PhantomData)
    }

    /// How far into its frame this byte lies.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 & (FRAME_SIZE - 1)
    }

    /// The address `bytes` further on, if there is one.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(raw) => Self::new(raw),
            None => None,
        }
    }

    /// Whether this is a multiple of `bytes`, a power of two.
    #[must_use]
    pub const fn is_aligned(self, bytes: u64) -> bool {
        self.0 & bytes.wrapping_sub(1) == 0
    }
}

impl<S: Space> Frame<S> {
    /// The frame number `raw`, if it is below 2^36.
    #[must_use]
    pub const fn new(raw: u64) -> Option<Self> {
        if raw >> (ADDRESS_BITS - FRAME_SHIFT) == 0 {
            Some(Self(raw, PhantomData))
        } else {
            None
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn address(self) -> Address<S> {
        Address(self.0 << FRAME_SHIFT, PhantomData)
    }

    /// The frame `count` further on, if there is one.
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(raw) => Self::new(raw),
            None => None,
        }
    }

    /// How many frames lie from `base` to this one, if it is not below.
    #[must_use]
    pub const fn distance_from(self, base: Self) -> Option<u64> {
        self.0.checked_sub(base.0)
    }

    /// Whether a folio of `order` may start here.
    #[must_use]
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.frames() - 1) == 0
    }

    /// The first frame of the aligned group of 2^`order` that holds this one.
    #[must_use]
    pub const fn align_down(self, order: Order) -> Self {
        Self(self.0 & !(order.frames() - 1), PhantomData)
    }
}

impl Pfn {
    /// The frame that the host knows this one by: its stage 2 is an identity.
    #[must_use]
    pub const fn identity(self) -> Gfn {
        Frame(self.0, PhantomData)
    }
}

impl Gfn {
    /// The frame behind this one in the host's stage 2, which is an identity.
    #[must_use]
    pub const fn identity(self) -> Pfn {
        Frame(self.0, PhantomData)
    }
}

impl FrameRange<Physical> {
    /// The frames that the host knows these by.
    #[must_use]
    pub const fn identity(self) -> FrameRange<Intermediate> {
        FrameRange {
            first: self.first.identity(),
            count: self.count,
        }
    }
}

impl<S: Space> fmt::Debug for Address<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", S::NAME, self.0)
    }
}

impl<S: Space> fmt::Debug for Frame<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frame {:#x}", S::NAME, self.0)
    }
}

/// The size of a folio: 2^order frames, 0 to 9 (4 KiB to 2 MiB).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const FRAME: Self = Self(0);
    /// What one level-2 block maps: 512 frames.
    pub const BLOCK: Self = Self(9);

    /// The order `raw`, if it is at most 9.
    #[must_use]
    pub const fn new(raw: u8) -> Option<Self> {
        if raw <= Self::BLOCK.0 {
            Some(Self(raw))
        } else {
            None
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// How many frames a folio of this order has.
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.0
    }
}

/// A run of frames of the space `S`: not empty, and wholly below 2^36.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FrameRange<S: Space> {
    first: Frame<S>,
    count: u64,
}

impl<S: Space> FrameRange<S> {
    /// The `count` frames from `first`; nothing if there are none or the space ends before.
    #[must_use]
    pub const fn new(first: Frame<S>, count: u64) -> Option<Self> {
        if count == 0 {
            return None;
        }
        match first.checked_add(count - 1) {
            Some(_) => Some(Self { first, count }),
            None => None,
        }
    }

    /// The folio of `order` that holds `frame`.
    #[must_use]
    pub const fn folio(frame: Frame<S>, order: Order) -> Self {
        Self {
            first: frame.align_down(order),
            count: order.frames(),
        }
    }

    /// These frames and the one after them, if there is one.
    #[must_use]
    pub const fn longer(self) -> Self {
        match Self::new(self.first, self.count.saturating_add(1)) {
            Some(longer) => longer,
            None => self,
        }
    }

    /// These frames but the last one, if there are more.
    #[must_use]
    pub const fn shorter(self) -> Self {
        match Self::new(self.first, self.count.saturating_sub(1)) {
            Some(shorter) => shorter,
            None => self,
        }
    }

    /// The first frame.
    #[must_use]
    pub const fn first(self) -> Frame<S> {
        self.first
    }

    /// How many frames there are, at least one.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.count
    }

    /// The last frame.
    #[must_use]
    pub const fn last(self) -> Frame<S> {
        Frame(
            self.first.0.saturating_add(self.count.saturating_sub(1)),
            PhantomData,
        )
    }

    /// Whether `frame` is one of these.
    #[must_use]
    pub const fn contains(self, frame: Frame<S>) -> bool {
        match frame.distance_from(self.first) {
            Some(distance) => distance < self.count,
            None => false,
        }
    }

    /// Whether all of `other` lies in here.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.contains(other.first) && self.contains(other.last())
    }

    /// Whether a frame is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// The frames, in order.
    pub fn frames(self) -> impl Iterator<Item = Frame<S>> + Clone + use<S> {
        (self.first.0..=self.last().0).map(|raw| Frame(raw, PhantomData))
    }
}
