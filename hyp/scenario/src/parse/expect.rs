//! What is expected: outcomes by status, exit or value, the state of a frame, how many of a kind there were.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pinfold_abi::describe::{FieldInfo, ValueInfo};
use pinfold_abi::{ExitReason, HostCall, State, Status};

use super::Parser;
use crate::near;
use crate::program::{Action, Expression, Pattern};
use crate::words::{Error, Word};

/// What an `expect` is about.
pub(super) enum Expected {
    /// The command before it.
    Outcome(Vec<Pattern>),
    /// Something that is looked up.
    Check(Action),
}

/// What a refusal can be asked for.
const FOUND: [&str; 6] = ["index", "word-state", "word-order", "word-gfn", "pin", "x2"];
/// What is written in small letters.
const PLAIN: [&str; 5] = ["done", "value", "exit", "abort", "decoy"];

impl Parser {
    /// Alternatives, separated by `|`.
    pub(super) fn patterns(&self, words: &[Word]) -> Result<Vec<Pattern>, Error> {
        let bar = words.iter().find(|word| word.text == "|");
        let parts = words.split(|word| word.text == "|");
        let patterns = parts.map(|part| match part {
            [first, rest @ ..] => self.pattern(first, rest),
            [] => Err(bar.map_or_else(
                || Error {
                    line: 0,
                    column: 0,
                    what: "nothing is expected".into(),
                },
                |bar| bar.error("nothing stands on one side of `|`"),
            )),
        });
        patterns.collect()
    }

    fn pattern(&self, first: &Word, rest: &[Word]) -> Result<Pattern, Error> {
        let plain = match (first.text.as_str(), rest) {
            ("done", []) => Some(Pattern::Done),
            ("abort", []) => Some(Pattern::Abort),
            ("decoy", []) => Some(Pattern::Decoy),
            ("value", [value]) => Some(Pattern::Value(self.expression(value)?)),
            ("exit", [reason, details @ ..]) => Some(self.exit(reason, details)?),
            ("value", _) => return Err(first.error("`value` takes one value")),
            ("exit", []) => {
                return Err(first.error("`exit` takes an exit reason, then its details"));
            }
            _ => None,
        };
        if let Some(pattern) = plain {
            return Ok(pattern);
        }
        let status = status(first)?;
        let fields = rest
            .iter()
            .map(|word| self.field(word))
            .collect::<Result<_, _>>()?;
        Ok(Pattern::Status { status, fields })
    }

    fn exit(&self, reason: &Word, details: &[Word]) -> Result<Pattern, Error> {
        let known = ExitReason::TABLE
            .iter()
            .find(|info| info.name == reason.text);
        let known = known.and_then(|info| ExitReason::from_number(info.number));
        let names = ExitReason::TABLE.iter().map(|info| info.name);
        let reason = known.ok_or_else(|| {
            reason.error(format!(
                "`{}` is no exit reason{}",
                reason.text,
                near::hint(&reason.text, names)
            ))
        })?;
        let details = details
            .iter()
            .map(|word| self.expression(word))
            .collect::<Result<_, _>>()?;
        Ok(Pattern::Exit { reason, details })
    }

    /// `key=value`: a result of some call, or what a refusal says.
    fn field(&self, word: &Word) -> Result<(String, Expression), Error> {
        let Some((key, value)) = word.text.split_once('=') else {
            return Err(word.error(format!("`{}` is no `key=value`", word.text)));
        };
        let at = word.after(key.len() + 1);
        let results = || HostCall::TABLE.iter().flat_map(|info| info.results);
        let result: Option<&FieldInfo> = results().find(|field| field.name == key);
        let names: &[ValueInfo] = match (key, result) {
            ("word-state", _) => State::TABLE,
            (_, Some(field)) => field.names(),
            _ if FOUND.contains(&key) => &[],
            _ => {
                let known: Vec<&str> = FOUND
                    .into_iter()
                    .chain(results().map(|field| field.name))
                    .collect();
                return Err(word.error(format!(
                    "`{key}` is neither a result nor part of a refusal{}",
                    near::hint(key, known.iter().copied())
                )));
            }
        };
        if value.is_empty() {
            return Err(at.error(format!("`{key}` has no value")));
        }
        Ok((key.to_string(), self.value(&at, names)?))
    }

    /// `expect state FRAME = STATE [VM GFN] [order=N]`
    pub(super) fn expect_state(&self, at: &Word, rest: &[Word]) -> Result<Action, Error> {
        let wrong = || {
            at.error("it goes like this: `expect state page = GUEST vm gfn order=0`, where a state without an owner has no VM")
        };
        let [frame, equals, name, rest @ ..] = rest else {
            return Err(wrong());
        };
        if equals.text != "=" {
            return Err(wrong());
        }
        let known = State::TABLE.iter().find(|info| info.name == name.text);
        let names = State::TABLE.iter().map(|info| info.name);
        let unknown = || {
            name.error(format!(
                "`{}` is no state{}",
                name.text,
                near::hint(&name.text, names)
            ))
        };
        let state = known
            .and_then(|info| State::from_number(info.number))
            .ok_or_else(unknown)?;
        let (rest, order) = match rest {
            [rest @ .., last] if last.text.starts_with("order=") => {
                (rest, Some(self.expression(&last.after(6))?))
            }
            _ => (rest, None),
        };
        let owner = match rest {
            [] => None,
            [vm, gfn] => Some((self.expression(vm)?, self.expression(gfn)?)),
            _ => return Err(wrong()),
        };
        Ok(Action::State {
            frame: self.expression(frame)?,
            state,
            owner,
            order,
        })
    }

    /// `expect count PATTERN = N`
    pub(super) fn expect_count(
        &self,
        at: &Word,
        rest: &[Word],
    ) -> Result<(Pattern, Expression), Error> {
        match rest {
            [first, fields @ .., equals, times] if equals.text == "=" => {
                Ok((self.pattern(first, fields)?, self.expression(times)?))
            }
            _ => {
                Err(at.error("it goes like this: `expect count OK = 1`, behind the lines of CPUs"))
            }
        }
    }
}

fn status(word: &Word) -> Result<Option<Status>, Error> {
    const NOT_SUPPORTED: &str = "NOT_SUPPORTED";
    if word.text == NOT_SUPPORTED {
        return Ok(None);
    }
    let known = Status::TABLE.iter().find(|info| info.name == word.text);
    let names = Status::TABLE
        .iter()
        .map(|info| info.name)
        .chain(PLAIN)
        .chain([NOT_SUPPORTED]);
    let unknown = || {
        word.error(format!(
            "`{}` is no outcome{}",
            word.text,
            near::hint(&word.text, names)
        ))
    };
    known
        .and_then(|info| Status::from_number(info.number))
        .ok_or_else(unknown)
        .map(Some)
}
