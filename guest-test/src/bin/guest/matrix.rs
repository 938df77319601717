//! Everything that a guest can try, in bulk: instructions, exceptions, calls, accesses. Each ends in a value, an answer or a fault of the guest's own.
//!
//! Nothing here asks whether EL2 stood: the mini host does, by going on. What would end the guest's turn is left out where it is said, and has tests of its
//! own in the mini host.

use guest_test::instruction::{self, Slot};
use guest_test::probe::Fault;
use guest_test::smccc::{self, psci};
use guest_test::tap::Outcome;
use guest_test::user::{Mode, User};
use guest_test::{
    accesses, bytes, check, check_eq, gic, line, memory_probe, mmu, port, start, sweep, tests,
};

/// An address outside RAM and of no device.
const HOLE: u64 = 0x0c00_0000;
/// Where code of EL0 lies.
const USER_CODE: u64 = port::SCRATCH + 0x2_0000;
/// A page that the guest shares with the host.
const SHARED: u64 = port::SCRATCH + 0x3_0000;
/// Pages that nobody touched yet.
const UNTOUCHED: u64 = port::SCRATCH + 0x10_0000;
/// The GiB of virtual addresses through which the devices' GiB is Normal memory, and the one for the last GiB of the guest's space.
const NORMAL_GIB: u64 = 300;
const LAST_GIB: u64 = 301;
/// Bytes of the guest's space.
const SPACE: u64 = 1 << 40;

/// KVM's call that shares a page.
const MEM_SHARE: u32 = 0xc600_0003;

/// Classes that a single instruction at EL1 may end in (DDI 0487 D24.2.37): unknown, FP, system register, SVE, SME, an abort, a control
/// stack's check, an illegal state.
const OWN_CLASSES: [u64; 9] = [0x00, 0x07, 0x0e, 0x18, 0x19, 0x1d, 0x21, 0x25, 0x2d];

/// The instruction came back, or ended in a fault of the guest's own.
fn own(word: u32, found: Result<u64, Fault>) -> Outcome {
    let fine = found.is_ok() || found.is_err_and(|fault| OWN_CLASSES.contains(&fault.class()));
    check!(fine, "{word:#x}: {found:x?}");
    Ok(())
}

/// What a guest can read beside the ID registers (op1 0, `CRn` 0, of which it sees ceilings) and the debug registers (op0 2, which read as zero or as
/// an open lock): op1, `CRn`, `CRm`, and one bit for each op2. A register that comes with a new CPU and is not here is one that EL2 forgot to hide.
const READABLE: [(u32, u32, u32, u8); 34] = [
    (0, 0, 0, 0b110_0001),    // MIDR_EL1, MPIDR_EL1, REVIDR_EL1
    (0, 1, 0, 0b111),         // SCTLR_EL1, ACTLR_EL1, CPACR_EL1
    (0, 2, 0, 0b111),         // TTBR0_EL1, TTBR1_EL1, TCR_EL1
    (0, 2, 1, 0b1111),        // keys APIA and APIB
    (0, 2, 2, 0b1111),        // keys APDA and APDB
    (0, 2, 3, 0b11),          // key APGA
    (0, 4, 0, 0b11),          // SPSR_EL1, ELR_EL1
    (0, 4, 1, 0b1),           // SP_EL0
    (0, 4, 2, 0b1_1101),      // SPSel, CurrentEL, PAN, UAO
    (0, 4, 3, 0b1),           // ALLINT
    (0, 4, 6, 0b1),           // ICC_PMR_EL1
    (0, 5, 1, 0b11),          // AFSR0_EL1, AFSR1_EL1
    (0, 5, 2, 0b1),           // ESR_EL1
    (0, 6, 0, 0b1),           // FAR_EL1
    (0, 7, 4, 0b1),           // PAR_EL1
    (0, 10, 2, 0b1),          // MAIR_EL1
    (0, 10, 3, 0b1),          // AMAIR_EL1
    (0, 12, 0, 0b1),          // VBAR_EL1
    (0, 12, 1, 0b11),         // ISR_EL1, DISR_EL1
    (0, 12, 8, 0b1_1101),     // ICC: group 0
    (0, 12, 9, 0b10_0001),    // ICC_AP1R0_EL1, ICC_NMIAR1_EL1
    (0, 12, 11, 0b1000),      // ICC_RPR_EL1
    (0, 12, 12, 0b1111_1101), // ICC: group 1, ICC_CTLR_EL1, ICC_SRE_EL1
    (0, 13, 0, 0b1_0010),     // CONTEXTIDR_EL1, TPIDR_EL1
    (0, 14, 1, 0b1),          // CNTKCTL_EL1
    (1, 0, 0, 0b1000_0011),   // CCSIDR_EL1, CLIDR_EL1, AIDR_EL1
    (2, 0, 0, 0b1),           // CSSELR_EL1
    (3, 0, 0, 0b1000_0010),   // CTR_EL0, DCZID_EL0
    (3, 2, 4, 0b11),          // RNDR, RNDRRS
    (3, 4, 2, 0b1110_0011),   // NZCV, DAIF, DIT, SSBS, TCO
    (3, 4, 4, 0b11),          // FPCR, FPSR
    (3, 13, 0, 0b1100),       // TPIDR_EL0, TPIDRRO_EL0
    (3, 14, 0, 0b110_0111),   // CNTFRQ_EL0, the counters
    (3, 14, 3, 0b111),        // the virtual timer
];

