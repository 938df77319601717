//! The first instructions of both images: the `Image` header, self-relocation, stacks, and the entry of further CPUs.
//!
//! A loader enters `_start` at EL1 with stage 1 off and x0..x3 as its protocol says (Linux's arm64 boot protocol,
//! Documentation/arch/arm64/booting.rst: x0 = device tree). After relocation and clearing `.bss`, `image_main(x0..x3)` of the image runs on CPU 0 with stage 1 on.
//! A CPU started by PSCI enters `secondary_entry` with its index in x0 and goes to `secondary_main(index)` of the image.
//!
//! Invariant: each of the [`CPUS`] CPUs has its own stack of [`STACK`] bytes, in `.noinit`.

use core::arch::global_asm;

use crate::{bytes, mmu, vectors};

/// CPUs that have a stack.
pub const CPUS: usize = 8;

/// Bytes of stack for each CPU.
pub const STACK: usize = 64 * 1024;

unsafe extern "C" {
    static _start: u8;
    static __image_end: u8;
    static secondary_entry: u8;
    fn image_main(x0: u64, x1: u64, x2: u64, x3: u64) -> !;
    fn secondary_main(index: u64) -> !;
}

global_asm!(
    r#"
    .section .head, "ax"
    .global _start
_start:
    b       2f                      // code0
    nop                             // code1
    .quad   0                       // text_offset: any 2 MiB boundary will do
    .long   __image_size            // image_size, low and high word (a 64-bit field would become a relocation)
    .long   0
    .quad   0xa                     // flags: little endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

2:  msr     daifset, #0xf
    adrp    x4, __rela_start
    add     x4, x4, :lo12:__rela_start
    adrp    x5, __rela_end
    add     x5, x5, :lo12:__rela_end
    adr     x6, _start              // linked at 0, so this is what every pointer lacks
3:  cmp     x4, x5
    b.hs    4f
    ldp     x7, x8, [x4], #16       // offset, info
    ldr     x9, [x4], #8            // addend
    cmp     w8, #1027               // R_AARCH64_RELATIVE
    b.ne    3b
    add     x9, x9, x6
    str     x9, [x6, x7]
    b       3b
4:  adrp    x4, __bss_start
    adrp    x5, __bss_end
5:  cmp     x4, x5
    b.hs    6f
    stp     xzr, xzr, [x4], #16
    b       5b
6:  adrp    x4, {stacks}
    add     x4, x4, :lo12:{stacks}
    mov     x5, #{stack}
    add     sp, x4, x5
    mov     x29, #0
    mov     x30, #0
    bl      {first_cpu}
    b       .

    .text
    .global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    adrp    x4, {stacks}
    add     x4, x4, :lo12:{stacks}
    mov     x5, #{stack}
    add     x6, x0, #1
    madd    x4, x5, x6, x4
    mov     sp, x4
    mov     x29, #0
    mov     x30, #0
    bl      {further_cpu}
    b       .
    "#,
    stacks = sym STACKS,
    stack = const STACK,
    first_cpu = sym first_cpu,
    further_cpu = sym further_cpu,
);

/// The stacks of all CPUs, lowest CPU first; only assembly uses them.
#[repr(C, align(4096))]
struct Stacks([[u8; STACK]; CPUS]);

// SAFETY: the section is memory of the image that nothing clears or loads, and nothing reads a stack before writing it.
#[unsafe(link_section = ".noinit.stacks")]
static mut STACKS: core::mem::MaybeUninit<Stacks> = core::mem::MaybeUninit::uninit();

extern "C" fn first_cpu(x0: u64, x1: u64, x2: u64, x3: u64) -> ! {
    mmu::fill();
    prepare();
    // SAFETY: every image defines it, with this signature.
    unsafe { image_main(x0, x1, x2, x3) }
}

extern "C" fn further_cpu(index: u64) -> ! {
    prepare();
    // SAFETY: every image defines it, with this signature.
    unsafe { secondary_main(index) }
}

/// Gives this CPU its vectors, its translation, and the use of FP registers (for the canary tests).
fn prepare() {
    vectors::install();
    mmu::enable();
    vectors::enable_fp();
}

/// Physical address where a CPU that PSCI starts has to begin; its context argument is the CPU's index.
#[must_use]
pub fn secondary_entry_point() -> u64 {
    bytes::word((&raw const secondary_entry).expose_provenance())
}

/// First and one-past-last byte of the image with its stacks.
#[must_use]
pub fn image_range() -> (u64, u64) {
    (
        bytes::word((&raw const _start).expose_provenance()),
        bytes::word((&raw const __image_end).expose_provenance()),
    )
}

/// Exception level that the CPU runs at (DDI 0487 C5.2.1, `CurrentEL`).
#[must_use]
pub fn exception_level() -> u64 {
    use aarch64_cpu::registers::{CurrentEL, Readable};
    CurrentEL.read(CurrentEL::EL)
}

/// Waits for ever, for a CPU that has nothing left to do.
pub fn park() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}
