//! The driver's user interface, asked in the running host; every TAP line counts.

use super::{GUARD, Test, ending, tap};
use anyhow::ensure;

/// The driver's test.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::many("the driver's user interface", |bench| {
        let mut console = bench.console(&bench.host("driver-test"), "driver")?;
        console.expect("host: task ended", GUARD)?;
        // It lets the driver touch a guest's page, once.
        ending::without_complaints(&mut console)?;
        let decoys = ending::decoys(console.seen())?;
        ensure!(
            decoys == 1,
            "EL2 mapped {decoys} decoys for the host's kernel, not 1"
        );
        tap::count(console.seen())
    })]
}
