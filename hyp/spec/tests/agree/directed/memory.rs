//! Scenarios about memory: pin tables, the pool, donations, reclaims.

use pinfold_abi::{HostCall, claim, pin_word};
use pinfold_spec::{GuestEvent, TouchBy};

use super::{FIRST, SHARE};
use crate::lockstep::{EL2, FRAMES, GUEST, GUEST_FRAMES, Judged, Lockstep, RAM, TABLE};

scenarios! {
    pins_malformed, pins_taken, pins_full, pins_not_hosts, pins_in_steps, pins_in_steps_not_hosts, pins, pool_malformed,
    pool_not_hosts, pool, pool_reclaim, pool_reclaim_none, donate_malformed, donate_unaligned, donate_outside_ram,
    donate_across_regions, donate_not_hosts, donate_not_ram, donate_without_pins, donate_beyond_pins, donate_not_pinned,
    donate_tail_pinned, donate_occupied, donate, donate_block, donate_orders, donate_keeps_content, donate_bounded, donate_goes_on, donate_begun, donate_begun_and_reclaimed, poison_malformed, poison_not_hosts, poison, reclaim_malformed,
    reclaim_cuts, reclaim_holes, reclaim_bounded, reclaim_leaves_cut, reclaim_block, reclaim, reclaim_shared, rounds,
    dry_pool, dry_donation, dry_region, dry_vcpu, dry_share, dry_gift, end,
}

fn pins_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let claims = [
        (FIRST, RAM, 0),
        (1 << 36, RAM, 1),
        (FIRST, 1 << 36, 1),
        (FIRST, (1 << 36) - 1, 2),
        ((1 << 36) - 1, RAM, 1025),
        (FIRST, RAM, u64::MAX),
    ];
    for (table, first, frames) in claims {
        both.register(table, first, frames)?;
    }
    Ok(both)
}

fn pins_taken() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.register(FIRST, RAM, 100)?;
    for (table, first, frames) in [
        (FIRST, RAM, 100),
        (FIRST + 1, RAM + 99, 1),
        (FIRST + 1, RAM - 1, 2),
    ] {
        both.register(table, first, frames)?;
    }
    both.register(FIRST + 1, RAM + 100, 1)?;
    Ok(both)
}

fn pins_full() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for number in 0..9 {
        both.register(FIRST + number, RAM + number, 1)?;
    }
    Ok(both)
}

fn pins_not_hosts() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for table in [EL2 - 1, EL2, RAM - 1, RAM + FRAMES - 1, 0] {
        both.register(table, RAM, 2048)?;
    }
    Ok(both)
}

fn pins_in_steps() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let whole = (FIRST, RAM, 250 * 1024);
    for _ in 0..5 {
        both.register(whole.0, whole.1, whole.2)?;
        both.register(whole.0, whole.1, 1024)?;
        both.register(whole.0 + 1, whole.1, whole.2)?;
    }
    Ok(both)
}

/// A frame far into the table is not the host's.
fn pins_in_steps_not_hosts() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.pool_donate(FIRST + 75, 1)?;
    both.register(FIRST, RAM, 150 * 1024)?;
    both.register(FIRST, RAM, 150 * 1024)?;
    // An unfinished table speaks for nothing.
    let vm = both.vm()?;
    both.donate(vm, GUEST, RAM, 1, 0)?;
    Ok(both)
}

fn pins() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.host_writes(TABLE, 0x77);
    both.register(TABLE, RAM, FRAMES)?;
    Ok(both)
}

fn pool_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for (first, count) in [
        (FIRST, 0),
        (FIRST, 65),
        (1 << 36, 1),
        ((1 << 36) - 1, 2),
        (FIRST, u64::MAX),
    ] {
        both.pool_donate(first, count)?;
    }
    Ok(both)
}

fn pool_not_hosts() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    for (first, count) in [
        (EL2, 1),
        (EL2 - 3, 8),
        (TABLE - 1, 2),
        (RAM - 1, 1),
        (RAM + FRAMES, 1),
        (0, 1),
    ] {
        both.pool_donate(first, count)?;
    }
    Ok(both)
}

