//! Standard output of commands that print much: whoever reads it may stop, and then we end.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Whether there is still somebody who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Yes.
    Listens,
    /// The pipe is closed.
    Gone,
}

/// Prints a text and a line's end.
pub(crate) fn line(text: &str) -> anyhow::Result<Reader> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
