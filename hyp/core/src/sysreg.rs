//! System registers that trap, and what becomes of a guest's access.
//!
//! [`RegisterAccess::answer`] is the whole policy: a short list of registers that a Linux 6.12 guest touches although it
//! was told that they do nothing, the ID registers, and the SGI registers. Everything else is undefined for the guest, so
//! an extension nobody thought of is not there.
//!
//! Encodings: Arm ARM DDI 0487 C5.3, "op0, op1, `CRn`, `CRm`, op2".

use crate::exit::RegisterAccess;
use crate::id_registers::Processor;

/// A system register or system instruction, by its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemRegister {
    /// op0: 1 = instruction, 2 = debug, 3 = register.
    pub op0: u8,
    /// op1.
    pub op1: u8,
    /// `CRn`.
    pub crn: u8,
    /// `CRm`.
    pub crm: u8,
    /// op2.
    pub op2: u8,
}

/// What becomes of a trapped access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read returns this; a write is ignored.
    Value(u64),
    /// A write sends software interrupts.
    SendSgi,
    /// There is no such register.
    Undefined,
}

/// `OSLSR_EL1`: an OS lock is implemented (`OSLM` = 0b10), and open (DDI 0487 D24.3.29).
const OS_LOCK_OPEN: u64 = 1 << 3;
/// `ICC_SRE_EL1`: system registers, no bypass (IHI 0069 12.2.24).
const ICC_SRE: u64 = 7;

impl SystemRegister {
    /// The register with this encoding.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self {
            op0,
            op1,
            crn,
            crm,
            op2,
        }
    }

    /// Index into a table of the ID register space (op0 3, op1 0, `CRn` 0), `CRm` * 8 + op2.
    #[must_use]
    pub fn id_index(self) -> Option<usize> {
        (self.op0 == 3 && self.op1 == 0 && self.crn == 0 && self.crm < 8 && self.op2 < 8)
            .then(|| usize::from(self.crm) * 8 + usize::from(self.op2))
    }

    fn encoding(self) -> (u8, u8, u8, u8, u8) {
        (self.op0, self.op1, self.crn, self.crm, self.op2)
    }
}

impl RegisterAccess {
    /// What becomes of this access on `processor`.
    #[must_use]
    pub fn answer(self, processor: &Processor) -> Answer {
        match self.register.encoding() {
            (3, 0, 0, _, _) if self.read => processor
                .guest_value(self.register)
                .map_or(Answer::Undefined, Answer::Value),
            // AIDR_EL1.
            (3, 1, 0, 0, 7) if self.read => Answer::Value(0),
            (2, 0, 1, 1, 4) if self.read => Answer::Value(seeded!(NoOsLock, 0, OS_LOCK_OPEN)),
            (3, 0, 1, 0, 1) if mutant!(NoActlr) => Answer::Undefined,
            // Self-hosted debug: MDSCR_EL1, the breakpoints and watchpoints, the OS lock, the claim tags; and the debug
            // communication channel (op1 3).
            // ACTLR_EL1.
            (2, 0 | 3, 0 | 1 | 7, _, _) | (3, 0, 1, 0, 1) => Answer::Value(0),
            (3, 0, 12, 12, 5) => Answer::Value(seeded!(ShowsBypass, 1, ICC_SRE)),
            (3, 0, 12, 11, 5) if !self.read => seeded!(NoSgis, Answer::Undefined, Answer::SendSgi),
            // ICC_ASGI1R_EL1, ICC_SGI0R_EL1: no other security state, no Group 0.
            (3, 0, 12, 11, 6 | 7) if !self.read => {
                seeded!(SendsForOthers, Answer::Undefined, Answer::Value(0))
            }
            _ => seeded!(UnknownIsZero, Answer::Value(0), Answer::Undefined),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_registers::ID_REGISTERS;

    fn answer(register: SystemRegister, read: bool) -> Answer {
        let processor = Processor {
            id_registers: [0; ID_REGISTERS],
            list_registers: 4,
        };
        RegisterAccess {
            register,
            transfer: 0,
            read,
        }
        .answer(&processor)
    }

    #[test]
    fn debug_registers_do_nothing() {
        let mdscr = SystemRegister::new(2, 0, 0, 2, 2);
        assert_eq!(
            (answer(mdscr, true), answer(mdscr, false)),
            (Answer::Value(0), Answer::Value(0))
        );
        assert_eq!(
            answer(SystemRegister::new(2, 0, 1, 1, 4), true),
            Answer::Value(8)
        );
        assert_eq!(
            answer(SystemRegister::new(2, 0, 1, 0, 4), false),
            Answer::Value(0)
        );
        assert_eq!(
            answer(SystemRegister::new(2, 1, 0, 1, 0), true),
            Answer::Undefined,
            "trace"
        );
    }

    #[test]
    fn unknown_registers_are_undefined() {
        let undefined = [
            (3, 0, 0, 4, 0, false), // an ID register is not written
            (3, 3, 9, 12, 0, true), // PMCR_EL0
            (3, 3, 14, 2, 1, true), // CNTP_CTL_EL0
            (3, 0, 1, 2, 0, true),  // ZCR_EL1
            (3, 0, 2, 0, 3, true),  // TCR2_EL1
            (3, 0, 5, 3, 0, true),  // ERRIDR_EL1
            (3, 0, 11, 0, 0, true), // implementation defined
            (1, 0, 7, 6, 2, false), // DC ISW
        ];
        for (op0, op1, crn, crm, op2, read) in undefined {
            assert_eq!(
                answer(SystemRegister::new(op0, op1, crn, crm, op2), read),
                Answer::Undefined
            );
        }
    }

    #[test]
    fn every_encoding_has_an_answer() {
        for raw in 0..=u16::MAX {
            let part =
                |low: u16, width: u16| u8::try_from(raw >> low & ((1 << width) - 1)).unwrap();
            let register =
                SystemRegister::new(part(14, 2), part(11, 3), part(7, 4), part(3, 4), part(0, 3));
            if answer(register, false) == Answer::SendSgi {
                assert_eq!(register, SystemRegister::new(3, 0, 12, 11, 5));
            }
            assert_ne!(answer(register, true), Answer::SendSgi);
        }
    }
}
