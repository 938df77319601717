//! The mini host's own heap: one MiB of the image, for vectors and text of the tests.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use buddy_system_allocator::Heap;
use guest_test::bytes;
use guest_test::lock::SpinMutex;

const SIZE: usize = 1 << 20;

/// Memory for the heap.
#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the allocator hands out its bytes, each to one owner.
unsafe impl Sync for Arena {}

#[unsafe(link_section = ".noinit.heap")]
static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));

/// A buddy heap behind a lock.
struct Allocator(SpinMutex<Heap<21>>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(SpinMutex::new(Heap::new()));

// SAFETY: the heap gives each block to one owner, aligned and sized as asked; the lock makes it usable from all CPUs.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0
            .lock()
            .alloc(layout)
            .map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller hands back what `alloc` gave it, with the same layout.
            unsafe { self.0.lock().dealloc(block, layout) };
        }
    }
}

/// Gives the allocator its memory; once, before the first allocation.
pub(crate) fn install() {
    let first = bytes::size(bytes::address_of(&ARENA));
    // SAFETY: the arena is used by nothing else, and this runs once.
    unsafe { ALLOCATOR.0.lock().init(first, SIZE) };
}
