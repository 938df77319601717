//! What is typed, read: a line becomes [`Action`]s, or one sentence says what is wrong with it.
//!
//! Calls and their arguments are those of the ABI table; [`VERBS`] are what the prompt adds around them. Nothing is done here, so
//! that a whole file is read before the first call of it is issued.

use pinfold_abi::HostCall;
use pinfold_abi::describe::{CallInfo, ValueInfo};

use super::help;
use crate::control::PinKind;
use crate::inspect::parse_number;

/// A number, or the name of one that is known later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `0x40`.
    Number(u64),
    /// `$handle`.
    Variable(String),
}

/// What a line asks for.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// A call of the table.
    Call {
        info: &'static CallInfo,
        arguments: Vec<Word>,
    },
    /// x0 onwards as they stand.
    Raw(Vec<Word>),
    /// Pages to hold.
    Pin {
        kind: PinKind,
        count: Word,
        order: Word,
        extra: Word,
    },
    /// A pin to let go of, by its number or its PFN; all of them if there is none.
    Unpin(Option<Word>),
    /// Show what is pinned.
    Pins,
    /// Pages for EL2's pool.
    Lend { count: Word },
    /// Say who owns a frame.
    Page(Word),
    /// Show the trace.
    Trace { last: Word },
    /// Name a number.
    Set { name: String, value: Word },
    /// Show the names.
    Names,
    /// Explain.
    Help(Option<String>),
    /// Leave.
    Quit,
}

/// Something that can be typed besides calls.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) parameters: &'static [Parameter],
    pub(super) text: &'static str,
}

/// An argument of a verb.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// What it is if it is left out; nothing if it must not be.
    pub(super) default: Option<&'static str>,
}

const fn parameter(name: &'static str, default: Option<&'static str>) -> Parameter {
    Parameter { name, default }
}

/// Everything that can be typed besides calls.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "pin",
        parameters: &[
            parameter("kind", Some("isolated")),
            parameter("count", Some("1")),
            parameter("order", Some("0")),
            parameter("extra", Some("0")),
        ],
        text: "holds pages of this process: kind none (a reference), ordinary, exclusive or isolated (what a donation asks for); \
               order 0 or 9; extra ordinary pins on top. Sets $pfn and $pin",
    },
    Verb {
        name: "unpin",
        parameters: &[parameter("pin", Some("all"))],
        text: "lets go of a page, by the number of its pin or by its PFN; refused while EL2 or a guest has it",
    },
    Verb {
        name: "pins",
        parameters: &[],
        text: "lists the pages that are held, with their pin words as they were taken",
    },
    Verb {
        name: "lend",
        parameters: &[parameter("count", Some("16"))],
        text: "pins pages and gives them to EL2's pool, for when a call answers NO_MEMORY",
    },
    Verb {
        name: "page",
        parameters: &[parameter("pfn", None)],
        text: "says who owns a frame, as `pinfold page` does",
    },
    Verb {
        name: "trace",
        parameters: &[parameter("last", Some("20"))],
        text: "shows the last calls and exits of all CPUs, as `pinfold trace` does",
    },
    Verb {
        name: "raw",
        parameters: &[],
        text: "issues an HVC with x0 to x7 as given and shows all eight afterwards",
    },
    Verb {
        name: "set",
        parameters: &[parameter("name", None), parameter("value", None)],
        text: "names a number: `set first $handle`, then `vm_start vm=$first`",
    },
    Verb {
        name: "names",
        parameters: &[],
        text: "lists the names that there are; every result of a call sets one, such as $handle",
    },
    Verb {
        name: "help",
        parameters: &[parameter("about", Some(""))],
        text: "explains: a call, a verb, or statuses, exits, states, counters",
    },
    Verb {
        name: "quit",
        parameters: &[],
        text: "leaves, and lets go of all pages (Ctrl-D)",
    },
];

