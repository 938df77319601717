//! The machine of the tests.
