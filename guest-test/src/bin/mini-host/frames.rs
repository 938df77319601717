//! The frames that the tests give away, and the pin table that speaks for them.
//!
//! An arena of 64 MiB, 2 MiB aligned, and a table of one 32-bit pin word per frame of it, registered with EL2 when the first test needs a pin.
//! Invariant: a frame is in at most one [`Folio`](crate::folio::Folio); its pin word is 0 while it is in none.

use guest_test::bytes::{self, FRAME};
use guest_test::lock::SpinMutex;
use guest_test::tap::Failure;
use spin::Once;

use crate::{calls, platform};

/// Frames of the arena.
pub(crate) const COUNT: u64 = 16384;
/// Bytes of the pin table.
const TABLE: u64 = COUNT * 4;
const WORDS: usize = 256;

/// Where arena and table are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    /// First frame.
    pub(crate) first: u64,
    /// First frame of the pin table.
    pub(crate) table: u64,
    /// Frames that the pin table does not speak for, 16 of them, after the table.
    pub(crate) unspoken: u64,
}

static ARENA: Once<Option<Arena>> = Once::new();
static REGISTERED: SpinMutex<bool> = SpinMutex::new(false);
static TAKEN: SpinMutex<[u64; WORDS]> = SpinMutex::new([0; WORDS]);

/// Where arena and table are; the pin table is cleared the first time.
pub(crate) fn arena() -> Result<Arena, Failure> {
    let place = || {
        let first = platform::machine().free_range(COUNT * FRAME + TABLE + 16 * FRAME, 2 << 20)?;
        let table = first + COUNT * FRAME;
        for offset in (0..TABLE).step_by(4) {
            // SAFETY: free memory of the machine, which the arena takes here, once.
            unsafe { word_at(table + offset).write_volatile(0) };
        }
        Some(Arena {
            first: first / FRAME,
            table: table / FRAME,
            unspoken: (table + TABLE) / FRAME,
        })
    };
    (*ARENA.call_once(place))
        .ok_or_else(|| Failure::new(format_args!("no 64 MiB of memory are free")))
}

fn word_at(address: u64) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(bytes::size(address))
}

/// EL2 knows the pin table.
pub(crate) fn is_registered() -> bool {
    *REGISTERED.lock()
}

/// Registers the pin table, once.
pub(crate) fn register() -> Result<(), Failure> {
    let arena = arena()?;
    let mut registered = REGISTERED.lock();
    if !*registered {
        calls::pin_table_register(arena.table, arena.first, COUNT)
            .done("registering the pin table")?;
        *registered = true;
    }
    Ok(())
}

/// Takes 2^order frames, aligned to their size; gives the first PFN.
pub(crate) fn take(order: u8) -> Result<u64, Failure> {
    let arena = arena()?;
    let mut taken = TAKEN.lock();
    let size = 1_u64 << order;
    for index in (0..COUNT).step_by(bytes::size(size)) {
        if (index..index + size).all(|frame| !bit(&taken, frame)) {
            (index..index + size).for_each(|frame| set(&mut taken, frame, true));
            return Ok(arena.first + index);
        }
    }
    Err(Failure::new(format_args!(
        "the mini host's arena has no 2^{order} frames left"
    )))
}

/// Gives frames back; their pin words become 0.
pub(crate) fn give(pfn: u64, order: u8) {
    let Ok(arena) = arena() else { return };
    let mut taken = TAKEN.lock();
    for frame in pfn..pfn + (1 << order) {
        set_pin(frame, 0);
        set(&mut taken, frame.saturating_sub(arena.first), false);
    }
}

fn bit(taken: &[u64; WORDS], frame: u64) -> bool {
    taken
        .get(bytes::size(frame / 64))
        .is_some_and(|word| word >> (frame % 64) & 1 != 0)
}

fn set(taken: &mut [u64; WORDS], frame: u64, value: bool) {
    if let Some(word) = taken.get_mut(bytes::size(frame / 64)) {
        *word = *word & !(1 << (frame % 64)) | u64::from(value) << (frame % 64);
    }
}

/// Frames in use.
pub(crate) fn taken() -> u32 {
    TAKEN.lock().iter().map(|word| word.count_ones()).sum()
}

/// Writes the pin word of a frame of the arena.
pub(crate) fn set_pin(pfn: u64, word: u32) {
    if let Some(place) = pin_place(pfn) {
        // SAFETY: inside the pin table; EL2 reads whole words.
        unsafe { place.write_volatile(word) };
    }
}

/// Reads the pin word of a frame of the arena; 0 for any other.
pub(crate) fn pin(pfn: u64) -> u32 {
    // SAFETY: inside the pin table.
    pin_place(pfn).map_or(0, |place| unsafe { place.read_volatile() })
}

fn pin_place(pfn: u64) -> Option<*mut u32> {
    let arena = arena().ok()?;
    let index = pfn
        .checked_sub(arena.first)
        .filter(|index| *index < COUNT)?;
    Some(word_at(arena.table * FRAME + index * 4))
}
