//! FP, SIMD and SVE registers, switched lazily: a guest that does not use them does not cost the host its own.
//!
//! A guest starts with CPTR_EL2.TFP set. Its first use traps; then [`give_to_guest`] saves what the host has, streaming mode
//! and the longest vectors included, and loads the guest's V registers. [`take_from_guest`] undoes it before the host runs.
//! A guest has no SVE and no SME: it cannot see or change more than V registers, FPSR and FPCR, and ZA stays where it is.
//!
//! Invariant: between the two calls, and only then, the registers are the guest's.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::CPTR_EL2;
use pinfold_core::vcpu::FpState;

use crate::percpu::{self, CPUS};
use crate::sysreg::{ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, Readable, SVCR, Writeable, field};
use crate::translation::barrier;

/// `SVCR.SM`: streaming mode.
const STREAMING: u64 = 1;

/// FPSR and FPCR, Z0 to Z31 of 2048 bits, P0 to P15 and FFR of 256 bits.
const BYTES: usize = 16 + 32 * 256 + 17 * 32;

/// What the host had; V registers take less, and begin at the start.
#[repr(C, align(16))]
struct HostVectors([AtomicU64; BYTES / 8]);

/// One for each CPU, which alone uses it.
static HOST: [HostVectors; CPUS] =
    [const { HostVectors([const { AtomicU64::new(0) }; BYTES / 8]) }; CPUS];
/// SVCR of the host of each CPU.
static HOST_SVCR: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

const _: () = assert!(BYTES >= size_of::<FpState>());

unsafe extern "C" {
    /// fp.S: V0 to V31, FPSR and FPCR to an [`FpState`].
    fn save_simd(state: *mut FpState);
    /// fp.S: and back.
    fn load_simd(state: *const FpState);
    /// fp.S: FPSR, FPCR, Z0 to Z31, P0 to P15, and the FFR if it `has_ffr`.
    fn save_sve(state: *mut u8, has_ffr: bool);
    /// fp.S: and back.
    fn load_sve(state: *const u8, has_ffr: bool);
}

/// This CPU's room.
fn room() -> (*mut u8, &'static AtomicU64) {
    let cpu = percpu::current().index() % CPUS;
    #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
    let (vectors, svcr) = (&HOST[cpu], &HOST_SVCR[cpu]);
    (vectors.0.as_ptr().cast_mut().cast(), svcr)
}

fn has_sve() -> bool {
    field(&ID_AA64PFR0_EL1, 32) != 0
}

fn has_sme() -> bool {
    field(&ID_AA64PFR1_EL1, 24) != 0
}

/// Puts the host's registers aside and loads the guest's. CPTR_EL2 is `open` for it and `guest` afterwards.
pub(crate) fn give_to_guest(state: &FpState, open: u64, guest: u64) {
    CPTR_EL2.set(open);
    barrier::context();
    save_host();
    // SAFETY: CPTR_EL2 lets the registers by, and the state is large enough by its type.
    unsafe { load_simd(state) };
    CPTR_EL2.set(guest);
}

/// Saves the guest's registers and loads the host's. CPTR_EL2 is `open` for it and stays so.
pub(crate) fn take_from_guest(state: &mut FpState, open: u64) {
    CPTR_EL2.set(open);
    barrier::context();
    // SAFETY: CPTR_EL2 lets the registers by, and the state is large enough by its type.
    unsafe { save_simd(state) };
    load_host();
}

fn save_host() {
    let (vectors, kept) = room();
    let svcr = if has_sme() { SVCR.get() } else { 0 };
    kept.store(svcr, Ordering::Relaxed);
    let streaming = svcr & STREAMING != 0;
    if has_sve() || streaming {
        // SAFETY: the room holds registers of the longest vectors; only this CPU uses it. In streaming mode there may be no
        // FFR, and leaving it clears one.
        unsafe { save_sve(vectors, !streaming) };
    } else {
        // SAFETY: the room is large enough for an FpState, and aligned.
        unsafe { save_simd(vectors.cast()) };
    }
    if streaming {
        SVCR.set(svcr & !STREAMING);
        barrier::context();
    }
}

fn load_host() {
    let (vectors, kept) = room();
    let svcr = kept.load(Ordering::Relaxed);
    let streaming = svcr & STREAMING != 0;
    if streaming {
        SVCR.set(svcr);
        barrier::context();
    }
    if has_sve() || streaming {
        // SAFETY: `save_host` filled the room in the same mode.
        unsafe { load_sve(vectors, !streaming) };
    } else {
        // SAFETY: `save_host` filled the room.
        unsafe { load_simd(vectors.cast()) };
    }
}
