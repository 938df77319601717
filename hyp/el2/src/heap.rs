//! The pool: every frame that tables and objects of EL2 are made of.
//!
//! Two buddy heaps behind one lock: EL2's own reserve (what the image leaves of its 2 MiB) and the frames that the host
//! gave, apart so that a frame of the host can be found again when it wants one back. The reserve is used first. A handful
//! of frames is kept back for tables of EL2's own stage 1, without which a gift could not be mapped.
//!
//! Invariant: all memory in here is mapped read-write at its own address and nobody else's; what is free holds only
//! the heaps' links.

#[cfg(feature = "oracle")]
pub(crate) mod aside;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use crate::cache;
use crate::lock::{SpinMutex, SpinMutexGuard};
use buddy_system_allocator::Heap;

use crate::translation::watch;

/// Bytes of a frame.
const FRAME: usize = 4096;
/// Frames kept back for stage-1 tables.
const KEPT: usize = 16;
/// Orders of the buddy heaps: blocks up to 2^31 bytes.
const ORDERS: usize = 32;

/// The layout of one or two frames, aligned to their size.
const ONE: Layout = frames(1);
const TWO: Layout = frames(2);

const fn frames(count: usize) -> Layout {
    match Layout::from_size_align(count * FRAME, count * FRAME) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<()>(),
    }
}

struct Pool {
    own: Heap<ORDERS>,
    own_end: usize,
    own_start: usize,
    given: Heap<ORDERS>,
    /// How many of the given frames the host has back; to the heap they are in use.
    #[cfg(feature = "oracle")]
    returned: usize,
    /// A block was wanted that is nowhere, since the oracle last asked.
    #[cfg(feature = "oracle")]
    lacked: bool,
    kept: [usize; KEPT],
    kept_count: usize,
}

impl Pool {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = self
            .own
            .alloc(layout)
            .or_else(|()| self.given.alloc(layout))
            .ok();
        #[cfg(feature = "oracle")]
        {
            self.lacked |= block.is_none();
        }
        block
    }

    fn free(&mut self, block: NonNull<u8>, layout: Layout) {
        let address = block.addr().get();
        let heap = if (self.own_start..self.own_end).contains(&address) {
            &mut self.own
        } else {
            &mut self.given
        };
        // SAFETY: `block` came from this heap with this layout (callers of `free`), and ranges tell the heaps apart.
        unsafe { heap.dealloc(block, layout) };
    }

    fn free_bytes(&self) -> usize {
        let own = self.own.stats_total_bytes() - self.own.stats_alloc_actual();
        own + self.given.stats_total_bytes() - self.given.stats_alloc_actual()
    }
}

static POOL: SpinMutex<Pool> = SpinMutex::new(Pool {
    own: Heap::empty(),
    own_start: 0,
    own_end: 0,
    given: Heap::empty(),
    #[cfg(feature = "oracle")]
    returned: 0,
    #[cfg(feature = "oracle")]
    lacked: false,
    kept: [0; KEPT],
    kept_count: 0,
});

/// The heap as Rust's allocator. Everything in core and here allocates fallibly once the host runs.
struct Global;

#[global_allocator]
static GLOBAL: Global = Global;

// SAFETY: the buddy heap returns blocks that fit the layout and do not overlap; the lock makes each call whole.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(feature = "oracle")]
        if aside::is_in_use() {
            return aside::allocate(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr);
        }
        pool()
            .allocate(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            #[cfg(feature = "oracle")]
            if aside::has(block) {
                // SAFETY: it came from there (the range tells), with this layout.
                return unsafe { aside::free(block, layout) };
            }
            // A guest's registers were in there, perhaps, and RAM lives through a reset.
            clear(block, layout.size());
            pool().free(block, layout);
        }
    }
}

fn pool() -> SpinMutexGuard<'static, Pool> {
    POOL.lock()
}

/// Gives the pool its reserve.
///
/// # Safety
/// The bytes from `start` to `end` are mapped read-write at their own address and used by nothing else, for ever.
pub(crate) unsafe fn set_up(start: usize, end: usize) {
    let mut pool = pool();
    pool.own_start = start;
    pool.own_end = end;
    // SAFETY: the caller gives us these bytes.
    unsafe { pool.own.add_to_heap(start, end) };
    while pool.kept_count < KEPT
        && let Ok(frame) = pool.own.alloc(ONE)
    {
        keep(&mut pool, frame.addr().get());
    }
}

