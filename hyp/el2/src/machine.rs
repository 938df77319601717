//! [`El2Machine`]: core's dozen verbs, done.
//!
//! Frames are addressed by number and seen at their own address (VA = PA): tables and pool frames because EL2 maps all of
//! its memory, anything else through this CPU's window. The home of reads and writes of descriptors and pin words.
//! Invariant: as [`Machine`] says, core names only frames to which EL2 is entitled at that moment.

use core::sync::atomic::{AtomicU64, Ordering};

use pinfold_core::addr::{FRAME_SHIFT, FRAME_SIZE, FrameRange, Pfn, Physical};
use pinfold_core::machine::{
    HypAccess, Machine, OutOfMemory, RootTables, Scope, Table, TableIndex, Vmid,
};

#[cfg(feature = "debug-calls")]
use pinfold_core::trace::Ring;

use crate::mmu::{self, Access, STAGE1};
use crate::width::{narrow, wide};
use crate::{barrier, cache, heap, tlb};

/// The hardware under the one [`Hypervisor`](pinfold_core::hypervisor::Hypervisor).
#[derive(Debug)]
pub(crate) struct El2Machine(());

impl El2Machine {
    /// The only one: its caller puts it behind the one lock.
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

const FRAME: usize = 1 << FRAME_SHIFT;

/// Where a frame is.
fn address(frame: Pfn) -> usize {
    narrow(frame.address().raw())
}

/// The frame at an address that EL2's own memory has.
fn frame(address: usize) -> Option<Pfn> {
    Pfn::new(wide(address >> FRAME_SHIFT))
}

/// One descriptor.
fn descriptor(table: Table, index: TableIndex) -> &'static AtomicU64 {
    let first = core::ptr::with_exposed_provenance::<AtomicU64>(address(table.frame()));
    let pointer = first.wrapping_add(usize::from(index.raw()));
    // SAFETY: a `Table` is a frame of the pool that is mapped at its own address and holds nothing but descriptors, until
    // core frees it; the index is below 512. Walkers share it, hence the atomic.
    unsafe { &*pointer }
}

impl Machine for El2Machine {
    fn allocate_table(&mut self) -> Option<Table> {
        heap::allocate_frame().and_then(frame).map(Table::vouch)
    }

    fn allocate_root(&mut self) -> Option<RootTables> {
        let low = heap::allocate_two_frames()?;
        Some(RootTables {
            low: Table::vouch(frame(low)?),
            high: Table::vouch(frame(low + FRAME)?),
        })
    }

    fn name_root(&mut self, _root: RootTables, _vmid: Vmid) {}

    fn free_table(&mut self, table: Table) {
        // SAFETY: core says that no walker can reach it; it came from `allocate_table`.
        unsafe { heap::free_frame(address(table.frame())) };
    }

    fn free_root(&mut self, root: RootTables) {
        // SAFETY: core says that no walker can reach it; it came from `allocate_root`.
        unsafe { heap::free_two_frames(address(root.low.frame())) };
    }

    fn read(&self, table: Table, index: TableIndex) -> u64 {
        descriptor(table, index).load(Ordering::Relaxed)
    }

    fn write(&mut self, table: Table, index: TableIndex, value: u64) {
        descriptor(table, index).store(value, Ordering::Relaxed);
    }

    fn publish(&mut self) {
        barrier::descriptors_written();
        barrier::context();
    }

    fn invalidate(&mut self, scope: Scope) {
        match scope {
            Scope::Range(vmid, frames) => tlb::invalidate_range(vmid, frames),
            Scope::All(vmid) => tlb::invalidate_vmid(vmid),
        }
    }

    fn wipe(&mut self, frame: Pfn) {
        // SAFETY: the window maps the frame writable and nothing refers into it.
        mmu::with_window(address(frame), Access::Data, |window| unsafe {
            cache::clear_frame(window);
        });
    }

    fn clean(&mut self, frame: Pfn) {
        mmu::with_window(address(frame), Access::Data, |window| {
            cache::clean_and_invalidate(window, FRAME);
        });
    }

    fn forget_instructions(&mut self) {
        cache::forget_instructions();
    }

    fn prepare_hyp(&mut self, frames: FrameRange<Physical>) -> Result<(), OutOfMemory> {
        let start = address(frames.first());
        let end = address(frames.last()) + FRAME;
        if end > mmu::WINDOWS {
            return Err(OutOfMemory);
        }
        STAGE1
            .lock()
            .prepare(start, end)
            .map_err(|mmu::NoTable| OutOfMemory)
    }

    fn map_hyp(&mut self, frame: Pfn, access: HypAccess) {
        let access = match access {
            HypAccess::ReadOnly => Access::Constant,
            HypAccess::ReadWrite => Access::Data,
        };
        STAGE1.lock().map_page(address(frame), access);
    }

    fn unmap_hyp(&mut self, frame: Pfn) {
        STAGE1.lock().unmap_page(address(frame));
    }

    fn read_pin_word(&self, frame: Pfn, index: usize) -> u32 {
        let first = core::ptr::with_exposed_provenance::<u32>(address(frame));
        let pointer = first.wrapping_add(index % (FRAME / size_of::<u32>()));
        // SAFETY: a registered pin-table frame is mapped read-only until it is unregistered. The host writes it at will:
        // one volatile read, of which any value is good.
        u32::from_le(unsafe { pointer.read_volatile() })
    }

    fn pool_insert(&mut self, frame: Pfn) {
        // SAFETY: core mapped the frame, and it is EL2's until `pool_remove` names it.
        unsafe { heap::add_given_frame(address(frame)) };
    }

    fn pool_remove(&mut self) -> Option<Pfn> {
        heap::take_given_frame().and_then(frame)
    }

    fn pool_free(&self) -> u64 {
        wide(heap::free_frames())
    }

    #[cfg(feature = "debug-calls")]
    fn trace(&self, cpu: usize) -> Option<&Ring> {
        crate::trace::kept_by(cpu)
    }
}

const _: () = assert!(FRAME_SIZE == wide(FRAME));
