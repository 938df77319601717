//! Scenarios about ordinary VMs: memory that stays the host's.

use pinfold_abi::{HostCall, claim, limit};
use pinfold_spec::{GuestEvent, TouchBy};

use super::{FIRST, RELINQUISH, SHARE, UNSHARE};
use crate::lockstep::{EL2, FRAMES, GUEST, GUEST_FRAMES, Judged, Lockstep, RAM, TABLE};

scenarios! {
    kinds, share_guest_malformed, share_guest_outside_ram, share_guest_not_hosts, share_guest_often, share_guest_occupied,
    share_guest_bounded, share_guest, share_guest_block, share_guest_in_both_ways, share_guest_keeps_it_from_others,
    share_guest_access, guest_range_malformed, guest_range_cuts, guest_range_leaves_cut, guest_range_bounded,
    guest_range_holes, unshare_guest, unshare_guest_while_dying, protect_guest, protect_guest_block, fault_denied,
    ordinary_guest, ordinary_rounds, dry_share_guest, share_guest_touched, ordinary_census,
}

const READ: u64 = 1;
const WRITE: u64 = 2;
const EXECUTE: u64 = 4;
const ALL: u64 = READ | WRITE | EXECUTE;

/// After boot, with a pin table, and an ordinary VM that is started.
fn ordinary() -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.ordinary_vm()?;
    Ok((both, vm))
}

fn kinds() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    let protected = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 0)?;
    both.share_with_guest(protected, (GUEST, FIRST, 1, 0), ALL)?;
    both.unshare_from_guest(protected, GUEST, 1)?;
    both.protect_guest(protected, GUEST, 1, READ)?;
    both.begin(vm)?;
    both.reclaim(vm, GUEST, 1)?;
    Ok(both)
}

fn share_guest_malformed() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    for folios in [
        (GUEST, FIRST, 0, 0),
        (GUEST, FIRST, 513, 0),
        (GUEST, FIRST, 2, 9),
        (GUEST, FIRST, 1, 10),
        (GUEST, FIRST, 1 << 63, 1),
        (GUEST, FIRST, 1, u64::MAX),
        (1 << 36, FIRST, 1, 0),
        (GUEST, 1 << 36, 1, 0),
        (GUEST, (1 << 36) - 1, 2, 0),
        (GUEST + 2, FIRST + 4, 1, 2),
        (GUEST + 4, FIRST + 2, 1, 2),
        (GUEST + 256, FIRST + 256, 1, 9),
    ] {
        both.share_with_guest(vm, folios, READ)?;
    }
    for access in [0, WRITE, EXECUTE, WRITE | EXECUTE, 8 | ALL, u64::MAX] {
        both.share_with_guest(vm, (GUEST, FIRST, 1, 0), access)?;
    }
    Ok(both)
}

fn share_guest_outside_ram() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    for gfn in [0, GUEST - 1, GUEST + GUEST_FRAMES, 1 << 28, (1 << 36) - 1] {
        both.share_with_guest(vm, (gfn, FIRST, 1, 0), ALL)?;
    }
    both.share_with_guest(vm, (GUEST + GUEST_FRAMES - 1, FIRST, 2, 0), ALL)?;
    Ok(both)
}

fn share_guest_not_hosts() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    let protected = both.live_vm()?;
    both.give(protected, GUEST, FIRST, 1, 2)?;
    both.pool_donate(FIRST + 9, 1)?;
    for pfn in [
        EL2,
        EL2 - 1,
        TABLE,
        FIRST - 1,
        FIRST,
        FIRST + 3,
        FIRST + 8,
        RAM - 1,
        RAM + FRAMES,
        0,
    ] {
        both.share_with_guest(vm, (GUEST, pfn, 2, 0), ALL)?;
    }
    Ok(both)
}

/// One frame in as many places as there can be, and in one more.
fn share_guest_often() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    for index in 0..=u64::from(limit::MAX_SHARES) {
        both.share_with_guest(vm, (GUEST + index, FIRST, 1, 0), READ)?;
    }
    both.share_with_guest(vm, (GUEST + 512, FIRST - 1, 2, 0), READ)?;
    both.unshare_from_guest(vm, GUEST, 1)?;
    both.share_with_guest(vm, (GUEST + 512, FIRST - 1, 2, 0), READ)?;
    Ok(both)
}

fn share_guest_occupied() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST + 5, FIRST, 1, 0), ALL)?;
    both.share_with_guest(vm, (GUEST, FIRST + 8, 8, 0), ALL)?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 9), ALL)?;
    Ok(both)
}

