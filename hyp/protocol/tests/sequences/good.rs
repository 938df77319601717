//! Sequences that are right, in the orders that Pinfold uses.

use pinfold_protocol::{Dsb, Event, Tlbi};

use crate::rig::{
    BLOCKS, EMPTY, GUEST, HOST, MEMORY, Outcome, RAM, Rig, SPARE, THREE, TWO, WINDOW, WINDOWS,
    block, page, table,
};

/// Runs a sequence on a new rig, then gives the lock to the other CPU.
fn must_pass(sequence: impl FnOnce(&mut Rig) -> Outcome) {
    let mut rig = Rig::new();
    let outcome = sequence(&mut rig)
        .and_then(|()| rig.see(0, Event::Unlock(MEMORY)))
        .and_then(|()| rig.see(1, Event::Lock(MEMORY)));
    assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
}

#[test]
fn a_page_is_replaced() {
    must_pass(|rig| {
        rig.store(THREE, 0, 0)?;
        rig.flush([0])?;
        rig.store(THREE, 0, page(RAM + 1))?;
        rig.dsb(Dsb::InnerStores)
    });
}

#[test]
fn pages_are_flushed_in_any_order() {
    must_pass(|rig| {
        for index in 1..16 {
            rig.store(THREE, index, page(RAM + u64::from(index)))?;
        }
        for index in 0..16 {
            rig.store(THREE, index, 0)?;
        }
        rig.flush([15, 0, 7, 8, 1, 14, 2, 3, 13, 9, 12, 4, 10, 6, 5, 11])
    });
}

#[test]
fn one_flush_of_the_vmid_will_do() {
    must_pass(|rig| {
        rig.store(TWO, 0, 0)?;
        rig.flush_vmid(1)?;
        rig.see(0, Event::Free(THREE))
    });
}

#[test]
fn one_flush_of_everything_will_do() {
    must_pass(|rig| {
        rig.store(TWO, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::El1)?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Free(THREE))
    });
}

#[test]
fn a_block_is_split_and_put_together_again() {
    must_pass(|rig| {
        rig.store(TWO, 1, block(RAM + 512))?;
        rig.new_table(SPARE)?;
        for index in 0..512 {
            rig.store(SPARE, index, page(RAM + 512 + u64::from(index)))?;
        }
        rig.store(TWO, 1, 0)?;
        // Any address in a block finds it.
        rig.flush([600])?;
        rig.store(TWO, 1, table(SPARE))?;
        rig.dsb(Dsb::InnerStores)?;
        rig.store(TWO, 1, 0)?;
        rig.flush(512..1024)?;
        rig.see(0, Event::Free(SPARE))?;
        rig.store(TWO, 1, block(RAM + 512))?;
        rig.dsb(Dsb::InnerStores)
    });
}

#[test]
fn a_table_comes_back_as_another() {
    must_pass(|rig| {
        rig.store(TWO, 0, 0)?;
        rig.flush([0])?;
        rig.see(0, Event::Free(THREE))?;
        rig.new_table(THREE)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.store(GUEST + 1, 0, table(THREE))?;
        rig.dsb(Dsb::InnerStores)
    });
}

#[test]
fn a_vmid_gets_a_new_root() {
    must_pass(|rig| {
        rig.store(GUEST, 0, 0)?;
        rig.flush_vmid(1)?;
        for frame in [TWO, THREE, GUEST, GUEST + 1] {
            rig.see(0, Event::Free(frame))?;
        }
        rig.root(1, SPARE)?;
        rig.select(1, 1, SPARE)
    });
}

#[test]
fn a_severed_root_keeps_its_tables() {
    must_pass(|rig| {
        rig.store(GUEST, 0, 0)?;
        rig.flush_vmid(1)
    });
}

#[test]
fn el2_maps_and_unmaps_a_page() {
    must_pass(|rig| {
        rig.new_table(SPARE)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.store(BLOCKS, 0, table(SPARE))?;
        rig.store(SPARE, 0, page(RAM))?;
        rig.dsb(Dsb::InnerStores)?;
        rig.store(SPARE, 0, 0)?;
        let first = 511 << 18;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::Own(first))?;
        rig.dsb(Dsb::Inner)?;
        rig.store(BLOCKS, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.tlbi(Tlbi::Own(first))?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Free(SPARE))
    });
}

#[test]
fn windows_of_two_cpus_do_not_meet() {
    must_pass(|rig| {
        rig.store_by(1, WINDOWS, 1, page(RAM + 1))?;
        rig.store_by(0, WINDOWS, 0, page(RAM))?;
        for cpu in [1, 0] {
            rig.store_by(cpu, WINDOWS, u16::try_from(cpu).unwrap(), 0)?;
        }
        for cpu in [0, 1] {
            rig.see(cpu, Event::Dsb(Dsb::InnerStores))?;
            let page = WINDOW + u64::try_from(cpu).unwrap();
            rig.see(cpu, Event::Tlbi(Tlbi::OwnLocal(page)))?;
            rig.see(cpu, Event::Dsb(Dsb::Local))?;
        }
        rig.store_by(0, WINDOWS, 0, page(RAM + 2))?;
        rig.store_by(1, WINDOWS, 1, page(RAM + 3))
    });
}

#[test]
fn a_frame_is_wiped_between_two_users() {
    must_pass(|rig| {
        rig.store(THREE, 0, 0)?;
        rig.flush([0])?;
        rig.see(0, Event::Write(RAM))?;
        rig.see(0, Event::Clean(RAM))?;
        rig.store(HOST, 2, block(RAM))?;
        rig.dsb(Dsb::InnerStores)
    });
}

#[test]
fn what_a_cpu_stored_the_next_one_publishes() {
    must_pass(|rig| {
        rig.new_table(SPARE)?;
        rig.see(0, Event::Unlock(MEMORY))?;
        rig.see(1, Event::Lock(MEMORY))?;
        rig.see(1, Event::Dsb(Dsb::InnerStores))?;
        rig.store_by(1, TWO, 1, table(SPARE))?;
        rig.see(1, Event::Dsb(Dsb::InnerStores))?;
        rig.see(1, Event::Unlock(MEMORY))?;
        rig.see(0, Event::Lock(MEMORY))
    });
}

#[test]
fn a_vmid_is_named_by_an_empty_root() {
    must_pass(|rig| {
        rig.select(0, 77, EMPTY)
            .and_then(|()| rig.select(0, 0, HOST))
    });
}
