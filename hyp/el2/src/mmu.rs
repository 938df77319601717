//! EL2's own stage 1: an identity map of what is EL2's, and of nothing else.
//!
//! 39-bit addresses, 4 KiB granule, root at level 1 (DDI 0487, D8.2). The image, its devices and the windows hang on
//! static tables that [`fill_boot_tables`] fills with the MMU off; what comes later (folio array, pool frames, pin tables)
//! gets its tables from the heap. Permissions are W^X: text is read-execute, constants read-only, everything else
//! read-write and never executable; under every stack lies a frame that is not mapped.
//!
//! Invariant: a table descriptor points to a [`Table`] that lives until the descriptor is gone from every TLB. All changes
//! are made under the lock of [`STAGE1`], windows apart: each CPU has its own entry.

use crate::lock::SpinMutex;
use pinfold_core::addr::{FRAME_SHIFT, FRAME_SIZE};

use crate::percpu::{self, CPUS};
use crate::translation::lock::{self, Watched};
use crate::translation::table::{ENTRIES, Table};
use crate::translation::{barrier, tlb, watch};
use crate::width::{narrow, wide};
use crate::{heap, symbols};

const FRAME: usize = 1 << FRAME_SHIFT;
/// Bytes that one level-2 entry maps.
pub(crate) const BLOCK: usize = FRAME * ENTRIES;
/// One past the last address (T0SZ = 25).
pub(crate) const LIMIT: usize = 1 << 39;
/// The last 2 MiB are the windows', one frame for each CPU.
pub(crate) const WINDOWS: usize = LIMIT - BLOCK;

/// TCR_EL2: RES1, 39-bit addresses, 4 KiB granule, walks inner shareable and write-back. boot.S adds PS.
pub(crate) const TCR: u64 = 1 << 31 | 1 << 23 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 0x19;
/// SCTLR_EL2: RES1, MMU and caches on, stack alignment checked, writable means not executable.
pub(crate) const SCTLR: u64 = 0x30c5_0830 | 1 << 19 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const OUTPUT: u64 = 0x0000_ffff_ffff_f000;

/// The level-1 table of every CPU.
pub(crate) static ROOT: Table = Table::empty();
static IMAGE_BLOCKS: Table = Table::empty();
static IMAGE_PAGES: Table = Table::empty();
static WINDOW_BLOCKS: Table = Table::empty();
static WINDOW_PAGES: Table = Table::empty();
static DEVICE_PAGES: Table = Table::empty();
static DEVICE_BLOCKS: Table = Table::empty();

/// The UART of QEMU's virt, mapped from the start so that a damaged device tree can be complained of.
pub(crate) const FALLBACK_UART: usize = 0x0900_0000;

/// What EL2 may do with something it maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Read and execute.
    Text,
    /// Read.
    Constant,
    /// Read and write.
    Data,
    /// Read and write a device, nGnRE.
    Device,
}

impl Access {
    /// Attributes of a leaf (D8.3.1): access flag, AP, shareability, MAIR index, XN; AP[1] is RES1 at EL2.
    const fn attributes(self) -> u64 {
        const COMMON: u64 = VALID | 1 << 10 | 1 << 6;
        const NORMAL: u64 = COMMON | 0b11 << 8 | 1 << 2;
        const READ_ONLY: u64 = 1 << 7;
        const EXECUTE_NEVER: u64 = 1 << 54;
        match self {
            Self::Text => NORMAL | READ_ONLY,
            Self::Constant => NORMAL | READ_ONLY | EXECUTE_NEVER,
            Self::Data => NORMAL | EXECUTE_NEVER,
            Self::Device => COMMON | EXECUTE_NEVER,
        }
    }
}

/// No frame is left for a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoTable;

/// The map, which only this changes.
pub(crate) struct Stage1 {
    root: &'static Table,
}

/// The only [`Stage1`].
static STAGE1: SpinMutex<Stage1> = SpinMutex::new(Stage1 { root: &ROOT });

/// Takes the lock of the map.
pub(crate) fn stage1() -> Watched<Stage1, { lock::STAGE1 }> {
    Watched::take(&STAGE1)
}

/// Which entry of the table of `level` (1 to 3) speaks for `address`.
const fn index(address: usize, level: u32) -> usize {
    (address >> (12 + 9 * (3 - level))) % ENTRIES
}

