//! The VM behind `/dev/kvm`: builds it from a [`Plan`], runs it, takes it down.
//!
//! The calling thread is the event loop (disk queues, console input, signals); each vCPU has a
//! thread of its own. Whoever sees the end first says so through [`Ending`]; [`run`] then stops the
//! vCPUs, joins them, and closes the VM's files, so that the guest's memory is wiped and back in the
//! host's hands when it returns.

mod build;
mod events;
mod vcpu;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use anyhow::Context;
use vmm_sys_util::eventfd::EventFd;

use crate::console::Terminal;
use crate::ending::ExitStatus;
use crate::logger::say;
use crate::run::Plan;

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered off.
    PoweredOff,
    /// The guest asked for a reset.
    Reset,
    /// EL2 stopped the guest; the syndrome (ESR without operands) says why.
    Crashed(u64),
    /// Somebody stopped it from outside, and how.
    Stopped(String),
    /// `KVM_RUN` or the host failed, and how.
    Failed(String),
}

impl Ending {
    /// Tells the user how it ended, and what exit status that is.
    #[must_use]
    pub fn report(&self) -> ExitStatus {
        match self {
            Self::PoweredOff => {
                say("guest powered off");
                ExitStatus::Success
            }
            Self::Reset => {
                say("guest asked for a reset");
                ExitStatus::Reset
            }
            Self::Crashed(syndrome) => {
                say(&format!("guest crashed (ESR {syndrome:#x})"));
                ExitStatus::Crashed
            }
            Self::Stopped(how) => {
                say(&format!("guest stopped by {how}"));
                ExitStatus::Stopped
            }
            Self::Failed(why) => {
                say(&format!("guest cannot go on: {why}"));
                ExitStatus::Failed
            }
        }
    }
}

/// Tells the event loop that the VM has ended; the first to call wins.
#[derive(Debug)]
pub struct EndingSender {
    sender: Sender<Ending>,
    wake: EventFd,
}

impl EndingSender {
    /// Says how the VM ended.
    pub fn send(&self, ending: Ending) {
        // The event loop may have gone already: then somebody else was first.
        self.sender.send(ending).ok();
        self.wake.write(1).ok();
    }

    /// The same for another thread.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self {
            sender: self.sender.clone(),
            wake: self.wake.try_clone()?,
        })
    }
}

/// Runs the VM that `plan` describes until it ends.
pub fn run(plan: Plan) -> anyhow::Result<Ending> {
    let (sender, receiver) = channel();
    let wake = EventFd::new(libc::EFD_NONBLOCK).context("cannot create an eventfd")?;
    let ending = EndingSender {
        sender,
        wake: wake.try_clone().context("cannot clone an eventfd")?,
    };
    let has_input = plan.console.has_input();
    let machine = build::Machine::build(plan)?;
    let terminal = if has_input {
        Some(Terminal::raw().context("cannot make the terminal raw")?)
    } else {
        None
    };
    let mut events = events::EventLoop::new(&machine, terminal.as_ref(), &ending, wake)?;
    let bus = Arc::clone(&machine.bus);
    let vcpus = vcpu::Threads::start(machine.vcpus, &bus, &ending)?;
    let how = events.run_until(&receiver);
    vcpus.stop();
    // The guest's memory comes back when the last of these files closes.
    drop(events);
    drop(machine.gic);
    drop(machine.vm);
    drop(machine.ram);
    drop(terminal);
    how
}
