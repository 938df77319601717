//! Calls, answers and words in words.

use pinfold_abi::folio_word::FolioWord;
use pinfold_abi::show::{Answer, Call, Exit, FolioText, Outcome, PinText, call_of};
use pinfold_abi::trace::{Cause, Entry, Event, WENT_ON, WORDS};
use pinfold_abi::{FUNCTION_BASE, State, Status};

#[test]
fn calls_have_names_and_units() {
    let call = Call([FUNCTION_BASE + 0x40, 0x100, 0x40000, 0x5000, 1, 0, 7, 7]);
    assert_eq!(
        call.to_string(),
        "MEM_DONATE vm=0x100 gfn=0x40000 pfn=0x5000 count=1 order=0"
    );
    let counter = Call([FUNCTION_BASE + 0x63, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(counter.to_string(), "COUNTER counter=DECOYS");
    let unknown = Call([0x8600_ff01, 0, 5, 0, 0, 0, 0, 0]);
    assert_eq!(unknown.to_string(), "function 0x8600ff01 x1=0x0 x2=0x5");
}

fn answer(number: u64, x: [u64; 8]) -> String {
    Answer {
        call: call_of(FUNCTION_BASE + number),
        x,
    }
    .to_string()
}

#[test]
fn answers_follow_the_status() {
    assert_eq!(answer(0x40, [0, 0, 1, 9, 9, 9, 9, 9]), "OK done=1");
    assert_eq!(answer(0x41, [0, 7, 5, 9, 9, 9, 9, 9]), "AGAIN done=5");
    assert_eq!(
        answer(0x40, [0, 9, 2, 0, 1, 9, 9, 9]),
        "NOT_EXCLUSIVELY_PINNED page 2, folio word 0x0 (HOST, order 0), pin word 0x1 (1 pin)"
    );
    assert_eq!(
        answer(0x40, [0, 1, 2, 1, 0, 9, 9, 9]),
        "NOT_PERMITTED page 2, folio word 0x1 (HYP, order 0)"
    );
    assert_eq!(answer(0x40, [0, 8, 0, 0, 0, 9, 9, 9]), "INVALID");
    assert_eq!(answer(0x35, [0, 2, 6, 0, 0, 9, 9, 9]), "BUSY x2=6");
    assert_eq!(answer(0x40, [u64::MAX; 8]), "NOT_SUPPORTED");
    assert_eq!(answer(0x40, [0, 99, 0, 0, 0, 0, 0, 0]), "status 99");
    assert_eq!(
        answer(0x3A, [0, 0, 2, 0x40000, 1, 0, 0, 0]),
        "OK reason=MEMORY_FAULT detail0=0x40000 detail1=0x1 detail2=0x0"
    );
    assert_eq!(
        answer(0x50, [0, 0, u64::MAX, 0, 0, 0, 0, 0]),
        "OK vcpu=all ones"
    );
}

#[test]
fn what_is_no_status_of_ours_is_no_success() {
    let call = call_of(FUNCTION_BASE);
    for x in [[1; 8], [u64::MAX; 8]] {
        assert_eq!(Answer { call, x }.outcome(), Outcome::NotSupported);
    }
    let foreign = |x| Answer { call: None, x };
    assert_eq!(foreign([u64::MAX; 8]).outcome(), Outcome::NotSupported);
    assert_eq!(foreign([0; 8]).outcome(), Outcome::Foreign);
    assert_eq!(
        foreign([7, 1, 2, 3, 4, 5, 6, 7]).to_string(),
        "x0=0x7 x1=0x1 x2=0x2 x3=0x3"
    );
    for status in Status::TABLE {
        let x = [0, status.number, 0, 0, 0, 0, 0, 0];
        let is_result = matches!(Answer { call, x }.outcome(), Outcome::Results(_));
        assert_eq!(
            is_result,
            matches!(status.name, "OK" | "AGAIN"),
            "{}",
            status.name
        );
    }
}

#[test]
fn words_are_told() {
    assert_eq!(FolioText(0).to_string(), "HOST, order 0");
    let guest = 3 | 9 << 3 | 5 << 24 | 0x40200 << 36;
    assert_eq!(
        FolioText(guest).to_string(),
        "GUEST, order 9, GFN 0x40200 of the VM in slot 5"
    );
    assert_eq!(FolioText(0x80 | 9 << 3).to_string(), "a tail of order 9");
    assert_eq!(
        FolioText(2 | 1 << 8).to_string(),
        "HOST_SHARED_HYP, order 0, 1 uses"
    );
    assert_eq!(
        FolioText(1 << 30 | 2 << 8).to_string(),
        "HOST_SHARED_GUEST, order 0, shared 2 times"
    );
    assert_eq!(
        PinText(0xC900_0001).to_string(),
        "1 pin, exclusive, isolated, order 9"
    );
    assert_eq!(PinText(0).to_string(), "no pin");
    assert_eq!(
        PinText(0x6000_0001).to_string(),
        "1 pin, exclusive, stray bits 0x20000000"
    );
    // Ordinary pins are counted in the bits of the order, too.
    assert_eq!(PinText(0x0100_0003).to_string(), "16777219 pins");
    assert_eq!(PinText(1 << 32).to_string(), "more than a pin word holds");
    assert_eq!(
        Exit([2, 0x40001, 1, 0]).to_string(),
        "MEMORY_FAULT x3=0x40001 x4=0x1"
    );
    assert_eq!(Exit([77, 0, 0, 0]).to_string(), "exit reason 77");
}

#[test]
fn every_folio_word_decodes() {
    for low in 0..=0xFF {
        for rest in [0, 1 << 30, u64::MAX << 8, 0x1234_5678_9abc_de00] {
            match FolioWord::decode(low | rest) {
                FolioWord::Head { state, owner, .. } => {
                    let number = low & 7 | rest >> 27 & 8;
                    let known = State::from_number(number).unwrap_or(State::Poisoned);
                    assert_eq!(state, known);
                    let has_owner = matches!(
                        state,
                        State::Guest | State::GuestSharedHost | State::Arriving | State::Wiping
                    );
                    assert_eq!(owner.is_some(), has_owner);
                }
                FolioWord::Tail { order } => assert_eq!(u64::from(order), low >> 3 & 0xF),
            }
        }
    }
}

#[test]
fn trace_entries_decode_or_are_nothing() {
    let mut words: [u64; WORDS] = core::array::from_fn(|index| u64::try_from(index).unwrap());
    words[0] = 0;
    let x = [2, 3, 4, 5, 6, 7, 8, 9];
    let call = Entry::decode(words).unwrap();
    assert_eq!(call.event, Event::Call { x, answer: None });
    words[0] = 1;
    let answer = Some([10, 11, 12, 13, 14, 15, 16, 17]);
    assert_eq!(
        Entry::decode(words).unwrap().event,
        Event::Call { x, answer }
    );
    words[0] = 2;
    // Word 5 is a cause that there is not.
    assert_eq!(Entry::decode(words), None);
    words[5] = Cause::Timer.number();
    words[9] = WENT_ON;
    let Event::GuestExit(trap) = Entry::decode(words).unwrap().event else {
        panic!("not an exit");
    };
    assert_eq!((trap.vm, trap.pc, trap.cause), (2, 4, Cause::Timer));
    assert_eq!((trap.exit, trap.x), (None, [13, 14, 15, 16]));
    words[0] = 4;
    assert_eq!(Entry::decode(words), None);
}
