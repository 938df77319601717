//! Bounded work: how many instructions a call stays at EL2, however much it is asked for: 20,000 at most.
//!
//! Counted where time is the number of instructions, which the boot argument `icount` says; skipped elsewhere. A call is counted with
//! the mini host's own part, some dozen instructions.

use guest_test::bytes::FRAME;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, line, tests, timer};
use pinfold_abi::{ExitReason, GuestFunction, VM_PROTECTED, limit, pin_word};

use crate::calls::{self, Reply, Status};
use crate::folio::Folio;
use crate::vm::{EVERYTHING, SCRATCH_GFN, Vm};
use crate::{frames, platform, pool};

/// The most that a call may take.
const BUDGET: u64 = 20_000;
const ORDINARY: u64 = 0;
const MEM_SHARE: u64 = GuestFunction::MemShare.number();
/// A frame behind all RAM.
const BEYOND: u64 = 0x400_0000;
/// Words of a frame of a pin table.
const WORDS: u64 = 1024;

/// How many instructions ticks of the timer are.
fn instructions(ticks: u64) -> u64 {
    ticks * (1_000_000 / timer::milliseconds(1))
}

/// Makes calls until `frames` frames are done, a folio being so many; gives the most instructions that one of them took.
fn count(what: &str, frames: u64, folio: u64, call: impl Fn(u64) -> Reply) -> Result<u64, Failure> {
    let (mut done, mut calls, mut most) = (0, 0_u64, 0);
    while done < frames {
        let start = timer::now();
        let reply = call(done);
        let took = instructions(timer::now() - start);
        check!(
            reply.is(Status::Ok) || reply.is(Status::Again),
            "{what} after {done} frames: {reply:x?}"
        );
        let [step, ..] = reply.results;
        done += step * folio;
        calls += 1;
        most = most.max(took);
        check!(calls < 1024, "{what} does not end");
    }
    line!("# {what}: {calls} calls, at most {most} instructions each");
    Ok(most)
}

/// Makes one call and gives how many instructions it took.
fn once(what: &str, call: impl FnOnce() -> Result<Reply, Failure>) -> Result<u64, Failure> {
    let start = timer::now();
    let reply = call()?;
    let took = instructions(timer::now() - start);
    check!(reply.is(Status::Ok), "{what}: {reply:x?}");
    line!("# {what}: {took} instructions");
    Ok(took)
}

/// Each of these is within the budget.
fn in_bounds(counts: &[u64]) -> Outcome {
    let most = counts.iter().copied().max().unwrap_or(0);
    check!(most <= BUDGET, "a call took {most} instructions");
    Ok(())
}

/// Skips the test where nothing is counted.
fn need_count() -> Outcome {
    if platform::machine().option("icount").is_some() {
        return Ok(());
    }
    Err(Failure::skip(format_args!("instructions are not counted")))
}

/// A VM with tables for the frames that the tests give it, so far from others that nothing is near.
fn vm(flags: u64) -> Result<(Vm, u64), Failure> {
    need_count()?;
    frames::register()?;
    Ok((
        Vm::configured_as(flags, 1)?,
        SCRATCH_GFN.next_multiple_of(512),
    ))
}

