//! What EL2 answers, in words and as JSON, by the ABI table: for the prompt and for the trace.

use std::fmt::Write;

use pinfold_abi::Status;
use pinfold_abi::describe::{CallInfo, FieldInfo};
use pinfold_abi::show::{Answer, FolioText, Outcome, PinText, Value, call_of, entry_of};

use crate::json::Json;

/// A field's value with what it means, for people.
fn meaning(field: &FieldInfo, value: u64) -> String {
    if let Some(named) = entry_of(field.names(), value) {
        return format!("{} ({value}): {}", named.name, named.text.trim());
    }
    let shown = Value { field, value };
    match field.unit {
        "folio word" => format!("{shown}: {}", FolioText(value)),
        "pin word" => format!("{shown}: {}", PinText(value)),
        unit if value > 9 && !shown.to_string().starts_with("0x") && value != u64::MAX => {
            format!("{shown} = {value:#x} {unit}: {}", field.text.trim())
        }
        unit => format!("{shown} {unit}: {}", field.text.trim()),
    }
}

fn status_line(status: Status) -> String {
    match entry_of(Status::TABLE, status.number()) {
        Some(info) if status == Status::Ok => info.name.to_owned(),
        Some(info) => format!("{} ({}): {}", info.name, info.errno, info.text.trim()),
        None => status.name().to_owned(),
    }
}