fn pool() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.pool_donate(FIRST + 7, 3)?;
    both.pool_donate(FIRST + 512 - 1, 2)?;
    both.pool_donate(RAM, 64)?;
    Ok(both)
}

fn pool_reclaim() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.host_writes(FIRST + 1, 0x55);
    both.pool_donate(FIRST, 3)?;
    for _ in 0..4 {
        both.call(HostCall::PoolReclaim {})?;
    }
    both.pool_donate(FIRST, 1)?;
    Ok(both)
}

fn pool_reclaim_none() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.call(HostCall::PoolReclaim {})?;
    Ok(both)
}

fn donate_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    let claims = [
        (GUEST, FIRST, 0, 0),
        (GUEST, FIRST, 513, 0),
        (GUEST, FIRST, 2, 9),
        (GUEST, FIRST, 1, 10),
        (GUEST, FIRST, 1 << 63, 1),
        (GUEST, FIRST, 1, u64::MAX),
        (GUEST, FIRST, 1, 256),
        (1 << 36, FIRST, 1, 0),
        (GUEST, 1 << 36, 1, 0),
        (GUEST, (1 << 36) - 1, 2, 0),
        (GUEST, FIRST, u64::MAX, 0),
    ];
    for (gfn, pfn, count, order) in claims {
        both.donate(vm, gfn, pfn, count, order)?;
    }
    Ok(both)
}

fn donate_unaligned() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for (gfn, pfn, order) in [
        (GUEST + 2, FIRST + 2, 2),
        (GUEST + 4, FIRST + 2, 2),
        (GUEST + 2, FIRST + 4, 2),
        (GUEST, FIRST + 256, 9),
    ] {
        both.pin_folio(pfn, order);
        both.donate(vm, gfn, pfn, 1, u64::from(order))?;
    }
    Ok(both)
}

fn donate_outside_ram() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for gfn in [0, GUEST - 1, GUEST + GUEST_FRAMES, 1 << 28, (1 << 36) - 1] {
        both.give(vm, gfn, FIRST, 1, 0)?;
    }
    both.give(vm, GUEST + GUEST_FRAMES - 1, FIRST, 2, 0)?;
    Ok(both)
}

fn donate_across_regions() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 1)?;
    both.region(vm, GUEST, 4)?;
    both.region(vm, GUEST + 4, 4)?;
    both.give(vm, GUEST + 3, FIRST, 2, 0)?;
    Ok(both)
}

fn donate_not_hosts() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.give(vm, GUEST, FIRST, 1, 2)?;
    for pfn in [EL2, EL2 - 1, TABLE, FIRST, FIRST + 3] {
        both.give(vm, GUEST + 8, pfn, 2, 0)?;
    }
    Ok(both)
}

fn donate_not_ram() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for pfn in [0, 0x9000, RAM - 1, RAM + FRAMES, (1 << 36) - 1] {
        both.donate(vm, GUEST, pfn, 1, 0)?;
    }
    Ok(both)
}

fn donate_without_pins() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    both.give(vm, GUEST, FIRST, 1, 0)?;
    Ok(both)
}

fn donate_beyond_pins() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.register(TABLE, RAM, 2 * 512 + 100)?;
    let vm = both.vm()?;
    both.give(vm, GUEST + 98, FIRST + 98, 4, 0)?;
    both.give(vm, GUEST + 96, FIRST + 96, 1, 3)?;
    both.give(vm, GUEST + 88, FIRST + 88, 1, 3)?;
    Ok(both)
}

/// Words that say something else than one exclusive pin of an isolated folio of one frame.
const WORDS: [u32; 9] = [
    0,
    1,
    2,
    0x4000_0001,
    0x8000_0001,
    0xC000_0000,
    0xC000_0002,
    0xC100_0001,
    0xD000_0001,
];

fn donate_not_pinned() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for word in WORDS {
        both.pin(FIRST, word);
        both.donate(vm, GUEST, FIRST, 1, 0)?;
    }
    // The sixth of eight.
    (FIRST..FIRST + 8).for_each(|pfn| both.pin_folio(pfn, 0));
    both.pin(FIRST + 5, 1);
    both.donate(vm, GUEST, FIRST, 8, 0)?;
    Ok(both)
}

