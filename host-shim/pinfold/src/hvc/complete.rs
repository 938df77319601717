//! Completion at the prompt: [`complete`], out of the ABI table and the list of verbs.

use super::help::LISTS;
use super::line::{KINDS, call_named, first_words, verb_named};

/// What could stand at the end of `line`: where the word begins, and the words. `names` are those that `$` can be followed by.
pub(super) fn complete(line: &str, names: &[String]) -> (usize, Vec<String>) {
    let command = line.rfind(';').map_or(0, |place| place + 1);
    let text = line.get(command..).unwrap_or_default();
    let word_in_text = text.rfind(char::is_whitespace).map_or(0, |place| place + 1);
    let word = text.get(word_in_text..).unwrap_or_default();
    let mut before = text
        .get(..word_in_text)
        .unwrap_or_default()
        .split_whitespace();
    let begin = command + word_in_text;
    let Some(first) = before.next() else {
        return (begin, beginning_with(word, first_words()));
    };
    if first == "help" {
        let lists = LISTS.iter().map(|(name, _)| (*name).to_owned());
        return (begin, beginning_with(word, first_words().chain(lists)));
    }
    if let Some(dollar) = word.rfind('$') {
        let wanted = word.get(dollar + 1..).unwrap_or_default();
        let names = beginning_with(wanted, names.iter().cloned());
        return (begin + dollar + 1, names);
    }
    if let Some((argument, value)) = word.split_once('=') {
        let values = beginning_with(value, values_of(first, argument).into_iter());
        return (begin + argument.len() + 1, values);
    }
    let given: Vec<&str> = before
        .filter_map(|word| word.split_once('='))
        .map(|(name, _)| name)
        .collect();
    let arguments = arguments_of(first)
        .into_iter()
        .filter(|name| !given.contains(name))
        .filter(|name| name.starts_with(word))
        .map(|name| format!("{name}="));
    (begin, arguments.collect())
}

/// The words that begin so, each with a blank behind it.
fn beginning_with(start: &str, words: impl Iterator<Item = String>) -> Vec<String> {
    words
        .filter(|word| word.starts_with(&start.to_ascii_lowercase()))
        .map(|word| format!("{word} "))
        .collect()
}

fn arguments_of(first: &str) -> Vec<&'static str> {
    let of_call = call_named(first).map(|info| {
        let names = info.arguments.iter().map(|field| field.name);
        names.collect()
    });
    let of_verb = || {
        let verb = verb_named(first)?;
        Some(verb.parameters.iter().map(|known| known.name).collect())
    };
    of_call.or_else(of_verb).unwrap_or_default()
}

fn values_of(first: &str, argument: &str) -> Vec<String> {
    if (first, argument) == ("pin", "kind") {
        return KINDS.map(|(name, _)| name.to_owned()).into();
    }
    let fields = call_named(first).map_or([].as_slice(), |info| info.arguments);
    let field = fields.iter().find(|field| field.name == argument);
    let names = field.map_or([].as_slice(), |field| field.names());
    names
        .iter()
        .map(|info| info.name.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> (usize, Vec<String>) {
        complete(line, &["handle".into(), "pfn".into(), "pin".into()])
    }

    #[test]
    fn calls_and_verbs_complete() {
        assert_eq!(completed("mem_d"), (0, vec!["mem_donate ".into()]));
        assert_eq!(
            completed("version; vm_te"),
            (
                9,
                vec!["vm_teardown_begin ".into(), "vm_teardown_finish ".into()]
            )
        );
        assert_eq!(completed("MEM_R").1, ["mem_reclaim "]);
        assert_eq!(completed("help sta").1, ["statuses ", "states "]);
        assert_eq!(completed("help irq").1, ["irq_line "]);
        assert!(completed("").1.len() > 30);
    }

    #[test]
    fn arguments_complete_once() {
        assert_eq!(completed("mem_donate vm=1 p"), (16, vec!["pfn=".into()]));
        assert_eq!(
            completed("mem_donate vm=1 ").1,
            ["gfn=", "pfn=", "count=", "order="]
        );
        assert_eq!(completed("pin kind=iso"), (9, vec!["isolated ".into()]));
        assert_eq!(
            completed("counter counter=host"),
            (16, vec!["host_aborts ".into()])
        );
        assert!(completed("xyzzy a").1.is_empty());
    }

    #[test]
    fn names_complete() {
        assert_eq!(completed("vm_start vm=$h"), (13, vec!["handle ".into()]));
        assert_eq!(completed("page $p").1, ["pfn ", "pin "]);
    }
}
