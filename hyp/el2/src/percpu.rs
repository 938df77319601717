//! One block for each CPU, found through TPIDR_EL2.
//!
//! boot.S puts the address of a CPU's block into TPIDR_EL2 before any Rust runs on it, and nothing else writes that
//! register. A block is shared (another CPU may read it, `CPU_ON` writes the target's boot request), so every field is
//! an atomic; fields without a word to the contrary belong to their own CPU.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{Readable, TPIDR_EL2};

use crate::width::narrow;

/// How many CPUs EL2 has stacks and blocks for.
pub(crate) const CPUS: usize = 8;

/// Bytes of a frame that is never mapped, under each stack.
pub(crate) const GUARD_BYTES: usize = 0x1000;
/// Bytes of the stack that a fault of EL2's own runs on.
pub(crate) const EMERGENCY_BYTES: usize = 0x2000;
/// Bytes of the stack.
pub(crate) const STACK_BYTES: usize = 0x6000;
/// Bytes of one CPU's slot: guard, emergency stack, guard, stack.
pub(crate) const SLOT_BYTES: usize = 2 * GUARD_BYTES + EMERGENCY_BYTES + STACK_BYTES;

/// Room for one CPU's stacks; atomics only so that nobody takes it for constant.
#[repr(C, align(4096))]
pub(crate) struct StackSlot([AtomicU64; SLOT_BYTES / 8]);

// SAFETY: hyp.ld keeps this section apart, frame aligned, and mmu.rs leaves out the guards when it maps it.
#[unsafe(link_section = ".bss.stacks")]
pub(crate) static STACKS: [StackSlot; CPUS] =
    [const { StackSlot([const { AtomicU64::new(0) }; SLOT_BYTES / 8]) }; CPUS];

/// Where a CPU is in its life, as PSCI sees it (DEN0022, section 6.6): written by the CPU that moves it.
pub(crate) mod power {
    /// Off; `CPU_ON` may claim it.
    pub(crate) const OFF: u64 = 0;
    /// Claimed by a `CPU_ON` that is under way.
    pub(crate) const PENDING: u64 = 1;
    /// On.
    pub(crate) const ON: u64 = 2;
}

/// What EL2 knows of one CPU.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct PerCpu {
    /// Top of the emergency stack: boot.S and vectors.S load it.
    pub(crate) emergency_top: AtomicUsize,
    /// Top of the stack: vectors.S loads it.
    pub(crate) stack_top: AtomicUsize,
    index: AtomicUsize,
    /// Affinity fields of MPIDR_EL1.
    pub(crate) affinity: AtomicU64,
    /// One of [`power`].
    pub(crate) power: AtomicU64,
    /// Where EL1 starts after `CPU_ON` or a suspend that lost its state.
    pub(crate) entry: AtomicU64,
    /// x0 there.
    pub(crate) context: AtomicU64,
    /// Set for good once this CPU has begun to panic.
    pub(crate) panicking: AtomicBool,
}

impl PerCpu {
    const fn new() -> Self {
        Self {
            emergency_top: AtomicUsize::new(0),
            stack_top: AtomicUsize::new(0),
            index: AtomicUsize::new(0),
            affinity: AtomicU64::new(u64::MAX),
            power: AtomicU64::new(power::OFF),
            entry: AtomicU64::new(0),
            context: AtomicU64::new(0),
            panicking: AtomicBool::new(false),
        }
    }

    /// The CPU's number, below [`CPUS`]: the order of the device tree.
    pub(crate) fn index(&self) -> usize {
        self.index.load(Ordering::Relaxed)
    }
}

/// The blocks, which boot.S finds by address.
pub(crate) static BLOCKS: [PerCpu; CPUS] = [const { PerCpu::new() }; CPUS];

/// This CPU's block.
pub(crate) fn current() -> &'static PerCpu {
    let pointer = core::ptr::with_exposed_provenance::<PerCpu>(narrow(TPIDR_EL2.get()));
    // SAFETY: boot.S put the address of an element of `BLOCKS` there before Rust ran on this CPU; it is shared for ever.
    unsafe { &*pointer }
}

/// Fills every block but for the affinities. Runs once, on the boot CPU, before any other runs.
pub(crate) fn set_up() {
    let _ = BLOCKS.as_ptr().expose_provenance();
    for (number, block) in BLOCKS.iter().enumerate() {
        let slot = STACKS.as_ptr().addr() + number * SLOT_BYTES;
        block
            .emergency_top
            .store(slot + GUARD_BYTES + EMERGENCY_BYTES, Ordering::Relaxed);
        block.stack_top.store(slot + SLOT_BYTES, Ordering::Relaxed);
        block.index.store(number, Ordering::Relaxed);
    }
}

/// The CPUs that the device tree names.
pub(crate) fn present() -> impl Iterator<Item = &'static PerCpu> {
    BLOCKS
        .iter()
        .filter(|block| block.affinity.load(Ordering::Relaxed) != u64::MAX)
}

/// The CPU with these affinity fields.
pub(crate) fn by_affinity(affinity: u64) -> Option<&'static PerCpu> {
    present().find(|block| block.affinity.load(Ordering::Relaxed) == affinity)
}

const _: () = assert!(STACK_BYTES.is_multiple_of(0x1000) && EMERGENCY_BYTES.is_multiple_of(0x1000));
