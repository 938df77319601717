//! `pinfold scenario`: scenarios on this machine, with pages of this process that the driver pins, and guests of their own.
//!
//! Prints TAP and, for a comparison with other executors, the digest of each scenario's outcomes. What a scenario needs and a
//! Linux host does not do (writing a pin word, say) is said, and the scenario is skipped: it has not passed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Barrier;

use anyhow::Context;
use pinfold_abi::claim::{Count, Pfn};
use pinfold_abi::show::call_of;
use pinfold_abi::{HostCall, State, pin_word};
use pinfold_scenario::program::{Access, By, Pin, PinKind, Place};
use pinfold_scenario::{
    Executor, Outcome, Program, Step, Trouble, bundle, parse, puppet, run as perform,
};

use crate::control::{self, Control};
use crate::ending::{ExitStatus, Failure};
use crate::own_pages::Pages;
use crate::touch;

/// Device registers that the host reaches, and those that it does not.
const MMIO: u64 = 0x9000;
const HOLE: u64 = 0x9020;
/// The last frame that stage 2 reaches.
const NOWHERE: u64 = (1 << 28) - 1;
/// The order of a huge page.
const HUGE: u8 = 9;
/// Pages among which adjoining ones are looked for.
const SEARCHED: u64 = 1024;
/// Pages that the pool is fed at a time.
const MEAL: u64 = 16;

/// The arguments of `pinfold scenario`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScenarioArguments {
    /// Scenarios, or several in one file, each behind a line `=== name`
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Runs scenarios.
pub fn scenario(arguments: &ScenarioArguments) -> Result<ExitStatus, Failure> {
    let mut programs = Vec::new();
    for path in &arguments.files {
        programs.extend(read(path)?);
    }
    Control::open()?.expect_debug_calls()?;
    println!("TAP version 14\n1..{}", programs.len());
    let mut status = ExitStatus::Success;
    for (program, number) in programs.iter().zip(1..) {
        let name = &program.name;
        match perform(program, &mut Linux::new()?) {
            Ok(report) => println!(
                "ok {number} - {name}\n# outcome {name} {:016x}",
                report.digest
            ),
            Err(Trouble::Cannot(why)) => println!("ok {number} - {name} # SKIP {why}"),
            Err(Trouble::Wrong(why)) => {
                println!("not ok {number} - {name}\n# {why}");
                status = ExitStatus::Failed;
            }
        }
    }
    Ok(status)
}

fn read(path: &Path) -> Result<Vec<Program>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::BadInput(format!("cannot read {}: {error}", path.display())))?;
    let name = path.with_extension("").to_string_lossy().into_owned();
    let program = |name: &str, text: &str| {
        parse(name, text)
            .map_err(|error| Failure::BadInput(format!("{}: {name}:{error}", path.display())))
    };
    if bundle::entries(&text).next().is_none() {
        return Ok(vec![program(&name, &text)?]);
    }
    bundle::entries(&text)
        .map(|(name, text)| program(name, text))
        .collect()
}

/// A frame of ours.
#[derive(Debug)]
struct Own {
    memory: Rc<Pages>,
    index: u64,
    order: u8,
    pin: Option<control::Pin>,
}

/// This machine.
#[derive(Debug)]
struct Linux {
    control: Control,
    /// Heads of folios, by frame.
    own: BTreeMap<u64, Own>,
}

fn cannot<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Cannot(what.into()))
}

fn wrong(error: impl Into<anyhow::Error>) -> Trouble {
    Trouble::Wrong(format!("{:#}", error.into()))
}

