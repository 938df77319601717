//! The puppet: the guest of executors on real EL2, a program of one page that does what it is told, one word at a time.
//!
//! It *asks* a device of the host's, [`layout::PORT`] + 8, for a number and arguments, does one thing with stage 1 off, and *tells* the
//! port one word. [`perform`] is the host's side of that. It starts with the port's address in X0, needs no stack, and runs anywhere.

use alloc::format;
use pinfold_abi::{ExitReason, GuestFunction, SMCCC_SUCCESS, Status, show};

use crate::executor::{Outcome, Trouble};
use crate::program::{Deed, layout};

/// Where the puppet asks.
pub(crate) const ASK: u64 = layout::PORT + 8;
/// How many interrupts of the host may come in a row.
const PATIENCE: u32 = 10_000;

/// The program, in A64 instructions; branches are to the number of an instruction.
pub const CODE: &[u32] = &[
    0xaa00_03fc, //  0: mov x28, x0
    0xf940_0789, //  1: ldr x9, [x28, #8]
    0xf100_053f, //  2: cmp x9, #0x1
    0x5400_0180, //  3: b.eq 15
    0xf100_093f, //  4: cmp x9, #0x2
    0x5400_01c0, //  5: b.eq 19
    0xf100_0d3f, //  6: cmp x9, #0x3
    0x5400_0240, //  7: b.eq 25
    0xf100_113f, //  8: cmp x9, #0x4
    0x5400_02e0, //  9: b.eq 32
    0xf940_0781, // 10: ldr x1, [x28, #8]
    0xf100_0421, // 11: subs x1, x1, #0x1
    0x54ff_ffe8, // 12: b.hi 11
    0xf900_039f, // 13: str xzr, [x28]
    0x17ff_fff3, // 14: b 1
    0xf940_0781, // 15: ldr x1, [x28, #8]
    0xf940_0020, // 16: ldr x0, [x1]
    0xf900_0380, // 17: str x0, [x28]
    0x17ff_ffef, // 18: b 1
    0xf940_0781, // 19: ldr x1, [x28, #8]
    0xf940_0782, // 20: ldr x2, [x28, #8]
    0xf900_0022, // 21: str x2, [x1]
    0xd503_3f9f, // 22: dsb sy
    0xf900_039f, // 23: str xzr, [x28]
    0x17ff_ffe9, // 24: b 1
    0xf940_0780, // 25: ldr x0, [x28, #8]
    0xf940_0781, // 26: ldr x1, [x28, #8]
    0xf940_0782, // 27: ldr x2, [x28, #8]
    0xf940_0783, // 28: ldr x3, [x28, #8]
    0xd400_0002, // 29: hvc #0x0
    0xf900_0380, // 30: str x0, [x28]
    0x17ff_ffe2, // 31: b 1
    0xf940_0781, // 32: ldr x1, [x28, #8]
    0xd508_751f, // 33: ic iallu
    0xd503_3fdf, // 34: isb
    0xd63f_0020, // 35: blr x1
    0xf900_039f, // 36: str xzr, [x28]
    0x17ff_ffdc, // 37: b 1
];

/// Whether a vCPU that exited so goes on with what it was at.
pub(crate) const fn waits_after(reason: ExitReason) -> bool {
    match reason {
        ExitReason::MemoryFault
        | ExitReason::MmioRead
        | ExitReason::MmioWrite
        | ExitReason::Shared
        | ExitReason::UnshareRequest
        | ExitReason::Relinquished
        | ExitReason::CpuOn
        | ExitReason::Kick => true,
        ExitReason::Interrupt
        | ExitReason::Wfi
        | ExitReason::PoweredOff
        | ExitReason::SystemOff
        | ExitReason::SystemReset
        | ExitReason::Crashed => false,
    }
}

/// A run of a vCPU that came back: an exit, or the answer that refuses it.
pub(crate) fn outcome_of_run(x: [u64; 8]) -> Outcome {
    let [smccc, status, reason, first, second, third, ..] = x;
    match ExitReason::from_number(reason) {
        Some(reason) if smccc == SMCCC_SUCCESS && status == Status::Ok.number() => Outcome::Exit {
            reason,
            details: [first, second, third],
        },
        _ => Outcome::Answer {
            call: show::call_of(pinfold_abi::FUNCTION_BASE + RUN),
            x,
        },
    }
}

/// The number of `VCPU_RUN`.
pub(crate) const RUN: u64 = 0x3A;

/// x0 to x7 of `VCPU_RUN`.
#[must_use]
pub const fn run_call(vm: u64, vcpu: u64, answer: u64) -> [u64; 8] {
    [
        pinfold_abi::FUNCTION_BASE + RUN,
        vm,
        vcpu,
        answer,
        0,
        0,
        0,
        0,
    ]
}

