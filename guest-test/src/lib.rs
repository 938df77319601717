//! What the two bare-metal EL1 images share: start-up, translation, vectors, probes, console and the TAP framework.
//!
//! `mini-host` takes Linux's place under Pinfold and drives hypercalls; `guest` runs inside a protected VM that the mini
//! host makes. Both are flat, self-relocating arm64 `Image` files. Both run with stage 1 on: virtual = physical in the
//! low half (what EL2 counts as user addresses) and the same map again in the high half (kernel addresses, bit 55 set).
//!
//! Invariant: a fault is either caught by the [`probe`] that asked for it or ends the image with one line on the console.

#![no_std]
// Everything here is the bare machine; on the developer's machine the crate is empty.
#![cfg(target_os = "none")]
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its text; there is one in a test's life"
)]

pub mod accesses;
pub mod bytes;
pub mod canary;
pub mod console;
pub mod gic;
pub mod instruction;
pub mod lock;
pub mod memory_probe;
pub mod mmio;
pub mod mmu;
pub mod port;
pub mod probe;
pub mod random;
pub mod smccc;
pub mod start;
pub mod sweep;
pub mod tap;
pub mod timer;
pub mod user;
pub mod vectors;
