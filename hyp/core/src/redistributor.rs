//! What the host may do to the control frame (`RD_base`) of a physical redistributor: everything but LPIs.
//!
//! A redistributor keeps LPIs in tables in memory, wherever its registers say, and reads and writes them as a bus master that no
//! stage 2 holds. So the host finds a GIC without LPIs: [`filter`] says what is left of a value that it reads or writes.
//! Registers and bits: IHI 0069, 12.11.

/// Bytes of a control frame.
pub const CONTROL_FRAME: u64 = 0x1_0000;

const CTLR: u64 = 0x0;
const TYPER: u64 = 0x8;
/// `GICR_SETLPIR`, `GICR_CLRLPIR`.
const SET_AND_CLEAR: core::ops::Range<u64> = 0x40..0x50;
/// `GICR_PROPBASER`, `GICR_PENDBASER`: where the tables are.
const TABLES: core::ops::Range<u64> = 0x70..0x80;
/// `GICR_INVLPIR`, `GICR_INVALLR`, `GICR_SYNCR`.
const INVALIDATE: core::ops::Range<u64> = 0xa0..0xc8;

/// `GICR_CTLR.EnableLPIs`.
const ENABLE_LPIS: u64 = 1;
/// `GICR_TYPER`: `PLPIS`, `VLPIS`, `DirectLPI`.
const HAS_LPIS: u64 = 1 | 1 << 1 | 1 << 3;

/// The direction of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// A load.
    Read,
    /// A store.
    Write,
}

/// The bits that an access at `offset` may carry; 0 for a register that the host does not have.
#[must_use]
pub fn filter(offset: u64, direction: Direction) -> u64 {
    if [SET_AND_CLEAR, TABLES, INVALIDATE]
        .iter()
        .any(|registers| registers.contains(&offset))
    {
        return 0;
    }
    match (offset, direction) {
        (CTLR, Direction::Write) => !ENABLE_LPIS,
        (TYPER, Direction::Read) => !HAS_LPIS,
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_finds_no_lpis() {
        assert_eq!(filter(TYPER, Direction::Read) & 0xf, 0b0100);
        assert_eq!(filter(CTLR, Direction::Write) & 0xf, 0b1110);
        for offset in [0x40, 0x44, 0x48, 0x70, 0x74, 0x78, 0x7c, 0xa0, 0xb0, 0xc0] {
            assert_eq!(filter(offset, Direction::Read), 0, "{offset:#x}");
            assert_eq!(filter(offset, Direction::Write), 0, "{offset:#x}");
        }
    }

    #[test]
    fn the_rest_is_the_hosts() {
        for offset in [0x4, 0xc, 0x14, 0x18, 0x3c, 0x50, 0x80, 0xc8, 0xffe8] {
            assert_eq!(filter(offset, Direction::Read), u64::MAX, "{offset:#x}");
            assert_eq!(filter(offset, Direction::Write), u64::MAX, "{offset:#x}");
        }
    }
}
