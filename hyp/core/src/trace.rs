//! The last calls and exits of one CPU: [`Ring`], which a debug image keeps and a release image has not.
//!
//! Only its own CPU writes a ring, and any CPU reads it: [`slots`] has how. What the words mean is said in
//! [`pinfold_abi::trace`]; [`Line`] says an entry in words, for a panic and for the host's `pinfold trace`.
//!
//! Debug calls are left out, since they only look and whoever reads the trace makes many. A guest's registers are left out but for x0 to
//! x3 of a call and the addresses of an exception; a debug image shows these to the host, which a release image never does.

use core::fmt::{self, Display, Formatter};

use pinfold_abi::show::{Answer, Call, call_of};
use pinfold_abi::trace::{Cause, Entry, Event, LENGTH, PART, Trap, WENT_ON, WORDS};
use pinfold_abi::{DEBUG_CALLS, FUNCTION_BASE, TraceKind};

use crate::call::guest::GuestCall;
use crate::exit::{Conduit, Exit, Fault, Syndrome};
use crate::hypervisor::CallRegisters;
use crate::vcpu::VcpuExit;
use crate::vm::Kind;

mod atomic {
    pub(super) use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}
mod slots;

use atomic::{AtomicU64, AtomicUsize, Ordering};
use slots::{Slots, Words};

/// How many entries a panic tells.
const TOLD: usize = 16;

/// The ring.
#[derive(Debug)]
pub struct Ring(Slots<WORDS, LENGTH>);

/// The words of an entry that is not complete yet; none if it is not noted.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    words: Option<&'a Words<WORDS>>,
    /// How many entries were written with it.
    written: usize,
}

impl Mark<'_> {
    /// No entry.
    pub const NONE: Self = Self {
        words: None,
        written: 0,
    };

    /// Notes the answer of the call, which is the newest entry: see [`Ring::again`].
    #[inline]
    pub fn answer(&self, registers: &CallRegisters) {
        let [v0, v1, v2, v3, v4, v5, v6, v7, ..] = registers.x;
        if let Some([kind, .., x0, x1, x2, x3, x4, x5, x6, x7]) = self.words {
            x0.store(v0, Ordering::Relaxed);
            x1.store(v1, Ordering::Relaxed);
            x2.store(v2, Ordering::Relaxed);
            x3.store(v3, Ordering::Relaxed);
            x4.store(v4, Ordering::Relaxed);
            x5.store(v5, Ordering::Relaxed);
            x6.store(v6, Ordering::Relaxed);
            x7.store(v7, Ordering::Relaxed);
            kind.store(TraceKind::Answer.number(), Ordering::Release);
        }
    }

    /// Notes what the host learns of the exception, which is the newest entry.
    #[inline]
    pub fn left(&self, exit: VcpuExit) {
        if let Some([_, _, _, _, _, _, _, _, _, reason, d0, d1, d2, ..]) = self.words {
            let [number, first, second, third] = exit.words();
            d0.store(first, Ordering::Relaxed);
            d1.store(second, Ordering::Relaxed);
            d2.store(third, Ordering::Relaxed);
            reason.store(number, Ordering::Release);
        }
    }
}

/// An exception to be noted.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// VM handle and vCPU; zeroes for the host.
    pub who: [u64; 2],
    /// The address of the instruction, or behind it after an HVC.
    pub pc: u64,
    /// What it was.
    pub cause: Cause,
    /// How the processor described it.
    pub syndrome: Syndrome,
    /// x0 to x3 of a call.
    pub x: [u64; 4],
}

