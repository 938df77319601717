//! The rules for host calls: for each, what is checked, in this order, and what is true afterwards.

mod debug;
mod memory;
mod ordinary;
mod pins;
mod pool;
mod vcpus;
mod vms;

use crate::state::FRAME_LIMIT;
pub(crate) use vms::REDISTRIBUTOR;

/// Whether `count` frames from `first` are frames at all, and below `limit`.
const fn is_range(first: u64, count: u64, limit: u64) -> bool {
    // The last frame counts, not the one after it.
    first < FRAME_LIMIT && 0 < count && count <= FRAME_LIMIT && first + (count - 1) < limit
}
