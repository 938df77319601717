//! The virtual PSCI: power of the vCPUs of one guest, as the guest sees it.
//!
//! [`PowerStates::perform`] is a function of the call and of the power states alone. EL2 decides; the host only hears
//! that a vCPU became runnable or stopped, and cannot choose where one starts.
//!
//! | state | who leaves it | to |
//! |---|---|---|
//! | `Absent` | `create` | `Off` or `On` |
//! | `Off` | `CPU_ON` by another vCPU | `Starting` |
//! | `Starting` | `take_start`, when the host first runs it | `On` |
//! | `On` | its own `CPU_OFF` | `Off` |
//!
//! PSCI is DEN0022 (version 1.1 is offered); return codes are in its section 5.2.2.

use pinfold_abi::GuestFunction;

use crate::vcpus::MAX_VCPUS;

/// A call that the guest made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciCall {
    /// `PSCI_VERSION`.
    Version,
    /// `PSCI_FEATURES` of a function.
    Features(u32),
    /// `CPU_SUSPEND`, served as a standby.
    CpuSuspend,
    /// `CPU_OFF`.
    CpuOff,
    /// `CPU_ON`.
    CpuOn {
        /// Affinity of the vCPU to start.
        target: u64,
        /// Where it starts.
        entry: u64,
        /// Its X0.
        argument: u64,
    },
    /// `AFFINITY_INFO`.
    AffinityInfo {
        /// Affinity asked for.
        target: u64,
        /// Lowest affinity level that counts.
        level: u64,
    },
    /// `MIGRATE_INFO_TYPE`.
    MigrateInfoType,
    /// `SYSTEM_OFF`.
    SystemOff,
    /// `SYSTEM_RESET`.
    SystemReset,
    /// `SYSTEM_RESET2`.
    SystemReset2 {
        /// Type of the reset.
        kind: u64,
    },
}

/// What follows from a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PsciOutcome {
    /// The caller goes on with this in X0.
    Return(u64),
    /// The caller goes on with success; vCPU `index` can be run now.
    Started {
        /// Index of the vCPU.
        index: u8,
    },
    /// The caller waits for an interrupt, and then goes on with success.
    Standby,
    /// The caller is off.
    Off,
    /// The machine stops.
    System(SystemEvent),
}

/// What a guest can ask for its whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemEvent {
    /// Off.
    Off,
    /// Start again, with PSCI's reset type.
    Reset(u64),
}

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;
/// 1.1.
const OFFERED_VERSION: u64 = 0x1_0001;
/// `MIGRATE_INFO_TYPE`: no Trusted OS, so nothing to migrate.
const NO_TRUSTED_OS: u64 = 2;

impl PsciCall {
    /// Decodes a function and its arguments; none is not a PSCI call.
    #[must_use]
    pub fn decode(function: GuestFunction, arguments: [u64; 3]) -> Option<Self> {
        let [first, second, third] = arguments;
        Some(match function {
            GuestFunction::PsciVersion => Self::Version,
            GuestFunction::PsciFeatures => Self::Features(word(first)),
            GuestFunction::CpuSuspend => Self::CpuSuspend,
            GuestFunction::CpuOff => Self::CpuOff,
            GuestFunction::CpuOn => Self::CpuOn {
                target: first,
                entry: second,
                argument: third,
            },
            GuestFunction::AffinityInfo => Self::AffinityInfo {
                target: first,
                level: second,
            },
            GuestFunction::MigrateInfoType => Self::MigrateInfoType,
            GuestFunction::SystemOff => Self::SystemOff,
            GuestFunction::SystemReset => Self::SystemReset,
            GuestFunction::SystemReset2 => Self::SystemReset2 {
                kind: u64::from(word(first)),
            },
            GuestFunction::SmcccVersion
            | GuestFunction::SmcccArchFeatures
            | GuestFunction::Features
            | GuestFunction::Uuid
            | GuestFunction::HypMeminfo
            | GuestFunction::MemShare
            | GuestFunction::MemUnshare
            | GuestFunction::MemRelinquish => return None,
        })
    }
}

/// Power of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// It was never created.
    #[default]
    Absent,
    /// It is off.
    Off,
    /// Another vCPU started it, and it did not run yet.
    Starting {
        /// Where it starts.
        entry: u64,
        /// Its X0.
        argument: u64,
    },
    /// It is on.
    On,
}

/// Power of all vCPUs of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerStates {
    states: [Power; MAX_VCPUS],
    count: usize,
}