/// What made `exit`.
#[must_use]
pub const fn cause(exit: &Exit) -> Cause {
    match exit {
        Exit::Interrupt => Cause::Interrupt,
        Exit::Timer => Cause::Timer,
        Exit::Maintenance => Cause::Maintenance,
        Exit::SystemError(_) => Cause::SystemError,
        Exit::WaitForInterrupt
        | Exit::WaitForEvent
        | Exit::Call(_)
        | Exit::FloatingPoint
        | Exit::SystemRegister(_)
        | Exit::DataAbort(_)
        | Exit::InstructionAbort(_)
        | Exit::Undefined
        | Exit::Unexpected(_) => Cause::Exception,
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        Self(Slots {
            slots: [const { [const { AtomicU64::new(0) }; WORDS] }; LENGTH],
            written: AtomicUsize::new(0),
        })
    }

    /// Notes a call of the host before it is performed.
    #[inline]
    pub fn call(&self, time: u64, registers: &CallRegisters) -> Mark<'_> {
        let [v0, v1, v2, v3, v4, v5, v6, v7, ..] = registers.x;
        if DEBUG_CALLS.contains(&v0.wrapping_sub(FUNCTION_BASE)) {
            return Mark::NONE;
        }
        let entry = self.0.written();
        let words = self.0.begin(entry);
        if let Some([kind, when, x0, x1, x2, x3, x4, x5, x6, x7, ..]) = words {
            // One by one: a loop costs twice as much in an image that is built for size.
            kind.store(TraceKind::Call.number(), Ordering::Relaxed);
            when.store(time, Ordering::Relaxed);
            x0.store(v0, Ordering::Relaxed);
            x1.store(v1, Ordering::Relaxed);
            x2.store(v2, Ordering::Relaxed);
            x3.store(v3, Ordering::Relaxed);
            x4.store(v4, Ordering::Relaxed);
            x5.store(v5, Ordering::Relaxed);
            x6.store(v6, Ordering::Relaxed);
            x7.store(v7, Ordering::Relaxed);
        }
        let written = self.0.publish(entry);
        Mark { words, written }
    }

    /// Notes a call that ran a vCPU once more, before it is answered: the exits since may have pushed it out.
    pub fn again<'a>(&'a self, mark: Mark<'a>, time: u64, registers: &CallRegisters) -> Mark<'a> {
        if mark.words.is_some() && self.0.written() != mark.written {
            self.call(time, registers)
        } else {
            mark
        }
    }

    /// Notes an exception of a guest, or of the host, before it is dealt with.
    #[inline]
    pub fn arrival(&self, kind: TraceKind, time: u64, arrival: &Arrival) -> Mark<'_> {
        let [x0, x1, x2, x3] = arrival.x;
        let [vm, vcpu] = arrival.who;
        let Syndrome { esr, far, hpfar } = arrival.syndrome;
        let entry = self.0.written();
        let words = self.0.begin(entry);
        if let Some(
            [
                w0,
                w1,
                w2,
                w3,
                w4,
                w5,
                w6,
                w7,
                w8,
                w9,
                ..,
                w13,
                w14,
                w15,
                w16,
                _,
            ],
        ) = words
        {
            w0.store(kind.number(), Ordering::Relaxed);
            w1.store(time, Ordering::Relaxed);
            w2.store(vm, Ordering::Relaxed);
            w3.store(vcpu, Ordering::Relaxed);
            w4.store(arrival.pc, Ordering::Relaxed);
            w5.store(arrival.cause.number(), Ordering::Relaxed);
            w6.store(esr, Ordering::Relaxed);
            w7.store(far, Ordering::Relaxed);
            w8.store(hpfar, Ordering::Relaxed);
            w9.store(WENT_ON, Ordering::Relaxed);
            w13.store(x0, Ordering::Relaxed);
            w14.store(x1, Ordering::Relaxed);
            w15.store(x2, Ordering::Relaxed);
            w16.store(x3, Ordering::Relaxed);
        }
        let written = self.0.publish(entry);
        Mark { words, written }
    }

    /// The oldest entry that is kept, and the one that will be written next.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        self.0.kept()
    }

    /// Six words of an entry, if it is kept.
    #[must_use]
    pub fn part(&self, entry: usize, part: usize) -> Option<[u64; PART]> {
        let words = self.0.read(entry)?;
        let (parts, _) = words.as_chunks();
        parts.get(part).copied()
    }
}

impl Display for Ring {
    /// One line for each of the last entries, the oldest first.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (oldest, next) = self.kept();
        for number in oldest.max(next.saturating_sub(TOLD))..next {
            if let Some(entry) = self.0.read(number).and_then(Entry::decode) {
                writeln!(f, "  {number} {}", Line(entry))?;
            }
        }
        Ok(())
    }
}

/// An entry in words, without its time.
#[derive(Clone, Copy, Debug)]
pub struct Line(pub Entry);

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.event {
            Event::Call { x, answer } => {
                let [function, ..] = x;
                write!(f, "{}", Call(x))?;
                let call = call_of(function);
                answer.map_or(Ok(()), |x| write!(f, " -> {}", Answer { call, x }))
            }
            Event::GuestExit(trap) => {
                write!(
                    f,
                    "guest {:#x}.{} at {:#x}: {}",
                    trap.vm,
                    trap.vcpu,
                    trap.pc,
                    Reason(trap)
                )?;
                trap.exit.map_or(Ok(()), |words| {
                    write!(f, " -> {}", pinfold_abi::show::Exit(words))
                })
            }
            Event::HostTrap(trap) => write!(f, "host at {:#x}: {}", trap.pc, Reason(trap)),
        }
    }
}

