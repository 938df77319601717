//! Names of system registers, as a trap reports them.
//!
//! Encodings: Arm ARM DDI 0487 C5.3, "op0, op1, `CRn`, `CRm`, op2".

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
}
