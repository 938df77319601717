//! The scenarios: who meets whom, and what has to be true afterwards.
//!
//! [`SCENARIOS`] is the list. The races are numbered as in the design notes of the series (`host-shim/patches/README.md` has the
//! table): R1 is a fast pin against an isolation, and so on.
//!
//! Invariant: a scenario ends with every actor having given back what it has, and with [`Rest`] telling what is left.

use crate::memory::{Entry, Kind, Memory, Page, Size};
use crate::mutant::Mutant;
use crate::word::{COUNT, ISOLATED, Uncounted, exclusive};
use crate::{Grab, Refusal};
use loom::thread;
use std::rc::Rc;

/// Actors that run into each other.
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// Which race that is.
    pub race: &'static str,
    /// The bound on preemptions: [`PREEMPTIONS`], or `None` if the scenario is explored completely.
    pub preemptions: Option<usize>,
    pub(crate) run: fn(Option<Mutant>),
}

const fn complete(race: &'static str, name: &'static str, run: fn(Option<Mutant>)) -> Scenario {
    Scenario {
        name,
        race,
        preemptions: None,
        run,
    }
}

const fn bounded(race: &'static str, name: &'static str, run: fn(Option<Mutant>)) -> Scenario {
    Scenario {
        name,
        race,
        preemptions: Some(PREEMPTIONS),
        run,
    }
}

