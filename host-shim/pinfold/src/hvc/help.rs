//! `help`: what there is to type, out of the ABI table and the list of verbs.

use std::fmt::Write;

use pinfold_abi::describe::{CallInfo, FieldInfo, ValueInfo};
use pinfold_abi::{Counter, ExitReason, HostCall, State, Status};

use super::line::{VERBS, Verb, call_named, verb_named};

/// Lists of the table that are explained by their names.
pub(super) const LISTS: [(&str, &[ValueInfo]); 4] = [
    ("statuses", Status::TABLE),
    ("exits", ExitReason::TABLE),
    ("states", State::TABLE),
    ("counters", Counter::TABLE),
];

/// What `help` and `help ABOUT` print; nothing if there is no such thing.
pub(super) fn text(about: Option<&str>) -> Result<String, String> {
    let Some(about) = about else {
        return Ok(overview());
    };
    if let Some(info) = call_named(about) {
        return Ok(call(info));
    }
    if let Some(known) = verb_named(about) {
        return Ok(verb(known));
    }
    let list = LISTS.iter().find(|(name, _)| *name == about);
    list.map(|(_, values)| list_of(values)).ok_or_else(|| {
        let names = LISTS.map(|(name, _)| name).join(", ");
        format!("there is no help about `{about}`: name a call or a verb, or one of {names}")
    })
}

fn names(fields: &[FieldInfo]) -> String {
    fields.iter().fold(String::new(), |mut text, field| {
        // A string takes all.
        write!(text, " {}", field.name).unwrap_or_default();
        text
    })
}

fn overview() -> String {
    let mut text = String::from("Calls, by name with arguments in this order, or as NAME=VALUE:\n");
    for info in HostCall::TABLE {
        let usage = format!(
            "{}{}",
            info.name.to_ascii_lowercase(),
            names(info.arguments)
        );
        let first = info.text.trim().split(['.', ':', ';']).next();
        let first = first.unwrap_or_default();
        writeln!(text, "  {usage:42} {first}").unwrap_or_default();
    }
    text.push_str("Besides:\n");
    for verb in VERBS {
        let usage = usage(verb);
        if usage.len() > 42 {
            writeln!(text, "  {usage}\n  {:42} {}", "", verb.text).unwrap_or_default();
        } else {
            writeln!(text, "  {usage:42} {}", verb.text).unwrap_or_default();
        }
    }
    text.push_str(
        "Numbers are decimal or 0x...; $NAME is the last result of that name; `;` and lines separate, # comments.\n\
         `help CALL` has arguments and results; `help statuses` (exits, states, counters) what numbers mean.",
    );
    text
}

fn usage(verb: &Verb) -> String {
    if verb.name == "raw" {
        return "raw X0 [X1 ... X7]".into();
    }
    verb.parameters
        .iter()
        .fold(verb.name.to_owned(), |text, parameter| {
            match parameter.default {
                Some("") => format!("{text} [{}]", parameter.name.to_uppercase()),
                Some(default) => format!("{text} [{}={default}]", parameter.name),
                None => format!("{text} {}", parameter.name.to_uppercase()),
            }
        })
}

fn verb(verb: &Verb) -> String {
    format!("{}\n  {}", usage(verb), verb.text)
}

fn call(info: &CallInfo) -> String {
    let debug = if info.debug {
        ", and not in a release image of EL2"
    } else {
        ""
    };
    let mut text = format!(
        "{}{}\n  {}\n  when: {}{debug}; x0 = {:#x}",
        info.name.to_ascii_lowercase(),
        names(info.arguments),
        info.text.trim(),
        info.phase,
        pinfold_abi::FUNCTION_BASE + info.number
    );
    for (way, first, fields) in [("in ", 1, info.arguments), ("out", 2, info.results)] {
        for (field, register) in fields.iter().zip(first..) {
            let (name, unit, meaning) = (field.name, field.unit, field.text.trim());
            write!(text, "\n  {way} x{register} {name} ({unit}): {meaning}").unwrap_or_default();
        }
    }
    text
}

fn list_of(values: &[ValueInfo]) -> String {
    let lines = values.iter().map(|value| {
        let errno = if value.errno.is_empty() {
            String::new()
        } else {
            format!(" ({})", value.errno)
        };
        let (number, name, text) = (value.number, value.name, value.text.trim());
        format!("{number:3} {name}{errno}: {text}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_has_everything() {
        let text = text(None).unwrap();
        for info in HostCall::TABLE {
            assert!(text.contains(&info.name.to_ascii_lowercase()));
        }
        for verb in VERBS {
            assert!(text.contains(verb.text));
        }
    }

    #[test]
    fn every_call_is_explained_by_the_table() {
        for info in HostCall::TABLE {
            let text = text(Some(info.name)).unwrap();
            assert!(text.contains(info.text.trim()));
            for field in info.arguments.iter().chain(info.results) {
                assert!(text.contains(&format!("{} ({}): ", field.name, field.unit)));
            }
        }
        assert!(
            text(Some("mem-donate"))
                .unwrap()
                .contains("in  x5 order (order): 0 to 9")
        );
        assert!(
            text(Some("pages"))
                .unwrap_err()
                .contains("no help about `pages`")
        );
    }

    #[test]
    fn lists_are_explained() {
        assert!(
            text(Some("statuses"))
                .unwrap()
                .contains("9 NOT_EXCLUSIVELY_PINNED (EBUSY): ")
        );
        assert!(
            text(Some("states"))
                .unwrap()
                .starts_with("  0 HOST: The host alone.")
        );
        assert!(
            text(Some("pin"))
                .unwrap()
                .starts_with("pin [kind=isolated] [count=1]")
        );
    }
}
