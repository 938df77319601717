//! Why a guest stopped: the exception that came to EL2, decoded.
//!
//! [`Exit`] is the only thing that the rest of the core learns about an exception: an emulator gets an
//! [`Access`], never an ESR. Decoding is total: every 64-bit syndrome gives one `Exit`, and a class that a
//! protected guest cannot raise under our trap settings becomes [`Exit::Unexpected`].
//!
//! Encodings: Arm ARM DDI 0487 D24.2.37 (`ESR_EL2`), D24.2.56 (`HPFAR_EL2`).

use crate::sysreg::SystemRegister;

/// INTID of the virtual timer's PPI (Arm BSA, "PPI assignments"; IHI 0069 2.2).
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// INTID of the GIC's maintenance PPI (Arm BSA, "PPI assignments").
pub const MAINTENANCE_INTID: u32 = 25;

/// The exception as the processor reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syndrome {
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`.
    pub far: u64,
    /// `HPFAR_EL2`.
    pub hpfar: u64,
}

/// What stopped a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt that is the host's.
    Interrupt,
    /// The virtual timer's interrupt fired (PPI 27).
    Timer,
    /// The list registers want attention (PPI 25).
    Maintenance,
    /// A physical `SError`; the value is the ESR without operands.
    SystemError(u64),
    /// The guest waits: `WFI` or `WFIT`.
    WaitForInterrupt,
    /// The guest waits: `WFE` or `WFET`.
    WaitForEvent,
    /// `HVC` or `SMC`.
    Call(Conduit),
    /// First use of FP/SIMD since the guest was loaded.
    FloatingPoint,
    /// A trapped `MSR`, `MRS` or system instruction.
    SystemRegister(RegisterAccess),
    /// A load or store that stage 2 stopped.
    DataAbort(DataAbort),
    /// An instruction fetch that stage 2 stopped.
    InstructionAbort(Fault),
    /// An instruction that protected guests do not have: SVE, SME, pointer authentication that is hidden, `LD64B`, `ERET` under NV, `MOPS` out of order.
    Undefined,
    /// A class that cannot come from a protected guest (`AArch32`, same-EL classes, illegal state): the vCPU crashed. The value is the ESR
    /// without operands.
    Unexpected(u64),
}

/// How the guest called, and so where its PC stands: after an `HVC`, on an `SMC` (DDI 0487 D1.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `HVC #immediate`.
    Hvc(u16),
    /// `SMC #immediate`.
    Smc(u16),
}

/// A trapped system register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterAccess {
    /// The register.
    pub register: SystemRegister,
    /// Number of the general register, 31 = XZR.
    pub transfer: u8,
    /// `MRS` rather than `MSR`.
    pub read: bool,
}

/// Kinds of abort that stage 2 makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is mapped there, or the address is beyond the IPA space.
    Translation,
    /// Something is mapped, without the access that was tried.
    Permission,
    /// A synchronous external abort: the machine said no.
    External,
    /// Anything else (alignment, TLB conflict, unsupported atomic).
    Other,
}

/// Where and how a stage-2 abort happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Intermediate physical address (of the page only when `table_walk`).
    pub ipa: u64,
    /// The guest's own address.
    pub address: u64,
    /// The kind of abort.
    pub kind: FaultKind,
    /// The access was the walk of the guest's own stage-1 tables.
    pub table_walk: bool,
}

/// A data abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    /// Where and how.
    pub fault: Fault,
    /// A store (or a cache maintenance instruction).
    pub write: bool,
    /// A cache maintenance instruction by address.
    pub cache_maintenance: bool,
    /// The load or store, when the syndrome describes it (`ISV`).
    pub access: Option<Access>,
}

/// A load or store of one general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// First byte.
    pub ipa: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u8,
    /// A store.
    pub write: bool,
    /// Number of the general register, 31 = XZR.
    pub register: u8,
    /// A load extends the sign.
    pub sign_extend: bool,
    /// A load fills 64 bits rather than 32.
    pub wide: bool,
}

/// Exception classes that we tell apart (DDI 0487 D24.2.37, table of EC values).
mod class {
    pub(super) const WF: u64 = 0x01;
    pub(super) const FP: u64 = 0x07;
    pub(super) const PAUTH: u64 = 0x09;
    pub(super) const LS64: u64 = 0x0a;
    pub(super) const HVC64: u64 = 0x16;
    pub(super) const SMC64: u64 = 0x17;
    pub(super) const SYS64: u64 = 0x18;
    pub(super) const SVE: u64 = 0x19;
    pub(super) const ERET: u64 = 0x1a;
    pub(super) const SME: u64 = 0x1d;
    pub(super) const INSTRUCTION_ABORT: u64 = 0x20;
    pub(super) const DATA_ABORT: u64 = 0x24;
    pub(super) const MOPS: u64 = 0x27;
}

