//! Virtio devices: what a device is to its transport ([`VirtioDevice`]), and why it stops
//! ([`DeviceError`]).
//!
//! OASIS Virtual I/O Device 1.2. Every address in a queue or descriptor is the guest's claim:
//! vm-memory checks it against the device window, [`fault_guard`](crate::fault_guard) answers for
//! pages that are in the window and not shared. Either ends in `DEVICE_NEEDS_RESET`, never in us.

pub mod block;
pub mod mmio;

use thiserror::Error;
use virtio_queue::DescriptorChain;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Why a device can serve no more until the driver resets it.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A ring or descriptor does not make sense, or lies outside the device window.
    #[error("{0}")]
    Queue(#[from] virtio_queue::Error),
    /// A request lacks parts that the device cannot do without.
    #[error("a request {0}")]
    Request(&'static str),
    /// The access hit a page that the guest has not shared.
    #[error("guest page {:#x} is not shared with the host", .0.0)]
    NotShared(GuestAddress),
}

/// What makes a device a block device or another; the transport does the rest.
pub trait VirtioDevice: Send {
    /// The device's number (section 5).
    fn device_type(&self) -> u32;

    /// The features of this device type that are offered.
    fn features(&self) -> u64;

    /// The largest size of each queue.
    fn queue_sizes(&self) -> &[u16];

    /// The configuration space as it is now.
    fn configuration(&self) -> &[u8];

    /// Does what `chain` asks and says how many bytes of it were written.
    fn serve(
        &mut self,
        chain: DescriptorChain<&GuestMemoryMmap>,
        memory: &GuestMemoryMmap,
    ) -> Result<u32, DeviceError>;
}
