//! The user's side of the guest's console: [`Terminal`] (raw mode while a VM runs) and
//! [`EscapeKey`] (Ctrl-A x).
//!
//! Invariant: whoever made the terminal raw gives it back as it was, on drop.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// `--console`: where the guest's console goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleArgument {
    /// To and from the terminal or pipe that `pinfold` was started on.
    Stdio,
    /// Into a file; there is no input.
    File(PathBuf),
}

impl FromStr for ConsoleArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Self::Stdio),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err(format!("`{text}` is neither stdio nor file=PATH")),
        }
    }
}

impl ConsoleArgument {
    /// Opens where the output goes.
    pub fn output(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Stdio => Box::new(io::stdout()),
            Self::File(path) => Box::new(create(path)?),
        })
    }

    /// Whether there is input.
    #[must_use]
    pub fn has_input(&self) -> bool {
        *self == Self::Stdio
    }
}

fn create(path: &Path) -> io::Result<File> {
    File::create(path)
}

/// Standard input, raw if it is a terminal.
#[derive(Debug)]
pub struct Terminal {
    before: Option<Termios>,
}

impl Terminal {
    /// Makes standard input raw, if it is a terminal.
    pub fn raw() -> io::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self {
            before: Some(before),
        })
    }

    /// Whether a person may sit at it, so that keys have a meaning of their own.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nothing can be done about a terminal that has gone.
            tcsetattr(io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

const CTRL_A: u8 = 0x01;

/// Finds Ctrl-A x in what is typed, as QEMU has it.
#[derive(Debug, Default)]
pub struct EscapeKey {
    pending: bool,
}

impl EscapeKey {
    /// Takes what was typed and gives what the guest shall see of it; nothing more after Ctrl-A x.
    ///
    /// Ctrl-A twice sends one Ctrl-A; any other key after it is sent with it.
    pub fn filter(&mut self, typed: &[u8]) -> Typed {
        let mut for_guest = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (std::mem::take(&mut self.pending), byte) {
                (false, CTRL_A) => self.pending = true,
                (true, b'x' | b'X') => {
                    return Typed {
                        for_guest,
                        quit: true,
                    };
                }
                (true, CTRL_A) => for_guest.push(CTRL_A),
                (true, other) => for_guest.extend([CTRL_A, other]),
                (false, other) => for_guest.push(other),
            }
        }
        Typed {
            for_guest,
            quit: false,
        }
    }
}

/// What typing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The bytes for the guest.
    pub for_guest: Vec<u8>,
    /// The user wants to stop the VM.
    pub quit: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_quits_and_the_rest_passes() {
        let mut key = EscapeKey::default();
        assert_eq!(
            key.filter(b"ls\x01\x01\x01b"),
            Typed {
                for_guest: b"ls\x01\x01b".to_vec(),
                quit: false
            }
        );
        assert_eq!(key.filter(b"a\x01").for_guest, b"a");
        assert_eq!(
            key.filter(b"xyz"),
            Typed {
                for_guest: vec![],
                quit: true
            }
        );
    }

    #[test]
    fn the_argument_is_stdio_or_a_file() {
        assert_eq!("stdio".parse(), Ok(ConsoleArgument::Stdio));
        assert_eq!(
            "file=/tmp/x".parse(),
            Ok(ConsoleArgument::File("/tmp/x".into()))
        );
        assert!("file=".parse::<ConsoleArgument>().is_err());
        assert!("pty".parse::<ConsoleArgument>().is_err());
    }
}
