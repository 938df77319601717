//! A machine that runs, seen and driven through its serial console.
//!
//! [`Console::expect`] waits for a text and fails with what was waited for, how long, and the last
//! lines seen: a hang is never just a hang. The machine dies with its [`Console`]. Everything
//! that was printed is in a log.

use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How many lines of output an error shows.
const LINES_SHOWN: usize = 12;

/// A running QEMU and what it has printed.
pub(crate) struct Console {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    log: File,
    log_path: PathBuf,
    seen: String,
    /// Up to here `seen` has been matched by `expect`.
    matched: usize,
    echoes: bool,
}

impl Console {
    /// Starts the machine.
    pub(crate) fn start(machine: &Machine, log_path: &Path) -> Result<Self> {
        let mut command = machine.command();
        command
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut log = File::create(log_path)
            .with_context(|| format!("cannot make {}", log_path.display()))?;
        writeln!(log, "{command:?}\n")?;
        let mut child = command
            .spawn()
            .context("cannot start qemu-system-aarch64; `make setup` installs it")?;
        let keyboard = child.stdin.take().context("QEMU has no standard input")?;
        let output = child.stdout.take().context("QEMU has no standard output")?;
        let errors = child.stderr.take().context("QEMU has no standard error")?;
        let (sender, screen) = channel();
        forward(output, sender.clone());
        forward(errors, sender);
        Ok(Self {
            child,
            keyboard,
            screen,
            log,
            log_path: log_path.to_path_buf(),
            seen: String::new(),
            matched: 0,
            echoes: false,
        })
    }

    /// Also prints everything as it comes.
    pub(crate) fn echoing(mut self) -> Self {
        self.echoes = true;
        self
    }

    /// Waits until a line contains the text, and returns that line up to what has been printed.
    pub(crate) fn expect(&mut self, text: &str, guard: Duration) -> Result<String> {
        let deadline = Instant::now() + guard;
        loop {
            let rest = self.seen.get(self.matched..).unwrap_or_default();
            if let Some(line) = rest
                .split_inclusive('\n')
                .find(|line| line.contains(text) && line.ends_with('\n'))
            {
                let line = line.trim_end().to_owned();
                let place = rest.find(&line).unwrap_or_default();
                self.matched += place + line.len();
                return Ok(line);
            }
            match self
                .screen
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.take(&bytes)?,
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "hangs: no \"{text}\" within {} s; {}",
                        guard.as_secs(),
                        self.tail()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "ended ({}) without \"{text}\"; {}",
                        self.child.wait()?,
                        self.tail()
                    )
                }
            }
        }
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.keyboard, "{line}").context("QEMU takes no more input")?;
        Ok(self.keyboard.flush()?)
    }

    /// Waits until QEMU ends by itself, which a power-off brings about.
    pub(crate) fn wait(&mut self, guard: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + guard;
        loop {
            match self
                .screen
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.take(&bytes)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "hangs: no power-off within {} s; {}",
                        guard.as_secs(),
                        self.tail()
                    )
                }
            }
        }
    }

    /// Everything printed so far.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.log.write_all(bytes)?;
        let text = String::from_utf8_lossy(bytes).replace('\r', "");
        if self.echoes {
            print!("{text}");
            std::io::stdout().flush()?;
        }
        self.seen.push_str(&text);
        Ok(())
    }

    fn tail(&self) -> String {
        let lines: Vec<&str> = self.seen.lines().collect();
        let first = lines.len().saturating_sub(LINES_SHOWN);
        let last = lines.get(first..).unwrap_or_default().join("\n    ");
        format!(
            "all of it: {}; the last lines:\n    {last}",
            self.log_path.display()
        )
    }
}

/// Sends what comes from a source until it ends or nobody listens.
fn forward(mut source: impl Read + Send + 'static, to: Sender<Vec<u8>>) {
    let _reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = source.read(&mut buffer) {
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            if to.send(bytes).is_err() {
                break;
            }
        }
    });
}

impl Drop for Console {
    fn drop(&mut self) {
        // Already ended: nothing to kill, only to collect.
        self.child.kill().unwrap_or_default();
        let _status = self.child.wait();
    }
}