/// How often a CPU is taken away from an actor that could go on, where not all orders are explored.
pub const PREEMPTIONS: usize = 2;

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    complete("pin", "exclusive pin, fast pin", |mutant| {
        one_of_two_wins(mutant, |memory, grab| memory.grab(Page::First, grab));
    }),
    complete("pin", "exclusive pin, slow pin", |mutant| {
        one_of_two_wins(mutant, |memory, grab| memory.grab_slow(Page::First, grab));
    }),
    complete("R6", "two exclusive pins", two_exclusive_pins),
    complete("pin", "sole pin made exclusive, fast pin", promote_and_pin),
    complete("pin", "one of two pins made exclusive", promote_and_unpin),
    complete(
        "pin",
        "pins added and unpinned in any order",
        pins_in_any_order,
    ),
    complete("R8", "last unpin, munmap", unpin_and_zap),
    complete("R1", "isolation of anonymous memory, fast pin", |mutant| {
        isolate_beside(Kind::Anon, mutant, |memory| pin_fast(memory, Grab::Pin));
    }),
    complete("R1", "isolation of shmem, fast pin", |mutant| {
        isolate_beside(Kind::Shmem, mutant, |memory| pin_fast(memory, Grab::Pin));
    }),
    complete("R2", "isolation of anonymous memory, slow pin", |mutant| {
        isolate_beside(Kind::Anon, mutant, |memory| pin_slow(memory, Grab::Pin));
    }),
    complete("R2", "isolation of shmem, slow pin", |mutant| {
        isolate_beside(Kind::Shmem, mutant, |memory| pin_slow(memory, Grab::Pin));
    }),
    complete(
        "R3",
        "isolation of anonymous memory, fast FOLL_GET",
        |mutant| {
            isolate_beside(Kind::Anon, mutant, |memory| pin_fast(memory, Grab::Get));
        },
    ),
    complete(
        "R4",
        "isolation of anonymous memory, slow FOLL_GET",
        |mutant| {
            isolate_beside(Kind::Anon, mutant, |memory| pin_slow(memory, Grab::Get));
        },
    ),
    complete("R4", "isolation of shmem, slow FOLL_GET", |mutant| {
        isolate_beside(Kind::Shmem, mutant, |memory| pin_slow(memory, Grab::Get));
    }),
    complete(
        "R4",
        "isolation while a pipe has a reference",
        isolate_beside_a_holder,
    ),
    complete("R5", "isolation of shmem, memfd_pin_folios()", |mutant| {
        isolate_beside(Kind::Shmem, mutant, pin_in_file);
    }),
    complete("R7", "isolation, fork() of the owner", |mutant| {
        isolate_beside(Kind::Anon, mutant, |memory| memory.fork(Page::First));
    }),
    complete("R8", "isolation of anonymous memory, munmap", |mutant| {
        isolate_beside(Kind::Anon, mutant, |memory| memory.zap(Page::First));
    }),
    complete("R8", "isolation of shmem, munmap", |mutant| {
        isolate_beside(Kind::Shmem, mutant, |memory| memory.zap(Page::First));
    }),
    complete("R9", "isolation of shmem, a hole punched", |mutant| {
        isolate_beside(Kind::Shmem, mutant, |memory| memory.punch(Page::First));
    }),
    complete(
        "R11",
        "isolation of anonymous memory, compaction",
        |mutant| {
            isolate_beside(Kind::Anon, mutant, |memory| memory.migrate(Page::First));
        },
    ),
    complete("R13", "isolation of anonymous memory, KSM scan", |mutant| {
        isolate_beside(Kind::Anon, mutant, |memory| memory.scan(Page::First));
    }),
    complete("R15", "isolation ends, fast FOLL_GET", |mutant| {
        unisolate_beside(Kind::Anon, mutant, |memory| pin_fast(memory, Grab::Get));
    }),
    complete("R15", "isolation ends, slow pin", |mutant| {
        unisolate_beside(Kind::Anon, mutant, |memory| pin_slow(memory, Grab::Pin));
    }),
    complete("R15", "isolation ends, read() of the file", |mutant| {
        unisolate_beside(Kind::Shmem, mutant, read_file);
    }),
    complete("R19", "isolation of shmem, read() of the file", |mutant| {
        isolate_beside(Kind::Shmem, mutant, read_file);
    }),
    complete("leak", "unpin of an isolated folio, fast FOLL_GET", leak),
    bounded(
        "split",
        "split of an isolated folio, fast FOLL_GET of its tail",
        |mutant| {
            split_beside(Kind::Anon, mutant, |memory| {
                pin_fast_at(memory, Page::Second, Grab::Get);
            });
        },
    ),
    bounded(
        "split",
        "split of an isolated folio, slow pin of its tail",
        |mutant| {
            split_beside(Kind::Anon, mutant, |memory| {
                pin_slow_at(memory, Page::Second, Grab::Pin);
            });
        },
    ),
    bounded(
        "split",
        "split of an isolated folio of shmem, read() of its tail",
        |mutant| {
            split_beside(Kind::Shmem, mutant, |memory| {
                touch_file_at(memory, Page::Second);
            });
        },
    ),
    bounded("R1 R4", "isolation, fast pin, slow FOLL_GET", |mutant| {
        isolate_beside_two(
            Kind::Anon,
            mutant,
            |memory| pin_fast(memory, Grab::Pin),
            |memory| pin_slow(memory, Grab::Get),
        );
    }),
    bounded(
        "R1 R5",
        "isolation of shmem, memfd_pin_folios(), fast FOLL_GET",
        |mutant| {
            isolate_beside_two(Kind::Shmem, mutant, pin_in_file, |memory| {
                pin_fast(memory, Grab::Get);
            });
        },
    ),
    bounded("R1 R8", "isolation of shmem, fast pin, munmap", |mutant| {
        isolate_beside_two(
            Kind::Shmem,
            mutant,
            |memory| pin_fast(memory, Grab::Pin),
            |memory| memory.zap(Page::First),
        );
    }),
    bounded("pin", "exclusive pin and two ordinary pins", three_pins),
    bounded(
        "R8",
        "exclusive pin, fast pin, munmap",
        one_of_two_wins_unless_unmapped,
    ),
];

/// What is left of the folio's references when all actors are done.
#[derive(Clone, Copy)]
enum Rest {
    /// The mapping and the page cache have theirs, nobody else.
    AsBefore,
    /// The same, and the pin of a page that EL2 still has, which nobody will ever drop.
    Leaked,
}

// loom's threads take turns on one of the machine's.
type Shared = Rc<Memory>;

fn memory(kind: Kind, size: Size, mutant: Option<Mutant>) -> Shared {
    Rc::new(Memory::new(kind, size, mutant))
}

/// A folio that its owner has pinned exclusively.
fn pinned(kind: Kind, size: Size, mutant: Option<Mutant>) -> Shared {
    let memory = memory(kind, size, mutant);
    let frame = memory.frame(Page::First);
    frame.word.write(exclusive(memory.order(Page::First)));
    frame.refs.get();
    memory.hold(Page::First, Grab::Exclusive);
    memory
}

