//! A guest's RAM as the VMM holds it: [`Ram`], and the devices' guarded window on it,
//! [`DeviceMemory`].
//!
//! `Ram` is the mapping that KVM gets as the memory slot. The VMM writes through it only before the
//! VM starts (kernel, initrd, device tree); whatever the guest touches afterwards is donated and
//! out of reach. Devices use `DeviceMemory`, a second mapping of only the part that the guest may
//! share, so that a descriptor cannot even name an address outside, and behind [`fault_guard`].

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use rustix::fs::MemfdFlags;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

use crate::fault_guard;
use crate::layout::{PAGE, Range};

/// What the kernel's huge pages have: one entry of the level above pages.
const HUGE_PAGE: usize = 2 << 20;

/// What guest RAM is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A memfd of our own (shmem folios).
    Memfd,
    /// Private anonymous memory.
    Anonymous,
    /// A file that exists, such as one in /dev/shm or another process's memfd under /proc.
    File(PathBuf),
}

impl FromStr for Backing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memfd" => Ok(Self::Memfd),
            "anon" => Ok(Self::Anonymous),
            path if path.contains('/') => Ok(Self::File(path.into())),
            other => Err(format!(
                "`{other}` is neither memfd nor anon nor a path (a path contains a slash)"
            )),
        }
    }
}

/// Guest RAM, mapped once as KVM's memory slot.
#[derive(Debug)]
pub struct Ram {
    range: Range,
    slot: Arc<MmapRegion>,
    memory: GuestMemoryMmap,
    file: Option<Arc<File>>,
}

impl Ram {
    /// Maps fresh RAM for the guest addresses `range`.
    pub fn allocate(backing: &Backing, range: Range) -> anyhow::Result<Self> {
        let file = match backing {
            Backing::Anonymous => None,
            Backing::Memfd => Some(Self::memfd(range.size)?),
            Backing::File(path) => Some(
                File::options()
                    .read(true)
                    .write(true)
                    .open(path)
                    .with_context(|| format!("cannot open {} for guest RAM", path.display()))?,
            ),
        }
        .map(Arc::new);
        let size = usize::try_from(range.size).context("guest RAM exceeds the address space")?;
        let region = match &file {
            Some(file) => MmapRegion::from_file(FileOffset::from_arc(Arc::clone(file), 0), size),
            None => MmapRegion::new(size),
        };
        let slot = Arc::new(region.context("cannot map guest RAM")?);
        Ok(Self {
            range,
            memory: one_region(Arc::clone(&slot), range.base)?,
            slot,
            file,
        })
    }

    /// A memfd of `size` bytes.
    pub fn memfd(size: u64) -> anyhow::Result<File> {
        let fd = rustix::fs::memfd_create("pinfold-guest", MemfdFlags::CLOEXEC)
            .context("cannot create a memfd for guest RAM")?;
        rustix::fs::ftruncate(&fd, size).context("cannot size the memfd of guest RAM")?;
        Ok(File::from(fd))
    }

    /// Asks the kernel for huge pages. A guest gets one whole only where its own addresses are aligned like ours.
    pub fn prefer_huge_pages(&self) -> anyhow::Result<()> {
        let base =
            usize::try_from(self.range.base).context("guest RAM exceeds the address space")?;
        if !self.host_address().abs_diff(base).is_multiple_of(HUGE_PAGE) {
            log::warn!("the kernel did not align guest RAM to huge pages");
        }
        let start = self.slot.as_ptr().cast();
        // SAFETY: names exactly the slot's mapping, and changes nothing of its content.
        let done = unsafe { libc::madvise(start, self.slot.size(), libc::MADV_HUGEPAGE) };
        if done == 0 {
            return Ok(());
        }
        Err(std::io::Error::last_os_error()).context("the kernel has no huge pages for guest RAM")
    }

    /// The guest addresses of this RAM.
    #[must_use]
    pub fn range(&self) -> Range {
        self.range
    }

    /// Where the slot's mapping starts in this process.
    #[must_use]
    pub fn host_address(&self) -> usize {
        self.slot.as_ptr().expose_provenance()
    }

    /// All RAM, for loading before the VM starts.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The devices' guarded window on the guest addresses `part`.
    pub fn device_memory(&self, part: Range) -> anyhow::Result<DeviceMemory> {
        let (region, restorable) = self.window(part)?;
        fault_guard::guard(region.as_ptr().expose_provenance(), region.size())
            .context("cannot install the handler of SIGSEGV and SIGBUS")?;
        Ok(DeviceMemory {
            memory: one_region(Arc::new(region), part.base)?,
            accepted: Some(AtomicU64::new(fault_guard::faults())),
            restorable,
        })
    }

    /// A mapping of the guest addresses `part`, and whether it can be mapped again later.
    fn window(&self, part: Range) -> anyhow::Result<(MmapRegion, bool)> {
        let offset = part
            .base
            .checked_sub(self.range.base)
            .filter(|_| part.end() <= self.range.end())
            .context("the bounce pool lies outside guest RAM")?;
        let size = usize::try_from(part.size).context("window exceeds the address space")?;
        let Some(file) = &self.file else {
            return Ok((self.anonymous_view(offset, size)?, false));
        };
        let at = FileOffset::from_arc(Arc::clone(file), offset);
        let view = MmapRegion::from_file(at, size).context("cannot map the bounce pool")?;
        Ok((view, true))
    }

