//! Where the program's own messages go: stderr, one line each, `pinfold: ...`.
//!
//! Lines end in CR LF, because the terminal may be in raw mode while a guest's console is on it.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

static STDERR: Stderr = Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Prints `pinfold: message` on stderr.
pub fn say(message: &str) {
    // With stderr gone there is nobody to tell.
    let line = format!("pinfold: {message}\r\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// Lets messages of `level` and above through from now on.
pub fn start(level: LevelFilter) {
    log::set_max_level(level);
    // A second call finds the same logger in place.
    log::set_logger(&STDERR).ok();
}
