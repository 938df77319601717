//! What else there is to get wrong: each barrier, each scope, VMIDs that come back, frames that are not clean.

use pinfold_protocol::{Dsb, Event, Lock, Missing, Regime, Rule, Tlbi};

use crate::rig::{
    BLOCKS, EMPTY, GUEST, HOST, MEMORY, OWN, RAM, SPARE, THREE, TWO, WINDOWS, block, must_fail,
    page, table,
};

#[test]
fn a_tlbi_before_the_dsb_does_not_count() {
    must_fail(Rule::MadeTooSoon, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.select(0, 1, EMPTY)?;
        rig.tlbi(Tlbi::Vmid)?;
        // This one comes too late.
        rig.dsb(Dsb::Inner)?;
        rig.store(THREE, 0, page(RAM))
    });
    must_fail(Rule::LeftUnclean, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn a_dsb_of_another_cpu_does_not_count() {
    must_fail(Rule::LeftUnclean, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.see(1, Event::Dsb(Dsb::Inner))?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn a_local_dsb_orders_nothing_for_others() {
    must_fail(Rule::LeftUnclean, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::Local)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn the_last_dsb_is_missing() {
    must_fail(Rule::MadeTooSoon, Missing::DsbAfterTlbi, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 1, EMPTY)?;
        rig.tlbi(Tlbi::Vmid)?;
        // This one waits for stores only.
        rig.dsb(Dsb::InnerStores)?;
        rig.store(THREE, 0, page(RAM))
    });
}

#[test]
fn the_dsb_after_the_ipas_is_missing() {
    must_fail(Rule::LeftUnclean, Missing::DsbAfterIpa, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 1, EMPTY)?;
        rig.tlbi(Tlbi::Ipa(0))?;
        rig.tlbi(Tlbi::Combined)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn combined_entries_stay() {
    must_fail(Rule::LeftUnclean, Missing::TlbiOfCombined, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 1, EMPTY)?;
        rig.tlbi(Tlbi::Ipa(0))?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn other_cpus_keep_theirs() {
    must_fail(Rule::LeftUnclean, Missing::TlbiOnAllCpus, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::El1Local)?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn the_range_is_one_frame_too_short() {
    must_fail(Rule::LeftUnclean, Missing::TlbiOfItsAddress, |rig| {
        for index in 1..8 {
            rig.store(THREE, index, page(RAM + u64::from(index)))?;
        }
        for index in 0..8 {
            rig.store(THREE, index, 0)?;
        }
        rig.flush(0..7)?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn a_table_goes_and_its_pages_stay() {
    must_fail(Rule::LeftUnclean, Missing::TlbiOfItsAddress, |rig| {
        rig.store(THREE, 9, page(RAM + 9))?;
        rig.store(TWO, 0, 0)?;
        rig.flush([0])?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn the_isb_after_vttbr_is_missing() {
    must_fail(Rule::NoIsb, None, |rig| {
        rig.see(0, Event::Vttbr(crate::rig::vttbr(1, EMPTY)))?;
        rig.tlbi(Tlbi::Vmid)
    });
}

#[test]
fn a_large_entry_is_made_over_a_small_one() {
    must_fail(Rule::MadeTooSoon, Missing::TlbiOfCombined, |rig| {
        rig.store(THREE, 5, page(RAM + 5))?;
        rig.store(THREE, 5, 0)?;
        rig.store(TWO, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 1, EMPTY)?;
        for page in 0..512 {
            rig.tlbi(Tlbi::Ipa(page))?;
        }
        rig.dsb(Dsb::Inner)?;
        rig.store(TWO, 0, block(RAM))
    });
}

#[test]
fn a_frame_gets_a_new_user_too_soon() {
    must_fail(Rule::ReusedTooSoon, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.store(HOST, 2, block(RAM))
    });
}

#[test]
fn a_frame_is_wiped_too_soon() {
    must_fail(Rule::ReusedTooSoon, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.see(0, Event::Write(RAM))
    });
}

#[test]
fn a_frame_becomes_a_table_too_soon() {
    must_fail(Rule::ReusedTooSoon, Missing::DsbAfterStore, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.see(0, Event::Allocate(RAM))
    });
}

#[test]
fn a_table_is_linked_before_it_is_published() {
    must_fail(Rule::Unpublished, None, |rig| {
        rig.new_table(SPARE)?;
        rig.store(TWO, 1, table(SPARE))
    });
}

#[test]
fn a_root_is_used_before_it_is_published() {
    must_fail(Rule::Unpublished, None, |rig| {
        rig.root(2, SPARE)?;
        rig.store(SPARE, 0, block(RAM))?;
        rig.select(0, 2, SPARE)
    });
}

#[test]
fn a_store_is_not_published() {
    must_fail(Rule::LeftUnpublished, None, |rig| {
        rig.store(THREE, 1, page(RAM + 1))?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn a_table_is_freed_while_linked() {
    must_fail(Rule::FreedLinked, None, |rig| {
        rig.see(0, Event::Free(THREE))
    });
    must_fail(Rule::FreedLinked, None, |rig| {
        rig.see(0, Event::Free(GUEST))
    });
}

#[test]
fn a_table_is_freed_twice() {
    must_fail(Rule::NoTable, None, |rig| {
        rig.new_table(SPARE)?;
        rig.see(0, Event::Free(SPARE))?;
        rig.see(0, Event::Free(SPARE))
    });
}

#[test]
fn a_table_is_allocated_twice() {
    must_fail(Rule::AllocatedTwice, None, |rig| rig.new_table(THREE));
}

#[test]
fn a_table_is_linked_twice() {
    must_fail(Rule::LinkedTwice, None, |rig| {
        rig.store(TWO, 1, table(THREE))
    });
}

#[test]
fn a_table_is_lost() {
    must_fail(Rule::Leaked, None, |rig| {
        rig.store(TWO, 0, 0)?;
        rig.flush([0])?;
        rig.see(0, Event::Unlock(MEMORY))
    });
}

#[test]
fn a_root_goes_and_its_tables_are_lost() {
    must_fail(Rule::Leaked, None, |rig| {
        rig.store(GUEST, 0, 0)?;
        rig.flush_vmid(1)?;
        rig.see(0, Event::Free(GUEST))
    });
}

#[test]
fn a_vmid_comes_back_before_its_flush() {
    must_fail(Rule::RetiredTooSoon, Missing::Tlbi, |rig| {
        rig.root(2, SPARE)?;
        rig.select(1, 2, SPARE)?;
        rig.select(1, 0, HOST)?;
        rig.see(0, Event::Free(SPARE))
    });
    must_fail(Rule::RetiredTooSoon, Missing::DsbAfterTlbi, |rig| {
        rig.root(2, SPARE)?;
        rig.select(1, 2, SPARE)?;
        rig.select(1, 0, HOST)?;
        rig.select(0, 2, EMPTY)?;
        rig.tlbi(Tlbi::Vmid)?;
        rig.see(0, Event::Free(SPARE))
    });
    must_fail(Rule::RetiredTooSoon, Missing::Tlbi, |rig| {
        rig.root(2, SPARE)?;
        rig.select(1, 2, SPARE)?;
        rig.select(1, 0, HOST)?;
        rig.flush_vmid(3)?;
        rig.see(0, Event::Free(SPARE))
    });
}

#[test]
fn a_root_goes_that_a_cpu_has() {
    must_fail(Rule::RetiredInUse, None, |rig| {
        rig.root(2, SPARE)?;
        rig.select(1, 2, SPARE)?;
        rig.flush_vmid(2)?;
        rig.see(0, Event::Free(SPARE))
    });
}

#[test]
fn a_table_can_be_reached() {
    must_fail(Rule::TableMapped, None, |rig| rig.store(HOST, 0, block(0)));
    must_fail(Rule::TableMapped, None, |rig| {
        rig.root(2, SPARE)?;
        rig.store(SPARE, 0, block(0))?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 2, SPARE)
    });
}

#[test]
fn a_table_is_wiped() {
    must_fail(Rule::TableWritten, None, |rig| {
        rig.see(0, Event::Write(THREE))
    });
}

#[test]
fn a_frame_is_given_before_it_is_clean() {
    must_fail(Rule::Dirty, None, |rig| {
        rig.see(0, Event::Write(RAM + 1))?;
        rig.store(THREE, 1, page(RAM + 1))
    });
    must_fail(Rule::Dirty, None, |rig| {
        rig.new_table(SPARE)?;
        rig.store(THREE, 1, page(SPARE))
    });
}

#[test]
fn a_store_is_not_reported() {
    must_fail(Rule::ChangedUnseen, None, |rig| {
        rig.store_unseen(THREE, 3, page(RAM + 3));
        rig.store(TWO, 0, 0)
    });
    must_fail(Rule::ChangedUnseen, None, |rig| {
        rig.new_table(SPARE)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.store_unseen(SPARE, 3, page(RAM + 3));
        rig.store(TWO, 1, table(SPARE))
    });
}

#[test]
fn a_table_is_not_all_zeroes() {
    must_fail(Rule::NotZeroed, None, |rig| {
        rig.store_unseen(SPARE, 3, 8);
        rig.see(0, Event::Allocate(SPARE))?;
        rig.see(0, Event::Zero(SPARE))
    });
}

#[test]
fn a_table_is_none() {
    must_fail(Rule::NoTable, None, |rig| rig.store(RAM, 0, 0));
    must_fail(Rule::NoTable, None, |rig| rig.store(TWO, 1, table(RAM)));
    must_fail(Rule::NoTable, None, |rig| rig.select(0, 1, RAM));
    must_fail(Rule::NoTable, None, |rig| {
        rig.see(0, Event::Ttbr(RAM << 12))
    });
    must_fail(Rule::NoTable, None, |rig| {
        rig.store(TWO, 0, 0)?;
        rig.store(THREE, 0, 0)
    });
}

#[test]
fn a_window_is_another_cpus() {
    must_fail(Rule::NotPrivate, None, |rig| {
        rig.store_by(1, WINDOWS, 0, page(RAM))
    });
}

#[test]
fn a_window_is_made_before_it_is_gone() {
    must_fail(Rule::MadeTooSoon, Missing::TlbiOfItsAddress, |rig| {
        rig.store(WINDOWS, 0, page(RAM))?;
        rig.store(WINDOWS, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::OwnLocal(0))?;
        rig.dsb(Dsb::Local)?;
        rig.store(WINDOWS, 0, page(RAM))
    });
}

#[test]
fn el2s_own_entry_goes_on_one_cpu_only() {
    must_fail(Rule::LeftUnclean, Missing::TlbiOnAllCpus, |rig| {
        rig.store(BLOCKS, 0, block(RAM))?;
        rig.store(BLOCKS, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::OwnLocal(511 << 18))?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Unlock(OWN))
    });
}

#[test]
fn locks_are_taken_and_released_in_turn() {
    must_fail(Rule::LockHeld, None, |rig| rig.see(1, Event::Lock(MEMORY)));
    must_fail(Rule::LockNotHeld, None, |rig| {
        rig.see(1, Event::Unlock(MEMORY))
    });
}

#[test]
fn there_is_no_room() {
    must_fail(Rule::Full, None, |rig| rig.see(8, Event::Isb));
    must_fail(Rule::Full, None, |rig| rig.see(1, Event::Lock(Lock(4))));
    must_fail(Rule::Full, None, |rig| {
        (0..).try_for_each(|frame| rig.see(0, Event::Allocate(RAM + frame)))
    });
    must_fail(Rule::Full, None, |rig| {
        (0..).try_for_each(|frame| rig.see(0, Event::Write(RAM + 1 + frame)))
    });
    must_fail(Rule::Full, None, |rig| {
        rig.new_table(SPARE)?;
        rig.see(
            0,
            Event::Root {
                regime: Regime::Stage2(u16::MAX),
                first: SPARE,
                frames: 1,
                lock: None,
            },
        )
    });
    // No two of them adjoin.
    must_fail(Rule::Full, None, |rig| {
        for index in 1..512 {
            rig.store(THREE, index, page(RAM + 2 * u64::from(index)))?;
        }
        (0..512).try_for_each(|index| rig.store(THREE, index, 0))
    });
}