impl Syndrome {
    /// Exception class.
    fn class(self) -> u64 {
        field(self.esr, 26, 6)
    }

    /// The ESR without anything that names a register or its content: what a host may see of a crash.
    #[must_use]
    pub fn without_operands(self) -> u64 {
        self.esr & 0xfc00_0000
    }
}

impl Exit {
    /// Decodes a synchronous exception.
    #[must_use]
    pub fn decode(syndrome: Syndrome) -> Self {
        let iss = syndrome.esr;
        match syndrome.class() {
            class::WF if iss & 1 == 0 => Self::WaitForInterrupt,
            class::WF => Self::WaitForEvent,
            class::FP => Self::FloatingPoint,
            class::HVC64 => Self::Call(Conduit::Hvc(half(iss))),
            class::SMC64 => Self::Call(Conduit::Smc(half(iss))),
            class::SYS64 => Self::SystemRegister(RegisterAccess::decode(iss)),
            class::DATA_ABORT => Self::DataAbort(DataAbort::decode(syndrome)),
            class::INSTRUCTION_ABORT => Self::InstructionAbort(Fault::decode(syndrome)),
            class::PAUTH | class::LS64 | class::SVE | class::ERET | class::SME | class::MOPS => {
                Self::Undefined
            }
            _ => Self::Unexpected(syndrome.without_operands()),
        }
    }

    /// Names the exit through vector `vector` of the four for a lower level: synchronous, IRQ, FIQ, `SError`. The next four are for an
    /// EL1 in `AArch32` (DDI 0487 D1.3.1.5), which nobody has; EL0 in `AArch32` comes through the first four. `pending` asks for the INTID of the highest pending interrupt.
    #[must_use]
    pub fn of_vector(vector: u64, syndrome: Syndrome, pending: impl FnOnce() -> u32) -> Self {
        match vector {
            0 => Self::decode(syndrome),
            1 => Self::interrupt(pending()),
            2 => Self::Interrupt,
            3 => Self::SystemError(syndrome.without_operands()),
            _ => Self::Unexpected(syndrome.without_operands()),
        }
    }

    /// Names the exit that a physical interrupt makes, by the INTID of the highest pending one.
    #[must_use]
    pub fn interrupt(intid: u32) -> Self {
        match intid {
            VIRTUAL_TIMER_INTID => Self::Timer,
            MAINTENANCE_INTID => Self::Maintenance,
            _ => Self::Interrupt,
        }
    }
}

impl RegisterAccess {
    fn decode(iss: u64) -> Self {
        Self {
            register: SystemRegister::new(
                byte(iss, 20, 2),
                byte(iss, 14, 3),
                byte(iss, 10, 4),
                byte(iss, 1, 4),
                byte(iss, 17, 3),
            ),
            transfer: byte(iss, 5, 5),
            read: iss & 1 == 1,
        }
    }
}

impl Fault {
    fn decode(syndrome: Syndrome) -> Self {
        let table_walk = field(syndrome.esr, 7, 1) == 1;
        let page = field(syndrome.hpfar, 4, 44) << 12;
        let offset = if table_walk {
            0
        } else {
            field(syndrome.far, 0, 12)
        };
        let kind = match field(syndrome.esr, 0, 6) {
            // Address size and translation, levels 0 to 3, then both at level -1.
            0b00_0000..=0b00_0111 | 0b10_1001 | 0b10_1011 => FaultKind::Translation,
            0b00_1100..=0b00_1111 => FaultKind::Permission,
            0b01_0000 | 0b01_0010..=0b01_0111 => FaultKind::External,
            _ => FaultKind::Other,
        };
        Self {
            ipa: page | offset,
            address: syndrome.far,
            kind,
            table_walk,
        }
    }
}

impl DataAbort {
    fn decode(syndrome: Syndrome) -> Self {
        let iss = syndrome.esr;
        let fault = Fault::decode(syndrome);
        let write = field(iss, 6, 1) == 1;
        let described = field(iss, 24, 1) == 1 && !fault.table_walk;
        let access = described.then(|| Access {
            ipa: fault.ipa,
            width: 1 << field(iss, 22, 2),
            write,
            register: byte(iss, 16, 5),
            sign_extend: field(iss, 21, 1) == 1,
            wide: field(iss, 15, 1) == 1,
        });
        Self {
            fault,
            write,
            cache_maintenance: field(iss, 8, 1) == 1,
            access,
        }
    }
}

