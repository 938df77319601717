//! The protocol of translation tables, checked: [`Checker`] hears of every step and says which rule was broken.
//!
//! Who writes tables reports each primitive step, one [`Event`] with its CPU: a store of a descriptor, a barrier, a TLBI, a write of
//! `VTTBR_EL2`, a frame that becomes a table or stops being one, a lock. The checker keeps an automaton for each entry (valid; broken,
//! with what its removal still lacks; invalid) and answers with a [`Violation`] as soon as the Arm ARM (DDI 0487, D8.16 and D8.17) or
//! Pinfold's own rules do not allow the step. It knows no owner and no policy: whether a mapping should be there is others' business.
//!
//! Its memory is bounded and inside it, so that EL2 can keep one in a static. It reads tables through [`Memory`], never writes.
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::doc_markdown,
    reason = "the Arm ARM's names of instructions and registers are words here"
)]

mod broken;
mod checker;
mod descriptor;
mod dirty;
mod event;
mod rules;
mod tables;
mod violation;

pub use checker::Checker;
pub use event::{Dsb, Event, Lock, Regime, Tlbi};
pub use violation::{Entry, Missing, Rule, Violation};

/// How many CPUs there may be.
pub const CPUS: usize = 8;

/// What the tables hold.
pub trait Memory {
    /// Reads entry `index`, below 512, of the table in `frame`.
    fn read(&self, frame: u64, index: u16) -> u64;
}
