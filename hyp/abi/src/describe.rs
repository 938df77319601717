//! The table as data, for those who print it: the generated files, and tools with a prompt.

use crate::table::{Counter, ExitReason, State};

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct CallInfo {
    /// n: the function id is [`crate::FUNCTION_BASE`] + n.
    pub number: u64,
    /// Its name in capitals.
    pub name: &'static str,
    /// When it may be made.
    pub phase: &'static str,
    /// It exists only where debug calls do.
    pub debug: bool,
    /// What it does.
    pub text: &'static str,
    /// x1 onwards.
    pub arguments: &'static [FieldInfo],
    /// x2 onwards.
    pub results: &'static [FieldInfo],
}

/// One function that a guest may call.
#[derive(Clone, Copy, Debug)]
pub struct GuestCallInfo {
    /// What is in W0: the function's number with 32-bit arguments, with 64-bit ones, or one and then the other.
    pub numbers: &'static [u64],
    /// Its name in capitals.
    pub name: &'static str,
    /// Which guests are offered it: `any`, or `protected`.
    pub caller: &'static str,
    /// What it does.
    pub text: &'static str,
    /// x1 onwards.
    pub arguments: &'static [FieldInfo],
    /// x0 onwards.
    pub results: &'static [FieldInfo],
}

/// One argument or result.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub unit: &'static str,
    /// What it means.
    pub text: &'static str,
}

impl FieldInfo {
    /// The names of its numbers, if they have names.
    #[must_use]
    pub fn names(&self) -> &'static [ValueInfo] {
        match self.unit {
            "state" => State::TABLE,
            "exit reason" => ExitReason::TABLE,
            "counter" => Counter::TABLE,
            _ => &[],
        }
    }
}

/// One status, exit reason, state, counter or limit.
#[derive(Clone, Copy, Debug)]
pub struct ValueInfo {
    /// The number.
    pub number: u64,
    /// Its name in capitals.
    pub name: &'static str,
    /// The Linux errno of a status; empty for the rest.
    pub errno: &'static str,
    /// What it means.
    pub text: &'static str,
}
