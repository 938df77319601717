//! The 64 bits that a stage-2 walker reads: [`Descriptor`], and what it may map as: [`Mapping`].
//!
//! VMSAv8-64, 4 KiB granule (DDI 0487, D8.3.1 and D8.3.2). A descriptor and a mapping are different types: nobody can mask the one
//! where the other was meant. Attributes: bits 5:2 `MemAttr`, 7:6 `S2AP`, 9:8 SH, 10 AF, 54:53 XN.
//!
//! An invalid descriptor may be *parked*: it keeps the frame that it mapped, so that a reclaim which was cut short finds it.

use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE};

use crate::addr::{Frame, Pfn};
use crate::machine::Table;

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
    /// Bits of a frame number below one entry of this level.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::One => 18,
            Self::Two => 9,
            Self::Three => 0,
        }
    }

    /// Frames that one entry maps.
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.shift()
    }
}

/// What a valid leaf lets its party do, and with what kind of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// RAM of its own: read, write, execute.
    Ram,
    /// RAM shared with another party: read and write.
    SharedRam,
    /// Device registers: read and write.
    Device,
    /// RAM of its own where stage 2 forces write-back (`HCR_EL2.FWB`, DDI 0487 D8.6.6).
    ForcedRam,
    /// RAM of the host's that it may use like this.
    Granted(Access),
    /// The same where stage 2 forces write-back.
    ForcedGranted(Access),
}

/// What a guest may do with RAM of the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
    /// Read, write and execute.
    All,
}

impl Access {
    /// What `bits` of the wire stand for: whoever may do anything may read.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        const READ_WRITE: u64 = ACCESS_READ | ACCESS_WRITE;
        const READ_EXECUTE: u64 = ACCESS_READ | ACCESS_EXECUTE;
        const ALL: u64 = READ_WRITE | READ_EXECUTE;
        match bits {
            ACCESS_READ => Some(Self::Read),
            READ_WRITE => Some(Self::ReadWrite),
            READ_EXECUTE => Some(Self::ReadExecute),
            ALL => Some(Self::All),
            _ => None,
        }
    }

    /// Whether fetches are among it.
    #[must_use]
    pub const fn executes(self) -> bool {
        match self {
            Self::ReadExecute | Self::All => true,
            Self::Read | Self::ReadWrite => false,
        }
    }

    const fn attributes(self) -> u64 {
        let permissions = match self {
            Self::Read => READ_ONLY | EXECUTE_NEVER,
            Self::ReadWrite => READ_WRITE | EXECUTE_NEVER,
            Self::ReadExecute => READ_ONLY,
            Self::All => READ_WRITE,
        };
        permissions | INNER_SHAREABLE | ACCESSED
    }
}

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const READ_ONLY: u64 = 0b01 << 6;
const READ_WRITE: u64 = 0b11 << 6;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 0b10 << 53;
const NORMAL: u64 = 0b1111 << 2;
const NORMAL_FORCED: u64 = 0b0110 << 2;
const DEVICE_NGNRE: u64 = 0b0001 << 2;
/// Bits 47:12, where an address stands.
const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;
/// A bit that hardware ignores in an invalid descriptor.
const PARKED: u64 = 1 << 2;

impl Mapping {
    const fn attributes(self) -> u64 {
        match self {
            Self::Ram => NORMAL | READ_WRITE | INNER_SHAREABLE | ACCESSED,
            Self::SharedRam => NORMAL | READ_WRITE | INNER_SHAREABLE | ACCESSED | EXECUTE_NEVER,
            Self::Device => DEVICE_NGNRE | READ_WRITE | ACCESSED | EXECUTE_NEVER,
            Self::ForcedRam => NORMAL_FORCED | READ_WRITE | INNER_SHAREABLE | ACCESSED,
            Self::Granted(access) => NORMAL | access.attributes(),
            Self::ForcedGranted(access) => NORMAL_FORCED | access.attributes(),
        }
    }
}

/// One entry of a stage-2 table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(u64);

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing.
    Vacant,
    /// Nothing to the walker; to us, that this frame was here.
    Parked(Pfn),
    /// The next table.
    Table(Table),
    /// A block or page that starts at this frame.
    Leaf(Pfn),
}

impl Descriptor {
    /// Maps nothing.
    pub const VACANT: Self = Self(0);

    /// The entry as it stands in a table.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Points to the next table.
    #[must_use]
    pub const fn table(table: Table) -> Self {
        Self(table.frame().address().raw() | TABLE_OR_PAGE | VALID)
    }

