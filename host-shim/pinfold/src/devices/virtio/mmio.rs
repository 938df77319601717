//! The virtio-mmio transport, version 2: [`MmioTransport`] (virtio 1.2 section 4.2).
//!
//! Registers are served on the vCPU's thread and touch no guest memory; queues are served on the
//! event loop's thread when a queue's notification eventfd fires.
//!
//! Invariant: once `DEVICE_NEEDS_RESET` is set, no queue is touched until the driver resets the device.

use std::fmt;
use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::{DeviceError, VirtioDevice};
use crate::devices::{InterruptLine, MmioDevice};
use crate::memory::DeviceMemory;

/// Where the driver writes to notify a queue (for an ioeventfd).
pub const QUEUE_NOTIFY: u64 = 0x050;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"PNFD");
const CONFIGURATION: u64 = 0x100;

/// Features of the transport: modern, and addresses are what the DMA API says (bounce buffers).
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_F_ACCESS_PLATFORM | 1 << VIRTIO_RING_F_EVENT_IDX;

/// A virtio device behind a window of registers.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    memory: Arc<DeviceMemory>,
    line: InterruptLine,
    notifications: Vec<EventFd>,
    queues: Vec<Queue>,
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: usize,
    generation: u32,
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("type", &self.device.device_type())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl MmioTransport {
    /// Puts `device` behind registers; it works in `memory` and interrupts through `line`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<DeviceMemory>,
        line: InterruptLine,
    ) -> io::Result<Self> {
        let mut notifications = Vec::new();
        let mut queues = Vec::new();
        for size in device.queue_sizes() {
            notifications.push(EventFd::new(libc::EFD_NONBLOCK)?);
            queues.push(Queue::new(*size).map_err(io::Error::other)?);
        }
        Ok(Self {
            device,
            memory,
            line,
            notifications,
            queues,
            status: 0,
            interrupt_status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            generation: 0,
        })
    }

    /// The eventfd of each queue; when one fires, [`Self::serve_queue`] is due.
    #[must_use]
    pub fn notifications(&self) -> &[EventFd] {
        &self.notifications
    }

    /// Serves what the driver has made available in queue `index`.
    pub fn serve_queue(&mut self, index: usize) {
        if self.status & VIRTIO_CONFIG_S_DRIVER_OK == 0
            || self.status & VIRTIO_CONFIG_S_NEEDS_RESET != 0
        {
            return;
        }
        match self.drain(index) {
            Ok(true) => self.interrupt(VIRTIO_MMIO_INT_VRING),
            Ok(false) => {}
            Err(error) => self.fail(&error),
        }
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// Serves one queue; says whether the driver wants an interrupt for it.
    fn drain(&mut self, index: usize) -> Result<bool, DeviceError> {
        let memory = self.memory.memory();
        let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.ready()) else {
            return Ok(false);
        };
        // One queue's worth of requests at a time, so that a busy guest cannot keep the event loop
        // from its other work.
        let mut budget = queue.size();
        queue.disable_notification(memory)?;
        loop {
            let Some(chain) = queue.iter(memory)?.next() else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            let written = self.device.serve(chain, memory)?;
            if let Some(page) = self.memory.forbidden_access() {
                return Err(DeviceError::NotShared(page));
            }
            queue.add_used(memory, head, written)?;
            budget = budget.saturating_sub(1);
            if budget == 0 {
                if let Some(again) = self.notifications.get(index) {
                    notify(again);
                }
                break;
            }
        }
        let wanted = queue.needs_notification(memory)?;
        match self.memory.forbidden_access() {
            Some(page) => Err(DeviceError::NotShared(page)),
            None => Ok(wanted),
        }
    }

    /// Tells the driver that the device is broken until it is reset (section 2.1.2).
    fn fail(&mut self, error: &DeviceError) {
        log::error!("virtio device {} stops: {error}", self.device.device_type());
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.generation = self.generation.wrapping_add(1);
        self.interrupt(VIRTIO_MMIO_INT_CONFIG);
    }

    fn interrupt(&mut self, cause: u32) {
        self.interrupt_status |= cause;
        self.line.pulse();
    }

    fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.reset();
        }
        self.interrupt_status = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.status = if self.memory.restore() {
            0
        } else {
            log::error!("the device window cannot be restored with this backing");
            VIRTIO_CONFIG_S_NEEDS_RESET
        };
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let mut value = value & 0xFF & !VIRTIO_CONFIG_S_NEEDS_RESET;
        let fresh = value & !self.status;
        if fresh & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.features_are_acceptable() {
            value &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        self.status |= value;
        if fresh & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.activate();
        }
    }

    /// A driver may leave out any feature but the modern interface.
    fn features_are_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0
            && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let event_index = self.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let memory = self.memory.memory();
        let mut sound = true;
        for queue in &mut self.queues {
            queue.set_event_idx(event_index);
            sound &= !queue.ready() || queue.is_valid(memory);
        }
        if !sound {
            self.fail(&DeviceError::Queue(virtio_queue::Error::QueueNotReady));
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select);
        match offset {
            0x000 => MAGIC,
            0x004 => VERSION,
            0x008 => self.device.device_type(),
            0x00C => VENDOR,
            0x010 => half(self.offered_features(), self.device_features_select),
            0x034 => queue.map_or(0, |queue| u32::from(queue.max_size())),
            0x044 => queue.map_or(0, |queue| u32::from(queue.ready())),
            0x060 => self.interrupt_status,
            0x070 => self.status,
            // No shared memory regions: their length reads as -1 (section 4.2.2).
            0x0B0 | 0x0B4 => u32::MAX,
            0x0FC => self.generation,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            0x014 => self.device_features_select = value,
            0x020 => self.accept_features(value),
            0x024 => self.driver_features_select = value,
            0x030 => self.queue_select = usize::try_from(value).unwrap_or(usize::MAX),
            QUEUE_NOTIFY => {
                let index = usize::try_from(value).unwrap_or(usize::MAX);
                if let Some(event) = self.notifications.get(index) {
                    notify(event);
                }
            }
            0x064 => self.interrupt_status &= !value,
            0x070 => self.write_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_features_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let mask = u64::from(u32::MAX) << shift;
        self.driver_features = self.driver_features & !mask | u64::from(value) << shift;
    }

    /// Queues are set up before the driver says `DRIVER_OK`, never after.
    fn write_queue_register(&mut self, offset: u64, value: u32) {
        if self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_select) else {
            return;
        };
        match offset {
            0x038 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x044 => queue.set_ready(value == 1),
            0x080 => queue.set_desc_table_address(Some(value), None),
            0x084 => queue.set_desc_table_address(None, Some(value)),
            0x090 => queue.set_avail_ring_address(Some(value), None),
            0x094 => queue.set_avail_ring_address(None, Some(value)),
            0x0A0 => queue.set_used_ring_address(Some(value), None),
            0x0A4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn read_configuration(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Ok(start) = usize::try_from(offset) else {
            return;
        };
        let available = self.device.configuration().iter().skip(start);
        for (byte, value) in data.iter_mut().zip(available) {
            *byte = *value;
        }
    }
}