/// Whether an `MRS` is one that a guest may do.
fn is_readable(word: u32) -> bool {
    let [op1, crn, crm, op2] = [
        word >> 16 & 7,
        word >> 12 & 0xf,
        word >> 8 & 0xf,
        word >> 5 & 7,
    ];
    if word & 1 << 19 == 0 {
        return matches!((op1, crn), (0 | 3, 0 | 1 | 7));
    }
    let is_listed = |(a, b, c, ops): &(u32, u32, u32, u8)| {
        (*a, *b, *c) == (op1, crn, crm) && ops >> op2 & 1 != 0
    };
    (op1, crn) == (0, 0) && (1..8).contains(&crm) || READABLE.iter().any(is_listed)
}

/// Runs one instruction that is not in any sweep, with `argument` in x0 and x1.
fn one(word: u32, argument: u64) -> Result<u64, Fault> {
    let mut found = Ok(0);
    let run = |slot: Slot| {
        // SAFETY: those below are calls, exceptions and accesses to what Rust does not own.
        found = unsafe { slot.run(argument) };
        Ok(())
    };
    match instruction::with(&[word], run) {
        Ok(()) | Err(_) => found,
    }
}

/// The calls that are there (`ARCHITECTURE.md`, "What a guest sees").
fn is_offered(function: u32) -> bool {
    matches!(
        function,
        0x8000_0000
            | 0x8000_0001
            | 0x8600_0000
            | 0x8600_ff01
            | 0xc600_0002..=0xc600_0004
            | 0xc600_0009
            | 0x8400_0000..=0x8400_0004
            | 0x8400_0006
            | 0x8400_0008..=0x8400_000a
            | 0x8400_0012
            | 0xc400_0001
            | 0xc400_0003
            | 0xc400_0004
            | 0xc400_0012
    )
}

/// `CPU_SUSPEND`, `CPU_OFF`, `SYSTEM_OFF`, `SYSTEM_RESET`, `SYSTEM_RESET2`: they end the turn, and have tests of their own.
fn ends_the_turn(function: u32) -> bool {
    matches!(
        function,
        0x8400_0001
            | 0x8400_0002
            | 0x8400_0008
            | 0x8400_0009
            | 0x8400_0012
            | 0xc400_0001
            | 0xc400_0012
    )
}

/// Function numbers: the first ones, around each power of two, and the last ones.
fn numbers() -> impl Iterator<Item = u32> {
    let around = (6..16).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    (0..0x40)
        .chain(around)
        .chain([0xff00, 0xff01, 0xff02, 0xff03, 0xffff])
}

