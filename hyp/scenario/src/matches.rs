//! Whether an outcome is one that was expected.

use pinfold_abi::Status;
use pinfold_abi::folio_word::FolioWord;
use pinfold_abi::show::{Answer, Outcome as Meaning};

use crate::executor::Outcome;
use crate::program::{Action, Deed, Expression, Pattern};

/// Whether `outcome` is what `pattern` says; `value` gives the value of an expression.
pub(crate) fn matches(
    pattern: &Pattern,
    outcome: &Outcome,
    value: &dyn Fn(&Expression) -> u64,
) -> bool {
    match (pattern, outcome) {
        (Pattern::Status { status, fields }, Outcome::Answer { call, x }) => {
            let meaning = (Answer { call: *call, x: *x }).outcome();
            is_status(*status, meaning)
                && fields
                    .iter()
                    .all(|(key, expected)| field(key, *call, *x, meaning) == Some(value(expected)))
        }
        (
            Pattern::Exit { reason, details },
            Outcome::Exit {
                reason: found,
                details: seen,
            },
        ) => {
            reason == found
                && details.len() <= seen.len()
                && details
                    .iter()
                    .zip(seen)
                    .all(|(expected, seen)| value(expected) == *seen)
        }
        (Pattern::Value(expected), Outcome::Value(seen)) => value(expected) == *seen,
        (Pattern::Done, Outcome::Value(_) | Outcome::Done)
        | (Pattern::Abort, Outcome::Abort)
        | (Pattern::Decoy, Outcome::Decoy) => true,
        (
            Pattern::Status { .. }
            | Pattern::Exit { .. }
            | Pattern::Value(_)
            | Pattern::Done
            | Pattern::Abort
            | Pattern::Decoy,
            _,
        ) => false,
    }
}

/// Whether `outcome` is what comes of `action` when nothing else is said: it is done.
pub(crate) fn is_usual(action: &Action, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answer { call, x } => {
            matches!(
                (Answer { call: *call, x: *x }).outcome(),
                Meaning::Results(Status::Ok) | Meaning::Foreign
            )
        }
        Outcome::Value(value) => {
            let must_succeed = matches!(
                action,
                Action::Guest {
                    deed: Deed::Share(_) | Deed::Unshare(_) | Deed::Relinquish(_),
                    ..
                }
            );
            !must_succeed || *value == 0
        }
        Outcome::Done => true,
        Outcome::Exit { .. } | Outcome::Abort | Outcome::Decoy => false,
    }
}

fn is_status(expected: Option<Status>, meaning: Meaning) -> bool {
    match meaning {
        Meaning::NotSupported => expected.is_none(),
        Meaning::Results(status) | Meaning::RefusedAt(status) | Meaning::Refused(status) => {
            expected == Some(status)
        }
        Meaning::Unknown(_) | Meaning::Foreign => false,
    }
}

/// What an answer says under a key.
fn field(
    key: &str,
    call: Option<&'static pinfold_abi::describe::CallInfo>,
    x: [u64; 8],
    meaning: Meaning,
) -> Option<u64> {
    let [_, _, results @ ..] = x;
    let [first, folio_word, pin_word, ..] = results;
    match meaning {
        Meaning::Results(_) => {
            let fields = call?.results.iter().zip(results);
            fields
                .into_iter()
                .find(|(field, _)| field.name == key)
                .map(|(_, value)| value)
        }
        Meaning::RefusedAt(_) => match key {
            "index" => Some(first),
            "pin" => Some(pin_word),
            _ => found(key, FolioWord::decode(folio_word)),
        },
        Meaning::Refused(_) => (key == "x2").then_some(first),
        Meaning::NotSupported | Meaning::Unknown(_) | Meaning::Foreign => None,
    }
}

fn found(key: &str, word: FolioWord) -> Option<u64> {
    match (word, key) {
        (FolioWord::Head { order, .. } | FolioWord::Tail { order }, "word-order") => {
            Some(u64::from(order))
        }
        (FolioWord::Head { state, .. }, "word-state") => Some(state.number()),
        (FolioWord::Head { owner, .. }, "word-gfn") => owner.map(|(_, gfn)| gfn),
        (FolioWord::Head { .. } | FolioWord::Tail { .. }, _) => None,
    }
}
