//! How a machine should end: the power off, nothing to complain about, and no decoy.

use super::GUARD;
use crate::console::Console;
use anyhow::{Context, Result, ensure};

/// What the line begins with that the host prints after a task.
const DECOYS: &str = "host: decoys: ";

/// Waits for the power-off of a host under Pinfold whose kernel touched nothing that it gave away.
pub(super) fn well(console: &mut Console) -> Result<()> {
    without_decoys(console)?;
    no_complaints(console.seen())
}

/// The same where complaints on the console are those of a guest.
pub(super) fn without_decoys(console: &mut Console) -> Result<()> {
    powered_off(console)?;
    no_decoys(console.seen())
}

/// Waits for the power-off of a machine on which decoys are part of the test, or where there is no EL2.
pub(crate) fn without_complaints(console: &mut Console) -> Result<()> {
    powered_off(console)?;
    no_complaints(console.seen())
}

/// At the prompt of a host that has Pinfold's program: its kernel touched nothing that it gave away.
pub(super) fn no_decoys_at_prompt(console: &mut Console) -> Result<()> {
    console.type_line("pinfold counters")?;
    let decoys = console.expect("DECOYS", GUARD)?;
    ensure!(
        decoys.split_whitespace().nth(1) == Some("0"),
        "the host's kernel touched the guest's pages: {decoys}"
    );
    Ok(())
}

fn powered_off(console: &mut Console) -> Result<()> {
    let status = console.wait(GUARD)?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

/// Waits for the power-off of a machine whose kernel warns once of each of these, and of nothing else.
pub(super) fn with_warnings(console: &mut Console, expected: &[&str]) -> Result<()> {
    powered_off(console)?;
    warned_of(console.seen(), expected)
}

fn warned_of(seen: &str, expected: &[&str]) -> Result<()> {
    for warning in expected {
        ensure!(
            seen.contains(warning),
            "the kernel does not warn: {warning}"
        );
    }
    let warnings = seen.matches(WARNING).count();
    ensure!(
        warnings == expected.len(),
        "the kernel warns {warnings} times, not {} times",
        expected.len()
    );
    no_complaints(&seen.replace(WARNING, "").replace(BEFORE_WARNING, ""))
}

/// How a kernel's warnings begin.
const WARNING: &str = "WARNING:";

/// The line before.
const BEFORE_WARNING: &str = "cut here ]";

/// What is shown of a complaint: what it says, where it comes from, and who called.
const COMPLAINT_LINES: usize = 60;

/// A run that a kernel or EL2 complains about is not a good one.
fn no_complaints(seen: &str) -> Result<()> {
    const SIGNS: [&str; 17] = [
        WARNING,
        "BUG:",
        "BUG ",
        "kernel BUG at",
        "Oops",
        "Unable to handle",
        "Internal error",
        "Kernel panic",
        BEFORE_WARNING,
        "page dumped because",
        "corruption",
        "DEBUG_LOCKS_WARN_ON",
        "turning off the locking correctness validator",
        "detected stalls",
        "self-detected stall",
        "blocked for more than",
        "pinfold: panic",
    ];
    let is_one = |line: &&str| SIGNS.iter().any(|sign| line.contains(sign));
    let complaint: Vec<&str> = seen
        .lines()
        .skip_while(|line| !is_one(line))
        .take(COMPLAINT_LINES)
        .collect();
    ensure!(complaint.is_empty(), "complaint: {}", complaint.join("\n"));
    Ok(())
}

/// The number of decoys that EL2 had mapped for the host's kernel when its task had ended.
pub(super) fn decoys(seen: &str) -> Result<u64> {
    let line = seen
        .lines()
        .find_map(|line| line.trim().strip_prefix(DECOYS))
        .context("the host does not say how many decoys there were")?;
    line.parse()
        .with_context(|| format!("not a number of decoys: {line}"))
}

/// Outside of the tests that want it, the kernel never touches what it gave away.
fn no_decoys(seen: &str) -> Result<()> {
    let count = decoys(seen)?;
    let first = seen.lines().find(|line| line.contains("it sees zeroes"));
    ensure!(
        count == 0,
        "EL2 mapped {count} decoys for the host's kernel; {}",
        first.unwrap_or("it says nothing of them")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_that_has_to_come_comes_alone() {
        let one = "[ 1.0] ------------[ cut here ]------------\n[ 1.0] pfn 1 leaked\n[ 1.0] WARNING: CPU: 0\n";
        assert!(warned_of(one, &["leaked"]).is_ok());
        assert!(warned_of(one, &["freed"]).is_err());
        assert!(warned_of("", &["leaked"]).is_err());
        assert!(warned_of(&one.repeat(2), &["leaked"]).is_err());
        assert!(warned_of(&format!("{one}[ 1.0] BUG: bad page"), &["leaked"]).is_err());
    }

    #[test]
    fn complaints_are_found() {
        for line in [
            "[ 1.0] WARNING: CPU: 0 PID: 1 at mm/gup.c:1",
            "[ 1.0] WARNING: possible circular locking dependency detected",
            "[ 1.0] BUG: sleeping function called from invalid context at mm/gup.c:1",
            "[ 1.0] kernel BUG at mm/gup.c:1!",
            "[ 1.0] page dumped because: VM_WARN_ON_FOLIO(1)",
            "[ 1.0] list_add corruption. prev->next should be next",
            "[ 1.0] INFO: task kworker/0:1:9 blocked for more than 120 seconds.",
        ] {
            assert!(no_complaints(line).is_err(), "{line}");
        }
        let why =
            no_complaints("[ 1.0] fine\n[ 1.0] -[ cut here ]-\n[ 1.0] WARNING: at mm/gup.c:1")
                .unwrap_err()
                .to_string();
        assert!(!why.contains("fine") && why.contains("mm/gup.c:1"), "{why}");
        for line in [
            "[ 1.0] Run /init as init process",
            // The killer for lack of memory shows its way, too; some tests want it to come.
            "[ 1.0] Call trace:",
        ] {
            assert!(no_complaints(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_decoy_is_told_with_its_place() {
        assert!(no_decoys("host: decoys: 0\r\n").is_ok());
        assert!(no_decoys("host: task ended: 0\n").is_err());
        let touched = "pinfold: the host kernel at 0x1 touched 0x2, which is not its own: it sees zeroes\nhost: decoys: 1\n";
        assert!(
            no_decoys(touched)
                .unwrap_err()
                .to_string()
                .contains("at 0x1")
        );
    }
}