/// Runs a form on an address; the guest has the value, or a fault of its own.
fn access(slot: Slot, address: u64) -> Outcome {
    // SAFETY: the addresses are devices, holes and scratch memory.
    own(slot.word, unsafe { slot.run(address) })
}

/// Every form on `addresses`.
fn accesses(addresses: &(impl Iterator<Item = u64> + Clone)) -> Outcome {
    for forms in [accesses::PLAIN.as_slice(), accesses::ODD.as_slice()] {
        instruction::with(forms, |slot| {
            addresses
                .clone()
                .try_for_each(|address| access(slot, address))
        })?;
    }
    Ok(())
}

/// Where in a page accesses begin: aligned to each width, unaligned, and over its end.
const OFFSETS: [u64; 10] = [0, 1, 2, 3, 4, 8, 12, 0xff8, 0xffd, 0xfff];

/// Maps what the tests of accesses need.
fn map() {
    // SAFETY: these GiB are used by nothing.
    unsafe { mmu::map_block(bytes::size(NORMAL_GIB), 0) };
    // SAFETY: as above.
    unsafe { mmu::map_block(bytes::size(LAST_GIB), SPACE - (1 << 30)) };
}

/// An address of the devices' GiB as Normal memory.
const fn normal(address: u64) -> u64 {
    (NORMAL_GIB << 30) + address
}

/// Lets EL0 run; nobody owns the code's page.
fn user() -> User {
    // SAFETY: scratch memory is no Rust memory, and nothing lies at EL0's GiB.
    unsafe { User::at(USER_CODE) }
}

/// What EL0's end by `svc #0` looks like: EC 0x15, and 0x11 from `AArch32`.
const SVC: u32 = 0xd400_0001;

