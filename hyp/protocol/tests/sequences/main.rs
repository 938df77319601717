//! Sequences of steps by hand: those that the architecture allows pass, the others end in the violation that is meant.
//!
//! `casemate` has the must-fail examples of the monitor of that name, by their names there; `more` has what else there is to get
//! wrong; `good` has what is right, in the orders that Pinfold uses.
#![expect(clippy::unwrap_used, reason = "a test says what it found by panicking")]

mod casemate;
mod good;
mod more;
mod rig;
