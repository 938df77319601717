//! The registers of the controller, word by word: what a guest reads there, and what a store changes (IHI 0069, 12.9 to 12.11).

use super::{Gic, Interrupt, LAST, low, name};
use crate::clause::Clause;

/// What a word of registers says of each interrupt that it is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// `IGROUPR`.
    Group,
    /// `ISENABLER`, or `ICENABLER`.
    Enable(bool),
    /// `ISPENDR`, or `ICPENDR`.
    Pend(bool),
    /// `ISACTIVER`, or `ICACTIVER`.
    Activate(bool),
    /// `IPRIORITYR`.
    Priority,
    /// `ICFGR`.
    Trigger,
    /// A half of `IROUTER`.
    Route { high: bool },
}

/// What a word of registers is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Always this.
    Fixed(u32),
    /// `GICD_CTLR`.
    Control,
    /// Of several interrupts.
    Fields(Field),
    /// Nothing.
    Reserved,
}

impl Word {
    fn clause(self) -> Clause {
        match self {
            Self::Fixed(_) => Clause::GicIdentity,
            Self::Control => Clause::GicControl,
            Self::Reserved => Clause::GicReserved,
            Self::Fields(Field::Enable(_)) => Clause::GicEnable,
            Self::Fields(Field::Pend(_)) => Clause::GicPend,
            Self::Fields(Field::Activate(_)) => Clause::GicActive,
            Self::Fields(Field::Priority) => Clause::GicPriority,
            Self::Fields(Field::Trigger) => Clause::GicTrigger,
            Self::Fields(Field::Route { .. }) => Clause::GicRoute,
            Self::Fields(Field::Group) => Clause::GicGroup,
        }
    }

    /// The registers for several interrupts, of the distributor and of `SGI_base`, and the first interrupt of the word.
    fn of_many(offset: u64) -> (Self, u64) {
        let (field, base, each) = match offset {
            0x080..0x100 => (Field::Group, 0x080, 32),
            0x100..0x180 => (Field::Enable(true), 0x100, 32),
            0x180..0x200 => (Field::Enable(false), 0x180, 32),
            0x200..0x280 => (Field::Pend(true), 0x200, 32),
            0x280..0x300 => (Field::Pend(false), 0x280, 32),
            0x300..0x380 => (Field::Activate(true), 0x300, 32),
            0x380..0x400 => (Field::Activate(false), 0x380, 32),
            0x400..0x800 => (Field::Priority, 0x400, 4),
            0xC00..0xD00 => (Field::Trigger, 0xC00, 16),
            _ => return (Self::Reserved, 0),
        };
        (Self::Fields(field), (offset - base) / 4 * each)
    }
}

impl Field {
    /// How many bits of the word each interrupt has.
    const fn width(self) -> u32 {
        match self {
            Self::Priority => 8,
            Self::Trigger => 2,
            Self::Route { .. } => 32,
            Self::Group | Self::Enable(_) | Self::Pend(_) | Self::Activate(_) => 1,
        }
    }

    fn read(self, interrupt: Interrupt) -> u32 {
        match self {
            Self::Group => 1,
            Self::Enable(_) => u32::from(interrupt.enabled),
            Self::Pend(_) => u32::from(interrupt.is_pending()),
            Self::Activate(_) => u32::from(interrupt.active),
            Self::Priority => u32::from(interrupt.priority),
            Self::Trigger => u32::from(interrupt.edge) << 1,
            Self::Route { high: false } => low(interrupt.route),
            Self::Route { high: true } => low(interrupt.route >> 32),
        }
    }

    /// Writes `new`; `is_one` says that a 1 was written.
    fn write(self, interrupt: &mut Interrupt, new: u32, is_one: bool, is_private: bool) {
        match self {
            Self::Enable(on) if is_one => interrupt.enabled = on,
            Self::Pend(on) if is_one => interrupt.latched = on,
            Self::Activate(on) if is_one => {
                interrupt.active = on;
                interrupt.taken_by = interrupt.taken_by.filter(|_| on);
            }
            Self::Priority => interrupt.priority = u8::try_from(new & 0xFF).unwrap_or(0),
            Self::Trigger if !is_private => interrupt.edge = new >> 1 & 1 == 1,
            Self::Route { high: false } => {
                interrupt.route = interrupt.route >> 32 << 32 | u64::from(new & 0x80FF_FFFF);
            }
            Self::Route { high: true } => {
                interrupt.route = u64::from(low(interrupt.route)) | u64::from(new & 0xFF) << 32;
            }
            Self::Group | Self::Enable(_) | Self::Pend(_) | Self::Activate(_) | Self::Trigger => {}
        }
    }
}

