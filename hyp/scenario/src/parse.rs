//! Words to a [`Program`]: [`parse()`].
//!
//! Names are known from the line that makes them on, so that a wrong one is found before anything is called.

mod actions;
mod expect;
mod values;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::{self, Vec};
use core::iter::Peekable;

use crate::program::{Action, Pattern, Program, Statement};
use crate::words::{Command, Error, Word, commands, title};

/// Reads a scenario.
pub fn parse(name: &str, text: &str) -> Result<Program, Error> {
    let shows = title(text)?.to_string();
    let mut parser = Parser {
        commands: commands(text)?.into_iter().peekable(),
        names: Vec::new(),
    };
    let statements = parser.block(None)?;
    if statements.is_empty() {
        return Err(Error {
            line: 1,
            column: 1,
            what: "the scenario does nothing".into(),
        });
    }
    Ok(Program {
        name: name.to_string(),
        shows,
        statements,
        lines: text.lines().map(String::from).collect(),
    })
}

/// Where reading has got.
struct Parser {
    commands: Peekable<vec::IntoIter<Command>>,
    /// The names so far.
    names: Vec<String>,
}

impl Parser {
    /// Statements up to the `}` that ends what `header` began, or to the end.
    fn block(&mut self, header: Option<&Word>) -> Result<Vec<Statement>, Error> {
        let mut statements = Vec::new();
        loop {
            let Some(command) = self.commands.next() else {
                return match header {
                    None => Ok(statements),
                    Some(header) => Err(header.error(format!("`{}` has no `}}`", header.text))),
                };
            };
            match (command.first.text.as_str(), header) {
                ("}", Some(_)) => return Ok(statements),
                ("}", None) => return Err(command.first.error("`}` ends nothing")),
                _ => {}
            }
            if command.cpu.is_some() {
                statements.push(self.parallel(command)?);
            } else if command.first.text != "join" {
                self.command(&command, &mut statements)?;
            }
        }
    }

    /// One command outside of parallel lines.
    fn command(&mut self, command: &Command, statements: &mut Vec<Statement>) -> Result<(), Error> {
        let line = command.first.line;
        let action = match command.first.text.as_str() {
            "repeat" => self.repeat(command)?,
            "each" => self.each(command)?,
            "expect" => match self.expect(command)? {
                expect::Expected::Outcome(patterns) => {
                    return expects(statements, &command.first, patterns);
                }
                expect::Expected::Check(check) => check,
            },
            _ => self.action(command)?,
        };
        statements.push(Statement {
            line,
            action,
            expected: Vec::new(),
            expected_line: 0,
        });
        Ok(())
    }

    /// The lines of CPUs from here on, up to one without a CPU.
    fn parallel(&mut self, first: Command) -> Result<Statement, Error> {
        let line = first.first.line;
        let mut lines: Vec<Vec<Statement>> = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            let cpu = usize::from(command.cpu.unwrap_or(0));
            if lines.len() <= cpu {
                lines.resize_with(cpu + 1, Vec::new);
            }
            if let Some(statements) = lines.get_mut(cpu) {
                self.parallel_command(&command, statements)?;
            }
            next = self.commands.next_if(|command| command.cpu.is_some());
        }
        Ok(Statement {
            line,
            action: Action::Parallel(lines),
            expected: Vec::new(),
            expected_line: 0,
        })
    }

    fn parallel_command(
        &mut self,
        command: &Command,
        statements: &mut Vec<Statement>,
    ) -> Result<(), Error> {
        let only = "a CPU's line has calls, guests, touches, and what is expected of them";
        if command.first.text == "expect" {
            return match self.expect(command)? {
                expect::Expected::Outcome(patterns) => {
                    expects(statements, &command.first, patterns)
                }
                expect::Expected::Check(_) => Err(command.first.error(only)),
            };
        }
        let action = self.action(command)?;
        let has_name = matches!(action, Action::Call { into: Some(_), .. });
        if has_name || !action.is_step() {
            return Err(command.first.error(only));
        }
        statements.push(Statement {
            line: command.first.line,
            action,
            expected: Vec::new(),
            expected_line: 0,
        });
        Ok(())
    }

    /// `repeat TIMES [as NAME] {`
    fn repeat(&mut self, command: &Command) -> Result<Action, Error> {
        let wrong = || {
            command
                .first
                .error("`repeat` goes like this: `repeat 3 {` or `repeat 3 as i {`")
        };
        let (times, counter) = match command.rest.as_slice() {
            [times, open] if open.text == "{" => (times, None),
            [times, r#as, name, open] if r#as.text == "as" && open.text == "{" => {
                (times, Some(name))
            }
            _ => return Err(wrong()),
        };
        let times = self.expression(times)?;
        let counter = counter.map(|name| self.new_name(name)).transpose()?;
        Ok(Action::Repeat {
            times,
            counter,
            body: self.block(Some(&command.first))?,
        })
    }

    /// `each NAME in VALUE... {`
    fn each(&mut self, command: &Command) -> Result<Action, Error> {
        let [name, r#in, values @ .., open] = command.rest.as_slice() else {
            return Err(command
                .first
                .error("`each` goes like this: `each x in 1 2 3 {`"));
        };
        if r#in.text != "in" || open.text != "{" || values.is_empty() {
            return Err(command
                .first
                .error("`each` goes like this: `each x in 1 2 3 {`"));
        }
        let values = values
            .iter()
            .map(|value| self.expression(value))
            .collect::<Result<_, _>>()?;
        let name = self.new_name(name)?;
        Ok(Action::Each {
            name,
            values,
            body: self.block(Some(&command.first))?,
        })
    }

    /// `expect ...`
    fn expect(&self, command: &Command) -> Result<expect::Expected, Error> {
        let [first, rest @ ..] = command.rest.as_slice() else {
            return Err(command.first.error("nothing is expected; `expect OK`, say"));
        };
        match first.text.as_str() {
            "state" => self.expect_state(first, rest).map(expect::Expected::Check),
            "count" => {
                let (pattern, times) = self.expect_count(first, rest)?;
                Ok(expect::Expected::Check(Action::Count {
                    pattern: Box::new(pattern),
                    times,
                }))
            }
            _ => self.patterns(&command.rest).map(expect::Expected::Outcome),
        }
    }
}

/// Ties what is expected to the last statement.
fn expects(statements: &mut [Statement], at: &Word, patterns: Vec<Pattern>) -> Result<(), Error> {
    let nothing = || at.error("nothing stands before this `expect` that comes to anything");
    let last = statements.last_mut().ok_or_else(nothing)?;
    if !last.action.is_step() {
        return Err(nothing());
    }
    if !last.expected.is_empty() {
        return Err(at.error(
            "the command before has its `expect` already; alternatives are separated by `|`",
        ));
    }
    last.expected = patterns;
    last.expected_line = at.line;
    Ok(())
}

#[cfg(test)]
mod tests;