fn donate_tail_pinned() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.pin_folio(FIRST, 9);
    both.pin(FIRST + 77, 1);
    both.donate(vm, GUEST, FIRST, 1, 9)?;
    both.pin_folio(FIRST, 3);
    both.pin_folio(FIRST + 8, 3);
    both.pin(FIRST + 15, pin_word::donatable(0));
    both.donate(vm, GUEST, FIRST, 2, 3)?;
    Ok(both)
}

fn donate_occupied() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.give(vm, GUEST + 5, FIRST, 1, 0)?;
    both.give(vm, GUEST, FIRST + 8, 8, 0)?;
    both.give(vm, GUEST, FIRST + 512 - 8, 1, 3)?;
    Ok(both)
}

fn donate() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.give(vm, GUEST, FIRST, 1, 0)?;
    both.give(vm, GUEST + 250, FIRST + 100, 300, 0)?;
    Ok(both)
}

fn donate_block() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.give(vm, GUEST + 512, FIRST, 1, 9)?;
    Ok(both)
}

fn donate_orders() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for order in 1..9 {
        let at = 1 << order;
        both.give(vm, GUEST + at, FIRST + at, 1, order)?;
    }
    Ok(both)
}

fn donate_keeps_content() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.host_writes(FIRST, 0x1234);
    both.give(vm, GUEST, FIRST, 2, 0)?;
    Ok(both)
}

fn donate_bounded() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    (FIRST..FIRST + 60).for_each(|pfn| both.pin_folio(pfn, 0));
    both.donate(vm, GUEST, FIRST, 25, 0)?;
    both.donate(vm, GUEST + 24, FIRST + 24, 24, 0)?;
    // What is beyond the bound is not looked at yet.
    both.pin(FIRST + 200, pin_word::donatable(4));
    both.donate(vm, GUEST + 208, FIRST + 208, 2, 4)?;
    both.pin_folio(FIRST + 208, 4);
    both.donate(vm, GUEST + 208, FIRST + 208, 2, 4)?;
    both.donate(vm, GUEST + 224, FIRST + 224, 1, 4)?;
    Ok(both)
}

fn donate_goes_on() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.host_writes(FIRST + 128, 0x88);
    both.pin_folio(FIRST + 128, 7);
    both.pin_folio(FIRST + 256, 7);
    both.donate(vm, GUEST + 128, FIRST + 128, 2, 7)?;
    both.pin(FIRST + 128, 0);
    for _ in 0..3 {
        both.donate(vm, GUEST + 128, FIRST + 128, 2, 7)?;
    }
    both.donate(vm, GUEST + 128, FIRST + 128, 1, 7)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

/// What was begun is nobody's, and goes nowhere else.
fn donate_begun() -> Judged<Lockstep> {
    for order in [6, 9] {
        let mut both = Lockstep::with_pins()?;
        let (vm, other) = (both.live_vm()?, both.live_vm()?);
        both.pin_folio(FIRST, order);
        both.donate(vm, GUEST, FIRST, 1, u64::from(order))?;
        both.donate(other, GUEST, FIRST, 1, u64::from(order))?;
        both.donate(vm, GUEST + 512, FIRST, 1, u64::from(order))?;
        both.give(vm, GUEST, FIRST, 1, 5)?;
        both.give(vm, GUEST + 3, RAM, 1, 0)?;
        both.pool_donate(FIRST + 1, 1)?;
        both.touch(FIRST + 1, TouchBy::Kernel)?;
        both.touch(FIRST + 2, TouchBy::Process)?;
        both.call(HostCall::FolioQuery {
            pfn: claim::Pfn(FIRST + 3),
        })?;
        both.call(HostCall::FolioCensus {})?;
        both.run(vm, 0, 0)?;
        let ipa = (GUEST + 1) << 12;
        both.guest(vm, 0, [0; 4], GuestEvent::Fetch { ipa })?;
        both.run(vm, 0, 0)?;
        both.guest(vm, 0, [SHARE, ipa, 0, 0], GuestEvent::Call)?;
        both.donate_all(vm, GUEST, FIRST, 1, order)?;
        both.run(vm, 0, 0)?;
        both.guest(vm, 0, [SHARE, ipa, 0, 0], GuestEvent::Call)?;
        both.tear_down(vm)?;
    }
    Lockstep::with_pins()
}

