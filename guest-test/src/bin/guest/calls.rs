//! What the guest may call: PSCI, SMCCC, KVM's vendor calls; and what it may not.

use core::sync::atomic::Ordering;

use guest_test::smccc::{self, psci};
use guest_test::{bytes, check, check_eq, port, start, tests, timer};

use crate::SECONDARY;

/// KVM's vendor-specific hypervisor calls (include/linux/arm-smccc.h).
mod kvm {
    /// Which calls there are.
    pub(super) const FEATURES: u32 = 0x8600_0000;
    /// Granule of sharing.
    pub(super) const HYP_MEMINFO: u32 = 0xc600_0002;
    /// Shares a page with the host.
    pub(super) const MEM_SHARE: u32 = 0xc600_0003;
    /// Takes a page back.
    pub(super) const MEM_UNSHARE: u32 = 0xc600_0004;
    /// Who the hypervisor is.
    pub(super) const UUID: u32 = 0x8600_ff01;
    /// 28b46fb6-2ec5-11e9-a9ca-4b564d003a74, as Linux compares it.
    pub(super) const UUID_WORDS: [u64; 4] = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];
}

/// SMCCC's `INVALID_PARAMETER`, as KVM's calls return it.
const INVALID_PARAMETER: u64 = u64::MAX - 2;

/// x0 of a call, sign-extended from 32 bits for calls whose id says so.
fn hvc(function: u32, words: &[u64]) -> u64 {
    let [x0, ..] = smccc::hvc(function, words);
    if function & 1 << 30 == 0 {
        smccc::signed(x0)
    } else {
        x0
    }
}

