//! The demonstration's Linux guest: a `pinfold run` child with its console on pipes, [`Guest`].

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::DemoArguments;
use crate::memory::Ram;

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);
/// How much of the console is shown when something goes wrong.
const TAIL: usize = 12;

/// A guest, its console, and the file that its RAM is made of.
#[derive(Debug)]
pub(super) struct Guest {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    tail: VecDeque<String>,
    ram: std::fs::File,
    patience: Duration,
}

impl Guest {
    /// Starts the guest; its RAM is a memfd of ours.
    pub(super) fn start(arguments: &DemoArguments) -> anyhow::Result<Self> {
        let ram = Ram::memfd(arguments.mem)?;
        let mut child = Command::new(own_program())
            .arg("run")
            .arg("--protected")
            .arg("--kernel")
            .arg(&arguments.kernel)
            .arg("--initrd")
            .arg(&arguments.initrd)
            .arg("--disk")
            .arg(&arguments.disk)
            .arg("--mem")
            .arg(format!("{}K", arguments.mem >> 10))
            .arg("--backing")
            .arg(path_of(&ram))
            .arg("--cmdline")
            .arg("console=ttyS0 panic=-1 quiet")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start pinfold run")?;
        let input = child.stdin.take().context("the child has no input")?;
        let output = child.stdout.take().context("the child has no output")?;
        Ok(Self {
            child,
            input,
            lines: read_lines(output),
            tail: VecDeque::new(),
            ram,
            patience: Duration::from_secs(arguments.patience),
        })
    }

    /// Waits for a line that contains `marker` and returns it from there on.
    pub(super) fn wait_for(&mut self, marker: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + self.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.remember(&line);
                    if let Some(at) = line.find(marker) {
                        return Ok(line.get(at..).unwrap_or_default().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.silence(marker, "did not say"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.silence(marker, "ended before it said"));
                }
            }
        }
    }

    /// Types a command and waits for the line that starts with `marker`.
    pub(super) fn command(&mut self, command: &str, marker: &str) -> anyhow::Result<String> {
        self.type_line(command)?;
        self.wait_for(marker)
    }

    /// Types a command that ends the guest, and waits for the VMM to end.
    pub(super) fn end_with(&mut self, command: &str) -> anyhow::Result<ExitStatus> {
        self.type_line(command)?;
        wait(&mut self.child, self.patience)
    }

    /// The file that the guest's RAM is made of.
    pub(super) fn ram(&self) -> &std::fs::File {
        &self.ram
    }

    /// Where another process finds that file.
    pub(super) fn ram_path(&self) -> PathBuf {
        path_of(&self.ram)
    }

    fn type_line(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.input, "{line}").context("the guest's console is closed")
    }

    fn remember(&mut self, line: &str) {
        log::info!("guest console: {line}");
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
    }

    fn silence(&self, marker: &str, what: &str) -> anyhow::Error {
        let tail: Vec<_> = self.tail.iter().map(String::as_str).collect();
        anyhow!(
            "the guest {what} `{marker}`; its last lines:\n    {}",
            tail.join("\n    ")
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // After a failed step the child may still run; after power-off there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program that is running.
pub(super) fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Waits for `child` to end, for at most `patience`; then it is killed.
pub(super) fn wait(child: &mut Child, patience: Duration) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill().ok();
            bail!("it did not end within {} s", patience.as_secs());
        }
        sleep(POLL);
    }
}

fn path_of(file: &std::fs::File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    ))
}

/// Reads lines, which need not be UTF-8, on a thread of its own.
fn read_lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}
