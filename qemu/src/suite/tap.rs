//! TAP (Test Anything Protocol) on a machine's console.

use super::Tally;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Counts the lines of results, prints what failed or was skipped, and compares with the plan.
///
/// A line whose directive is `SKIP` says that this machine cannot run the case; it is neither passed nor
/// failed, and its reason is printed. Several programs may follow one another, each with its own plan.
pub(crate) fn count(seen: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut planned = 0;
    for line in seen.lines().map(str::trim) {
        if let Some(plan) = line.strip_prefix("1..") {
            let number = plan.split(' ').next().unwrap_or_default();
            let number: u32 = number
                .parse()
                .with_context(|| format!("not a TAP plan: {line}"))?;
            // A program that cannot run at all says why in its plan.
            ensure!(number > 0, "nothing was tested: {line}");
            planned += number;
        } else if line.starts_with("not ok ") {
            println!("      {line}");
            tally.add(Tally::FAIL);
        } else if is_skipped(line) {
            tally.add(Tally::SKIP);
        } else if line.starts_with("ok ") {
            tally.add(Tally::PASS);
        }
    }
    for (why, number) in skips(seen) {
        println!("      skipped {number}: {why}");
    }
    ensure!(planned > 0, "no TAP plan");
    let ran = tally.passed + tally.failed + tally.skipped;
    ensure!(
        ran == planned,
        "{planned} tests were announced, {ran} ended"
    );
    Ok(tally)
}

/// What was skipped and why, and how many times each.
pub(super) fn skips(seen: &str) -> BTreeMap<String, u32> {
    let mut skips = BTreeMap::new();
    for line in seen.lines().map(str::trim).filter(|line| is_skipped(line)) {
        *skips.entry(why_skipped(line)).or_default() += 1;
    }
    skips
}

fn is_skipped(line: &str) -> bool {
    line.starts_with("ok ") && line.contains("# SKIP")
}

/// Name and reason of a result `ok 3 name # SKIP reason` or, as the kernel's selftests have it,
/// `ok 3 # SKIP name, kind of memory: reason`. Kinds are left out, so that equal reasons can be counted.
fn why_skipped(line: &str) -> String {
    let line = line.trim_start_matches("ok ");
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some((name, reason)) = line.split_once("# SKIP") else {
        return line.to_owned();
    };
    let name = name.trim().trim_start_matches("- ");
    match (name, reason.trim().split_once(": ")) {
        ("", Some((subject, reason))) => {
            let name = subject
                .rsplit_once(", ")
                .map_or(subject, |(name, _kind)| name);
            format!("{name}: {reason}")
        }
        _ => format!("{name}: {}", reason.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_against_the_plan() {
        let seen = "ok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP no swap\n";
        let good = format!("1..3\n{seen}");
        assert_eq!(
            count(&good).unwrap(),
            Tally {
                passed: 1,
                failed: 1,
                skipped: 1,
            }
        );
        assert_eq!(skips(&good), BTreeMap::from([("c: no swap".to_owned(), 1)]));
        assert!(count(&format!("{seen}1..4\n")).is_err());
        assert!(count(seen).is_err());
    }

    #[test]
    fn a_failure_cannot_be_skipped() {
        let tally = count("1..1\nnot ok 1 a # SKIP\n").unwrap();
        assert_eq!(tally, Tally::FAIL);
    }

    #[test]
    fn skipped_cases_are_told_by_their_reasons() {
        assert_eq!(why_skipped("ok 3 - c # SKIP no swap"), "c: no swap");
        assert_eq!(
            why_skipped(
                "ok 237 # SKIP 26 move_pages, anonymous huge: no two nodes: boot with numa=fake=2"
            ),
            "26 move_pages: no two nodes: boot with numa=fake=2"
        );
    }

    #[test]
    fn plans_of_programs_add_up() {
        let seen = "TAP version 13\n1..1\nok 1 a\nTAP version 13\nok 1 b\nok 2 c\n1..2\n";
        assert_eq!(count(seen).unwrap().passed, 3);
        assert!(count("1..many\n").is_err());
        let skipped = count("1..0 # SKIP no gup_test\n").unwrap_err();
        assert!(skipped.to_string().contains("no gup_test"));
    }
}
