//! What happens in the scenarios: the actors, and what is checked when they are done.
//!
//! Invariant: a scenario ends with every actor having given back what it has, and with [`Rest`] telling what is left.

use crate::memory::{Entry, Kind, Layout, Memory, Page};
use crate::mutant::Mutant;
use crate::word::{COUNT, ISOLATED, Uncounted, exclusive};
use crate::{Grab, Refusal};
use loom::thread;
use std::panic::resume_unwind;
use std::rc::Rc;

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

fn memory(kind: Kind, layout: Layout, mutant: Option<Mutant>) -> Shared {
    Rc::new(Memory::new(kind, layout, mutant))
}

/// The first folio, which its owner has pinned exclusively.
fn pinned(kind: Kind, layout: Layout, mutant: Option<Mutant>) -> Shared {
    let memory = memory(kind, layout, mutant);
    pin_alone(&memory, Page::First);
    memory
}

/// Nobody else is there yet.
fn pin_alone(memory: &Memory, folio: Page) {
    let frame = memory.frame(folio);
    frame.word.write(exclusive(memory.order(folio)));
    frame.refs.get();
    memory.hold(folio, Grab::Exclusive);
}

/// A folio that is isolated and EL2's.
fn donated(kind: Kind, layout: Layout, mutant: Option<Mutant>) -> Shared {
    let memory = pinned(kind, layout, mutant);
    if kind == Kind::Shmem {
        memory.unmap_all(Page::First);
    }
    let isolated = ISOLATED | exclusive(memory.order(Page::First));
    memory.frame(Page::First).word.write(isolated);
    memory.donate(Page::First);
    memory
}

fn beside<T: 'static>(
    memory: &Shared,
    actor: impl FnOnce(&Memory) -> T + 'static,
) -> thread::JoinHandle<T> {
    let memory = Rc::clone(memory);
    thread::spawn(move || actor(&memory))
}