fn donate_begun_and_reclaimed() -> Judged<Lockstep> {
    for order in [6, 9] {
        let mut both = Lockstep::with_pins()?;
        let vm = both.live_vm()?;
        both.host_writes(FIRST + 5, 0x99);
        both.pin_folio(FIRST, order);
        both.donate(vm, GUEST, FIRST, 1, u64::from(order))?;
        both.donate(vm, GUEST, FIRST, 1, u64::from(order))?;
        both.begin(vm)?;
        both.donate(vm, GUEST, FIRST, 1, u64::from(order))?;
        both.finish(vm)?;
        both.tear_down(vm)?;
    }
    Lockstep::with_pins()
}

fn poison_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for pfn in [1 << 36, 1 << 36 | FIRST, u64::MAX] {
        both.poison(pfn)?;
    }
    Ok(both)
}

fn poison_not_hosts() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let (vm, ordinary) = (both.live_vm()?, both.ordinary_vm()?);
    both.give(vm, GUEST, FIRST, 1, 2)?;
    both.share_with_guest(ordinary, (GUEST, FIRST + 8, 1, 0), 1)?;
    for pfn in [
        0,
        RAM - 1,
        RAM + FRAMES,
        EL2,
        TABLE,
        FIRST,
        FIRST + 1,
        FIRST + 8,
    ] {
        both.poison(pfn)?;
    }
    Ok(both)
}

/// Nobody gets it, and nobody reaches it.
fn poison() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let (vm, ordinary) = (both.live_vm()?, both.ordinary_vm()?);
    both.host_writes(FIRST + 1, 0x66);
    both.poison(FIRST + 1)?;
    both.poison(FIRST + 1)?;
    both.give(vm, GUEST, FIRST, 2, 0)?;
    both.share_with_guest(ordinary, (GUEST, FIRST, 2, 0), 1)?;
    both.pool_donate(FIRST + 1, 1)?;
    both.register(FIRST + 1, RAM + FRAMES, 1)?;
    for by in [TouchBy::Process, TouchBy::KernelForProcess, TouchBy::Fetch] {
        both.touch(FIRST + 1, by)?;
    }
    both.call(HostCall::FolioQuery {
        pfn: claim::Pfn(FIRST + 1),
    })?;
    both.call(HostCall::FolioCensus {})?;
    Ok(both)
}

/// A VM that is dying, with these folios: offset, count, order.
fn dying(folios: &[(u64, u64, u8)]) -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    for (offset, count, order) in folios {
        both.give(vm, GUEST + offset, FIRST + offset, *count, *order)?;
    }
    both.guests_write();
    both.begin(vm)?;
    Ok((both, vm))
}

fn reclaim_malformed() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 1, 0)])?;
    for (gfn, count) in [
        (GUEST, 0),
        (GUEST, 513),
        (1 << 28, 1),
        ((1 << 28) - 1, 2),
        (1 << 36, 1),
        (GUEST, u64::MAX),
    ] {
        both.reclaim(vm, gfn, count)?;
    }
    Ok(both)
}

fn reclaim_cuts() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 1, 3), (512 - 64, 1, 6)])?;
    for (offset, count) in [(1, 8), (0, 7), (7, 1), (512 - 64, 63)] {
        both.reclaim(vm, GUEST + offset, count)?;
    }
    // One that is being wiped, too.
    both.reclaim(vm, GUEST + 512 - 64, 64)?;
    both.reclaim(vm, GUEST + 512 - 63, 63)?;
    Ok(both)
}

fn reclaim_holes() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[])?;
    both.reclaim(vm, GUEST, 512)?;
    both.reclaim(vm, (1 << 28) - 1, 1)?;
    Ok(both)
}

fn reclaim_bounded() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 50, 0)])?;
    both.reclaim(vm, GUEST, 512)?;
    both.reclaim(vm, GUEST + 40, 512 - 40)?;
    Ok(both)
}