/// An answer in words, over several lines.
pub(crate) fn answer(call: Option<&CallInfo>, x: [u64; 8]) -> String {
    let answer = Answer { call, x };
    let [_, _, results @ ..] = x;
    let [index, folio_word, pin_word, ..] = results;
    let mut text = String::new();
    // A string takes all.
    let mut line = |line: String| writeln!(text, "{line}").unwrap_or_default();
    match answer.outcome() {
        Outcome::NotSupported if call.is_some_and(|info| info.debug) => {
            line("NOT_SUPPORTED: EL2 is a release image, without debug calls".into());
        }
        Outcome::NotSupported => line("NOT_SUPPORTED: there is no such call".into()),
        Outcome::Foreign => line(answer.to_string()),
        Outcome::Unknown(status) => {
            line(format!("status {status}, which this program does not know"));
        }
        Outcome::Results(status) => {
            line(status_line(status));
            for (field, value) in call
                .map_or([].as_slice(), |info| info.results)
                .iter()
                .zip(results)
            {
                line(format!("  {} = {}", field.name, meaning(field, value)));
            }
        }
        Outcome::RefusedAt(status) => {
            line(status_line(status));
            line(format!("  page {index} of the call's range"));
            line(format!(
                "  folio word {folio_word:#x}: {}",
                FolioText(folio_word)
            ));
            if answer.read_pin_word() {
                line(format!("  pin word {pin_word:#x}: {}", PinText(pin_word)));
            }
        }
        Outcome::Refused(status) => {
            line(status_line(status));
            if let Some(info) = call.filter(|info| index != 0 && info.text.contains(status.name()))
            {
                line(format!("  x2 = {index}: {}", info.text.trim()));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// A field's value as JSON: a name, a number, or a string of hexadecimal digits.
fn field_json(field: &FieldInfo, value: u64) -> Json {
    let shown = Value { field, value };
    if entry_of(field.names(), value).is_some() {
        return Json::text(shown);
    }
    if shown.to_string().starts_with("0x") {
        Json::Hex(value)
    } else {
        Json::Number(value)
    }
}

fn fields_json(fields: &'static [FieldInfo], values: &[u64]) -> Json {
    let fields = fields.iter().zip(values);
    Json::Object(
        fields
            .map(|(field, value)| (field.name, field_json(field, *value)))
            .collect(),
    )
}

/// A call and, if it has one, its answer.
pub(crate) fn call_json(before: [u64; 8], after: Option<[u64; 8]>) -> Vec<(&'static str, Json)> {
    let [function, arguments @ ..] = before;
    let call = call_of(function);
    let mut fields = match call {
        Some(info) => vec![
            ("call", Json::text(info.name)),
            ("arguments", fields_json(info.arguments, &arguments)),
        ],
        None => vec![
            ("call", Json::Hex(function)),
            ("arguments", Json::List(arguments.map(Json::Hex).into())),
        ],
    };
    let Some(x) = after else {
        return fields;
    };
    let [_, _, results @ ..] = x;
    let [index, folio_word, pin_word, ..] = results;
    let answer = Answer { call, x };
    match answer.outcome() {
        Outcome::NotSupported => fields.push(("status", Json::text("NOT_SUPPORTED"))),
        Outcome::Foreign => fields.push(("answer", Json::List(x.map(Json::Hex).into()))),
        Outcome::Unknown(status) => fields.push(("status", Json::Number(status))),
        Outcome::Results(status) => {
            fields.push(("status", Json::text(status.name())));
            if let Some(info) = call {
                fields.push(("results", fields_json(info.results, &results)));
            }
        }
        Outcome::RefusedAt(status) => {
            fields.extend([
                ("status", Json::text(status.name())),
                ("page", Json::Number(index)),
                ("folio_word", Json::Hex(folio_word)),
                ("folio", Json::text(FolioText(folio_word))),
            ]);
            if answer.read_pin_word() {
                fields.push(("pin_word", Json::Hex(pin_word)));
                fields.push(("pin", Json::text(PinText(pin_word))));
            }
        }
        Outcome::Refused(status) => {
            fields.push(("status", Json::text(status.name())));
            fields.push(("x2", Json::Number(index)));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use pinfold_abi::FUNCTION_BASE;

    use super::*;

    fn info(number: u64) -> Option<&'static CallInfo> {
        call_of(FUNCTION_BASE + number)
    }

    #[test]
    fn results_go_by_the_table() {
        assert_eq!(
            answer(info(0x20), [0, 0, 16, 9, 9, 9, 9, 9]),
            "OK\n  taken = 16 = 0x10 frames: frames taken"
        );
        let text = answer(info(0x60), [0, 0, 3, 3, 0, 0x101, 0x40000, 0xC000_0001]);
        assert!(text.contains("state = GUEST (3): One VM alone."), "{text}");
        assert!(text.contains("vm = 0x101 VM handle"), "{text}");
        assert!(
            text.contains("pin = 0xc0000001: 1 pin, exclusive, isolated"),
            "{text}"
        );
        assert_eq!(answer(info(0x33), [0; 8]), "OK");
    }

    #[test]
    fn refusals_say_where_and_why() {
        let text = answer(info(0x40), [0, 9, 2, 0, 1, 0, 0, 0]);
        assert_eq!(
            text,
            "NOT_EXCLUSIVELY_PINNED (EBUSY): The pin word is not that of one exclusive pin of an isolated folio of this order.\n  \
             page 2 of the call's range\n  \
             folio word 0x0: HOST, order 0\n  \
             pin word 0x1: 1 pin"
        );
        let text = answer(info(0x40), [0, 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(text, "INVALID (EINVAL): An argument is malformed.");
        let text = answer(info(0x35), [0, 2, 6, 0, 0, 0, 0, 0]);
        assert!(text.contains("x2 = 6: Ends the teardown"), "{text}");
        assert!(answer(info(0x41), [0, 7, 5, 0, 0, 0, 0, 0]).contains("done = 5 frames"));
    }

    #[test]
    fn what_is_not_there_is_no_success() {
        assert_eq!(
            answer(info(0x61), [u64::MAX; 8]),
            "NOT_SUPPORTED: EL2 is a release image, without debug calls"
        );
        assert!(answer(None, [u64::MAX; 8]).contains("no such call"));
        assert!(answer(info(0), [0, 77, 0, 0, 0, 0, 0, 0]).contains("status 77"));
    }

    #[test]
    fn calls_are_objects() {
        let before = [FUNCTION_BASE + 0x40, 0x101, 0x40000, 0x5000, 1, 0, 0, 0];
        assert_eq!(
            Json::Object(call_json(before, Some([0, 9, 0, 0, 2, 0, 0, 0]))).to_string(),
            r#"{"call":"MEM_DONATE","arguments":{"vm":"0x101","gfn":"0x40000","pfn":"0x5000","count":1,"order":0},"#
                .to_owned()
                + r#""status":"NOT_EXCLUSIVELY_PINNED","page":0,"folio_word":"0x0","folio":"HOST, order 0","pin_word":"0x2","pin":"2 pins"}"#
        );
        let unknown = Json::Object(call_json([1, 2, 0, 0, 0, 0, 0, 0], None)).to_string();
        assert!(
            unknown.starts_with(r#"{"call":"0x1","arguments":["0x2","#),
            "{unknown}"
        );
    }
}
