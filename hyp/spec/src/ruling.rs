//! What a rule says: [`Refuse`] or [`Done`], each by the clause that decided.

use alloc::vec::Vec;
use pinfold_abi::Status;

use crate::clause::Clause;
use crate::state::Word;

/// The call is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refuse {
    pub(crate) clause: Clause,
    pub(crate) status: Status,
    /// The frame that failed.
    pub(crate) index: u64,
    pub(crate) word: Word,
    pub(crate) pin: u32,
}

/// A refusal of which nothing else is to be said.
pub(crate) const fn refuse(clause: Clause, status: Status) -> Refuse {
    Refuse {
        clause,
        status,
        index: 0,
        word: Word::exactly(0),
        pin: 0,
    }
}

impl Refuse {
    /// Frame `index` failed, with this word.
    pub(crate) const fn at(self, index: u64, word: Word) -> Self {
        Self {
            index,
            word,
            ..self
        }
    }

    /// This pin word was found.
    pub(crate) const fn pin(self, pin: u32) -> Self {
        Self { pin, ..self }
    }
}

/// Refuses unless something holds.
pub(crate) fn require(holds: bool, otherwise: Refuse) -> Result<(), Refuse> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// The call is done, or a part of it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    pub(crate) clause: Clause,
    pub(crate) status: Status,
    /// x2 and on.
    pub(crate) results: Vec<Word>,
    /// A vCPU runs: there are no results yet.
    pub(crate) enters: bool,
}

/// It is done, with these results.
pub(crate) fn done(clause: Clause, results: &[u64]) -> Done {
    let results = results.iter().copied().map(Word::exactly).collect();
    Done {
        clause,
        status: Status::Ok,
        results,
        enters: false,
    }
}

impl Done {
    /// A part is done.
    pub(crate) fn again(self) -> Self {
        Self {
            status: Status::Again,
            ..self
        }
    }
}

/// What a rule says.
pub(crate) type Ruling = Result<Done, Refuse>;