/// The kinds of pin by name.
pub(super) const KINDS: [(&str, PinKind); 4] = [
    ("none", PinKind::None),
    ("ordinary", PinKind::Ordinary),
    ("exclusive", PinKind::Exclusive),
    ("isolated", PinKind::Isolated),
];

/// The call with this name, in capitals or not.
pub(super) fn call_named(name: &str) -> Option<&'static CallInfo> {
    let wanted = name.to_ascii_uppercase().replace('-', "_");
    HostCall::TABLE.iter().find(|info| info.name == wanted)
}

/// The verb with this name.
pub(super) fn verb_named(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// Reads lines: actions end at a `;` or at the end of a line, `#` begins a comment.
pub(super) fn parse(text: &str) -> Result<Vec<Action>, String> {
    let mut actions = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split('#').next().unwrap_or_default();
        for command in code.split(';') {
            let words: Vec<&str> = command.split_whitespace().collect();
            let Some((first, rest)) = words.split_first() else {
                continue;
            };
            let action = action(first, rest).map_err(|error| {
                if text.lines().nth(1).is_some() {
                    format!("line {number}: {error}")
                } else {
                    error
                }
            })?;
            actions.push(action);
        }
    }
    Ok(actions)
}

fn action(first: &str, rest: &[&str]) -> Result<Action, String> {
    if let Some(info) = call_named(first) {
        let names: Vec<_> = info.arguments.iter().map(|field| field.name).collect();
        let texts = bind(&info.name.to_ascii_lowercase(), &names, rest)?;
        let missing: Vec<_> = names
            .iter()
            .zip(&texts)
            .filter(|(_, text)| text.is_none())
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            let name = info.name.to_ascii_lowercase();
            return Err(format!("{name} lacks {}", missing.join(" ")));
        }
        let arguments = info
            .arguments
            .iter()
            .zip(texts.into_iter().flatten())
            .map(|(field, text)| word(field.name, &text, field.names()))
            .collect::<Result<_, _>>()?;
        return Ok(Action::Call { info, arguments });
    }
    match verb_named(first) {
        Some(verb) if verb.name == "raw" => raw(rest),
        Some(verb) => verb_action(verb, rest),
        None => Err(unknown(first)),
    }
}

fn raw(rest: &[&str]) -> Result<Action, String> {
    match rest.len() {
        0 => return Err("raw lacks x0".into()),
        1..=8 => {}
        more => return Err(format!("raw takes x0 to x7, not {more} words")),
    }
    let words = rest.iter().zip(0..);
    let words = words.map(|(text, register)| word(&format!("x{register}"), text, &[]));
    words.collect::<Result<_, _>>().map(Action::Raw)
}

fn verb_action(verb: &Verb, rest: &[&str]) -> Result<Action, String> {
    let names: Vec<_> = verb.parameters.iter().map(|known| known.name).collect();
    let mut texts = Vec::new();
    for (parameter, text) in verb.parameters.iter().zip(bind(verb.name, &names, rest)?) {
        let text = text.or_else(|| parameter.default.map(str::to_owned));
        texts.push(text.ok_or_else(|| format!("{} lacks {}", verb.name, parameter.name))?);
    }
    let number = |index: usize| {
        let name = names.get(index).copied().unwrap_or_default();
        let text = texts.get(index).map_or("", String::as_str);
        word(name, text, &[])
    };
    let text = |index: usize| texts.get(index).cloned().unwrap_or_default();
    Ok(match verb.name {
        "pin" => Action::Pin {
            kind: kind(&text(0))?,
            count: number(1)?,
            order: number(2)?,
            extra: number(3)?,
        },
        "unpin" if text(0) == "all" => Action::Unpin(None),
        "unpin" => Action::Unpin(Some(number(0)?)),
        "pins" => Action::Pins,
        "lend" => Action::Lend { count: number(0)? },
        "page" => Action::Page(number(0)?),
        "trace" => Action::Trace { last: number(0)? },
        "set" => Action::Set {
            name: variable_name(&text(0))?,
            value: number(1)?,
        },
        "names" => Action::Names,
        "help" => {
            let about = Some(text(0)).filter(|about| !about.is_empty());
            help::text(about.as_deref())?;
            Action::Help(about)
        }
        _ => Action::Quit,
    })
}