/// A word of registers, and whose.
#[derive(Clone, Copy)]
pub(super) struct Place {
    word: Word,
    vcpu: u64,
    first: u32,
}

/// What is at an offset in the distributor, or in the redistributors of `count` vCPUs.
pub(super) fn place(is_distributor: bool, offset: u64, count: u64) -> Place {
    let vcpu = offset >> 17;
    let fixed = |value| (Word::Fixed(value), 0);
    let inner = offset & 0x1_FFFF;
    let (word, first) = match (is_distributor, inner) {
        (true, 0) => (Word::Control, 0),
        // GICD_TYPER: 288 INTIDs of 10 bits; SPIs go to one vCPU each.
        (true, 4) => fixed(1 << 25 | 9 << 19 | 8),
        // GICD_IIDR, GICR_IIDR: Arm's (JEP106), product 'P'.
        (true, 8) | (false, 4) => fixed(0x5000_043B),
        // GICD_PIDR2, GICR_PIDR2: GICv3.
        (_, 0xFFE8) => fixed(0x30),
        // GICR_TYPER: number, affinity and Last.
        (false, 8) => {
            let is_last = vcpu + 1 == count;
            fixed(u32::try_from(vcpu << 8 | u64::from(is_last) << 4).unwrap_or(0))
        }
        (false, 0xC) => fixed(u32::try_from(vcpu).unwrap_or(0)),
        (true, 0x6000..0x8000) => {
            let high = offset & 4 != 0;
            (Word::Fields(Field::Route { high }), (offset - 0x6000) / 8)
        }
        (true, _) => Word::of_many(offset),
        (false, 0x1_0000..) => Word::of_many(inner - 0x1_0000),
        (false, _) => (Word::Reserved, 0),
    };
    let first = u32::try_from(first).unwrap_or(u32::MAX);
    let is_here = match word {
        Word::Fixed(_) | Word::Control | Word::Reserved => true,
        Word::Fields(_) => (first < 32) != is_distributor && first <= LAST,
    };
    Place {
        word: if is_here { word } else { Word::Reserved },
        vcpu,
        first,
    }
}

impl Place {
    /// The clause that says what is there.
    pub(super) fn clause(self) -> Clause {
        self.word.clause()
    }
}

impl Gic {
    pub(super) fn read_word(&self, place: Place) -> u32 {
        let Place { word, vcpu, first } = place;
        match word {
            Word::Fixed(value) => value,
            // GICD_CTLR: DS, ARE, EnableGrp1.
            Word::Control => 1 << 6 | 1 << 4 | u32::from(self.forwards) << 1,
            Word::Reserved => 0,
            Word::Fields(field) => {
                let bits = field.width();
                (0..32 / bits).fold(0, |sum, number| {
                    let interrupt = self.interrupt(name(vcpu, first + number));
                    sum | field.read(interrupt) << (bits * number)
                })
            }
        }
    }

    /// Writes the bits of `mask`.
    pub(super) fn write_word(&mut self, place: Place, value: u32, mask: u32) {
        let Place { word, vcpu, first } = place;
        let new = self.read_word(place) & !mask | value & mask;
        match word {
            Word::Fixed(_) | Word::Reserved => {}
            Word::Control => self.forwards = new >> 1 & 1 == 1,
            Word::Fields(field) => {
                let bits = field.width();
                for number in 0..32 / bits {
                    let is_one = value & mask & 1 << number != 0;
                    self.change(name(vcpu, first + number), |interrupt| {
                        field.write(interrupt, new >> (bits * number), is_one, first < 32);
                    });
                }
            }
        }
    }
}
