//! A guest whose descriptors name a page that it has not shared gets a device error; the VMM lives.
//!
//! A file that is cut short stands in for the page: touching it raises SIGBUS, as touching an
//! isolated folio does. One test per process, because the guard is one per process.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::io::Write;
use std::sync::Arc;

use pinfold::devices::virtio::block::{Block, DiskArgument};
use pinfold::devices::virtio::mmio::MmioTransport;
use pinfold::devices::{InterruptLine, MmioDevice};
use pinfold::layout::{MIB, PAGE, RAM_BASE, Range};
use pinfold::memory::{Backing, DeviceMemory, Ram};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const POOL: Range = Range {
    base: RAM_BASE + MIB,
    size: MIB,
};
const RINGS: u64 = POOL.base;
const HEADER: u64 = POOL.base + 4 * PAGE;
const STATUS: u64 = POOL.base + 5 * PAGE;
/// The last page of the pool, which goes missing.
const MISSING: u64 = POOL.base + POOL.size - PAGE;
const WRITABLE: u16 = 2;
const NEEDS_RESET: u32 = 0x40;

struct Driver {
    device: MmioTransport,
    memory: Arc<DeviceMemory>,
}

impl Driver {
    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes());
    }

    fn ram(&self) -> &GuestMemoryMmap {
        self.memory.memory()
    }

    /// Resets the device, brings it up again, and asks for the disk's first sector at `data`.
    fn read_first_sector(&mut self, data: u64) {
        self.ram()
            .write_slice(&[0; 16], GuestAddress(HEADER))
            .unwrap();
        self.ram().write_obj(0xFF_u8, GuestAddress(STATUS)).unwrap();
        for (offset, value) in [(0x070, 0), (0x070, 3), (0x024, 1), (0x020, 3), (0x070, 11)] {
            self.write(offset, value);
        }
        let memory = Arc::clone(&self.memory);
        memory
            .memory()
            .write_slice(&[0; 4096], GuestAddress(RINGS))
            .unwrap();
        let queue = MockSplitQueue::create(memory.memory(), GuestAddress(RINGS), 16);
        self.write(0x038, 16);
        let rings = [
            queue.desc_table_addr(),
            queue.avail_addr(),
            queue.used_addr(),
        ];
        for (offset, ring) in [0x080, 0x090, 0x0A0].into_iter().zip(rings) {
            self.write(offset, u32::try_from(ring.0).unwrap());
        }
        self.write(0x044, 1);
        self.write(0x070, 15);
        let chain = [
            RawDescriptor::from(Descriptor::new(HEADER, 16, 1, 1)),
            RawDescriptor::from(Descriptor::new(data, 512, WRITABLE | 1, 2)),
            RawDescriptor::from(Descriptor::new(STATUS, 1, WRITABLE, 0)),
        ];
        queue.add_desc_chains(&chain, 0).unwrap();
        self.device.serve_queue(0);
    }
}

#[test]
fn a_forbidden_page_is_a_device_error_until_the_reset() {
    let mut disk = tempfile::NamedTempFile::new().unwrap();
    disk.write_all(&[0xD5; 512]).unwrap();
    let block = Block::open(&DiskArgument {
        path: disk.path().into(),
        read_only: true,
    })
    .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(2 * MIB).unwrap();
    let ram = Ram::allocate(
        &Backing::File(file.path().into()),
        Range {
            base: RAM_BASE,
            size: 2 * MIB,
        },
    )
    .unwrap();
    let memory = Arc::new(ram.device_memory(POOL).unwrap());
    let line = InterruptLine::new().unwrap();
    let device = MmioTransport::new(Box::new(block), Arc::clone(&memory), line).unwrap();
    let mut driver = Driver { device, memory };

    driver.read_first_sector(MISSING);
    assert_eq!(driver.read(0x070) & NEEDS_RESET, 0);
    assert_eq!(
        driver.ram().read_obj::<u8>(GuestAddress(STATUS)).unwrap(),
        0
    );

    file.as_file().set_len(2 * MIB - PAGE).unwrap();
    driver.read_first_sector(MISSING);
    assert_eq!(driver.read(0x070) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(
        driver.memory.forbidden_access(),
        Some(GuestAddress(MISSING))
    );

    file.as_file().set_len(2 * MIB).unwrap();
    driver.read_first_sector(MISSING);
    assert_eq!(driver.read(0x070) & NEEDS_RESET, 0);
    let mut sector = [0; 512];
    ram.memory()
        .read_slice(&mut sector, GuestAddress(MISSING))
        .unwrap();
    assert_eq!(sector, [0xD5; 512], "the guest's own page, not the scratch");
}
