//! `pinfold hvc`: issue any call of the ABI table, at a prompt, from the command line, or from a file.
//!
//! What can be typed is read by [`mod@line`], done by [`session`], explained by `help` and completed by the Tab
//! key; calls, arguments, statuses and their texts come from the table in `pinfold-abi` and stand nowhere else.
//! Invariant: input that is not from a keyboard is read whole before anything of it is done.

mod complete;
mod help;
mod line;
mod prompt;
mod session;

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::session::{Session, Verdict};
use crate::ending::{ExitStatus, Failure};
use crate::logger::say;

/// The arguments of `pinfold hvc`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "`pinfold hvc help` lists the calls and what else can be typed. \
Exit status: 0 all calls were done; 1 one was refused; 2 a line is not understood, and none was issued; \
6 EL2 is a release image, and a debug call was asked for."
)]
pub struct HvcArguments {
    /// Calls, separated by `;`; without any there is a prompt
    #[arg(trailing_var_arg = true, value_name = "CALL")]
    pub calls: Vec<String>,
    /// Read calls from a file, `-` for standard input
    #[arg(short, long, conflicts_with = "calls", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Go on after a refused call
    #[arg(short, long)]
    pub keep_going: bool,
    /// Print JSON, one object for each call
    #[arg(long)]
    pub json: bool,
}

/// Does what the arguments ask for.
pub fn run(arguments: &HvcArguments) -> Result<ExitStatus, Failure> {
    let text = match &arguments.file {
        Some(path) => contents(path)?,
        None if !arguments.calls.is_empty() => arguments.calls.join(" "),
        None if std::io::stdin().is_terminal() => return prompt::run(arguments.json),
        None => contents(Path::new("-"))?,
    };
    let mut session = Session::new(arguments.json);
    let ended = perform_all(&mut session, &text, arguments.keep_going);
    // Also after an error, what can be let go is let go.
    let stay = session.let_go_of_all();
    let status = ended?.status();
    tell_of_lost(stay?);
    Ok(status)
}

fn contents(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::BadInput(format!(
            "cannot read {}: {error}",
            path.display()
        ))),
    }
}

fn perform_all(session: &mut Session, text: &str, keep_going: bool) -> Result<Verdict, Failure> {
    let actions = line::parse(text).map_err(Failure::BadInput)?;
    let mut worst = Verdict::Done;
    for action in &actions {
        match session.perform(action)? {
            Verdict::Done => {}
            Verdict::Leave => break,
            verdict @ (Verdict::Refused | Verdict::NoDebugCalls) => worst = verdict,
        }
        if worst != Verdict::Done && !keep_going {
            break;
        }
    }
    Ok(worst)
}

fn tell_of_lost(pages: u64) {
    if pages != 0 {
        say(&format!(
            "EL2 or a guest has {pages} of the pinned pages; the host has lost them until it boots again"
        ));
    }
}

/// Says a failure of one line.
fn complain(failure: &Failure) {
    say(&failure.to_string());
}

/// The place of the history.
fn history() -> Option<PathBuf> {
    let own = std::env::var_os("PINFOLD_HISTORY").map(PathBuf::from);
    own.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pinfold_history")))
}

/// Puts what the library says of the terminal into our words.
fn terminal<T>(result: rustyline::Result<T>) -> Result<T, Failure> {
    Ok(result.context("the terminal fails")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_before_it_is_done() {
        let mut session = Session::new(false);
        let error = perform_all(&mut session, "version\nmem_donate 1\n", false).unwrap_err();
        assert_eq!(error.status(), ExitStatus::BadInput);
        assert_eq!(
            error.to_string(),
            "line 2: mem_donate lacks gfn pfn count order"
        );
    }

    #[test]
    fn a_script_ends_where_it_says() {
        let mut session = Session::new(false);
        let ended = perform_all(&mut session, "set a 1; quit; vm_start $b", false);
        assert_eq!(ended.unwrap(), Verdict::Done);
        assert_eq!(session.names(), ["a"]);
        let error = contents(Path::new("/nope")).unwrap_err();
        assert!(error.to_string().contains("cannot read /nope"));
    }
}
