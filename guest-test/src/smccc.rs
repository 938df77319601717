//! Calls by HVC and SMC (SMCCC, DEN0028; PSCI, DEN0022), as words in and words out.

/// What x0..x17 hold after a call.
pub type Answer = [u64; 18];

/// SMCCC: the function is not there.
pub const NOT_SUPPORTED: u64 = u64::MAX;

/// PSCI function ids and return values that the images use.
pub mod psci {
    /// Version of PSCI.
    pub const VERSION: u32 = 0x8400_0000;
    /// Turns the calling CPU off.
    pub const CPU_OFF: u32 = 0x8400_0002;
    /// Turns a CPU on: MPIDR, entry, context.
    pub const CPU_ON: u32 = 0xc400_0003;
    /// State of a CPU: MPIDR, level.
    pub const AFFINITY_INFO: u32 = 0xc400_0004;
    /// Turns the machine off.
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    /// Resets the machine.
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    /// Asks whether a function is there.
    pub const FEATURES: u32 = 0x8400_000a;
    /// The parameters make no sense.
    pub const INVALID_PARAMETERS: u64 = 0xffff_ffff_ffff_fffe;
    /// `CPU_ON` of a CPU that is on.
    pub const ALREADY_ON: u64 = 0xffff_ffff_ffff_fffc;
}

/// `SMCCC_VERSION`.
pub const VERSION: u32 = 0x8000_0000;

fn arguments(words: &[u64]) -> [u64; 17] {
    let mut registers = [0; 17];
    for (register, word) in registers.iter_mut().zip(words) {
        *register = *word;
    }
    registers
}

/// Calls the next higher level by HVC; `words` are x1 onwards.
#[must_use]
pub fn hvc(function: u32, words: &[u64]) -> Answer {
    ::smccc::hvc64(function, arguments(words))
}

/// Calls by SMC; `words` are x1 onwards.
#[must_use]
pub fn smc(function: u32, words: &[u64]) -> Answer {
    ::smccc::smc64(function, arguments(words))
}

/// A 32-bit PSCI or SMCCC result as a sign-extended word, as SMC64 functions give it.
#[must_use]
pub fn signed(result: u64) -> u64 {
    let low = crate::bytes::low32(result);
    if low & 1 << 31 == 0 {
        u64::from(low)
    } else {
        u64::from(low) | 0xffff_ffff_0000_0000
    }
}
