//! Jobs on other CPUs: each is a PSCI `CPU_ON`, a function, and a `CPU_OFF`.
//!
//! There are no idle loops and no wake-ups to lose, and EL2's PSCI relay is exercised by every job.
//! Invariant: a CPU's slot is `Some` from [`begin`] until the job's result was put into it; [`Job::result`] waits for both the result and the CPU being off.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_test::lock::SpinMutex;
use guest_test::smccc::{self, psci};
use guest_test::tap::Failure;
use guest_test::{bytes, gic, start, timer};

use crate::platform;

/// What a CPU is to do.
pub(crate) type Work = fn(u64) -> u64;

/// One CPU's job.
struct Slot {
    work: SpinMutex<Option<(Work, u64)>>,
    result: AtomicU64,
    done: AtomicU64,
}

static SLOTS: [Slot; start::CPUS] = [const {
    Slot {
        work: SpinMutex::new(None),
        result: AtomicU64::new(0),
        done: AtomicU64::new(0),
    }
}; start::CPUS];

/// A job that runs on another CPU.
#[must_use]
pub(crate) struct Job {
    cpu: usize,
}

/// How many CPUs there are.
pub(crate) fn cpus() -> usize {
    platform::machine().cpus.len().min(start::CPUS)
}

/// Fails as skipped if there are fewer CPUs.
pub(crate) fn need(count: usize) -> Result<(), Failure> {
    if cpus() >= count {
        Ok(())
    } else {
        Err(Failure::skip(format_args!(
            "needs {count} CPUs, has {}",
            cpus()
        )))
    }
}

/// Starts `work(argument)` on CPU `cpu` (not 0).
pub(crate) fn begin(cpu: usize, work: Work, argument: u64) -> Result<Job, Failure> {
    let slot = SLOTS
        .get(cpu)
        .ok_or_else(|| Failure::new(format_args!("no slot for CPU {cpu}")))?;
    let mpidr = platform::machine()
        .cpus
        .get(cpu)
        .copied()
        .unwrap_or(u64::MAX);
    *slot.work.lock() = Some((work, argument));
    slot.done.store(0, Ordering::Release);
    let answer = smccc::smc(
        psci::CPU_ON,
        &[mpidr, start::secondary_entry_point(), bytes::word(cpu)],
    );
    match answer {
        [0, ..] => Ok(Job { cpu }),
        [refusal, ..] => Err(Failure::new(format_args!(
            "CPU_ON of CPU {cpu} gave {refusal:#x}"
        ))),
    }
}

impl Job {
    /// The job has put its result down.
    pub(crate) fn is_done(&self) -> bool {
        SLOTS
            .get(self.cpu)
            .is_some_and(|slot| slot.done.load(Ordering::Acquire) != 0)
    }

    /// Waits for the result, and for the CPU to be off again.
    pub(crate) fn result(self) -> Result<u64, Failure> {
        let deadline = timer::now() + timer::milliseconds(60_000);
        let mpidr = platform::machine()
            .cpus
            .get(self.cpu)
            .copied()
            .unwrap_or(u64::MAX);
        while !self.is_done() || smccc::smc(psci::AFFINITY_INFO, &[mpidr, 0])[0] != 1 {
            if timer::now() > deadline {
                return Err(Failure::new(format_args!(
                    "CPU {} did not end its job within 60 s",
                    self.cpu
                )));
            }
            core::hint::spin_loop();
        }
        Ok(SLOTS
            .get(self.cpu)
            .map_or(0, |slot| slot.result.load(Ordering::Acquire)))
    }
}

/// A further CPU's life.
pub(crate) fn serve(index: u64) -> ! {
    gic::start(index);
    gic::enable(index, timer::PHYSICAL_INTID);
    if let Some(slot) = SLOTS.get(bytes::size(index)) {
        let job = slot.work.lock().take();
        if let Some((work, argument)) = job {
            slot.result.store(work(argument), Ordering::Release);
        }
        slot.done.store(1, Ordering::Release);
    }
    let _answer = smccc::smc(psci::CPU_OFF, &[]);
    start::park()
}
