//! Power: CPUs that the host starts come up at EL1 behind EL2, and nonsense is refused.

use guest_test::smccc::{self, psci};
use guest_test::{check_eq, memory_probe, start, tests};

use super::snapshot;
use crate::calls::State;
use crate::{platform, smp};

/// Level of the CPU, and whether a frame of EL2's can be read.
fn look_around(el2_frame: u64) -> u64 {
    let refused = memory_probe::read(el2_frame << 12)
        .is_err_and(guest_test::probe::Fault::has_hypervisor_mark);
    start::exception_level() | u64::from(refused) << 8
}

/// A frame that is EL2's.
pub(crate) fn el2_frame() -> Result<u64, guest_test::tap::Failure> {
    let ram = snapshot::ram()?;
    for pfn in ram.first..ram.first + ram.count {
        if snapshot::state(pfn)? == Some(State::Hyp) {
            return Ok(pfn);
        }
    }
    Err(guest_test::tap::Failure::new(format_args!(
        "no frame of RAM is EL2's"
    )))
}

tests! { "processors":
    /// Every further CPU comes up at EL1, with EL2's memory out of reach, ten times.
    further_cpus_come_up_at_el1 {
        smp::need(2)?;
        let frame = el2_frame()?;
        for round in 0..10 {
            for cpu in 1..smp::cpus() {
                let seen = smp::begin(cpu, look_around, frame)?.result()?;
                check_eq!(seen, 0x101, "level and refusal seen by CPU {cpu} in round {round}");
            }
        }
    }

    /// `CPU_ON` of CPUs that are not there, of this CPU, and of a CPU that is on.
    cpu_on_garbage {
        let entry = start::secondary_entry_point();
        for mpidr in [0xff, 0xff00, 0xff_0000, 1 << 32, u64::MAX, 1 << 63] {
            let [x0, ..] = smccc::smc(psci::CPU_ON, &[mpidr, entry, 0]);
            check_eq!(smccc::signed(x0), psci::INVALID_PARAMETERS, "CPU_ON of {mpidr:#x}");
        }
        let this = platform::machine().cpus.first().copied().unwrap_or(0);
        let [x0, ..] = smccc::smc(psci::CPU_ON, &[this, entry, 0]);
        check_eq!(smccc::signed(x0), psci::ALREADY_ON, "CPU_ON of this CPU");
    }

    /// `AFFINITY_INFO` knows who is on.
    affinity_info {
        let cpus = &platform::machine().cpus;
        for (index, mpidr) in cpus.iter().enumerate() {
            let [x0, ..] = smccc::smc(psci::AFFINITY_INFO, &[*mpidr, 0]);
            check_eq!(x0, u64::from(index != 0), "AFFINITY_INFO of CPU {index}");
        }
        let [x0, ..] = smccc::smc(psci::AFFINITY_INFO, &[0xff_ffff, 0]);
        check_eq!(smccc::signed(x0), psci::INVALID_PARAMETERS, "AFFINITY_INFO of nobody");
    }

    /// All CPUs at once, each many times.
    all_cpus_at_once {
        smp::need(2)?;
        let frame = el2_frame()?;
        for _ in 0..20 {
            let jobs: alloc::vec::Vec<_> = (1..smp::cpus()).map(|cpu| smp::begin(cpu, look_around, frame)).collect();
            for job in jobs {
                check_eq!(job?.result()?, 0x101, "level and refusal");
            }
        }
    }

    /// Nobody comes back from EL2 anywhere but at EL1.
    this_cpu_is_at_el1 {
        check_eq!(start::exception_level(), 1, "CurrentEL");
    }
}
