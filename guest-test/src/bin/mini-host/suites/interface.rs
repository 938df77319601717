//! The calls as such: discovery, unknown ids, counting, registers that a call leaves alone.

use guest_test::canary::{self, Canaries, Trigger};
use guest_test::smccc::{self, psci};
use guest_test::{bytes, check, check_eq, line, tests};
use pinfold_abi::{FUNCTION_BASE, HostCall, UUID_FUNCTION, UUID_WORDS, limit};

use crate::calls::{self, Counter, Status};
use crate::platform;

/// The owner of the mini host's canaries.
const HOST: u16 = 0x4057;

fn is_a_call(id: u32) -> bool {
    HostCall::TABLE
        .iter()
        .any(|call| u64::from(id) == FUNCTION_BASE + call.number)
}

tests! { "interface":
    /// The interface has the version that the table says.
    version {
        check_eq!(calls::version().value("VERSION")?, pinfold_abi::VERSION, "version");
    }

    /// Features and limits are those of the table.
    features {
        let [features, vms, vcpus, frames, memory, ..] = calls::features().done("FEATURES")?;
        check_eq!(features & !1, 0, "unknown feature bits");
        check_eq!([vms, vcpus, frames], [limit::MAX_VMS, limit::MAX_VCPUS, limit::MAX_FRAMES], "limits");
        check!(memory >= 2048, "EL2 says that it lives in {memory} KiB");
        line!("# EL2 takes {memory} KiB");
    }

    /// The UUID call gives Pinfold's UUID, in 32-bit words.
    uuid {
        let [a, b, c, d, ..] = smccc::hvc(bytes::low32(UUID_FUNCTION), &[]);
        check_eq!([a, b, c, d], UUID_WORDS.map(u64::from), "UUID");
    }

    /// SMCCC says 1.1 or later by HVC; by SMC it is the firmware's word, and QEMU's knows no such call.
    smccc_version {
        let [version, ..] = smccc::hvc(smccc::VERSION, &[]);
        check!((0x1_0001..0x2_0000).contains(&version), "SMCCC_VERSION by HVC is {version:#x}");
        let [version, ..] = smccc::smc(smccc::VERSION, &[]);
        check!(version == smccc::NOT_SUPPORTED || (0x1_0000..0x2_0000).contains(&version), "SMCCC_VERSION by SMC is {version:#x}");
    }

    /// The device tree names Pinfold and hides what the host must not use.
    device_tree {
        check!(platform::machine().has_hypervisor_node(), "no /hypervisor node");
    }

    /// All 65,536 ids of the vendor-specific 64-bit range: those outside the table are not there, and are counted.
    unknown_calls_of_the_range {
        let before = calls::counter(Counter::UnknownCalls)?;
        let mut unknown = 0;
        for id in (0xc600_0000_u32..0xc601_0000).filter(|id| !is_a_call(*id)) {
            calls::call(id, &[1, 2, 3, 4, 5]).not_supported("an unknown call")?;
            unknown += 1;
        }
        check_eq!(calls::counter(Counter::UnknownCalls)? - before, unknown, "counted unknown calls");
    }

    /// Ids of other owners and conventions are not there.
    unknown_calls_of_other_owners {
        for owner in 0..64_u32 {
            for kind in [0_u32, 0x4000_0000, 0x8000_0000, 0xc000_0000] {
                for function in [0x0001_u32, 0x0100, 0x0113, 0x0140, 0x7ffe, 0xffff] {
                    let id = kind | owner << 24 | function;
                    if !is_a_call(id) && id != 0x8000_0001 {
                        calls::call(id, &[1, 2, 3, 4, 5]).not_supported("a call of another owner")?;
                    }
                }
            }
        }
    }

    /// Only x0 names the call: the same number with high bits set is another call.
    high_bits_count {
        // The function id is w0 (SMCCC 2.5.1), so EL2 may ignore them or refuse; it must not do anything else.
        let mut canaries = Canaries::of(HOST);
        set(&mut canaries, &[FUNCTION_BASE | 1 << 63]);
        // SAFETY: the call changes no memory.
        unsafe { canaries.around(Trigger::Hvc) };
        let [x0, ..] = canaries.x;
        check!(x0 == smccc::NOT_SUPPORTED || x0 == 0, "x0 is {x0:#x}");
    }

    /// A call changes x0, x1 and its results, and no other register; so does a refused and an unknown one.
    calls_leave_registers_alone {
        for (function, first, what) in [
            (FUNCTION_BASE, 0, "VERSION"),
            (FUNCTION_BASE + 0x34, u64::MAX, "VM_TEARDOWN_BEGIN of nothing"),
            (FUNCTION_BASE + 0xff, 0, "an unknown call"),
        ] {
            let mut canaries = Canaries::of(HOST);
            set(&mut canaries, &[function, first]);
            let before = canaries.clone();
            let own = canary::read_system_registers();
            let system = canary::system_canaries(HOST);
            // SAFETY: nothing faults until the old values are back.
            unsafe { canary::write_system_registers(&system) };
            // SAFETY: these calls change no memory of this image.
            unsafe { canaries.around(Trigger::Hvc) };
            let after = canary::read_system_registers();
            // SAFETY: these are the values that were there.
            unsafe { canary::write_system_registers(&own) };
            check!(canaries.v == before.v && canaries.fp == before.fp, "{what}: FP registers changed");
            for (register, (found, wanted)) in canaries.x.iter().zip(before.x).enumerate().skip(5) {
                check!(*found == wanted, "{what}: x{register} is {found:#x}, was {wanted:#x}");
            }
            for ((name, mask), (found, wanted)) in canary::SYSTEM_REGISTERS.iter().zip(after.iter().zip(system)) {
                check!(found & mask == wanted, "{what}: {name} is {found:#x}, was {wanted:#x}");
            }
        }
    }

    /// A refused call is counted.
    refusals_are_counted {
        let before = calls::counter(Counter::Refusals)?;
        calls::vm_start(0).refused(Status::NoSuchVm, "VM_START of nothing")?;
        check_eq!(calls::counter(Counter::Refusals)? - before, 1, "counted refusals");
    }

    /// A counter that is not there, and queries outside RAM, are refused.
    debug_calls_refuse_garbage {
        calls::call(bytes::low32(FUNCTION_BASE) + 0x63, &[99]).refused(Status::Invalid, "COUNTER 99")?;
        for pfn in [u64::MAX, 1 << 52, 1 << 40] {
            calls::folio_digest(pfn, 1).refused_as_one_of(&[Status::NotRam, Status::Invalid], "digest of a hole")?;
        }
        let first = platform::machine().memory.first().map_or(0, |range| range.start >> 12);
        for count in [limit::MAX_DIGEST + 1, u64::MAX] {
            calls::folio_digest(first, count).refused_as_one_of(&[Status::Limit, Status::Invalid, Status::NotRam], "a long digest")?;
        }
    }

    /// SMCs that no list allows are not there; PSCI answers.
    smc_filter {
        for id in [0x8300_0001_u32, 0xc300_0001, 0x8200_0010, 0xc200_0010, 0x8400_0050, 0x8400_0060, 0xb200_0000, 0xbf00_ff01,
            0x8600_ff01, 0xc600_0100, 0x8100_0001, 0x8500_0000, 0x8700_0000, 0x0000_0000, 0xffff_ffff] {
            let [x0, ..] = smccc::smc(id, &[1, 2, 3, 4]);
            check_eq!(smccc::signed(x0), smccc::NOT_SUPPORTED, "SMC {id:#x}");
        }
        let [version, ..] = smccc::smc(psci::VERSION, &[]);
        check!(version >= 0x1_0000, "PSCI_VERSION is {version:#x}");
    }
}

fn set(canaries: &mut Canaries, words: &[u64]) {
    for (place, word) in canaries.x.iter_mut().zip(words) {
        *place = *word;
    }
}
