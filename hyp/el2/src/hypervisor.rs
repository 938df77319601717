//! The one [`Hypervisor`] behind the one lock (ADR 3).
//!
//! It is made once, by the boot CPU, before the host runs; the lock is not held while a guest runs.

use alloc::vec::Vec;

use crate::lock::SpinMutex;
use pinfold_core::addr::{FRAME_SHIFT, FrameRange, Pfn, Physical};
use pinfold_core::folio::Folio;
use pinfold_core::hypervisor::Hypervisor;
use pinfold_core::memory::Layout;
use spin::once::Once;

use crate::complaint::Complaint;
use crate::gic;
use crate::judged::{self, Hardware};
use crate::platform::{Bytes, Platform};
use crate::translation::lock::{self, Watched};
use crate::width::narrow;

static HYPERVISOR: Once<SpinMutex<Hypervisor<Hardware>>> = Once::new();

/// The lock, taken.
pub(crate) type Guard = Watched<Hypervisor<Hardware>, { lock::MEMORY }>;

/// Takes the lock. Nothing that needs it runs before [`set_up`].
pub(crate) fn lock() -> Guard {
    Watched::take(HYPERVISOR.wait())
}

/// The whole frames of a range.
fn frames(bytes: &Bytes) -> Result<FrameRange<Physical>, Complaint> {
    let first = bytes.start >> FRAME_SHIFT;
    let count = (bytes.end.next_multiple_of(1 << FRAME_SHIFT) >> FRAME_SHIFT) - first;
    Pfn::new(first)
        .and_then(|first| FrameRange::new(first, count))
        .ok_or(Complaint::MemoryTooHigh)
}

/// Builds the state, with the folio array in the mapped memory at `folios`, and the host's stage 2; says where its root is.
pub(crate) fn set_up(
    platform: &Platform<'_>,
    image: Bytes,
    folios: Bytes,
) -> Result<u64, Complaint> {
    let ram = platform
        .ram
        .iter()
        .map(frames)
        .collect::<Result<Vec<_>, _>>()?;
    let hyp = [frames(&image)?, frames(&folios)?];
    let controls = gic::control_frames();
    let holes = platform
        .masters
        .iter()
        .chain(&controls)
        .map(frames)
        .collect::<Result<Vec<_>, _>>()?;
    let (Some(first), Some(last)) = (ram.first(), ram.last()) else {
        return Err(Complaint::MemoryTooHigh);
    };
    let count = last
        .last()
        .distance_from(first.first())
        .ok_or(Complaint::MemoryTooHigh)?
        + 1;
    // SAFETY: boot.rs carved this memory out of RAM, large enough for `count` words, aligned to 2 MiB, and mapped it for
    // good; nothing else refers to it, and every value is a `Folio`.
    let folios = unsafe { folio_words(folios, count) };
    let layout = Layout {
        ram: &ram,
        hyp: &hyp,
        holes: &holes,
    };
    // Nobody else runs yet.
    lock::taken::<{ lock::MEMORY }>();
    let hypervisor = Hypervisor::new(judged::hardware(), first.first(), folios, &layout)
        .map_err(|_| Complaint::OutOfFrames)?;
    judged::watch(&hypervisor, &layout);
    lock::released::<{ lock::MEMORY }>();
    let root = hypervisor.memory.host().root().low.frame().address().raw();
    HYPERVISOR.call_once(|| SpinMutex::new(hypervisor));
    Ok(root)
}

/// # Safety
/// `count` words from the start of `place` are mapped read-write, for good, and nothing refers to them.
unsafe fn folio_words(place: Bytes, count: u64) -> &'static mut [Folio] {
    let first = core::ptr::with_exposed_provenance_mut::<Folio>(narrow(place.start));
    // SAFETY: as the caller promises; `Folio` is a transparent `u64`.
    unsafe { core::slice::from_raw_parts_mut(first, narrow(count)) }
}
