//! The exception vectors of both images (DDI 0487 D1.3.1.5).
//!
//! A synchronous exception goes to the probe that waits for one, else ends the image with a line. An interrupt is acknowledged, counted by [`gic`]
//! and ended; code runs with interrupts masked unless a test opens them.

use core::arch::{asm, global_asm};

use aarch64_cpu::registers::{CPACR_EL1, ELR_EL1, ESR_EL1, FAR_EL1, Readable, VBAR_EL1, Writeable};

use crate::{bytes, gic};

unsafe extern "C" {
    static guest_test_vectors: u8;
}

global_asm!(
    r#"
    .macro  unexpected
    .balign 128
    b       {unexpected}
    .endm

    .macro  synchronous
    .balign 128
    mrs     x0, tpidr_el1
    cbz     x0, 1f
    mov     sp, x0
    b       guest_test_probe_caught
1:  b       {unexpected}
    .endm

    .text
    .balign 2048
guest_test_vectors:
    .rept 4
    unexpected
    .endr
    synchronous                     // from EL1 on SP_EL1
    .balign 128                     // IRQ
    stp     x0, x1, [sp, #-192]!
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x29, [sp, #144]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    stp     x30, x0, [sp, #160]
    str     x1, [sp, #176]
    bl      {interrupt}
    ldp     x30, x0, [sp, #160]
    ldr     x1, [sp, #176]
    msr     elr_el1, x0
    msr     spsr_el1, x1
    ldp     x18, x29, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #192
    eret
    .rept 2
    unexpected
    .endr
    synchronous                     // from EL0
    .rept 3
    unexpected
    .endr
    synchronous                     // from EL0 in AArch32
    .rept 3
    unexpected
    .endr
    "#,
    unexpected = sym unexpected,
    interrupt = sym interrupt,
);

/// Gives this CPU the vectors.
pub(crate) fn install() {
    VBAR_EL1.set(bytes::word(
        (&raw const guest_test_vectors).expose_provenance(),
    ));
    // SAFETY: no probe runs on a CPU that is starting.
    unsafe {
        asm!(
            "msr tpidr_el1, xzr",
            "isb",
            options(nostack, preserves_flags)
        );
    };
}

/// Lets this CPU use the FP and SIMD registers.
pub(crate) fn enable_fp() {
    CPACR_EL1.write(CPACR_EL1::FPEN::TrapNothing);
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

#[expect(
    clippy::panic,
    reason = "an exception that no probe expects ends the image, with its cause"
)]
extern "C" fn unexpected() -> ! {
    panic!(
        "unexpected exception: ESR {:#x} FAR {:#x} ELR {:#x} (image at {:#x})",
        ESR_EL1.get(),
        FAR_EL1.get(),
        ELR_EL1.get(),
        crate::start::image_range().0
    );
}

extern "C" fn interrupt() {
    gic::serve();
}
