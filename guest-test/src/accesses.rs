//! Every form of load, store and cache maintenance by address, as instructions with their address in x0.
//!
//! The data is in x1 (also an address then), x2 and upwards; SIMD and vector forms use register 1. None is followed by anything that depends on its result.

/// Forms that one general register takes part in, so that an abort describes them (`ISV`, DDI 0487 D24.2.37).
pub const PLAIN: [u32; 23] = [
    0x3940_0001, // ldrb w1, [x0]
    0x3900_0001, // strb w1, [x0]
    0x7940_0001, // ldrh w1, [x0]
    0x7900_0001, // strh w1, [x0]
    0xb940_0001, // ldr w1, [x0]
    0xb900_0001, // str w1, [x0]
    0xf940_0001, // ldr x1, [x0]
    0xf900_0001, // str x1, [x0]
    0x3980_0001, // ldrsb x1, [x0]
    0x39c0_0001, // ldrsb w1, [x0]
    0x7980_0001, // ldrsh x1, [x0]
    0x79c0_0001, // ldrsh w1, [x0]
    0xb980_0001, // ldrsw x1, [x0]
    0xf840_0001, // ldur x1, [x0]
    0xf800_0001, // stur x1, [x0]
    0xf840_001f, // ldur xzr, [x0]
    0xf900_001f, // str xzr, [x0]
    0xf87f_6801, // ldr x1, [x0, xzr]
    0xf83f_6801, // str x1, [x0, xzr]
    0xc8df_fc01, // ldar x1, [x0]
    0xc89f_fc01, // stlr x1, [x0]
    0x08df_fc01, // ldarb w1, [x0]
    0x489f_fc01, // stlrh w1, [x0]
];

/// All other forms.
pub const ODD: [u32; 70] = [
    0xf840_0801, // ldtr x1, [x0]
    0xf800_0801, // sttr x1, [x0]
    0x3840_0801, // ldtrb w1, [x0]
    0x3800_0801, // sttrb w1, [x0]
    0xf840_8c01, // ldr x1, [x0, #8]!
    0xf840_8401, // ldr x1, [x0], #8
    0xf800_8c01, // str x1, [x0, #8]!
    0xf800_8401, // str x1, [x0], #8
    0x3840_1401, // ldrb w1, [x0], #1
    0x3800_1401, // strb w1, [x0], #1
    0xa940_0801, // ldp x1, x2, [x0]
    0xa900_0801, // stp x1, x2, [x0]
    0x2940_0801, // ldp w1, w2, [x0]
    0x2900_0801, // stp w1, w2, [x0]
    0x6940_0801, // ldpsw x1, x2, [x0]
    0xa840_0801, // ldnp x1, x2, [x0]
    0xa800_0801, // stnp x1, x2, [x0]
    0xa9c1_0801, // ldp x1, x2, [x0, #16]!
    0xa881_0801, // stp x1, x2, [x0], #16
    0x3d40_0001, // ldr b1, [x0]
    0xbd40_0001, // ldr s1, [x0]
    0xfd40_0001, // ldr d1, [x0]
    0xfd00_0001, // str d1, [x0]
    0x3dc0_0001, // ldr q1, [x0]
    0x3d80_0001, // str q1, [x0]
    0xad40_0801, // ldp q1, q2, [x0]
    0xad00_0801, // stp q1, q2, [x0]
    0x4c40_7001, // ld1 {v1.16b}, [x0]
    0x4c00_7001, // st1 {v1.16b}, [x0]
    0x4c40_0001, // ld4 {v1.16b-v4.16b}, [x0]
    0x4d40_c001, // ld1r {v1.16b}, [x0]
    0xc85f_7c01, // ldxr x1, [x0]
    0xc803_7c01, // stxr w3, x1, [x0]
    0xc85f_fc01, // ldaxr x1, [x0]
    0xc803_fc01, // stlxr w3, x1, [x0]
    0x085f_7c01, // ldxrb w1, [x0]
    0xc87f_0801, // ldxp x1, x2, [x0]
    0xc823_0801, // stxp w3, x1, x2, [x0]
    0xf821_0002, // ldadd x1, x2, [x0]
    0xf8e1_0002, // ldaddal x1, x2, [x0]
    0x3821_0002, // ldaddb w1, w2, [x0]
    0xf821_101f, // stclr x1, [x0]
    0xf821_8002, // swp x1, x2, [x0]
    0xf821_7002, // ldumin x1, x2, [x0]
    0xc8a1_7c02, // cas x1, x2, [x0]
    0xc8e1_fc02, // casal x1, x2, [x0]
    0x4822_7c04, // casp x2, x3, x4, x5, [x0]
    0xf8bf_c001, // ldapr x1, [x0]
    0xd940_0001, // ldapur x1, [x0]
    0xd900_0001, // stlur x1, [x0]
    0xc8df_7c01, // ldlar x1, [x0]
    0xf980_0000, // prfm pldl1keep, [x0]
    0xf980_0008, // prfm plil1keep, [x0]
    0xd50b_7420, // dc zva, x0
    0xd50b_7460, // dc gva, x0
    0xd50b_7a20, // dc cvac, x0
    0xd50b_7b20, // dc cvau, x0
    0xd50b_7e20, // dc civac, x0
    0xd508_7620, // dc ivac, x0
    0xd50b_7520, // ic ivau, x0
    0xd508_7800, // at s1e1r, x0
    0xd508_7820, // at s1e1w, x0
    0xd508_7840, // at s1e0r, x0
    0xf820_0401, // ldraa x1, [x0]
    0xd960_0001, // ldg x1, [x0]
    0xd920_0800, // stg x0, [x0]
    0xf83f_d002, // ld64b x2, [x0]
    0xf83f_9002, // st64b x2, [x0]
    0x8580_4000, // ldr z0, [x0]
    0xe580_4000, // str z0, [x0]
];
