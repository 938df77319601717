//! PSCI as a guest finds it: version 1.1 (DEN0022), of the vCPUs of its own VM.

use pinfold_abi::ExitReason;

use crate::clause::Clause;
use crate::guest::{Follows, Leeway, NOT_SUPPORTED, exits, goes_on};
use crate::state::State;
use crate::vm::{GuestRegisters, Power, Vm};

/// `INVALID_PARAMETERS`, `ALREADY_ON` and `ON_PENDING` (DEN0022, 5.2.2).
const INVALID: u64 = u64::MAX - 1;
const ALREADY_ON: u64 = u64::MAX - 3;
const ON_PENDING: u64 = u64::MAX - 4;

/// The functions that there are with 32-bit arguments (DEN0022, 5.1): `PSCI_VERSION`, `CPU_SUSPEND`, `CPU_OFF`, `CPU_ON`, `AFFINITY_INFO`,
/// `MIGRATE_INFO_TYPE`, `SYSTEM_OFF`, `SYSTEM_RESET`, `PSCI_FEATURES`, `SYSTEM_RESET2`.
const NARROW: [u64; 10] = [
    0x8400_0000,
    0x8400_0001,
    0x8400_0002,
    0x8400_0003,
    0x8400_0004,
    0x8400_0006,
    0x8400_0008,
    0x8400_0009,
    0x8400_000A,
    0x8400_0012,
];
/// Those that there are with 64-bit arguments, too.
const WIDE: [u64; 4] = [0xC400_0001, 0xC400_0003, 0xC400_0004, 0xC400_0012];

/// SMCCC's `SMCCC_VERSION`, which `PSCI_FEATURES` tells of.
const SMCCC_VERSION: u64 = 0x8000_0000;

/// The bits of a target that are not an affinity, and zero (DEN0022, 5.1.4).
const NO_AFFINITY: u64 = !0xFF_00FF_FFFF;
/// `SYSTEM_RESET2` (DEN0022, 5.1.11): types with this bit are the vendor's, those without are the architecture's, of which there is only 0.
const VENDOR_RESET: u64 = 1 << 31;

const fn low(value: u64) -> u64 {
    value & 0xFFFF_FFFF
}

impl Vm {
    /// `AFFINITY_INFO` (DEN0022, 5.7): 0 if one of the vCPUs is on, otherwise 2 if one is starting, otherwise 1.
    fn affinity_info(&self, target: u64, level: u64) -> u64 {
        if level > 3 || target & NO_AFFINITY != 0 {
            return INVALID;
        }
        let shift = match level {
            0 => 0,
            1 => 8,
            2 => 16,
            _ => 32,
        };
        let named: alloc::vec::Vec<_> = self
            .vcpus
            .iter()
            .filter(|(index, _)| **index >> shift == target >> shift)
            .map(|(_, vcpu)| vcpu.power)
            .collect();
        let starts = |power: &Power| matches!(power, Power::Starting { .. });
        match named.as_slice() {
            [] => INVALID,
            powers if powers.contains(&Power::On) => 0,
            powers if powers.iter().any(starts) => 2,
            _ => 1,
        }
    }
}

