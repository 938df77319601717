//! Names, numbers and sums of them, and the binding of arguments.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use pinfold_abi::describe::ValueInfo;
use pinfold_abi::limit;

use super::Parser;
use crate::near;
use crate::program::{Expression, Place, Sign, Term, layout};
use crate::words::{Error, Word};

/// Names that always mean the same.
const CONSTANTS: [(&str, u64); 3] = [
    ("ram", layout::RAM),
    ("home", layout::HOME),
    ("port", layout::PORT),
];

impl Parser {
    /// A sum such as `page+3`.
    pub(super) fn expression(&self, word: &Word) -> Result<Expression, Error> {
        let mut terms = Vec::new();
        let mut start = 0;
        let mut sign = Sign::Plus;
        for (place, letter) in word.text.bytes().enumerate() {
            let next = match letter {
                b'+' => Sign::Plus,
                b'-' => Sign::Minus,
                _ => continue,
            };
            if place > start {
                terms.push((sign, self.term(&part(word, start, place))?));
            } else if place > 0 || next == Sign::Plus {
                return Err(word.error(format!(
                    "`{}` has a sign without a number before it",
                    word.text
                )));
            }
            (start, sign) = (place + 1, next);
        }
        terms.push((sign, self.term(&word.after(start))?));
        Ok(Expression { terms })
    }

    fn term(&self, word: &Word) -> Result<Term, Error> {
        let text = word.text.as_str();
        if text.starts_with(|letter: char| letter.is_ascii_digit()) {
            let number = number(text).ok_or_else(|| {
                word.error(format!(
                    "`{text}` is no number: decimal or 0x..., at most 64 bits"
                ))
            })?;
            return Ok(Term::Number(number));
        }
        if self.names.iter().any(|name| name == text) {
            return Ok(Term::Name(text.to_string()));
        }
        if let Some((_, place)) = Place::NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(Term::Place(*place));
        }
        let limits = limit::TABLE.iter().map(|info| (info.name, info.number));
        if let Some((_, value)) = CONSTANTS
            .into_iter()
            .chain(limits)
            .find(|(name, _)| *name == text)
        {
            return Ok(Term::Number(value));
        }
        let constants = CONSTANTS.iter().map(|(name, _)| *name);
        let places = Place::NAMES.iter().map(|(name, _)| *name);
        let known = self
            .names
            .iter()
            .map(String::as_str)
            .chain(constants)
            .chain(places);
        Err(word.error(format!(
            "nothing is called `{text}` here{}",
            near::hint(text, known)
        )))
    }

    /// An expression, or one of the names that the table has for such numbers.
    pub(super) fn value(&self, word: &Word, names: &[ValueInfo]) -> Result<Expression, Error> {
        let wanted = word.text.to_ascii_uppercase().replace('-', "_");
        match names.iter().find(|info| info.name == wanted) {
            Some(info) => Ok(Expression::number(info.number)),
            None => self.expression(word),
        }
    }

    /// A name that is made here.
    pub(super) fn new_name(&mut self, word: &Word) -> Result<String, Error> {
        let name = word.text.as_str();
        let is_name = name.starts_with(|letter: char| letter.is_ascii_lowercase())
            && name
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !is_name {
            return Err(word.error(format!(
                "`{name}` is no name: a small letter, then letters, digits and _"
            )));
        }
        let is_fixed = CONSTANTS.iter().any(|(known, _)| *known == name)
            || Place::NAMES.iter().any(|(known, _)| *known == name);
        if is_fixed {
            return Err(word.error(format!("`{name}` means something already")));
        }
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_string());
        }
        Ok(name.to_string())
    }
}

fn part(word: &Word, start: usize, end: usize) -> Word {
    let mut part = word.after(start);
    part.text.truncate(end - start);
    part
}

fn number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Gives each name its word: `name=word` anywhere, plain words in the order of the names and before those.
pub(super) fn bind(of: &Word, names: &[&str], rest: &[Word]) -> Result<Vec<Option<Word>>, Error> {
    let takes = || match names {
        [] => format!("`{}` takes no arguments", of.text),
        _ => format!("`{}` takes {}", of.text, names.join(" ")),
    };
    let mut bound: Vec<Option<Word>> = vec![None; names.len()];
    let mut by_name = false;
    for (position, word) in rest.iter().enumerate() {
        let (place, value) = match word.text.split_once('=') {
            Some((name, _)) => {
                by_name = true;
                let place = names.iter().position(|known| *known == name);
                let unknown = || {
                    word.error(format!(
                        "`{name}` is no argument: {}{}",
                        takes(),
                        near::hint(name, names.iter().copied())
                    ))
                };
                (place.ok_or_else(unknown)?, word.after(name.len() + 1))
            }
            None if by_name => {
                return Err(word.error(format!(
                    "`{}` follows an argument with a name, and has none",
                    word.text
                )));
            }
            None => (position, word.clone()),
        };
        let Some(slot) = bound.get_mut(place) else {
            return Err(word.error(format!(
                "`{}` is one argument too many: {}",
                word.text,
                takes()
            )));
        };
        if slot.replace(value).is_some() {
            let name = names.get(place).copied().unwrap_or_default();
            return Err(word.error(format!("`{name}` is given twice")));
        }
    }
    Ok(bound)
}

/// The same where all of them must be there.
pub(super) fn bind_all(of: &Word, names: &[&str], rest: &[Word]) -> Result<Vec<Word>, Error> {
    let bound = bind(of, names, rest)?;
    let missing: Vec<&str> = names
        .iter()
        .zip(&bound)
        .filter(|(_, word)| word.is_none())
        .map(|(name, _)| *name)
        .collect();
    if !missing.is_empty() {
        return Err(of.error(format!("`{}` lacks {}", of.text, missing.join(" "))));
    }
    Ok(bound.into_iter().flatten().collect())
}
