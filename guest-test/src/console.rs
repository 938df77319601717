//! The console: bytes to the UART at `0x0900_0000`.
//!
//! On QEMU's `virt` machine, a PL011 is there (data register at offset 0, DDI 0183); a guest finds a 16550 (transmit holding register at offset 0). A byte
//! stored to offset 0 is a character for both, and neither ever refuses one: QEMU's devices take a byte at once.
//! Invariant: a line is printed whole, also when several CPUs print.

use core::fmt::{Arguments, Write};

use crate::lock::SpinMutex;

use crate::mmio;

/// Address of the UART's data register, for the mini host and for guests.
pub const UART: u64 = 0x0900_0000;

static LINE: SpinMutex<Uart> = SpinMutex::new(Uart);

/// The UART as a place to write text to.
struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the UART's page is device memory in every map that `mmu` makes.
            unsafe { mmio::write8(UART, byte) };
        }
        Ok(())
    }
}

/// Prints one line; [`line!`](crate::line) is the short way to call it.
pub fn print_line(text: Arguments<'_>) {
    let mut uart = LINE.lock();
    // The UART takes everything, so the only error would be one of a Display implementation.
    if uart
        .write_fmt(text)
        .and_then(|()| uart.write_str("\n"))
        .is_err()
    {
        uart.write_str("<unprintable>\n").unwrap_or_default();
    }
}

/// Prints bytes as they are, without a line end.
pub fn print_bytes(bytes: &[u8]) {
    let _uart = LINE.lock();
    for byte in bytes {
        // SAFETY: the UART's page is device memory in every map that `mmu` makes.
        unsafe { mmio::write8(UART, *byte) };
    }
}

/// Prints one line, formatted as by `println!`.
#[macro_export]
macro_rules! line {
    ($($text:tt)*) => { $crate::console::print_line(format_args!($($text)*)) };
}
