//! virtio-blk on a file of the host: [`Block`] (virtio 1.2 section 5.2).
//!
//! Data goes through a buffer of our own in both directions: the kernel is never asked to read
//! into or write from guest memory, so that a page the guest has not shared can at most make our
//! own guarded copy fault.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES,
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{DescriptorChain, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::{DeviceError, VirtioDevice};

/// The unit of addresses and lengths (section 5.2.4).
pub const SECTOR: u64 = 512;

const QUEUE_SIZE: u16 = 256;
/// A request's data segments: what the queue holds less header and status.
const SEGMENTS: u32 = 254;
/// Bytes that move between guest and file at a time.
const CHUNK: usize = 64 * 1024;

/// `--disk`: a file, read-only if `,ro` follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArgument {
    /// The file or block device.
    pub path: PathBuf,
    /// Whether the guest may not write.
    pub read_only: bool,
}

impl FromStr for DiskArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, read_only) = match text.rsplit_once(',') {
            None => (text, false),
            Some((path, "ro")) => (path, true),
            Some((path, "rw")) => (path, false),
            Some((_, other)) => return Err(format!("`{other}` is not a disk option (ro or rw)")),
        };
        if path.is_empty() {
            return Err("names no file".into());
        }
        Ok(Self {
            path: path.into(),
            read_only,
        })
    }
}

/// Why a file cannot be a disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It cannot be opened as asked.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// Its size is no whole number of sectors, or zero.
    #[error("has {0} bytes, which is not a whole number of 512-byte sectors")]
    Size(u64),
}

/// The device.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    configuration: [u8; 16],
}

impl Block {
    /// Opens the file that `disk` names.
    pub fn open(disk: &DiskArgument) -> Result<Self, DiskError> {
        let mut file = File::options()
            .read(true)
            .write(!disk.read_only)
            .open(&disk.path)
            .map_err(DiskError::Open)?;
        // Unlike the metadata, seeking also knows the size of a block device.
        let size = file.seek(SeekFrom::End(0)).map_err(DiskError::Open)?;
        if size == 0 || size % SECTOR != 0 {
            return Err(DiskError::Size(size));
        }
        Ok(Self::new(file, size / SECTOR, disk.read_only))
    }

    fn new(file: File, sectors: u64, read_only: bool) -> Self {
        // struct virtio_blk_config: capacity, size_max (not offered), seg_max.
        let mut configuration = [0; 16];
        let fields = sectors
            .to_le_bytes()
            .into_iter()
            .chain([0; 4])
            .chain(SEGMENTS.to_le_bytes());
        for (byte, value) in configuration.iter_mut().zip(fields) {
            *byte = value;
        }
        Self {
            file,
            sectors,
            read_only,
            configuration,
        }
    }

    /// The file offset of `length` bytes from `sector` on, if they are on the disk.
    fn place(&self, sector: u64, length: usize) -> Option<u64> {
        let length = u64::try_from(length).ok()?;
        let end = sector.checked_add(length / SECTOR)?;
        (length % SECTOR == 0 && end <= self.sectors).then_some(())?;
        sector.checked_mul(SECTOR)
    }

