//! The driver's user interface, asked in the running host; every TAP line counts.

use super::{GUARD, Test, boot, tap};
use anyhow::ensure;

/// The driver's test.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::many("the driver's user interface", |bench| {
        let mut console = bench.console(&bench.host("driver-test"), "driver")?;
        console.expect("host: task ended", GUARD)?;
        let status = console.wait(GUARD)?;
        ensure!(status.success(), "QEMU ended with {status}");
        boot::no_complaints(console.seen())?;
        tap::count(console.seen())
    })]
}
