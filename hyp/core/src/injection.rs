//! Exceptions that EL2 makes a guest take: undefined instructions and external aborts.
//!
//! [`Injection`] says what the guest finds in its syndrome registers; [`ExceptionEntry`] does to PC and PSTATE what the
//! architecture does on an exception from EL0 or EL1 to EL1 (DDI 0487 D1.3.1 and D1.3.2). Both are pure.

use crate::exit::Fault;

/// An exception that the guest takes before its next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// `ESR_EL1`.
    pub esr: u64,
    /// `FAR_EL1`, where the exception has one.
    pub far: Option<u64>,
}

/// `ESR_ELx.IL`: the instruction has 32 bits.
const LONG: u64 = 1 << 25;
/// Fault status of a synchronous external abort that is not on a table walk.
const EXTERNAL: u64 = 0b01_0000;
/// Exception classes for aborts from EL0 (DDI 0487 D24.2.37); from EL1 itself they are one more.
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;

/// PSTATE as SPSR holds it (DDI 0487 C5.2.19).
mod pstate {
    pub(super) const MODE: u64 = 0xf;
    pub(super) const EL0T: u64 = 0b0000;
    pub(super) const EL1T: u64 = 0b0100;
    pub(super) const EL1H: u64 = 0b0101;
    pub(super) const DAIF: u64 = 0xf << 6;
    pub(super) const SSBS: u64 = 1 << 12;
    pub(super) const PAN: u64 = 1 << 22;
    pub(super) const DIT: u64 = 1 << 24;
    pub(super) const TCO: u64 = 1 << 25;
    pub(super) const NZCV: u64 = 0xf << 28;
}

/// `SCTLR_EL1.SPAN`: PSTATE.PAN is left alone.
const SPAN: u64 = 1 << 23;
/// `SCTLR_EL1.DSSBS`: PSTATE.SSBS after an exception.
const DSSBS: u64 = 1 << 44;

impl Injection {
    /// An instruction that is not there.
    #[must_use]
    pub fn undefined() -> Self {
        Self {
            esr: LONG,
            far: None,
        }
    }

    /// The machine did not answer a load or store of a guest in `pstate`.
    #[must_use]
    pub fn data_abort(pstate: u64, fault: Fault) -> Self {
        Self::external(DATA_ABORT, pstate, fault)
    }

    /// The machine did not answer an instruction fetch of a guest in `pstate`.
    #[must_use]
    pub fn instruction_abort(pstate: u64, fault: Fault) -> Self {
        let class = seeded!(AbortsAsData, DATA_ABORT, INSTRUCTION_ABORT);
        Self::external(class, pstate, fault)
    }

    fn external(class: u64, pstate: u64, fault: Fault) -> Self {
        let same_level = u64::from(pstate & pstate::MODE != pstate::EL0T);
        Self {
            esr: (class + same_level) << 26 | LONG | EXTERNAL,
            far: Some(fault.address),
        }
    }
}

/// The state of a guest at the first instruction of its exception vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionEntry {
    /// PC.
    pub pc: u64,
    /// PSTATE.
    pub pstate: u64,
}

impl ExceptionEntry {
    /// A synchronous exception to EL1, from `pstate`, with these `VBAR_EL1` and `SCTLR_EL1`.
    #[must_use]
    pub fn synchronous(pstate: u64, vbar: u64, sctlr: u64) -> Self {
        let offset = match pstate & pstate::MODE {
            pstate::EL1T => 0x000,
            pstate::EL1H => 0x200,
            _ => 0x400,
        };
        let kept = pstate & (pstate::NZCV | pstate::DIT | pstate::TCO | pstate::PAN);
        let pan = if sctlr & SPAN == 0 { pstate::PAN } else { 0 };
        let ssbs = if sctlr & DSSBS == 0 { 0 } else { pstate::SSBS };
        Self {
            pc: vbar.wrapping_add(offset),
            pstate: kept | pan | ssbs | pstate::DAIF | pstate::EL1H,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::FaultKind;

    #[test]
    fn the_vector_depends_on_where_it_came_from() {
        let pc = |mode| ExceptionEntry::synchronous(mode, 0x1000, SPAN).pc;
        assert_eq!(
            (pc(0b0000), pc(0b0100), pc(0b0101)),
            (0x1400, 0x1000, 0x1200)
        );
    }

    #[test]
    fn pstate_is_masked_and_keeps_what_it_must() {
        let entry =
            ExceptionEntry::synchronous(0xf << 28 | 1 << 20 | 1 << 21 | 0b10 << 10, 0, SPAN);
        assert_eq!(
            entry.pstate,
            0xf << 28 | 0x3c5,
            "flags stay; IL, SS and BTYPE go"
        );
        let entry = ExceptionEntry::synchronous(0, 0, DSSBS);
        assert_eq!(entry.pstate, 1 << 22 | 1 << 12 | 0x3c5);
    }

    #[test]
    fn an_abort_says_from_which_level() {
        let fault = Fault {
            ipa: 0,
            address: 0x1234,
            kind: FaultKind::Other,
            table_walk: false,
        };
        assert_eq!(Injection::data_abort(0b0000, fault).esr >> 26, 0x24);
        assert_eq!(Injection::data_abort(0b0101, fault).esr >> 26, 0x25);
        assert_eq!(
            Injection::instruction_abort(0b0101, fault),
            Injection {
                esr: 0x21 << 26 | LONG | 0x10,
                far: Some(0x1234)
            }
        );
        assert_eq!(
            Injection::undefined(),
            Injection {
                esr: LONG,
                far: None
            }
        );
    }
}
