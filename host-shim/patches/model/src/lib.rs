//! A model of the pin word and of isolation, the two steps by which the kernel series makes sure that nobody but a page's owner can
//! reach it, checked exhaustively by [loom](https://docs.rs/loom).
//!
//! The algorithms are those of `mm/exclusive_pin.c` and `mm/gup.c` as the series has them, step by step, with one atomic
//! variable for each of the kernel's and with no stronger memory ordering than the kernel's. Each [`Scenario`] lets two or
//! three actors run into each other; loom runs it in every order that makes a difference, and lets loads return every
//! value that the memory model allows. What has to hold in all of them:
//!
//! * at most one exclusive pin, and never together with another pin;
//! * from the donation until EL2 has given the page back nobody in the host touches its contents, and all touches are
//!   ordered;
//! * at the end the word is 0 and the reference count what it was;
//! * of an exclusive and an ordinary taker that meet one gets the pin; an isolation that fails leaves everything
//!   as it was, and nobody has reached for a page in vain because of it;
//! * of the folios of a batch all are seen isolated, or none;
//! * nobody adds a reference to a frozen count; what is pinned or EL2's is never freed, an isolated folio that is unpinned
//!   is leaked.
//!
//! What "every order" means: loom explores a scenario of two actors completely, and one of three, or with a split, or
//! with the fast path beside a batch or a large folio, with at most [`PREEMPTIONS`] preemptions. Loads may return old values where nothing
//! forbids it, but a store is never seen before the loads that come earlier in its thread, and `SeqCst` is taken for
//! acquire and release, which only adds executions. Who does the same again later is another actor who comes later, so
//! an actor tries once. A page is mapped in one place.
//!
//! Invariant: the same code runs with a [`Mutant`] and without.

#![forbid(unsafe_code)]

mod contents;
mod gup;
mod isolate;
mod memory;
mod mutant;
mod others;
mod refcount;
mod scenario;
mod word;

pub use mutant::Mutant;
pub use scenario::{PREEMPTIONS, SCENARIOS, Scenario};

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// What an actor asks for: `FOLL_GET`, `FOLL_PIN`, `FOLL_PIN | FOLL_EXCLUSIVE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grab {
    Get,
    Pin,
    Exclusive,
}

/// Why an actor does not get what he asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// `-EBUSY`: somebody else has a pin that is in the way.
    Busy,
    /// `-EFAULT`: the folio is isolated.
    Fault,
    /// `-EAGAIN`: there are other references.
    Again,
    /// The page is no longer there; a fault would bring another one.
    NotThere,
}

/// What the checker says of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// How many executions it ran.
    pub executions: usize,
    /// The property that does not hold, in its words.
    pub violation: Option<String>,
}

/// Runs a scenario in every order, with or without something done wrong.
#[must_use]
pub fn check(scenario: &Scenario, mutant: Option<Mutant>) -> Outcome {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let run = scenario.run;
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = scenario.preemptions;
    let result = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counter.fetch_add(1, Relaxed);
            run(mutant);
        });
    }));
    Outcome {
        executions: executions.load(Relaxed),
        violation: result.err().map(|panic| words(panic.as_ref())),
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}
