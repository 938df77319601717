//! A long step: a child process whose output goes to a log, with progress on the terminal.
//!
//! [`Step::run`] prints what is being done, how far it is and how long it took. When the child
//! fails, the error holds the lines of its output that name the cause, and the log's path.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How many lines of the cause an error shows.
const CAUSE_LINES: usize = 8;

/// One step of a build.
pub(crate) struct Step {
    what: String,
    log: PathBuf,
    pieces: Option<Pieces>,
}

/// What a line of output looks like that says a piece of work is done, and how many there are about.
type Pieces = (fn(&str) -> bool, u32);

impl Step {
    /// A step by its name on the terminal and the file that gets its output.
    pub(crate) fn new(what: impl Into<String>, log: PathBuf) -> Self {
        Self {
            what: what.into(),
            log,
            pieces: None,
        }
    }

    /// Counts the lines that `is_piece` picks, of about `expected`.
    pub(crate) fn counting(mut self, is_piece: fn(&str) -> bool, expected: u32) -> Self {
        self.pieces = Some((is_piece, expected));
        self
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let mut log = File::create(&self.log)
            .with_context(|| format!("cannot make {}", self.log.display()))?;
        let (reader, writer) = std::io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        // `command` holds the writing ends; without this the reader never sees the end.
        command.stdout(Stdio::null()).stderr(Stdio::null());

        let mut meter = Meter::new(&self.what);
        let mut cause = Cause::default();
        let mut done = 0;
        for line in BufReader::new(reader).split(b'\n') {
            let line = line?;
            log.write_all(&line)?;
            log.write_all(b"\n")?;
            let line = String::from_utf8_lossy(&line);
            cause.see(&line);
            if let Some((is_piece, expected)) = self.pieces {
                done += u32::from(is_piece(&line));
                meter.show(&format!("{done} of about {}", expected.max(done)));
            } else {
                meter.show("");
            }
        }
        let status = child.wait()?;
        if !status.success() {
            meter.end("failed");
            bail!(
                "{}: {program}: {status}\n{cause}  all of it: {}",
                self.what,
                self.log.display()
            );
        }
        meter.end("done");
        Ok(())
    }
}

/// The terminal's line about a step; quiet for steps that take less than a second.
struct Meter {
    what: String,
    begun: Instant,
    shown: Instant,
    spoke: bool,
    rewrites: bool,
}

impl Meter {
    fn new(what: &str) -> Self {
        let rewrites = std::io::stdout().is_terminal();
        Self {
            what: what.to_owned(),
            begun: Instant::now(),
            shown: Instant::now(),
            spoke: false,
            rewrites,
        }
    }

    fn show(&mut self, progress: &str) {
        let pause = if self.rewrites || !self.spoke { 1 } else { 15 };
        if self.shown.elapsed() < Duration::from_secs(pause) {
            return;
        }
        self.shown = Instant::now();
        self.line(progress, "");
    }

    fn end(&mut self, word: &str) {
        if self.spoke || word == "failed" {
            self.line(word, "\n");
        }
    }

    fn line(&mut self, text: &str, end: &str) {
        self.spoke = true;
        let seconds = self.begun.elapsed().as_secs();
        let separator = if text.is_empty() { "" } else { ", " };
        if self.rewrites {
            print!(
                "\r\x1b[K[{seconds:4} s] {}{separator}{text}{end}",
                self.what
            );
        } else {
            println!("[{seconds:4} s] {}{separator}{text}", self.what);
        }
        // A terminal that went away is no reason to stop a build.
        std::io::stdout().flush().unwrap_or_default();
    }
}

/// The lines that tell why a child failed: those that speak of errors, else the last ones.
#[derive(Default)]
struct Cause {
    errors: Vec<String>,
    last: VecDeque<String>,
}

impl Cause {
    fn see(&mut self, line: &str) {
        const SIGNS: [&str; 6] = [
            "error",
            "Error ",
            "undefined reference",
            "FAILED",
            "No such file",
            "fatal:",
        ];
        // make's own lines come after the cause and only repeat that there was one.
        let says_nothing = line.starts_with("make") || line.contains("aborting due to");
        if self.errors.len() < CAUSE_LINES
            && !says_nothing
            && SIGNS.iter().any(|sign| line.contains(sign))
        {
            self.errors.push(line.to_owned());
        }
        self.last.push_back(line.to_owned());
        if self.last.len() > CAUSE_LINES {
            self.last.pop_front();
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.errors.is_empty() {
            self.last
                .iter()
                .try_for_each(|line| writeln!(f, "  {line}"))
        } else {
            self.errors
                .iter()
                .try_for_each(|line| writeln!(f, "  {line}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(script: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let step = Step::new("a step", directory.path().join("log"));
        step.run(Command::new("sh").args(["-c", script]))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_failure_names_the_error_and_not_the_noise() {
        let text = failure_of(
            "echo CC a.o; echo 'a.c:3: error: no x'; echo 'make: *** [a.o] Error 1'; exit 2",
        );
        assert!(text.contains("a.c:3: error: no x"));
        assert!(!text.contains("CC a.o") && !text.contains("***"));
    }

    #[test]
    fn a_failure_without_a_named_error_shows_the_last_lines() {
        assert!(failure_of("echo first; echo second; exit 1").contains("second"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let step = Step::new("a step", directory.path().join("log"));
        let error = step.run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"));
    }
}
