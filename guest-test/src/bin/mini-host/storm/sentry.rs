//! A [`Sentry`]: a protected guest that writes a pattern all over its memory, looks whether it stays, and lends the host one frame.
//!
//! Each round it fills its frames with words that depend on the round and the place, reads them four times, shares one more
//! frame with the round's word in it, tells the round, takes the frame back and looks whether the word is there still. What is
//! not as it was is its verdict. Position independent: x0 the port, x1 the frames, x2 their end, x3 the shared frame, x4 the first round.

use core::arch::global_asm;

use guest_test::bytes::{self, FRAME};
use guest_test::port;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq};

use crate::calls;
use crate::folio::Folio;
use crate::vm::{Event, RAM_GFN, SCRATCH_GFN, Vm, store};

/// Frames that a sentry watches.
const FRAMES: u64 = 8;

unsafe extern "C" {
    static mini_host_sentry: u8;
    static mini_host_sentry_end: u8;
}

global_asm!(
    r#"
    .section .rodata
    .balign 8
mini_host_sentry:
    mov     x28, x0
    mov     x20, x1
    mov     x21, x2
    mov     x22, x3
    mov     x23, x4
1:  mov     x9, x20                 // a round: fill
2:  eor     x10, x23, x9
    str     x10, [x9], #8
    cmp     x9, x21
    b.lo    2b
    dsb     sy
    mov     x11, #4
3:  mov     x9, x20                 // look, four times
4:  eor     x10, x23, x9
    ldr     x12, [x9], #8
    cmp     x10, x12
    b.ne    9f
    cmp     x9, x21
    b.lo    4b
    subs    x11, x11, #1
    b.ne    3b
    str     x23, [x22]              // share one frame
    dsb     sy
    mov     x0, #3
    movk    x0, #0xc600, lsl #16
    mov     x1, x22
    mov     x2, #0
    mov     x3, #0
    hvc     #0
    cbnz    x0, 9f
    str     x23, [x28]              // tell the round
    mov     x0, #4
    movk    x0, #0xc600, lsl #16
    mov     x1, x22
    mov     x2, #0
    mov     x3, #0
    hvc     #0                      // take it back
    cbnz    x0, 9f
    ldr     x12, [x22]
    cmp     x12, x23
    b.ne    9f
    add     x23, x23, #1
    b       1b
9:  mov     x9, #1
    str     x9, [x28, #16]
    b       .
mini_host_sentry_end:
    "#
);

/// The sentry's code.
fn code() -> &'static [u8] {
    let first = &raw const mini_host_sentry;
    let end = &raw const mini_host_sentry_end;
    let length =
        bytes::size(bytes::word(end.expose_provenance()) - bytes::word(first.expose_provenance()));
    // SAFETY: the bytes between the two symbols are constants of this image.
    unsafe { core::slice::from_raw_parts(first, length) }
}

/// A guest that looks after its memory.
#[derive(Debug)]
pub(crate) struct Sentry {
    vm: Vm,
    round: u64,
}

impl Sentry {
    /// One that begins with the round `first`, which no other sentry comes to.
    pub(crate) fn post(first: u64) -> Result<Self, Failure> {
        let mut vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        store(&folio, 0, code())?;
        let watched = SCRATCH_GFN * FRAME;
        let end = watched + FRAMES * FRAME;
        let registers = [
            (32, port::RAM),
            (0, port::PORT),
            (1, watched),
            (2, end),
            (3, end),
            (4, first),
        ];
        for (register, value) in registers {
            vm.set_register(register, value)?;
        }
        calls::vm_start(vm.handle()).done("VM_START")?;
        vm.donate(RAM_GFN, folio)?;
        Ok(Self { vm, round: first })
    }

    /// Frames that it has: whoever wants one of them is to be refused.
    pub(crate) fn frame(&self) -> Result<u64, Failure> {
        self.vm.pfn(RAM_GFN)
    }

    /// Lets it watch for one round; the host finds the round's word in the frame that it shares.
    pub(crate) fn watch(&mut self) -> Outcome {
        check_eq!(
            self.vm.next(0, 0)?,
            Event::Told(self.round),
            "what a sentry does"
        );
        let shared = self.vm.folio(SCRATCH_GFN + FRAMES)?.read(0);
        check!(
            shared == Ok(self.round),
            "a sentry shares {:#x}, the host reads {shared:x?}",
            self.round
        );
        self.round += 1;
        Ok(())
    }

    /// How many rounds it watched since `first`.
    pub(crate) const fn rounds(&self, first: u64) -> u64 {
        self.round - first
    }

    /// Ends it.
    pub(crate) fn relieve(self) -> Outcome {
        self.vm.end()
    }
}
