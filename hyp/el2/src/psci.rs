//! PSCI and the filter of the host's SMCs (PSCI DEN0022; SMCCC DEN0028).
//!
//! Every SMC of the host ends here. What starts a CPU or brings one back is relayed with EL2's own entry point, so that
//! no CPU ever runs the host at EL2; what only asks or stops is relayed as it is; everything else is NOT_SUPPORTED.
//!
//! A CPU's life is one word of its block: `OFF` -> `PENDING` by the `CPU_ON` that claims it, `PENDING` -> `ON` by the CPU
//! itself when it has read its entry point, `ON` -> `OFF` by its own `CPU_OFF`. Only the claimer writes entry and context.

use core::sync::atomic::Ordering;

use smccc::psci::{
    PSCI_AFFINITY_INFO_32, PSCI_AFFINITY_INFO_64, PSCI_CPU_OFF, PSCI_CPU_ON_32, PSCI_CPU_ON_64,
    PSCI_CPU_SUSPEND_32, PSCI_CPU_SUSPEND_64, PSCI_FEATURES, PSCI_MIGRATE_INFO_TYPE,
    PSCI_SYSTEM_OFF, PSCI_SYSTEM_RESET, PSCI_SYSTEM_RESET2_32, PSCI_SYSTEM_RESET2_64,
    PSCI_SYSTEM_SUSPEND_32, PSCI_SYSTEM_SUSPEND_64, PSCI_VERSION,
};

use crate::percpu::{self, PerCpu, power};
use crate::platform::AFFINITY;
use crate::width::wide;
use crate::{cache, hypervisor, judged, symbols, sysreg};

/// SMCCC_VERSION, which PSCI_FEATURES may ask about.
const SMCCC_VERSION: u32 = smccc::arch::SMCCC_VERSION;

const NOT_SUPPORTED: u64 = error(-1);
const INVALID_PARAMETERS: u64 = error(-2);
const ALREADY_ON: u64 = error(-4);
const ON_PENDING: u64 = error(-5);

const fn error(code: i64) -> u64 {
    code.cast_unsigned()
}

