//! The puppet: a guest of one page without a stack, which does what the mini host tells it, one word at a time.
//!
//! It asks the test port for a command and its arguments, does it with stage 1 off, and tells the results. So a host test can say, in
//! straight-line code, what the guest reads, writes and calls. Position independent; x0 holds the port's address at start.

use core::arch::global_asm;

use guest_test::bytes;

unsafe extern "C" {
    static mini_host_puppet: u8;
    static mini_host_puppet_end: u8;
}

global_asm!(
    r#"
    .section .rodata
    .balign 8
mini_host_puppet:
    msr     daifclr, #8             // somebody else's breakpoints would show
    mov     x28, x0
1:  ldr     x9, [x28, #8]
    cmp     x9, #1
    b.eq    11f
    cmp     x9, #2
    b.eq    12f
    cmp     x9, #3
    b.eq    13f
    cmp     x9, #4
    b.eq    14f
    cmp     x9, #5
    b.eq    15f
    cmp     x9, #6
    b.eq    16f
    mov     x0, #0x0008             // PSCI SYSTEM_OFF
    movk    x0, #0x8400, lsl #16
    hvc     #0
    b       .
11: ldr     x1, [x28, #8]           // read: address; tells the word
    ldr     x0, [x1]
    str     x0, [x28]
    b       1b
12: ldr     x1, [x28, #8]           // write: address, word; tells 0
    ldr     x2, [x28, #8]
    str     x2, [x1]
    dsb     sy
    str     xzr, [x28]
    b       1b
13: ldr     x0, [x28, #8]           // hvc: x0..x3; tells x0..x3
    ldr     x1, [x28, #8]
    ldr     x2, [x28, #8]
    ldr     x3, [x28, #8]
    hvc     #0
    str     x0, [x28]
    str     x1, [x28]
    str     x2, [x28]
    str     x3, [x28]
    b       1b
14: ldr     x1, [x28, #8]           // fill: address, frames, seed; tells 0
    ldr     x2, [x28, #8]
    ldr     x3, [x28, #8]
    add     x2, x1, x2, lsl #12
2:  str     x3, [x1], #8
    cmp     x1, x2
    b.lo    2b
    dsb     sy
    str     xzr, [x28]
    b       1b
15: ldr     x1, [x28, #8]           // spin: so many times; tells 0
3:  subs    x1, x1, #1
    b.hi    3b
    str     xzr, [x28]
    b       1b
16: wfi                             // wait for an interrupt; tells 0
    str     xzr, [x28]
    b       1b
mini_host_puppet_end:
    "#
);

/// The puppet's code.
pub(crate) fn code() -> &'static [u8] {
    let first = &raw const mini_host_puppet;
    let end = &raw const mini_host_puppet_end;
    let length =
        bytes::size(bytes::word(end.expose_provenance()) - bytes::word(first.expose_provenance()));
    // SAFETY: the bytes between the two symbols are constants of this image.
    unsafe { core::slice::from_raw_parts(first, length) }
}

/// What the puppet can do, as its command words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Turn the VM off.
    Off,
    /// Read a word.
    Read {
        /// Where.
        ipa: u64,
    },
    /// Write a word.
    Write {
        /// Where.
        ipa: u64,
        /// What.
        word: u64,
    },
    /// Call the hypervisor.
    Hvc([u64; 4]),
    /// Store the same word all over some frames.
    Fill {
        /// Where.
        ipa: u64,
        /// How many.
        frames: u64,
        /// What.
        word: u64,
    },
    /// Count down.
    Spin(u64),
    /// Wait for an interrupt.
    Wfi,
}

impl Command {
    /// The words to answer the puppet's questions with, how many of them count, and how many words it tells.
    pub(crate) const fn words(self) -> ([u64; 5], usize, usize) {
        match self {
            Self::Off => ([0; 5], 1, 0),
            Self::Read { ipa } => ([1, ipa, 0, 0, 0], 2, 1),
            Self::Write { ipa, word } => ([2, ipa, word, 0, 0], 3, 1),
            Self::Hvc([a, b, c, d]) => ([3, a, b, c, d], 5, 4),
            Self::Fill { ipa, frames, word } => ([4, ipa, frames, word, 0], 4, 1),
            Self::Spin(times) => ([5, times, 0, 0, 0], 2, 1),
            Self::Wfi => ([6, 0, 0, 0, 0], 1, 1),
        }
    }
}
