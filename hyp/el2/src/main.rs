//! Pinfold at EL2: the image that QEMU starts, and the only unsafe code of the hypervisor.
//!
//! boot.S and [`boot`] bring it up; after that everything begins in a vector: [`trap`] for the host, `world.S` for guests.
//! What to do is decided in `pinfold-core`, behind the one lock of [`hypervisor`]; the modules here do it. Each kind of
//! unsafe has one home: registers ([`sysreg`]), what walkers and TLBs depend on ([`translation`]), memory ([`machine`], [`mmu`],
//! [`cache`], [`heap`]), devices ([`console`]), per-CPU state ([`percpu`]), the doorway ([`trap`]). `hyp/doc/soundness.md`
//! argues by resource.
#![no_std]
#![no_main]
#![expect(
    clippy::doc_markdown,
    reason = "the Arm ARM's names of registers, features and fields are words here"
)]

extern crate alloc;

use pinfold_core::vcpu::{El1State, FpState, GuestContext};

#[macro_use]
mod translation;

mod boot;
mod cache;
mod complaint;
mod console;
mod device_tree;
mod fp;
mod gic;
mod guest_trap;
mod heap;
mod host;
mod hypervisor;
mod inject;
mod judged;
mod lock;
mod machine;
mod mmu;
#[cfg(feature = "mutants")]
mod mutant;
#[cfg(feature = "oracle")]
mod oracle;
mod panic;
mod percpu;
mod platform;
mod psci;
mod semihosting;
mod symbols;
mod syndrome;
mod sysreg;
mod trace;
mod trap;
mod width;
mod world;

core::arch::global_asm!(
    include_str!("boot.S"),
    hcr_boot = const host::HCR_BOOT,
    fill_boot_tables = sym mmu::fill_boot_tables,
    boot_cpu = sym boot::boot_cpu,
    secondary_cpu = sym boot::secondary_cpu,
    root = sym mmu::ROOT,
    tcr = const mmu::TCR,
    sctlr = const mmu::SCTLR,
    stacks = sym percpu::STACKS,
    slot_bytes = const percpu::SLOT_BYTES,
    emergency_top_offset = const percpu::GUARD_BYTES + percpu::EMERGENCY_BYTES,
    per_cpu = sym percpu::BLOCKS,
    per_cpu_bytes = const size_of::<percpu::PerCpu>(),
    emergency_top = const core::mem::offset_of!(percpu::PerCpu, emergency_top),
);

core::arch::global_asm!(
    include_str!("vectors.S"),
    host_trap = sym trap::host_trap,
    fault_at_el2 = sym panic::fault_at_el2,
    frame_bytes = const size_of::<trap::HostFrame>(),
    fault_bytes = const size_of::<panic::FaultFrame>(),
    emergency_top = const core::mem::offset_of!(percpu::PerCpu, emergency_top),
    stack_top = const core::mem::offset_of!(percpu::PerCpu, stack_top),
);

core::arch::global_asm!(
    include_str!("world.S"),
    x = const core::mem::offset_of!(GuestContext, x),
    pc = const core::mem::offset_of!(GuestContext, pc),
    sctlr = const core::mem::offset_of!(El1State, sctlr),
    ttbr0 = const core::mem::offset_of!(El1State, ttbr0),
    tcr = const core::mem::offset_of!(El1State, tcr),
    far = const core::mem::offset_of!(El1State, far),
    afsr1 = const core::mem::offset_of!(El1State, afsr1),
    amair = const core::mem::offset_of!(El1State, amair),
    vbar = const core::mem::offset_of!(El1State, vbar),
    par = const core::mem::offset_of!(El1State, par),
    tpidr_el0 = const core::mem::offset_of!(El1State, tpidr_el0),
    tpidr_el1 = const core::mem::offset_of!(El1State, tpidr_el1),
    sp_el1 = const core::mem::offset_of!(El1State, sp_el1),
    spsr = const core::mem::offset_of!(El1State, spsr),
    pauth = const core::mem::offset_of!(El1State, pauth),
);

core::arch::global_asm!(
    include_str!("fp.S"),
    fpsr = const core::mem::offset_of!(FpState, fpsr),
);
