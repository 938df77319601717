//! The registers of the distributor and the redistributors, a 32-bit word at a time.
//!
//! An access of another width is made of words: bytes of a write that are not there leave a field as it is, and are
//! zero for the write-one registers. What is not listed reads as zero and ignores writes (IHI 0069 12.8 to 12.11).

use super::bank::{Bank, NOBODY};
use super::{Frame, ROOM_SPIS, SHARED_BANKS, Vgic};
use crate::exit::{Access, VIRTUAL_TIMER_INTID};

/// `GICD_CTLR`: one security state, affinity routing.
const DS_AND_ARE: u32 = 1 << 6 | 1 << 4;
/// `GICD_CTLR.EnableGrp1` with one security state.
const ENABLE_GROUP_1: u32 = 1 << 1;
/// `GICD_TYPER`: ten INTID bits (`IDbits` = 9), no extended range, no LPIs, no MBIS, no 1-of-N (`No1N`).
const TYPER: u32 = 1 << 25 | 9 << 19 | 8;
/// `GICD_IIDR` and `GICR_IIDR`: implementer Arm (JEP106 0x43b), product 'P'.
const IIDR: u32 = 0x5000_043b;
/// `GICD_PIDR2` and `GICR_PIDR2`: architecture revision 3.
const PIDR2: u32 = 0x30;
const PIDR2_OFFSET: u64 = 0xffe8;
const _: () = assert!(ROOM_SPIS == 8 * 32, "GICD_TYPER.ITLinesNumber says 8");

/// What a write to the controller asks of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// vCPUs other than the writer that have to look at their interrupts, one bit each.
    pub kick: u64,
}

/// The registers that exist once for thirty-two interrupts, per bank (IHI 0069 table 12-25).
#[derive(Clone, Copy)]
enum Register {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    /// Four priorities, from interrupt `4 * n` of the bank.
    Priority(usize),
    /// Sixteen triggers, from interrupt `16 * n` of the bank.
    Trigger(u32),
}

impl Register {
    /// The register and the bank that `offset` names; the offsets are those of `GICD` and of `SGI_base`.
    fn at(offset: u64) -> Option<(usize, Self)> {
        let index = |base: u64| usize::try_from((offset - base) / 4).ok();
        let whole = |base, register| Some((index(base)?, register));
        match offset {
            0x080..0x100 => whole(0x080, Self::Group),
            0x100..0x180 => whole(0x100, Self::SetEnable),
            0x180..0x200 => whole(0x180, Self::ClearEnable),
            0x200..0x280 => whole(0x200, Self::SetPending),
            0x280..0x300 => whole(0x280, Self::ClearPending),
            0x300..0x380 => whole(0x300, Self::SetActive),
            0x380..0x400 => whole(0x380, Self::ClearActive),
            0x400..0x800 => index(0x400).map(|n| (n / 8, Self::Priority(n % 8))),
            0xc00..0xd00 => {
                index(0xc00).map(|n| (n / 2, Self::Trigger(if n % 2 == 0 { 0 } else { 16 })))
            }
            _ => None,
        }
    }

    fn read(self, bank: &Bank) -> u32 {
        match self {
            Self::Group => seeded!(GroupZero, 0, u32::MAX),
            Self::SetEnable | Self::ClearEnable => bank.enabled,
            Self::SetPending | Self::ClearPending => bank.pending(),
            Self::SetActive | Self::ClearActive => bank.active,
            Self::Priority(n) => priorities(bank, n).map_or(0, |bytes| u32::from_le_bytes(*bytes)),
            Self::Trigger(first) => (0..16).fold(0, |word, n| {
                let edge = !bank.level >> (first + n) & 1;
                word | edge << (2 * n + 1)
            }),
        }
    }