/// Gives each name its text: `name=text` anywhere, plain texts in the order of the names and before those.
fn bind(of: &str, names: &[&str], rest: &[&str]) -> Result<Vec<Option<String>>, String> {
    let takes = || {
        if names.is_empty() {
            format!("{of} takes no arguments")
        } else {
            format!("{of} takes {}", names.join(" "))
        }
    };
    let mut bound: Vec<Option<String>> = vec![None; names.len()];
    let mut by_name = false;
    for (position, word) in rest.iter().enumerate() {
        let (place, text) = match word.split_once('=') {
            Some((name, text)) => {
                by_name = true;
                let place = names.iter().position(|known| *known == name);
                let place = place.ok_or_else(|| format!("`{name}` is no argument: {}", takes()))?;
                (place, text)
            }
            None if by_name => {
                return Err(format!(
                    "`{word}` follows an argument with a name, and has none"
                ));
            }
            None => (position, *word),
        };
        let Some(slot) = bound.get_mut(place) else {
            return Err(format!("`{word}` is one argument too many: {}", takes()));
        };
        if slot.replace(text.to_owned()).is_some() {
            let name = names.get(place).copied().unwrap_or_default();
            return Err(format!("`{name}` is given twice"));
        }
    }
    Ok(bound)
}

/// Reads a number, one of `names`, or `$name`.
fn word(argument: &str, text: &str, names: &[ValueInfo]) -> Result<Word, String> {
    if let Some(name) = text.strip_prefix('$') {
        return variable_name(name).map(Word::Variable);
    }
    let wanted = text.to_ascii_uppercase().replace('-', "_");
    if let Some(info) = names.iter().find(|info| info.name == wanted) {
        return Ok(Word::Number(info.number));
    }
    parse_number(text)
        .map(Word::Number)
        .map_err(|error| format!("{argument}: {error}"))
}

fn variable_name(text: &str) -> Result<String, String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if text.is_empty() || !text.chars().all(is_word) {
        return Err(format!(
            "`{text}` is no name: letters, digits and _ make one"
        ));
    }
    Ok(text.to_owned())
}

fn kind(text: &str) -> Result<PinKind, String> {
    let known = KINDS.iter().find(|(name, _)| *name == text);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        let names = KINDS.map(|(name, _)| name).join(" ");
        format!("kind: `{text}` is none of {names}")
    })
}

/// Everything that a command can begin with.
pub(super) fn first_words() -> impl Iterator<Item = String> {
    let calls = HostCall::TABLE
        .iter()
        .map(|info| info.name.to_ascii_lowercase());
    calls.chain(VERBS.iter().map(|verb| verb.name.to_owned()))
}

fn unknown(name: &str) -> String {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    let nearest = first_words()
        .map(|known| (distance(&wanted, &known), known))
        .min();
    let hint = match nearest {
        Some((0..=3, known)) => format!("; did you mean `{known}`?"),
        _ => "; `help` lists them".into(),
    };
    format!("there is no call or verb `{name}`{hint}")
}

