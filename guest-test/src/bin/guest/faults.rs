//! What the guest must not do: each ends in a fault of the guest's own, or in nothing, never in harm to EL2.

use core::arch::{asm, global_asm};

use guest_test::bytes;
use guest_test::probe::{self, Fault, Routine};
use guest_test::{check, check_eq, memory_probe, mmu, port, tests};

unsafe extern "C" {
    fn guest_hvc_with_immediate(a: u64, b: u64) -> u64;
    fn guest_smc(a: u64, b: u64) -> u64;
    fn guest_smc_with_immediate(a: u64, b: u64) -> u64;
    fn guest_return_to_mode(mode: u64, unused: u64) -> u64;
}

global_asm!(
    r#"
    .text
guest_hvc_with_immediate:
    hvc     #0x1234
    ret
guest_smc:
    smc     #0
    ret
guest_smc_with_immediate:
    smc     #0xffff
    ret
guest_return_to_mode:
    msr     spsr_el1, x0
    msr     elr_el1, x30
    eret
    "#
);

/// Where instructions are put together.
const CODE: u64 = port::SCRATCH + 0x1_0000;

/// Runs one instruction.
fn instruction(word: u32) -> Result<u64, Fault> {
    let code = core::ptr::with_exposed_provenance_mut::<u32>(bytes::size(CODE));
    for (index, word) in [word, 0xd65f_03c0].into_iter().enumerate() {
        // SAFETY: scratch memory is no Rust memory.
        let place = unsafe { code.add(index) };
        // SAFETY: as above.
        unsafe { place.write_volatile(word) };
    }
    // SAFETY: cache maintenance by address (DDI 0487 B2.4.4), so that the fetch sees the stores.
    unsafe {
        asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) CODE, options(nostack, preserves_flags));
    }
    // SAFETY: the tests below run only instructions that return or fault and write no register but x0.
    unsafe { memory_probe::execute(CODE) }
}

/// `mrs x0, S<op0>_<op1>_C<crn>_C<crm>_<op2>`, with the 16 bits as DDI 0487 C6.2.228 packs them.
const fn mrs(register: u32) -> u32 {
    0xd530_0000 | (register & 0x7fff) << 5 | 0x0010_0000
}

/// `msr S<..>, xzr`.
const fn msr(register: u32) -> u32 {
    0xd510_0000 | (register & 0x7fff) << 5 | 0x1f
}