tests! { "matrix":
    /// All 32,768 encodings of a system register, read and written.
    registers {
        let (mut undefined, mut runs) = (0_u32, 0_u32);
        let judge = |word: u32, found: Result<u64, Fault>| {
            let fault = found.err();
            runs += 1;
            undefined += u32::from(fault.is_some_and(Fault::is_undefined));
            // EL2's and EL3's, and EL1's by the names that EL2 has for them.
            let is_higher = word >> 16 & 7 >= 4 && word & 1 << 20 != 0;
            check!(!is_higher || fault.is_some_and(Fault::is_undefined), "{word:#x}: {found:x?}");
            check!(fault.is_some() || word & 1 << 21 == 0 || is_readable(word), "{word:#x} is read, and nobody meant it to be");
            own(word, found)
        };
        // SAFETY: interrupts are masked.
        unsafe { sweep::registers(judge) }?;
        line!("{runs} accesses, {undefined} undefined");
        check!(undefined > 0x6000 && runs > undefined, "{undefined} of {runs} accesses are undefined");
    }

    /// All 32,768 encodings of a system instruction.
    system_instructions {
        // SAFETY: interrupts are masked.
        unsafe { sweep::instructions(own) }?;
    }

    /// All encodings of hints, barriers and changes of PSTATE; `WFI` and its like go to the host.
    hints {
        // SAFETY: no interrupt is enabled.
        unsafe { sweep::hints(|_| (), own) }?;
    }

    /// `HVC` and `SMC` with an immediate are no calls, whatever x0 says.
    immediates {
        for immediate in (0..16).map(|bit| 1 << bit).chain([3, 0x4a48, 0xff, 0x7fff, u32::from(u16::MAX)]) {
            for (call, what) in [(0xd400_0002, "hvc"), (0xd400_0003, "smc")] {
                for function in [psci::SYSTEM_OFF, psci::CPU_OFF, psci::VERSION, MEM_SHARE, 0xc600_0100] {
                    let found = one(call | immediate << 5, u64::from(function));
                    check_eq!(found, Ok(smccc::NOT_SUPPORTED), "{what} #{immediate:#x} of {function:#x}");
                }
            }
        }
    }

    /// Every exception that an instruction of EL1 can make is taken at EL1.
    classes {
        let cases: &[(u32, &str, &[u64])] = &[
            (0xd400_0001, "svc #0", &[0x15]), (0xd41f_ffe1, "svc #0xffff", &[0x15]),
            (0xd420_0000, "brk #0", &[0x3c]), (0xd43f_ffe0, "brk #0xffff", &[0x3c]), (0xd440_0000, "hlt #0", &[0x00]),
            (0xd4a0_0001, "dcps1", &[0x00]), (0xd4a0_0002, "dcps2", &[0x00]), (0xd4a0_0003, "dcps3", &[0x00]),
            (0x0000_0000, "udf #0", &[0x00]), (0xffff_ffff, "all ones", &[0x00]), (0xd6bf_03e0, "drps", &[0x00]),
            (0x2518_e000, "ptrue p0.b", &[0x00, 0x19]), (0x0420_e3e0, "cntb x0", &[0x00, 0x19]), (0xd503_477f, "smstart", &[0x00, 0x1d]),
            (0xc008_00ff, "zero {za}", &[0x00, 0x1d]), (0x9ac0_3020, "pacga x0, x1, x0", &[0x00, 0x09]), (0xdac1_0020, "pacia x0, x1", &[0x00, 0x09]),
            (0x9ac1_1000, "irg x0, x0, x1", &[0x00]), (0xd9e0_0001, "ldgm x1, [x0]", &[0x00]), (0x1900_0402, "cpyfp", &[0x00, 0x25, 0x27]),
            (0x19c0_0402, "setp", &[0x00, 0x25, 0x27]), (0xd523_3060, "tstart x0", &[0x00]), (0xd503_307f, "tcommit", &[0x00]),
            (0xd508_7700, "gcspushx", &[0x00, 0x2d]), (0x1e20_2800, "fadd s0, s0, s0", &[0x00]),
        ];
        for (word, what, classes) in cases {
            let found = one(*word, port::SCRATCH);
            check!(found.map_or_else(|fault| classes.contains(&fault.class()), |_| !matches!(word >> 24, 0xd4 | 0x00 | 0xff)), "{what}: {found:x?}");
        }
        // A misaligned PC, and an access that the guest's own stage 1 does not allow.
        // SAFETY: nothing runs there.
        let found = unsafe { memory_probe::execute(port::SCRATCH + 2) };
        check!(found.is_err_and(|fault| fault.class() == 0x22), "a misaligned PC: {found:x?}");
        let found = memory_probe::read(mmu::HIGH - 8);
        check!(found.is_err_and(Fault::is_data_abort), "an address of neither table: {found:x?}");
    }

    /// Breakpoints, watchpoints and single steps that the guest sets up do not come.
    debug {
        for (word, value) in [
            (0xd510_0080, USER_CODE), (0xd510_00a0, 0x1e7), (0xd510_00c0, port::SCRATCH), (0xd510_00e0, 0x1ff7),
            (0xd510_0240, 1 << 15 | 1 << 13 | 1), (0xd510_1080, 0), (0xd510_1380, 0),
        ] {
            own(word, one(word, value))?;
        }
        // MSR DAIFClr, #8: debug exceptions are let in, for a moment.
        own(0xd503_48ff, one(0xd503_48ff, 0))?;
        check!(memory_probe::read(port::SCRATCH).is_ok(), "a watchpoint fired");
        check_eq!(one(0xd530_0240, 0), Ok(0), "MDSCR_EL1 after it was written");
    }

    /// Function numbers of every owner, fast and yielding, in 32 and 64 bits, by both conduits, with garbage: answered, or not there.
    calls {
        let mut made = 0_u32;
        for owner in 0..64_u32 {
            for kind in [0_u32, 1 << 30, 1 << 31, 3 << 30] {
                for number in numbers().flat_map(|number| [number, number | 1 << 16]) {
                    let function = kind | owner << 24 | number;
                    if ends_the_turn(function) {
                        continue;
                    }
                    let garbage = [u64::MAX, u64::from(number) << 33 | 1, 1 << 63];
                    let [hvc, ..] = smccc::hvc(function, &garbage);
                    let [smc, ..] = smccc::smc(function, &garbage);
                    check_eq!(smc, hvc, "SMC {function:#x}, beside HVC");
                    check!(is_offered(function) || hvc == smccc::NOT_SUPPORTED, "call {function:#x} gave {hvc:#x}");
                    made += 2;
                }
            }
        }
        check!(made > 50_000, "only {made} calls");
    }

    /// Every PSCI and KVM call that does not end the turn, with garbage of every bit.
    call_arguments {
        for function in (0x8400_0000..0x8400_0020).chain(0xc400_0000..0xc400_0020).chain([0x8600_0000, 0x8600_ff01]).chain(0xc600_0000..0xc600_0010) {
            if ends_the_turn(function) {
                continue;
            }
            for bit in 0..64 {
                for words in [[1 << bit; 3], [u64::MAX << bit; 3], [u64::MAX, 1 << bit, 0], [1 << bit, u64::MAX, u64::MAX]] {
                let [x0, ..] = smccc::hvc(function, &words);
                    check!(is_offered(function) || x0 == smccc::NOT_SUPPORTED, "call {function:#x} {words:x?} gave {x0:#x}");
                }
            }
        }
    }

    /// Every form of access to the virtual GIC: all its frames, all alignments, as device and as Normal memory.
    gic_accesses {
        map();
        let frames = [gic::GICD, gic::GICD + 0x6000, gic::GICD + 0xf000, gic::GICR, gic::GICR + 0xf000, gic::GICR + 0x1_0000, gic::GICR + 0x1_f000];
        let places = frames.iter().flat_map(|frame| OFFSETS.map(|offset| frame + offset));
        accesses(&places)?;
        accesses(&places.clone().map(normal))?;
    }

    /// Every form of access where nothing is, and to a device of the host's: it may answer, and nothing else happens.
    vacant_accesses {
        map();
        let last = (LAST_GIB << 30) + (1 << 30) - bytes::FRAME;
        let pages = [HOLE, 0, 0x3fff_f000, port::RAM + port::RAM_FRAMES * bytes::FRAME];
        accesses(&pages.iter().flat_map(|page| OFFSETS.map(|offset| page + offset)))?;
        accesses(&OFFSETS.iter().map(|offset| normal(HOLE) + offset))?;
        // The last page of the space, and over its end into what stage 1 maps as something else.
        accesses(&OFFSETS.iter().map(|offset| last + offset))?;
    }

    /// Every form of access to a page that the guest shares, while it is shared.
    shared_accesses {
        let [answer, ..] = smccc::hvc(MEM_SHARE, &[SHARED]);
        check_eq!(answer, 0, "MEM_SHARE");
        accesses(&[0, 1, 8, 0xff8, 0xffd].iter().map(|offset| SHARED + offset))?;
    }

    /// Every form of access as the first touch of a page, and of two.
    first_touches {
        let mut page = UNTOUCHED;
        for forms in [accesses::PLAIN.as_slice(), accesses::ODD.as_slice()] {
            instruction::with(forms, |slot| {
                for offset in [0, 0xff8, 0xffd] {
                    access(slot, page + offset)?;
                    page += 2 * bytes::FRAME;
                }
                Ok(())
            })?;
        }
    }

    /// Instructions are fetched from no device, no hole and nothing beyond.
    fetches {
        map();
        for address in [HOLE, 4, 0x1000, port::PORT, gic::GICD, gic::GICR, gic::GICR + 0x1_0000, 0x3fff_fffc] {
            for alias in [address, normal(address)] {
                // SAFETY: nothing is there to be run.
                let found = unsafe { memory_probe::execute(alias) };
                check!(found.is_err_and(Fault::is_abort), "running {alias:#x}: {found:x?}");
            }
        }
        let last = (LAST_GIB << 30) + (1 << 30) - 4;
        // SAFETY: as above.
        let found = unsafe { memory_probe::execute(last) };
        check!(found.is_err_and(Fault::is_abort), "running the last word of the space: {found:x?}");
    }

    /// The guest's own tables in memory that is not there yet: the walk waits for it like any access.
    tables_in_missing_memory {
        // SAFETY: the GiB is used by nothing; the descriptor names a table instead of a block.
        unsafe { mmu::map_table(bytes::size(LAST_GIB), UNTOUCHED + 0x8_0000) };
        let found = memory_probe::read(LAST_GIB << 30);
        check!(found.is_err_and(|fault| fault.is_data_abort() && fault.esr & 0x3f == 0x06), "walking through a page of zeroes: {found:x?}");
    }

    /// EL0 of the guest: calls are undefined, and what traps is the fault of its own EL1.
    user_instructions {
        let user = user();
        for word in [0xd400_0002_u32, 0xd400_0003, 0xd503_207f, 0xd503_205f, 0xd69f_03e0, 0x0000_0000, 0xd508_7500, 0xd503_4fdf] {
            // SAFETY: the instruction changes nothing, and `svc` ends it.
            let found = unsafe { user.run(Mode::Wide, &[word, SVC], 0) };
            check!(found.is_some_and(|fault| matches!(fault.class(), 0x00 | 0x01 | 0x15 | 0x18)), "{word:#x} at EL0: {found:x?}");
        }
        // op0 2 and 3, op1 3: the others are not EL0's.
        for first in [0x1800, 0x5800] {
            for register in first..first + 0x800 {
                for word in [0xd530_0000 | register << 5, 0xd510_0000 | register << 5] {
                    // SAFETY: registers that EL0 has are of no use to this image.
                    let found = unsafe { user.run(Mode::Wide, &[word, SVC], 0) };
                    check!(found.is_some_and(|fault| matches!(fault.class(), 0x00 | 0x07 | 0x15 | 0x18 | 0x19 | 0x1d)), "{word:#x} at EL0: {found:x?}");
                }
            }
        }
    }

    /// EL0 of the guest on devices and on missing memory.
    user_accesses {
        let user = user();
        // SAFETY: nothing lies there.
        unsafe { mmu::map_user_block(bytes::size(NORMAL_GIB), 0) };
        for form in accesses::PLAIN.iter().chain(&accesses::ODD) {
            for address in [normal(HOLE), normal(gic::GICD + 0x100), normal(gic::GICR + 0xffd), user.sees(UNTOUCHED)] {
                // SAFETY: devices, and memory that nobody owns.
                let found = unsafe { user.run(Mode::Wide, &[*form, SVC], address) };
                check!(found.is_some_and(|fault| matches!(fault.class(), 0x00 | 0x07 | 0x15 | 0x18 | 0x19 | 0x20 | 0x24)), "{form:#x} at EL0: {found:x?}");
            }
        }
    }

    /// `AArch32` at EL0 is not offered: what EL2 hears of it ends the guest. Here it touches memory that is not there.
    narrow_touch {
        let user = user();
        // ldr r0, [r0]
        // SAFETY: memory that nobody owns.
        let found = unsafe { user.run(Mode::Narrow, &[0xe590_0000], user.sees(UNTOUCHED)) };
        check!(found.is_some_and(|fault| fault.class() == 0x0e), "AArch32 at EL0: {found:x?}");
    }

    /// The same, for ever: the host's interrupt comes while it runs.
    narrow_spin {
        let user = user();
        // b .
        // SAFETY: it does nothing.
        let found = unsafe { user.run(Mode::Narrow, &[0xeaff_fffe], 0) };
        check!(found.is_some_and(|fault| fault.class() == 0x0e), "AArch32 at EL0: {found:x?}");
    }

    /// Further vCPUs that start where nothing is, in the GIC, or at an address that is none.
    entry_points {
        for (target, entry) in (1..).zip([0, 1, HOLE, gic::GICD, SPACE, u64::MAX, port::SCRATCH + 2]) {
            let [answer, ..] = smccc::hvc(psci::CPU_ON, &[target, entry, u64::MAX]);
            check_eq!(answer, 0, "CPU_ON at {entry:#x}");
        }
        check_eq!(start::exception_level(), 1, "CurrentEL");
    }
}