/// Levenshtein's distance: how many letters to insert, remove or replace.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, left) in from.chars().zip(1..) {
        let mut diagonal = std::mem::replace(row.first_mut().unwrap_or(&mut 0), left);
        let mut last = left;
        for (letter, cell) in to.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(letter != above);
            diagonal = *cell;
            *cell = replaced.min(last + 1).min(*cell + 1);
            last = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<Word> {
        match parse(line).unwrap().pop().unwrap() {
            Action::Call { arguments, .. } | Action::Raw(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn numbers(words: &[u64]) -> Vec<Word> {
        words.iter().copied().map(Word::Number).collect()
    }

    #[test]
    fn arguments_have_names_or_places() {
        let expected = numbers(&[1, 0x40000, 0x5000, 1, 0]);
        for line in [
            "mem_donate vm=1 gfn=0x40000 pfn=0x5000 count=1 order=0",
            "mem_donate 1 0x40000 0x5000 1 0",
            "MEM-DONATE 1 0x4_0000 order=0 count=1 pfn=0x5000 # all of them",
        ] {
            assert_eq!(arguments(line), expected, "{line}");
        }
        assert_eq!(arguments("raw 1 0xff"), numbers(&[1, 255]));
        assert_eq!(arguments("counter decoys"), numbers(&[6]));
        assert_eq!(
            arguments("vm_start vm=$handle"),
            [Word::Variable("handle".into())]
        );
    }

    #[test]
    fn every_call_is_understood() {
        for info in HostCall::TABLE {
            let words: Vec<_> = info
                .arguments
                .iter()
                .map(|field| format!("{}=1", field.name))
                .collect();
            let line = format!("{} {}", info.name.to_ascii_lowercase(), words.join(" "));
            assert_eq!(arguments(&line), numbers(&vec![1; words.len()]), "{line}");
            assert!(verb_named(&info.name.to_ascii_lowercase()).is_none());
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("mem_donate 1 2 3", "mem_donate lacks count order"),
            (
                "mem_donate 1 2 3 4 5 6",
                "`6` is one argument too many: mem_donate takes vm gfn pfn count order",
            ),
            ("mem_donate vm=1 vm=2", "`vm` is given twice"),
            ("mem_donate 1 vm=2", "`vm` is given twice"),
            ("mem_donate vm=1 2", "`2` follows an argument with a name"),
            (
                "mem_donate page=1",
                "`page` is no argument: mem_donate takes vm gfn",
            ),
            ("version 1", "version takes no arguments"),
            ("vm_start vm=one", "vm: `one` is not a number"),
            ("vm_start vm=", "vm: `` is not a number"),
            ("vm_start vm=-1", "vm: `-1` is not a number"),
            ("vm_start vm=0x1ffffffffffffffff", "not a number of 64 bits"),
            ("vm_start $", "`` is no name"),
            ("counter counter=luck", "counter: `luck` is not a number"),
            (
                "mem_donat 1",
                "no call or verb `mem_donat`; did you mean `mem_donate`?",
            ),
            ("xyzzy", "no call or verb `xyzzy`; `help` lists them"),
            ("raw", "raw lacks x0"),
            ("raw 1 2 3 4 5 6 7 8 9", "raw takes x0 to x7, not 9"),
            ("pin kind=glue", "kind: `glue` is none of none ordinary"),
            ("page", "page lacks pfn"),
            ("help everything", "no help about `everything`"),
            ("set a", "set lacks value"),
            ("set a-b 1", "`a-b` is no name"),
            ("version\npools", "line 2: there is no call or verb `pools`"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn several_on_a_line_and_none() {
        assert_eq!(
            parse("version; pins ;\n\n# nothing\nquit").unwrap().len(),
            3
        );
        assert!(parse(" ; ;; # x").unwrap().is_empty());
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn verbs_have_defaults() {
        let Some(Action::Pin {
            kind,
            count,
            order,
            extra,
        }) = parse("pin count=3").unwrap().pop()
        else {
            panic!("not a pin");
        };
        assert_eq!(kind, PinKind::Isolated);
        assert_eq!([count, order, extra], [3, 0, 0].map(Word::Number));
        assert!(matches!(parse("unpin").unwrap()[..], [Action::Unpin(None)]));
        assert!(matches!(parse("help").unwrap()[..], [Action::Help(None)]));
        for verb in VERBS {
            let words = if verb.name == "raw" { "1" } else { "" };
            let needed: Vec<_> = verb
                .parameters
                .iter()
                .filter(|parameter| parameter.default.is_none())
                .map(|parameter| format!("{}=1", parameter.name))
                .collect();
            let line = format!("{} {words} {}", verb.name, needed.join(" "));
            assert!(parse(&line).is_ok(), "{line}");
        }
    }

    #[test]
    fn distances_count_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
