//! The prompt: lines with history and completion, by rustyline.

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::session::{Session, Verdict};
use super::{complain, complete, history, line, tell_of_lost, terminal};
use crate::ending::{ExitStatus, Failure};
use crate::logger::say;

/// What completes a line.
struct Words {
    /// The names that have a value.
    names: Vec<String>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let line = line.get(..position).unwrap_or_default();
        Ok(complete::complete(line, &self.names))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

/// Reads lines from a keyboard and does what they ask for, until `quit` or Ctrl-D.
pub(super) fn run(json: bool) -> Result<ExitStatus, Failure> {
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .auto_add_history(true)
        .build();
    let mut editor: Editor<Words, FileHistory> = terminal(Editor::with_config(config))?;
    editor.set_helper(Some(Words { names: Vec::new() }));
    let history = history();
    if let Some(path) = &history {
        // There is none the first time.
        editor.load_history(path).ok();
    }
    let mut session = Session::new(json);
    let ended = greet(&mut session).and_then(|()| talk(&mut editor, &mut session));
    if let Some(path) = &history {
        // A host without a disk keeps none.
        editor.save_history(path).ok();
    }
    ended.map(|()| ExitStatus::Success)
}

fn greet(session: &mut Session) -> Result<(), Failure> {
    match session.control()?.expect_debug_calls() {
        Err(Failure::NoDebugCalls) => say(&Failure::NoDebugCalls.to_string()),
        other => other?,
    }
    println!("`help` lists the calls, Tab completes, Ctrl-D ends.");
    Ok(())
}

fn talk(editor: &mut Editor<Words, FileHistory>, session: &mut Session) -> Result<(), Failure> {
    let mut warned = false;
    loop {
        let line = match editor.readline("pinfold> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => "quit".into(),
            Err(error) => return terminal(Err(error)),
        };
        if obey(session, &line) == Verdict::Leave {
            let stay = session.let_go_of_all()?;
            if stay == 0 || warned {
                tell_of_lost(stay);
                return Ok(());
            }
            say(&format!(
                "EL2 or a guest has {stay} of the pinned pages, which the host loses if you leave; `quit` once more does"
            ));
            warned = true;
        }
        if let Some(words) = editor.helper_mut() {
            words.names = session.names();
        }
    }
}

/// Does what a line asks for, up to the first refusal or mistake.
fn obey(session: &mut Session, line: &str) -> Verdict {
    let actions = match line::parse(line) {
        Ok(actions) => actions,
        Err(error) => {
            say(&error);
            return Verdict::Refused;
        }
    };
    for action in &actions {
        match session.perform(action) {
            Ok(Verdict::Done) => {}
            Ok(verdict) => return verdict,
            Err(failure) => {
                complain(&failure);
                return Verdict::Refused;
            }
        }
    }
    Verdict::Done
}
