//! Scenarios about what the host touches and does not own.

use pinfold_abi::{HostCall, claim};
use pinfold_spec::{GuestEvent, TouchBy};

use super::{FIRST, SHARE};
use crate::lockstep::{EL2, FRAMES, GUEST, HOLE, Judged, Lockstep, RAM, TABLE};

scenarios! {
    touch_own, touch_shared, touch_of_process, touch_hole, touch_decoy, touch_wiping, touch_pool, decoy_is_zero,
    decoys_make_way, decoy_goes_by_run, decoy_goes_by_share, decoy_goes_by_reclaim, decoy_goes_with_the_pool,
}

const EVERYBODY: [TouchBy; 4] = [
    TouchBy::Process,
    TouchBy::KernelForProcess,
    TouchBy::Kernel,
    TouchBy::Fetch,
];

/// A started VM with a folio of the order and ten frames.
fn donated(order: u8) -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, order)?;
    both.give(vm, GUEST + 512, RAM, 10, 0)?;
    both.guests_write();
    Ok((both, vm))
}

fn touch_own() -> Judged<Lockstep> {
    let (mut both, _) = donated(0)?;
    for by in EVERYBODY {
        both.touch(FIRST + 1, by)?;
        both.touch(RAM + 100, by)?;
    }
    Ok(both)
}

fn touch_shared() -> Judged<Lockstep> {
    let (mut both, vm) = donated(0)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [SHARE, GUEST << 12, 0, 0], GuestEvent::Call)?;
    for by in EVERYBODY {
        both.touch(FIRST, by)?;
        both.touch(TABLE, by)?;
    }
    Ok(both)
}

fn touch_of_process() -> Judged<Lockstep> {
    let (mut both, _) = donated(0)?;
    for by in [TouchBy::Process, TouchBy::KernelForProcess, TouchBy::Fetch] {
        both.touch(FIRST, by)?;
        both.touch(EL2, by)?;
    }
    Ok(both)
}

fn touch_hole() -> Judged<Lockstep> {
    let (mut both, _) = donated(0)?;
    for frame in [HOLE, 1 << 28, (1 << 36) - 1, 0x9000, RAM + FRAMES, EL2] {
        for by in EVERYBODY {
            both.touch(frame, by)?;
        }
    }
    Ok(both)
}

fn touch_decoy() -> Judged<Lockstep> {
    for order in [0, 3, 9] {
        let (mut both, _) = donated(order)?;
        both.touch(FIRST, TouchBy::Kernel)?;
        both.touch(FIRST, TouchBy::Process)?;
        both.touch(FIRST, TouchBy::Fetch)?;
        both.touch(FIRST + (1 << order) - 1, TouchBy::Kernel)?;
    }
    Lockstep::with_pins()
}

fn touch_wiping() -> Judged<Lockstep> {
    let (mut both, vm) = donated(9)?;
    both.begin(vm)?;
    both.reclaim(vm, GUEST, 512)?;
    both.touch(FIRST, TouchBy::Kernel)?;
    both.touch(FIRST + 500, TouchBy::Kernel)?;
    both.touch(FIRST + 1, TouchBy::Process)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn touch_pool() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.pool_donate(FIRST, 3)?;
    both.touch(FIRST, TouchBy::Kernel)?;
    both.touch(FIRST + 1, TouchBy::Process)?;
    Ok(both)
}

fn decoy_is_zero() -> Judged<Lockstep> {
    let (mut both, _) = donated(3)?;
    for frame in [FIRST, FIRST + 1, RAM, RAM + 1] {
        both.touch(frame, TouchBy::Kernel)?;
    }
    Ok(both)
}

fn decoys_make_way() -> Judged<Lockstep> {
    let (mut both, vm) = donated(9)?;
    let tables = both.call(HostCall::PoolStatus {})?[2];
    for offset in 0..10 {
        both.touch(RAM + offset, TouchBy::Kernel)?;
        both.touch(FIRST + offset, TouchBy::Kernel)?;
    }
    both.tear_down(vm)?;
    let after = both.call(HostCall::PoolStatus {})?[2];
    assert!(after > tables, "tables were lost");
    Ok(both)
}

fn decoy_goes_by_run() -> Judged<Lockstep> {
    let (mut both, vm) = donated(9)?;
    both.touch(FIRST + 3, TouchBy::Kernel)?;
    both.touch(RAM + 3, TouchBy::Kernel)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.touch(FIRST + 3, TouchBy::Kernel)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn decoy_goes_by_share() -> Judged<Lockstep> {
    for order in [2, 9] {
        let (mut both, vm) = donated(order)?;
        both.run(vm, 0, 0)?;
        both.touch(FIRST + 1, TouchBy::Kernel)?;
        both.touch(FIRST + 2, TouchBy::Kernel)?;
        both.guest(vm, 0, [SHARE, (GUEST + 2) << 12, 0, 0], GuestEvent::Call)?;
        both.touch(FIRST + 1, TouchBy::Kernel)?;
        both.tear_down(vm)?;
    }
    Lockstep::with_pins()
}

fn decoy_goes_by_reclaim() -> Judged<Lockstep> {
    let (mut both, vm) = donated(2)?;
    both.touch(FIRST + 1, TouchBy::Kernel)?;
    both.touch(RAM + 9, TouchBy::Kernel)?;
    both.tear_down(vm)?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, RAM + 20, 5, 0)?;
    for frame in RAM + 20..RAM + 25 {
        both.touch(frame, TouchBy::Kernel)?;
    }
    Ok(both)
}

fn decoy_goes_with_the_pool() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.pool_donate(FIRST, 1)?;
    both.touch(FIRST, TouchBy::Kernel)?;
    both.call(HostCall::PoolReclaim {})?;
    Ok(both)
}
