//! The puppet: a guest of one page without a stack, which does what the mini host tells it, one word at a time.
//!
//! It asks the test port for a command and its arguments, does it with stage 1 off, and tells the results. So a host test can say, in
//! straight-line code, what the guest reads, writes and calls. Position independent; x0 holds the port's address at start.

use core::arch::global_asm;

use guest_test::tap::{Failure, Outcome};
use guest_test::{bytes, check_eq, port, timer};
use pinfold_abi::GuestFunction;

use crate::calls::ExitReason;
use crate::vm::{Event, Exit, Vm};

/// KVM's call by which a guest gives a frame back.
const MEM_RELINQUISH: u64 = GuestFunction::MemRelinquish.number();

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

/// The exit of a frame that the puppet gave back.
pub(crate) const fn came_back(gfn: u64) -> Exit {
    Exit {
        reason: ExitReason::Relinquished,
        details: [gfn, 1, 0],
    }
}

/// What the puppet of a VM does.
impl Vm {
    /// The puppet begins to do something; gives what comes of it first.
    pub(crate) fn begins(&mut self, command: Command) -> Result<Event, Failure> {
        let (words, count, _) = command.words();
        let mut event = self.next(0, 0)?;
        for word in words.iter().take(count) {
            check_eq!(
                event,
                Event::Asked,
                "the puppet's question for {command:x?}"
            );
            event = self.next(0, *word)?;
        }
        Ok(event)
    }

    /// Lets the puppet do one thing; gives the words that it told.
    pub(crate) fn does(&mut self, command: Command) -> Result<[u64; 4], Failure> {
        let event = self.begins(command)?;
        self.tells(event, command)
    }

    /// What the puppet tells when it has done something, of which `first` came first.
    fn tells(&mut self, first: Event, command: Command) -> Result<[u64; 4], Failure> {
        let (_, _, results) = command.words();
        let mut told = [0; 4];
        let mut place = self.told(first, &mut told, 0, command)?;
        while place < results {
            let event = self.next(0, 0)?;
            place = self.told(event, &mut told, place, command)?;
        }
        Ok(told)
    }

    fn told(
        &self,
        event: Event,
        told: &mut [u64; 4],
        place: usize,
        command: Command,
    ) -> Result<usize, Failure> {
        match (event, told.get_mut(place)) {
            (Event::Told(word), Some(slot)) => {
                *slot = word;
                Ok(place + 1)
            }
            (
                Event::Exit(Exit {
                    reason: ExitReason::SystemOff,
                    ..
                }),
                _,
            ) if command == Command::Off => Ok(place),
            (event, _) => Err(Failure::new(format_args!(
                "VM {:#x}: {event:x?} while it did {command:x?}",
                self.handle()
            ))),
        }
    }

    /// The puppet reads a word.
    pub(crate) fn reads(&mut self, ipa: u64) -> Result<u64, Failure> {
        let [word, ..] = self.does(Command::Read { ipa })?;
        Ok(word)
    }

    /// The puppet writes a word.
    pub(crate) fn writes(&mut self, ipa: u64, word: u64) -> Outcome {
        self.does(Command::Write { ipa, word }).map(|_| ())
    }

    /// The puppet calls the hypervisor; gives x0.
    pub(crate) fn calls(&mut self, function: u64, first: u64) -> Result<u64, Failure> {
        let [x0, ..] = self.does(Command::Hvc([function, first, 0, 0]))?;
        Ok(x0)
    }

    /// The puppet gives a frame back; gives what it is told, and what the host is told.
    pub(crate) fn relinquishes(&mut self, ipa: u64) -> Result<(u64, Option<Exit>), Failure> {
        let command = Command::Hvc([MEM_RELINQUISH, ipa, 0, 0]);
        let (mut event, mut exit) = (self.begins(command)?, None);
        if let Event::Exit(seen) = event {
            exit = Some(seen);
            event = self.next(0, 0)?;
        }
        let [x0, ..] = self.tells(event, command)?;
        Ok((x0, exit))
    }

    /// The puppet makes a call that ends its turn; gives the exit.
    pub(crate) fn last_words(&mut self, words: [u64; 4]) -> Result<Exit, Failure> {
        self.timed_last_words(words).map(|(exit, _)| exit)
    }

    /// The same, and how many ticks of the timer the turn took in which the puppet made the call.
    pub(crate) fn timed_last_words(&mut self, words: [u64; 4]) -> Result<(Exit, u64), Failure> {
        let (words, ..) = Command::Hvc(words).words();
        let mut event = self.next(0, 0)?;
        let mut ticks = 0;
        for word in words {
            check_eq!(event, Event::Asked, "the puppet's question");
            let start = timer::now();
            event = self.turn(word)?;
            ticks = timer::now() - start;
        }
        match event {
            Event::Exit(exit) => Ok((exit, ticks)),
            Event::Told(_) | Event::Asked | Event::Verdict(_) => Err(Failure::new(format_args!(
                "{event:x?} after a call that ends the turn"
            ))),
        }
    }

    /// Runs vCPU 0 up to the next event, of which a WFI is one.
    fn turn(&self, answer: u64) -> Result<Event, Failure> {
        let mut exit = self.run(0, answer)?;
        while exit.reason == ExitReason::Interrupt {
            exit = self.run(0, 0)?;
        }
        let [first, _, third] = exit.details;
        Ok(match exit.reason {
            ExitReason::MmioRead if first == port::ASK => Event::Asked,
            ExitReason::MmioWrite if first == port::TELL => Event::Told(third),
            ExitReason::MmioRead
            | ExitReason::MmioWrite
            | ExitReason::Interrupt
            | ExitReason::Wfi
            | ExitReason::MemoryFault
            | ExitReason::Shared
            | ExitReason::UnshareRequest
            | ExitReason::CpuOn
            | ExitReason::PoweredOff
            | ExitReason::SystemOff
            | ExitReason::SystemReset
            | ExitReason::Crashed
            | ExitReason::Relinquished
            | ExitReason::Kick => Event::Exit(exit),
        })
    }
}
