//! The must-fail examples of casemate, by their names there.
#![expect(non_snake_case, reason = "they are called so")]

use pinfold_protocol::{Dsb, Event, Missing, Regime, Rule, Tlbi};

use crate::rig::{
    BLOCKS, EMPTY, GUEST, HOST, MEMORY, OWN, RAM, Rig, SPARE, THREE, TWO, block, must_fail, page,
    table,
};

#[test]
fn bad_EL2_ASID() {
    must_fail(Rule::Asid, None, |rig| {
        rig.see(0, Event::Ttbr(1 << 48 | crate::rig::OWN_ROOT << 12))
    });
}

#[test]
fn bad_bbm_by_wrong_VMID() {
    must_fail(Rule::MadeTooSoon, Missing::TlbiOfItsVmid, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::InnerStores)?;
        rig.select(0, 2, EMPTY)?;
        rig.tlbi(Tlbi::Ipa(0))?;
        rig.dsb(Dsb::Inner)?;
        rig.tlbi(Tlbi::Combined)?;
        rig.dsb(Dsb::Inner)?;
        rig.store(THREE, 0, page(RAM + 1))
    });
}

#[test]
fn bad_bbm_missing_tlbi() {
    must_fail(Rule::MadeTooSoon, Missing::Tlbi, |rig| {
        rig.store(THREE, 0, 0)?;
        rig.dsb(Dsb::Inner)?;
        rig.dsb(Dsb::Inner)?;
        rig.store(THREE, 0, page(RAM + 1))
    });
}

#[test]
fn bad_free_page_without_clean() {
    must_fail(Rule::FreedTooSoon, Missing::Tlbi, |rig| {
        rig.store(TWO, 0, 0)?;
        rig.dsb(Dsb::Inner)?;
        rig.see(0, Event::Free(THREE))
    });
}

#[test]
fn bad_no_assoc_lock() {
    must_fail(Rule::Unlocked, None, |rig| {
        rig.see(0, Event::Unlock(MEMORY))?;
        // The lock that it holds is another table's.
        rig.store(THREE, 1, page(RAM + 1))
    });
}

#[test]
fn bad_no_bbm() {
    must_fail(Rule::NoBreak, None, |rig| {
        rig.store(THREE, 0, page(RAM + 1))
    });
}

#[test]
fn bad_no_bbm_stage1() {
    must_fail(Rule::NoBreak, None, |rig| {
        rig.store(BLOCKS, 0, block(RAM))?;
        rig.store(BLOCKS, 0, block(RAM + 512))
    });
}

#[test]
fn bad_overlap_ASID() {
    must_fail(Rule::SharedOwn, None, |rig| {
        let (root, lock) = (SPARE, Some(OWN));
        rig.see(0, Event::Adopt { root, lock })
    });
}

#[test]
fn bad_overlap_VMID() {
    must_fail(Rule::SharedVmid, None, |rig| rig.root(1, SPARE));
}

#[test]
fn bad_race() {
    must_fail(Rule::Race, None, |rig| {
        // Both CPUs may store, for want of a lock.
        let (regime, first, frames, lock) = (Regime::Stage2(2), SPARE, 1, None);
        rig.new_table(SPARE)?;
        let root = Event::Root {
            regime,
            first,
            frames,
            lock,
        };
        rig.see(0, root)?;
        rig.store(SPARE, 0, block(RAM))?;
        rig.store(SPARE, 0, 0)?;
        rig.store_by(1, SPARE, 0, block(RAM))
    });
}

#[test]
fn bad_reuse_page() {
    must_fail(Rule::NoTable, None, |rig| {
        rig.store(TWO, 0, 0)?;
        rig.flush([0])?;
        rig.see(0, Event::Free(THREE))?;
        rig.store(TWO, 1, table(THREE))
    });
}

#[test]
fn bad_reuse_page_without_zeroes() {
    must_fail(Rule::NotZeroed, None, |rig| {
        rig.see(0, Event::Allocate(SPARE))?;
        rig.store(TWO, 1, table(SPARE))
    });
}

#[test]
fn bad_switch_wrong_vmid() {
    must_fail(Rule::WrongVmid, None, |rig| rig.select(1, 2, GUEST));
    must_fail(Rule::WrongVmid, None, |rig| rig.select(1, 1, HOST));
}

#[test]
fn bad_unlocked_write() {
    must_fail(Rule::Unlocked, None, |rig| {
        rig.see(0, Event::Unlock(MEMORY))?;
        rig.see(1, Event::Lock(MEMORY))?;
        rig.store(THREE, 1, page(RAM + 1))
    });
}

/// What every sequence here starts from is right.
#[test]
fn the_rig_itself_is_good() {
    let mut rig = Rig::new();
    rig.see(0, Event::Unlock(OWN)).unwrap();
    rig.see(0, Event::Unlock(MEMORY)).unwrap();
}
