//! What a protected guest reads in the ID registers: fixed values, made from the physical ones by a table of ceilings.
//!
//! Default-deny: a register that is not in [`REGISTERS`] reads zero, and so does a field that is not in its row, because
//! the extension behind it traps ([`crate::sysreg`]) or is switched off while a guest runs. A field in the table reads the
//! physical value up to its ceiling. The ceilings follow what pKVM offers to protected VMs, without RAS, `LS64`, `MOPS`,
//! `WFxT`, `XS`, FGT and ECV, whose controls we keep. Fields: Arm ARM DDI 0487 D24.2.59 and following.

use crate::sysreg::SystemRegister;

/// Number of ID registers: `CRm` 0 to 7, op2 0 to 7.
pub const ID_REGISTERS: usize = 64;

/// What core has to know of the processors; they are all alike.
#[derive(Clone, Debug)]
pub struct Processor {
    /// The physical ID registers; the index is [`SystemRegister::id_index`].
    pub id_registers: [u64; ID_REGISTERS],
    /// Number of list registers (`ICH_VTR_EL2.ListRegs` + 1).
    pub list_registers: usize,
}

/// A four-bit field that a guest may see.
struct Field {
    shift: u32,
    /// The largest value that it may see.
    ceiling: u64,
    /// 0xf means that it is not there, and passes.
    signed: bool,
}

/// One register: `CRm`, op2 and the fields that a guest may see.
struct Row {
    crm: u8,
    op2: u8,
    fields: &'static [Field],
}

const fn upto(shift: u32, ceiling: u64) -> Field {
    Field {
        shift,
        ceiling,
        signed: false,
    }
}

const fn all(shift: u32) -> Field {
    upto(shift, 0xf)
}

const fn signed(shift: u32, ceiling: u64) -> Field {
    Field {
        shift,
        ceiling,
        signed: true,
    }
}

/// The table.
const REGISTERS: &[Row] = &[
    // ID_AA64PFR0_EL1: EL0, EL1 (AArch64 only), FP, AdvSIMD, GIC, DIT, CSV2, CSV3.
    Row {
        crm: 4,
        op2: 0,
        fields: &[
            upto(0, 1),
            upto(4, 1),
            signed(16, 1),
            signed(20, 1),
            upto(24, 1),
            upto(48, 1),
            upto(56, 1),
            upto(60, 1),
        ],
    },
    // ID_AA64PFR1_EL1: BT, SSBS.
    Row {
        crm: 4,
        op2: 1,
        fields: &[upto(0, 1), upto(4, 2)],
    },
    // ID_AA64DFR0_EL1: DebugVer (Armv8), DoubleLock. One breakpoint and one watchpoint, which do nothing.
    Row {
        crm: 5,
        op2: 0,
        fields: &[upto(0, 6), all(36)],
    },
    // ID_AA64ISAR0_EL1: all but TME.
    Row {
        crm: 6,
        op2: 0,
        fields: &[
            all(4),
            all(8),
            all(12),
            all(16),
            all(20),
            all(28),
            all(32),
            all(36),
            all(40),
            all(44),
            all(48),
            all(52),
            all(56),
            all(60),
        ],
    },
    // ID_AA64ISAR1_EL1: all but XS and LS64.
    Row {
        crm: 6,
        op2: 1,
        fields: &[
            all(0),
            all(4),
            all(8),
            all(12),
            all(16),
            all(20),
            all(24),
            all(28),
            all(32),
            all(36),
            all(40),
            all(44),
            all(48),
            all(52),
        ],
    },
    // ID_AA64ISAR2_EL1: RPRES, GPA3, APA3, BC, PAC_frac, CLRBHB, CSSC.
    Row {
        crm: 6,
        op2: 2,
        fields: &[
            all(4),
            all(8),
            all(12),
            upto(20, 1),
            upto(24, 1),
            upto(28, 1),
            upto(52, 1),
        ],
    },
    // ID_AA64MMFR0_EL1: PARange (40 bit), ASIDBits, BigEnd, SNSMem, BigEndEL0, TGran16, TGran64, TGran4, ExS.
    Row {
        crm: 7,
        op2: 0,
        fields: &[
            upto(0, 2),
            all(4),
            all(8),
            all(12),
            all(16),
            upto(20, 1),
            signed(24, 0),
            signed(28, 0),
            upto(44, 1),
        ],
    },
    // ID_AA64MMFR1_EL1: HAFDBS (DBM), VMIDBits, HPDS, PAN, SpecSEI, ETS, AFP, nTLBPA, CMOW, ECBHB.
    Row {
        crm: 7,
        op2: 1,
        fields: &[
            upto(0, 2),
            upto(4, 2),
            upto(12, 2),
            upto(20, 3),
            upto(24, 1),
            all(36),
            upto(44, 1),
            upto(48, 1),
            upto(56, 1),
            upto(60, 1),
        ],
    },
    // ID_AA64MMFR2_EL1: CnP, UAO, LSM, IESB, CCIDX, ST, AT, IDS, TTL, BBM, E0PD.
    Row {
        crm: 7,
        op2: 2,
        fields: &[
            upto(0, 1),
            upto(4, 1),
            upto(8, 1),
            upto(12, 1),
            upto(20, 1),
            upto(28, 1),
            upto(32, 1),
            upto(36, 1),
            upto(48, 1),
            upto(52, 2),
            upto(60, 1),
        ],
    },
];