    /// Private anonymous memory cannot be mapped twice, so the window is the slot's own mapping.
    fn anonymous_view(&self, offset: u64, size: usize) -> anyhow::Result<MmapRegion> {
        let offset = usize::try_from(offset).context("window exceeds the address space")?;
        let start = self.slot.as_ptr().wrapping_add(offset);
        // SAFETY: the caller's part lies inside the slot, which lives as long as the machine that
        // owns both, and vm-memory accesses either mapping with volatile accessors only.
        unsafe {
            MmapRegion::build_raw(
                start,
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            )
        }
        .context("cannot use guest RAM as the bounce pool")
    }
}

/// The part of guest RAM that devices may name, guarded against pages that are not shared.
#[derive(Debug)]
pub struct DeviceMemory {
    memory: GuestMemoryMmap,
    /// The fault count up to which faults have been dealt with; nothing if there is no guard.
    accepted: Option<AtomicU64>,
    restorable: bool,
}

impl DeviceMemory {
    /// A window over plain memory, for tests of the devices.
    #[must_use]
    pub fn unguarded(memory: GuestMemoryMmap) -> Self {
        Self {
            memory,
            accepted: None,
            restorable: false,
        }
    }

    /// The memory itself.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Whether an access has hit a page that is not shared since the last [`Self::restore`]; names
    /// the guest page of the latest.
    #[must_use]
    pub fn forbidden_access(&self) -> Option<GuestAddress> {
        let accepted = self.accepted.as_ref()?;
        if fault_guard::faults() == accepted.load(Ordering::Acquire) {
            return None;
        }
        let base = self.memory.iter().next()?.start_addr();
        let offset = u64::try_from(fault_guard::last_offset()).ok()?;
        base.checked_add(offset & !(PAGE - 1))
    }

    /// Gives the window its guest pages back after a forbidden access; says whether that is so.
    pub fn restore(&self) -> bool {
        let (Some(accepted), Some(_)) = (&self.accepted, self.forbidden_access()) else {
            return true;
        };
        if !self.restorable || !self.map_again() {
            return false;
        }
        accepted.store(fault_guard::faults(), Ordering::Release);
        true
    }

    fn map_again(&self) -> bool {
        let Some((region, file)) = self
            .memory
            .iter()
            .next()
            .and_then(|region| Some((region, region.get_mmap().file_offset()?.clone())))
        else {
            return false;
        };
        let Ok(offset) = libc::off_t::try_from(file.start()) else {
            return false;
        };
        let at = region.as_ptr().cast();
        // SAFETY: replaces exactly the mapping that this window owns by the same part of the same
        // file; only volatile accessors of vm-memory use it, so no reference is into it.
        let mapped = unsafe {
            libc::mmap(
                at,
                region.size(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED,
                file.file().as_raw_fd(),
                offset,
            )
        };
        mapped == at
    }
}

fn one_region(mapping: Arc<MmapRegion>, base: u64) -> anyhow::Result<GuestMemoryMmap> {
    let region = GuestRegionMmap::with_arc(mapping, GuestAddress(base))
        .context("guest RAM wraps around the address space")?;
    GuestMemoryMmap::from_regions(vec![region]).context("guest RAM is empty")
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;
    use crate::layout::{MIB, RAM_BASE};

    const RANGE: Range = Range {
        base: RAM_BASE,
        size: 4 * MIB,
    };

    #[test]
    fn backings_are_told_apart() {
        assert_eq!("memfd".parse(), Ok(Backing::Memfd));
        assert_eq!("anon".parse(), Ok(Backing::Anonymous));
        assert_eq!(
            "/dev/shm/ram".parse(),
            Ok(Backing::File("/dev/shm/ram".into()))
        );
        assert!("hugetlb".parse::<Backing>().is_err());
    }

    #[test]
    fn loading_and_devices_see_the_same_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(RANGE.size).unwrap();
        for backing in [
            Backing::Memfd,
            Backing::Anonymous,
            Backing::File(file.path().into()),
        ] {
            let ram = Ram::allocate(&backing, RANGE).unwrap();
            let at = GuestAddress(RAM_BASE + 3 * MIB);
            ram.memory().write_obj(0x1122_3344_u32, at).unwrap();
            let part = Range {
                base: at.0,
                size: MIB,
            };
            let (region, _) = ram.window(part).unwrap();
            let window = one_region(Arc::new(region), part.base).unwrap();
            assert_eq!(window.read_obj::<u32>(at).unwrap(), 0x1122_3344);
            assert!(
                window.read_obj::<u32>(GuestAddress(RAM_BASE)).is_err(),
                "outside the window"
            );
            let beyond = Range {
                base: at.0,
                size: 2 * MIB,
            };
            assert!(ram.window(beyond).is_err());
        }
    }
}
