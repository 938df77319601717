//! The world switch's instructions: entering a guest is a call that returns, and registers move by the struct.
//!
//! `enter_guest` keeps the callee-saved registers of its caller and the guest's context on EL2's stack and leaves by ERET; the
//! next exception from the guest comes to `guest_vectors`, stores the guest's registers and returns the number of its
//! vector. Offsets come from Rust. Nothing here decides, and no guest register is left where the host could find it: all
//! that the host gets back is loaded from its own frame.

    // A fault of EL2's own, as in vectors.S.
    .macro fault_in_guest_vectors number
    .balign 0x80
    msr     sp_el0, x0
    mov     x0, sp
    msr     tpidr_el0, x0
    mov     x0, #\number
    b       emergency
    .endm

    .macro exit_of_guest number
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    mov     x1, #\number
    b       leave_guest
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global guest_vectors
guest_vectors:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7
    fault_in_guest_vectors \n
    .endr
    // Synchronous, IRQ, FIQ, SError; then the same from AArch32.
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7
    exit_of_guest \n
    .endr

    // x0 = context. Returns the number of the vector in x0.
    .global enter_guest
enter_guest:
    sub     sp, sp, #112
    stp     x19, x20, [sp, #16 * 0]
    stp     x21, x22, [sp, #16 * 1]
    stp     x23, x24, [sp, #16 * 2]
    stp     x25, x26, [sp, #16 * 3]
    stp     x27, x28, [sp, #16 * 4]
    stp     x29, x30, [sp, #16 * 5]
    str     x0, [sp, #16 * 6]
    ldp     x2, x3, [x0, #{pc}]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    ldp     x2, x3, [x0, #{x} + 16 * 1]
    ldp     x4, x5, [x0, #{x} + 16 * 2]
    ldp     x6, x7, [x0, #{x} + 16 * 3]
    ldp     x8, x9, [x0, #{x} + 16 * 4]
    ldp     x10, x11, [x0, #{x} + 16 * 5]
    ldp     x12, x13, [x0, #{x} + 16 * 6]
    ldp     x14, x15, [x0, #{x} + 16 * 7]
    ldp     x16, x17, [x0, #{x} + 16 * 8]
    ldp     x18, x19, [x0, #{x} + 16 * 9]
    ldp     x20, x21, [x0, #{x} + 16 * 10]
    ldp     x22, x23, [x0, #{x} + 16 * 11]
    ldp     x24, x25, [x0, #{x} + 16 * 12]
    ldp     x26, x27, [x0, #{x} + 16 * 13]
    ldp     x28, x29, [x0, #{x} + 16 * 14]
    ldr     x30, [x0, #{x} + 16 * 15]
    ldp     x0, x1, [x0, #{x}]
    eret
    dsb     nsh                         // nothing is to be speculated past an ERET
    isb

    // x1 = number of the vector; the guest's x0 and x1 are on the stack, above them what enter_guest stored.
leave_guest:
    ldr     x0, [sp, #16 + 16 * 6]
    stp     x2, x3, [x0, #{x} + 16 * 1]
    stp     x4, x5, [x0, #{x} + 16 * 2]
    stp     x6, x7, [x0, #{x} + 16 * 3]
    stp     x8, x9, [x0, #{x} + 16 * 4]
    stp     x10, x11, [x0, #{x} + 16 * 5]
    stp     x12, x13, [x0, #{x} + 16 * 6]
    stp     x14, x15, [x0, #{x} + 16 * 7]
    stp     x16, x17, [x0, #{x} + 16 * 8]
    stp     x18, x19, [x0, #{x} + 16 * 9]
    stp     x20, x21, [x0, #{x} + 16 * 10]
    stp     x22, x23, [x0, #{x} + 16 * 11]
    stp     x24, x25, [x0, #{x} + 16 * 12]
    stp     x26, x27, [x0, #{x} + 16 * 13]
    stp     x28, x29, [x0, #{x} + 16 * 14]
    str     x30, [x0, #{x} + 16 * 15]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0, #{x}]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #{pc}]
    ldp     x19, x20, [sp, #16 * 0]
    ldp     x21, x22, [sp, #16 * 1]
    ldp     x23, x24, [sp, #16 * 2]
    ldp     x25, x26, [sp, #16 * 3]
    ldp     x27, x28, [sp, #16 * 4]
    ldp     x29, x30, [sp, #16 * 5]
    add     sp, sp, #112
    mov     x0, x1
    ret

    .macro save first, second, offset
    mrs     x1, \first
    mrs     x2, \second
    stp     x1, x2, [x0, #\offset]
    .endm

    .macro load first, second, offset
    ldp     x1, x2, [x0, #\offset]
    msr     \first, x1
    msr     \second, x2
    .endm

    // The registers of El1State, in pairs of neighbours.
    .macro el1_registers action
    \action sctlr_el1, cpacr_el1, {sctlr}
    \action ttbr0_el1, ttbr1_el1, {ttbr0}
    \action tcr_el1, esr_el1, {tcr}
    \action far_el1, afsr0_el1, {far}
    \action afsr1_el1, mair_el1, {afsr1}
    \action amair_el1, contextidr_el1, {amair}
    \action vbar_el1, cntkctl_el1, {vbar}
    \action par_el1, csselr_el1, {par}
    \action tpidr_el0, tpidrro_el0, {tpidr_el0}
    \action tpidr_el1, sp_el0, {tpidr_el1}
    \action sp_el1, elr_el1, {sp_el1}
    \action spsr_el1, mdscr_el1, {spsr}
    .endm

    // By encoding, since the keys are an extension: APIA, APIB, APDA, APDB, APGA, low and high words.
    .macro pauth_registers action
    \action S3_0_C2_C1_0, S3_0_C2_C1_1, {pauth}
    \action S3_0_C2_C1_2, S3_0_C2_C1_3, {pauth} + 16 * 1
    \action S3_0_C2_C2_0, S3_0_C2_C2_1, {pauth} + 16 * 2
    \action S3_0_C2_C2_2, S3_0_C2_C2_3, {pauth} + 16 * 3
    \action S3_0_C2_C3_0, S3_0_C2_C3_1, {pauth} + 16 * 4
    .endm

    // x0 = El1State, for all four.
    .global save_el1
save_el1:
    el1_registers save
    ret
    .global load_el1
load_el1:
    el1_registers load
    ret
    .global save_pauth_keys
save_pauth_keys:
    pauth_registers save
    ret
    .global load_pauth_keys
load_pauth_keys:
    pauth_registers load
    ret

    // x0 = values, x1 = how many list registers. Both stop at the last one in use.
    .global save_lists
save_lists:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    cbz     x1, 0f
    mrs     x2, ich_lr\n\()_el2
    str     x2, [x0], #8
    sub     x1, x1, #1
    .endr
0:  ret
    .global load_lists
load_lists:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    cbz     x1, 0f
    ldr     x2, [x0], #8
    msr     ich_lr\n\()_el2, x2
    sub     x1, x1, #1
    .endr
0:  ret
