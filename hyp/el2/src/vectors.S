//! Where exceptions arrive while the host runs, and while EL2 itself does.
//!
//! The host can bring only one kind: a synchronous exception from a lower level. Its registers are saved as one
//! `HostFrame` on this CPU's stack and given to trap.rs. Every other vector is a fault of EL2's own: it changes to the
//! emergency stack first, since the fault may be a stack that ran into its guard frame, and then panics. `el2_vectors` is
//! the same half for the guest vectors of world.S.

    // A fault of EL2's own. SP may be bad and no register is free: the host's SP_EL0 and TPIDR_EL0, which no one will miss
    // after a panic, hold x0 and SP.
    .macro fault number
    .balign 0x80
    msr     sp_el0, x0
    mov     x0, sp
    msr     tpidr_el0, x0
    mov     x0, #\number
    b       emergency
    .endm

    // Vectors 0 to 7: from EL2 with SP_EL0, then with SP_EL2.
    .macro faults_of_el2
    fault   0
    fault   1
    fault   2
    fault   3
    fault   4
    fault   5
    fault   6
    fault   7
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global host_vectors
host_vectors:
    faults_of_el2

    .balign 0x80                        // from the host, synchronous
    sub     sp, sp, #{frame_bytes}
    stp     x0, x1, [sp, #16 * 0]
    stp     x2, x3, [sp, #16 * 1]
    stp     x4, x5, [sp, #16 * 2]
    stp     x6, x7, [sp, #16 * 3]
    stp     x8, x9, [sp, #16 * 4]
    stp     x10, x11, [sp, #16 * 5]
    stp     x12, x13, [sp, #16 * 6]
    stp     x14, x15, [sp, #16 * 7]
    stp     x16, x17, [sp, #16 * 8]
    stp     x18, x19, [sp, #16 * 9]
    stp     x20, x21, [sp, #16 * 10]
    stp     x22, x23, [sp, #16 * 11]
    stp     x24, x25, [sp, #16 * 12]
    stp     x26, x27, [sp, #16 * 13]
    stp     x28, x29, [sp, #16 * 14]
    str     x30, [sp, #16 * 15]
    b       host_synchronous

    fault   9
    fault   10
    fault   11
    fault   12
    fault   13
    fault   14
    fault   15

host_synchronous:
    mov     x0, sp
    mov     x29, #0                     // the backtrace ends here
    bl      {host_trap}
    ldp     x0, x1, [sp, #16 * 0]
    ldp     x2, x3, [sp, #16 * 1]
    ldp     x4, x5, [sp, #16 * 2]
    ldp     x6, x7, [sp, #16 * 3]
    ldp     x8, x9, [sp, #16 * 4]
    ldp     x10, x11, [sp, #16 * 5]
    ldp     x12, x13, [sp, #16 * 6]
    ldp     x14, x15, [sp, #16 * 7]
    ldp     x16, x17, [sp, #16 * 8]
    ldp     x18, x19, [sp, #16 * 9]
    ldp     x20, x21, [sp, #16 * 10]
    ldp     x22, x23, [sp, #16 * 11]
    ldp     x24, x25, [sp, #16 * 12]
    ldp     x26, x27, [sp, #16 * 13]
    ldp     x28, x29, [sp, #16 * 14]
    ldr     x30, [sp, #16 * 15]
    add     sp, sp, #{frame_bytes}
    eret
    dsb     nsh                         // nothing is to be speculated past an ERET
    isb

    // x0 = number of the vector; the real x0 is in SP_EL0, SP in TPIDR_EL0.
    .global emergency
emergency:
    msr     tpidr_el1, x1
    mrs     x1, tpidr_el2
    ldr     x1, [x1, #{emergency_top}]
    sub     x1, x1, #{fault_bytes}
    mov     sp, x1
    stp     x2, x3, [sp, #16 * 1]
    stp     x4, x5, [sp, #16 * 2]
    stp     x6, x7, [sp, #16 * 3]
    stp     x8, x9, [sp, #16 * 4]
    stp     x10, x11, [sp, #16 * 5]
    stp     x12, x13, [sp, #16 * 6]
    stp     x14, x15, [sp, #16 * 7]
    stp     x16, x17, [sp, #16 * 8]
    stp     x18, x19, [sp, #16 * 9]
    stp     x20, x21, [sp, #16 * 10]
    stp     x22, x23, [sp, #16 * 11]
    stp     x24, x25, [sp, #16 * 12]
    stp     x26, x27, [sp, #16 * 13]
    stp     x28, x29, [sp, #16 * 14]
    mrs     x2, sp_el0
    mrs     x3, tpidr_el1
    stp     x2, x3, [sp]
    mrs     x2, tpidr_el0
    stp     x30, x2, [sp, #16 * 15]
    mov     x1, x0
    mov     x0, sp
    b       {fault_at_el2}

    // Enters EL1 for the first time: x0 = argument; ELR_EL2 and SPSR_EL2 are set. The stack is empty again.
    .global enter_el1
enter_el1:
    mrs     x1, tpidr_el2
    ldr     x1, [x1, #{stack_top}]
    mov     sp, x1
    .irp    n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    mov     x\n, xzr
    .endr
    eret
    dsb     nsh
    isb
