//! Guarantee G1: what is donated is exclusively pinned at that moment, or refused with what was found.

use guest_test::tap::Outcome;
use guest_test::{check, check_eq, tests};
use pinfold_abi::pin_word;

use super::snapshot::{Snapshot, expect_state};
use crate::calls::{self, Counter, State, Status};
use crate::folio::Folio;
use crate::frames;
use crate::vm::{RAM_GFN, Vm};

/// Donating this folio with this pin word is refused, the word is reported, nothing changes.
fn refused_with(vm: &Vm, folio: &Folio, order: u8, word: u32) -> Outcome {
    folio.set_pin(word);
    let reply = calls::mem_donate(vm.handle(), RAM_GFN, folio.pfn(), 1, u64::from(order));
    let found = reply.refused(Status::NotExclusivelyPinned, "donation")?;
    check_eq!(found.index, 0, "index");
    check_eq!(found.pin, u64::from(word), "pin word found");
    expect_state(folio.pfn(), State::Host, "after a refusal")?;
    check!(
        folio.write(0, 7).is_ok(),
        "the host lost a frame that it did not donate"
    );
    Ok(())
}

tests! { "pins":
    /// No pin, an ordinary pin, two pins, exclusive but not isolated, and every other single bit that is wrong.
    every_other_word_is_refused {
        frames::register()?;
        let vm = Vm::configured(1)?;
        let folio = Folio::take(0)?;
        let good = pin_word::donatable(0);
        for word in [
            0, 1, 2, pin_word::EXCLUSIVE, pin_word::EXCLUSIVE | 1, pin_word::ISOLATED | 1, pin_word::EXCLUSIVE | pin_word::ISOLATED,
            good + 1, good + 0xff, pin_word::donatable(1), pin_word::donatable(9), u32::MAX, 0x00ff_ffff,
        ] {
            refused_with(&vm, &folio, 0, word)?;
        }
        for bit in 0..32 {
            refused_with(&vm, &folio, 0, good ^ 1 << bit)?;
        }
        vm.end()?;
    }

    /// The same folio with the right word is taken.
    the_right_word_is_taken {
        let mut vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        let pfn = folio.pfn();
        let before = calls::counter(Counter::FramesDonated)?;
        vm.donate(RAM_GFN, folio)?;
        check_eq!(calls::counter(Counter::FramesDonated)? - before, 1, "donated frames");
        let [_, state, order, owner, gfn, pin] = calls::folio_query(pfn).done("FOLIO_QUERY")?;
        check_eq!([state, order, owner, gfn], [State::Guest.number(), 0, vm.handle(), RAM_GFN], "state, order, owner, gfn");
        check_eq!(pin, u64::from(pin_word::donatable(0)), "pin word");
        vm.end()?;
    }

    /// A large folio needs the word of its own order at its head.
    orders_must_agree {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(3)?;
        for (given, pinned) in [(3, 0), (3, 2), (3, 4), (0, 3), (2, 3)] {
            refused_with(&vm, &folio, given, pin_word::donatable(pinned))?;
        }
        vm.end()?;
    }

    /// Words of tail frames that are not 0 make a large folio undonatable.
    tail_words_must_be_zero {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(2)?;
        for tail in 1..4 {
            frames::set_pin(folio.pfn() + tail, 1);
            let found = calls::mem_donate(vm.handle(), RAM_GFN, folio.pfn(), 1, 2).refused(Status::NotExclusivelyPinned, "donation")?;
            check_eq!([found.index, found.pin], [tail, 1], "index and pin word found");
            frames::set_pin(folio.pfn() + tail, 0);
        }
        vm.end()?;
    }

    /// One bad folio in a range: the whole range is refused, the index names it, nothing has moved.
    a_range_is_checked_whole {
        let vm = Vm::configured(1)?;
        let range = Folio::take_pinned(4)?;
        for index in 0..16 {
            frames::set_pin(range.pfn() + index, pin_word::donatable(0));
        }
        let before = Snapshot::take()?;
        for bad in [0, 1, 7, 15] {
            frames::set_pin(range.pfn() + bad, 2);
            let found = calls::mem_donate(vm.handle(), RAM_GFN, range.pfn(), 16, 0).refused(Status::NotExclusivelyPinned, "donation")?;
            check_eq!([found.index, found.pin], [bad, 2], "index and pin word found");
            frames::set_pin(range.pfn() + bad, pin_word::donatable(0));
        }
        before.is_still_so("after refusals")?;
        range.fill(3)?;
        range.set_pin(0);
        vm.end()?;
    }

    /// A frame that the table does not speak for is refused.
    frames_outside_the_table {
        frames::register()?;
        let vm = Vm::configured(1)?;
        let arena = frames::arena()?;
        calls::mem_donate(vm.handle(), RAM_GFN, arena.unspoken, 1, 0).refused(Status::NoPinTable, "donation")?;
        let last = arena.first + frames::COUNT - 1;
        if frames::pin(last) == 0 {
            frames::set_pin(last, pin_word::donatable(0));
            let found = calls::mem_donate(vm.handle(), RAM_GFN, last, 2, 0);
            frames::set_pin(last, 0);
            found.refused_as_one_of(&[Status::NoPinTable, Status::NotPermitted], "a range that leaves the table")?;
        }
        vm.end()?;
    }

    /// A pin table that is EL2's, no memory, already known, empty or out of range is refused.
    registration_refuses_garbage {
        frames::register()?;
        let arena = frames::arena()?;
        let el2 = super::processors::el2_frame()?;
        let bad = [
            (el2, arena.unspoken, 16), (0x9000, arena.unspoken, 16), (1 << 40, arena.unspoken, 16), (u64::MAX, arena.unspoken, 16),
            (arena.unspoken, arena.first, 16), (arena.unspoken, arena.first + frames::COUNT - 1, 2), (arena.unspoken, arena.unspoken, 0),
            (arena.unspoken, u64::MAX, 2), (arena.unspoken, arena.unspoken, u64::MAX), (arena.unspoken, 1 << 52, 1),
        ];
        let before = Snapshot::take()?;
        for (table, first, count) in bad {
            calls::pin_table_register(table, first, count).refused_as_one_of(
                &[Status::NotPermitted, Status::NotRam, Status::Exists, Status::Invalid, Status::Limit],
                "registering nonsense",
            )?;
        }
        before.is_still_so("after refusals")?;
    }

    /// The pin table stays the host's to write, but cannot be given away.
    the_table_cannot_be_given_away {
        frames::register()?;
        let vm = Vm::configured(1)?;
        let arena = frames::arena()?;
        expect_state(arena.table, State::HostSharedHyp, "of the pin table")?;
        calls::mem_donate(vm.handle(), RAM_GFN, arena.table, 1, 0)
            .refused_as_one_of(&[Status::NotPermitted, Status::NoPinTable], "donating the pin table")?;
        calls::pool_donate(arena.table, 1).refused(Status::NotPermitted, "giving the pin table to the pool")?;
        vm.end()?;
    }
}