fn join<T>(actor: thread::JoinHandle<T>) -> T {
    actor.join().unwrap_or_else(|panic| resume_unwind(panic))
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

/// Who has got a page touches it and gives it back.
fn touch_and_give(memory: &Memory, page: Page, grab: Grab, got: Option<Page>) {
    if let Some(folio) = got {
        memory.frame(page).contents.touch();
        memory.give(folio, grab);
    }
}

pub(super) fn pin_fast(memory: &Memory, grab: Grab) {
    pin_fast_at(memory, Page::First, grab);
}

pub(super) fn pin_fast_at(memory: &Memory, page: Page, grab: Grab) {
    touch_and_give(memory, page, grab, memory.grab_fast(page, grab));
}

pub(super) fn pin_slow(memory: &Memory, grab: Grab) {
    pin_slow_at(memory, Page::First, grab);
}

pub(super) fn pin_slow_at(memory: &Memory, page: Page, grab: Grab) {
    touch_and_give(memory, page, grab, memory.grab_slow(page, grab).ok());
}

pub(super) fn pin_in_file(memory: &Memory) {
    let got = memory.pin_in_file(Page::First);
    touch_and_give(memory, Page::First, Grab::Pin, got.ok());
}

pub(super) fn read_file(memory: &Memory) {
    touch_file_at(memory, Page::First);
}

pub(super) fn touch_file_at(memory: &Memory, page: Page) {
    let read = memory.read_file(page);
    assert_ne!(read, Err(Refusal::Busy), "the file knows nothing of pins");
}

/// How a taker gets the first page.
type Take = fn(&Memory, Grab) -> Result<Page, Refusal>;

/// An exclusive and an ordinary taker, and what each of them is told.
fn two_takers(memory: &Shared, take: Take) -> [Result<Page, Refusal>; 2] {
    let take_and_give = move |memory: &Memory, grab| {
        let got = take(memory, grab);
        touch_and_give(memory, Page::First, grab, got.ok());
        got
    };
    let other = beside(memory, move |memory| take_and_give(memory, Grab::Pin));
    let mine = take_and_give(memory, Grab::Exclusive);
    [mine, join(other)]
}

/// An exclusive and an ordinary taker: one of them gets the pin, or both, one after the other.
pub(super) fn one_of_two_wins(mutant: Option<Mutant>, take: Take) {
    let memory = memory(Kind::Shmem, Layout::Small, mutant);
    let [mine, theirs] = two_takers(&memory, take);
    assert!(mine.is_ok() || theirs.is_ok(), "both were refused");
    for taken in [mine, theirs] {
        assert!(taken.is_ok() || taken == Err(Refusal::Busy));
    }
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The same while the page is unmapped: both are refused only if there is nothing to pin any more. The exclusive taker
/// may have been told of a pin that the fast path gives back because the page has just been unmapped.
pub(super) fn one_of_two_wins_unless_unmapped(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
    let unmapper = beside(&memory, |memory| memory.zap(Page::First));
    let [mine, theirs] = two_takers(&memory, |memory, grab| memory.grab(Page::First, grab));
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
pub(super) fn two_exclusive_pins(mutant: Option<Mutant>) {
    let memory = memory(Kind::Shmem, Layout::Small, mutant);
    let other = beside(&memory, |memory| memory.grab(Page::First, Grab::Exclusive));
    let mine = memory.grab(Page::First, Grab::Exclusive);
    let theirs = join(other);
    assert_ne!(mine.is_ok(), theirs.is_ok(), "not exactly one got the pin");
    memory.give(Page::First, Grab::Exclusive);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The owner of an ordinary pin makes it exclusive, isolates, and goes back.
pub(super) fn promote_and_pin(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
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
pub(super) fn promote_and_unpin(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
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
pub(super) fn pins_in_any_order(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
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
pub(super) fn unpin_and_zap(mutant: Option<Mutant>) {
    let memory = pinned(Kind::Anon, Layout::Small, mutant);
    let other = beside(&memory, |memory| memory.zap(Page::First));
    memory.give(Page::First, Grab::Exclusive);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// Isolates and donates if it can; a failure must have changed nothing.
fn donate(memory: &Memory, folios: &[Page]) -> Result<(), Refusal> {
    let isolated = memory.isolate(folios);
    for &folio in folios {
        if isolated.is_ok() {
            memory.donate(folio);
            continue;
        }
        assert_eq!(isolated, Err(Refusal::Again));
        assert_eq!(
            memory.frame(folio).word.read(),
            exclusive(memory.order(folio)),
            "a failed isolation has changed the word"
        );
    }
    isolated
}

/// Takes back what was donated, and lets go.
fn reclaim(memory: &Memory, folios: &[Page], donated: Result<(), Refusal>) {
    for &folio in folios {
        if donated.is_ok() {
            memory.unisolate(folio);
        }
        memory.give(folio, Grab::Exclusive);
    }
}

/// The owner donates; whoever runs beside it is done when the page comes back (R15 is about what happens then).
pub(super) fn isolate_beside(
    kind: Kind,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
) {
    isolate_folio_beside(kind, Layout::Small, mutant, actor);
}

/// All of a large folio is isolated, or nothing.
pub(super) fn isolate_large(mutant: Option<Mutant>) {
    isolate_folio_beside(Kind::Anon, Layout::Large, mutant, |memory| {
        pin_fast_at(memory, Page::Second, Grab::Get);
    });
}

fn isolate_folio_beside(
    kind: Kind,
    layout: Layout,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
) {
    let memory = pinned(kind, layout, mutant);
    let other = beside(&memory, actor);
    let donated = donate(&memory, &[Page::First]);
    join(other);
    reclaim(&memory, &[Page::First], donated);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The two folios of [`Layout::Pair`], in the order of their addresses.
pub(super) const BOTH: [Page; 2] = [Page::First, Page::Second];

/// Two folios that their owner has pinned exclusively.
fn two_pinned(kind: Kind, mutant: Option<Mutant>) -> Shared {
    let memory = pinned(kind, Layout::Pair, mutant);
    pin_alone(&memory, Page::Second);
    memory
}

/// Two folios are isolated at once, in this order. Somebody who takes a reference to the second page, so that there is no
/// isolating them while he has it, looks at the first one meanwhile: he sees both isolated or none, and none if it fails.
pub(super) fn isolate_two_beside(
    kind: Kind,
    folios: [Page; 2],
    mutant: Option<Mutant>,
    look: fn(&Memory) -> Result<(), Refusal>,
) {
    let memory = two_pinned(kind, mutant);
    let other = beside(&memory, move |memory| {
        let held = memory.grab_slow(Page::Second, Grab::Get);
        let seen = look(memory);
        touch_and_give(memory, Page::Second, Grab::Get, held.ok());
        (held, seen)
    });
    let donated = donate(&memory, &folios);
    let (held, seen) = join(other);
    for refused in [held.err(), seen.err()].into_iter().flatten() {
        assert_eq!(refused, Refusal::Fault);
        assert_eq!(donated, Ok(()), "an isolation that failed was seen");
    }
    assert!(
        held.is_ok() || seen.is_err(),
        "half of the folios were isolated"
    );
    reclaim(&memory, &folios, donated);
    for folio in folios {
        at_rest(&memory, folio, Rest::AsBefore);
    }
}

/// The same with a reference that stays: nobody is ever refused the first folio because the second cannot be isolated.
pub(super) fn isolate_two_beside_a_holder(kind: Kind, mutant: Option<Mutant>) {
    let memory = two_pinned(kind, mutant);
    let pipe = memory.grab_slow(Page::Second, Grab::Get);
    assert_eq!(pipe, Ok(Page::Second));
    let other = beside(&memory, |memory| {
        let got = memory.grab(Page::First, Grab::Get);
        touch_and_give(memory, Page::First, Grab::Get, got.ok());
        assert_eq!(got, Ok(Page::First), "an isolation that failed was seen");
    });
    let donated = donate(&memory, &BOTH);
    assert_eq!(donated, Err(Refusal::Again), "somebody was in the way");
    join(other);
    memory.give(Page::Second, Grab::Get);
    reclaim(&memory, &BOTH, donated);
    for folio in BOTH {
        at_rest(&memory, folio, Rest::AsBefore);
    }
}

/// `FOLL_GET` of the first page by the slow path.
pub(super) fn reach_slow(memory: &Memory) -> Result<(), Refusal> {
    let got = memory.grab_slow(Page::First, Grab::Get);
    touch_and_give(memory, Page::First, Grab::Get, got.ok());
    got.map(|_| ())
}

/// The owner donates, reclaims and unpins, while two others do as they like.
pub(super) fn isolate_beside_two(
    kind: Kind,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
    another: impl FnOnce(&Memory) + 'static,
) {
    let memory = pinned(kind, Layout::Small, mutant);
    let others = [beside(&memory, actor), beside(&memory, another)];
    let donated = donate(&memory, &[Page::First]);
    reclaim(&memory, &[Page::First], donated);
    others.into_iter().for_each(join);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// A reference that stays: isolation fails and leaves all as it was, whatever a pinner does meanwhile.
pub(super) fn isolate_beside_a_holder(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
    let pipe = memory.grab_slow(Page::First, Grab::Get);
    let owner = memory.grab_slow(Page::First, Grab::Exclusive);
    assert_eq!((pipe, owner), (Ok(Page::First), Ok(Page::First)));
    let before = memory.frame(Page::First).refs.read();
    let other = beside(&memory, |memory| {
        let pinned = memory.grab(Page::First, Grab::Pin);
        assert_eq!(pinned, Err(Refusal::Busy), "who is in the way is not told");
    });
    assert_eq!(memory.isolate(&[Page::First]), Err(Refusal::Again));
    join(other);
    let frame = memory.frame(Page::First);
    assert_eq!(frame.word.read(), exclusive(0), "the word has changed");
    assert_eq!(frame.entry(), Entry::Present, "the mapping has changed");
    assert_eq!(frame.refs.read(), before, "the reference count has changed");
    frame.contents.touch();
    memory.give(Page::First, Grab::Get);
    let donated = donate(&memory, &[Page::First]);
    assert_eq!(donated, Ok(()), "nobody was in the way");
    reclaim(&memory, &[Page::First], donated);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// EL2 gives the page back, the isolation ends, the pin becomes ordinary: whoever gets in sees a page of the host's.
pub(super) fn unisolate_beside(
    kind: Kind,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
) {
    let memory = donated(kind, Layout::Small, mutant);
    let other = beside(&memory, actor);
    memory.unisolate(Page::First);
    memory.make_ordinary(Page::First);
    memory.give(Page::First, Grab::Pin);
    join(other);
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// The owner lets go of a page that EL2 still has.
pub(super) fn leak(mutant: Option<Mutant>) {
    let memory = donated(Kind::Anon, Layout::Small, mutant);
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
pub(super) fn split_beside(
    kind: Kind,
    mutant: Option<Mutant>,
    actor: impl FnOnce(&Memory) + 'static,
) {
    let memory = donated(kind, Layout::Large, mutant);
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

/// A large folio that is only pinned is split: one page stays pinned exclusively, the other one is free for all.
pub(super) fn split_pinned(mutant: Option<Mutant>, kept: Page, wanted: Page) {
    let memory = pinned(Kind::Anon, Layout::Large, mutant);
    let other = beside(&memory, move |memory| {
        let folio = memory.grab_fast(wanted, Grab::Pin);
        if let Some(folio) = folio {
            memory.give(folio, Grab::Pin);
        }
        folio.is_some()
    });
    let split = memory.split(kept);
    let pinned = join(other);
    assert!(
        !pinned || kept != wanted,
        "a second pin beside the exclusive one"
    );
    if split.is_ok() {
        memory.give(kept, Grab::Exclusive);
        at_rest(&memory, Page::Second, Rest::AsBefore);
    } else {
        assert_eq!(split, Err(Refusal::Again));
        let word = memory.frame(Page::First).word.read();
        assert_eq!(word, exclusive(1), "a failed split has changed the word");
        memory.give(Page::First, Grab::Exclusive);
    }
    at_rest(&memory, Page::First, Rest::AsBefore);
}

/// One exclusive taker and two ordinary ones.
pub(super) fn three_pins(mutant: Option<Mutant>) {
    let memory = memory(Kind::Anon, Layout::Small, mutant);
    let others = [
        beside(&memory, |memory| pin_fast(memory, Grab::Pin)),
        beside(&memory, |memory| pin_slow(memory, Grab::Pin)),
    ];
    pin_fast(&memory, Grab::Exclusive);
    others.into_iter().for_each(join);
    at_rest(&memory, Page::First, Rest::AsBefore);
}
