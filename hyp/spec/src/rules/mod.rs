//! The rules: of host calls, what is checked, in this order, and what is true afterwards; of guests, what they find of PSCI (`power`), of
//! system registers and exceptions (`registers`), and of their interrupt controller (`gic`).

mod debug;
mod gic;
mod memory;
mod ordinary;
mod pins;
mod pool;
mod power;
mod registers;
mod vcpus;
mod vms;

use crate::state::FRAME_LIMIT;
pub use gic::Entry;
pub(crate) use gic::{Access, Gic};
pub use registers::{Encoding, Processors, Taken};
pub(crate) use vms::REDISTRIBUTOR;

/// Whether `count` frames from `first` are frames at all, and below `limit`.
const fn is_range(first: u64, count: u64, limit: u64) -> bool {
    // The last frame counts, not the one after it.
    first < FRAME_LIMIT && 0 < count && count <= FRAME_LIMIT && first + (count - 1) < limit
}
