//! The scenarios: who meets whom, and what has to be true afterwards.
//!
//! [`SCENARIOS`] is the list. The races are numbered as in the design notes of the series (`host-shim/patches/README.md` has the
//! table): R1 is a fast pin against an isolation, and so on.
//!
//! Invariant: names are unique, for the tests of the mutants call scenarios by their names.

mod play;

use crate::Grab;
use crate::memory::{Kind, Page};
use crate::mutant::Mutant;
use play::{
    BOTH, isolate_beside, isolate_beside_a_holder, isolate_beside_two, isolate_large,
    isolate_two_beside, isolate_two_beside_a_holder, leak, one_of_two_wins,
    one_of_two_wins_unless_unmapped, pin_fast, pin_fast_at, pin_in_file, pin_slow, pin_slow_at,
    pins_in_any_order, promote_and_pin, promote_and_unpin, reach_slow, read_file, split_beside,
    split_pinned, three_pins, touch_file_at, two_exclusive_pins, unisolate_beside, unpin_and_zap,
};

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
    complete("R5", "exclusive pin, memfd_pin_folios()", |mutant| {
        one_of_two_wins(mutant, |memory, grab| match grab {
            Grab::Pin => memory.pin_in_file(Page::First),
            Grab::Get | Grab::Exclusive => memory.grab(Page::First, grab),
        });
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
    complete(
        "batch",
        "two anonymous folios isolated, slow FOLL_GET",
        |mutant| {
            isolate_two_beside(Kind::Anon, BOTH, mutant, reach_slow);
        },
    ),
    complete(
        "batch",
        "two anonymous folios isolated backwards, slow FOLL_GET",
        |mutant| {
            isolate_two_beside(Kind::Anon, [Page::Second, Page::First], mutant, reach_slow);
        },
    ),
    complete(
        "batch",
        "two folios of shmem isolated, slow FOLL_GET",
        |mutant| {
            isolate_two_beside(Kind::Shmem, BOTH, mutant, reach_slow);
        },
    ),
    complete(
        "batch",
        "two folios of shmem isolated, read() of one",
        |mutant| {
            isolate_two_beside(Kind::Shmem, BOTH, mutant, |memory| {
                memory.read_file(Page::First)
            });
        },
    ),
    bounded(
        "batch",
        "two anonymous folios, a pipe has one, fast FOLL_GET",
        |mutant| {
            isolate_two_beside_a_holder(Kind::Anon, mutant);
        },
    ),
    bounded(
        "batch",
        "two folios of shmem, a pipe has one, fast FOLL_GET",
        |mutant| {
            isolate_two_beside_a_holder(Kind::Shmem, mutant);
        },
    ),
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
    bounded(
        "split",
        "split of a pinned folio, fast pin of the other page",
        |mutant| split_pinned(mutant, Page::First, Page::Second),
    ),
    bounded(
        "split",
        "split of a pinned folio, fast pin of the same page",
        |mutant| split_pinned(mutant, Page::Second, Page::Second),
    ),
    bounded(
        "R3",
        "isolation of a large folio, fast FOLL_GET of its tail",
        isolate_large,
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
