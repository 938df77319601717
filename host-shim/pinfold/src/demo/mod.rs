//! `pinfold demo`: ten steps on the running host, one line of evidence each.
//!
//! A line reads `demo: ok <n> <what>: <evidence>` or `demo: FAIL <n> <what>: <reason>`; the exit
//! status is 0 only if all ten are `ok`. The steps share one protected Linux guest, whose RAM is a
//! memfd of this process (so that other processes can be set on it), and one scratch VM that is
//! made by raw calls. A step that fails does not stop the ones after it, unless they need it.

mod guest;
mod scratch;
mod snapshot;
mod steps;

use std::path::PathBuf;

use anyhow::Context;

use crate::control::Control;
use crate::ending::{ExitStatus, Failure};
use crate::run::parse_size;

/// The arguments of `pinfold demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArguments {
    /// The guest's kernel
    #[arg(long, value_name = "IMAGE", default_value = "/guest/Image")]
    pub kernel: PathBuf,
    /// The guest's initial file system
    #[arg(long, value_name = "FILE", default_value = "/guest/initramfs")]
    pub initrd: PathBuf,
    /// The guest's disk; its first MiB is overwritten
    #[arg(long, value_name = "FILE", default_value = "/guest/disk.img")]
    pub disk: PathBuf,
    /// The guest's RAM
    #[arg(long, value_name = "SIZE", default_value = "128M", value_parser = parse_size)]
    pub mem: u64,
    /// How many seconds the guest may take for any one thing
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub patience: u64,
}

/// Prints the evidence and remembers whether all was well.
#[derive(Debug, Default)]
struct Report {
    failed: u32,
}

impl Report {
    /// Prints one step's line; gives back what the step found out.
    fn step<T>(
        &mut self,
        number: u32,
        what: &str,
        outcome: anyhow::Result<(T, String)>,
    ) -> Option<T> {
        match outcome {
            Ok((value, evidence)) => {
                print_line(&format!("demo: ok {number} {what}: {evidence}"));
                Some(value)
            }
            Err(error) => {
                self.fail(number, what, &format!("{error:#}"));
                None
            }
        }
    }

    fn fail(&mut self, number: u32, what: &str, reason: &str) {
        self.failed += 1;
        print_line(&format!("demo: FAIL {number} {what}: {reason}"));
    }
}

/// Prints a line and waits until it is out: EL2 reports the next step's attacks on the same UART,
/// and would otherwise cut the line in two.
fn print_line(line: &str) {
    println!("{line}");
    // Not a terminal: then nobody else writes there.
    rustix::termios::tcdrain(std::io::stdout()).ok();
}

/// Runs the demonstration.
pub fn run(arguments: &DemoArguments) -> Result<ExitStatus, Failure> {
    for file in [&arguments.kernel, &arguments.initrd, &arguments.disk] {
        std::fs::File::open(file)
            .with_context(|| format!("cannot open {}", file.display()))
            .map_err(|error| Failure::BadInput(format!("{error:#}")))?;
    }
    let control = Control::open()?;
    let mut report = Report::default();
    steps::all(arguments, &control, &mut report)?;
    if report.failed == 0 {
        println!("demo: all steps passed");
        Ok(ExitStatus::Success)
    } else {
        println!("demo: {} steps failed", report.failed);
        Ok(ExitStatus::Failed)
    }
}
