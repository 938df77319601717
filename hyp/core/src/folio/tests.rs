//! The word: lossless for every state, total for every number.

use std::vec;

use super::*;
use proptest::prelude::*;

fn owner() -> impl Strategy<Value = (VmSlot, Gfn)> {
    (0_u8..64, 0_u64..1 << GFN_BITS)
        .prop_map(|(vm, gfn)| (VmSlot::new(vm).unwrap(), Gfn::new(gfn).unwrap()))
}

fn state() -> impl Strategy<Value = FolioState> {
    prop_oneof![
        Just(FolioState::Host),
        any::<u16>().prop_map(|entries| FolioState::Hyp { entries }),
        any::<u16>().prop_map(|pins| FolioState::HostSharedHyp { pins }),
        any::<u16>().prop_map(|shares| FolioState::HostSharedGuest { shares }),
        owner().prop_map(|(vm, gfn)| FolioState::Guest { vm, gfn }),
        owner().prop_map(|(vm, gfn)| FolioState::GuestSharedHost { vm, gfn }),
        (owner(), any::<u16>()).prop_map(|((vm, gfn), done)| FolioState::Arriving {
            vm,
            gfn,
            done
        }),
        (owner(), any::<u16>()).prop_map(|((vm, gfn), done)| FolioState::Wiping { vm, gfn, done }),
        Just(FolioState::Poisoned),
        Just(FolioState::NotRam),
    ]
}

proptest! {
    #[test]
    fn a_head_reads_back(state in state(), order in 0_u8..10) {
        let order = Order::new(order).unwrap();
        let folio = Folio::head(state, order);
        prop_assert_eq!((folio.state(), folio.order(), folio.is_tail()), (state, order, false));
    }

    #[test]
    fn any_word_reads_as_something(word in any::<u64>()) {
        let folio = Folio(word);
        let _ = (folio.state(), folio.order(), folio.is_tail());
    }
}

#[test]
fn a_frame_of_the_host_is_zero_and_eight_bytes() {
    assert_eq!(Folio::head(FolioState::Host, Order::FRAME), Folio::HOST);
    assert_eq!(Folio::HOST.word(), 0);
    assert_eq!(size_of::<Folio>(), 8);
}

fn array(count: usize) -> FolioArray {
    let mut array = FolioArray::new(Pfn::new(512).unwrap(), vec![Folio::HOST; count].leak());
    let all = array.frames().unwrap();
    array.change(all, State::NotRam, Order::FRAME, FolioState::Host);
    array
}

fn frames(first: u64, count: u64) -> FrameRange<Physical> {
    FrameRange::new(Pfn::new(first).unwrap(), count).unwrap()
}

#[test]
fn owners_count_on_from_folio_to_folio() {
    let mut array = array(64);
    let (vm, gfn) = (VmSlot::new(3).unwrap(), Gfn::new(0x100).unwrap());
    let order = Order::new(2).unwrap();
    array.change(
        frames(516, 8),
        State::Host,
        order,
        FolioState::Guest { vm, gfn },
    );
    let second = array.whole(Pfn::new(523).unwrap());
    assert_eq!(second.head.raw(), 520);
    assert_eq!(
        second.state,
        FolioState::Guest {
            vm,
            gfn: Gfn::new(0x104).unwrap()
        }
    );
    assert_eq!(array.census().frames(State::Guest), 8);
    assert_eq!(array.census().frames(State::Host), 56);
}

#[test]
fn what_the_array_does_not_reach_is_not_ram() {
    let array = array(16);
    for pfn in [0, 511, 528, (1 << 36) - 1] {
        assert_eq!(
            array.whole(Pfn::new(pfn).unwrap()).state,
            FolioState::NotRam
        );
        assert!(matches!(
            array.expect_host(frames(pfn, 1)),
            Err(Refusal::NotRam(_))
        ));
    }
    assert!(matches!(
        array.expect_host(frames(527, 2)),
        Err(Refusal::NotRam(Found { index: 1, .. }))
    ));
    assert!(matches!(
        array.expect_host(frames(511, 2)),
        Err(Refusal::NotRam(Found { index: 0, .. }))
    ));
    assert_eq!(array.expect_host(frames(512, 16)), Ok(()));
    assert!(array.expect_host(frames(512, 1 << 30)).is_err());
}

#[test]
fn the_digest_tells_one_word() {
    let mut array = array(16);
    let before = array.digest(frames(512, 16));
    array.change(
        frames(520, 1),
        State::Host,
        Order::FRAME,
        FolioState::Poisoned,
    );
    assert_ne!(before, array.digest(frames(512, 16)));
    assert_eq!(array.digest(frames(512, 8)), array.digest(frames(512, 8)));
}
