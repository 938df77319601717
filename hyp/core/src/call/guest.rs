//! What a guest calls, decoded: [`GuestCall`].
//!
//! Decoding looks at registers and nothing else; [`crate::run`] performs. The services, listed by [`GuestFunction`], are SMCCC's own (DEN0028), PSCI
//! (DEN0022) and those of KVM that a stock Linux guest with `CONFIG_ARM_PKVM_GUEST` looks for
//! (`include/linux/arm-smccc.h`, `Documentation/virt/kvm/arm/hypercalls.rst`). An ordinary guest is not offered what only a protected one
//! needs, so that it does not take itself for one. Anything else is [`GuestCall::Unknown`].

use pinfold_abi::GuestFunction;

use crate::addr::{Gfn, Ipa};
use crate::exit::Conduit;
use crate::psci::PsciCall;
use crate::vm::Kind;

/// SMCCC `SUCCESS`.
pub const SUCCESS: u64 = 0;
/// SMCCC `NOT_SUPPORTED`, -1.
pub const NOT_SUPPORTED: u64 = u64::MAX;
/// SMCCC `INVALID_PARAMETER`, -3.
pub const INVALID_PARAMETER: u64 = u64::MAX - 2;

/// SMCCC 1.1.
const OFFERED_SMCCC: u64 = 0x1_0001;
/// 28b46fb6-2ec5-11e9-a9ca-4b564d003a74, as four little-endian words.
const KVM_UUID: [u64; 4] = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];
/// The bit of a function's number that says SMC64 (DEN0028, 2.5).
const WIDE: u32 = 1 << 30;
/// FEATURES itself, `HYP_MEMINFO`, `MEM_SHARE`, `MEM_UNSHARE`, `MEM_RELINQUISH`.
const OFFERED_FEATURES: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 9;
/// FEATURES itself.
const OFFERED_TO_ORDINARY: u64 = 1;
/// What `HYP_MEMINFO` says: memory is shared in frames of 4 KiB.
const GRANULE: u64 = 4096;

/// A call of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestCall {
    /// A question with a fixed answer: X0 to X3.
    Query([u64; 4]),
    /// Something for the virtual PSCI.
    Psci(PsciCall),
    /// Share a frame with the host.
    Share(Gfn),
    /// Take a frame back from the host.
    Unshare(Gfn),
    /// Give a frame back to the host.
    Relinquish(Gfn),
    /// A known call with arguments that it does not have.
    Malformed,
    /// Not offered.
    Unknown,
}

impl GuestCall {
    /// Decodes a call of a guest of this kind through `conduit`, with X0 to X3 in `x`.
    #[must_use]
    pub fn decode(kind: Kind, conduit: Conduit, x: [u64; 4]) -> Self {
        // SMCCC 2.9: only immediate 0 is a call.
        let (Conduit::Hvc(immediate) | Conduit::Smc(immediate)) = conduit;
        if immediate != 0 && !mutant!(AnyImmediate) {
            return Self::Unknown;
        }
        let [id, first, second, third] = x;
        let function = GuestFunction::from_number(word(id).into());
        let kind = seeded!(OffersSharing, Kind::Protected, kind);
        let Some(function) = function.or_else(|| psci_of_any_width(word(id))) else {
            return Self::Unknown;
        };
        if kind == Kind::Ordinary && function.is_for_protected() {
            return Self::Unknown;
        }
        let frame = shareable(first, second | third);
        match function {
            GuestFunction::SmcccVersion => Self::Query([OFFERED_SMCCC, 0, 0, 0]),
            GuestFunction::SmcccArchFeatures => Self::Query([arch_features(word(first)), 0, 0, 0]),
            GuestFunction::Uuid => Self::Query(KVM_UUID),
            GuestFunction::Features => Self::Query([features(kind), 0, 0, 0]),
            GuestFunction::HypMeminfo if first | second | third == 0 => {
                Self::Query([seeded!(LargeGranule, 16 * GRANULE, GRANULE), 0, 0, 0])
            }
            GuestFunction::HypMeminfo => Self::Malformed,
            GuestFunction::MemShare => frame.map_or(Self::Malformed, Self::Share),
            GuestFunction::MemUnshare => frame.map_or(Self::Malformed, Self::Unshare),
            GuestFunction::MemRelinquish => frame.map_or(Self::Malformed, Self::Relinquish),
            GuestFunction::PsciVersion
            | GuestFunction::CpuSuspend
            | GuestFunction::CpuOff
            | GuestFunction::CpuOn
            | GuestFunction::AffinityInfo
            | GuestFunction::MigrateInfoType
            | GuestFunction::SystemOff
            | GuestFunction::SystemReset
            | GuestFunction::PsciFeatures
            | GuestFunction::SystemReset2 => {
                PsciCall::decode(function, narrow(word(id), [first, second, third]))
                    .map_or(Self::Unknown, Self::Psci)
            }
        }
    }
}

