//! The one semihosting call that EL2 makes: ending QEMU with an exit code.
//!
//! Only when EL2's own arguments ask for it: without semihosting HLT is undefined. Arm "Semihosting for AArch32 and
//! AArch64", SYS_EXIT.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// SYS_EXIT.
const EXIT: u64 = 0x18;
/// ADP_Stopped_ApplicationExit: the code follows.
const APPLICATION_EXIT: u64 = 0x2_0026;

static WANTED: AtomicBool = AtomicBool::new(false);

/// Says that [`exit`] may be used.
pub(crate) fn allow() {
    WANTED.store(true, Ordering::Relaxed);
}

/// Ends QEMU with `code`, if that was asked for; else returns.
pub(crate) fn exit_if_wanted(code: u64) {
    if WANTED.load(Ordering::Relaxed) {
        let block = [APPLICATION_EXIT, code];
        // SAFETY: QEMU reads the block, which lives across the call, and does not return.
        unsafe {
            asm!("hlt #0xf000", in("x0") EXIT, in("x1") block.as_ptr(), options(nostack, readonly));
        }
    }
}
