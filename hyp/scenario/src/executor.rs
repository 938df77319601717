//! What runs scenarios: [`Executor`], the [`Step`]s that it takes, and their [`Outcome`]s.
//!
//! An executor decides where frames are and how guests are made to do things; what is expected of an outcome it does not know.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};
use pinfold_abi::ExitReason;
use pinfold_abi::describe::CallInfo;
use pinfold_abi::show::{Answer, Exit};

use crate::program::{Access, By, Deed, Pin, Place};

/// Something that has an outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A host call: x0 to x7.
    Call([u64; 8]),
    /// A guest does something, until it is done or exits.
    Guest {
        /// The handle of the VM.
        vm: u64,
        /// The vCPU.
        vcpu: u64,
        /// What it does.
        deed: Deed<u64>,
    },
    /// The host touches a frame.
    Touch {
        /// Who.
        by: By,
        /// How.
        access: Access<u64>,
        /// Which.
        frame: u64,
    },
}

/// What came of a step.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// A call returned.
    Answer {
        /// The call, if the table has it.
        call: Option<&'static CallInfo>,
        /// x0 to x7.
        x: [u64; 8],
    },
    /// A vCPU exited before its deed was done.
    Exit {
        /// Why.
        reason: ExitReason,
        /// x3 to x5.
        details: [u64; 3],
    },
    /// It is done; what was read, or X0 after a guest's call.
    Value(u64),
    /// It is done, and nothing is to be said of a value.
    Done,
    /// The host got an abort.
    Abort,
    /// The host found a decoy.
    Decoy,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { call, x } => Answer { call: *call, x: *x }.fmt(f),
            Self::Exit {
                reason,
                details: [first, second, third],
            } => {
                write!(
                    f,
                    "exit {}",
                    Exit([reason.number(), *first, *second, *third])
                )
            }
            Self::Value(value) => write!(f, "value {value:#x}"),
            Self::Done => f.write_str("done"),
            Self::Abort => f.write_str("abort"),
            Self::Decoy => f.write_str("decoy"),
        }
    }
}

/// Why a scenario did not get to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// This executor cannot do what the scenario needs.
    Cannot(String),
    /// Something is wrong.
    Wrong(String),
}

/// What can run scenarios.
pub trait Executor {
    /// Takes `count` folios of the host, adjoining, without a pin, each frame with zeroes in its first eight bytes; gives the first frame.
    fn take(&mut self, order: u8, count: u64) -> Result<u64, Trouble>;

    /// Gives back what was taken, and is the host's again.
    fn give_back(&mut self, first: u64, order: u8, count: u64);

    /// Pins a folio as it is said, instead of what was.
    fn pin(&mut self, head: u64, order: u8, pin: Pin) -> Result<(), Trouble>;

    /// A frame of this kind.
    fn place(&mut self, place: Place) -> Result<u64, Trouble>;

    /// Writes code into a frame of the host.
    fn load(&mut self, frame: u64, code: &[u32]) -> Result<(), Trouble>;

    /// Gives EL2's pool frames, because it is dry.
    fn feed(&mut self) -> Result<(), Trouble>;

    /// Takes a step. A touch that was let through is [`Outcome::Value`] or [`Outcome::Done`].
    fn step(&mut self, step: &Step) -> Result<Outcome, Trouble>;

    /// Takes the steps of each CPU at the same time.
    fn parallel(&mut self, lines: &[Vec<Step>]) -> Result<Vec<Vec<Outcome>>, Trouble>;
}