impl Access {
    /// The bits that the access moves.
    #[must_use]
    pub fn mask(self) -> u64 {
        match self.width {
            1 => 0xff,
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }

    /// What the register holds after a load of `value`.
    #[must_use]
    pub fn extend(self, value: u64) -> u64 {
        let value = value & self.mask();
        let sign = (self.mask() >> 1) + 1;
        let extended = if self.sign_extend && value & sign != 0 {
            value | !self.mask()
        } else {
            value
        };
        if self.wide {
            extended
        } else {
            extended & 0xffff_ffff
        }
    }
}

/// `width` bits of `value` from bit `low`.
pub(crate) fn field(value: u64, low: u32, width: u32) -> u64 {
    (value >> low) & ((1 << width) - 1)
}

/// At most eight bits of `value` from bit `low`.
fn byte(value: u64, low: u32, width: u32) -> u8 {
    let [byte, ..] = field(value, low, width).to_le_bytes();
    byte
}

/// The low sixteen bits.
fn half(value: u64) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syndrome(class: u64, iss: u64) -> Syndrome {
        Syndrome {
            esr: class << 26 | iss,
            far: 0xffff_8000_1234_5678,
            hpfar: 0x9000,
        }
    }

    #[test]
    fn a_store_is_described_whole() {
        // ISV, 32 bits, register 3, write, translation fault at level 3.
        let Exit::DataAbort(abort) =
            Exit::decode(syndrome(0x24, 1 << 24 | 2 << 22 | 3 << 16 | 1 << 6 | 7))
        else {
            panic!("not a data abort");
        };
        assert_eq!(
            abort.fault,
            Fault {
                ipa: 0x90_0678,
                address: 0xffff_8000_1234_5678,
                kind: FaultKind::Translation,
                table_walk: false
            }
        );
        let access = abort.access.unwrap();
        assert_eq!(
            (access.ipa, access.width, access.write, access.register),
            (0x90_0678, 4, true, 3)
        );
    }

    #[test]
    fn a_table_walk_has_no_access_and_no_offset() {
        let Exit::DataAbort(abort) = Exit::decode(syndrome(0x24, 1 << 24 | 1 << 7 | 6)) else {
            panic!("not a data abort");
        };
        assert_eq!((abort.access, abort.fault.ipa), (None, 0x90_0000));
    }

    #[test]
    fn a_register_access_names_the_register() {
        // MRS x5, ICC_SRE_EL1 (3,0,12,12,5).
        let iss = 3 << 20 | 5 << 17 | 12 << 10 | 5 << 5 | 12 << 1 | 1;
        let expected = RegisterAccess {
            register: SystemRegister::new(3, 0, 12, 12, 5),
            transfer: 5,
            read: true,
        };
        assert_eq!(
            Exit::decode(syndrome(0x18, iss)),
            Exit::SystemRegister(expected)
        );
    }

    #[test]
    fn every_class_decodes() {
        for class in 0..64 {
            for iss in [0, 1, 0x1ff_ffff, 0xaa_aaaa, 0x155_5555] {
                let exit = Exit::decode(syndrome(class, iss));
                if class == 0 || class > 0x27 {
                    assert!(matches!(exit, Exit::Unexpected(_)));
                }
            }
        }
        assert_eq!(Exit::decode(syndrome(0x16, 7)), Exit::Call(Conduit::Hvc(7)));
        assert_eq!(Exit::decode(syndrome(0x17, 0)), Exit::Call(Conduit::Smc(0)));
        assert_eq!(Exit::decode(syndrome(0x01, 2)), Exit::WaitForInterrupt);
        assert_eq!(Exit::decode(syndrome(0x01, 3)), Exit::WaitForEvent);
        assert_eq!(Exit::decode(syndrome(0x19, 0)), Exit::Undefined);
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        let load = |width, sign_extend, wide| Access {
            ipa: 0,
            width,
            write: false,
            register: 0,
            sign_extend,
            wide,
        };
        assert_eq!(load(1, true, true).extend(0x1ff), u64::MAX);
        assert_eq!(load(1, true, false).extend(0x80), 0xffff_ff80);
        assert_eq!(load(2, false, true).extend(0xf_8000), 0x8000);
        assert_eq!(
            load(4, true, true).extend(0x8000_0000),
            0xffff_ffff_8000_0000
        );
        assert_eq!(load(8, false, true).extend(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_crash_shows_no_operand() {
        assert_eq!(syndrome(0x24, 0x1ff_ffff).without_operands(), 0x24 << 26);
    }
}
