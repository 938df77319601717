//! The book's page of attacks (`hyp/doc/book/src/attacks.md`) against the tests that it names.
//!
//! A [`Row`] is an attack. Invariant of the page: 96 rows in order, each with what has to come of it and a test, or with the reason why there is none. A name
//! with `::` is a test of the mini host, one that ends in `.scenario` a file of the corpus, one that is a single word a test of cargo, any other a test of this
//! harness.

#[cfg(test)]
use crate::cache::files_below;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;

/// Where the page is.
const PAGE: &str = "hyp/doc/book/src/attacks.md";
/// How many attacks the list has.
#[cfg(test)]
const ATTACKS: u32 = 96;
/// What comes before the reason why something is not shown.
#[cfg(test)]
const REASON: &str = "not shown: ";

/// One attack.
struct Row<'a> {
    number: u32,
    #[cfg_attr(not(test), expect(dead_code, reason = "only a test reads the text"))]
    outcome: &'a str,
    shown_by: &'a str,
}

impl<'a> Row<'a> {
    /// The row in a line of the page, if it is one.
    fn read(line: &'a str) -> Option<Self> {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let [number, _attack, outcome, shown_by] = cells.as_slice() else {
            return None;
        };
        Some(Self {
            number: number.trim().parse().ok()?,
            outcome: outcome.trim(),
            shown_by: shown_by.trim(),
        })
    }

    /// The tests that it names.
    fn tests(&self) -> impl Iterator<Item = &'a str> {
        let is_file = |name: &str| {
            Path::new(name)
                .extension()
                .is_some_and(|end| end != "scenario")
        };
        self.shown_by
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(move |name| !is_file(name) && name.to_uppercase() != *name)
    }
}

fn rows(page: &str) -> impl Iterator<Item = Row<'_>> {
    page.lines().filter_map(Row::read)
}

/// Every test of the mini host that the page of the clone at `root` names has passed in what was `seen`.
pub(super) fn have_passed(root: &Path, seen: &str) -> Result<()> {
    let page = std::fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let passed: BTreeSet<&str> = seen.lines().filter_map(passed).collect();
    for row in rows(&page) {
        for test in row.tests().filter(|test| test.contains("::")) {
            ensure!(
                passed.contains(test),
                "attack {} is said to be shown by {test}, which has not passed",
                row.number
            );
        }
    }
    Ok(())
}

/// The name in a TAP line `ok 3 - name`.
fn passed(line: &str) -> Option<&str> {
    let (number, name) = line.trim().strip_prefix("ok ")?.split_once(" - ")?;
    (number.parse::<u32>().is_ok() && !name.contains("# SKIP")).then_some(name)
}

/// Every test below `root`, as the page names it.
#[cfg(test)]
fn tests_of(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for path in files_below(&root.join("guest-test/src/bin/mini-host/suites"))? {
        of_mini_host(&std::fs::read_to_string(path)?, &mut names);
    }
    let corpus = root.join("hyp/scenario/corpus");
    for path in files_below(&corpus)? {
        names.insert(path.strip_prefix(&corpus)?.display().to_string());
    }
    for directory in ["hyp", "host-shim", "qemu/src"] {
        for path in files_below(&root.join(directory))? {
            if path.extension().is_some_and(|end| end == "rs") {
                of_cargo(&std::fs::read_to_string(path)?, &mut names);
            }
        }
    }
    Ok(names)
}

/// `tests! { "suite":` and then, each behind its documentation, `name {` or `name = "test of the guest"`.
#[cfg(test)]
fn of_mini_host(source: &str, names: &mut BTreeSet<String>) {
    let mut suite = None;
    let mut documented = false;
    for line in source.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once("tests! { \"") {
            suite = rest.split('"').next();
        }
        let name = line.split_whitespace().next().unwrap_or_default();
        let is_name = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let rest = line.get(name.len()..).unwrap_or_default();
        if documented && is_name && (rest.starts_with(" {") || rest.starts_with(" = \"")) {
            names.extend(suite.map(|suite| format!("{suite}::{name}")));
        }
        documented = line.starts_with("///");
    }
}

/// Functions behind `#[test]`.
#[cfg(test)]
fn of_cargo(source: &str, names: &mut BTreeSet<String>) {
    for after in source.split("#[test]").skip(1) {
        let name = after
            .split_once("fn ")
            .and_then(|(_, rest)| rest.split_once('('));
        names.extend(name.map(|(name, _)| name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new("..")
    }

    fn page() -> String {
        std::fs::read_to_string(root().join(PAGE)).unwrap()
    }

    #[test]
    fn every_attack_has_a_test_or_a_reason() {
        let page = page();
        let mut wanted = 1..=ATTACKS;
        for row in rows(&page) {
            assert_eq!(Some(row.number), wanted.next());
            let is_shown = row.tests().next().is_some() && !row.outcome.is_empty();
            let reason = row.shown_by.split_once(REASON).map(|(_, reason)| reason);
            assert!(is_shown || reason.is_some(), "attack {}", row.number);
            assert!(
                reason.is_none_or(|reason| reason.len() > 10),
                "attack {}",
                row.number
            );
        }
        assert_eq!(wanted.next(), None);
    }

    #[test]
    fn every_test_that_is_named_exists() {
        let page = page();
        let mut names = tests_of(root()).unwrap();
        names.extend(crate::suite::names());
        assert!(names.len() > 300, "only {} tests were found", names.len());
        for row in rows(&page) {
            for test in row.tests() {
                assert!(names.contains(test), "attack {} names {test}", row.number);
            }
        }
    }

    #[test]
    fn a_test_that_was_skipped_or_failed_has_not_passed() {
        assert_eq!(passed("ok 3 - a::b\r"), Some("a::b"));
        assert_eq!(passed("not ok 3 - a::b"), None);
        assert_eq!(passed("ok 3 - a::b # SKIP needs 4 CPUs"), None);
        let seen: String = rows(&page())
            .flat_map(|row| {
                row.tests()
                    .map(|test| format!("ok 1 - {test}\n"))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert!(have_passed(root(), &seen).is_ok());
        assert!(have_passed(root(), &seen.replace("isolation::", "")).is_err());
    }

    #[test]
    fn tests_are_found_by_their_names() {
        let mut names = BTreeSet::new();
        of_mini_host(
            "tests! { \"a\":\n/// What.\none {\nif x {\n}\n}\n/// Other.\ntwo = \"x::y\",\n",
            &mut names,
        );
        of_cargo("#[test]\nfn three() {}\nfn four() {}", &mut names);
        assert_eq!(Vec::from_iter(names), ["a::one", "a::two", "three"]);
    }
}