fn keep(pool: &mut Pool, frame: usize) -> bool {
    let count = pool.kept_count;
    let Some(place) = pool.kept.get_mut(count) else {
        return false;
    };
    *place = frame;
    pool.kept_count = count + 1;
    true
}

/// `layout`'s worth of zeroed frames, or nothing.
fn allocate_zeroed(layout: Layout) -> Option<usize> {
    let block = pool().allocate(layout)?;
    clear(block, layout.size());
    Some(block.as_ptr().expose_provenance())
}

fn clear(block: NonNull<u8>, bytes: usize) {
    let address = block.as_ptr().expose_provenance();
    if !(address | bytes).is_multiple_of(FRAME) {
        // SAFETY: the block has just come from the heap, or is about to go back: mapped, writable, and nobody else's.
        return unsafe { block.write_bytes(0, bytes) };
    }
    for frame in (address..address + bytes).step_by(FRAME) {
        // SAFETY: as above; it is a part of the block.
        unsafe { cache::clear_frame(frame) };
    }
}

/// One zeroed frame, for a table.
pub(crate) fn allocate_frame() -> Option<usize> {
    let frame = allocate_zeroed(ONE)?;
    watch::allocated(frame, 1);
    Some(frame)
}

/// Two adjoining zeroed frames for tables, aligned to both.
pub(crate) fn allocate_two_frames() -> Option<usize> {
    let frames = allocate_zeroed(TWO)?;
    watch::allocated(frames, 2);
    Some(frames)
}

/// Frees what [`allocate_frame`] gave.
///
/// # Safety
/// `frame` came from [`allocate_frame`] and nothing points to it any more, no walker either.
pub(crate) unsafe fn free_frame(frame: usize) {
    watch::freed(frame, 1);
    free(frame, ONE);
}

/// Frees what [`allocate_two_frames`] gave.
///
/// # Safety
/// `frames` came from [`allocate_two_frames`] and nothing points there any more, no walker either.
pub(crate) unsafe fn free_two_frames(frames: usize) {
    watch::freed(frames, 2);
    free(frames, TWO);
}

fn free(address: usize, layout: Layout) {
    if let Some(block) = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address)) {
        pool().free(block, layout);
    }
}

/// A zeroed frame for a table of EL2's stage 1, from what is kept back if need be.
pub(crate) fn allocate_stage1_table() -> Option<usize> {
    if let Some(frame) = allocate_frame() {
        return Some(frame);
    }
    let mut pool = pool();
    pool.kept_count = pool.kept_count.checked_sub(1)?;
    let count = pool.kept_count;
    let frame = *pool.kept.get(count)?;
    drop(pool);
    let block = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(frame))?;
    clear(block, FRAME);
    watch::allocated(frame, 1);
    Some(frame)
}

/// Takes back an unlinked table of EL2's stage 1; what is kept back is filled up first.
pub(crate) fn free_stage1_table(frame: usize) {
    watch::freed(frame, 1);
    let kept = keep(&mut pool(), frame);
    if !kept {
        free(frame, ONE);
    }
}

/// Adds a frame that the host gave.
///
/// # Safety
/// The frame is mapped read-write at its own address, and EL2's alone until [`take_given_frame`] returns it.
pub(crate) unsafe fn add_given_frame(frame: usize) {
    // SAFETY: the caller gives us the frame.
    unsafe { pool().given.add_to_heap(frame, frame + FRAME) };
}

/// A free frame out of those that the host gave, with links of the heap in it.
pub(crate) fn take_given_frame() -> Option<usize> {
    let mut pool = pool();
    let frame = pool.given.alloc(ONE).ok()?;
    #[cfg(feature = "oracle")]
    {
        pool.returned += 1;
    }
    Some(frame.as_ptr().expose_provenance())
}

/// How many frames' worth of bytes there are, in use or not.
#[cfg(feature = "oracle")]
pub(crate) fn all_frames() -> u64 {
    let pool = pool();
    let bytes = pool.own.stats_total_bytes() + pool.given.stats_total_bytes();
    crate::width::wide(bytes / FRAME - pool.returned)
}

/// Whether a block was wanted that is nowhere, since this was last asked: frames may be free, and no two of them adjoining.
#[cfg(feature = "oracle")]
pub(crate) fn has_lacked() -> bool {
    core::mem::take(&mut pool().lacked)
}

/// How many frames' worth of bytes are free.
pub(crate) fn free_frames() -> usize {
    pool().free_bytes() / FRAME
}
