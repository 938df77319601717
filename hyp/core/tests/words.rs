//! What the ABI says of folio words and refusals is what core writes.

use pinfold_abi::folio_word::FolioWord;
use pinfold_core::addr::{Gfn, Order};
use pinfold_core::folio::{Folio, FolioState};
use pinfold_core::refusal::{Found, Refusal};
use pinfold_core::vm::VmSlot;

#[test]
fn folio_words_decode_to_what_was_encoded() {
    let vm = VmSlot::new(37).unwrap();
    let gfn = Gfn::new(0x0fff_fe00).unwrap();
    let owner = Some((37, gfn.raw()));
    let states = [
        (FolioState::Host, 0, None),
        (FolioState::Hyp { entries: 512 }, 512, None),
        (FolioState::HostSharedHyp { pins: u16::MAX }, u16::MAX, None),
        (FolioState::HostSharedGuest { shares: 256 }, 256, None),
        (FolioState::Guest { vm, gfn }, 0, owner),
        (FolioState::GuestSharedHost { vm, gfn }, 0, owner),
        (FolioState::Arriving { vm, gfn, done: 8 }, 8, owner),
        (FolioState::Wiping { vm, gfn, done: 7 }, 7, owner),
        (FolioState::Poisoned, 0, None),
        (FolioState::NotRam, 0, None),
    ];
    for raw in 0..=9 {
        let order = Order::new(raw).unwrap();
        for (state, count, owner) in states {
            let head = FolioWord::Head {
                state: state.number(),
                order: raw,
                count,
                owner,
            };
            assert_eq!(FolioWord::decode(Folio::head(state, order).word()), head);
        }
        let tail = Folio::tail(order).word();
        assert_eq!(FolioWord::decode(tail), FolioWord::Tail { order: raw });
    }
}

#[test]
fn refusals_name_a_frame_where_the_abi_says_so() {
    let found = Found {
        index: 3,
        folio: 5,
        pin: 7,
    };
    let refusals = [
        Refusal::State(found),
        Refusal::OutOfMemory,
        Refusal::Granule(found),
        Refusal::NotMapped(found),
        Refusal::Poisoned(found),
        Refusal::Invalid,
        Refusal::NotExclusivelyPinned(found),
        Refusal::NoPinTable(found),
        Refusal::NoSuchVm,
        Refusal::NoSuchVcpu,
        Refusal::WrongPhase,
        Refusal::Exists(found),
        Refusal::Limit,
        Refusal::NotRam(found),
        Refusal::WrongKind,
    ];
    for refusal in refusals {
        let (status, told) = refusal.status();
        assert_eq!(status.names_frame(), told == found, "{refusal:?}");
    }
}
