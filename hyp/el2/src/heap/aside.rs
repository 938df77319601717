//! The oracle's heap, apart from the pool: core finds in the pool what it would find without an oracle.
//!
//! What is allocated while [`with`] runs on this CPU comes from here. Blocks of small sizes are kept when they are freed, since a
//! buddy heap takes long to put many of them together again.
//!
//! Invariant: one CPU at a time runs [`with`], the one that holds the lock of the hypervisor, or the one that boots.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::lock::SpinMutex;
use buddy_system_allocator::Heap;

use super::ORDERS;
use crate::percpu;

/// Sizes whose blocks are kept: powers of two below this one.
const SIZES: usize = 13;
/// Blocks of one size that are kept.
const KEPT: usize = 256;

struct Aside {
    heap: Heap<ORDERS>,
    start: usize,
    end: usize,
    kept: [[usize; KEPT]; SIZES],
    counts: [usize; SIZES],
}

static ASIDE: SpinMutex<Aside> = SpinMutex::new(Aside {
    heap: Heap::empty(),
    start: 0,
    end: 0,
    kept: [[0; KEPT]; SIZES],
    counts: [0; SIZES],
});

/// The CPU that allocates here: its index and 1.
static USER: AtomicUsize = AtomicUsize::new(0);

/// Gives the heap its memory.
///
/// # Safety
/// The bytes from `start` to `end` are mapped read-write at their own address and used by nothing else, for ever.
pub(crate) unsafe fn set_up(start: usize, end: usize) {
    let mut aside = ASIDE.lock();
    (aside.start, aside.end) = (start, end);
    // SAFETY: the caller gives us these bytes.
    unsafe { aside.heap.add_to_heap(start, end) };
}

/// Lets `work` allocate here.
pub(crate) fn with<T>(work: impl FnOnce() -> T) -> T {
    let user = USER.swap(percpu::current().index() + 1, Ordering::Relaxed);
    let result = work();
    USER.store(user, Ordering::Relaxed);
    result
}

/// Whether this CPU allocates here.
pub(super) fn is_in_use() -> bool {
    USER.load(Ordering::Relaxed) == percpu::current().index() + 1
}

/// Whether a block came from here.
pub(super) fn has(block: NonNull<u8>) -> bool {
    let aside = ASIDE.lock();
    (aside.start..aside.end).contains(&block.addr().get())
}

/// The power of two that a block for `layout` is large.
fn size_class(layout: Layout) -> usize {
    let size = layout.size().next_power_of_two();
    let size = size.max(layout.align()).max(size_of::<usize>());
    usize::try_from(size.trailing_zeros()).unwrap_or(usize::MAX)
}

impl Aside {
    fn keeps(&mut self, class: usize) -> Option<(&mut [usize; KEPT], &mut usize)> {
        Some((self.kept.get_mut(class)?, self.counts.get_mut(class)?))
    }
}

/// A block for `layout`.
pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    let mut aside = ASIDE.lock();
    if let Some((kept, count)) = aside.keeps(size_class(layout))
        && let Some(last) = count.checked_sub(1)
        && let Some(address) = kept.get(last)
    {
        *count = last;
        return NonNull::new(core::ptr::with_exposed_provenance_mut(*address));
    }
    aside.heap.alloc(layout).ok()
}

/// Takes a block back.
///
/// # Safety
/// It came from [`allocate`] with this layout, and nothing points to it any more.
pub(super) unsafe fn free(block: NonNull<u8>, layout: Layout) {
    let mut aside = ASIDE.lock();
    if let Some((kept, count)) = aside.keeps(size_class(layout))
        && let Some(place) = kept.get_mut(*count)
    {
        *place = block.as_ptr().expose_provenance();
        *count += 1;
        return;
    }
    // SAFETY: as the caller promises; a block that was kept has a layout of the same size class.
    unsafe { aside.heap.dealloc(block, layout) };
}
