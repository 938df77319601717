//! The command line: [`CommandLine`] is what can be typed, [`main`] what the program does.

use clap::{Parser, Subcommand};
use log::LevelFilter;

use crate::demo::{self, DemoArguments};
use crate::ending::{ExitStatus, Failure};
use crate::hvc::{self, HvcArguments};
use crate::inspect;
use crate::logger::{self, say};
use crate::pages::{self, PageArguments, PagesArguments};
use crate::run::{Plan, RunArguments};
use crate::scenario::{self, ScenarioArguments};
use crate::touch::{self, TouchArguments};
use crate::trace::{self, TraceArguments};

const EXIT_STATUS: &str = "\
Exit status: 0 done, or the guest powered off; 1 the host or the hypervisor said no; 2 wrong arguments or files, nothing
was started; 3 the guest asked for a reset; 4 the guest crashed; 5 stopped from outside (Ctrl-A x, SIGINT, SIGTERM);
6 EL2 is a release image, without the debug calls that this needs.";

/// Pinfold's program for the host.
#[derive(Debug, Parser)]
#[command(name = "pinfold", version, about, after_help = EXIT_STATUS)]
pub struct CommandLine {
    /// Say more (twice: everything)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run a VM; on its console Ctrl-A x stops it
    Run(RunArguments),
    /// Show on this machine that what Pinfold promises holds
    Demo(DemoArguments),
    /// Issue host calls: at a prompt, from the command line, or from a file
    Hvc(HvcArguments),
    /// Run scenarios; prints TAP
    Scenario(ScenarioArguments),
    /// Say who owns frames
    Page(PageArguments),
    /// List all of memory in ranges of equal state
    Pages(PagesArguments),
    /// Show the last calls and exits of each CPU
    Trace(TraceArguments),
    /// Count the frames in each state
    Census,
    /// Show EL2's counters
    Counters,
    /// Show the driver's counters
    Stats,
    /// Read or write a page of a mapped file, to see whether this process may
    Touch(TouchArguments),
}

/// Runs the program and says how it ended.
#[must_use]
pub fn main() -> ExitStatus {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(message) => {
            // Nowhere to print it is no reason to fail differently.
            message.print().ok();
            return if message.use_stderr() {
                ExitStatus::BadInput
            } else {
                ExitStatus::Success
            };
        }
    };
    logger::start(match line.verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Trace,
    });
    perform(line.command).unwrap_or_else(|failure| {
        say(&failure.to_string());
        failure.status()
    })
}

fn perform(command: Command) -> Result<ExitStatus, Failure> {
    match command {
        Command::Run(arguments) => Plan::check(arguments)?.start(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Hvc(arguments) => hvc::run(&arguments),
        Command::Scenario(arguments) => scenario::scenario(&arguments),
        Command::Page(arguments) => pages::page(&arguments),
        Command::Pages(arguments) => pages::pages(&arguments),
        Command::Trace(arguments) => trace::trace(&arguments),
        Command::Census => inspect::census(),
        Command::Counters => inspect::counters(),
        Command::Stats => inspect::stats(),
        Command::Touch(arguments) => touch::touch(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_line_of_the_readme_is_understood() {
        let line = "pinfold run --protected --kernel /guest/Image --initrd /guest/initramfs \
                    --mem 128 --cpus 1 --disk /guest/disk.img";
        let parsed = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
        assert!(matches!(parsed.command, Command::Run(run) if run.mem == 128 << 20));
    }

    #[test]
    fn wrong_values_are_named() {
        for (line, expected) in [
            ("pinfold run --protected", "--kernel"),
            ("pinfold run --kernel x --mem much", "--mem"),
            ("pinfold run --kernel x --console pty", "--console"),
            ("pinfold run --kernel x --backing tape", "--backing"),
            ("pinfold page x", "is not a number"),
            ("pinfold page", "FRAMES"),
            ("pinfold pages --state mine", "GUEST_SHARED_HOST"),
            ("pinfold pages --vm x", "is not a number"),
            ("pinfold trace --cpu x", "is not a number"),
            ("pinfold trace --last x", "--last"),
        ] {
            let error = CommandLine::try_parse_from(line.split_whitespace()).unwrap_err();
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
