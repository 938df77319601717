//! MMIO of the guest, and registers of its virtual GIC.

use core::arch::global_asm;

use guest_test::{check, check_eq, gic, memory_probe, mmio, port, probe, tests};

/// An address outside RAM and of no device that the mini host knows.
const HOLE: u64 = 0x0c00_0000;

unsafe extern "C" {
    fn guest_load_pair(address: u64, unused: u64) -> u64;
    fn guest_store_writeback(address: u64, unused: u64) -> u64;
    fn guest_load_signed(address: u64, unused: u64) -> u64;
}

global_asm!(
    r#"
    .text
guest_load_pair:
    ldp     x0, x1, [x0]
    ret
guest_store_writeback:
    str     x1, [x0], #8
    mov     x0, #0
    ret
guest_load_signed:
    ldrsb   x0, [x0]
    ret
    "#
);

tests! { "devices":
    /// Words of all widths go out and come back, extended as the instruction says.
    widths {
        for (width, value) in [(1_u64, 0x80_u64), (2, 0x8001), (4, 0x8000_0001), (8, 0x8000_0000_0000_0001)] {
            port::tell(width);
            check_eq!(ask(width), value, "{width} bytes");
        }
        port::tell(1);
        // SAFETY: one load.
        let signed = unsafe { probe::call(guest_load_signed, port::ASK, 0) };
        check_eq!(signed, Ok(0xffff_ffff_ffff_ff80), "sign-extended byte");
    }

    /// Accesses that carry no syndrome cannot be emulated: the guest gets an abort and lives.
    without_syndrome {
        let routines: [(probe::Routine, &str); 2] = [(guest_load_pair, "pair"), (guest_store_writeback, "write-back")];
        for (routine, what) in routines {
            // SAFETY: one access to a device that touches no memory of this image.
            let fault = unsafe { probe::call(routine, port::ASK, 0) };
            check!(fault.is_err_and(probe::Fault::is_data_abort), "{what}: {fault:x?}");
        }
    }

    /// Fetching instructions from a device ends in an abort of the guest.
    fetch_from_device {
        // SAFETY: nothing is there to be run.
        let fault = unsafe { memory_probe::execute(HOLE) };
        check!(fault.is_err(), "code in a hole ran");
    }

    /// The words of distributor and redistributor can be read and written without harm to anyone: densely where registers are,
    /// sparsely elsewhere.
    gic_swept {
        for frame in [gic::GICD, gic::GICR, gic::GICR + 0x1_0000] {
            for offset in (0..0x1000).step_by(4).chain((0x1000..0xff00).step_by(244)).chain((0xff00..0x1_0000).step_by(4)) {
                sweep(frame + offset);
            }
        }
        for offset in (0..0x1_0000).step_by(997) {
            for base in [gic::GICD, gic::GICR, gic::GICR + 0x1_0000] {
                let _ignored = memory_probe::read_byte(base + offset);
                let _ignored = memory_probe::read((base + offset) & !7);
            }
        }
    }

    /// The distributor says that it is a GICv3 with affinity routing and 256 SPIs at least as many as lines.
    gic_identity {
        let (peripheral, kind) = (read(gic::GICD + 0xffe8), read(gic::GICD + 4));
        check_eq!(peripheral >> 4 & 0xf, 3, "GICD_PIDR2.ArchRev");
        check!(kind & 0x1f >= 8, "GICD_TYPER {kind:#x} has too few lines");
        check_eq!(kind >> 16 & 3, 0, "GICD_TYPER.MBIS and LPIS");
    }
}

/// Reads a word and writes the same and all ones; any fault is the guest's own.
fn sweep(address: u64) {
    let word = read(address);
    for value in [u32::MAX, word] {
        // SAFETY: device memory; the virtual GIC writes no memory, and what is enabled here stays masked in the CPU.
        unsafe { mmio::write32(address, value) };
    }
}

/// Reads a word of the virtual GIC.
fn read(address: u64) -> u32 {
    // SAFETY: device memory.
    unsafe { mmio::read32(address) }
}

/// Asks the mini host for a word of so many bytes.
fn ask(width: u64) -> u64 {
    match width {
        // SAFETY: the port is a device that touches no memory of this image.
        1 => u64::from(unsafe { mmio::read8(port::ASK) }),
        // SAFETY: as above.
        2 => u64::from(unsafe { mmio::read16(port::ASK) }),
        // SAFETY: as above.
        4 => u64::from(unsafe { mmio::read32(port::ASK) }),
        _ => port::ask(),
    }
}