/// Those of KVM's services that a guest of this kind is offered, one bit each.
fn features(kind: Kind) -> u64 {
    match kind {
        Kind::Ordinary => OFFERED_TO_ORDINARY,
        Kind::Protected => OFFERED_FEATURES,
    }
}

/// What a function of PSCI is taken for that is not there with 64-bit arguments: nothing, but in a mutant.
fn psci_of_any_width(function: u32) -> Option<GuestFunction> {
    if mutant!(AnyPsciWidth) {
        GuestFunction::from_number((function & !WIDE).into())
    } else {
        None
    }
}

/// The frame that a sharing call names: aligned, and nothing else in the other arguments.
fn shareable(ipa: u64, others: u64) -> Option<Gfn> {
    let ipa = Ipa::new(ipa)?;
    let is_aligned = ipa.is_aligned(GRANULE) || mutant!(SharesUnaligned);
    (is_aligned && others == 0).then(|| ipa.frame())
}

/// `SMCCC_ARCH_FEATURES`: what is there. No workaround is, since no processor that we run on needs one from us.
fn arch_features(function: u32) -> u64 {
    match GuestFunction::from_number(function.into()) {
        Some(GuestFunction::SmcccVersion | GuestFunction::SmcccArchFeatures) => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

/// Arguments of an SMC32 call have 32 bits.
fn narrow(function: u32, arguments: [u64; 3]) -> [u64; 3] {
    if function & WIDE == 0 && !mutant!(WideArguments) {
        arguments.map(|argument| argument & 0xffff_ffff)
    } else {
        arguments
    }
}

fn word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hvc(x: [u64; 4]) -> GuestCall {
        GuestCall::decode(Kind::Protected, Conduit::Hvc(0), x)
    }

    #[test]
    fn linux_finds_what_it_looks_for() {
        assert_eq!(hvc([0x8600_ff01, 0, 0, 0]), GuestCall::Query(KVM_UUID));
        assert_eq!(
            hvc([0x8600_0000, 0, 0, 0]),
            GuestCall::Query([0x21d, 0, 0, 0])
        );
        assert_eq!(
            hvc([0xc600_0002, 0, 0, 0]),
            GuestCall::Query([4096, 0, 0, 0])
        );
        assert_eq!(
            hvc([0x8000_0000, 0, 0, 0]),
            GuestCall::Query([0x1_0001, 0, 0, 0])
        );
        assert_eq!(
            hvc([0x8400_0000, 0, 0, 0]),
            GuestCall::Psci(PsciCall::Version)
        );
    }

    #[test]
    fn ordinary_guests_share_nothing() {
        let call = |id| GuestCall::decode(Kind::Ordinary, Conduit::Hvc(0), [id, 0x4000_1000, 0, 0]);
        assert_eq!(call(0x8600_0000), GuestCall::Query([1, 0, 0, 0]));
        for id in [0xc600_0002, 0xc600_0003, 0xc600_0004, 0xc600_0009] {
            assert_eq!(call(id), GuestCall::Unknown);
        }
    }

    #[test]
    fn sharing_takes_one_aligned_frame() {
        let gfn = Gfn::new(0x40001).unwrap();
        assert_eq!(hvc([0xc600_0003, 0x4000_1000, 0, 0]), GuestCall::Share(gfn));
        assert_eq!(
            hvc([0xc600_0004, 0x4000_1000, 0, 0]),
            GuestCall::Unshare(gfn)
        );
        assert_eq!(
            hvc([0xc600_0009, 0x4000_1000, 0, 0]),
            GuestCall::Relinquish(gfn)
        );
        for x in [
            [0x4000_1004, 0, 0],
            [0x4000_1000, 1, 0],
            [0x4000_1000, 0, 1],
            [u64::MAX, 0, 0],
            [1 << 48, 0, 0],
        ] {
            assert_eq!(hvc([0xc600_0003, x[0], x[1], x[2]]), GuestCall::Malformed);
        }
    }

    #[test]
    fn unknown_calls_are_unknown() {
        for id in [
            0,
            1,
            0x8600_0001,
            0xc600_0005,
            0xc600_0100,
            0xc600_013a,
            0xffff_ffff,
            0x8400_0050,
        ] {
            assert_eq!(hvc([id, 0, 0, 0]), GuestCall::Unknown);
        }
        assert_eq!(
            GuestCall::decode(Kind::Protected, Conduit::Hvc(1), [0x8000_0000, 0, 0, 0]),
            GuestCall::Unknown
        );
    }

    #[test]
    fn a_32_bit_call_has_32_bit_arguments() {
        let call = hvc([0x8400_0003, 0xdead_0000_0001, u64::MAX, 0x1_0000_0002]);
        let expected = PsciCall::CpuOn {
            target: 1,
            entry: 0xffff_ffff,
            argument: 2,
        };
        assert_eq!(call, GuestCall::Psci(expected));
    }
}