/// Follows the entry of `table` for `address` to the next table, if there is one.
fn next(table: &Table, address: usize, level: u32) -> Option<&'static Table> {
    let entry = table.load(index(address, level));
    if entry & (VALID | TABLE_OR_PAGE) != VALID | TABLE_OR_PAGE {
        return None;
    }
    // SAFETY: table descriptors are made by `link` alone, of static tables or of zeroed frames that the heap gave for
    // good (until `unmap_page` unlinks them under the lock); all are mapped at their own address, and shared.
    Some(unsafe { Table::at(narrow(entry & OUTPUT)) })
}

fn link(table: &Table, address: usize, level: u32, next: &Table) {
    let descriptor = wide(next.address()) | VALID | TABLE_OR_PAGE;
    table.store(index(address, level), descriptor);
}

/// Follows to the next table, or makes one.
fn next_or_new(table: &Table, address: usize, level: u32) -> Result<&'static Table, NoTable> {
    if let Some(next) = next(table, address, level) {
        return Ok(next);
    }
    let frame = heap::allocate_stage1_table().ok_or(NoTable)?;
    // SAFETY: the heap gave this frame, zeroed and mapped, to this table alone; zeroes are an empty table.
    let new = unsafe { Table::at(frame) };
    barrier::descriptors_written();
    link(table, address, level, new);
    Ok(new)
}

impl Stage1 {
    /// Makes sure that every frame from `start` to `end` has a level-3 table.
    pub(crate) fn prepare(&mut self, start: usize, end: usize) -> Result<(), NoTable> {
        let mut at = start & !(BLOCK - 1);
        while at < end {
            let blocks = next_or_new(self.root, at, 1)?;
            next_or_new(blocks, at, 2)?;
            at += BLOCK;
        }
        barrier::descriptors_written();
        Ok(())
    }

    /// Maps the frames from `start` to `end` at their own addresses, in blocks where they fill one.
    pub(crate) fn map(&mut self, start: usize, end: usize, access: Access) -> Result<(), NoTable> {
        let mut at = start;
        while at < end {
            let blocks = next_or_new(self.root, at, 1)?;
            if at.is_multiple_of(BLOCK) && at + BLOCK <= end && next(blocks, at, 2).is_none() {
                blocks.store(index(at, 2), wide(at) | access.attributes());
                at += BLOCK;
            } else {
                next_or_new(blocks, at, 2)?;
                self.map_page(at, access);
                at += FRAME;
            }
        }
        barrier::descriptors_written();
        barrier::context();
        Ok(())
    }

    /// Maps one frame for which [`Stage1::prepare`] made the table; without one it does nothing.
    pub(crate) fn map_page(&mut self, address: usize, access: Access) {
        let table = next(self.root, address, 1).and_then(|blocks| next(blocks, address, 2));
        if let Some(pages) = table {
            let leaf = wide(address) | access.attributes() | TABLE_OR_PAGE;
            pages.store(index(address, 3), leaf);
            barrier::descriptors_written();
            barrier::context();
        }
    }

    /// Unmaps one frame everywhere, and gives back its table if that was the last.
    pub(crate) fn unmap_page(&mut self, address: usize) {
        let Some(blocks) = next(self.root, address, 1) else {
            return;
        };
        let Some(pages) = next(blocks, address, 2) else {
            return;
        };
        pages.store(index(address, 3), 0);
        tlb::invalidate_own(address);
        if pages.is_empty() && !is_static(pages) {
            blocks.store(index(address, 2), 0);
            tlb::invalidate_own(address);
            heap::free_stage1_table(pages.address());
        }
    }

    /// Whether the frame at `address` is mapped, and may be written.
    #[cfg(feature = "oracle")]
    pub(crate) fn access(&self, address: usize) -> Option<bool> {
        let mut table = self.root;
        for level in 1..=3 {
            match next(table, address, level).filter(|_| level < 3) {
                Some(below) => table = below,
                None => return writes(table.load(index(address, level))),
            }
        }
        None
    }

    /// What is mapped below the windows: address, bytes, and whether it may be written.
    #[cfg(feature = "oracle")]
    pub(crate) fn leaves(&self) -> alloc::vec::Vec<(usize, usize, bool)> {
        let mut leaves = alloc::vec::Vec::new();
        collect(self.root, 0, 1, &mut leaves);
        leaves.retain(|(address, ..)| *address < WINDOWS);
        leaves
    }

    /// Unmaps what [`Stage1::map`] mapped.
    pub(crate) fn unmap(&mut self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            let Some(blocks) = next(self.root, at, 1) else {
                return;
            };
            if next(blocks, at, 2).is_some() {
                self.unmap_page(at);
                at += FRAME;
            } else {
                blocks.store(index(at, 2), 0);
                tlb::invalidate_own(at);
                at += BLOCK;
            }
        }
    }
}

