//! vCPU threads: run, answer MMIO, say how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use anyhow::Context;
use kvm_bindings::{
    KVM_EXIT_MEMORY_FAULT, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::{Ending, EndingSender};
use crate::devices::Bus;

/// How long a vCPU gets to react to a kick before it is kicked again: a signal that comes just
/// before `KVM_RUN` is entered is lost.
const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// Does nothing: the signal only has to make `KVM_RUN` return.
extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// The threads of all vCPUs.
#[derive(Debug)]
pub(super) struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts a thread for each of `vcpus`.
    pub(super) fn start(
        vcpus: Vec<VcpuFd>,
        bus: &Arc<Bus>,
        ending: &EndingSender,
    ) -> anyhow::Result<Self> {
        register_signal_handler(SIGRTMIN(), kicked).context("cannot install the kick signal")?;
        let mut all = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for (index, fd) in vcpus.into_iter().enumerate() {
            let vcpu = Vcpu {
                fd,
                bus: Arc::clone(bus),
                stop: Arc::clone(&all.stop),
            };
            let ending = ending.try_clone().context("cannot clone an eventfd")?;
            let thread = Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || vcpu.run_until_end(&ending))
                .context("cannot start a vCPU thread");
            match thread {
                Ok(thread) => all.threads.push(thread),
                Err(error) => {
                    all.stop();
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Makes all vCPUs leave the guest for good, and closes them.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            while !thread.is_finished() {
                // The thread may end in between; then there is nobody to kick.
                thread.kill(SIGRTMIN()).ok();
                sleep(KICK_INTERVAL);
            }
            // A panic ends the process (profile), so a thread always ends by returning.
            thread.join().ok();
        }
    }
}

struct Vcpu {
    fd: VcpuFd,
    bus: Arc<Bus>,
    stop: Arc<AtomicBool>,
}

impl Vcpu {
    fn run_until_end(mut self, ending: &EndingSender) {
        while !self.stop.load(Ordering::Acquire) {
            if let Some(how) = self.run_once() {
                ending.send(how);
                return;
            }
        }
    }

    /// Enters the guest once; says how it ended, if it did.
    fn run_once(&mut self) -> Option<Ending> {
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => self.bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => self.bus.write(address, data),
            Ok(VcpuExit::Intr) => {}
            Ok(VcpuExit::SystemEvent(event, data)) => return Some(system_event(event, data)),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                return Some(Ending::Failed(format!(
                    "its page at {gpa:#x} cannot be had: Bad address"
                )));
            }
            Ok(other) => return Some(Ending::Failed(format!("KVM_RUN returned {other:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Some(self.refused(error)),
        }
        None
    }

    /// `KVM_RUN` failed; if it was over a page, the shared page says which.
    fn refused(&mut self, error: kvm_ioctls::Error) -> Ending {
        let run = self.fd.get_kvm_run();
        if run.exit_reason != KVM_EXIT_MEMORY_FAULT {
            return Ending::Failed(format!("KVM_RUN: {error}"));
        }
        // SAFETY: the exit reason says that this member of the union was filled in.
        let fault = unsafe { run.__bindgen_anon_1.memory_fault };
        let why = if error.errno() == libc::EBUSY {
            "somebody else holds it (EBUSY)".to_owned()
        } else {
            error.to_string()
        };
        Ending::Failed(format!("its page at {:#x} cannot be had: {why}", fault.gpa))
    }
}

fn system_event(event: u32, data: &[u64]) -> Ending {
    match event {
        KVM_SYSTEM_EVENT_SHUTDOWN => Ending::PoweredOff,
        KVM_SYSTEM_EVENT_RESET => Ending::Reset,
        KVM_SYSTEM_EVENT_CRASH => Ending::Crashed(data.first().copied().unwrap_or(0)),
        other => Ending::Failed(format!("unknown system event {other}")),
    }
}
