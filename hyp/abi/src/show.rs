//! Calls and answers in words, by the table: for EL2's panic, the prompt, the trace.
//!
//! [`Call`] and [`Answer`] take registers as they are on the wire, known or not, and fit one line.

use core::fmt::{self, Display, Formatter};

use crate::describe::{CallInfo, FieldInfo, ValueInfo};
use crate::folio_word::FolioWord;
use crate::table::{ExitReason, HostCall, State, Status};
use crate::{FUNCTION_BASE, SMCCC_NOT_SUPPORTED, SMCCC_SUCCESS, pin_word};

/// The call that x0 names.
#[must_use]
pub fn call_of(function: u64) -> Option<&'static CallInfo> {
    let number = function.checked_sub(FUNCTION_BASE)?;
    HostCall::TABLE.iter().find(|info| info.number == number)
}

/// The name and text of a number in a list.
#[must_use]
pub fn entry_of(table: &'static [ValueInfo], number: u64) -> Option<&'static ValueInfo> {
    table.iter().find(|info| info.number == number)
}

/// A value of a field: a count in decimal, an address or a word in hexadecimal, a number with a name by its name.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The field.
    pub field: &'a FieldInfo,
    /// What it holds.
    pub value: u64,
}

impl Display for Value<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let value = self.value;
        if let Some(info) = entry_of(self.field.names(), value) {
            return f.write_str(info.name);
        }
        match self.field.unit {
            "PFN" | "GFN" | "IPA" | "VM handle" | "value" | "bits" | "access bits"
            | "folio word" | "pin word" => {
                write!(f, "{value:#x}")
            }
            _ if value == u64::MAX => f.write_str("all ones"),
            _ => write!(f, "{value}"),
        }
    }
}

/// x0 to x7 of a call: its name and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call(pub [u64; 8]);

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [function, arguments @ ..] = self.0;
        let Some(info) = call_of(function) else {
            write!(f, "function {function:#x}")?;
            let used = arguments.iter().rposition(|word| *word != 0);
            let used = arguments.iter().take(used.map_or(0, |last| last + 1));
            return used
                .zip(1..)
                .try_for_each(|(word, register)| write!(f, " x{register}={word:#x}"));
        };
        f.write_str(info.name)?;
        fields(f, info.arguments, &arguments)
    }
}

fn fields(f: &mut Formatter<'_>, fields: &[FieldInfo], values: &[u64]) -> fmt::Result {
    fields
        .iter()
        .zip(values)
        .try_for_each(|(field, &value)| write!(f, " {}={}", field.name, Value { field, value }))
}

/// x0 to x7 after a call.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The call, if the table has it.
    pub call: Option<&'a CallInfo>,
    /// The registers.
    pub x: [u64; 8],
}

/// What a status means for the registers behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// x0 says that there is no such call.
    NotSupported,
    /// x2 onwards are the call's results; of `AGAIN` those so far.
    Results(Status),
    /// x2 to x4 say at which frame it was refused.
    RefusedAt(Status),
    /// It was refused; x2 is a number that the call's text explains, mostly 0.
    Refused(Status),
    /// A status that the table does not have.
    Unknown(u64),
    /// The function is none of the table's, and somebody knew it: SMCCC's own, say.
    Foreign,
}

impl Answer<'_> {
    /// How to read it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let [smccc, status, ..] = self.x;
        if self.call.is_none() && smccc != SMCCC_NOT_SUPPORTED {
            return Outcome::Foreign;
        }
        if smccc != SMCCC_SUCCESS {
            return Outcome::NotSupported;
        }
        match Status::from_number(status) {
            None => Outcome::Unknown(status),
            Some(status @ (Status::Ok | Status::Again)) => Outcome::Results(status),
            Some(status) if status.names_frame() => Outcome::RefusedAt(status),
            Some(status) => Outcome::Refused(status),
        }
    }
}

impl Answer<'_> {
    /// Whether x4 of a refusal is a pin word: 0 also stands for one that was not read.
    #[must_use]
    pub fn read_pin_word(&self) -> bool {
        let [_, _, _, _, pin_word, ..] = self.x;
        pin_word != 0 || self.outcome() == Outcome::RefusedAt(Status::NotExclusivelyPinned)
    }
}

