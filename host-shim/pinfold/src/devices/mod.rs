//! Devices of the guest and the [`Bus`] that finds the one behind an address.
//!
//! A device sees offsets into its own window, never guest physical addresses.
//! Invariant of the bus: windows do not overlap.

pub mod serial;
pub mod virtio;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use vmm_sys_util::eventfd::EventFd;

use crate::layout::Range;

/// A device with registers in the guest's address space.
pub trait MmioDevice: Send {
    /// Answers a read of `data.len()` bytes (1, 2, 4 or 8) at `offset` into the window.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes a write of `data.len()` bytes (1, 2, 4 or 8) at `offset` into the window.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// Locks `device`; a panic elsewhere ends the process, so a poisoned lock is never seen.
pub fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new window would overlap one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("device windows at {0:#x} and {1:#x} overlap")]
pub struct Overlap(u64, u64);

/// All devices by address.
#[derive(Default)]
pub struct Bus {
    devices: Vec<(Range, Arc<Mutex<dyn MmioDevice>>)>,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.devices.iter().map(|(window, _)| window))
            .finish()
    }
}

impl Bus {
    /// Puts `device` behind the addresses `window`.
    pub fn insert<D: MmioDevice + 'static>(
        &mut self,
        window: Range,
        device: Arc<Mutex<D>>,
    ) -> Result<(), Overlap> {
        for (other, _) in &self.devices {
            if window.base < other.end() && other.base < window.end() {
                return Err(Overlap(other.base, window.base));
            }
        }
        self.devices.push((window, device));
        Ok(())
    }

    /// Reads from the device at `address`; where there is none, zeroes.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some((window, device)) = self.find(address) {
            lock(device).read(address - window.base, data);
        } else {
            log::debug!("guest reads {address:#x}, where there is no device");
        }
    }

    /// Writes to the device at `address`; where there is none, nothing happens.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((window, device)) = self.find(address) {
            lock(device).write(address - window.base, data);
        } else {
            log::debug!("guest writes {address:#x}, where there is no device");
        }
    }

    fn find(&self, address: u64) -> Option<&(Range, Arc<Mutex<dyn MmioDevice>>)> {
        self.devices
            .iter()
            .find(|(window, _)| (window.base..window.end()).contains(&address))
    }
}

/// An edge-triggered interrupt line: an eventfd that the kernel turns into a pulse (irqfd).
#[derive(Debug)]
pub struct InterruptLine(EventFd);

impl InterruptLine {
    /// A new line that nobody listens to yet.
    pub fn new() -> std::io::Result<Self> {
        EventFd::new(libc::EFD_NONBLOCK).map(Self)
    }

    /// The same line for somebody else.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The eventfd behind it.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.0
    }

    /// Pulses the line.
    pub fn pulse(&self) {
        // An eventfd refuses only when its counter is full, and then a pulse is pending anyway.
        if let Err(error) = self.0.write(1) {
            log::debug!("interrupt line: {error}");
        }
    }
}

impl vm_superio::Trigger for InterruptLine {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.pulse();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(u8);

    impl MmioDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + u8::try_from(offset).unwrap());
        }

        fn write(&mut self, _offset: u64, data: &[u8]) {
            self.0 = data[0];
        }
    }

    #[test]
    fn accesses_reach_the_right_device() {
        let mut bus = Bus::default();
        let window = |base| Range { base, size: 0x10 };
        bus.insert(window(0x100), Arc::new(Mutex::new(Echo(1))))
            .unwrap();
        bus.insert(window(0x110), Arc::new(Mutex::new(Echo(2))))
            .unwrap();
        let mut data = [9];
        bus.read(0x101, &mut data);
        assert_eq!(data, [2]);
        bus.write(0x11F, &[40]);
        bus.read(0x110, &mut data);
        assert_eq!(data, [40]);
        bus.read(0x120, &mut data);
        assert_eq!(data, [0], "nobody there");
        assert_eq!(
            bus.insert(window(0x108), Arc::new(Mutex::new(Echo(3)))),
            Err(Overlap(0x100, 0x108))
        );
    }
}