fn share_guest_bounded() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST + 200, FIRST + 200, 129, 0), ALL)?;
    both.share_with_guest(vm, (GUEST + 328, FIRST + 328, 1, 0), ALL)?;
    both.share_with_guest(vm, (GUEST + 512, FIRST, 2, 8), ALL)?;
    both.share_with_guest(vm, (GUEST + 768, FIRST, 3, 6), ALL)?;
    // What is beyond the bound is not looked at yet.
    both.share_with_guest(vm, (GUEST, EL2 - 128, 130, 0), ALL)?;
    Ok(both)
}

fn share_guest() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.host_writes(FIRST, 0x1234);
    both.share_with_guest(vm, (GUEST, FIRST, 3, 0), ALL)?;
    both.share_with_guest(vm, (GUEST + 8, FIRST + 8, 2, 2), READ)?;
    both.finish(vm)?;
    both.begin(vm)?;
    both.finish(vm)?;
    Ok(both)
}

fn share_guest_block() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST + 512, FIRST, 1, 9), READ | WRITE)?;
    both.share_with_guest(vm, (GUEST, FIRST + 3, 1, 0), READ)?;
    both.unshare_from_guest(vm, GUEST + 512, 512)?;
    both.tear_down(vm)?;
    Ok(both)
}

/// Two VMs, and one of them twice.
fn share_guest_in_both_ways() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    let other = both.ordinary_vm()?;
    both.share_with_guest(vm, (GUEST, FIRST, 4, 0), ALL)?;
    both.share_with_guest(other, (GUEST + 8, FIRST + 2, 4, 0), READ)?;
    both.share_with_guest(vm, (GUEST + 16, FIRST + 1, 2, 0), READ | WRITE)?;
    both.unshare_from_guest(vm, GUEST, 4)?;
    both.unshare_from_guest(other, GUEST, 20)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn share_guest_keeps_it_from_others() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    let protected = both.live_vm()?;
    both.share_with_guest(vm, (GUEST, FIRST + 1, 1, 0), READ)?;
    both.give(protected, GUEST, FIRST, 2, 0)?;
    both.give(protected, GUEST, FIRST, 1, 9)?;
    both.pool_donate(FIRST, 2)?;
    both.unshare_from_guest(vm, GUEST, 1)?;
    both.give(protected, GUEST, FIRST, 2, 0)?;
    both.share_with_guest(vm, (GUEST, FIRST + 1, 1, 0), READ)?;
    Ok(both)
}

fn share_guest_access() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    for (index, access) in (0..).zip([READ, READ | WRITE, READ | EXECUTE, ALL]) {
        both.share_with_guest(vm, (GUEST + index, FIRST, 1, 0), access)?;
    }
    Ok(both)
}

fn guest_range_malformed() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    for (gfn, count) in [
        (GUEST, 0),
        (GUEST, 513),
        (1 << 28, 1),
        ((1 << 28) - 1, 2),
        (1 << 36, 1),
        (GUEST, u64::MAX),
    ] {
        both.unshare_from_guest(vm, gfn, count)?;
        both.protect_guest(vm, gfn, count, READ)?;
    }
    both.protect_guest(vm, GUEST, 1, WRITE)?;
    Ok(both)
}

fn guest_range_cuts() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 9), ALL)?;
    for (offset, count) in [(1, 512), (0, 511), (511, 1)] {
        both.unshare_from_guest(vm, GUEST + offset, count)?;
        both.protect_guest(vm, GUEST + offset, count, READ)?;
    }
    Ok(both)
}

fn guest_range_leaves_cut() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST + 500, FIRST, 12, 0), ALL)?;
    both.share_with_guest(vm, (GUEST + 512, FIRST, 1, 9), ALL)?;
    both.protect_guest(vm, GUEST + 510, 200, READ)?;
    both.unshare_from_guest(vm, GUEST + 500, 500)?;
    Ok(both)
}

fn guest_range_bounded() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 100, 0), ALL)?;
    both.protect_guest(vm, GUEST, 100, READ)?;
    both.unshare_from_guest(vm, GUEST, 65)?;
    both.unshare_from_guest(vm, GUEST + 64, 1)?;
    both.share_with_guest(vm, (GUEST + 512, FIRST, 1, 9), ALL)?;
    both.unshare_from_guest(vm, GUEST + 512, 512)?;
    Ok(both)
}