impl Display for Answer<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [_, _, results @ ..] = self.x;
        let [index, folio_word, pin_word, ..] = results;
        match self.outcome() {
            Outcome::NotSupported => f.write_str("NOT_SUPPORTED"),
            Outcome::Foreign => self
                .x
                .iter()
                .zip(0..)
                .take(4)
                .try_for_each(|(word, register)| match register {
                    0 => write!(f, "x0={word:#x}"),
                    _ => write!(f, " x{register}={word:#x}"),
                }),
            Outcome::Unknown(status) => write!(f, "status {status}"),
            Outcome::Refused(status) if index != 0 => write!(f, "{} x2={index}", status.name()),
            Outcome::Refused(status) => f.write_str(status.name()),
            Outcome::RefusedAt(status) => {
                let (name, folio) = (status.name(), FolioText(folio_word));
                write!(
                    f,
                    "{name} page {index}, folio word {folio_word:#x} ({folio})"
                )?;
                if !self.read_pin_word() {
                    return Ok(());
                }
                write!(f, ", pin word {pin_word:#x} ({})", PinText(pin_word))
            }
            Outcome::Results(status) => {
                f.write_str(status.name())?;
                self.call
                    .map_or(Ok(()), |info| fields(f, info.results, &results))
            }
        }
    }
}

/// A folio word in words.
#[derive(Clone, Copy, Debug)]
pub struct FolioText(pub u64);

impl Display for FolioText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match FolioWord::decode(self.0) {
            FolioWord::Tail { order } => write!(f, "a tail of order {order}"),
            FolioWord::Head {
                state,
                order,
                count,
                owner,
            } => {
                write!(f, "{}, order {order}", state.name())?;
                if let Some((slot, gfn)) = owner {
                    write!(f, ", GFN {gfn:#x} of the VM in slot {slot}")?;
                }
                match state {
                    State::HostSharedHyp => write!(f, ", {count} uses"),
                    State::HostSharedGuest => write!(f, ", shared {count} times"),
                    State::Hyp if count != 0 => write!(f, ", a table with {count} entries"),
                    State::Arriving => write!(f, ", {count} frames cleaned"),
                    State::Wiping => write!(f, ", {count} frames wiped"),
                    State::Hyp
                    | State::Host
                    | State::Guest
                    | State::GuestSharedHost
                    | State::Poisoned
                    | State::NotRam => Ok(()),
                }
            }
        }
    }
}

/// A pin word in words.
#[derive(Clone, Copy, Debug)]
pub struct PinText(pub u64);

impl Display for PinText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Ok(word) = u32::try_from(self.0) else {
            return f.write_str("more than a pin word holds");
        };
        let is_exclusive = word & pin_word::EXCLUSIVE != 0;
        let counts = if is_exclusive {
            pin_word::COUNT_MASK
        } else {
            !(pin_word::EXCLUSIVE | pin_word::ISOLATED)
        };
        let count = word & counts;
        match count {
            0 => f.write_str("no pin")?,
            1 => f.write_str("1 pin")?,
            _ => write!(f, "{count} pins")?,
        }
        if is_exclusive {
            f.write_str(", exclusive")?;
        }
        if word & pin_word::ISOLATED != 0 {
            f.write_str(", isolated")?;
        }
        if !is_exclusive {
            return Ok(());
        }
        let order = (word & pin_word::ORDER_MASK) >> pin_word::ORDER_SHIFT;
        if order != 0 {
            write!(f, ", order {order}")?;
        }
        let rest = word
            & !(pin_word::COUNT_MASK
                | pin_word::EXCLUSIVE
                | pin_word::ISOLATED
                | pin_word::ORDER_MASK);
        if rest != 0 {
            write!(f, ", stray bits {rest:#x}")?;
        }
        Ok(())
    }
}

/// An exit reason and its details on one line.
#[derive(Clone, Copy, Debug)]
pub struct Exit(pub [u64; 4]);

impl Display for Exit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [reason, details @ ..] = self.0;
        match ExitReason::from_number(reason) {
            Some(known) => f.write_str(known.name())?,
            None => write!(f, "exit reason {reason}")?,
        }
        let used = details.iter().rposition(|word| *word != 0);
        let used = details.iter().take(used.map_or(0, |last| last + 1));
        used.zip(3..).try_for_each(|(word, register)| match *word {
            u64::MAX => write!(f, " x{register}=all ones"),
            word => write!(f, " x{register}={word:#x}"),
        })
    }
}