fn reclaim_leaves_cut() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 2, 0), (4, 1, 2)])?;
    both.reclaim(vm, GUEST, 6)?;
    Ok(both)
}

fn reclaim_block() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 1, 9), (512, 1, 0)])?;
    both.host_writes(RAM, 0x99);
    for _ in 0..13 {
        both.reclaim(vm, GUEST, 512)?;
    }
    both.tear_down(vm)?;
    Ok(both)
}

fn reclaim() -> Judged<Lockstep> {
    let (mut both, vm) = dying(&[(0, 3, 0), (8, 1, 3), (30, 2, 0)])?;
    both.reclaim(vm, GUEST, 32)?;
    both.finish(vm)?;
    Ok(both)
}

fn reclaim_shared() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 3)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [SHARE, (GUEST + 2) << 12, 0, 0], GuestEvent::Call)?;
    both.guests_write();
    both.host_writes(FIRST + 2, 0x66);
    both.tear_down(vm)?;
    Ok(both)
}

fn rounds() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    for _ in 0..3 {
        let vm = both.live_vm()?;
        both.give(vm, GUEST, FIRST, 16, 2)?;
        both.give(vm, GUEST + 512, RAM, 5, 0)?;
        both.guests_write();
        both.tear_down(vm)?;
    }
    Ok(both)
}

/// Takes what the pool has but its floor, and some.
fn drain(both: &mut Lockstep) -> Judged {
    for _ in 0..62 {
        both.create(1, 1)?;
    }
    Ok(())
}

fn dry_pool() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    drain(&mut both)?;
    both.call(HostCall::PoolStatus {})?;
    both.call(HostCall::PoolReclaim {})?;
    both.register(FIRST, RAM, 1)?;
    Ok(both)
}

/// Drains the pool, then gives the VM frames from `first` on, so far apart that each needs a table.
fn give_until_dry(both: &mut Lockstep, vm: claim::Handle, first: u64) -> Judged {
    let places = || (0..16).map(|number| (GUEST + (number << 18), first + number));
    for (gfn, _) in places() {
        both.region(vm, gfn, 4)?;
    }
    drain(both)?;
    for (gfn, pfn) in places() {
        both.give(vm, gfn, pfn, 1, 0)?;
    }
    Ok(())
}

fn dry_donation() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 1)?;
    give_until_dry(&mut both, vm, FIRST)?;
    Ok(both)
}

fn dry_region() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 1)?;
    drain(&mut both)?;
    for number in 0..6 {
        both.region(vm, GUEST + number * 8, 8)?;
    }
    Ok(both)
}

fn dry_vcpu() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 8)?;
    drain(&mut both)?;
    for index in 0..8 {
        both.vcpu(vm, index, 0)?;
    }
    Ok(both)
}

/// Shares split folios of 2 MiB until the pool is dry.
fn dry_share() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 9)?;
    let other = both.create(1, 1)?;
    give_until_dry(&mut both, other, RAM)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [SHARE, GUEST << 12, 0, 0], GuestEvent::Call)?;
    let by_smc = GuestEvent::CallBy {
        smc: true,
        immediate: 0,
    };
    both.guest(vm, 0, [SHARE, GUEST << 12, 0, 0], by_smc)?;
    Ok(both)
}

/// The way out of a dry pool.
fn dry_gift() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 1)?;
    give_until_dry(&mut both, vm, RAM)?;
    both.pool_donate(FIRST, 1)?;
    both.pool_donate(FIRST + 5, 30)?;
    both.create(1, 1)?;
    for _ in 0..32 {
        both.call(HostCall::PoolReclaim {})?;
    }
    Ok(both)
}

fn end() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 3)?;
    both.give(vm, GUEST + 64, FIRST + 64, 1, 6)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [SHARE, (GUEST + 2) << 12, 0, 0], GuestEvent::Call)?;
    let dying = both.vm()?;
    both.give(dying, GUEST, FIRST + 128, 1, 6)?;
    both.guests_write();
    both.host_writes(FIRST + 2, 0x44);
    both.begin(dying)?;
    both.reclaim(dying, GUEST, 64)?;
    both.end()?;
    Ok(both)
}