impl State {
    /// What a PSCI call comes to.
    pub(crate) fn psci(&mut self, handle: u64, index: u64, function: u64) -> Option<Follows> {
        let is_wide = function & 1 << 30 != 0;
        let vm = self.vms.get_mut(&handle)?;
        let registers = vm.vcpus.get(&index)?.registers.arguments();
        let [_, first, second, third] = if is_wide {
            registers
        } else {
            registers.map(low)
        };
        if !NARROW.contains(&function) && !WIDE.contains(&function) {
            return self.told(handle, index, Clause::PsciUnknown, NOT_SUPPORTED);
        }
        match low(function) & !(1 << 30) {
            0x8400_0000 => self.told(handle, index, Clause::PsciVersion, 0x1_0001),
            0x8400_0001 => self.suspend(handle, index),
            0x8400_0002 => {
                vm.vcpus.get_mut(&index)?.power = Power::Off;
                Some(exits(Clause::PowerOff, ExitReason::PoweredOff, [0; 3]))
            }
            0x8400_0003 => self.cpu_on(handle, index, [first, second, third]),
            0x8400_0004 => {
                let answer = vm.affinity_info(first, second);
                let clause = if answer == INVALID {
                    Clause::AffinityNobody
                } else {
                    Clause::AffinityInfo
                };
                self.told(handle, index, clause, answer)
            }
            0x8400_0006 => self.told(handle, index, Clause::MigrateType, 2),
            0x8400_0008 => Some(vm.ends(ExitReason::SystemOff, 0)),
            0x8400_0009 => Some(vm.ends(ExitReason::SystemReset, 0)),
            0x8400_0012 => match low(first) {
                kind if kind == 0 || kind & VENDOR_RESET != 0 => {
                    Some(vm.ends(ExitReason::SystemReset, kind))
                }
                _ => self.told(handle, index, Clause::ResetReserved, INVALID),
            },
            _ => {
                let asked = low(first);
                let is_there =
                    NARROW.contains(&asked) || WIDE.contains(&asked) || asked == SMCCC_VERSION;
                let answer = if is_there { 0 } else { NOT_SUPPORTED };
                self.told(handle, index, Clause::PsciFeatures, answer)
            }
        }
    }

    /// The caller goes on, and finds `answer`.
    fn told(&mut self, handle: u64, index: u64, clause: Clause, answer: u64) -> Option<Follows> {
        let vcpu = self.vms.get_mut(&handle)?.vcpus.get_mut(&index)?;
        vcpu.registers.answer([answer, 0, 0, 0]);
        Some(goes_on(clause))
    }

    /// `CPU_SUSPEND` may be less than was asked for (DEN0022, 5.4): it is a standby.
    fn suspend(&mut self, handle: u64, index: u64) -> Option<Follows> {
        self.told(handle, index, Clause::Standby, 0)?;
        self.waits(handle, index, Clause::Standby)
    }

    fn cpu_on(&mut self, handle: u64, index: u64, arguments: [u64; 3]) -> Option<Follows> {
        let [target, entry, argument] = arguments;
        let vm = self.vms.get_mut(&handle)?;
        let named = vm.vcpus.get_mut(&target);
        let answer = match named.map(|vcpu| &mut vcpu.power) {
            None => INVALID,
            Some(Power::On) => ALREADY_ON,
            Some(Power::Starting { .. }) => ON_PENDING,
            Some(power) => {
                *power = Power::Starting { entry, argument };
                0
            }
        };
        let clause = if answer == 0 {
            Clause::PowerOn
        } else {
            Clause::PowerOnRefused
        };
        let follows = self.told(handle, index, clause, answer)?;
        let exit = [ExitReason::CpuOn.number(), target, 0, 0];
        Some(Follows {
            exit: (answer == 0).then_some(exit),
            ..follows
        })
    }

    /// The vCPU waits for an interrupt.
    pub(crate) fn waits(&mut self, handle: u64, index: u64, clause: Clause) -> Option<Follows> {
        let (may_wait, may_go_on) = self.may_wait(handle, index);
        let vcpu = self.vcpu_of(handle, index)?;
        Some(Follows {
            leeway: Leeway::Wait {
                deadline: vcpu.deadline(),
                may_wait,
                may_go_on,
            },
            ..goes_on(clause)
        })
    }
}

impl Vm {
    /// The guest ends itself.
    fn ends(&mut self, reason: ExitReason, kind: u64) -> Follows {
        self.ended = Some((reason.number(), kind));
        exits(Clause::SystemEnds, reason, [kind, 0, 0])
    }
}

impl GuestRegisters {
    /// A vCPU that starts has nothing in its registers but where, and its argument.
    pub(crate) fn started(entry: u64, argument: u64) -> Self {
        let mut registers = Self {
            pc: entry,
            ..Self::default()
        };
        registers.write(0, argument);
        registers
    }
}
