//! All tests, in the order in which they run: what needs no pin table first, storms last.

use guest_test::tap::Test;

mod before;

/// Every suite.
pub(crate) const ALL: &[&[Test]] = &[before::TESTS];