impl MmioDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(at) = offset.checked_sub(CONFIGURATION) {
            self.read_configuration(at, data);
        } else if let Some(word) = data
            .first_chunk_mut::<4>()
            .filter(|_| offset.is_multiple_of(4))
        {
            *word = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // Configuration spaces here are read-only, and registers are words (section 4.2.2.2).
        if let (true, Ok(word)) = (offset < CONFIGURATION, data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }
}

fn notify(event: &EventFd) {
    // An eventfd refuses only when its counter is full, and then it has fired anyway.
    if let Err(error) = event.write(1) {
        log::debug!("queue notification: {error}");
    }
}

/// The 32 bits of `features` that `select` names.
fn half(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use virtio_queue::DescriptorChain;
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    struct Stamp;

    impl VirtioDevice for Stamp {
        fn device_type(&self) -> u32 {
            42
        }

        fn features(&self) -> u64 {
            1 << 5
        }

        fn queue_sizes(&self) -> &[u16] {
            &[16]
        }

        fn configuration(&self) -> &[u8] {
            &[1, 2, 3, 4, 5]
        }

        fn serve(
            &mut self,
            chain: DescriptorChain<&GuestMemoryMmap>,
            memory: &GuestMemoryMmap,
        ) -> Result<u32, DeviceError> {
            let mut writer = chain.writer(memory)?;
            io::Write::write_all(&mut writer, &[0x5A; 4])
                .map_err(|_| DeviceError::Request("is too short"))?;
            Ok(4)
        }
    }

    fn transport(memory: &GuestMemoryMmap) -> MmioTransport {
        MmioTransport::new(
            Box::new(Stamp),
            Arc::new(DeviceMemory::unguarded(memory.clone())),
            InterruptLine::new().unwrap(),
        )
        .unwrap()
    }

    fn ram() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x1_0000)]).unwrap()
    }

    fn read(device: &mut MmioTransport, offset: u64) -> u32 {
        let mut data = [0; 4];
        device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(device: &mut MmioTransport, offset: u64, value: u32) {
        device.write(offset, &value.to_le_bytes());
    }

    /// Takes the steps of section 3.1.1 up to `DRIVER_OK`, with the queue at `rings`.
    fn bring_up(device: &mut MmioTransport, rings: [u64; 3]) {
        write(device, 0x070, 3);
        write(device, 0x024, 1);
        write(device, 0x020, 3);
        write(device, 0x070, 11);
        assert_eq!(read(device, 0x070), 11, "features accepted");
        write(device, 0x030, 0);
        write(device, 0x038, 16);
        for (offset, ring) in [0x080, 0x090, 0x0A0].into_iter().zip(rings) {
            write(device, offset, u32::try_from(ring).unwrap());
            write(device, offset + 4, 0);
        }
        write(device, 0x044, 1);
        write(device, 0x070, 15);
    }

    fn rings(queue: &MockSplitQueue<'_, GuestMemoryMmap>) -> [u64; 3] {
        [
            queue.desc_table_addr().0,
            queue.avail_addr().0,
            queue.used_addr().0,
        ]
    }

    #[test]
    fn the_driver_finds_a_modern_device() {
        let memory = ram();
        let mut device = transport(&memory);
        assert_eq!(read(&mut device, 0x000), 0x7472_6976);
        assert_eq!(read(&mut device, 0x004), 2);
        assert_eq!(read(&mut device, 0x008), 42);
        write(&mut device, 0x014, 1);
        assert_eq!(read(&mut device, 0x010), 3, "VERSION_1 and ACCESS_PLATFORM");
        let mut wide = [0; 8];
        device.read(0x101, &mut wide);
        assert_eq!(wide, [2, 3, 4, 5, 0, 0, 0, 0]);
    }

    #[test]
    fn legacy_and_unknown_features_are_refused() {
        let memory = ram();
        for (select, value) in [(0, 1 << 5), (1, 1 | 1 << 20)] {
            let mut device = transport(&memory);
            write(&mut device, 0x070, 3);
            write(&mut device, 0x024, select);
            write(&mut device, 0x020, value);
            write(&mut device, 0x070, 11);
            assert_eq!(read(&mut device, 0x070), 3);
        }
    }

    #[test]
    fn a_request_is_served_and_interrupts() {
        let memory = ram();
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let mut device = transport(&memory);
        bring_up(&mut device, rings(&queue));
        let buffer = Descriptor::new(0x8000, 4, 2, 0);
        queue
            .add_desc_chains(&[RawDescriptor::from(buffer)], 0)
            .unwrap();
        write(&mut device, QUEUE_NOTIFY, 0);
        assert!(device.notifications()[0].read().is_ok());
        device.serve_queue(0);
        assert_eq!(
            memory.read_obj::<u32>(GuestAddress(0x8000)).unwrap(),
            0x5A5A_5A5A
        );
        assert_eq!(read(&mut device, 0x060), 1);
        assert!(device.line.event().read().is_ok());
        write(&mut device, 0x064, 1);
        assert_eq!(read(&mut device, 0x060), 0);
    }

    #[test]
    fn an_address_outside_the_window_is_a_device_error() {
        let memory = ram();
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let mut device = transport(&memory);
        bring_up(&mut device, rings(&queue));
        let outside = Descriptor::new(0x9_0000, 4, 2, 0);
        queue
            .add_desc_chains(&[RawDescriptor::from(outside)], 0)
            .unwrap();
        device.serve_queue(0);
        assert_eq!(read(&mut device, 0x070) & 0x40, 0x40, "needs reset");
        assert_eq!(read(&mut device, 0x060), 2, "configuration change");
        write(&mut device, 0x070, 0);
        assert_eq!(read(&mut device, 0x070), 0);
    }

    #[test]
    fn rings_outside_the_window_are_a_device_error() {
        let memory = ram();
        let mut device = transport(&memory);
        bring_up(&mut device, [0x9_0000, 0x9_1000, 0x9_2000]);
        assert_eq!(read(&mut device, 0x070) & 0x40, 0x40);
        device.serve_queue(0);
    }

    #[test]
    fn queues_do_not_move_while_the_driver_runs() {
        let memory = ram();
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let mut device = transport(&memory);
        bring_up(&mut device, rings(&queue));
        write(&mut device, 0x080, 0x2000);
        assert_eq!(device.queues[0].desc_table(), 0x1000);
    }

    #[test]
    fn any_register_takes_any_value() {
        let memory = ram();
        let mut device = transport(&memory);
        for offset in (0..0x200).step_by(4) {
            for value in [0, 1, 0xFF, 0x8000_0000, u32::MAX] {
                write(&mut device, offset, value);
                read(&mut device, offset);
                device.serve_queue(0);
            }
        }
        device.write(0x070, &[1]);
        device.read(0x1FF, &mut [0; 8]);
    }
}