tests! { "calls":
    /// PSCI is version 1.1.
    psci_version {
        check_eq!(hvc(psci::VERSION, &[]), 0x1_0001, "PSCI_VERSION");
    }

    /// `PSCI_FEATURES` knows what there is and nothing else.
    psci_features {
        for function in [psci::VERSION, psci::CPU_OFF, psci::CPU_ON, psci::AFFINITY_INFO, psci::SYSTEM_OFF,
            psci::SYSTEM_RESET, psci::FEATURES, smccc::VERSION] {
            check_eq!(hvc(psci::FEATURES, &[u64::from(function)]), 0, "PSCI_FEATURES of {function:#x}");
        }
        for function in [0x8400_00ff, 0xc600_0003, 0, u32::MAX] {
            check_eq!(hvc(psci::FEATURES, &[u64::from(function)]), smccc::NOT_SUPPORTED, "PSCI_FEATURES of {function:#x}");
        }
    }

    /// `CPU_ON` and `AFFINITY_INFO` of vCPUs that are not there, or are this one.
    psci_garbage {
        for mpidr in [1, 0xff, 0x100, 1 << 32, u64::MAX] {
            check_eq!(hvc(psci::CPU_ON, &[mpidr, start::secondary_entry_point(), 1]), psci::INVALID_PARAMETERS, "CPU_ON of {mpidr:#x}");
            check_eq!(hvc(psci::AFFINITY_INFO, &[mpidr, 0]), psci::INVALID_PARAMETERS, "AFFINITY_INFO of {mpidr:#x}");
        }
        check_eq!(hvc(psci::CPU_ON, &[0, start::secondary_entry_point(), 1]), psci::ALREADY_ON, "CPU_ON of this vCPU");
        check_eq!(hvc(psci::AFFINITY_INFO, &[0, 0]), 0, "AFFINITY_INFO of this vCPU");
    }

    /// The second vCPU comes up where `CPU_ON` said, at EL1, and goes off again.
    psci_cpu_on {
        check_eq!(hvc(psci::AFFINITY_INFO, &[1, 0]), 1, "AFFINITY_INFO before CPU_ON");
        for round in 1..=3_u64 {
            check_eq!(hvc(psci::CPU_ON, &[1, start::secondary_entry_point(), 1]), 0, "CPU_ON in round {round}");
            let deadline = timer::now() + timer::milliseconds(5000);
            while hvc(psci::AFFINITY_INFO, &[1, 0]) != 1 {
                check!(timer::now() < deadline, "vCPU 1 is not off again; it came up {} times", SECONDARY.load(Ordering::SeqCst) >> 32);
                port::tell(round);
            }
            check_eq!(SECONDARY.load(Ordering::SeqCst), round << 32 | round, "arrivals and sum of contexts");
        }
    }

    /// SMCCC is at least 1.1.
    smccc_version {
        let version = hvc(smccc::VERSION, &[]);
        check!((0x1_0001..0x2_0000).contains(&version), "SMCCC_VERSION is {version:#x}");
    }

    /// The hypervisor says that it is KVM, so that Linux's pKVM guest code takes it.
    kvm_uuid {
        let [a, b, c, d, ..] = smccc::hvc(kvm::UUID, &[]);
        check_eq!([a, b, c, d], kvm::UUID_WORDS, "UUID");
    }

    /// FEATURES names itself, MEMINFO, `MEM_SHARE`, `MEM_UNSHARE` and `MEM_RELINQUISH`.
    kvm_features {
        let [features, ..] = smccc::hvc(kvm::FEATURES, &[]);
        check_eq!(features, 0x21d, "KVM features");
    }

    /// Memory is shared by 4 KiB; the other arguments must be zero.
    meminfo {
        check_eq!(hvc(kvm::HYP_MEMINFO, &[0, 0, 0]), bytes::FRAME, "granule");
        for words in [[1, 0, 0], [0, 1, 0], [0, 0, 1]] {
            check_eq!(hvc(kvm::HYP_MEMINFO, &words), INVALID_PARAMETER, "HYP_MEMINFO {words:?}");
        }
    }

    /// Sharing what cannot be shared is refused, and so is taking back what was not shared.
    share_garbage {
        for (ipa, second, third) in [(port::SCRATCH + 8, 0, 0), (port::SCRATCH, 1, 0), (port::SCRATCH, 0, 1),
            (port::PORT, 0, 0), (0, 0, 0), (1 << 40, 0, 0), (1 << 52, 0, 0), (u64::MAX - 4095, 0, 0)] {
            check_eq!(hvc(kvm::MEM_SHARE, &[ipa, second, third]), INVALID_PARAMETER, "MEM_SHARE {ipa:#x} {second} {third}");
            check_eq!(hvc(kvm::MEM_UNSHARE, &[ipa, second, third]), INVALID_PARAMETER, "MEM_UNSHARE {ipa:#x} {second} {third}");
        }
    }

    /// Shares and takes back one page twice; states in between are refused; content stays.
    share_twice {
        let page = core::ptr::with_exposed_provenance_mut::<u64>(bytes::size(port::SCRATCH));
        // SAFETY: scratch memory is no Rust memory.
        unsafe { page.write_volatile(0x1111) };
        for round in 0..2 {
            check_eq!(hvc(kvm::MEM_UNSHARE, &[port::SCRATCH, 0, 0]), INVALID_PARAMETER, "early MEM_UNSHARE, round {round}");
            check_eq!(hvc(kvm::MEM_SHARE, &[port::SCRATCH, 0, 0]), 0, "MEM_SHARE, round {round}");
            check_eq!(hvc(kvm::MEM_SHARE, &[port::SCRATCH, 0, 0]), INVALID_PARAMETER, "second MEM_SHARE, round {round}");
            check_eq!(hvc(kvm::MEM_UNSHARE, &[port::SCRATCH, 0, 0]), 0, "MEM_UNSHARE, round {round}");
        }
        // SAFETY: as above.
        check_eq!(unsafe { page.read_volatile() }, 0x1111, "content");
    }

    /// Calls of the host, unknown calls and calls of other owners are not there.
    unknown_calls {
        for function in (0xc600_0100..0xc600_0170).chain([0, 0x8000_7fff, 0x8400_0099, 0x8500_0000, 0x8600_0001, 0xc600_0005,
            0xc600_0008, 0xb200_0000, 0xbf00_0000, 0x4600_0000, u32::MAX]) {
            check_eq!(hvc(function, &[1, 2, 3]), smccc::NOT_SUPPORTED, "call {function:#x}");
        }
    }

    /// A whole sweep of fast-call ids of the hypervisor's owner; nothing but the known ones answers.
    unknown_calls_swept {
        for function in (0x8600_0000..0x8601_0000_u32).step_by(61).chain((0xc600_0010..0xc601_0000).step_by(61)) {
            if function != kvm::FEATURES {
                check_eq!(hvc(function, &[0; 4]), smccc::NOT_SUPPORTED, "call {function:#x}");
            }
        }
    }

    /// `SYSTEM_RESET` ends the run.
    system_reset {
        let [result, ..] = smccc::hvc(psci::SYSTEM_RESET, &[]);
        check!(false, "SYSTEM_RESET came back with {result:#x}");
    }
}