/// What an exception was, in words.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub Trap);

impl Reason {
    /// The exit that it was for core.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let Trap {
            cause,
            esr,
            far,
            hpfar,
            ..
        } = self.0;
        let syndrome = Syndrome { esr, far, hpfar };
        match cause {
            Cause::Exception => Exit::decode(syndrome),
            Cause::Interrupt => Exit::Interrupt,
            Cause::Timer => Exit::Timer,
            Cause::Maintenance => Exit::Maintenance,
            Cause::SystemError => Exit::SystemError(esr),
        }
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.exit() {
            Exit::Interrupt => f.write_str("interrupt"),
            Exit::Timer => f.write_str("virtual timer"),
            Exit::Maintenance => f.write_str("list registers"),
            Exit::SystemError(esr) => write!(f, "SError, ESR {esr:#x}"),
            Exit::WaitForInterrupt => f.write_str("WFI"),
            Exit::WaitForEvent => f.write_str("WFE"),
            Exit::Call(conduit) => called(f, conduit, self.0.x),
            Exit::FloatingPoint => f.write_str("first use of FP/SIMD"),
            Exit::SystemRegister(access) => {
                let register = access.register;
                write!(
                    f,
                    "{} S{}_{}_C{}_C{}_{}, x{}",
                    if access.read { "MRS" } else { "MSR" },
                    register.op0,
                    register.op1,
                    register.crn,
                    register.crm,
                    register.op2,
                    access.transfer
                )
            }
            Exit::DataAbort(abort) => {
                let what = if abort.write { "write" } else { "read" };
                match abort.access {
                    Some(access) => write!(f, "{what} of {} bytes", access.width)?,
                    None => f.write_str(what)?,
                }
                faulted(f, abort.fault)
            }
            Exit::InstructionAbort(fault) => {
                f.write_str("fetch")?;
                faulted(f, fault)
            }
            Exit::Undefined => write!(f, "an instruction that is not there, ESR {:#x}", self.0.esr),
            Exit::Unexpected(_) => write!(f, "unexpected, ESR {:#x}", self.0.esr),
        }
    }
}

fn called(f: &mut Formatter<'_>, conduit: Conduit, x: [u64; 4]) -> fmt::Result {
    let (name, immediate) = match conduit {
        Conduit::Hvc(immediate) => ("HVC", immediate),
        Conduit::Smc(immediate) => ("SMC", immediate),
    };
    let [id, ..] = x;
    write!(f, "{name} #{immediate} {id:#x}")?;
    // What an ordinary guest is not offered has its name all the same.
    match GuestCall::decode(Kind::Protected, conduit, x) {
        GuestCall::Psci(call) => write!(f, " (PSCI {call:?})"),
        GuestCall::Share(gfn) => write!(f, " (share GFN {:#x})", gfn.raw()),
        GuestCall::Unshare(gfn) => write!(f, " (unshare GFN {:#x})", gfn.raw()),
        GuestCall::Relinquish(gfn) => write!(f, " (relinquish GFN {:#x})", gfn.raw()),
        GuestCall::Query(_) => f.write_str(" (a question)"),
        GuestCall::Malformed => f.write_str(" (malformed)"),
        GuestCall::Unknown => f.write_str(" (unknown)"),
    }
}

