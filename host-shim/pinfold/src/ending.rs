//! How a `pinfold` command ends: [`Failure`] and [`ExitStatus`].
//!
//! The exit status is part of the program's interface (CI scripts branch on it), so it is written
//! down once, here. Invariant: status 2 means that nothing was started.

use std::process::ExitCode;

/// The exit status of every `pinfold` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// The guest powered off, or the command did what was asked.
    Success = 0,
    /// The kernel or the hypervisor refused something, or a device of the host failed.
    Failed = 1,
    /// The arguments or the files they name cannot work; nothing was started.
    BadInput = 2,
    /// The guest asked for a reset.
    Reset = 3,
    /// The guest crashed: EL2 stopped it because of something that only a broken guest does.
    Crashed = 4,
    /// Somebody stopped the VM from outside: Ctrl-A x, SIGINT or SIGTERM.
    Stopped = 5,
    /// EL2's image is a release image: it has no debug calls, and the command needs one.
    NoDebugCalls = 6,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        let code: u8 = match status {
            ExitStatus::Success => 0,
            ExitStatus::Failed => 1,
            ExitStatus::BadInput => 2,
            ExitStatus::Reset => 3,
            ExitStatus::Crashed => 4,
            ExitStatus::Stopped => 5,
            ExitStatus::NoDebugCalls => 6,
        };
        Self::from(code)
    }
}

/// Why a command could not do what was asked, sorted by who can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The caller's arguments or files; found before anything was started.
    #[error("{0}")]
    BadInput(String),
    /// EL2's image has no debug calls.
    #[error(
        "EL2 is a release image, built without the debug calls that this needs (feature debug-calls of pinfold-el2)"
    )]
    NoDebugCalls,
    /// Something that the host said no to while the command ran.
    #[error("{0:#}")]
    Host(#[from] anyhow::Error),
}

impl Failure {
    /// The status the process ends with.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::BadInput(_) => ExitStatus::BadInput,
            Self::NoDebugCalls => ExitStatus::NoDebugCalls,
            Self::Host(_) => ExitStatus::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_is_2_and_the_host_is_1() {
        assert_eq!(Failure::NoDebugCalls.status(), ExitStatus::NoDebugCalls);
        assert_eq!(Failure::BadInput("x".into()).status(), ExitStatus::BadInput);
        assert_eq!(
            Failure::Host(anyhow::anyhow!("x")).status(),
            ExitStatus::Failed
        );
    }
}