    /// Maps what starts at `frame`, as an entry of `level`.
    #[must_use]
    pub const fn leaf(level: Level, frame: Pfn, mapping: Mapping) -> Self {
        let kind = match level {
            Level::One | Level::Two => VALID,
            Level::Three => VALID | TABLE_OR_PAGE,
        };
        Self(frame.address().raw() | mapping.attributes() | kind)
    }

    /// Maps nothing, and remembers `frame`.
    #[must_use]
    pub const fn parked(frame: Pfn) -> Self {
        Self(frame.address().raw() | PARKED)
    }

    /// This entry of level 3, and then those of the frames that follow on its own, each in turn; nothing is followed by nothing.
    pub fn pages(self) -> impl Iterator<Item = Self> {
        let size = match self {
            Self::VACANT => 0,
            Self(_) => crate::addr::FRAME_SIZE,
        };
        let mut next = self.0;
        core::iter::repeat_with(move || {
            let page = Self(next);
            next = next.wrapping_add(size);
            page
        })
    }

    /// Whether a walker takes it.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// What it says in a table of `level`.
    #[must_use]
    pub fn entry(self, level: Level) -> Entry {
        let Some(frame) = Frame::new((self.0 & ADDRESS) >> crate::addr::FRAME_SHIFT) else {
            return Entry::Vacant;
        };
        let is_table = self.0 & TABLE_OR_PAGE != 0 && level != Level::Three;
        match (self.is_valid(), is_table) {
            (true, true) => Entry::Table(Table::vouch(frame)),
            (true, false) => Entry::Leaf(frame),
            (false, _) if self.0 & PARKED != 0 => Entry::Parked(frame),
            (false, _) => Entry::Vacant,
        }
    }

    /// The leaf that maps part `index` of what this leaf of `level` maps, one level down.
    #[must_use]
    pub fn part(self, level: Level, index: u64) -> Self {
        let (below, kind) = match level {
            Level::One => (Level::Two, 0),
            Level::Two | Level::Three => (Level::Three, TABLE_OR_PAGE),
        };
        let offset = index << below.shift() << crate::addr::FRAME_SHIFT;
        Self((self.0 | kind).wrapping_add(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_and_tables_read_back() {
        let frame = Pfn::new(0x40200).unwrap();
        for mapping in [
            Mapping::Ram,
            Mapping::SharedRam,
            Mapping::Device,
            Mapping::ForcedRam,
            Mapping::Granted(Access::Read),
            Mapping::ForcedGranted(Access::All),
        ] {
            for level in [Level::One, Level::Two, Level::Three] {
                assert_eq!(
                    Descriptor::leaf(level, frame, mapping).entry(level),
                    Entry::Leaf(frame)
                );
            }
        }
        let table = Table::vouch(frame);
        assert_eq!(
            Descriptor::table(table).entry(Level::Two),
            Entry::Table(table)
        );
        assert_eq!(
            Descriptor::parked(frame).entry(Level::Three),
            Entry::Parked(frame)
        );
        assert!(!Descriptor::parked(frame).is_valid());
        assert_eq!(Descriptor::VACANT.entry(Level::One), Entry::Vacant);
    }

    #[test]
    fn a_part_is_the_smaller_leaf() {
        let frame = Pfn::new(0x40000).unwrap();
        let page = Descriptor::leaf(Level::Two, frame, Mapping::Ram).part(Level::Two, 7);
        assert_eq!(
            page,
            Descriptor::leaf(Level::Three, frame.checked_add(7).unwrap(), Mapping::Ram)
        );
        let block = Descriptor::leaf(Level::One, frame, Mapping::Ram).part(Level::One, 511);
        assert_eq!(
            block,
            Descriptor::leaf(
                Level::Two,
                frame.checked_add(511 * 512).unwrap(),
                Mapping::Ram
            )
        );
    }

    #[test]
    fn encodings_are_those_of_the_manual() {
        let frame = Pfn::new(0x40000).unwrap();
        assert_eq!(
            Descriptor::leaf(Level::Three, frame, Mapping::Ram).raw(),
            0x4000_07FF
        );
        assert_eq!(
            Descriptor::leaf(Level::Two, frame, Mapping::Ram).raw(),
            0x4000_07FD
        );
        assert_eq!(
            Descriptor::leaf(Level::Three, frame, Mapping::SharedRam).raw(),
            0x0040_0000_4000_07FF
        );
        let granted = |access| Descriptor::leaf(Level::Three, frame, Mapping::Granted(access));
        assert_eq!(granted(Access::Read).raw(), 0x0040_0000_4000_077F);
        assert_eq!(granted(Access::ReadExecute).raw(), 0x4000_077F);
        assert_eq!(
            Descriptor::leaf(Level::One, frame, Mapping::Device).raw(),
            0x0040_0000_4000_04C5
        );
    }
}
