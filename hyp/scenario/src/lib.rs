//! Scenarios: small texts that issue calls, say what must come of them, and run wherever Pinfold runs.
//!
//! [`parse()`] makes a [`Program`] of a text; [`run`] performs it on an [`Executor`], which places frames and VMs where its own memory is.
//! There are four executors: the specification alone and the core on a machine of plain memory (both here), the mini host, and
//! the host's program on Linux. The language is described in the book; calls, arguments and statuses are those of the ABI table, so
//! that a new call is a new verb.
//!
//! | File | What |
//! |---|---|
//! | `words`, `parse/` | text to program, with line, column and the nearest name of what was wrong |
//! | [`program`] | what a program is |
//! | `interpret`, `matches`, `transcript` | the one interpreter, what counts as expected, what is compared between executors |
//! | [`executor`] | what an executor does: [`Step`]s and their [`Outcome`]s |
//! | [`bundle`] | several scenarios in one text |
//! | [`puppet`] | the guest of executors on real EL2 |
//! | `model`, `specified`, `lockstep_model` | executors without a machine, which try each order of parallel lines |
//!
//! Invariant: a scenario leaves VMs, pool and frames as it found them; [`run`] fails where that does not work.
// The core's executor shares a file with tests, which have the standard library.
#![cfg_attr(not(feature = "core"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod bundle;
pub mod executor;
mod interpret;
mod matches;
#[cfg(feature = "spec")]
mod model;
mod near;
mod parse;
pub mod program;
pub mod puppet;
#[cfg(feature = "spec")]
mod specified;
mod transcript;
mod words;

#[cfg(feature = "core")]
mod lockstep_model;

pub use executor::{Executor, Outcome, Step, Trouble};
pub use interpret::{Report, run};
#[cfg(feature = "core")]
pub use lockstep_model::on_core;
#[cfg(feature = "spec")]
pub use model::{Cell, Explored};
pub use parse::parse;
pub use program::{Program, layout};
#[cfg(feature = "spec")]
pub use specified::on_specification;
pub use words::Error;