impl Linux {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            control: Control::open()?,
            own: BTreeMap::new(),
        })
    }

    /// The frame of one of our pages, which may change until it is pinned.
    fn frame_of(&self, memory: &Pages, index: u64) -> Result<u64, Trouble> {
        let address = memory.address(index).map_err(wrong)?;
        let reference = self
            .control
            .pin(address, control::PinKind::None, 0)
            .map_err(wrong)?;
        self.control.unpin(reference).map_err(wrong)?;
        Ok(reference.pfn)
    }

    fn take_pages(&mut self, count: u64) -> Result<u64, Trouble> {
        let among = if count == 1 {
            1
        } else {
            SEARCHED.max(4 * count)
        };
        let memory = Rc::new(Pages::new(among).map_err(wrong)?);
        let mut frames = BTreeMap::new();
        for index in 0..among {
            frames.insert(self.frame_of(&memory, index)?, index);
        }
        let adjoin = |first: &u64| (*first..first + count).all(|frame| frames.contains_key(&frame));
        let Some(first) = frames.keys().copied().find(adjoin) else {
            return cannot(format!("of {among} pages no {count} adjoin"));
        };
        for (frame, index) in frames.range(first..first + count) {
            memory.fill(*index, 0).map_err(wrong)?;
            self.own.insert(
                *frame,
                Own {
                    memory: Rc::clone(&memory),
                    index: *index,
                    order: 0,
                    pin: None,
                },
            );
        }
        Ok(first)
    }

    fn take_huge(&mut self) -> Result<u64, Trouble> {
        let memory = Rc::new(Pages::huge().map_err(wrong)?);
        let address = memory.address(0).map_err(wrong)?;
        let pin = self
            .control
            .pin(address, control::PinKind::Exclusive, 0)
            .map_err(wrong)?;
        self.control.unpin(pin).map_err(wrong)?;
        if pin.word & pin_word::ORDER_MASK != u32::from(HUGE) << pin_word::ORDER_SHIFT {
            return cannot("the kernel has no huge page to give");
        }
        let start = memory.offset_of_first().map_err(wrong)?;
        for index in 0..1 << HUGE {
            memory.fill(start + index, 0).map_err(wrong)?;
        }
        self.own.insert(
            pin.pfn,
            Own {
                memory,
                index: 0,
                order: HUGE,
                pin: None,
            },
        );
        Ok(pin.pfn)
    }

    fn let_go(&mut self, head: u64) -> Result<(), Trouble> {
        let Some(own) = self.own.get_mut(&head) else {
            return Ok(());
        };
        if let Some(pin) = own.pin
            && self.control.unpin(pin).is_err()
        {
            return cannot("the driver lets go of no page that EL2 or a guest has");
        }
        own.pin = None;
        Ok(())
    }

    /// The first range in this state, as long as this at least.
    fn find(&self, wanted: State, at_least: u64) -> Result<u64, Trouble> {
        let mut frame = 0;
        loop {
            let [frames, state, ..] = self
                .control
                .must(HostCall::FolioRange { first: Pfn(frame) })
                .map_err(wrong)?;
            if state == wanted.number() && frames >= at_least {
                return Ok(frame);
            }
            match frame.checked_add(frames) {
                Some(next) if frames != u64::MAX => frame = next,
                Some(_) | None => {
                    return cannot(format!("no {at_least} frames are {}", wanted.name()));
                }
            }
        }
    }

    /// Refuses what the kernel would not survive, or what stays after the scenario.
    fn expect_bearable(&self, step: &Step) -> Result<(), Trouble> {
        let state = |frame: Pfn| {
            self.control
                .call(HostCall::FolioQuery { pfn: frame })
                .ok()
                .and_then(|reply| reply.done().ok())
        };
        let is = |frame, wanted: State| matches!(state(frame), Some([_, found, ..]) if found == wanted.number());
        if let Step::Call(x) = step {
            match HostCall::decode(*x) {
                Some(HostCall::PinTableRegister { table, first, .. })
                    if is(table, State::Host) && is(first, State::NotRam) =>
                {
                    return cannot("a range of the pin table stays for good");
                }
                Some(HostCall::MemPoison { pfn }) if is(pfn, State::Host) => {
                    return cannot("a poisoned frame stays so, and the kernel would use it");
                }
                _ => {}
            }
        }
        if let Step::Touch {
            access: Access::Write(_),
            frame,
            ..
        } = step
        {
            let nearest = self.own.range(..=*frame).next_back();
            if nearest.is_none_or(|(head, own)| *head + (1_u64 << own.order) <= *frame) {
                return cannot("the frame is the kernel's, which must not be written to");
            }
        }
        Ok(())
    }
}

impl Executor for Linux {
    fn take(&mut self, order: u8, count: u64) -> Result<u64, Trouble> {
        match (order, count) {
            (0, _) => self.take_pages(count),
            (HUGE, 1) => self.take_huge(),
            _ => cannot("the kernel gives pages, and huge pages one by one"),
        }
    }

    fn give_back(&mut self, first: u64, order: u8, count: u64) {
        for head in (first..first + (count << order)).step_by(1 << order) {
            if self.let_go(head).is_ok() {
                self.own.remove(&head);
            }
        }
    }

    fn pin(&mut self, head: u64, order: u8, pin: Pin) -> Result<(), Trouble> {
        let kind = match pin {
            Pin {
                kind: PinKind::None,
                ..
            } => None,
            Pin {
                kind: PinKind::Ordinary,
                count: 1..,
            } => Some((control::PinKind::Ordinary, pin.count - 1)),
            Pin {
                kind: PinKind::Exclusive,
                count: 1,
            } => Some((control::PinKind::Exclusive, 0)),
            Pin {
                kind: PinKind::Isolated,
                count: 1,
            } => Some((control::PinKind::Isolated, 0)),
            Pin {
                kind: PinKind::Ordinary | PinKind::Exclusive | PinKind::Isolated | PinKind::Word,
                ..
            } => {
                return cannot("the kernel makes no such pin");
            }
        };
        self.let_go(head)?;
        let Some(own) = self.own.get_mut(&head).filter(|own| own.order == order) else {
            return cannot("the kernel has no folio of this order there");
        };
        let Some((kind, extra)) = kind else {
            return Ok(());
        };
        let address = own.memory.address(own.index).map_err(wrong)?;
        let taken = self.control.pin(address, kind, extra).map_err(wrong)?;
        own.pin = Some(taken);
        if taken.pfn == head {
            Ok(())
        } else {
            cannot("the kernel moved the page")
        }
    }

