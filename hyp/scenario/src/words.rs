//! Lines to words: [`Command`]s with the place of each [`Word`], and [`Error`], which says where something is wrong.
//!
//! A `#` begins a comment, a `;` ends a command like the end of a line does, `{` and `}` stand alone. `cpuN:` at the beginning of a
//! line holds for all its commands.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};

/// What is wrong with a text, and where; lines and columns count from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
    /// What is wrong there.
    pub what: String,
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.what)
    }
}

/// A word and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Word {
    /// This word is wrong.
    pub(crate) fn error(&self, what: impl Into<String>) -> Error {
        Error {
            line: self.line,
            column: self.column,
            what: what.into(),
        }
    }

    /// What stands behind the first `skipped` letters.
    pub(crate) fn after(&self, skipped: usize) -> Self {
        Self {
            text: self.text.get(skipped..).unwrap_or_default().to_string(),
            line: self.line,
            column: self.column + u32::try_from(skipped).unwrap_or(0),
        }
    }
}

/// The words of one command; there is at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Command {
    /// The CPU that the line names.
    pub(crate) cpu: Option<u8>,
    pub(crate) first: Word,
    pub(crate) rest: Vec<Word>,
}

/// What a scenario must begin with.
pub(crate) fn title(text: &str) -> Result<&str, Error> {
    let first = text.lines().next().unwrap_or_default();
    let title = first
        .strip_prefix('#')
        .map(str::trim)
        .filter(|title| !title.is_empty());
    title.ok_or_else(|| Error {
        line: 1,
        column: 1,
        what: "the first line says what the scenario shows: `# What it shows.`".into(),
    })
}

/// The commands of a text.
pub(crate) fn commands(text: &str) -> Result<Vec<Command>, Error> {
    let mut commands = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let mut words = words(line, number);
        let mut cpu = None;
        if let Some(first) = words.first()
            && let Some(name) = first.text.strip_suffix(':')
        {
            cpu = Some(cpu_number(first, name)?);
            words.remove(0);
        }
        let mut pending: Option<Command> = None;
        for word in words {
            let is_end = matches!(word.text.as_str(), ";" | "}");
            let is_begin = word.text == "{";
            if is_end {
                commands.extend(pending.take());
            }
            match &mut pending {
                _ if word.text == ";" => {}
                Some(command) => command.rest.push(word),
                None => {
                    pending = Some(Command {
                        cpu,
                        first: word,
                        rest: Vec::new(),
                    });
                }
            }
            if is_end || is_begin {
                commands.extend(pending.take());
            }
        }
        commands.extend(pending);
    }
    Ok(commands)
}

fn cpu_number(word: &Word, name: &str) -> Result<u8, Error> {
    let number = name
        .strip_prefix("cpu")
        .and_then(|number| number.parse().ok());
    number.filter(|number| *number < 8).ok_or_else(|| {
        word.error(format!(
            "`{}` is no CPU: a line begins with `cpu0:` to `cpu7:`, or with a verb",
            word.text
        ))
    })
}

fn words(line: &str, number: u32) -> Vec<Word> {
    let code = line.split('#').next().unwrap_or_default();
    let mut words: Vec<Word> = Vec::new();
    let mut goes_on = false;
    for (letter, column) in code.chars().zip(1..) {
        let stands_alone = matches!(letter, ';' | '{' | '}' | '|');
        match words.last_mut() {
            _ if letter.is_whitespace() => {}
            Some(word) if goes_on && !stands_alone => word.text.push(letter),
            _ => words.push(Word {
                text: letter.to_string(),
                line: number,
                column,
            }),
        }
        goes_on = !letter.is_whitespace() && !stands_alone;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<Vec<String>> {
        let commands = commands(text).unwrap().into_iter();
        commands
            .map(|command| {
                core::iter::once(command.first)
                    .chain(command.rest)
                    .map(|word| word.text)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn commands_end_with_lines_and_semicolons() {
        assert_eq!(
            texts("a b;c # d\n\n e"),
            [vec!["a", "b"], vec!["c"], vec!["e"]]
        );
        assert_eq!(
            texts("repeat 3 { a; b }"),
            [vec!["repeat", "3", "{"], vec!["a"], vec!["b"], vec!["}"]]
        );
        assert_eq!(texts("expect A|B"), [vec!["expect", "A", "|", "B"]]);
    }

    #[test]
    fn words_know_their_places() {
        let commands = commands("x\n  cpu1: ab  cd; e").unwrap();
        let places: Vec<_> = commands
            .iter()
            .map(|command| (command.cpu, command.first.line, command.first.column))
            .collect();
        assert_eq!(places, [(None, 1, 1), (Some(1), 2, 9), (Some(1), 2, 17)]);
        assert_eq!(commands[1].rest[0].column, 13);
    }

    #[test]
    fn a_cpu_has_a_number() {
        assert!(
            commands("cpu8: a")
                .unwrap_err()
                .to_string()
                .starts_with("1:1: `cpu8:` is no CPU")
        );
        assert!(commands("core0: a").is_err());
    }
}
