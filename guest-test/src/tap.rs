//! The test framework: tests found by name, results in TAP (Test Anything Protocol).
//!
//! A module lists its tests with [`tests!`](crate::tests); each is a function that returns an [`Outcome`]. [`check!`](crate::check) and
//! [`check_eq!`](crate::check_eq) return early with a reason. Invariant: `1..N` says how many lines follow, also when a filter is given.

use core::fmt::{Arguments, Write};

/// Bytes of a reason that are kept.
const LENGTH: usize = 240;

/// Why a test did not pass.
#[derive(Clone, Copy)]
pub struct Failure {
    text: [u8; LENGTH],
    used: usize,
    skipped: bool,
}

/// How a test ended.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The test failed, for this reason.
    #[must_use]
    pub fn new(reason: Arguments<'_>) -> Self {
        let mut failure = Self {
            text: [0; LENGTH],
            used: 0,
            skipped: false,
        };
        // What does not fit is cut off; a cut reason is still a reason.
        failure.write_fmt(reason).unwrap_or_default();
        failure
    }

    /// The test cannot run on this machine, for this reason.
    #[must_use]
    pub fn skip(reason: Arguments<'_>) -> Self {
        Self {
            skipped: true,
            ..Self::new(reason)
        }
    }

    /// The reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text
            .get(..self.used)
            .and_then(|text| core::str::from_utf8(text).ok())
            .unwrap_or("unreadable reason")
    }

    /// The test was not run.
    #[must_use]
    pub const fn is_skip(&self) -> bool {
        self.skipped
    }
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            let mut code = [0; 4];
            let code = character.encode_utf8(&mut code).as_bytes();
            let place = self
                .text
                .get_mut(self.used..self.used + code.len())
                .ok_or(core::fmt::Error)?;
            place.copy_from_slice(code);
            self.used += code.len();
        }
        Ok(())
    }
}

/// A test and its name.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Module and function, as `module::function`.
    pub name: &'static str,
    /// What it does.
    pub run: fn() -> Outcome,
}

/// Lists tests under the module's name: functions whose bodies leave early with a [`Failure`](crate::tap::Failure), or pass.
#[macro_export]
macro_rules! tests {
    ($module:literal: $($(#[$doc:meta])+ $name:ident $body:block)+) => {
        $($(#[$doc])+ fn $name() -> $crate::tap::Outcome { $body Ok(()) })+

        /// The tests of this module, in the order in which they run.
        pub(crate) const TESTS: &[$crate::tap::Test] = &[
            $($crate::tap::Test { name: concat!($module, "::", stringify!($name)), run: $name }),+
        ];
    };
}

/// Fails the test with a reason unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::tap::Failure::new(format_args!($($reason)+)));
        }
    };
}

/// Fails the test unless both sides are equal; the reason shows both in hexadecimal.
#[macro_export]
macro_rules! check_eq {
    ($found:expr, $wanted:expr, $($what:tt)+) => {
        match ($found, $wanted) {
            (found, wanted) => {
                if found != wanted {
                    return Err($crate::tap::Failure::new(format_args!(
                        "{}: found {found:#x?}, wanted {wanted:#x?}", format_args!($($what)+))));
                }
            }
        }
    };
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that could not run here.
    pub skipped: u32,
}

/// Runs the tests whose names contain `filter` and prints their results.
#[must_use]
pub fn run(suites: &[&[Test]], filter: &str) -> Summary {
    let chosen = || {
        suites
            .iter()
            .copied()
            .flatten()
            .filter(|test| test.name.contains(filter))
    };
    crate::line!("TAP version 14");
    crate::line!("1..{}", chosen().count());
    let mut summary = Summary::default();
    for (index, test) in chosen().enumerate() {
        report(index + 1, test.name, &(test.run)(), &mut summary);
    }
    crate::line!(
        "# {} passed, {} failed, {} skipped",
        summary.passed,
        summary.failed,
        summary.skipped
    );
    summary
}

fn report(number: usize, name: &str, outcome: &Outcome, summary: &mut Summary) {
    match outcome {
        Ok(()) => {
            summary.passed += 1;
            crate::line!("ok {number} - {name}");
        }
        Err(failure) if failure.is_skip() => {
            summary.skipped += 1;
            crate::line!("ok {number} - {name} # SKIP {}", failure.reason());
        }
        Err(failure) => {
            summary.failed += 1;
            crate::line!("not ok {number} - {name}");
            crate::line!("# {}", failure.reason());
        }
    }
}