    fn place(&mut self, place: Place) -> Result<u64, Trouble> {
        match place {
            Place::Hyp => self.find(State::Hyp, 1),
            Place::Mmio => Ok(MMIO),
            Place::Hole => Ok(HOLE),
            Place::Nowhere => Ok(NOWHERE),
            // EL2's decoy page is said to be such a frame, too, and is alone.
            Place::Table => self.find(State::HostSharedHyp, 2),
            Place::Unspoken => cannot("the kernel's pin table speaks for all of RAM"),
        }
    }

    fn load(&mut self, frame: u64, code: &[u32]) -> Result<(), Trouble> {
        let own = self
            .own
            .get(&frame)
            .context("no page of ours")
            .map_err(wrong)?;
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        own.memory.write(own.index, &bytes).map_err(wrong)
    }

    fn feed(&mut self) -> Result<(), Trouble> {
        for _ in 0..MEAL {
            let frame = self.take_pages(1)?;
            self.pin(
                frame,
                0,
                Pin {
                    kind: PinKind::Isolated,
                    count: 1,
                },
            )?;
            self.control
                .must(HostCall::PoolDonate {
                    first: Pfn(frame),
                    count: Count(1),
                })
                .map_err(wrong)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, Trouble> {
        self.expect_bearable(step)?;
        take_step(&self.control, step)
    }

    fn parallel(&mut self, lines: &[Vec<Step>]) -> Result<Vec<Vec<Outcome>>, Trouble> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if lines.len() > cpus {
            return cannot(format!("needs {} CPUs, has {cpus}", lines.len()));
        }
        if lines.iter().flatten().any(|step| {
            matches!(
                step,
                Step::Touch {
                    by: By::Process,
                    ..
                }
            )
        }) {
            return cannot("a process survives an abort of one thread only");
        }
        lines
            .iter()
            .flatten()
            .try_for_each(|step| self.expect_bearable(step))?;
        let (control, start) = (&self.control, &Barrier::new(lines.len()));
        std::thread::scope(|scope| {
            let threads: Vec<_> = lines
                .iter()
                .map(|steps| scope.spawn(move || take_steps(control, start, steps)))
                .collect();
            let ended = threads.into_iter().map(|thread| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err(Trouble::Wrong("a thread ended".into())))
            });
            ended.collect()
        })
    }
}

/// The steps of one CPU, once all are there.
fn take_steps(control: &Control, start: &Barrier, steps: &[Step]) -> Result<Vec<Outcome>, Trouble> {
    start.wait();
    steps.iter().map(|step| take_step(control, step)).collect()
}

fn take_step(control: &Control, step: &Step) -> Result<Outcome, Trouble> {
    match *step {
        Step::Call(x) => {
            let [function, ..] = x;
            let issue = |x| control.raw(x).map_err(wrong);
            let is_run = matches!(HostCall::decode(x), Some(HostCall::VcpuRun { .. }));
            let x = if is_run {
                puppet::through_interrupts(x, issue)?
            } else {
                issue(x)?
            };
            Ok(Outcome::Answer {
                call: call_of(function),
                x,
            })
        }
        Step::Guest { vm, vcpu, deed } => {
            puppet::perform((vm, vcpu), deed, |x| control.raw(x).map_err(wrong))
        }
        Step::Touch {
            by: By::Process,
            access,
            frame,
        } => {
            let write = match access {
                Access::Read => None,
                Access::Write(value) => Some(value),
                Access::Fetch => return cannot("a process does not execute a frame by its number"),
            };
            let found = touch::frame(frame, write).map_err(wrong)?;
            Ok(found.map_or(Outcome::Abort, Outcome::Value))
        }
        Step::Touch {
            by: By::Kernel,
            access,
            frame,
        } => {
            let found = match access {
                Access::Read => control.kernel_probes(frame).map(Outcome::Value),
                Access::Write(value) => control
                    .kernel_probes_write(frame, value)
                    .map(|()| Outcome::Done),
                Access::Fetch => return cannot("the kernel executes no frame by its number"),
            };
            match found {
                Ok(outcome) => Ok(outcome),
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(Outcome::Abort),
                Err(error) => Err(wrong(error)),
            }
        }
    }
}
