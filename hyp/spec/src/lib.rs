//! The executable specification of Pinfold: what each call and each event must come to, and what the tables must say then.
//!
//! [`Spec`] is told what the host called and what it got, what a guest did and what it got, and judges. Its state follows from
//! that history alone: it never looks into EL2's folio array or tables, except to compare them with what they must be
//! ([`Spec::compare`] with a [`Reality`]). It shares no code with `pinfold-core`; only numbers and the decoder of the ABI table.
//!
//! | File | Rules for |
//! |---|---|
//! | `spec`, `events`, `calls` | the judge: what was seen against what the rules say |
//! | [`clause`] | all rules, by name, in one line each |
//! | `rules/` | host calls: memory, pool, pin table, VMs, vCPUs, debug calls |
//! | `guest` | what guests do: calls, aborts; `rules/power`, `rules/registers`, `rules/gic`: PSCI, trapped registers, timers, interrupts |
//! | `foretell` | the judge without a defendant: what a step will come to |
//! | `touch` | what the host touches and does not own; decoys; the end of the machine |
//! | `outline` | the state in one number, for fuzzers |
//! | `shadow`, `compare` | stage 2 of host and guests, EL2's own stage 1, the pool, contents |
//! | `near` | the same for those who cannot look at everything after each step |
//!
//! Where several outcomes are right (which handle, how far a long call got, a dry pool), the outcome that was seen decides,
//! and the specification says which ones are right.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod calls;
pub mod clause;
mod compare;
mod events;
mod foretell;
mod guest;
mod map;
mod near;
mod outline;
mod reality;
mod rules;
mod ruling;
mod shadow;
mod spec;
mod state;
mod touch;
mod vm;

pub use clause::{Clause, Exercised, Violation};
pub use foretell::{Foretold, ForetoldExit};
pub use guest::{GuestDeed, GuestEvent, GuestSeen};
pub use near::Glance;
pub use reality::{Leaf, Reality, Rights};
pub use rules::{Encoding, Entry, Processors, Taken};
pub use spec::{HostSeen, Spec};
pub use state::Boot;
pub use touch::{Touch, TouchBy, TouchSeen};
pub use vm::{GuestRegisters, Phase};
