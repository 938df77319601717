//! The console: EL2's lines on the PL011 that it shares with the host, behind `log`.
//!
//! A character waits for room in the transmit FIFO, but not for ever: the host owns the UART's settings and may have
//! stopped it. Lines are whole among EL2's CPUs (one lock); a panic writes without the lock. The only home of MMIO of the
//! UART. Registers: Arm DDI 0183, chapter 3.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::lock::SpinMutex;
use log::{LevelFilter, Log, Metadata, Record};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::{ReadOnly, ReadWrite};
use tock_registers::{register_bitfields, register_structs};

use crate::mmu::FALLBACK_UART;

register_bitfields! {
    u32,
    Flags [
        TransmitFifoFull OFFSET(5) NUMBITS(1) [],
    ],
    Control [
        Enable OFFSET(0) NUMBITS(1) [],
        TransmitEnable OFFSET(8) NUMBITS(1) [],
    ],
}

register_structs! {
    Pl011 {
        (0x00 => data: ReadWrite<u32>),
        (0x04 => _reserved),
        (0x18 => flags: ReadOnly<u32, Flags::Register>),
        (0x1c => _line_settings),
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => @END),
    }
}

/// How often a full FIFO is looked at before the character is dropped.
const PATIENCE: u32 = 100_000;

static BASE: AtomicUsize = AtomicUsize::new(FALLBACK_UART);
static LINE: SpinMutex<()> = SpinMutex::new(());

/// Writes to the UART as it is; [`Log`] and the panic stand on it.
pub(crate) struct Uart;

fn registers() -> &'static Pl011 {
    let pointer = core::ptr::with_exposed_provenance::<Pl011>(BASE.load(Ordering::Relaxed));
    // SAFETY: `BASE` is only ever a PL011's frame that mmu.rs maps as device memory, for good.
    unsafe { &*pointer }
}

fn put(byte: u8) {
    let uart = registers();
    let mut patience = PATIENCE;
    while uart.flags.is_set(Flags::TransmitFifoFull) {
        patience -= 1;
        if patience == 0 {
            return;
        }
        core::hint::spin_loop();
    }
    uart.data.set(u32::from(byte));
}

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
        Ok(())
    }
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let _line = LINE.lock();
        // The UART takes every byte or drops it; it never fails.
        let _ = writeln!(Uart, "pinfold: {}", record.args());
    }

    fn flush(&self) {}
}

/// Switches the UART on: no firmware has done it, and the host may have undone it.
pub(crate) fn switch_on() {
    registers()
        .control
        .modify(Control::Enable::SET + Control::TransmitEnable::SET);
}

/// Makes `log` speak.
pub(crate) fn set_up() {
    switch_on();
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Moves the console to the PL011 at `base`.
///
/// # Safety
/// A PL011's registers are mapped there as device memory and stay so.
pub(crate) unsafe fn use_uart_at(base: usize) {
    BASE.store(base, Ordering::Relaxed);
    switch_on();
}