impl PowerStates {
    /// None of `count` vCPUs was created yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            states: [Power::Absent; MAX_VCPUS],
            count,
        }
    }

    /// The vCPU `index` exists from now on.
    pub fn create(&mut self, index: usize, powered_off: bool) {
        if let Some(state) = self.states.iter_mut().take(self.count).nth(index) {
            *state = if powered_off { Power::Off } else { Power::On };
        }
    }

    /// Power of vCPU `index`.
    #[must_use]
    pub fn power(&self, index: usize) -> Power {
        self.states.get(index).copied().unwrap_or_default()
    }

    /// The vCPUs that are on, one bit each.
    #[must_use]
    pub fn on(&self) -> u64 {
        (0..).zip(self.states).fold(0, |on, (index, state)| {
            on | u64::from(state == Power::On) << index
        })
    }

    /// Where vCPU `index` starts, if it is to start; it is on from now on.
    pub fn take_start(&mut self, index: usize) -> Option<(u64, u64)> {
        let state = self.states.get_mut(index)?;
        let Power::Starting { entry, argument } = *state else {
            return None;
        };
        *state = Power::On;
        Some((entry, argument))
    }

    /// Performs `call` of vCPU `caller`.
    pub fn perform(&mut self, caller: usize, call: PsciCall) -> PsciOutcome {
        match call {
            PsciCall::Version => PsciOutcome::Return(seeded!(OldPsci, 0x1_0000, OFFERED_VERSION)),
            PsciCall::Features(function) => PsciOutcome::Return(features(function)),
            PsciCall::CpuSuspend => PsciOutcome::Standby,
            PsciCall::CpuOff => self.switch_off(caller),
            PsciCall::CpuOn {
                target,
                entry,
                argument,
            } => self.switch_on(target, entry, argument),
            PsciCall::AffinityInfo { target, level } => {
                PsciOutcome::Return(self.affinity_info(target, level))
            }
            PsciCall::MigrateInfoType => {
                PsciOutcome::Return(seeded!(MigratesAnything, 0, NO_TRUSTED_OS))
            }
            PsciCall::SystemOff => PsciOutcome::System(SystemEvent::Off),
            PsciCall::SystemReset => PsciOutcome::System(SystemEvent::Reset(0)),
            PsciCall::SystemReset2 { kind } if is_reset_type(kind) || mutant!(AnyResetType) => {
                let kind = seeded!(ResetTypeUntold, 0, kind);
                PsciOutcome::System(SystemEvent::Reset(kind))
            }
            PsciCall::SystemReset2 { .. } => PsciOutcome::Return(error(INVALID_PARAMETERS)),
        }
    }

    fn switch_off(&mut self, caller: usize) -> PsciOutcome {
        if let Some(state) = self.states.get_mut(caller) {
            *state = Power::Off;
        }
        PsciOutcome::Off
    }

    fn switch_on(&mut self, target: u64, entry: u64, argument: u64) -> PsciOutcome {
        let target = seeded!(CutsAffinity, target & AFFINITY_BITS, target);
        let found = u8::try_from(target).ok();
        let Some((index, state)) =
            found.and_then(|index| Some((index, self.states.get_mut(usize::from(index))?)))
        else {
            return PsciOutcome::Return(error(INVALID_PARAMETERS));
        };
        match *state {
            Power::Absent => PsciOutcome::Return(error(INVALID_PARAMETERS)),
            Power::On => PsciOutcome::Return(seeded!(OnTwice, SUCCESS, error(ALREADY_ON))),
            Power::Starting { .. } => PsciOutcome::Return(error(ON_PENDING)),
            Power::Off => {
                *state = Power::Starting { entry, argument };
                PsciOutcome::Started { index }
            }
        }
    }

    /// 0 on, 1 off, 2 starting (DEN0022 5.7); of several vCPUs the most awake one counts.
    fn affinity_info(&self, target: u64, level: u64) -> u64 {
        if level > 3 || target & !AFFINITY_BITS != 0 {
            return error(INVALID_PARAMETERS);
        }
        let ignored = match level {
            0 => 0,
            1 => 0xff,
            2 => 0xffff,
            _ => 0xff_ffff,
        };
        let wanted = target & !ignored;
        let answers = (0_u64..)
            .zip(self.states)
            .filter(|(index, _)| index & !ignored == wanted);
        answers
            .filter_map(|(_, state)| match state {
                Power::Absent => None,
                Power::On => Some((0, 0)),
                Power::Starting { .. } => Some((1, seeded!(StartingIsOff, 1, 2))),
                Power::Off => Some((2, 1)),
            })
            .min()
            .map_or(
                seeded!(NobodyIsOff, 1, error(INVALID_PARAMETERS)),
                |(_, answer)| answer,
            )
    }
}

/// Whether there is such a reset: the architecture's only one, or a vendor's (DEN0022, `SYSTEM_RESET2`).
fn is_reset_type(kind: u64) -> bool {
    const VENDOR: u64 = 1 << 31;
    kind == 0 || kind & VENDOR != 0
}

/// The affinity fields of an MPIDR: Aff3 and Aff2 to Aff0. A target has zeroes elsewhere (DEN0022, 5.1.4).
const AFFINITY_BITS: u64 = 0xff_00ff_ffff;

