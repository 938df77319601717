//! Barriers, by what they are for; the only home of DSB and ISB in Rust.
//!
//! Each is also a compiler barrier for memory: `aarch64-cpu`'s register writes are not.

use core::arch::asm;

use aarch64_cpu::asm::barrier::{self, ISH, ISHST, NSH, SY};

/// Orders stores to descriptors before what any walker of the inner shareable domain does next.
pub(crate) fn descriptors_written() {
    barrier::dsb(ISHST);
    report!(Dsb(pinfold_protocol::Dsb::InnerStores));
}

/// Waits until every TLB and cache operation has been done on all CPUs.
pub(crate) fn all_cpus() {
    barrier::dsb(ISH);
    report!(Dsb(pinfold_protocol::Dsb::Inner));
}

/// Waits until every TLB and cache operation has been done on this CPU.
pub(crate) fn this_cpu() {
    barrier::dsb(NSH);
    report!(Dsb(pinfold_protocol::Dsb::Local));
}

/// Waits for everything, devices included.
pub(crate) fn system() {
    barrier::dsb(SY);
    report!(Dsb(pinfold_protocol::Dsb::System));
}

/// Makes the writes to system registers so far hold for the next instruction.
pub(crate) fn context() {
    barrier::isb(SY);
    report!(Isb);
}

/// Waits until profiling has written its records (PSB CSYNC; a NOP where there is none).
pub(crate) fn profile() {
    // SAFETY: a barrier changes nothing.
    unsafe { asm!("hint #17", options(nostack, preserves_flags)) };
}

/// Waits until tracing has written its records (TSB CSYNC; a NOP where there is none).
pub(crate) fn trace() {
    // SAFETY: a barrier changes nothing.
    unsafe { asm!("hint #18", options(nostack, preserves_flags)) };
}