fn faulted(f: &mut Formatter<'_>, fault: Fault) -> fmt::Result {
    write!(
        f,
        " at IPA {:#x}, VA {:#x}, {:?}",
        fault.ipa, fault.address, fault.kind
    )?;
    if fault.table_walk {
        f.write_str(", in a table walk")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn registers(x: &[u64]) -> CallRegisters {
        let mut registers = CallRegisters::default();
        for (register, value) in registers.x.iter_mut().zip(x) {
            *register = *value;
        }
        registers
    }

    fn entry(ring: &Ring, number: usize) -> Option<Entry> {
        ring.0.read(number).and_then(Entry::decode)
    }

    const DONATE: [u64; 6] = [FUNCTION_BASE + 0x40, 0x100, 0x40000, 0x5000, 1, 0];

    #[test]
    fn a_call_and_its_answer_are_one_line() {
        let ring = Ring::new();
        assert_eq!(ring.kept(), (0, 0));
        let mark = ring.call(5, &registers(&DONATE));
        let text = ring.to_string();
        assert_eq!(
            text,
            "  0 MEM_DONATE vm=0x100 gfn=0x40000 pfn=0x5000 count=1 order=0\n"
        );
        let mark = ring.again(mark, 6, &registers(&[9]));
        mark.answer(&registers(&[0, 0, 1]));
        assert!(ring.to_string().ends_with("order=0 -> OK done=1\n"));
        assert_eq!(ring.kept(), (0, 1));
        assert_eq!(entry(&ring, 0).unwrap().time, 5);
    }

    #[test]
    fn debug_calls_leave_no_entry() {
        let ring = Ring::new();
        for number in DEBUG_CALLS {
            let mark = ring.call(0, &registers(&[FUNCTION_BASE + number]));
            mark.answer(&registers(&[0]));
        }
        assert_eq!(ring.kept(), (0, 0));
        // A number below the first call is not one of them either.
        ring.call(0, &registers(&[FUNCTION_BASE - 1]));
        assert_eq!(ring.kept(), (0, 1));
    }

    fn abort() -> Arrival {
        Arrival {
            who: [0x101, 2],
            pc: 0x4000_1000,
            cause: Cause::Exception,
            syndrome: Syndrome {
                esr: 0x24 << 26 | 1 << 24 | 2 << 22 | 1 << 6 | 7,
                far: 0xffff_0678,
                hpfar: 0x9000,
            },
            x: [0; 4],
        }
    }

    #[test]
    fn exits_follow_the_run_and_the_run_is_told_again() {
        let ring = Ring::new();
        let run = registers(&[FUNCTION_BASE + 0x3A, 0x101, 2, 0]);
        let mark = ring.call(0, &run);
        let call = Arrival {
            cause: cause(&Exit::Call(Conduit::Hvc(0))),
            syndrome: Syndrome {
                esr: 0x16 << 26,
                ..Syndrome::default()
            },
            x: [0xc600_0003, 0x4000_3000, 0, 0],
            ..abort()
        };
        ring.arrival(TraceKind::GuestExit, 1, &call);
        let exit = ring.arrival(TraceKind::GuestExit, 2, &abort());
        exit.left(VcpuExit::MmioWrite {
            ipa: 0x90_0678,
            width: 4,
            value: 0,
        });
        let mark = ring.again(mark, 3, &run);
        mark.answer(&registers(&[0, 0, 4, 0x90_0678, 4]));
        let text = ring.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  0 VCPU_RUN vm=0x101 vcpu=2 answer=0x0");
        assert_eq!(
            lines[1],
            "  1 guest 0x101.2 at 0x40001000: HVC #0 0xc6000003 (share GFN 0x40003)"
        );
        assert_eq!(
            lines[2],
            "  2 guest 0x101.2 at 0x40001000: write of 4 bytes at IPA 0x900678, VA 0xffff0678, Translation -> MMIO_WRITE x3=0x900678 x4=0x4"
        );
        assert!(
            lines[3].starts_with("  3 VCPU_RUN vm=0x101 vcpu=2 answer=0x0 -> OK reason=MMIO_WRITE")
        );
    }

    #[test]
    fn what_was_pushed_out_is_gone() {
        let ring = Ring::new();
        for number in 0..200 {
            ring.call(number, &registers(&DONATE));
        }
        assert_eq!(ring.kept(), (200 - (LENGTH - 1), 200));
        assert_eq!(ring.part(200 - LENGTH, 0), None);
        assert_eq!(ring.part(200, 0), None);
        assert_eq!(ring.part(usize::MAX, 0), None);
        let [kind, time, function, ..] = ring.part(199, 0).unwrap();
        assert_eq!([kind, time, function], [0, 199, FUNCTION_BASE + 0x40]);
        assert_eq!(ring.part(199, 1).unwrap()[..2], [1, 0]);
        assert!(ring.part(199, 2).is_some() && ring.part(199, 3).is_none());
        assert_eq!(ring.to_string().lines().count(), TOLD);
    }

    #[test]
    fn every_exception_has_words() {
        for class in 0..64_u64 {
            for iss in [0, 1, 0x1ff_ffff, 0xaa_aaaa] {
                let trap = Trap {
                    vm: 0,
                    vcpu: 0,
                    pc: 0,
                    cause: Cause::Exception,
                    esr: class << 26 | iss,
                    far: 0,
                    hpfar: 0,
                    exit: None,
                    x: [0x8400_0000, 0, 0, 0],
                };
                let text: String = format!("{}", Reason(trap));
                assert!(!text.is_empty());
            }
        }
    }
}
