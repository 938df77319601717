//! Pages of this process to pin and to offer: [`Pages`].
//!
//! Invariant: every page was written to, so that it exists and is nobody else's.

use anyhow::Context;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};

use crate::layout::PAGE;

/// What the kernel's huge pages have: one entry of the level above pages.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Private pages of this process.
#[derive(Debug)]
pub(crate) struct Pages {
    memory: GuestMemoryMmap,
    start: usize,
}

impl Pages {
    /// Maps `count` pages and writes to each, so that it exists.
    pub(crate) fn new(count: u64) -> anyhow::Result<Self> {
        let pages = Self::map(usize::try_from(count * PAGE)?)?;
        pages.write_all()?;
        Ok(pages)
    }

    /// Maps one huge page and asks the kernel to have it whole; whether it has, its pin word tells.
    pub(crate) fn huge() -> anyhow::Result<Self> {
        let whole = Self::map(2 * HUGE_PAGE)?;
        let start = whole.start.next_multiple_of(HUGE_PAGE);
        let pages = Self { start, ..whole };
        let address = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the second half of the mapping at the latest, and nothing of its content changes.
        let done = unsafe { libc::madvise(address, HUGE_PAGE, libc::MADV_HUGEPAGE) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).context("the kernel has no huge pages");
        }
        pages.write_all()?;
        Ok(pages)
    }

    fn map(size: usize) -> anyhow::Result<Self> {
        let region = MmapRegion::<()>::new(size).context("cannot map memory")?;
        let start = region.as_ptr().expose_provenance();
        let region = GuestRegionMmap::new(region, GuestAddress(0)).context("no such address")?;
        let memory = GuestMemoryMmap::from_regions(vec![region])?;
        Ok(Self { memory, start })
    }

    fn write_all(&self) -> anyhow::Result<()> {
        let size = self.memory.last_addr().0 + 1;
        (0..size / PAGE).try_for_each(|index| self.fill(index, 0x5A))
    }

    /// Where page `index` lies.
    pub(crate) fn address(&self, index: u64) -> anyhow::Result<usize> {
        let offset = usize::try_from(index * PAGE)?;
        self.start.checked_add(offset).context("no such page")
    }

    /// Fills a page with a byte.
    pub(crate) fn fill(&self, index: u64, byte: u8) -> anyhow::Result<()> {
        let content = vec![byte; usize::try_from(PAGE)?];
        Ok(self
            .memory
            .write_slice(&content, GuestAddress(index * PAGE))?)
    }

    /// Writes to the beginning of the page that lies at [`Pages::address`] of this index.
    pub(crate) fn write(&self, index: u64, content: &[u8]) -> anyhow::Result<()> {
        let place = (self.offset_of_first()? + index) * PAGE;
        Ok(self.memory.write_slice(content, GuestAddress(place))?)
    }

    /// How many pages of the mapping lie before the first one.
    pub(crate) fn offset_of_first(&self) -> anyhow::Result<u64> {
        let region = self.memory.iter().next().context("nothing is mapped")?;
        let mapped = region.as_ptr().expose_provenance();
        Ok(u64::try_from(self.start - mapped)? / PAGE)
    }

    /// Whether a page holds nothing but `byte`.
    pub(crate) fn is_full_of(&self, index: u64, byte: u8) -> anyhow::Result<bool> {
        let mut content = vec![0; usize::try_from(PAGE)?];
        self.memory
            .read_slice(&mut content, GuestAddress(index * PAGE))?;
        Ok(content.iter().all(|found| *found == byte))
    }
}
