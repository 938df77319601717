//! Guarantee G8: create, run, stop and destroy leaks nothing.

use guest_test::bytes::FRAME;
use guest_test::{check, line, tests, timer};
use pinfold_abi::GuestFunction;

use super::snapshot::Snapshot;
use crate::micro::Command;
use crate::vm::{SCRATCH_GFN, Vm};
use crate::{frames, pool};

/// Rounds, if they fit into the time.
const ROUNDS: u32 = 1000;

tests! { "leaks":
    /// A thousand VMs, one after another: folio words, census and pool are as before.
    thousand_rounds {
        frames::register()?;
        pool::drain()?;
        let taken = frames::taken();
        let before = Snapshot::take()?;
        let start = timer::now();
        let mut rounds = 0;
        while rounds < ROUNDS && timer::now() - start < timer::milliseconds(10_000) {
            let mut vm = Vm::puppet()?;
            vm.writes(SCRATCH_GFN * FRAME, u64::from(rounds))?;
            vm.does(Command::Off)?;
            vm.end()?;
            rounds += 1;
        }
        line!("# {rounds} rounds in {} ms", (timer::now() - start).checked_div(timer::milliseconds(1)).unwrap_or(0));
        check!(rounds >= 20, "only {rounds} rounds in 10 s");
        pool::drain()?;
        before.is_still_so("after all rounds")?;
        check!(frames::taken() == taken, "the mini host lost frames of its own");
    }

    /// VMs that are given up in the middle leave nothing either.
    given_up_half_way {
        pool::drain()?;
        let before = Snapshot::take()?;
        for step in 0..5 {
            let mut vm = Vm::create(4)?;
            if step > 0 {
                vm = Vm::configured(4)?;
            }
            if step > 1 {
                vm.give_filled(SCRATCH_GFN, 3, 1)?;
            }
            if step > 2 {
                vm = Vm::puppet()?;
                vm.reads(SCRATCH_GFN * FRAME)?;
            }
            if step > 3 {
                vm.calls(GuestFunction::MemShare.number(), SCRATCH_GFN * FRAME)?;
            }
            drop(vm);
        }
        pool::drain()?;
        before.is_still_so("after all VMs")?;
    }
}
