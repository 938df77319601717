//! The mini host as an executor of scenarios: [`run`] takes the texts that stand in the initrd, and prints TAP and digests.
//!
//! Frames come from the arena, guests are real, and the lines of CPUs run on those CPUs, the first one's on this one.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_test::bytes::FRAME;
use guest_test::{bytes, gic, line, memory_probe, mmu, timer};
use pinfold_abi::HostCall;
use pinfold_abi::show::call_of;
use pinfold_scenario::program::{Access, By, Pin, Place};
use pinfold_scenario::{Executor, Outcome, Step, Trouble, bundle, puppet};

use crate::calls::{self, Reply};
use crate::suites::el2_frame;
use crate::{frames, platform, pool, smp};

/// Device registers that the host reaches: the console's.
const MMIO: u64 = 0x9000;
/// Those that it does not: `fw_cfg`.
const HOLE: u64 = 0x9020;
/// The last frame that stage 2 reaches.
const NOWHERE: u64 = (1 << 28) - 1;
/// The exception class of an instruction abort from EL1 itself (DDI 0487, D24.2.40).
const INSTRUCTION_ABORT: u64 = 0x21;

/// Runs all scenarios of the initrd.
pub(crate) fn run() {
    let texts = match texts() {
        Ok(texts) => texts,
        Err(what) => return line!("Bail out! {what}"),
    };
    let all = bundle::entries(texts);
    line!("TAP version 14");
    line!("1..{}", all.clone().count());
    for ((name, text), number) in all.zip(1..) {
        let free = frames::taken();
        match perform(name, text) {
            Ok(digest) => {
                line!("ok {number} - {name}");
                line!("# outcome {name} {digest:016x}");
            }
            Err(Trouble::Cannot(why)) => line!("ok {number} - {name} # SKIP {why}"),
            Err(Trouble::Wrong(why)) => {
                line!("not ok {number} - {name}");
                line!("# {why}");
            }
        }
        let lost = frames::taken().saturating_sub(free);
        if lost > 0 {
            line!("# {name} keeps {lost} frames");
        }
    }
}

fn texts() -> Result<&'static str, &'static str> {
    let range = &platform::machine().guest;
    let first = core::ptr::with_exposed_provenance(bytes::size(range.start));
    if range.is_empty() {
        return Err("no scenarios; give their texts as the initrd");
    }
    // SAFETY: the device tree says that the initrd is there, and nothing writes it.
    let texts = unsafe { core::slice::from_raw_parts(first, bytes::size(range.end - range.start)) };
    core::str::from_utf8(texts).map_err(|_| "the scenarios are not UTF-8")
}

fn perform(name: &str, text: &str) -> Result<u64, Trouble> {
    let program = pinfold_scenario::parse(name, text)
        .map_err(|error| Trouble::Wrong(format!("{name}:{error}")))?;
    frames::register().map_err(wrong)?;
    let report = pinfold_scenario::run(&program, &mut Machine { hyp: None })?;
    pool::drain().map_err(wrong)?;
    Ok(report.digest)
}

fn wrong(failure: guest_test::tap::Failure) -> Trouble {
    Trouble::Wrong(String::from(failure.reason()))
}

/// This machine.
struct Machine {
    /// A frame of EL2's, once it was looked for.
    hyp: Option<u64>,
}

impl Executor for Machine {
    fn take(&mut self, order: u8, count: u64) -> Result<u64, Trouble> {
        let frames = count << order;
        let around = u8::try_from(frames.next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX);
        if around > 9 {
            return Err(Trouble::Cannot(format!(
                "{count} folios of order {order} are more than 2 MiB"
            )));
        }
        let first = frames::take(around).map_err(wrong)?;
        for frame in first..first + frames {
            store(frame * FRAME, 0)?;
        }
        Ok(first)
    }

    fn give_back(&mut self, first: u64, order: u8, count: u64) {
        let frames = count << order;
        frames::give(
            first,
            u8::try_from(frames.next_power_of_two().trailing_zeros()).unwrap_or(0),
        );
    }

    fn pin(&mut self, head: u64, order: u8, pin: Pin) -> Result<(), Trouble> {
        for frame in head..head + (1 << order) {
            frames::set_pin(frame, if frame == head { pin.word(order) } else { 0 });
        }
        Ok(())
    }

    fn place(&mut self, place: Place) -> Result<u64, Trouble> {
        let arena = frames::arena().map_err(wrong)?;
        Ok(match place {
            Place::Hyp => match self.hyp {
                Some(frame) => frame,
                None => *self.hyp.insert(el2_frame().map_err(wrong)?),
            },
            Place::Mmio => MMIO,
            Place::Hole => HOLE,
            Place::Nowhere => NOWHERE,
            Place::Table => arena.table,
            Place::Unspoken => arena.unspoken,
        })
    }

    fn load(&mut self, frame: u64, code: &[u32]) -> Result<(), Trouble> {
        for (words, offset) in code.chunks(2).zip((0..).step_by(8)) {
            let word = words
                .iter()
                .rev()
                .fold(0, |word, half| word << 32 | u64::from(*half));
            store(frame * FRAME + offset, word)?;
        }
        Ok(())
    }

