//! A CPU writes its trace while another one reads it, in every order that the memory model of the language allows (loom).

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}

#[path = "../src/trace/slots.rs"]
mod slots;

use atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::Arc;
use slots::Slots;

/// As few as can wrap.
const LENGTH: usize = 2;
const ENTRIES: usize = 3;
/// Added to the words of an entry that is complete.
const ANSWERED: u64 = 100;

type Small = Slots<2, LENGTH>;

fn empty() -> Small {
    Slots {
        slots: core::array::from_fn(|_| core::array::from_fn(|_| AtomicU64::new(0))),
        written: AtomicUsize::new(0),
    }
}

/// Writes an entry of words that all say `number` as `Ring::call` does, and then its answer as `Mark::answer` does.
fn write(slots: &Small, entry: usize, number: u64) {
    if let Some([kind, word]) = slots.begin(entry) {
        kind.store(number, Ordering::Relaxed);
        word.store(number, Ordering::Relaxed);
        slots.publish(entry);
        word.store(number + ANSWERED, Ordering::Relaxed);
        kind.store(number + ANSWERED, Ordering::Release);
    }
}

#[test]
fn what_is_read_is_one_entry() {
    loom::model(|| {
        let slots = Arc::new(empty());
        let writer = {
            let slots = Arc::clone(&slots);
            loom::thread::spawn(move || {
                (0..ENTRIES)
                    .zip(1..)
                    .for_each(|(entry, number)| write(&slots, entry, number));
            })
        };
        let (oldest, next) = slots.kept();
        for entry in oldest..next {
            let number = u64::try_from(entry).unwrap() + 1;
            let Some([kind, word]) = slots.read(entry) else {
                continue;
            };
            assert_eq!(word % ANSWERED, number, "a word of another entry");
            assert_eq!(kind % ANSWERED, number, "the kind of another entry");
            assert!(kind < ANSWERED || word >= ANSWERED, "an answer too early");
        }
        writer.join().unwrap();
        assert_eq!(slots.kept(), (ENTRIES - 1, ENTRIES));
        assert_eq!(slots.written(), ENTRIES);
    });
}