/// Answers the host's SMC: x0 to x3 in, x0 out.
pub(crate) fn host_smc(x: [u64; 4]) -> u64 {
    let [function, first, second, third] = x;
    // SMCCC 2.5.1: the function is in W0.
    let function = low(function);
    match function {
        PSCI_CPU_ON_64 => cpu_on(function, first, second, third),
        PSCI_CPU_ON_32 => cpu_on(PSCI_CPU_ON_64, narrow(first), narrow(second), narrow(third)),
        PSCI_CPU_SUSPEND_64 => suspend(function, Some(first), second, third),
        PSCI_CPU_SUSPEND_32 => suspend(
            PSCI_CPU_SUSPEND_64,
            Some(narrow(first)),
            narrow(second),
            narrow(third),
        ),
        PSCI_SYSTEM_SUSPEND_64 => suspend(function, None, first, second),
        PSCI_SYSTEM_SUSPEND_32 => {
            suspend(PSCI_SYSTEM_SUSPEND_64, None, narrow(first), narrow(second))
        }
        PSCI_CPU_OFF => cpu_off(),
        PSCI_FEATURES => features(low(first)),
        PSCI_SYSTEM_OFF | PSCI_SYSTEM_RESET => end(function, [0; 3]),
        PSCI_SYSTEM_RESET2_32 | PSCI_SYSTEM_RESET2_64 => {
            // Only what the firmware will do for certain: there is no way back.
            let known = firmware(PSCI_FEATURES, [u64::from(function), 0, 0]);
            match (known, low(first)) {
                (0, 0) => end(function, [first, second, 0]),
                (0, _) => INVALID_PARAMETERS,
                _ => NOT_SUPPORTED,
            }
        }
        _ if is_passed(function) => firmware(function, [first, second, third]),
        _ => NOT_SUPPORTED,
    }
}

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn narrow(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// Switches the machine off or resets it, with nothing of a guest left in RAM. The lock is kept, so that no CPU goes on.
fn end(function: u32, arguments: [u64; 3]) -> u64 {
    let mut hypervisor = hypervisor::lock();
    judged::end_guests(&mut hypervisor);
    firmware(function, arguments)
}

/// Functions that ask or stop: the firmware may answer them to the host as they are.
const fn is_passed(function: u32) -> bool {
    matches!(
        function,
        PSCI_VERSION
            | PSCI_AFFINITY_INFO_32
            | PSCI_AFFINITY_INFO_64
            | PSCI_MIGRATE_INFO_TYPE
            | PSCI_SYSTEM_OFF
            | PSCI_SYSTEM_RESET
            | PSCI_SYSTEM_RESET2_32
            | PSCI_SYSTEM_RESET2_64
            | SMCCC_VERSION
    )
}

fn features(asked: u32) -> u64 {
    let relayed = matches!(
        asked,
        PSCI_CPU_ON_64
            | PSCI_CPU_ON_32
            | PSCI_CPU_SUSPEND_64
            | PSCI_CPU_SUSPEND_32
            | PSCI_SYSTEM_SUSPEND_64
            | PSCI_SYSTEM_SUSPEND_32
            | PSCI_CPU_OFF
            | PSCI_FEATURES
    );
    if relayed || is_passed(asked) {
        firmware(PSCI_FEATURES, [u64::from(asked), 0, 0])
    } else {
        NOT_SUPPORTED
    }
}

/// Calls the firmware.
fn firmware(function: u32, [first, second, third]: [u64; 3]) -> u64 {
    let mut arguments = [0; 17];
    for (argument, value) in arguments.iter_mut().zip([first, second, third]) {
        *argument = value;
    }
    let [answer, ..] = smccc::smc64(function, arguments);
    answer
}

fn cpu_on(function: u32, target: u64, entry: u64, context: u64) -> u64 {
    let Some(cpu) = (target & !AFFINITY == 0)
        .then(|| percpu::by_affinity(target))
        .flatten()
    else {
        return INVALID_PARAMETERS;
    };
    match cpu.power.compare_exchange(
        power::OFF,
        power::PENDING,
        Ordering::Acquire,
        Ordering::Relaxed,
    ) {
        Ok(_) => {}
        Err(power::ON) => return ALREADY_ON,
        Err(_) => return ON_PENDING,
    }
    cpu.entry.store(entry, Ordering::Relaxed);
    cpu.context.store(context, Ordering::Relaxed);
    let answer = firmware(function, [target, own_entry(cpu), wide(cpu.index())]);
    if answer != 0 {
        cpu.power.store(power::OFF, Ordering::Release);
    }
    answer
}

/// EL2's entry point for `cpu`, which starts with its caches off: its block has to be in memory.
fn own_entry(cpu: &PerCpu) -> u64 {
    cache::clean(core::ptr::from_ref(cpu).addr(), size_of::<PerCpu>());
    wide(symbols::secondary_entry())
}

fn suspend(function: u32, state: Option<u64>, entry: u64, context: u64) -> u64 {
    let cpu = percpu::current();
    cpu.entry.store(entry, Ordering::Relaxed);
    cpu.context.store(context, Ordering::Relaxed);
    let own = own_entry(cpu);
    let index = wide(cpu.index());
    // A state that keeps the CPU's registers comes back from this call; one that loses them, at the entry point.
    match state {
        Some(state) => firmware(function, [state, own, index]),
        None => firmware(function, [own, index, 0]),
    }
}

fn cpu_off() -> u64 {
    let cpu = percpu::current();
    cpu.power.store(power::OFF, Ordering::Release);
    let answer = firmware(PSCI_CPU_OFF, [0; 3]);
    // Only a refusal comes back.
    cpu.power.store(power::ON, Ordering::Release);
    answer
}

/// Powers the machine off.
pub(crate) fn power_off() -> ! {
    firmware(PSCI_SYSTEM_OFF, [0; 3]);
    park()
}

/// Resets the machine.
#[cfg(feature = "panic-reset")]
pub(crate) fn reset() -> ! {
    firmware(PSCI_SYSTEM_RESET, [0; 3]);
    park()
}

/// Keeps this CPU from doing anything more, after the firmware did not end it or while another CPU panics.
pub(crate) fn park() -> ! {
    loop {
        sysreg::wait_for_interrupt();
    }
}