impl Field {
    fn seen(&self, physical: u64) -> u64 {
        let value = physical >> self.shift & 0xf;
        let is_absent = self.signed && value == 0xf && !mutant!(AbsentIsThere);
        let seen = if is_absent || mutant!(NoCeilings) {
            value
        } else {
            value.min(self.ceiling)
        };
        seen << self.shift
    }
}

impl Processor {
    /// What a guest reads in `register`, if that is an ID register at all.
    #[must_use]
    pub fn guest_value(&self, register: SystemRegister) -> Option<u64> {
        let physical = self.id_registers.get(register.id_index()?)?;
        let row = REGISTERS
            .iter()
            .find(|row| row.crm == register.crm && row.op2 == register.op2);
        Some(row.map_or(seeded!(ShowsUnlisted, *physical, 0), |row| {
            row.fields
                .iter()
                .fold(0, |value, field| value | field.seen(*physical))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(crm: u8, op2: u8) -> SystemRegister {
        SystemRegister::new(3, 0, 0, crm, op2)
    }

    fn everything() -> Processor {
        Processor {
            id_registers: [0x7777_7777_7777_7777; ID_REGISTERS],
            list_registers: 4,
        }
    }

    #[test]
    fn what_is_not_in_the_table_reads_zero() {
        for crm in 0..8 {
            for op2 in 0..8 {
                let known = REGISTERS.iter().any(|row| (row.crm, row.op2) == (crm, op2));
                let value = everything().guest_value(id(crm, op2)).unwrap();
                assert_eq!(value != 0, known, "{crm} {op2}");
            }
        }
        assert_eq!(
            everything().guest_value(SystemRegister::new(3, 1, 0, 0, 7)),
            None
        );
    }

    #[test]
    fn hidden_extensions_are_hidden() {
        let pfr0 = everything().guest_value(id(4, 0)).unwrap();
        assert_eq!(pfr0, 0x1101_0000_0111_0011);
        let dfr0 = everything().guest_value(id(5, 0)).unwrap();
        assert_eq!(dfr0 & 0xfff0, 0, "no PMU, no trace");
        assert_eq!(
            everything().guest_value(id(4, 1)).unwrap() >> 8,
            0,
            "no MTE, no SME"
        );
    }

    #[test]
    fn a_granule_that_is_not_there_stays_away() {
        let mut processor = everything();
        processor.id_registers[56] = 0xf << 24 | 1 << 28 | 5;
        let mmfr0 = processor.guest_value(id(7, 0)).unwrap();
        assert_eq!(mmfr0, 0xf << 24 | 2, "no 64 KiB granule, no LPA2, 40 bits");
    }

    #[test]
    fn a_guest_never_sees_more_than_there_is() {
        for seed in [
            0_u64,
            0x1111_1111_1111_1111,
            0x0123_4567_89ab_cdef,
            0xfedc_ba98_7654_3210,
            u64::MAX,
        ] {
            let processor = Processor {
                id_registers: [seed; ID_REGISTERS],
                list_registers: 4,
            };
            for row in REGISTERS {
                let value = processor.guest_value(id(row.crm, row.op2)).unwrap();
                for shift in (0..64).step_by(4) {
                    assert!(value >> shift & 0xf <= seed >> shift & 0xf);
                }
            }
        }
    }
}
