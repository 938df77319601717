//! ESR_EL2 in words, for the panic (DDI 0487, D24.2.37).

/// What the vector with this number is for.
pub(crate) fn kind(vector: u64, esr: u64) -> &'static str {
    match (vector & 3, vector >> 2) {
        (0, 0 | 1) => class(esr),
        (0, _) => "a synchronous exception from AArch32",
        (1, 0 | 1) => "an IRQ while masked",
        (1, _) => "an IRQ from the host, which takes its own",
        (2, 0 | 1) => "an FIQ while masked",
        (2, _) => "an FIQ from the host, which takes its own",
        _ => "an SError: the machine reports an error",
    }
}

fn class(esr: u64) -> &'static str {
    match esr >> 26 {
        0x00 => "an undefined instruction",
        0x07 => "floating point, which EL2 does not use",
        0x0e => "an illegal execution state",
        0x16 => "HVC at EL2",
        0x18 => "a trapped system register",
        0x20 | 0x21 => "an instruction abort",
        0x22 => "a misaligned PC",
        0x24 | 0x25 => "a data abort",
        0x26 => "a misaligned stack pointer",
        0x2f => "an SError",
        0x3c => "BRK",
        _ => "an unexpected exception",
    }
}

/// Why an abort happened, and by what.
pub(crate) fn cause(esr: u64) -> &'static str {
    let write = esr & 1 << 6 != 0;
    match (esr >> 26, (esr >> 2) & 0xf) {
        (0x20 | 0x21, 0b0001) => "nothing is mapped where the instruction should be",
        (0x20 | 0x21, 0b0011) => "what is there may not be executed",
        (0x24 | 0x25, 0b0000) => "the address is too large",
        (0x24 | 0x25, 0b0001) if write => {
            "a write to what is not mapped (or a stack ran into its guard)"
        }
        (0x24 | 0x25, 0b0001) => "a read of what is not mapped",
        (0x24 | 0x25, 0b0011) if write => "a write to what is read-only",
        (0x24 | 0x25, 0b0011) => "a read that is not permitted",
        (0x24 | 0x25, 0b0100 | 0b0101) => "the machine refused the access",
        (0x24 | 0x25, 0b1000) => "the address is misaligned",
        _ => "the class says it all",
    }
}
