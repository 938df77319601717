//! The event loop: disk queues, console input, signals, and the end of the VM.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use signal_hook::consts::{SIGINT, SIGTERM};
use vmm_sys_util::eventfd::EventFd;

use super::build::Machine;
use super::{Ending, EndingSender};
use crate::console::{EscapeKey, Terminal};
use crate::devices::lock;
use crate::devices::serial::Uart;
use crate::devices::virtio::mmio::MmioTransport;

/// Everything the VMM's main thread waits for.
pub(super) struct EventLoop {
    manager: EventManager<Box<dyn MutEventSubscriber>>,
}

impl EventLoop {
    /// Listens to the machine's devices, to the terminal if there is one, to SIGINT and SIGTERM, and
    /// to `wake`.
    pub(super) fn new(
        machine: &Machine,
        terminal: Option<&Terminal>,
        ending: &EndingSender,
        wake: EventFd,
    ) -> anyhow::Result<Self> {
        let mut manager: EventManager<Box<dyn MutEventSubscriber>> =
            EventManager::new().context("cannot create the event loop")?;
        manager.add_subscriber(Box::new(Wake(wake)));
        for disk in &machine.disks {
            manager.add_subscriber(Box::new(Queues(Arc::clone(disk))));
        }
        let (signals, raised) = UnixStream::pair().context("cannot create a socket pair")?;
        for signal in [SIGINT, SIGTERM] {
            let end = raised.try_clone().context("cannot clone a socket")?;
            signal_hook::low_level::pipe::register(signal, end)
                .context("cannot catch SIGINT and SIGTERM")?;
        }
        manager.add_subscriber(Box::new(Signals {
            socket: signals,
            ending: ending.try_clone().context("cannot clone an eventfd")?,
        }));
        if let Some(terminal) = terminal {
            manager.add_subscriber(Box::new(Input {
                uart: Arc::clone(&machine.uart),
                key: terminal.is_terminal().then(EscapeKey::default),
                ending: ending.try_clone().context("cannot clone an eventfd")?,
            }));
        }
        Ok(Self { manager })
    }

    /// Serves events until somebody says how the VM ended.
    pub(super) fn run_until(&mut self, ended: &Receiver<Ending>) -> anyhow::Result<Ending> {
        loop {
            if let Ok(how) = ended.try_recv() {
                return Ok(how);
            }
            self.manager.run().context("the event loop failed")?;
        }
    }
}

fn add(ops: &mut EventOps<'_>, events: Events) -> bool {
    ops.add(events)
        .inspect_err(|error| log::debug!("cannot wait for an event: {error}"))
        .is_ok()
}

/// The end of the VM; the loop looks at the channel whenever this fires.
struct Wake(EventFd);

impl MutEventSubscriber for Wake {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, Events::new(&self.0, EventSet::IN));
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // Nothing to read means that it was read already.
        self.0.read().ok();
    }
}

/// The queues of a disk.
struct Queues(Arc<Mutex<MmioTransport>>);

impl MutEventSubscriber for Queues {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let transport = lock(&self.0);
        for (index, event) in (0..).zip(transport.notifications()) {
            add(ops, Events::with_data(event, index, EventSet::IN));
        }
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps<'_>) {
        let mut transport = lock(&self.0);
        let index = usize::try_from(events.data()).unwrap_or(usize::MAX);
        if let Some(event) = transport.notifications().get(index) {
            // Nothing to read means that it was read already.
            event.read().ok();
        }
        transport.serve_queue(index);
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    socket: UnixStream,
    ending: EndingSender,
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        add(ops, Events::new(&self.socket, EventSet::IN));
    }

    fn process(&mut self, _events: Events, ops: &mut EventOps<'_>) {
        // One is enough.
        ops.remove(Events::empty(&self.socket)).ok();
        self.ending.send(Ending::Stopped("a signal".into()));
    }
}

/// What is typed or piped in.
struct Input {
    uart: Arc<Mutex<Uart>>,
    /// Only a person's keys have a meaning of their own.
    key: Option<EscapeKey>,
    ending: EndingSender,
}

impl MutEventSubscriber for Input {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Regular files and /dev/null cannot be waited for: the guest then has no input.
        add(ops, Events::new(&io::stdin(), EventSet::IN));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let mut bytes = [0; 4096];
        let length = match rustix::io::read(io::stdin(), &mut bytes) {
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return,
            Err(_) => 0,
        };
        if length == 0 {
            debug_assert_eq!(events.fd(), io::stdin().as_raw_fd());
            // The end of the input; the guest runs on.
            ops.remove(Events::empty(&io::stdin())).ok();
            return;
        }
        let typed = bytes.get(..length).unwrap_or_default();
        let Some(key) = &mut self.key else {
            lock(&self.uart).receive(typed);
            return;
        };
        let typed = key.filter(typed);
        lock(&self.uart).receive(&typed.for_guest);
        if typed.quit {
            self.ending.send(Ending::Stopped("Ctrl-A x".into()));
        }
    }
}
