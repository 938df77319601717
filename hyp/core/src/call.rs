//! Calls, those of the host and those of guests: decoded apart from performed.

pub mod guest;
pub mod host;
mod inspect;
