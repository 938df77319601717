//! Donations that must be refused whatever the pins say, and those that must be done.

use guest_test::bytes::FRAME;
use guest_test::tap::Outcome;
use guest_test::{check, check_eq, port, tests};
use pinfold_abi::{limit, pin_word};

use super::processors;
use super::snapshot::{Snapshot, expect_state};
use crate::calls::{self, State, Status};
use crate::folio::{Folio, pattern};
use crate::frames;
use crate::micro::Command;
use crate::vm::{RAM_GFN, SCRATCH_GFN, Vm};

/// A donation of one frame is refused in one of these ways and changes nothing.
fn refused(vm: &Vm, gfn: u64, pfn: u64, statuses: &[Status], what: &str) -> Outcome {
    let before = Snapshot::take()?;
    calls::mem_donate(vm.handle(), gfn, pfn, 1, 0).refused_as_one_of(statuses, what)?;
    before.is_still_so(what)
}

tests! { "donation":
    /// The same frame twice, at the same place and at another.
    twice_to_one_guest {
        let mut vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        let pfn = folio.pfn();
        vm.donate(RAM_GFN, folio)?;
        for gfn in [RAM_GFN, RAM_GFN + 1] {
            refused(&vm, gfn, pfn, &[Status::NotPermitted], "a second donation")?;
        }
        vm.end()?;
    }

    /// The same frame to a second guest.
    to_two_guests {
        let mut first = Vm::configured(1)?;
        let second = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        let pfn = folio.pfn();
        first.donate(RAM_GFN, folio)?;
        refused(&second, RAM_GFN, pfn, &[Status::NotPermitted], "a donation to a second guest")?;
        first.end()?;
        second.end()?;
    }

    /// A place that the guest already has.
    where_the_guest_has_something {
        let mut vm = Vm::configured(1)?;
        vm.give_filled(RAM_GFN, 0, 1)?;
        let other = Folio::take_pinned(0)?;
        refused(&vm, RAM_GFN, other.pfn(), &[Status::Exists], "a donation on top")?;
        let large = Folio::take_pinned(3)?;
        calls::mem_donate(vm.handle(), RAM_GFN, large.pfn(), 1, 3).refused(Status::Exists, "a large donation on top")?;
        vm.end()?;
    }

    /// EL2's own memory, by its pfn.
    of_el2_memory {
        let vm = Vm::configured(1)?;
        let frame = processors::el2_frame()?;
        refused(&vm, RAM_GFN, frame, &[Status::NotPermitted, Status::NoPinTable], "donating EL2's memory")?;
        calls::pool_donate(frame, 1).refused(Status::NotPermitted, "giving EL2's memory to the pool")?;
        vm.end()?;
    }

    /// MMIO, holes, and frames beyond everything.
    of_what_is_no_memory {
        frames::register()?;
        let vm = Vm::configured(1)?;
        for pfn in [0, 0x8000, 0x80a0, 0x9000, 0x9020, 0x1_0000, 0x3_ffff, 1 << 28, (1 << 36) - 1, 1 << 36, 1 << 52, u64::MAX >> 12, u64::MAX] {
            refused(&vm, RAM_GFN, pfn, &[Status::NotRam, Status::NoPinTable, Status::Invalid], "donating no memory")?;
            calls::pool_donate(pfn, 1).refused_as_one_of(&[Status::NotRam, Status::Invalid], "giving no memory to the pool")?;
        }
        vm.end()?;
    }

    /// Counts and orders that make no sense, and ranges that wrap.
    of_nonsense_ranges {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(1)?;
        let before = Snapshot::take()?;
        let (handle, pfn) = (vm.handle(), folio.pfn());
        for (gfn, pfn, count, order) in [
            (RAM_GFN, pfn, 0, 0), (RAM_GFN, pfn, limit::MAX_FRAMES + 1, 0), (RAM_GFN, pfn, u64::MAX, 0), (RAM_GFN, pfn, 1 << 52, 0),
            (RAM_GFN, pfn, 1, 10), (RAM_GFN, pfn, 1, 64), (RAM_GFN, pfn, 1, u64::MAX), (RAM_GFN, pfn, 2, 9), (RAM_GFN, pfn, 1 << 63, 1),
            (RAM_GFN, u64::MAX, 2, 0), (RAM_GFN, u64::MAX - 1, 1, 1), (u64::MAX, pfn, 2, 0), (u64::MAX - 1, pfn, 1, 1),
            (1 << 28, pfn, 1, 0), ((1 << 28) - 1, pfn, 2, 0), (1 << 52, pfn, 1, 0),
        ] {
            calls::mem_donate(handle, gfn, pfn, count, order).refused_as_one_of(
                &[Status::Invalid, Status::Limit, Status::Granule, Status::NotRam, Status::NoPinTable],
                "a range without sense",
            )?;
        }
        before.is_still_so("after refusals")?;
        vm.end()?;
    }

    /// A guest frame outside the guest's RAM: that is MMIO, and stays so.
    outside_guest_ram {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        for gfn in [0, port::PORT / FRAME, RAM_GFN - 1, RAM_GFN + port::RAM_FRAMES] {
            refused(&vm, gfn, folio.pfn(), &[Status::Invalid, Status::NotMapped, Status::NotPermitted], "a donation outside guest RAM")?;
        }
        vm.end()?;
    }

    /// A large folio that is not aligned in either space.
    unaligned {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(4)?;
        for (gfn, pfn) in [(RAM_GFN + 1, folio.pfn()), (RAM_GFN + 2, folio.pfn()), (RAM_GFN, folio.pfn() + 1), (RAM_GFN, folio.pfn() + 2)] {
            calls::mem_donate(vm.handle(), gfn, pfn, 1, 2).refused_as_one_of(&[Status::Granule, Status::Invalid], "an unaligned folio")?;
        }
        vm.end()?;
    }

    /// To a VM that is not there.
    to_nobody {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        for handle in [0, vm.handle() ^ 0x100, vm.handle() + 1, u64::MAX, vm.handle() | 1 << 40] {
            calls::mem_donate(handle, RAM_GFN, folio.pfn(), 1, 0).refused(Status::NoSuchVm, "a donation to nobody")?;
        }
        vm.end()?;
    }

    /// A range that ends in a frame of another guest's is refused whole.
    across_an_owner_border {
        let mut other = Vm::configured(1)?;
        let vm = Vm::configured(1)?;
        let range = Folio::take_pinned(1)?;
        frames::set_pin(range.pfn(), pin_word::donatable(0));
        frames::set_pin(range.pfn() + 1, pin_word::donatable(0));
        calls::mem_donate(other.handle(), RAM_GFN, range.pfn() + 1, 1, 0).done("donating the second frame")?;
        let found = calls::mem_donate(vm.handle(), RAM_GFN, range.pfn(), 2, 0).refused(Status::NotPermitted, "the range")?;
        check_eq!(found.index, 1, "index");
        check!(found.folio != 0, "no folio word is reported");
        expect_state(range.pfn(), State::Host, "before the border")?;
        other.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        crate::vm::reclaim(other.handle(), RAM_GFN, 1)?;
        other.reclaim_all()?;
        other.end_after_teardown()?;
        vm.end()?;
    }

    /// Sixteen folios in one call; the guest finds their content, and the host gets them back empty.
    of_a_range {
        let mut vm = Vm::puppet()?;
        let range = Folio::take_pinned(4)?;
        range.fill(5)?;
        for index in 0..16 {
            frames::set_pin(range.pfn() + index, pin_word::donatable(0));
        }
        let (handle, pfn) = (vm.handle(), range.pfn());
        let done = crate::pool::fed(|| calls::mem_donate(handle, SCRATCH_GFN, pfn, 16, 0))?.value("MEM_DONATE")?;
        check_eq!(done, 16, "folios done");
        for index in [0, 3, 15] {
            expect_state(pfn + index, State::Guest, "of the range")?;
            check_eq!(vm.reads((SCRATCH_GFN + index) * FRAME + 8)?, pattern(5, index * FRAME + 8), "the guest's view");
        }
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        crate::vm::reclaim(handle, SCRATCH_GFN, 16)?;
        range.holds("after reclaim", |_| 0)?;
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
    }

    /// A large folio takes several calls: it is nobody's in between, and comes back if the host leaves it at that.
    in_steps {
        let mut vm = Vm::puppet()?;
        let folio = Folio::take_pinned(limit::MAX_ORDER)?;
        let (handle, pfn, gfn) = (vm.handle(), folio.pfn(), SCRATCH_GFN.next_multiple_of(512));
        let donate = || calls::mem_donate(handle, gfn, pfn, 1, u64::from(limit::MAX_ORDER));
        let reply = crate::pool::fed(donate)?;
        check!(reply.is(Status::Again), "the first call: {reply:x?}");
        expect_state(pfn + 77, State::Arriving, "after the first call")?;
        check!(folio.read(77 * FRAME).is_err(), "the host reads what it has given");
        folio.set_pin(0);
        check!(donate().is(Status::Again), "the second call");
        refused(&vm, SCRATCH_GFN, pfn + 1, &[Status::NotPermitted], "a part of it elsewhere")?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        crate::vm::reclaim(handle, gfn, 512)?;
        expect_state(pfn + 77, State::Host, "after the teardown")?;
        check_eq!(folio.read(77 * FRAME), Ok(0), "the content after it");
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
    }

    /// Large folios of every order.
    of_every_order {
        for order in 0..=limit::MAX_ORDER {
            let mut vm = Vm::puppet()?;
            let folio = Folio::take_pinned(order)?;
            let (pfn, last) = (folio.pfn(), folio.frames() * FRAME - 8);
            check!(folio.write(0, 0x11).is_ok() && folio.write(last, 0x22).is_ok(), "preparing");
            let gfn = SCRATCH_GFN.next_multiple_of(1 << order);
            vm.donate(gfn, folio)?;
            let [_, state, found, ..] = calls::folio_query(pfn + (1 << order) - 1).done("FOLIO_QUERY")?;
            check_eq!([state, found], [State::Guest.number(), u64::from(order)], "state and order of the last frame");
            check_eq!(vm.reads(gfn * FRAME + last)?, 0x22, "the guest's view of the end");
            vm.writes(gfn * FRAME + 16, 0x33)?;
            check!(vm.folio(gfn)?.read(last).is_err(), "the host still reads the end of a folio of order {order}");
            vm.does(Command::Off)?;
            vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
            for (_, folio) in vm.reclaim_all()? {
                for offset in (0..folio.frames() * FRAME).step_by(512) {
                    check_eq!(folio.read(offset), Ok(0), "offset {offset:#x} after reclaim of order {order}");
                }
            }
            vm.end_after_teardown()?;
        }
    }
}