    /// Writes to `bank`; `fixed` are the interrupts whose trigger cannot be changed.
    fn write(self, bank: &mut Bank, word: Word, fixed: u32) {
        let ones = word.value & word.mask;
        match self {
            Self::Group => {}
            Self::SetEnable => bank.enabled |= ones,
            Self::ClearEnable => bank.enabled &= !seeded!(StaysEnabled, 0, ones),
            Self::SetPending => bank.latch |= ones,
            Self::ClearPending => bank.latch &= !seeded!(StaysPending, 0, ones),
            Self::SetActive => bank.active |= ones,
            Self::ClearActive => bank.clear_active(seeded!(StaysActive, 0, ones)),
            Self::Priority(n) => {
                let Some(bytes) = bank.priority.as_chunks_mut::<4>().0.get_mut(n) else {
                    return;
                };
                let new = word.over(u32::from_le_bytes(*bytes)).to_le_bytes();
                *bytes = seeded!(PriorityStays, *bytes, new);
            }
            Self::Trigger(first) => {
                let wanted = word.over(self.read(bank));
                let edges =
                    (0..16).fold(0, |all, n| all | (wanted >> (2 * n + 1) & 1) << (first + n));
                let changed = seeded!(TriggerStays, 0, (0xffff << first) & !fixed);
                bank.level = bank.level & !changed | !edges & changed;
            }
        }
    }
}

impl Bank {
    /// Ends the interrupts in `bits`, wherever they were active.
    fn clear_active(&mut self, bits: u32) {
        self.active &= !bits;
        for bit in super::bits(bits) {
            if let Some(holder) = usize::try_from(bit)
                .ok()
                .and_then(|number| self.holder.get_mut(number))
            {
                *holder = NOBODY;
            }
        }
    }
}

fn priorities(bank: &Bank, n: usize) -> Option<&[u8; 4]> {
    bank.priority.as_chunks::<4>().0.get(n)
}

/// A word that is written, and which bits of it are.
#[derive(Clone, Copy)]
struct Word {
    value: u32,
    mask: u32,
}

impl Word {
    /// The word after the write, where `old` was.
    fn over(self, old: u32) -> u32 {
        old & !self.mask | self.value & self.mask
    }
}

impl Vgic {
    /// Reads a register. The reader's list registers must be drained.
    #[must_use]
    pub fn read(&self, frame: Frame, access: Access) -> u64 {
        let aligned = offset_of(frame) & !3;
        let shift = 8 * (offset_of(frame) & 3);
        let low = u64::from(self.read_word(at(frame, aligned)));
        let high = if access.width == 8 {
            u64::from(self.read_word(at(frame, aligned + 4)))
        } else {
            0
        };
        (low | high << 32) >> shift & access.mask()
    }

    /// Writes a register for `writer`, whose list registers must be drained.
    pub fn write(&mut self, writer: u8, frame: Frame, access: Access, value: u64) -> Written {
        let aligned = offset_of(frame) & !3;
        let shift = 8 * (offset_of(frame) & 3);
        let value = (value & access.mask()) << shift;
        let mask = access.mask() << shift;
        let mut kick = self.write_word(
            at(frame, aligned),
            Word {
                value: low(value),
                mask: low(mask),
            },
        );
        if access.width == 8 {
            kick |= self.write_word(
                at(frame, aligned + 4),
                Word {
                    value: high(value),
                    mask: high(mask),
                },
            );
        }
        Written {
            kick: seeded!(WritesKickNobody, 0, kick & !(1 << writer)),
        }
    }

    fn read_word(&self, frame: Frame) -> u32 {
        match frame {
            Frame::Distributor(offset) => self.read_distributor(offset),
            Frame::Redistributor(vcpu, offset @ 0..0x1_0000) => {
                self.read_redistributor(vcpu, offset)
            }
            Frame::Redistributor(vcpu, offset) => {
                let found = Register::at(offset - 0x1_0000).filter(|(bank, _)| *bank == 0);
                found
                    .zip(self.private.get(usize::from(vcpu)))
                    .map_or(0, |((_, register), bank)| register.read(bank))
            }
        }
    }

    fn read_distributor(&self, offset: u64) -> u32 {
        match offset {
            0x0 => DS_AND_ARE | if self.forwards { ENABLE_GROUP_1 } else { 0 },
            0x4 => seeded!(PromisesSpis, TYPER + 1, TYPER),
            0x8 => IIDR,
            PIDR2_OFFSET => PIDR2,
            0x6000..0x8000 => {
                self.router(offset).map_or(
                    0,
                    |(router, upper)| if upper { high(*router) } else { low(*router) },
                )
            }
            _ => {
                let found = Register::at(offset).and_then(|(n, register)| {
                    Some((self.shared.get(n.checked_sub(1)?)?, register))
                });
                found.map_or(0, |(bank, register)| register.read(bank))
            }
        }
    }

