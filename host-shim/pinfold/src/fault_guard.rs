//! Survives the VMM's own accesses to guest memory that the guest has not shared.
//!
//! A page that a protected guest owns is out of the host's reach: touching it raises SIGSEGV (EL2
//! injects the abort) or SIGBUS (the kernel has isolated the folio). A guest decides which address
//! its descriptors name, and it may take a page back in the middle of an access, so no check
//! beforehand can rule the signal out. The handler here puts a private page of zeroes in the place of
//! the page that faulted, counts, and returns; the access then completes on that page and the
//! device, which compares [`faults`] before and after each piece of work, reports a device error.
//!
//! Invariant: only addresses inside the guarded view are answered so; any other fault keeps its
//! default action. The view is a mapping of its own (never the memory slot that KVM knows), so that
//! replacing a page in it changes nothing for the guest.

use std::io;
use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use vmm_sys_util::signal::register_signal_handler;

const PAGE: usize = 4096;

static VIEW_START: AtomicUsize = AtomicUsize::new(0);
static VIEW_END: AtomicUsize = AtomicUsize::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static LAST_OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Guards the host addresses `start..start + size` from now on, and no others.
///
/// One view per process: a second call replaces the first.
pub fn guard(start: usize, size: usize) -> io::Result<()> {
    VIEW_START.store(start, Ordering::Relaxed);
    VIEW_END.store(start.saturating_add(size), Ordering::Release);
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        register_signal_handler(signal, on_fault)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
    }
    Ok(())
}

/// How many accesses to the view have faulted since the process started.
#[must_use]
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Acquire)
}

/// Where in the view the last fault was.
#[must_use]
pub fn last_offset() -> usize {
    LAST_OFFSET.load(Ordering::Relaxed)
}

/// Only calls what signal-safety(7) allows or what is a bare system call: mmap, sigaction.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV and SIGBUS, the only signals registered, fill in si_addr.
    let address = unsafe { info.si_addr() }.addr();
    let start = VIEW_START.load(Ordering::Acquire);
    if (start..VIEW_END.load(Ordering::Acquire)).contains(&address)
        && put_scratch_page(address & !(PAGE - 1))
    {
        LAST_OFFSET.store(address - start, Ordering::Relaxed);
        FAULTS.fetch_add(1, Ordering::AcqRel);
        return;
    }
    // SAFETY: SIG_DFL is valid for both signals. Returning repeats the access, which now ends the
    // process in the usual way.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Maps a private page of zeroes at `page`, which lies in the guarded view.
fn put_scratch_page(page: usize) -> bool {
    let at = std::ptr::with_exposed_provenance_mut(page);
    // SAFETY: the page belongs to a mapping that only volatile accessors of vm-memory use, so no
    // Rust reference is into it; replacing it keeps the range mapped and writable.
    let mapped = unsafe {
        libc::mmap(
            at,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    mapped == at
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

    use super::*;

    /// One test for all of it: the guard is one per process.
    #[test]
    fn a_forbidden_page_reads_as_zeroes_and_is_counted() {
        let region = MmapRegion::<()>::build(
            None,
            4 * PAGE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        )
        .unwrap();
        guard(region.as_ptr().expose_provenance(), region.size()).unwrap();
        let memory = GuestMemoryMmap::from_regions(vec![
            GuestRegionMmap::new(region, GuestAddress(0)).unwrap(),
        ])
        .unwrap();
        let before = faults();
        let value: u64 = memory.read_obj(GuestAddress(0x2008)).unwrap();
        assert_eq!(value, 0);
        assert_eq!(faults(), before + 1);
        assert_eq!(last_offset(), 0x2008);
        memory.write_slice(&[1; 32], GuestAddress(0xFF0)).unwrap();
        assert_eq!(faults(), before + 3, "the write crosses into a second page");
        memory.write_slice(&[1; 32], GuestAddress(0xFF0)).unwrap();
        assert_eq!(faults(), before + 3, "the scratch page stays");
    }
}
