//! The generic timer (DDI 0487 D12): the counter, and one alarm each for guest (virtual) and mini host (physical).

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable,
    Writeable,
};

/// INTID of the virtual timer.
pub const VIRTUAL_INTID: u32 = 27;
/// INTID of the non-secure physical timer.
pub const PHYSICAL_INTID: u32 = 30;

/// The virtual counter now.
#[must_use]
pub fn now() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// Ticks in so many milliseconds.
#[must_use]
pub fn milliseconds(count: u64) -> u64 {
    CNTFRQ_EL0.get().saturating_mul(count) / 1000
}

/// Lets the virtual timer's line rise at `deadline`.
pub fn arm_virtual(deadline: u64) {
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
    barrier::isb(barrier::SY);
}

/// Lowers the virtual timer's line and keeps it down.
pub fn stop_virtual() {
    CNTV_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}

/// Lets the physical timer's line rise at `deadline`.
pub fn arm_physical(deadline: u64) {
    CNTP_CVAL_EL0.set(deadline);
    CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::SET);
    barrier::isb(barrier::SY);
}

/// Lowers the physical timer's line and keeps it down.
pub fn stop_physical() {
    CNTP_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}