/// A folio that is isolated and EL2's.
fn donated(kind: Kind, size: Size, mutant: Option<Mutant>) -> Shared {
    let memory = pinned(kind, size, mutant);
    if kind == Kind::Shmem {
        memory.unmap_all(Page::First);
    }
    let isolated = ISOLATED | exclusive(memory.order(Page::First));
    memory.frame(Page::First).word.write(isolated);
    memory.donate(Page::First);
    memory
}

fn beside(memory: &Shared, actor: impl FnOnce(&Memory) + 'static) -> thread::JoinHandle<()> {
    let memory = Rc::clone(memory);
    thread::spawn(move || actor(&memory))
}

fn join(actor: thread::JoinHandle<()>) {
    let ended = actor.join();
    assert!(ended.is_ok());
}

/// The counts when nobody does anything any more.
fn at_rest(memory: &Memory, folio: Page, rest: Rest) {
    let frame = memory.frame(folio);
    let (word, more) = match rest {
        Rest::AsBefore => (0, 0),
        Rest::Leaked => (ISOLATED | exclusive(memory.order(folio)), 1),
    };
    assert_eq!(frame.word.read(), word, "pins are left in the word");
    let _table = memory.lock_page_table();
    assert_ne!(frame.entry(), Entry::Migration, "a migration entry is left");
    assert_eq!(
        frame.refs.read(),
        memory.expected(folio) + more,
        "references are left"
    );
}

fn pin_fast(memory: &Memory, grab: Grab) {
    pin_fast_at(memory, Page::First, grab);
}

fn pin_fast_at(memory: &Memory, page: Page, grab: Grab) {
    if let Some(folio) = memory.grab_fast(page, grab) {
        memory.frame(page).contents.touch();
        memory.give(folio, grab);
    }
}

fn pin_slow(memory: &Memory, grab: Grab) {
    pin_slow_at(memory, Page::First, grab);
}

fn pin_slow_at(memory: &Memory, page: Page, grab: Grab) {
    if let Ok(folio) = memory.grab_slow(page, grab) {
        memory.frame(page).contents.touch();
        memory.give(folio, grab);
    }
}

fn pin_in_file(memory: &Memory) {
    if let Ok(folio) = memory.pin_in_file(Page::First) {
        memory.frame(Page::First).contents.touch();
        memory.give(folio, Grab::Pin);
    }
}

fn read_file(memory: &Memory) {
    touch_file_at(memory, Page::First);
}

fn touch_file_at(memory: &Memory, page: Page) {
    let read = memory.read_file(page);
    assert_ne!(read, Err(Refusal::Busy), "the file knows nothing of pins");
}

