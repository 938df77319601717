//! Scenarios about PSCI, and the ways to call.

use pinfold_abi::claim;
use pinfold_spec::GuestEvent;

use crate::lockstep::{GUEST, Judged, Lockstep};

scenarios! {
    versions, features, unknown_functions, affinity, affinity_nobody, suspends, starts_narrow, starts_nobody, resets, reset_reserved,
    calls_by_smc, calls_by_immediate, smc_repeats,
}

const CPU_SUSPEND: u64 = 0x8400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xC400_0003;
const AFFINITY_INFO: u64 = 0x8400_0004;
const FEATURES: u64 = 0x8400_000A;
const SYSTEM_RESET2: u64 = 0x8400_0012;
const WIDE: u64 = 1 << 30;

/// A started VM whose vCPU 0 runs.
fn running() -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    Ok((both, vm))
}

impl Lockstep {
    /// vCPU 0 calls PSCI.
    fn psci(&mut self, vm: claim::Handle, x: [u64; 4]) -> Judged {
        self.guest(vm, 0, x, GuestEvent::Call)
    }
}

fn versions() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for function in [0x8400_0000, 0x8400_0006, 0x1_8400_0000] {
        both.psci(vm, [function, 1, 2, 3])?;
    }
    Ok(both)
}

fn features() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for function in (0..0x20).flat_map(|n| [0x8400_0000 | n, 0xC400_0000 | n]) {
        both.psci(vm, [FEATURES, function, 0, 0])?;
    }
    for function in [0x8000_0000, 0x8000_0001, 0, 0xC600_0003, 0x7_8400_0000] {
        both.psci(vm, [FEATURES, function, 0, 0])?;
    }
    Ok(both)
}

fn unknown_functions() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for n in [
        0, 2, 5, 6, 7, 8, 9, 0xA, 0xB, 0xD, 0xE, 0xF, 0x11, 0x13, 0x1F,
    ] {
        both.psci(vm, [0xC400_0000 | n, 0, 0, 0])?;
    }
    for n in [5, 7, 0xB, 0xC, 0xE, 0x10, 0x14, 0x1F] {
        both.psci(vm, [0x8400_0000 | n, 0, 0, 0])?;
    }
    Ok(both)
}

fn affinity() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    let asks = |both: &mut Lockstep| {
        for (target, level) in [(0, 0), (1, 0), (0, 1), (7, 1), (0x12, 2), (0xFF_FFFF, 3)] {
            both.psci(vm, [AFFINITY_INFO, target, level, 0])?;
            both.psci(vm, [AFFINITY_INFO | WIDE, target, level, 0])?;
        }
        Ok(())
    };
    asks(&mut both)?;
    both.psci(vm, [CPU_ON, 1, GUEST << 12, 5])?;
    both.run(vm, 0, 0)?;
    asks(&mut both)?;
    both.run(vm, 1, 0)?;
    asks(&mut both)?;
    both.guest(vm, 1, [CPU_OFF, 0, 0, 0], GuestEvent::Call)?;
    asks(&mut both)?;
    Ok(both)
}

fn affinity_nobody() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for (target, level) in [
        (2, 0),
        (0x100, 0),
        (0x100, 1),
        (1 << 32, 3),
        (1 << 24, 0),
        (1 << 31, 3),
        (1 << 40, 3),
        (0, 4),
        (0, u64::MAX),
    ] {
        both.psci(vm, [AFFINITY_INFO | WIDE, target, level, 0])?;
    }
    Ok(both)
}

fn suspends() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for (function, state) in [(CPU_SUSPEND, 0), (CPU_SUSPEND | WIDE, 1 << 16)] {
        both.psci(vm, [function, state, GUEST << 12, 9])?;
        both.run(vm, 0, 0)?;
    }
    Ok(both)
}

/// What is above 32 bits in the arguments of a call with 32-bit ones is not there.
fn starts_narrow() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    let high = 0xABCD << 40;
    both.psci(vm, [CPU_ON & !WIDE, high | 1, high | 0x4000_0000, high | 3])?;
    both.run(vm, 1, 0)?;
    Ok(both)
}

fn starts_nobody() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for target in [
        0,
        2,
        8,
        0x101,
        1 << 32 | 1,
        1 << 24 | 1,
        1 << 31 | 1,
        1 << 40 | 1,
    ] {
        both.psci(vm, [CPU_ON, target, GUEST << 12, 5])?;
    }
    Ok(both)
}

fn resets() -> Judged<Lockstep> {
    for (function, kind) in [
        (SYSTEM_RESET2, 0),
        (SYSTEM_RESET2, 0x8000_0000),
        (SYSTEM_RESET2 | WIDE, 0x8000_0007),
        (SYSTEM_RESET2 | WIDE, 1 << 32),
    ] {
        let (mut both, vm) = running()?;
        both.psci(vm, [function, kind, 7, 0])?;
        both.run(vm, 0, 0)?;
        both.run(vm, 1, 0)?;
    }
    Ok(Lockstep::boot())
}

fn reset_reserved() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for kind in [1, 2, 0x7FFF_FFFF] {
        both.psci(vm, [SYSTEM_RESET2, kind, 0, 0])?;
        both.psci(vm, [SYSTEM_RESET2 | WIDE, kind, 0, 0])?;
    }
    Ok(both)
}

/// By an instruction with an immediate.
const fn by(smc: bool, immediate: u16) -> GuestEvent {
    GuestEvent::CallBy { smc, immediate }
}

fn calls_by_smc() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for function in [0x8000_0000, 0x8600_FF01, 0x8400_0000, 0xC600_0005] {
        both.guest(vm, 0, [function, 0, 0, 0], by(true, 0))?;
        both.guest(vm, 0, [function, 0, 0, 0], by(false, 0))?;
    }
    Ok(both)
}

fn calls_by_immediate() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    for immediate in [1, 0x8000, u16::MAX] {
        both.guest(vm, 0, [0x8000_0000, 0, 0, 0], by(true, immediate))?;
        both.guest(vm, 0, [0x8400_0008, 0, 0, 0], by(false, immediate))?;
    }
    Ok(both)
}

/// A share of missing memory is made again, from where the `SMC` is.
fn smc_repeats() -> Judged<Lockstep> {
    let (mut both, vm) = running()?;
    let share = [super::SHARE, GUEST << 12, 0, 0];
    both.guest(vm, 0, share, by(true, 0))?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, share, by(true, 0))?;
    Ok(both)
}
