//! [`El2Machine`]: core's dozen verbs, done.
//!
//! Frames are addressed by number and seen at their own address (VA = PA): tables and pool frames because EL2 maps all of
//! its memory, anything else through this CPU's window. The home of reads of pin words.
//! Invariant: as [`Machine`] says, core names only frames to which EL2 is entitled at that moment.

use pinfold_core::addr::{FRAME_SHIFT, FRAME_SIZE, FrameRange, Pfn, Physical};
use pinfold_core::machine::{
    HypAccess, Machine, OutOfMemory, RootTables, Scope, Table, TableIndex, Vmid,
};

#[cfg(feature = "debug-calls")]
use pinfold_core::trace::Ring;

use crate::mmu::{self, Access};
use crate::translation::table::Table as Descriptors;
use crate::translation::{barrier, tlb, watch};
use crate::width::{narrow, wide};
use crate::{cache, heap};

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

/// What a table holds.
fn descriptors(table: Table) -> &'static Descriptors {
    // SAFETY: a `Table` is a frame of the pool that is mapped at its own address and holds nothing but descriptors, until
    // core frees it, which it does not while it reads or writes one.
    unsafe { Descriptors::at(address(table.frame())) }
}

/// Writes `frame`, which the window shows, back to the point of coherency, and drops it from the caches.
fn clean_through(window: usize, frame: Pfn) {
    if !fault!(NoClean) {
        cache::clean_and_invalidate_frame(window);
        watch::cleaned(frame);
    }
}

/// Whether the frame holds nothing but zeroes.
#[cfg(feature = "oracle")]
pub(crate) fn is_zero(frame: Pfn) -> bool {
    mmu::with_window(address(frame), Access::Constant, |window| {
        (window..window + FRAME).step_by(8).all(|at| {
            let word = core::ptr::with_exposed_provenance::<u64>(at);
            // SAFETY: an aligned word of the frame that the window shows.
            unsafe { word.read_volatile() == 0 }
        })
    })
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

    fn name_root(&mut self, root: RootTables, vmid: Vmid) {
        watch::named(root, vmid);
    }

    fn free_table(&mut self, table: Table) {
        // SAFETY: core says that no walker can reach it; it came from `allocate_table`.
        unsafe { heap::free_frame(address(table.frame())) };
    }

    fn free_root(&mut self, root: RootTables) {
        // SAFETY: core says that no walker can reach it; it came from `allocate_root`.
        unsafe { heap::free_two_frames(address(root.low.frame())) };
    }

    fn read(&self, table: Table, index: TableIndex) -> u64 {
        descriptors(table).load(usize::from(index.raw()))
    }

    fn write(&mut self, table: Table, index: TableIndex, value: u64) {
        descriptors(table).store(usize::from(index.raw()), value);
    }

    fn publish(&mut self) {
        if !fault!(NoPublish) {
            barrier::descriptors_written();
        }
        barrier::context();
    }

    fn invalidate(&mut self, scope: Scope) {
        match scope {
            Scope::Range(vmid, frames) => tlb::invalidate_range(vmid, frames),
            Scope::All(vmid) => tlb::invalidate_vmid(vmid),
        }
    }

    fn wipe(&mut self, frame: Pfn) {
        mmu::with_window(address(frame), Access::Data, |window| {
            watch::written(frame);
            // SAFETY: the window maps the frame writable and nothing refers into it.
            unsafe { cache::clear_frame(window) };
            clean_through(window, frame);
        });
    }

    fn clean(&mut self, frame: Pfn) {
        mmu::with_window(address(frame), Access::Data, |window| {
            clean_through(window, frame);
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
        mmu::stage1()
            .prepare(start, end)
            .map_err(|mmu::NoTable| OutOfMemory)
    }

    fn map_hyp(&mut self, frame: Pfn, access: HypAccess) {
        let access = match access {
            HypAccess::ReadOnly => Access::Constant,
            HypAccess::ReadWrite => Access::Data,
        };
        mmu::stage1().map_page(address(frame), access);
    }

    fn unmap_hyp(&mut self, frame: Pfn) {
        mmu::stage1().unmap_page(address(frame));
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
        let frame = heap::take_given_frame().and_then(frame)?;
        // The heap's links are in it.
        watch::written(frame);
        Some(frame)
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
