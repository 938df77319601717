//! Ownership of memory, tested through the doors that EL2 uses, on a machine of plain memory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what it found by panicking"
)]

mod calls;
mod life;
mod oracle;
