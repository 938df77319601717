//! Pinfold at EL2: the image that QEMU starts, and the only unsafe code of the hypervisor.
//!
//! boot.S and [`boot`] bring it up; after that everything begins in a vector: [`trap`] for the host, `world.S` for guests.
//! What to do is decided in `pinfold-core`, behind the one lock of [`hypervisor`]; the modules here do it. Each kind of
//! unsafe has one home: registers ([`sysreg`]), barriers and TLBs ([`barrier`], [`tlb`]), memory ([`machine`], [`mmu`],
//! [`cache`], [`heap`]), devices ([`console`]), per-CPU state ([`percpu`]), the doorway ([`trap`]). `hyp/doc/soundness.md`
//! argues by resource.
#![no_std]
#![no_main]

extern crate alloc;

mod barrier;
mod boot;
mod cache;
mod complaint;
mod console;
mod device_tree;
mod heap;
mod host;
mod hypervisor;
mod inject;
mod machine;
mod mmu;
mod panic;
mod percpu;
mod platform;
mod psci;
mod ring;
mod semihosting;
mod symbols;
mod syndrome;
mod sysreg;
mod tlb;
mod trap;

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
