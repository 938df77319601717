//! The driver's user interface, asked in the running host; every TAP line counts.

use super::{GUARD, Test, ending, tap};

/// The driver's test.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::many("the driver's user interface", |bench| {
        let mut console = bench.console(&bench.host("driver-test"), "driver")?;
        console.expect("host: task ended", GUARD)?;
        // It lets the driver touch a guest's page, so there are decoys.
        ending::without_complaints(&mut console)?;
        tap::count(console.seen())
    })]
}
