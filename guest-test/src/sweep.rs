//! Sweeps over the encodings of `MRS`, `MSR`, `SYS`, `SYSL`, hints and barriers (DDI 0487 C4.1.94): every one is run.
//!
//! A register that can be read is written with all ones, with zero, and then with what it held; one that the image itself lives from
//! ([`LIVED_FROM`]) only with what it held. Invariant: after a sweep the registers that can be read are as before.

use crate::lock::SpinMutex;

use crate::bytes;
use crate::instruction::{self, SLOTS, Slot};
use crate::probe::Fault;
use crate::tap::Outcome;

/// Encodings of system registers: op0 (2 or 3), op1, `CRn`, `CRm`, op2 in 15 bits.
pub const REGISTERS: u32 = 0x8000;
/// Encodings of one value of op0.
const OF_OP0: u32 = 0x4000;

/// The encoding of a register by op0, op1, `CRn`, `CRm` and op2.
const fn register(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    (op0 & 1) << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// The registers that are written with nothing but what they held, since the next instruction of the image depends on them: translation
/// (`SCTLR_EL1`, `SCTLR2_EL1`, `TTBR0_EL1`, `TTBR1_EL1`, `TCR_EL1`, `TCR2_EL1`, `MAIR_EL1`, `MAIR2_EL1`), the control stack
/// (`GCSCR_EL1`), the vectors (`VBAR_EL1`), and the stack pointer that is selected (`SPSel`).
pub const LIVED_FROM: [u32; 11] = [
    register(3, 0, 1, 0, 0),
    register(3, 0, 1, 0, 3),
    register(3, 0, 2, 0, 0),
    register(3, 0, 2, 0, 1),
    register(3, 0, 2, 0, 2),
    register(3, 0, 2, 0, 3),
    register(3, 0, 10, 2, 0),
    register(3, 0, 10, 2, 1),
    register(3, 0, 2, 5, 0),
    register(3, 0, 12, 0, 0),
    register(3, 0, 4, 2, 0),
];

/// `TPIDR_EL1`, in which a probe keeps its stack pointer, and which it writes itself all the time: the only register that no sweep writes.
pub const PROBE_LIVES_IN: u32 = register(3, 0, 13, 0, 4);

/// Memory that `DC` and `AT` may be pointed at.
#[repr(C, align(4096))]
struct Target([u8; 4096]);

static TARGET: SpinMutex<Target> = SpinMutex::new(Target([0; 4096]));

/// Reads every system register, and writes it as said above; `judge` hears of every instruction.
///
/// # Safety
/// No interrupt is let in.
pub unsafe fn registers(mut judge: impl FnMut(u32, Result<u64, Fault>) -> Outcome) -> Outcome {
    let mut held = None;
    for first in (0..REGISTERS).step_by(SLOTS / 2) {
        let mut words = [0; SLOTS];
        for (pair, register) in words.as_chunks_mut::<2>().0.iter_mut().zip(first..) {
            *pair = [mrs(register), msr(register)];
        }
        instruction::with(&words, |slot| {
            if slot.word == mrs(number(slot)) {
                // SAFETY: reading a register changes x0, or acknowledges an interrupt that nobody waits for.
                let found = unsafe { slot.run(0) };
                held = found.ok();
                judge(slot.word, found)
            } else {
                // SAFETY: the caller vouches.
                unsafe { write(slot, held, &mut judge) }
            }
        })?;
    }
    Ok(())
}

/// # Safety
/// As for [`registers`].
unsafe fn write(
    slot: Slot,
    held: Option<u64>,
    judge: &mut impl FnMut(u32, Result<u64, Fault>) -> Outcome,
) -> Outcome {
    if number(slot) == PROBE_LIVES_IN {
        return Ok(());
    }
    if !LIVED_FROM.contains(&number(slot)) {
        for value in [u64::MAX, 0] {
            // SAFETY: nothing that the image lives from depends on this register.
            judge(slot.word, unsafe { slot.run(value) })?;
        }
    }
    match held {
        // SAFETY: this is what it held.
        Some(held) => judge(slot.word, unsafe { slot.run(held) }),
        None => Ok(()),
    }
}

/// Runs every system instruction (op0 = 1) with zero, an address of memory and all ones in its register.
///
/// # Safety
/// No interrupt is let in.
pub unsafe fn instructions(mut judge: impl FnMut(u32, Result<u64, Fault>) -> Outcome) -> Outcome {
    let target = TARGET.lock();
    let address = bytes::address_of(&*target);
    every(1, 0, |slot| {
        for value in [0, address, u64::MAX] {
            // SAFETY: what they can change of memory is the target, which nothing reads.
            judge(slot.word, unsafe { slot.run(value) })?;
        }
        Ok(())
    })
}

/// Runs every hint, barrier and `MSR` of an immediate (op0 = 0), `WFI` and `WFIT` among them; `before` prepares for each.
///
/// # Safety
/// Interrupts that `before` causes can be served.
pub unsafe fn hints(
    mut before: impl FnMut(u32),
    mut judge: impl FnMut(u32, Result<u64, Fault>) -> Outcome,
) -> Outcome {
    for register in [0, 31] {
        every(0, register, |slot| {
            before(slot.word);
            // SAFETY: they change PSTATE, which is put back.
            judge(slot.word, unsafe { slot.run(0) })
        })?;
    }
    Ok(())
}

/// Every encoding of one op0, to and from the general register `transfer`.
fn every(op0: u32, transfer: u32, mut each: impl FnMut(Slot) -> Outcome) -> Outcome {
    let size = u32::try_from(SLOTS).unwrap_or(1);
    for direction in 0..2 {
        for first in (0..OF_OP0).step_by(SLOTS) {
            let mut words = [0; SLOTS];
            for (word, rest) in words.iter_mut().zip(first..first + size) {
                *word = 0xd500_0000 | direction << 21 | op0 << 19 | rest << 5 | transfer;
            }
            instruction::with(&words, &mut each)?;
        }
    }
    Ok(())
}

/// The register that an `MRS` or `MSR` names.
fn number(slot: Slot) -> u32 {
    slot.word >> 5 & 0x7fff
}

/// `mrs x0, S<op0>_<op1>_C<crn>_C<crm>_<op2>` (DDI 0487 C6.2.228).
const fn mrs(register: u32) -> u32 {
    0xd530_0000 | register << 5
}

/// `msr S<op0>_<op1>_C<crn>_C<crm>_<op2>, x0`.
const fn msr(register: u32) -> u32 {
    0xd510_0000 | register << 5
}

/// The instruction waits: `WFE`, `WFI`, `WFET`, `WFIT`.
#[must_use]
pub const fn waits(word: u32) -> bool {
    matches!(word, 0xd503_205f | 0xd503_207f) || matches!(word & 0xffff_ffc0, 0xd503_1000)
}
