//! What a person does: the line that the host prints at login is typed, and the guest used.

use super::{Bench, GUARD, Test, ending};
use anyhow::{Context, Result};

/// The user's five minutes.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::one(
        "the line printed at login starts a protected guest with a shell",
        session,
    )]
}

fn session(bench: &Bench) -> Result<()> {
    let mut console = bench.console(&bench.host_with("quiet"), "shell")?;
    let line = console.expect("pinfold run ", GUARD)?;
    let command = line.trim().to_owned();
    console.expect("ends both and QEMU", GUARD)?;
    console.type_line(&format!("{command}; echo guest ended: $?"))?;
    console.expect("guest: Linux", GUARD)?;
    console.expect("guest: type", GUARD)?;
    for (typed, answer) in [
        (
            "check-disk",
            "guest: disk: 1 MiB written, read back and equal",
        ),
        ("keep-pattern", "guest: pattern: 4194304 bytes kept"),
        ("check-pattern", "guest: pattern: intact"),
    ] {
        console.type_line(typed)?;
        console
            .expect(answer, GUARD)
            .with_context(|| format!("typed {typed}"))?;
    }
    console.type_line("poweroff -f")?;
    console.expect("guest ended: 0", GUARD)?;
    ending::no_decoys_at_prompt(&mut console)?;
    console.type_line("poweroff -f")?;
    ending::without_complaints(&mut console)
}