    fn read(&self, sector: u64, data: &mut Writer<'_>) -> io::Result<()> {
        let mut at = self
            .place(sector, data.available_bytes())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut buffer = vec![0; CHUNK.min(data.available_bytes())];
        while data.available_bytes() > 0 {
            let length = buffer.len().min(data.available_bytes());
            let part = buffer.get_mut(..length).ok_or(io::ErrorKind::Other)?;
            self.file.read_exact_at(part, at)?;
            data.write_all(part)?;
            at += u64::try_from(length).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn write(&self, sector: u64, data: &mut Reader<'_>) -> io::Result<()> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut at = self
            .place(sector, data.available_bytes())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut buffer = vec![0; CHUNK.min(data.available_bytes())];
        while data.available_bytes() > 0 {
            let length = buffer.len().min(data.available_bytes());
            let part = buffer.get_mut(..length).ok_or(io::ErrorKind::Other)?;
            data.read_exact(part)?;
            self.file.write_all_at(part, at)?;
            at += u64::try_from(length).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Does one request; the data of a read goes to `writer`, that of a write comes from `reader`.
    fn execute(
        &self,
        header: Header,
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
    ) -> io::Result<u32> {
        match header.kind {
            VIRTIO_BLK_T_IN => self.read(header.sector, writer)?,
            VIRTIO_BLK_T_OUT => self.write(header.sector, reader)?,
            VIRTIO_BLK_T_FLUSH => self.file.sync_data()?,
            VIRTIO_BLK_T_GET_ID => {
                let mut name = [0; 20];
                debug_assert_eq!(u32::try_from(name.len()), Ok(VIRTIO_BLK_ID_BYTES));
                for (byte, letter) in name.iter_mut().zip(b"pinfold") {
                    *byte = *letter;
                }
                writer.write_all(&name)?;
            }
            _ => return Ok(VIRTIO_BLK_S_UNSUPP),
        }
        Ok(VIRTIO_BLK_S_OK)
    }
}

/// `struct virtio_blk_req`'s first 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: u32,
    sector: u64,
}

impl Header {
    fn take(reader: &mut Reader<'_>) -> Result<Self, DeviceError> {
        let mut word = [0; 4];
        let mut sector = [0; 8];
        let mut kind = None;
        // Type, then a reserved word, then the sector.
        for _ in 0..2 {
            reader
                .read_exact(&mut word)
                .map_err(|_| DeviceError::Request("has no header"))?;
            kind.get_or_insert(u32::from_le_bytes(word));
        }
        reader
            .read_exact(&mut sector)
            .map_err(|_| DeviceError::Request("has no header"))?;
        Ok(Self {
            kind: kind.unwrap_or(u32::MAX),
            sector: u64::from_le_bytes(sector),
        })
    }
}

/// What the guest does wrong it can do at will; what the host's disk does wrong the user must see.
fn complain(header: Header, error: &io::Error) {
    let Header { kind, sector } = header;
    let level = if matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::ReadOnlyFilesystem
    ) {
        log::Level::Debug
    } else {
        log::Level::Warn
    };
    log::log!(level, "disk request {kind} at sector {sector}: {error}");
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            0
        };
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | read_only
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn configuration(&self) -> &[u8] {
        &self.configuration
    }

    fn serve(
        &mut self,
        chain: DescriptorChain<&GuestMemoryMmap>,
        memory: &GuestMemoryMmap,
    ) -> Result<u32, DeviceError> {
        let mut reader = chain.clone().reader(memory)?;
        let mut writer = chain.writer(memory)?;
        let header = Header::take(&mut reader)?;
        let room = writer
            .available_bytes()
            .checked_sub(1)
            .ok_or(DeviceError::Request("has no room for its status"))?;
        let mut last = writer.split_at(room)?;
        let status = self
            .execute(header, &mut reader, &mut writer)
            .unwrap_or_else(|error| {
                complain(header, &error);
                VIRTIO_BLK_S_IOERR
            });
        let status = u8::try_from(status).unwrap_or(u8::MAX);
        last.write_all(&[status])
            .map_err(|_| DeviceError::Request("has no room for its status"))?;
        let written = writer.bytes_written().saturating_add(1);
        Ok(u32::try_from(written).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use virtio_queue::desc::RawDescriptor;
    use virtio_queue::desc::split::Descriptor;
    use virtio_queue::mock::MockSplitQueue;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const HEADER: u64 = 0x5000;
    const DATA: u64 = 0x6000;
    const STATUS: u64 = 0x9000;
    const WRITABLE: u16 = 2;

    fn disk(read_only: bool) -> Block {
        let file = tempfile::tempfile().unwrap();
        let contents: Vec<u8> = (0..16 * 512_u32).map(|i| i.to_le_bytes()[0]).collect();
        file.write_all_at(&contents, 0).unwrap();
        Block::new(file, 16, read_only)
    }

    struct Outcome {
        written: u32,
        status: u8,
    }

    /// Runs one request with `length` bytes of data on memory that `prepare` has filled.
    fn request(
        block: &mut Block,
        memory: &GuestMemoryMmap,
        kind: u32,
        sector: u64,
        length: u32,
    ) -> Result<Outcome, DeviceError> {
        let queue = MockSplitQueue::create(memory, GuestAddress(0x1000), 16);
        memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
        memory.write_obj(0_u32, GuestAddress(HEADER + 4)).unwrap();
        memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        memory.write_obj(0xFF_u8, GuestAddress(STATUS)).unwrap();
        let flags = if kind == VIRTIO_BLK_T_OUT {
            0
        } else {
            WRITABLE
        };
        let mut descriptors = vec![RawDescriptor::from(Descriptor::new(HEADER, 16, 0, 0))];
        if length > 0 {
            descriptors.push(RawDescriptor::from(Descriptor::new(DATA, length, flags, 0)));
        }
        descriptors.push(RawDescriptor::from(Descriptor::new(STATUS, 1, WRITABLE, 0)));
        let chain = queue.build_desc_chain(&descriptors).unwrap();
        let written = block.serve(chain, memory)?;
        Ok(Outcome {
            written,
            status: memory.read_obj(GuestAddress(STATUS)).unwrap(),
        })
    }

    fn ram() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0x1000), 0x2_0000)]).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let memory = ram();
        let mut block = disk(false);
        memory
            .write_slice(&[0xA5; 1024], GuestAddress(DATA))
            .unwrap();
        let write = request(&mut block, &memory, VIRTIO_BLK_T_OUT, 3, 1024).unwrap();
        assert_eq!((write.status, write.written), (0, 1));
        memory.write_slice(&[0; 1536], GuestAddress(DATA)).unwrap();
        let read = request(&mut block, &memory, VIRTIO_BLK_T_IN, 2, 1536).unwrap();
        assert_eq!((read.status, read.written), (0, 1537));
        let mut got = [0; 1536];
        memory.read_slice(&mut got, GuestAddress(DATA)).unwrap();
        assert_eq!(got[0..4], [0, 1, 2, 3]);
        assert_eq!(got[512..], [0xA5; 1024]);
    }

    #[test]
    fn requests_beyond_the_end_fail_and_change_nothing() {
        let memory = ram();
        let mut block = disk(false);
        for (kind, sector, length) in [
            (VIRTIO_BLK_T_IN, 16, 512),
            (VIRTIO_BLK_T_OUT, 15, 1024),
            (VIRTIO_BLK_T_OUT, u64::MAX, 512),
            (VIRTIO_BLK_T_IN, u64::MAX / 512, 512),
            (VIRTIO_BLK_T_IN, 0, 100),
        ] {
            let outcome = request(&mut block, &memory, kind, sector, length).unwrap();
            assert_eq!(outcome.status, 1, "{kind} {sector} {length}");
        }
        let mut first = [0; 4];
        block.file.read_exact_at(&mut first, 15 * 512).unwrap();
        assert_eq!(first, [0, 1, 2, 3]);
    }

    #[test]
    fn a_read_only_disk_refuses_writes() {
        let memory = ram();
        let mut block = disk(true);
        assert_ne!(block.features() & 1 << VIRTIO_BLK_F_RO, 0);
        let write = request(&mut block, &memory, VIRTIO_BLK_T_OUT, 0, 512).unwrap();
        assert_eq!(write.status, 1);
        let read = request(&mut block, &memory, VIRTIO_BLK_T_IN, 0, 512).unwrap();
        assert_eq!(read.status, 0);
    }

    #[test]
    fn flush_identity_and_unknown_requests() {
        let memory = ram();
        let mut block = disk(false);
        let flush = request(&mut block, &memory, VIRTIO_BLK_T_FLUSH, 0, 0).unwrap();
        assert_eq!((flush.status, flush.written), (0, 1));
        let identity = request(&mut block, &memory, VIRTIO_BLK_T_GET_ID, 0, 20).unwrap();
        assert_eq!((identity.status, identity.written), (0, 21));
        let mut name = [0; 8];
        memory.read_slice(&mut name, GuestAddress(DATA)).unwrap();
        assert_eq!(&name, b"pinfold\0");
        let unknown = request(&mut block, &memory, 99, 0, 512).unwrap();
        assert_eq!(unknown.status, 2);
    }

    #[test]
    fn mutilated_requests_are_device_errors() {
        let memory = ram();
        let mut block = disk(false);
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let short = [RawDescriptor::from(Descriptor::new(HEADER, 15, 0, 0))];
        let chain = queue.build_desc_chain(&short).unwrap();
        assert!(block.serve(chain, &memory).is_err());
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let no_status = [RawDescriptor::from(Descriptor::new(HEADER, 16, 0, 0))];
        let chain = queue.build_desc_chain(&no_status).unwrap();
        assert!(block.serve(chain, &memory).is_err());
        let queue = MockSplitQueue::create(&memory, GuestAddress(0x1000), 16);
        let outside = [
            RawDescriptor::from(Descriptor::new(HEADER, 16, 0, 0)),
            RawDescriptor::from(Descriptor::new(0xFFFF_0000, 512, WRITABLE, 0)),
            RawDescriptor::from(Descriptor::new(STATUS, 1, WRITABLE, 0)),
        ];
        let chain = queue.build_desc_chain(&outside).unwrap();
        assert!(block.serve(chain, &memory).is_err());
    }

    #[test]
    fn the_argument_says_who_may_write() {
        let parse = |text: &str| text.parse::<DiskArgument>();
        assert!(parse("a.img,ro").unwrap().read_only);
        assert!(!parse("a.img").unwrap().read_only);
        assert!(!parse("a.img,rw").unwrap().read_only);
        assert!(parse("a.img,wx").is_err());
        assert!(parse(",ro").is_err());
    }

    #[test]
    fn odd_files_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let argument = DiskArgument {
            path: file.path().into(),
            read_only: true,
        };
        assert!(matches!(Block::open(&argument), Err(DiskError::Size(0))));
        file.as_file().set_len(1000).unwrap();
        assert!(matches!(Block::open(&argument), Err(DiskError::Size(1000))));
        file.as_file().set_len(1024).unwrap();
        let block = Block::open(&argument).unwrap();
        assert_eq!(block.configuration()[0], 2);
    }
}
