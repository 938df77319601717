//! [`SpinMutex`]: spin's, and who waits for it says so.

use core::arch::asm;

use spin::relax::RelaxStrategy;

/// A lock that is waited for with `YIELD`: the CPU that is to release it may be this one's neighbour, or the same machine's thread.
pub(crate) type SpinMutex<T> = spin::mutex::SpinMutex<T, Yield>;

/// What such a lock guards, while this CPU holds it.
pub(crate) type SpinMutexGuard<'a, T> = spin::mutex::SpinMutexGuard<'a, T, Yield>;

/// The hint that a CPU has nothing better to do (DDI 0487, C6.2: `YIELD`). An emulator that runs CPUs in turn goes on with the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yield;

impl RelaxStrategy for Yield {
    fn relax() {
        // SAFETY: a hint; it changes nothing.
        unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) }
    }
}