/// Whether what a leaf maps may be written, if it maps anything.
#[cfg(feature = "oracle")]
const fn writes(leaf: u64) -> Option<bool> {
    const READ_ONLY: u64 = 1 << 7;
    if leaf & VALID == 0 {
        None
    } else {
        Some(leaf & READ_ONLY == 0)
    }
}

#[cfg(feature = "oracle")]
fn collect(
    table: &Table,
    first: usize,
    level: u32,
    leaves: &mut alloc::vec::Vec<(usize, usize, bool)>,
) {
    let bytes = FRAME << (9 * (3 - level));
    for place in 0..ENTRIES {
        let address = first + place * bytes;
        if let Some(below) = next(table, address, level).filter(|_| level < 3) {
            collect(below, address, level + 1, leaves);
        } else {
            let leaf = table.load(place);
            leaves.extend(writes(leaf).map(|writes| (address, bytes, writes)));
        }
    }
}

fn is_static(table: &Table) -> bool {
    [&IMAGE_PAGES, &WINDOW_PAGES, &DEVICE_PAGES]
        .into_iter()
        .any(|known| core::ptr::eq(known, table))
}

/// Shows the checker of the protocol, if there is one, the tables that EL2 runs on. Once, on the boot CPU.
pub(crate) fn show_tables() {
    watch::set_up(&ROOT, &WINDOW_PAGES);
}

/// Shows the frame at `address` through this CPU's window while `look` runs; `look` gets where it is.
///
/// A window is EL2's only view of memory that is not its own. IRQs are masked at EL2 and nothing in `look` uses it again.
pub(crate) fn with_window<T>(address: usize, access: Access, look: impl FnOnce(usize) -> T) -> T {
    let window = WINDOWS + percpu::current().index() * FRAME;
    let entry = index(window, 3);
    let frame = wide(address & !(FRAME - 1));
    WINDOW_PAGES.store(entry, frame | access.attributes() | TABLE_OR_PAGE);
    barrier::descriptors_written();
    barrier::context();
    let result = look(window);
    WINDOW_PAGES.store(entry, 0);
    tlb::invalidate_own_here(window);
    result
}

/// Fills the static tables. Runs on the boot CPU with the MMU off, so it takes no lock and returns nothing.
pub(crate) extern "C" fn fill_boot_tables() {
    let start = symbols::image_start();
    link(&ROOT, start, 1, &IMAGE_BLOCKS);
    link(&IMAGE_BLOCKS, start, 2, &IMAGE_PAGES);
    fill(start, symbols::text_end(), Access::Text);
    fill(symbols::text_end(), symbols::rodata_end(), Access::Constant);
    fill(symbols::rodata_end(), symbols::stacks_start(), Access::Data);
    for cpu in 0..CPUS {
        let slot = symbols::stacks_start() + cpu * percpu::SLOT_BYTES;
        let emergency_top = slot + percpu::GUARD_BYTES + percpu::EMERGENCY_BYTES;
        fill(slot + percpu::GUARD_BYTES, emergency_top, Access::Data);
        fill(
            emergency_top + percpu::GUARD_BYTES,
            slot + percpu::SLOT_BYTES,
            Access::Data,
        );
    }
    // Bss, and what the image leaves of its block: the first pool.
    fill(symbols::stacks_end(), block_end(), Access::Data);

    link(&ROOT, WINDOWS, 1, &WINDOW_BLOCKS);
    link(&WINDOW_BLOCKS, WINDOWS, 2, &WINDOW_PAGES);

    if index(start, 1) == index(FALLBACK_UART, 1) {
        return;
    }
    link(&ROOT, FALLBACK_UART, 1, &DEVICE_BLOCKS);
    link(&DEVICE_BLOCKS, FALLBACK_UART, 2, &DEVICE_PAGES);
    let uart = wide(FALLBACK_UART) | Access::Device.attributes() | TABLE_OR_PAGE;
    DEVICE_PAGES.store(index(FALLBACK_UART, 3), uart);
}

fn fill(start: usize, end: usize, access: Access) {
    for at in (start..end).step_by(FRAME) {
        let leaf = wide(at) | access.attributes() | TABLE_OR_PAGE;
        IMAGE_PAGES.store(index(at, 3), leaf);
    }
}

/// Where the 2 MiB block ends that holds the image.
pub(crate) fn block_end() -> usize {
    (symbols::image_start() & !(BLOCK - 1)) + BLOCK
}

const _: () = assert!(FRAME_SIZE == 4096 && CPUS <= ENTRIES);
