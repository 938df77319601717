//! Reading and writing addresses that may not be there.
//!
//! Addresses are plain numbers here: nothing that Rust owns is reached through them unless the caller says so.

use core::arch::global_asm;

use crate::probe::{self, Fault, Routine};

unsafe extern "C" {
    fn guest_test_read64(address: u64, unused: u64) -> u64;
    fn guest_test_write64(address: u64, value: u64) -> u64;
    fn guest_test_read8(address: u64, unused: u64) -> u64;
    fn guest_test_jump(address: u64, unused: u64) -> u64;
}

global_asm!(
    r#"
    .text
guest_test_read64:
    ldr     x0, [x0]
    ret
guest_test_write64:
    str     x1, [x0]
    ret
guest_test_read8:
    ldrb    w0, [x0]
    ret
guest_test_jump:
    br      x0
    "#
);

/// Runs one of the routines above; a fault leaves memory as it was.
fn run(routine: Routine, address: u64, value: u64) -> Result<u64, Fault> {
    // SAFETY: the routines are one access and a return; what they may reach is said at the functions below.
    unsafe { probe::call(routine, address, value) }
}

/// Reads a 64-bit word.
pub fn read(address: u64) -> Result<u64, Fault> {
    run(guest_test_read64, address, 0)
}

/// Reads one byte.
pub fn read_byte(address: u64) -> Result<u64, Fault> {
    run(guest_test_read8, address, 0)
}

/// Writes a 64-bit word.
///
/// # Safety
/// Rust owns nothing at `address`.
pub unsafe fn write(address: u64, value: u64) -> Result<(), Fault> {
    run(guest_test_write64, address, value).map(|_| ())
}

/// Jumps to `address`; only a fault comes back, or the return of code that is there.
///
/// # Safety
/// What may be there is code that keeps to the calling convention, or nothing.
pub unsafe fn execute(address: u64) -> Result<u64, Fault> {
    run(guest_test_jump, address, 0)
}
