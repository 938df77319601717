//! How EL2 ends when it finds itself wrong: it speaks, then stops or resets the machine (by feature `panic-reset`).
//!
//! Said are the message and its place, or the fault with its registers; a backtrace as offsets into the ELF file, for
//! `addr2line -e pinfold`; the last calls and exits of this CPU, if the image has a trace. Before that all other CPUs are stopped: the host's stage 2 is
//! emptied, so that each faults into EL2, where [`park_if_panicking`] keeps it. A fault while speaking ends it at once.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, SPSR_EL2};

use crate::console::{self, Uart};
use crate::percpu::{self, PerCpu, SLOT_BYTES, STACKS};
use crate::sysreg::Readable;
use crate::translation::table::{ENTRIES, Table};
use crate::translation::tlb;
use crate::width::narrow;
use crate::{host, psci, semihosting, symbols, syndrome, trace};

/// Set once, by the CPU that panics first.
static PANICKING: AtomicBool = AtomicBool::new(false);

/// The longest backtrace.
const DEEPEST: usize = 24;

/// What `emergency` in vectors.S saved: x0 to x30, then SP.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct FaultFrame {
    x: [u64; 31],
    sp: u64,
}

/// Whether a CPU panics.
pub(crate) fn has_begun() -> bool {
    PANICKING.load(Ordering::Relaxed)
}

/// Keeps this CPU here for ever if another one panics.
pub(crate) fn park_if_panicking() {
    if has_begun() {
        psci::park();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let cpu = begin();
    say(format_args!(
        "panic on CPU {}: {}",
        cpu.index(),
        info.message()
    ));
    if let Some(place) = info.location() {
        say(format_args!("  at {}:{}", place.file(), place.line()));
    }
    end(cpu, frame_pointer())
}

/// An exception from EL2 itself, or one from the host that cannot be: `vector` is its number in the table.
pub(crate) extern "C" fn fault_at_el2(frame: &FaultFrame, vector: u64) -> ! {
    let cpu = begin();
    let esr = ESR_EL2.get();
    say(format_args!(
        "fault at EL2 on CPU {}: {}",
        cpu.index(),
        syndrome::kind(vector, esr)
    ));
    say(format_args!("  {}", syndrome::cause(esr)));
    let pc = ELR_EL2.get();
    say(format_args!(
        "  ESR {esr:#x} ELR {pc:#x} FAR {:#x} HPFAR {:#x}",
        FAR_EL2.get(),
        HPFAR_EL2.get()
    ));
    say(format_args!(
        "  SPSR {:#x} SP {:#x} image at {:#x}",
        SPSR_EL2.get(),
        frame.sp,
        symbols::image_start()
    ));
    for (group, four) in frame.x.chunks(4).enumerate() {
        say(format_args!("  x{:<2} {four:016x?}", group * 4));
    }
    say(format_args!("  from {:#x}", offset(narrow(pc))));
    let [.., x29, _x30] = frame.x;
    end(cpu, narrow(x29))
}

fn say(line: core::fmt::Arguments<'_>) {
    // The UART takes every byte or drops it.
    let _ = writeln!(Uart, "pinfold: {line}");
}

/// Makes this CPU the one that panics, and stops the others.
fn begin() -> &'static PerCpu {
    let cpu = percpu::current();
    if cpu.panicking.swap(true, Ordering::Relaxed) {
        finish();
    }
    if PANICKING.swap(true, Ordering::Relaxed) {
        psci::park();
    }
    empty_host_stage2();
    console::switch_on();
    cpu
}

fn empty_host_stage2() {
    let root = narrow(host::vttbr());
    if root == 0 {
        return;
    }
    for address in [root, root + size_of::<Table>()] {
        // SAFETY: the root is two frames of descriptors, mapped for good.
        let table = unsafe { Table::at(address) };
        for index in 0..ENTRIES {
            table.store(index, 0);
        }
    }
    tlb::invalidate_all();
}

fn frame_pointer() -> usize {
    let pointer: usize;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, x29", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// An address in the ELF file, which is linked at 0.
fn offset(address: usize) -> usize {
    address.wrapping_sub(symbols::image_start())
}

/// Says where this came from, then ends the machine.
fn end(cpu: &PerCpu, frame: usize) -> ! {
    let slot = STACKS.as_ptr().addr() + cpu.index() * SLOT_BYTES;
    let mut frame = frame;
    for _ in 0..DEEPEST {
        // A frame record is x29 and x30 (AAPCS64, 6.4.6); records go up the stack.
        if !frame.is_multiple_of(16) || !(slot..slot + SLOT_BYTES - 16).contains(&frame) {
            break;
        }
        let record = core::ptr::with_exposed_provenance::<[usize; 2]>(frame);
        // SAFETY: within this CPU's stacks; if it is in a guard, the fault ends us at once.
        let [next, return_address] = unsafe { record.read_volatile() };
        say(format_args!("  from {:#x}", offset(return_address)));
        if next <= frame {
            break;
        }
        frame = next;
    }
    trace::say_last(cpu);
    finish()
}

fn finish() -> ! {
    semihosting::exit_if_wanted(2);
    #[cfg(feature = "panic-reset")]
    psci::reset();
    #[cfg(not(feature = "panic-reset"))]
    psci::power_off()
}
