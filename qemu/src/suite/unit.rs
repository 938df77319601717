//! The tests of cargo on this machine: everything that decides, and this harness.

use super::{Bench, Tally, Test};
use crate::build::Cargo;
use anyhow::{Result, ensure};
use std::process::Command;

/// One test per package that runs on this machine.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::many("x86_64: cargo test", |bench: &Bench| {
        let tally = cargo_test(&Cargo::new(&bench.workspace))?;
        println!("      {} tests on x86_64", tally.passed);
        Ok(tally)
    })]
}

/// Runs `cargo test` on everything that runs on this machine.
pub(crate) fn cargo_test(cargo: &Cargo<'_>) -> Result<Tally> {
    let mut command = cargo.command("test");
    command.args([
        "--workspace",
        "--exclude",
        "pinfold-el2",
        "--exclude",
        "guest-test",
        "--no-fail-fast",
    ]);
    counted(&mut command)
}

/// Runs a cargo command and adds up its `test result:` lines; shows what failed.
fn counted(command: &mut Command) -> Result<Tally> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut tally = Tally::default();
    for line in text.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.add(Tally {
                passed: number_before(result, " passed"),
                failed: number_before(result, " failed"),
                ..Tally::default()
            });
        }
    }
    if !output.status.success() {
        let failures: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("panicked at") || line.ends_with("FAILED"))
            .collect();
        println!("{}", failures.join("\n"));
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors: Vec<&str> = errors
            .lines()
            .filter(|line| line.starts_with("error"))
            .take(5)
            .collect();
        ensure!(
            tally.failed > 0,
            "cargo test: {}: {}",
            output.status,
            errors.join("; ")
        );
    }
    Ok(tally)
}

fn number_before(text: &str, word: &str) -> u32 {
    text.split(word)
        .next()
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let script = "echo 'test result: ok. 12 passed; 0 failed; 1 ignored'; echo 'test result: FAILED. 3 passed; 2 failed; 0 ignored'; exit 1";
        let tally = counted(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(
            tally,
            Tally {
                passed: 15,
                failed: 2,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_build_that_fails_is_no_success() {
        let script = "echo 'error: no such crate' >&2; exit 101";
        let error = counted(Command::new("sh").args(["-c", script])).unwrap_err();
        assert!(error.to_string().contains("no such crate"));
    }
}