/// Runs a vCPU by these registers, and on through interrupts of the host.
pub fn through_interrupts(
    x: [u64; 8],
    mut issue: impl FnMut([u64; 8]) -> Result<[u64; 8], Trouble>,
) -> Result<[u64; 8], Trouble> {
    let [_, vm, vcpu, ..] = x;
    let mut x = x;
    for _ in 0..PATIENCE {
        let after = issue(x)?;
        if !matches!(
            outcome_of_run(after),
            Outcome::Exit {
                reason: ExitReason::Interrupt,
                ..
            }
        ) {
            return Ok(after);
        }
        x = run_call(vm, vcpu, 0);
    }
    Err(Trouble::Wrong(format!(
        "the guest did nothing between {PATIENCE} interrupts"
    )))
}

/// The words that the puppet is answered with, and how many of them count.
fn words(deed: Deed<u64>) -> ([u64; 5], usize) {
    match deed {
        Deed::Read(gfn) => ([1, gfn << 12, 0, 0, 0], 2),
        Deed::Write(gfn, value) => ([2, gfn << 12, value, 0, 0], 3),
        Deed::Share(gfn) => ([3, GuestFunction::MemShare.number(), gfn << 12, 0, 0], 5),
        Deed::Unshare(gfn) => ([3, GuestFunction::MemUnshare.number(), gfn << 12, 0, 0], 5),
        Deed::Relinquish(gfn) => (
            [3, GuestFunction::MemRelinquish.number(), gfn << 12, 0, 0],
            5,
        ),
        Deed::Hvc([x0, x1, x2, x3]) => ([3, x0, x1, x2, x3], 5),
        Deed::Fetch(gfn) => ([4, gfn << 12, 0, 0, 0], 2),
        Deed::Spin(times) => ([5, times, 0, 0, 0], 2),
        Deed::Resume(answer) => ([answer, 0, 0, 0, 0], 1),
    }
}

/// Makes a puppet do something. `issue` makes a host call, and gives x0 to x7.
pub fn perform(
    (vm, vcpu): (u64, u64),
    deed: Deed<u64>,
    mut issue: impl FnMut([u64; 8]) -> Result<[u64; 8], Trouble>,
) -> Result<Outcome, Trouble> {
    let mut go =
        |answer| through_interrupts(run_call(vm, vcpu, answer), &mut issue).map(outcome_of_run);
    let (words, count) = words(deed);
    let mut last = if let Deed::Resume(answer) = deed {
        go(answer)?
    } else {
        let mut last = go(0)?;
        for word in words.iter().take(count) {
            if !is_at(&last, ExitReason::MmioRead, ASK) {
                return Ok(last);
            }
            last = go(*word)?;
        }
        last
    };
    if is_at(&last, ExitReason::MmioWrite, layout::PORT)
        && let Outcome::Exit {
            details: [_, _, told],
            ..
        } = last
    {
        last = Outcome::Value(told);
    }
    Ok(last)
}

fn is_at(outcome: &Outcome, reason: ExitReason, place: u64) -> bool {
    matches!(outcome, Outcome::Exit { reason: found, details: [address, ..] } if *found == reason && *address == place)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn exit(reason: ExitReason, details: [u64; 3]) -> [u64; 8] {
        let [first, second, third] = details;
        [0, 0, reason.number(), first, second, third, 0, 0]
    }

    #[test]
    fn a_deed_is_told_word_by_word() {
        let mut answers = Vec::new();
        let mut exits = Vec::from([
            exit(ExitReason::MmioWrite, [layout::PORT, 8, 77]),
            exit(ExitReason::Interrupt, [0; 3]),
            exit(ExitReason::MmioRead, [ASK, 8, 0]),
            exit(ExitReason::MmioRead, [ASK, 8, 0]),
        ]);
        let outcome = perform((1, 0), Deed::Read(2), |x| {
            answers.push(x[3]);
            Ok(exits.pop().unwrap())
        });
        assert!(matches!(outcome, Ok(Outcome::Value(77))), "{outcome:?}");
        assert_eq!(answers, [0, 1, 0x2000, 0]);
    }

    #[test]
    fn what_stops_it_is_the_outcome() {
        let fault = perform((1, 0), Deed::Write(3, 9), |_| {
            Ok(exit(ExitReason::MemoryFault, [0x50000, 2, 0]))
        });
        assert!(matches!(
            fault,
            Ok(Outcome::Exit {
                reason: ExitReason::MemoryFault,
                ..
            })
        ));
        let refused = perform((1, 0), Deed::Spin(1), |_| {
            Ok([0, Status::WrongPhase.number(), 0, 0, 0, 0, 0, 0])
        });
        assert!(matches!(refused, Ok(Outcome::Answer { call: Some(_), .. })));
        assert!(
            perform((1, 0), Deed::Spin(1), |_| Ok(exit(
                ExitReason::Interrupt,
                [0; 3]
            )))
            .is_err()
        );
    }
}