fn guest_range_holes() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.unshare_from_guest(vm, GUEST, 512)?;
    both.protect_guest(vm, (1 << 28) - 1, 1, READ)?;
    both.share_with_guest(vm, (GUEST + 7, FIRST, 1, 0), ALL)?;
    both.unshare_from_guest(vm, GUEST, 512)?;
    Ok(both)
}

fn unshare_guest() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 5, 0), ALL)?;
    both.host_writes(FIRST + 1, 0x77);
    both.unshare_from_guest(vm, GUEST + 1, 3)?;
    both.unshare_from_guest(vm, GUEST + 1, 3)?;
    Ok(both)
}

fn unshare_guest_while_dying() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 5, 0), ALL)?;
    both.begin(vm)?;
    both.finish(vm)?;
    both.unshare_from_guest(vm, GUEST, 5)?;
    both.finish(vm)?;
    Ok(both)
}

fn protect_guest() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 5, 0), ALL)?;
    both.protect_guest(vm, GUEST + 1, 2, READ)?;
    both.protect_guest(vm, GUEST + 2, 2, READ | EXECUTE)?;
    both.protect_guest(vm, GUEST, 512, READ | WRITE)?;
    Ok(both)
}

fn protect_guest_block() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 9), ALL)?;
    both.protect_guest(vm, GUEST, 512, READ)?;
    both.protect_guest(vm, GUEST, 512, ALL)?;
    Ok(both)
}

/// A store of X2.
fn store(ipa: u64) -> GuestEvent {
    GuestEvent::Access {
        ipa,
        width: 8,
        write: true,
        register: 2,
    }
}

fn fault_denied() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    let ipa = GUEST << 12;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], store(ipa))?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 0), READ)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], store(ipa + 8))?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Fetch { ipa })?;
    both.protect_guest(vm, GUEST, 1, READ | WRITE)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], store(ipa))?;
    both.guest(vm, 0, [0; 4], GuestEvent::Fetch { ipa })?;
    Ok(both)
}

fn ordinary_guest() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 0), ALL)?;
    both.run(vm, 0, 0)?;
    for function in [
        SHARE,
        UNSHARE,
        RELINQUISH,
        0xC600_0002,
        0x8600_0000,
        0x8600_FF01,
        7,
    ] {
        both.guest(vm, 0, [function, GUEST << 12, 0, 0], GuestEvent::Call)?;
    }
    both.guest(vm, 0, [0xC600_0002, 0, 0, 0], GuestEvent::Call)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    Ok(both)
}

fn ordinary_rounds() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    for _ in 0..3 {
        let (vm, protected) = (both.ordinary_vm()?, both.live_vm()?);
        both.share_with_guest(vm, (GUEST, FIRST, 16, 2), ALL)?;
        both.give(protected, GUEST, FIRST + 64, 1, 6)?;
        both.guests_write();
        both.tear_down(vm)?;
        both.tear_down(protected)?;
    }
    Ok(both)
}

/// Shares frames so far apart that each needs a table, until the pool is dry.
fn dry_share_guest() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(0, 1)?;
    let places = || (0..16).map(|number| GUEST + (number << 18));
    for gfn in places() {
        both.region(vm, gfn, 4)?;
    }
    for _ in 0..62 {
        both.create(0, 1)?;
    }
    for gfn in places() {
        both.share_with_guest(vm, (gfn, FIRST, 1, 0), READ)?;
    }
    Ok(both)
}

fn share_guest_touched() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 0), ALL)?;
    for by in [
        TouchBy::Process,
        TouchBy::KernelForProcess,
        TouchBy::Kernel,
        TouchBy::Fetch,
    ] {
        both.touch(FIRST, by)?;
    }
    both.end()?;
    Ok(both)
}

fn ordinary_census() -> Judged<Lockstep> {
    let (mut both, vm) = ordinary()?;
    both.share_with_guest(vm, (GUEST, FIRST, 3, 0), ALL)?;
    both.share_with_guest(vm, (GUEST + 8, FIRST, 1, 0), ALL)?;
    both.call(HostCall::FolioCensus {})?;
    for frame in FIRST - 1..FIRST + 4 {
        let pfn = claim::Pfn(frame);
        both.call(HostCall::FolioQuery { pfn })?;
        both.call(HostCall::FolioRange { first: pfn })?;
    }
    both.call(HostCall::FolioDigest {
        first: claim::Pfn(FIRST),
        count: claim::Count(8),
    })?;
    Ok(both)
}
