//! Several scenarios in one text, as machines get them: each behind a line `=== name`.

use alloc::format;
use alloc::string::String;

/// What begins a scenario.
const MARK: &str = "=== ";

/// A scenario to be put behind others.
#[must_use]
pub fn entry(name: &str, text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{MARK}{name}\n{text}{end}")
}

/// The scenarios of a bundle, by name. A text without a first mark is none.
pub fn entries(bundle: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
    let marks = bundle
        .match_indices(MARK)
        .filter(|(place, _)| is_line(bundle, *place));
    marks.map(|(place, _)| {
        let text = bundle.get(place + MARK.len()..).unwrap_or_default();
        let end = text
            .match_indices(MARK)
            .find(|(end, _)| is_line(text, *end))
            .map_or(text.len(), |(end, _)| end);
        let text = text.get(..end).unwrap_or_default();
        text.split_once('\n').unwrap_or((text, ""))
    })
}

/// Whether a line begins there.
fn is_line(text: &str, place: usize) -> bool {
    place == 0 && text.starts_with(MARK)
        || place
            .checked_sub(1)
            .and_then(|before| text.as_bytes().get(before))
            == Some(&b'\n')
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let bundle = entry("a/b", "# A === b.\nversion\n") + &entry("c", "# C.\nversion");
        let entries: Vec<_> = entries(&bundle).collect();
        assert_eq!(
            entries,
            [("a/b", "# A === b.\nversion\n"), ("c", "# C.\nversion\n")]
        );
    }

    #[test]
    fn a_plain_scenario_is_no_bundle() {
        assert_eq!(entries("# One.\nversion").count(), 0);
    }
}