    fn feed(&mut self) -> Result<(), Trouble> {
        pool::feed().map_err(wrong)
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, Trouble> {
        take_step(step)
    }

    fn parallel(&mut self, lines: &[Vec<Step>]) -> Result<Vec<Vec<Outcome>>, Trouble> {
        if lines.len() > smp::cpus() {
            return Err(Trouble::Cannot(format!(
                "needs {} CPUs, has {}",
                lines.len(),
                smp::cpus()
            )));
        }
        let mut shifts: Vec<Box<Shift>> = lines
            .iter()
            .map(|steps| {
                Box::new(Shift {
                    steps: steps.clone(),
                    outcomes: Ok(Vec::new()),
                })
            })
            .collect();
        let start = AtomicU64::new(0);
        let mut jobs = Vec::new();
        for (shift, cpu) in shifts.iter_mut().zip(0..).skip(1) {
            let shift: *mut Shift = &raw mut **shift;
            let place = Box::new((&raw const start, shift));
            let argument = bytes::word(Box::into_raw(place).expose_provenance());
            jobs.push(smp::begin(cpu, work, argument).map_err(wrong)?);
        }
        let others = bytes::word(jobs.len());
        while start.load(Ordering::Acquire) < others {
            core::hint::spin_loop();
        }
        start.store(u64::MAX, Ordering::Release);
        if let Some(first) = shifts.first_mut() {
            first.outcomes = first.steps.iter().map(take_step).collect();
        }
        for job in jobs {
            job.result().map_err(wrong)?;
        }
        shifts.into_iter().map(|shift| shift.outcomes).collect()
    }
}

/// Writes a word of the arena.
fn store(address: u64, word: u64) -> Result<(), Trouble> {
    // SAFETY: the arena is no Rust memory.
    let stored = unsafe { memory_probe::write(address, word) };
    stored.map_err(|fault| Trouble::Wrong(format!("{address:#x} of the arena: {fault:x?}")))
}

/// The steps of one CPU, and what came of them.
struct Shift {
    steps: Vec<Step>,
    outcomes: Result<Vec<Outcome>, Trouble>,
}

/// What a further CPU does: it says that it is there, waits until all are, and takes its steps.
fn work(argument: u64) -> u64 {
    let place: *mut (*const AtomicU64, *mut Shift) =
        core::ptr::with_exposed_provenance_mut(bytes::size(argument));
    // SAFETY: `parallel` made it of a box for this CPU alone.
    let place = unsafe { Box::from_raw(place) };
    let (start, shift) = *place;
    // SAFETY: `parallel` waits for this job before either ends.
    let start = unsafe { &*start };
    // SAFETY: as above, and it looks at the shift only after the job has ended.
    let shift = unsafe { &mut *shift };
    start.fetch_add(1, Ordering::AcqRel);
    while start.load(Ordering::Acquire) != u64::MAX {
        core::hint::spin_loop();
    }
    shift.outcomes = shift.steps.iter().map(take_step).collect();
    0
}

fn take_step(step: &Step) -> Result<Outcome, Trouble> {
    match *step {
        Step::Call(x) => {
            let [function, ..] = x;
            let is_run = matches!(HostCall::decode(x), Some(HostCall::VcpuRun { .. }));
            let x = if is_run {
                puppet::through_interrupts(x, |x| Ok(run_vcpu(x)))?
            } else {
                issue(x)
            };
            Ok(Outcome::Answer {
                call: call_of(function),
                x,
            })
        }
        Step::Guest { vm, vcpu, deed } => puppet::perform((vm, vcpu), deed, |x| Ok(run_vcpu(x))),
        Step::Touch { by, access, frame } => touch(by, access, frame),
    }
}

fn issue(x: [u64; 8]) -> [u64; 8] {
    let [function, arguments @ ..] = x;
    let Reply {
        x0,
        status,
        results: [x2, x3, x4, x5, x6, x7],
    } = calls::call(bytes::low32(function), &arguments);
    [x0, status, x2, x3, x4, x5, x6, x7]
}

/// Runs a vCPU once, with an alarm that brings it back after 100 ms; serves the interrupts that came.
fn run_vcpu(x: [u64; 8]) -> [u64; 8] {
    timer::arm_physical(timer::now() + timer::milliseconds(100));
    let after = issue(x);
    while gic::serve().is_some() {}
    timer::stop_physical();
    after
}

fn touch(by: By, access: Access<u64>, frame: u64) -> Result<Outcome, Trouble> {
    let address = match by {
        By::Process => frame * FRAME,
        By::Kernel => (frame * FRAME) | mmu::HIGH,
    };
    let found = match access {
        Access::Read => memory_probe::read(address).map(Outcome::Value),
        Access::Write(value) => {
            // SAFETY: frames of the arena, or what is not the host's; both are no Rust memory.
            let stored = unsafe { memory_probe::write(address, value) };
            stored.map(|()| Outcome::Done)
        }
        Access::Fetch => {
            // SAFETY: what is there is a return, zeroes, or not for the host to run.
            let returned = unsafe { memory_probe::execute(address) };
            returned.map(|_| Outcome::Done)
        }
    };
    match found {
        Ok(outcome) => Ok(outcome),
        Err(fault) if access == Access::Fetch && fault.is_undefined() => Ok(Outcome::Done),
        // Device memory is not executable in stage 1 either.
        Err(fault) if access == Access::Fetch && fault.class() == INSTRUCTION_ABORT => {
            Ok(Outcome::Abort)
        }
        Err(fault) if fault.has_hypervisor_mark() => Ok(Outcome::Abort),
        Err(fault) => Err(Trouble::Wrong(format!(
            "an abort without the hypervisor's mark at {address:#x}: {fault:x?}"
        ))),
    }
}
