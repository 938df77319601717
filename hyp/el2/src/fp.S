//! FP, SIMD and SVE registers, to memory and back. EL2 itself uses none of them (softfloat), and CPTR_EL2 must let them by.

    .arch_extension fp
    .arch_extension simd

    .macro simd_registers action
    \action q0, q1, [x0, #32 * 0]
    \action q2, q3, [x0, #32 * 1]
    \action q4, q5, [x0, #32 * 2]
    \action q6, q7, [x0, #32 * 3]
    \action q8, q9, [x0, #32 * 4]
    \action q10, q11, [x0, #32 * 5]
    \action q12, q13, [x0, #32 * 6]
    \action q14, q15, [x0, #32 * 7]
    \action q16, q17, [x0, #32 * 8]
    \action q18, q19, [x0, #32 * 9]
    \action q20, q21, [x0, #32 * 10]
    \action q22, q23, [x0, #32 * 11]
    \action q24, q25, [x0, #32 * 12]
    \action q26, q27, [x0, #32 * 13]
    \action q28, q29, [x0, #32 * 14]
    \action q30, q31, [x0, #32 * 15]
    .endm

    // x0 = FpState.
    .section .text.fp, "ax"
    .global save_simd
save_simd:
    simd_registers stp
    mrs     x1, fpsr
    mrs     x2, fpcr
    add     x0, x0, #{fpsr}
    stp     x1, x2, [x0]
    ret
    .global load_simd
load_simd:
    simd_registers ldp
    add     x0, x0, #{fpsr}
    ldp     x1, x2, [x0]
    msr     fpsr, x1
    msr     fpcr, x2
    ret

    .arch_extension sve

    // z0 to z31 at x0, p0 to p15 at x3: 32 and 16 registers of the present vector length.
    .macro sve_registers action
    addvl   x3, x0, #31
    addvl   x3, x3, #1
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \action z\n, [x0, #\n, mul vl]
    .endr
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \action p\n, [x3, #\n, mul vl]
    .endr
    .endm

    // x0 = room for FPSR, FPCR and the registers; x1 = whether there is an FFR, which streaming mode lacks.
    .global save_sve
save_sve:
    mrs     x2, fpsr
    mrs     x3, fpcr
    stp     x2, x3, [x0], #16
    sve_registers str
    cbz     x1, 0f
    rdffr   p0.b
    str     p0, [x3, #16, mul vl]
    ldr     p0, [x3, #0, mul vl]
0:  ret
    .global load_sve
load_sve:
    ldp     x2, x3, [x0], #16
    msr     fpsr, x2
    msr     fpcr, x3
    cbz     x1, 0f
    addvl   x3, x0, #31
    addvl   x3, x3, #1
    ldr     p0, [x3, #16, mul vl]
    wrffr   p0.b
0:  sve_registers ldr
    ret
