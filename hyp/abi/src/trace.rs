//! The trace on the wire: [`Entry`], one call or exit as 18 words.
//!
//! EL2 keeps [`limit::TRACE_LENGTH`] entries for each CPU and hands them out by `TRACE_READ`, [`PART`] words at a time. What each word
//! means is said with [`TraceKind`]; the decoder here is the only one.

use crate::table::{TraceKind, limit};

/// Words of an entry.
pub const WORDS: usize = 18;
/// Words that one `TRACE_READ` returns.
pub const PART: usize = 6;
/// Parts of an entry.
pub const PARTS: u64 = 3;
/// Entries kept of each CPU.
pub const LENGTH: usize = limit::TRACE_LENGTH;
/// The word of an exit of which the host learned nothing.
pub const WENT_ON: u64 = u64::MAX;

/// What brought a guest to EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An exception that the syndrome describes.
    Exception,
    /// An interrupt of the host.
    Interrupt,
    /// The virtual timer.
    Timer,
    /// The list registers.
    Maintenance,
    /// An `SError`.
    SystemError,
}

impl Cause {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Exception => 0,
            Self::Interrupt => 1,
            Self::Timer => 2,
            Self::Maintenance => 3,
            Self::SystemError => 4,
        }
    }

    /// The cause with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Exception),
            1 => Some(Self::Interrupt),
            2 => Some(Self::Timer),
            3 => Some(Self::Maintenance),
            4 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// An exception of a guest or of the host, as the processor reported it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Handle of the VM; 0 for the host.
    pub vm: u64,
    /// The vCPU.
    pub vcpu: u64,
    /// The address of the instruction, or behind it after an HVC.
    pub pc: u64,
    /// What it was.
    pub cause: Cause,
    /// `ESR_EL2`.
    pub esr: u64,
    /// `FAR_EL2`.
    pub far: u64,
    /// `HPFAR_EL2`.
    pub hpfar: u64,
    /// Exit reason and details, if the host learned of it.
    pub exit: Option<[u64; 4]>,
    /// x0 to x3 of an HVC or SMC; zeroes otherwise.
    pub x: [u64; 4],
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The host called.
    Call {
        /// x0 to x7 before.
        x: [u64; 8],
        /// x0 to x7 after; nothing while it is under way, or if a later entry has them.
        answer: Option<[u64; 8]>,
    },
    /// A guest came to EL2.
    GuestExit(Trap),
    /// The host came to EL2 without a host call.
    HostTrap(Trap),
}

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The physical counter.
    pub time: u64,
    /// What happened.
    pub event: Event,
}

impl Entry {
    /// The entry that `words` stand for; nothing if they are of no kind.
    #[must_use]
    pub fn decode(words: [u64; WORDS]) -> Option<Self> {
        let [kind, time, event @ ..] = words;
        let event = match TraceKind::from_number(kind)? {
            TraceKind::Call => Event::Call {
                x: first(event),
                answer: None,
            },
            TraceKind::Answer => {
                let [_, _, _, _, _, _, _, _, answer @ ..] = event;
                Event::Call {
                    x: first(event),
                    answer: Some(answer),
                }
            }
            TraceKind::GuestExit => Event::GuestExit(trap(event)?),
            TraceKind::HostTrap => Event::HostTrap(trap(event)?),
        };
        Some(Self { time, event })
    }
}

/// Words 2 to 9.
fn first(words: [u64; 16]) -> [u64; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = words;
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// An exception's words from 2 onwards.
fn trap(words: [u64; 16]) -> Option<Trap> {
    let [
        vm,
        vcpu,
        pc,
        cause,
        esr,
        far,
        hpfar,
        reason,
        detail0,
        detail1,
        detail2,
        x0,
        x1,
        x2,
        x3,
        _,
    ] = words;
    Some(Trap {
        vm,
        vcpu,
        pc,
        cause: Cause::from_number(cause)?,
        esr,
        far,
        hpfar,
        exit: (reason != WENT_ON).then_some([reason, detail0, detail1, detail2]),
        x: [x0, x1, x2, x3],
    })
}