/// An exclusive and an ordinary taker: one of them gets the pin, or both, one after the other.
fn one_of_two_wins(mutant: Option<Mutant>, take: fn(&Memory, Grab) -> Result<Page, Refusal>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let take_and_give = move |memory: &Memory, grab| {
        let taken = take(memory, grab);
        if let Ok(folio) = taken {
            memory.frame(Page::First).contents.touch();
            memory.give(folio, grab);
        }
        taken
    };
    let other = Rc::clone(&memory);
    let other = thread::spawn(move || take_and_give(&other, Grab::Pin));
    let mine = take_and_give(&memory, Grab::Exclusive);
    let theirs = other.join().unwrap_or(Err(Refusal::NotThere));
    assert!(mine.is_ok() || theirs.is_ok(), "both were refused");
    for taken in [mine, theirs] {
        assert!(taken.is_ok() || taken == Err(Refusal::Busy));
    }
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The same while the page is unmapped: both are refused only if there is nothing to pin any more. The exclusive taker
/// may have been told of a pin that the fast path gives back because the page has just been unmapped.
fn one_of_two_wins_unless_unmapped(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let take_and_give = |memory: &Memory, grab| {
        let taken = memory.grab(Page::First, grab);
        if let Ok(folio) = taken {
            memory.frame(Page::First).contents.touch();
            memory.give(folio, grab);
        }
        taken
    };
    let other = Rc::clone(&memory);
    let other = thread::spawn(move || take_and_give(&other, Grab::Pin));
    let unmapper = beside(&memory, |memory| memory.zap(Page::First));
    let mine = take_and_give(&memory, Grab::Exclusive);
    let theirs = other.join().unwrap_or(Err(Refusal::Again));
    join(unmapper);
    for taken in [mine, theirs] {
        assert_ne!(taken, Err(Refusal::Again));
        assert_ne!(taken, Err(Refusal::Fault));
    }
    assert!(
        mine.is_ok() || theirs.is_ok() || [mine, theirs].contains(&Err(Refusal::NotThere)),
        "both were refused"
    );
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// Two exclusive takers that keep what they get: exactly one gets it.
fn two_exclusive_pins(mutant: Option<Mutant>) {
    let memory = memory(Kind::Shmem, Size::Small, mutant);
    let other = Rc::clone(&memory);
    let other = thread::spawn(move || other.grab(Page::First, Grab::Exclusive));
    let mine = memory.grab(Page::First, Grab::Exclusive);
    let theirs = other.join().unwrap_or(Err(Refusal::NotThere));
    assert_ne!(mine.is_ok(), theirs.is_ok(), "not exactly one got the pin");
    memory.give(Page::First, Grab::Exclusive);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The owner of an ordinary pin makes it exclusive, isolates, and goes back.
fn promote_and_pin(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let folio = memory.grab_slow(Page::First, Grab::Pin);
    assert_eq!(folio, Ok(Page::First));
    let other = beside(&memory, |memory| pin_fast(memory, Grab::Pin));
    let mut last = Grab::Pin;
    if memory.make_exclusive(Page::First).is_ok() {
        memory.frame(Page::First).contents.touch();
        memory.make_ordinary(Page::First);
        if memory.make_exclusive(Page::First).is_ok() {
            last = Grab::Exclusive;
        }
    }
    memory.give(Page::First, last);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// Of two pins one is given back while the other one's owner wants it exclusive.
fn promote_and_unpin(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    for _ in 0..2 {
        let folio = memory.grab_slow(Page::First, Grab::Pin);
        assert_eq!(folio, Ok(Page::First));
    }
    let other = beside(&memory, |memory| {
        memory.frame(Page::First).contents.touch();
        memory.give(Page::First, Grab::Pin);
    });
    let last = if memory.make_exclusive(Page::First).is_ok() {
        Grab::Exclusive
    } else {
        Grab::Pin
    };
    memory.give(Page::First, last);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// Pins are added and go, newest first and oldest first; an exclusive taker comes in between.
fn pins_in_any_order(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let folio = memory.grab_slow(Page::First, Grab::Pin);
    assert_eq!(folio, Ok(Page::First));
    let other = beside(&memory, |memory| pin_slow(memory, Grab::Exclusive));
    memory.add_pin(Page::First);
    let two = memory.frame(Page::First).word.read();
    assert_eq!(two & COUNT, 2, "two pins are not two");
    memory.give(Page::First, Grab::Pin);
    memory.give(Page::First, Grab::Pin);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The pin is the last reference to go: the word must be 0 by then.
fn unpin_and_zap(mutant: Option<Mutant>) {
    let memory = pinned(Kind::Anon, Size::Small, mutant);
    let other = beside(&memory, |memory| memory.zap(Page::First));
    memory.give(Page::First, Grab::Exclusive);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// Isolates and donates if it can; a failure must have changed nothing.
fn donate(memory: &Memory) -> Result<(), Refusal> {
    let isolated = memory.isolate(Page::First);
    if isolated.is_ok() {
        memory.donate(Page::First);
    } else {
        assert_eq!(isolated, Err(Refusal::Again));
        let word = memory.frame(Page::First).word.read();
        assert_eq!(
            word,
            exclusive(0),
            "a failed isolation has changed the word"
        );
    }
    isolated
}

fn reclaim(memory: &Memory, donated: Result<(), Refusal>) {
    if donated.is_ok() {
        memory.unisolate(Page::First);
    }
    memory.give(Page::First, Grab::Exclusive);
}

/// The owner donates; whoever runs beside it is done when the page comes back (R15 is about what happens then).
fn isolate_beside(kind: Kind, mutant: Option<Mutant>, actor: impl FnOnce(&Memory) + 'static) {
    let memory = pinned(kind, Size::Small, mutant);
    let other = beside(&memory, actor);
    let donated = donate(&memory);
    join(other);
    reclaim(&memory, donated);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The owner donates, reclaims and unpins, while two others do as they like.
fn isolate_beside_two(
    kind: Kind,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
    another: impl FnOnce(&Memory) + 'static,
) {
    let memory = pinned(kind, Size::Small, mutant);
    let others = [beside(&memory, actor), beside(&memory, another)];
    let donated = donate(&memory);
    reclaim(&memory, donated);
    others.into_iter().for_each(join);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// A reference that stays: isolation fails and leaves all as it was, whatever a pinner does meanwhile.
fn isolate_beside_a_holder(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let pipe = memory.grab_slow(Page::First, Grab::Get);
    let owner = memory.grab_slow(Page::First, Grab::Exclusive);
    assert_eq!((pipe, owner), (Ok(Page::First), Ok(Page::First)));
    let before = memory.frame(Page::First).refs.read();
    let other = beside(&memory, |memory| {
        let pinned = memory.grab(Page::First, Grab::Pin);
        assert_eq!(pinned, Err(Refusal::Busy), "who is in the way is not told");
    });
    assert_eq!(memory.isolate(Page::First), Err(Refusal::Again));
    join(other);
    let frame = memory.frame(Page::First);
    assert_eq!(frame.word.read(), exclusive(0), "the word has changed");
    assert_eq!(frame.entry(), Entry::Present, "the mapping has changed");
    assert_eq!(frame.refs.read(), before, "the reference count has changed");
    frame.contents.touch();
    memory.give(Page::First, Grab::Get);
    let donated = donate(&memory);
    assert_eq!(donated, Ok(()), "nobody was in the way");
    reclaim(&memory, donated);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// EL2 gives the page back, the isolation ends, the pin becomes ordinary: whoever gets in sees a page of the host's.
fn unisolate_beside(kind: Kind, mutant: Option<Mutant>, actor: impl FnOnce(&Memory) + 'static) {
    let memory = donated(kind, Size::Small, mutant);
    let other = beside(&memory, actor);
    memory.unisolate(Page::First);
    memory.make_ordinary(Page::First);
    memory.give(Page::First, Grab::Pin);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The owner lets go of a page that EL2 still has.
fn leak(mutant: Option<Mutant>) {
    let memory = donated(Kind::Anon, Size::Small, mutant);
    let other = beside(&memory, |memory| {
        pin_fast(memory, Grab::Get);
        memory.zap(Page::First);
    });
    let uncounted = memory.give(Page::First, Grab::Exclusive);
    assert_eq!(uncounted, Uncounted::Leak, "a page of EL2's was let go");
    join(other);
    at_rest(&memory, Page::First, Rest::Leaked);
}

/// A large folio that is EL2's is split; nobody gets at any part of it, before or after.
fn split_beside(kind: Kind, mutant: Option<Mutant>, actor: impl FnOnce(&Memory) + 'static) {
    let memory = donated(kind, Size::Large, mutant);
    let other = beside(&memory, actor);
    let split = memory.split(Page::First);
    join(other);
    if split.is_ok() {
        for page in [Page::First, Page::Second] {
            memory.unisolate(page);
            memory.give(page, Grab::Exclusive);
            at_rest(&memory, page, Rest::AsBefore);
        }
    } else {
        assert_eq!(split, Err(Refusal::Again));
        memory.unisolate(Page::First);
        memory.give(Page::First, Grab::Exclusive);
        at_rest(&memory, Page::First, Rest::AsBefore);
    }
}

/// One exclusive taker and two ordinary ones.
fn three_pins(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Size::Small, mutant);
    let others = [
        beside(&memory, |memory| pin_fast(memory, Grab::Pin)),
        beside(&memory, |memory| pin_slow(memory, Grab::Pin)),
    ];
    pin_fast(&memory, Grab::Exclusive);
    others.into_iter().for_each(join);
    at_rest(&memory, Page::First, Rest::AsBefore);
}