    fn read_redistributor(&self, vcpu: u8, offset: u64) -> u32 {
        let last = usize::from(vcpu) + 1 == self.count;
        match offset {
            0x4 => IIDR,
            // `GICR_TYPER`: Processor_Number and Last; then the affinity.
            0x8 => u32::from(vcpu) << 8 | u32::from(last) << 4,
            0xc => u32::from(vcpu),
            PIDR2_OFFSET => PIDR2,
            _ => seeded!(ReservedShows, IIDR, 0),
        }
    }

    /// Writes one word and returns the vCPUs that have to look.
    fn write_word(&mut self, frame: Frame, word: Word) -> u64 {
        match frame {
            Frame::Distributor(0) => self.write_control(word),
            Frame::Distributor(offset @ 0x6000..0x8000) => self.write_router(offset, word),
            Frame::Distributor(offset) => {
                let Some((n, register)) = Register::at(offset) else {
                    return 0;
                };
                let Some(shared) = n.checked_sub(1) else {
                    return 0;
                };
                let Some(bank) = self.shared.get_mut(shared) else {
                    return 0;
                };
                register.write(bank, word, 0);
                self.destinations(shared)
            }
            Frame::Redistributor(vcpu, offset @ 0x1_0000..) => {
                let Some((0, register)) = Register::at(offset - 0x1_0000) else {
                    return 0;
                };
                let Some(bank) = self.private.get_mut(usize::from(vcpu)) else {
                    return 0;
                };
                register.write(bank, word, u32::MAX);
                // The line of the timer is what the hardware said, and nobody's to change.
                debug_assert!(bank.level >> VIRTUAL_TIMER_INTID & 1 == 1);
                self.waiting() & 1 << vcpu
            }
            Frame::Redistributor(..) => 0,
        }
    }

    fn write_control(&mut self, word: Word) -> u64 {
        let old = if self.forwards { ENABLE_GROUP_1 } else { 0 };
        let forwards = word.over(old) & ENABLE_GROUP_1 != 0 || mutant!(AlwaysForwards);
        let newly = forwards && !self.forwards;
        self.forwards = forwards;
        if newly { self.waiting() } else { 0 }
    }

    fn write_router(&mut self, offset: u64, word: Word) -> u64 {
        /// `Interrupt_Routing_Mode` and the affinity fields.
        const FIELDS: u64 = 0xff_80ff_ffff;
        let Some((shared, number)) = router_index(offset) else {
            return 0;
        };
        let Some(router) = self
            .shared
            .get_mut(shared)
            .and_then(|bank| bank.router.get_mut(number))
        else {
            return 0;
        };
        let (new_low, new_high) = if offset & 4 == 0 {
            (word.over(low(*router)), high(*router))
        } else {
            (low(*router), word.over(high(*router)))
        };
        *router =
            (u64::from(new_low) | u64::from(new_high) << 32) & seeded!(CutsRoute, 0xff, FIELDS);
        self.destinations(shared)
    }

    fn router(&self, offset: u64) -> Option<(&u64, bool)> {
        let (shared, number) = router_index(offset)?;
        Some((
            self.shared.get(shared)?.router.get(number)?,
            offset & 4 != 0,
        ))
    }
}

/// Shared bank and number in it that `GICD_IROUTER<n>` at `offset` is for.
fn router_index(offset: u64) -> Option<(usize, usize)> {
    let spi = usize::try_from((offset - 0x6000) / 8)
        .ok()?
        .checked_sub(32)?;
    (spi / 32 < SHARED_BANKS).then_some((spi / 32, spi % 32))
}

fn offset_of(frame: Frame) -> u64 {
    match frame {
        Frame::Distributor(offset) | Frame::Redistributor(_, offset) => offset,
    }
}

fn at(frame: Frame, offset: u64) -> Frame {
    match frame {
        Frame::Distributor(_) => Frame::Distributor(offset),
        Frame::Redistributor(vcpu, _) => Frame::Redistributor(vcpu, offset),
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}