/// `PSCI_FEATURES`: 0 for what we offer.
fn features(function: u32) -> u64 {
    let asked = GuestFunction::from_number(function.into());
    let is_psci = asked
        .and_then(|function| PsciCall::decode(function, [0; 3]))
        .is_some();
    let known = is_psci || asked == Some(GuestFunction::SmcccVersion);
    if known || mutant!(OffersAnything) {
        SUCCESS
    } else {
        error(NOT_SUPPORTED)
    }
}

/// A negative return code in a register.
fn error(code: i64) -> u64 {
    code.cast_unsigned()
}

/// The low 32 bits.
fn word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> PowerStates {
        let mut states = PowerStates::new(2);
        states.create(0, false);
        states.create(1, true);
        states
    }

    fn on(target: u64) -> PsciCall {
        PsciCall::CpuOn {
            target,
            entry: 0x4008_0000,
            argument: 7,
        }
    }

    #[test]
    fn a_vcpu_starts_once() {
        let mut states = two();
        assert_eq!(states.perform(0, on(1)), PsciOutcome::Started { index: 1 });
        assert_eq!(
            states.perform(0, on(1)),
            PsciOutcome::Return(error(ON_PENDING))
        );
        assert_eq!(states.take_start(1), Some((0x4008_0000, 7)));
        assert_eq!(states.take_start(1), None);
        assert_eq!(
            states.perform(0, on(1)),
            PsciOutcome::Return(error(ALREADY_ON))
        );
        assert_eq!(states.perform(1, PsciCall::CpuOff), PsciOutcome::Off);
        assert_eq!(states.perform(0, on(1)), PsciOutcome::Started { index: 1 });
    }

    #[test]
    fn a_vcpu_that_does_not_exist_cannot_start() {
        for target in [2, 7, 8, 0x100, 1 << 32, 0xff_00ff_ffff] {
            let mut states = two();
            assert_eq!(
                states.perform(0, on(target)),
                PsciOutcome::Return(error(INVALID_PARAMETERS))
            );
            assert_eq!(states, two());
        }
    }

    #[test]
    fn reserved_bits_name_nobody() {
        for bits in [1 << 24, 1 << 31, 1 << 40, 1 << 63] {
            let mut states = two();
            let invalid = PsciOutcome::Return(error(INVALID_PARAMETERS));
            assert_eq!(states.perform(0, on(1 | bits)), invalid);
            let target = 1 | bits;
            let info = PsciCall::AffinityInfo { target, level: 0 };
            assert_eq!(states.perform(0, info), invalid);
        }
    }

    #[test]
    fn a_reset_is_the_architectures_or_a_vendors() {
        let reset = |kind| {
            let call = PsciCall::decode(GuestFunction::SystemReset2, [kind, 0, 0]).unwrap();
            two().perform(0, call)
        };
        for kind in [0, 1 << 31, 0xffff_ffff] {
            let outcome = PsciOutcome::System(SystemEvent::Reset(kind));
            assert_eq!((reset(kind), reset(kind | 1 << 32)), (outcome, outcome));
        }
        for kind in [1, 0x7fff_ffff] {
            let outcome = PsciOutcome::Return(error(INVALID_PARAMETERS));
            assert_eq!(reset(kind), outcome);
        }
    }

    #[test]
    fn affinity_info_tells_the_state() {
        let mut states = two();
        let info = |states: &mut PowerStates, target, level| {
            states.perform(0, PsciCall::AffinityInfo { target, level })
        };
        assert_eq!(info(&mut states, 0, 0), PsciOutcome::Return(0));
        assert_eq!(info(&mut states, 1, 0), PsciOutcome::Return(1));
        states.perform(0, on(1));
        assert_eq!(info(&mut states, 1, 0), PsciOutcome::Return(2));
        assert_eq!(info(&mut states, 0, 1), PsciOutcome::Return(0));
        assert_eq!(
            info(&mut states, 5, 0),
            PsciOutcome::Return(error(INVALID_PARAMETERS))
        );
        assert_eq!(
            info(&mut states, 0, 4),
            PsciOutcome::Return(error(INVALID_PARAMETERS))
        );
    }

    #[test]
    fn features_offer_what_decodes() {
        let mut states = two();
        let mut ask = |function| states.perform(0, PsciCall::Features(function));
        for function in [
            0x8400_0000,
            0xc400_0003,
            0x8400_0003,
            0x8400_0008,
            0xc400_0012,
            0x8000_0000,
        ] {
            assert_eq!(ask(function), PsciOutcome::Return(0));
        }
        for function in [
            0xc400_0000,
            0x8400_000e,
            0xc400_000e,
            0x8400_0005,
            0,
            u32::MAX,
        ] {
            assert_eq!(ask(function), PsciOutcome::Return(error(NOT_SUPPORTED)));
        }
    }
}
