//! The first instructions of every CPU: from firmware or boot loader to Rust with the MMU on.
//!
//! `image_start` is the arm64 Image header (Linux Documentation/arch/arm64/booting.rst). The boot CPU clears bss, applies
//! its own relocations and fills the static tables of mmu.rs; every CPU then sets its stack, its per-CPU block, its
//! vectors and turns the MMU on. Invariant: nothing here reads memory that another CPU wrote with its caches on.

    .section .head, "ax"
    .global image_start
image_start:
    b       primary_entry
    .long   0
    .quad   0                           // text_offset
    .long   image_bytes_low             // image_size
    .long   0
    .quad   0b1010                      // little endian, 4 KiB granule, anywhere in RAM
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

    .section .text.boot, "ax"
primary_entry:
    msr     daifset, #0xf
    mov     x19, x0                     // the device tree
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    not_at_el2

    adrp    x1, bss_start               // bss is whole frames
    adrp    x2, bss_end
0:  stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    0b

    adrp    x20, image_start
    adrp    x1, rela_start
    add     x1, x1, :lo12:rela_start
    adrp    x2, rela_end
    add     x2, x2, :lo12:rela_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16           // r_offset, r_info
    ldr     x5, [x1], #8                // r_addend
    cmp     w4, #0x403                  // R_AARCH64_RELATIVE
    b.ne    1b
    add     x5, x5, x20
    str     x5, [x3, x20]
    b       1b

2:  mov     x0, #0
    bl      set_up_cpu
    adrp    x1, {stacks}            // percpu.rs does it for the others
    add     x1, x1, #{emergency_top_offset}
    mrs     x2, tpidr_el2
    str     x1, [x2, #{emergency_top}]
    bl      {fill_boot_tables}

    adrp    x0, rodata_end              // what was written past the caches must not be hidden by a stale line
    adrp    x1, image_end
    bl      invalidate_range
    adrp    x0, text_end                // relocated constants
    adrp    x1, rodata_end
    bl      invalidate_range

    bl      turn_mmu_on
    mov     x0, x19
    mov     x29, #0
    mov     x30, #0
    b       {boot_cpu}

    // CPU_ON and CPU_SUSPEND of psci.rs come back here, with the CPU's index in x0.
    .global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    mov     x19, x0
    bl      set_up_cpu
    bl      turn_mmu_on
    mov     x0, x19
    mov     x29, #0
    mov     x30, #0
    b       {secondary_cpu}

    // Stack, per-CPU block and vectors of CPU x0. No memory is read. Clobbers x1 to x4.
set_up_cpu:
    mov     x1, #{hcr_boot}
    msr     hcr_el2, x1
    isb
    adrp    x1, {stacks}
    mov     x2, #{slot_bytes}
    madd    x1, x0, x2, x1              // start of the slot
    add     x3, x1, x2
    msr     spsel, #1
    mov     sp, x3
    adrp    x3, {per_cpu}
    add     x3, x3, :lo12:{per_cpu}
    mov     x4, #{per_cpu_bytes}
    madd    x3, x0, x4, x3
    msr     tpidr_el2, x3
    adrp    x1, host_vectors
    add     x1, x1, :lo12:host_vectors
    msr     vbar_el2, x1
    isb
    ret

    // x0 to x1, by lines. Clobbers x2, x3.
invalidate_range:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4             // DminLine: log2 of words
    mov     x3, #4
    lsl     x3, x3, x2
0:  dc      ivac, x0
    add     x0, x0, x3
    cmp     x0, x1
    b.lo    0b
    dsb     sy
    ret

    // The static root, the same for every CPU (DDI 0487, D8.2 and D24.2.187). Clobbers x0, x1.
turn_mmu_on:
    ldr     x0, =0xff04                 // MAIR: 0 = device nGnRE, 1 = normal write-back
    msr     mair_el2, x0
    ldr     x0, ={tcr}
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf                // PARange
    cmp     x1, #5                      // 48 bits without FEAT_LPA2
    b.ls    0f
    mov     x1, #5
0:  bfi     x0, x1, #16, #3             // PS
    msr     tcr_el2, x0
    adrp    x0, {root}
    msr     ttbr0_el2, x0
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    ldr     x0, ={sctlr}
    msr     sctlr_el2, x0
    isb
    ret
    .ltorg

    // Not the level that was expected: one line on virt's PL011, then off by the conduit that is there.
not_at_el2:
    mov     x1, #0x09000000
    adr     x2, not_at_el2_text
0:  ldrb    w3, [x2], #1
    cbz     w3, 2f
1:  ldr     w4, [x1, #0x18]             // UARTFR
    tbnz    w4, #5, 1b                  // TXFF
    str     w3, [x1]                    // UARTDR
    b       0b
2:  ldr     w0, =0x84000008             // PSCI SYSTEM_OFF
    hvc     #0
3:  wfe
    b       3b
    .ltorg
not_at_el2_text:
    .asciz  "pinfold: started below EL2; give QEMU -M virt,virtualization=on\r\n"
    .balign 4
