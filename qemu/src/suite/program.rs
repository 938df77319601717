//! How `pinfold run` ends: its exit status and what it says, for guests that end by themselves and for words that are wrong.

use super::{Bench, GUARD, Test, ending};
use anyhow::{Result, ensure};

/// A command for the host's shell, the status it ends with, and what it says.
struct Case {
    name: &'static str,
    command: &'static str,
    status: u32,
    says: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        name: "a kernel that is not there",
        command: "pinfold run --protected --kernel /nope",
        status: 2,
        says: "/nope",
    },
    Case {
        name: "a kernel that is not an Image",
        command: "pinfold run --protected --kernel /bin/busybox",
        status: 2,
        says: "/bin/busybox",
    },
    Case {
        name: "memory that is no number",
        command: "pinfold run --protected --kernel /guest/Image --mem lots",
        status: 2,
        says: "lots",
    },
    Case {
        name: "a disk that is not there",
        command: "pinfold run --protected --kernel /guest/Image --disk /nope",
        status: 2,
        says: "/nope",
    },
    Case {
        name: "without --protected",
        command: "pinfold run --kernel /guest/Image",
        status: 2,
        says: "--protected",
    },
    Case {
        name: "a guest that resets",
        command: "pinfold run --protected --kernel /guest/Image --mem 128 --cmdline panic=-1",
        status: 3,
        says: "reset",
    },
];

/// One test per case.
pub(crate) fn tests() -> Vec<Test> {
    CASES
        .into_iter()
        .map(|case| {
            Test::one(format!("pinfold run: {}", case.name), move |bench| {
                run(bench, &case)
            })
        })
        .collect()
}

fn run(bench: &Bench, case: &Case) -> Result<()> {
    let mut console = bench.console(&bench.host(case.command), case.name)?;
    console.expect(&format!("host: task ended: {}", case.status), GUARD)?;
    ensure!(
        console.seen().lines().any(|line| {
            line.contains(case.says) && !line.contains("task=") && !line.contains("ended")
        }),
        "nothing is said of {}: {}",
        case.says,
        console.seen()
    );
    // A guest that panics complains, and its host is well nevertheless.
    ending::without_decoys(&mut console)
}
