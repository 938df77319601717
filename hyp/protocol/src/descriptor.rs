//! The bits of a descriptor that the protocol depends on (DDI 0487, D8.3.1): the same in both stages, with a 4 KiB granule.

/// Level of a table in the walk: 1 is a root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Entries of 1 GiB.
    One,
    /// Entries of 2 MiB.
    Two,
    /// Entries of 4 KiB.
    Three,
}

impl Level {
    /// 1, 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    const fn shift(self) -> u32 {
        match self {
            Self::One => 18,
            Self::Two => 9,
            Self::Three => 0,
        }
    }

    /// Frames that one entry speaks for.
    pub(crate) const fn frames(self) -> u64 {
        1 << self.shift()
    }

    /// That of the tables that an entry of this one points to.
    pub(crate) const fn below(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two | Self::Three => Self::Three,
        }
    }
}

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
/// Bits 47:12, where an address stands.
const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;

/// What a walker takes an entry for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Meaning {
    /// Nothing.
    Invalid,
    /// A block or page from this frame on.
    Leaf(u64),
    /// The next table.
    Table(u64),
}

/// The frame of an address in a register or a descriptor.
pub(crate) const fn frame_of(raw: u64) -> u64 {
    (raw & ADDRESS) >> 12
}

/// What `value` means in a table of `level`.
pub(crate) const fn meaning(level: Level, value: u64) -> Meaning {
    let frame = frame_of(value);
    if value & VALID == 0 {
        return Meaning::Invalid;
    }
    match level {
        Level::One | Level::Two if value & TABLE_OR_PAGE != 0 => Meaning::Table(frame),
        Level::One | Level::Two | Level::Three => Meaning::Leaf(frame),
    }
}

/// Whether a walker takes it.
pub(crate) const fn is_valid(value: u64) -> bool {
    value & VALID != 0
}