tests! { "faults":
    /// HVC with an immediate, and SMC: not there, or undefined; never anything else.
    conduits {
        let routines: [(Routine, &str); 3] =
            [(guest_hvc_with_immediate, "hvc #0x1234"), (guest_smc, "smc #0"), (guest_smc_with_immediate, "smc #0xffff")];
        for (routine, what) in routines {
            for function in [0x8400_0000_u64, 0xc600_0100, 0x8600_ff01, u64::MAX, 0] {
                // SAFETY: the routines are one call and a return.
                let found = unsafe { probe::call(routine, function, 0) };
                let harmless = match found {
                    Ok(value) => value == u64::MAX || value == 0xffff_ffff || value == 0x1_0001 || value == 0xb66f_b428,
                    Err(fault) => fault.is_undefined(),
                };
                check!(harmless, "{what} of {function:#x}: {found:x?}");
            }
        }
    }

    /// Every system register can be tried: a value or an undefined instruction.
    system_registers_read {
        let mut undefined = 0_u32;
        for register in 0..0x8000 {
            match instruction(mrs(register)) {
                Ok(_) => (),
                Err(fault) => {
                    check!(fault.is_undefined() || matches!(fault.class(), 0x07 | 0x18 | 0x19 | 0x1d),
                        "register {register:#x}: {fault:x?}");
                    undefined += 1;
                }
            }
        }
        check!(undefined > 0x4000, "only {undefined} registers are undefined");
    }

    /// Writes to registers that this image does not live from: nothing, or an undefined instruction.
    system_registers_written {
        for register in 0..0x8000_u32 {
            let (op0, op1, crn) = (register >> 14 & 1, register >> 11 & 7, register >> 7 & 15);
            let lives_from_it = op0 == 1 && (op1 == 0 && matches!(crn, 1 | 2 | 4 | 10 | 12 | 13) || op1 == 3 && crn == 4);
            if lives_from_it {
                continue;
            }
            if let Err(fault) = instruction(msr(register)) {
                check!(fault.is_undefined() || matches!(fault.class(), 0x07 | 0x18 | 0x19 | 0x1d), "register {register:#x}: {fault:x?}");
            }
        }
        check_eq!(memory_probe::read(port::RAM).is_ok(), true, "memory after all these writes");
    }

    /// EL2's and EL3's registers are not the guest's.
    higher_registers_are_undefined {
        for op1 in 4..8 {
            for rest in 0..0x800 {
                let register = 1 << 14 | op1 << 11 | rest;
                let found = instruction(mrs(register));
                check!(found.is_err_and(Fault::is_undefined), "register {register:#x}: {found:x?}");
            }
        }
    }

    /// Instructions of higher levels and of extensions that the guest was not given.
    instructions {
        for (word, what) in [
            (0xd50c_7800, "at s1e2r, x0"), (0xd50c_871f, "tlbi alle2"), (0xd50c_83df, "tlbi vmalls12e1is"), (0xd50c_8020, "tlbi ipas2e1is, x0"),
            (0xd6bf_03e0, "drps"), (0xd4a0_0002, "dcps2"), (0xd4a0_0003, "dcps3"), (0x0000_0000, "udf #0"),
            (0x2518_e000, "ptrue p0.b"), (0xd503_477f, "smstart"), (0xd9a0_0000, "ldgm"), (0xf83f_9000, "st64b"),
        ] {
            let found = instruction(word);
            check!(found.is_err_and(|fault| fault.is_undefined() || matches!(fault.class(), 0x07 | 0x18 | 0x19 | 0x1d)), "{what}: {found:x?}");
        }
    }

    /// Set and way operations, barriers, hints and address translation: done or refused, and the guest goes on.
    harmless_instructions {
        for (word, what) in [
            (0xd508_7640, "dc isw, x0"), (0xd508_7a40, "dc csw, x0"), (0xd508_7e40, "dc cisw, x0"), (0xd508_751f, "ic iallu"),
            (0xd508_711f, "ic ialluis"), (0xd508_7800, "at s1e1r, x0"), (0xd503_201f, "nop"), (0xd503_205f, "wfe"), (0xd503_203f, "yield"),
            (0xd503_309f, "ssbb"), (0xd508_831f, "tlbi vmalle1is"), (0xd508_871f, "tlbi vmalle1"),
        ] {
            let found = instruction(word);
            check!(found.is_ok() || found.is_err_and(Fault::is_undefined), "{what}: {found:x?}");
        }
    }

    /// Addresses beyond what the VM has: the guest's own abort.
    beyond_the_end {
        for address in [1_u64 << 40, 1 << 44, (1 << 48) - (1 << 30)] {
            // SAFETY: GiB 300 is used by nothing.
            unsafe { mmu::map_block(300, address) };
            let found = memory_probe::read(300 << 30);
            check!(found.is_err_and(Fault::is_data_abort), "reading {address:#x}: {found:x?}");
            // SAFETY: nothing is there to be run.
            let found = unsafe { memory_probe::execute(300 << 30) };
            check!(found.is_err(), "running {address:#x}: {found:x?}");
        }
    }

    /// Translation tables in a hole: the walk ends in an abort of the guest.
    tables_in_a_hole {
        for table in [0x0c00_0000_u64, port::PORT, 0x0800_0000, 1 << 39] {
            // SAFETY: GiB 300 is used by nothing; the descriptor names a table instead of a block.
            unsafe { mmu::map_table(300, table) };
            let found = memory_probe::read(300 << 30);
            check!(found.is_err(), "walking through {table:#x}: {found:x?}");
        }
    }

    /// AArch32 at EL1 and higher levels cannot be returned to: the illegal state is the guest's own problem.
    illegal_return {
        for mode in [0x1d3_u64, 0x3c9, 0x3cd, 0x3c2] {
            // SAFETY: an illegal exception return only sets PSTATE.IL (DDI 0487 D1.4.2); the next instruction faults and the probe catches it.
            let found = unsafe { probe::call(guest_return_to_mode, mode, 0) };
            check!(found.is_err_and(|fault| fault.class() == 0x0e || fault.is_undefined()), "returning to mode {mode:#x}: {found:x?}");
        }
    }
}