tests! { "work":
    /// 512 frames come to a protected VM and go back.
    of_frames {
        let (vm, gfn) = vm(VM_PROTECTED)?;
        let folio = Folio::take(limit::MAX_ORDER)?;
        let (handle, pfn, frames) = (vm.handle(), folio.pfn(), folio.frames());
        (0..frames).for_each(|frame| frames::set_pin(pfn + frame, pin_word::donatable(0)));
        let given = count("donating frames", frames, 1, |done| calls::mem_donate(handle, gfn + done, pfn + done, frames - done, 0))?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let back = count("reclaiming frames", frames, 1, |done| calls::mem_reclaim(handle, gfn + done, frames - done))?;
        vm.end_after_teardown()?;
        in_bounds(&[given, back])?;
    }

    /// A folio of 2 MiB does.
    of_a_block {
        let (vm, gfn) = vm(VM_PROTECTED)?;
        let folio = Folio::take_pinned(limit::MAX_ORDER)?;
        let (handle, pfn, frames) = (vm.handle(), folio.pfn(), folio.frames());
        let given = count("donating a block", frames, frames, |_| calls::mem_donate(handle, gfn, pfn, 1, 9))?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let back = count("reclaiming a block", frames, 1, |done| calls::mem_reclaim(handle, gfn + done, frames - done))?;
        vm.end_after_teardown()?;
        in_bounds(&[given, back])?;
    }

    /// 512 frames, in folios of several orders, are shared with an ordinary VM, changed and taken from it.
    of_shares {
        let (vm, gfn) = vm(ORDINARY)?;
        let folio = Folio::take(limit::MAX_ORDER)?;
        let (handle, pfn, frames) = (vm.handle(), folio.pfn(), folio.frames());
        let mut counts = [0; 12];
        for (order, counts) in [0, 4, 8, 9].into_iter().zip(counts.chunks_mut(3)) {
            let what = |verb| alloc::format!("{verb} folios of order {order}");
            let steps = [
                count(&what("sharing"), frames, 1 << order, |done| {
                    let left = (frames - done) >> order;
                    calls::mem_share_guest(handle, gfn + done, pfn + done, left, order, EVERYTHING)
                })?,
                count(&what("protecting"), frames, 1, |done| calls::mem_protect_guest(handle, gfn + done, frames - done, 1))?,
                count(&what("unsharing"), frames, 1, |done| calls::mem_unshare_guest(handle, gfn + done, frames - done))?,
            ];
            counts.copy_from_slice(&steps);
        }
        vm.end()?;
        in_bounds(&counts)?;
    }

    /// As many frames as one call takes come to the pool and go back.
    of_the_pool {
        need_count()?;
        pool::drain()?;
        let folio = Folio::take(6)?;
        let (pfn, frames) = (folio.pfn(), limit::MAX_GIFT.min(folio.frames()));
        let given = count("giving frames to the pool", frames, 1, |done| calls::pool_donate(pfn + done, frames - done))?;
        let back = count("taking frames from the pool", frames, 1, |_| Reply { results: [1; 6], ..calls::pool_reclaim() })?;
        in_bounds(&[given, back])?;
    }

    /// A pin table of 512 frames is registered; it speaks for frames where there is no RAM, and stays.
    of_a_pin_table {
        need_count()?;
        let folio = Folio::take(limit::MAX_ORDER)?;
        let (table, frames) = (folio.pfn(), folio.frames());
        let most = count("registering a pin table", frames, 1, |done| {
            let reply = calls::pin_table_register(table, BEYOND, frames * WORDS);
            let [so_far, ..] = reply.results;
            Reply { results: [so_far - done; 6], ..reply }
        })?;
        core::mem::forget(folio);
        in_bounds(&[most])?;
    }

    /// A VM with as many vCPUs as there can be is made and ended.
    of_a_life {
        need_count()?;
        pool::feed()?;
        pool::feed()?;
        let mut handle = 0;
        let created = once("VM_CREATE", || {
            let reply = calls::vm_create(VM_PROTECTED, limit::MAX_VCPUS);
            [handle, ..] = reply.results;
            Ok(reply)
        })?;
        let mut counts = [created; 8];
        for (vcpu, place) in (0..limit::MAX_VCPUS).zip(counts.iter_mut().skip(1)) {
            *place = once("VCPU_CREATE", || Ok(calls::vcpu_create(handle, vcpu, 0)))?;
        }
        let ends = [
            once("VM_TEARDOWN_BEGIN", || Ok(calls::vm_teardown_begin(handle)))?,
            once("VM_TEARDOWN_FINISH", || Ok(calls::vm_teardown_finish(handle)))?,
        ];
        in_bounds(&counts)?;
        in_bounds(&ends)?;
    }

    /// A guest shares a frame of a folio of 2 MiB, which is cut.
    of_a_guest {
        need_count()?;
        let mut vm = Vm::puppet()?;
        let gfn = SCRATCH_GFN.next_multiple_of(512);
        vm.donate(gfn, Folio::take_pinned(limit::MAX_ORDER)?)?;
        let (exit, ticks) = vm.timed_last_words([MEM_SHARE, (gfn + 5) * FRAME, 0, 0])?;
        check_eq!((exit.reason, exit.details), (ExitReason::Shared, [gfn + 5, 1, 0]), "the exit");
        let most = instructions(ticks);
        line!("# sharing a frame of a block, from VCPU_RUN to the exit: {most} instructions");
        vm.end()?;
        in_bounds(&[most])?;
    }

    /// What is far apart in a range is found and changed: 16 shares of a range of 512 frames.
    of_scattered_shares {
        let (vm, gfn) = vm(ORDINARY)?;
        let folio = Folio::take(limit::MAX_ORDER)?;
        let (handle, pfn, frames) = (vm.handle(), folio.pfn(), folio.frames());
        for place in (0..frames).step_by(32) {
            calls::mem_share_guest(handle, gfn + place + 31, pfn, 1, 0, EVERYTHING).done("MEM_SHARE_GUEST")?;
        }
        let start = timer::now();
        calls::mem_share_guest(handle, gfn, pfn, 1, 9, EVERYTHING).refused(Status::Exists, "a share on top")?;
        let counts = [
            instructions(timer::now() - start),
            count("protecting scattered frames", frames, 1, |done| calls::mem_protect_guest(handle, gfn + done, frames - done, 1))?,
            count("unsharing scattered frames", frames, 1, |done| calls::mem_unshare_guest(handle, gfn + done, frames - done))?,
        ];
        vm.end()?;
        in_bounds(&counts)?;
    }

    /// The same for what a protected VM has.
    of_scattered_frames {
        let (mut vm, gfn) = vm(VM_PROTECTED)?;
        let handle = vm.handle();
        for place in (0..512).step_by(39) {
            vm.donate(gfn + place, Folio::take_pinned(0)?)?;
        }
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let back = count("reclaiming scattered frames", 512, 1, |done| calls::mem_reclaim(handle, gfn + done, 512 - done))?;
        vm.end()?;
        in_bounds(&[back])?;
    }

    /// Folios of 64 KiB to 1 MiB have an entry for each frame, and are mapped and unmapped whole.
    of_middle_orders {
        for order in 4..limit::MAX_ORDER {
            let (vm, gfn) = vm(VM_PROTECTED)?;
            let folio = Folio::take_pinned(order)?;
            let (handle, pfn, frames) = (vm.handle(), folio.pfn(), folio.frames());
            let what = |verb| alloc::format!("{verb} a folio of order {order}");
            let given = count(&what("donating"), frames, frames, |_| calls::mem_donate(handle, gfn, pfn, 1, u64::from(order)))?;
            vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
            let back = count(&what("reclaiming"), frames, 1, |done| calls::mem_reclaim(handle, gfn + done, frames - done))?;
            vm.end_after_teardown()?;
            in_bounds(&[given, back])?;
        }
    }
}
