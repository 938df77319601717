//! TAP (Test Anything Protocol) on a machine's console.

use super::Tally;
use anyhow::{Context, Result, bail};

/// Counts the `ok` and `not ok` lines, prints what failed, and compares with the plan.
pub(crate) fn count(seen: &str) -> Result<Tally> {
    let planned: u32 = seen
        .lines()
        .find_map(|line| line.trim().strip_prefix("1.."))
        .context("no TAP plan")?
        .parse()?;
    let mut tally = Tally::default();
    for line in seen.lines().map(str::trim) {
        if line.starts_with("ok ") {
            tally.add(Tally::PASS);
        } else if line.starts_with("not ok ") {
            println!("      {line}");
            tally.add(Tally::FAIL);
        }
    }
    let ran = tally.passed + tally.failed;
    if ran != planned {
        bail!("{planned} tests were announced, {ran} ended");
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_against_the_plan() {
        let seen = "ok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP no\n";
        let good = format!("1..3\n{seen}");
        assert_eq!(
            count(&good).unwrap(),
            Tally {
                passed: 2,
                failed: 1
            }
        );
        assert!(count(&format!("{seen}1..4\n")).is_err());
        assert!(count(seen).is_err());
    }
}
