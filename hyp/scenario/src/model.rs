//! Executors without a machine: [`Modelled`], over a [`Model`] that takes single events.
//!
//! Parallel lines run in every order of their calls, entries into guests and exits: [`explore`] repeats the scenario until no order is
//! left. What was called or touched in which state of the frame is noted as [`Cell`]s.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use pinfold_abi::claim::{Count, Pfn};
use pinfold_abi::show::call_of;
use pinfold_abi::{ExitReason, GuestFunction, HostCall, State};
use pinfold_spec::{Boot, GuestEvent, Rights, Spec, Touch, TouchBy, TouchSeen};

use crate::executor::{Executor, Outcome, Step, Trouble};
use crate::interpret::{Report, run};
use crate::program::{Access, By, Deed, Pin, Place, Program, layout};
use crate::puppet::{ASK, RUN, outcome_of_run, run_call, waits_after};

/// The machine: 8 MiB of RAM from 1 GiB on, of which the second block is EL2's.
pub(crate) const RAM: u64 = 0x40000;
pub(crate) const FRAMES: u64 = 4 * 512;
pub(crate) const EL2: u64 = RAM + 512;
pub(crate) const EL2_FRAMES: u64 = 512;
/// The pin table: the last frames. It speaks for all but itself and the frames before it.
pub(crate) const TABLE: u64 = RAM + FRAMES - 2;
pub(crate) const UNSPOKEN: u64 = 16;
pub(crate) const SPOKEN: u64 = FRAMES - 2 - UNSPOKEN;
/// Device registers that the host reaches, and those that it does not.
const MMIO: u64 = 0x9000;
pub(crate) const HOLE: u64 = 0x9020;
/// The last frame that stage 2 reaches.
const NOWHERE: u64 = (1 << 28) - 1;

/// The most orders of parallel lines that are tried.
const MOST_ORDERS: usize = 5000;

/// Something that was done, and the state of the frame that it was about; no state where there is no frame.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cell {
    /// The call and its argument, or who did what.
    pub what: String,
    /// The frame's state.
    pub state: Option<State>,
}

/// What a scenario came to in every order of its parallel lines.
#[derive(Clone, Debug)]
pub struct Explored {
    /// That of the first order.
    pub report: Report,
    /// How many orders there are.
    pub orders: usize,
    /// What was done.
    pub cells: BTreeSet<Cell>,
}

/// What EL2 finds at boot.
pub(crate) fn boot(pool: u64, set_aside: u64, decoy: u64) -> Boot {
    Boot {
        ram: vec![(RAM, FRAMES)],
        hyp: vec![(EL2, EL2_FRAMES)],
        holes: vec![(HOLE, 1)],
        decoy,
        pool,
        set_aside,
        debug_calls: true,
    }
}

/// The call by which the host registers its pin table.
pub(crate) const fn register_pins() -> HostCall {
    HostCall::PinTableRegister {
        table: Pfn(TABLE),
        first: Pfn(RAM),
        frames: Count(SPOKEN),
    }
}

/// The registers in which a call is answered.
pub(crate) fn first_eight(x: [u64; 18]) -> [u64; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7, ..] = x;
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// A state of everything, and how it goes on.
pub(crate) trait Model {
    /// The specification, which has followed all of it.
    fn spec(&self) -> &Spec;
    /// A host call; x0 to x7 unless it entered a vCPU.
    fn call(&mut self, x: [u64; 8]) -> Result<Option<[u64; 8]>, Trouble>;
    /// X0 to X3 and the PC of a vCPU that runs.
    fn registers(&self, vm: u64, vcpu: u64) -> Option<([u64; 4], u64)>;
    /// What a vCPU that runs does, with these X0 to X3; x0 to x7 of the host if that goes on.
    fn event(
        &mut self,
        vm: u64,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Result<Option<[u64; 8]>, Trouble>;
    /// An access of the host that stage 2 stops.
    fn touch(&mut self, touch: Touch) -> Result<TouchSeen, Trouble>;
    /// The host writes a pin word of a frame.
    fn set_pin_word(&mut self, frame: u64, word: u32);
    /// Somebody who may writes to a frame.
    fn write(&mut self, frame: u64, value: u64);
}

/// Which of several that could go on does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    wanted: Vec<usize>,
    taken: Vec<(usize, usize)>,
}

impl Schedule {
    fn choose(&mut self, among: usize) -> usize {
        let choice = self.wanted.get(self.taken.len()).copied().unwrap_or(0);
        self.taken.push((choice, among));
        choice
    }

    /// The next order that was not tried, if there is one.
    fn next(mut self) -> Option<Self> {
        while let Some((choice, among)) = self.taken.pop() {
            if choice + 1 < among {
                let mut wanted: Vec<usize> = self.taken.iter().map(|(choice, _)| *choice).collect();
                wanted.push(choice + 1);
                return Some(Self {
                    wanted,
                    taken: Vec::new(),
                });
            }
        }
        None
    }
}

/// An executor over a model.
pub(crate) struct Modelled<M> {
    model: M,
    taken: BTreeSet<u64>,
    /// What vCPUs are at, and the PC of the instruction.
    at_it: BTreeMap<(u64, u64), (Deed<u64>, u64)>,
    schedule: Schedule,
    cells: BTreeSet<Cell>,
}

/// Runs a program in every order of its parallel lines, each on a new model.
pub(crate) fn explore<M: Model>(
    program: &Program,
    boot: impl Fn() -> Result<M, Trouble>,
) -> Result<Explored, Trouble> {
    let (mut cells, mut orders, mut first) = (BTreeSet::new(), 0, None);
    let mut next = Some(Schedule::default());
    while let Some(schedule) = next.take() {
        let mut on = Modelled {
            model: boot()?,
            taken: BTreeSet::new(),
            at_it: BTreeMap::new(),
            schedule,
            cells: BTreeSet::new(),
        };
        let report = run(program, &mut on).map_err(|trouble| match trouble {
            Trouble::Wrong(what) if orders > 0 => {
                Trouble::Wrong(format!("order {}: {what}", orders + 1))
            }
            Trouble::Wrong(_) | Trouble::Cannot(_) => trouble,
        })?;
        first.get_or_insert(report);
        orders += 1;
        cells.append(&mut on.cells);
        if orders >= MOST_ORDERS {
            return Err(Trouble::Wrong(format!(
                "there are more than {MOST_ORDERS} orders of the parallel lines"
            )));
        }
        next = on.schedule.next();
    }
    let report = first.ok_or_else(|| Trouble::Wrong("nothing ran".into()))?;
    Ok(Explored {
        report,
        orders,
        cells,
    })
}

/// A step of a CPU that has begun, or has ended.
enum Begun {
    Ended(Outcome),
    InGuest {
        vm: u64,
        vcpu: u64,
        deed: Option<Deed<u64>>,
    },
}

impl<M: Model> Modelled<M> {
    fn note(&mut self, what: String, frame: Option<u64>) {
        let state = frame.map(|frame| self.model.spec().state_of(frame));
        self.cells.insert(Cell { what, state });
    }

    /// The frame that a VM has somewhere.
    fn frame_at(&self, vm: u64, gfn: u64) -> Option<u64> {
        let spec = self.model.spec();
        let frames = [false, true].map(|shared| spec.frames_of(vm, shared));
        frames
            .iter()
            .flatten()
            .find(|(place, _)| *place == gfn)
            .map(|(_, pfn)| *pfn)
    }

    /// The frame that a VM has somewhere, if it may be used like this.
    fn reachable(&self, vm: u64, gfn: u64, access: Access<()>) -> Option<u64> {
        let rights = self.model.spec().guest_rights(vm, gfn)?;
        let may = match access {
            Access::Read => true,
            Access::Write(()) => matches!(rights, Rights::Ram | Rights::SharedRam),
            Access::Fetch => matches!(rights, Rights::Ram | Rights::ReadExecute),
        };
        self.frame_at(vm, gfn).filter(|_| may)
    }

    /// Notes which frames a call is about.
    fn note_call(&mut self, x: [u64; 8]) {
        let [function, arguments @ ..] = x;
        let Some(info) = call_of(function) else {
            return;
        };
        let [vm, ..] = arguments;
        for (field, value) in info.arguments.iter().zip(arguments) {
            let frame = match field.unit {
                "PFN" => Some(value),
                "GFN" => self.frame_at(vm, value),
                _ => continue,
            };
            self.note(format!("{}.{}", info.name, field.name), frame);
        }
    }

    fn begin(&mut self, step: &Step) -> Result<Begun, Trouble> {
        match *step {
            Step::Call(x) => {
                self.note_call(x);
                let [function, vm, vcpu, ..] = x;
                Ok(match self.model.call(x)? {
                    Some(x) => Begun::Ended(Outcome::Answer {
                        call: call_of(function),
                        x,
                    }),
                    None => Begun::InGuest {
                        vm,
                        vcpu,
                        deed: None,
                    },
                })
            }
            Step::Guest { vm, vcpu, deed } => {
                self.note_deed(vm, deed);
                let answer = if let Deed::Resume(answer) = deed {
                    answer
                } else {
                    0
                };
                let x = run_call(vm, vcpu, answer);
                Ok(match self.model.call(x)? {
                    Some(x) => Begun::Ended(outcome_of_run(x)),
                    None => Begun::InGuest {
                        vm,
                        vcpu,
                        deed: Some(deed),
                    },
                })
            }
            Step::Touch { by, access, frame } => self.touch(by, access, frame).map(Begun::Ended),
        }
    }

    fn note_deed(&mut self, vm: u64, deed: Deed<u64>) {
        let (what, gfn) = match deed {
            Deed::Share(gfn) => ("guest share", gfn),
            Deed::Unshare(gfn) => ("guest unshare", gfn),
            Deed::Relinquish(gfn) => ("guest relinquish", gfn),
            Deed::Read(gfn) => ("guest read", gfn),
            Deed::Write(gfn, _) => ("guest write", gfn),
            Deed::Fetch(gfn) => ("guest fetch", gfn),
            Deed::Hvc(_) | Deed::Spin(_) | Deed::Resume(_) => return,
        };
        let frame = self.frame_at(vm, gfn);
        self.note(what.to_string(), frame);
    }

    /// What a vCPU that runs comes to.
    fn finish(&mut self, vm: u64, vcpu: u64, deed: Option<Deed<u64>>) -> Result<Outcome, Trouble> {
        let Some((x, pc)) = self.model.registers(vm, vcpu) else {
            return Err(Trouble::Wrong(format!(
                "vCPU {vcpu} of VM {vm:#x} does not run"
            )));
        };
        let event = match self.frame_at(vm, pc >> 12) {
            None => GuestEvent::Fetch { ipa: pc },
            Some(_) => load(ASK, 9),
        };
        match deed {
            None => match self.model.event(vm, vcpu, x, event)? {
                Some(x) => Ok(Outcome::Answer {
                    call: call_of(pinfold_abi::FUNCTION_BASE + RUN),
                    x,
                }),
                None => Err(Trouble::Wrong("the guest asks, and nobody is told".into())),
            },
            Some(_) if matches!(event, GuestEvent::Fetch { .. }) => self.exit(vm, vcpu, x, event),
            Some(Deed::Resume(_)) => match self.at_it.remove(&(vm, vcpu)) {
                Some((deed, place)) if place == pc => self.execute(vm, vcpu, deed),
                Some((deed, _)) => self.done(vm, vcpu, deed),
                None => Err(Trouble::Wrong("the vCPU has nothing to go on with".into())),
            },
            Some(deed) => self.execute(vm, vcpu, deed),
        }
    }

    fn exit(
        &mut self,
        vm: u64,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Result<Outcome, Trouble> {
        match self.model.event(vm, vcpu, x, event)? {
            Some(x) => Ok(outcome_of_run(x)),
            None => Err(Trouble::Wrong(format!("{event:x?} tells the host nothing"))),
        }
    }

    /// The one instruction that a deed is.
    fn execute(&mut self, vm: u64, vcpu: u64, deed: Deed<u64>) -> Result<Outcome, Trouble> {
        let Some((old, pc)) = self.model.registers(vm, vcpu) else {
            return Err(Trouble::Wrong("the vCPU is gone".into()));
        };
        let (x, event) = match deed {
            Deed::Share(gfn) => (
                [GuestFunction::MemShare.number(), gfn << 12, 0, 0],
                GuestEvent::Call,
            ),
            Deed::Unshare(gfn) => (
                [GuestFunction::MemUnshare.number(), gfn << 12, 0, 0],
                GuestEvent::Call,
            ),
            Deed::Relinquish(gfn) => (
                [GuestFunction::MemRelinquish.number(), gfn << 12, 0, 0],
                GuestEvent::Call,
            ),
            Deed::Hvc(x) => (x, GuestEvent::Call),
            Deed::Read(gfn) => match self.reachable(vm, gfn, Access::Read) {
                Some(frame) => return self.tell(vm, vcpu, self.model.spec().content_of(frame)),
                None => (old, load(gfn << 12, 0)),
            },
            Deed::Write(gfn, value) => match self.reachable(vm, gfn, Access::Write(())) {
                Some(frame) => {
                    self.model.write(frame, value);
                    return self.tell(vm, vcpu, 0);
                }
                None => ([value, 0, 0, 0], store(gfn << 12)),
            },
            Deed::Fetch(gfn) if self.reachable(vm, gfn, Access::Fetch).is_none() => {
                (old, GuestEvent::Fetch { ipa: gfn << 12 })
            }
            Deed::Fetch(_) | Deed::Spin(_) => return self.tell(vm, vcpu, 0),
            Deed::Resume(_) => {
                return Err(Trouble::Wrong("the vCPU has nothing to go on with".into()));
            }
        };
        let Some(x) = self.model.event(vm, vcpu, x, event)? else {
            return self.done(vm, vcpu, deed);
        };
        let outcome = outcome_of_run(x);
        if matches!(outcome, Outcome::Exit { reason, .. } if waits_after(reason)) {
            self.at_it.insert((vm, vcpu), (deed, pc));
        }
        Ok(outcome)
    }

    /// The instruction is done; the puppet tells what is in X0.
    fn done(&mut self, vm: u64, vcpu: u64, deed: Deed<u64>) -> Result<Outcome, Trouble> {
        let told = match deed {
            Deed::Share(_)
            | Deed::Unshare(_)
            | Deed::Relinquish(_)
            | Deed::Hvc(_)
            | Deed::Read(_) => self.model.registers(vm, vcpu).map_or(0, |([x0, ..], _)| x0),
            Deed::Write(..) | Deed::Fetch(_) | Deed::Spin(_) | Deed::Resume(_) => 0,
        };
        self.tell(vm, vcpu, told)
    }

    fn tell(&mut self, vm: u64, vcpu: u64, value: u64) -> Result<Outcome, Trouble> {
        match self.exit(vm, vcpu, [value, 0, 0, 0], store(layout::PORT))? {
            Outcome::Exit {
                reason: ExitReason::MmioWrite,
                details: [layout::PORT, 8, told],
            } => Ok(Outcome::Value(told)),
            other @ (Outcome::Answer { .. }
            | Outcome::Exit { .. }
            | Outcome::Value(_)
            | Outcome::Done
            | Outcome::Abort
            | Outcome::Decoy) => Err(Trouble::Wrong(format!(
                "the guest tells {value:#x}, and the host gets {other}"
            ))),
        }
    }

    fn touch(&mut self, by: By, access: Access<u64>, frame: u64) -> Result<Outcome, Trouble> {
        let (who, how) = match (by, access) {
            (By::Process, Access::Read) => (TouchBy::KernelForProcess, "process read"),
            (By::Process, Access::Write(_) | Access::Fetch) => {
                (TouchBy::KernelForProcess, "process write")
            }
            (By::Kernel, Access::Read) => (TouchBy::Kernel, "kernel read"),
            (By::Kernel, Access::Write(_)) => (TouchBy::Kernel, "kernel write"),
            (By::Kernel, Access::Fetch) => (TouchBy::Fetch, "kernel fetch"),
        };
        self.note(how.to_string(), Some(frame));
        match (self.model.spec().host_rights(frame), access) {
            (Some(Rights::Ram), Access::Fetch)
            | (Some(Rights::Device), Access::Read | Access::Write(_)) => return Ok(Outcome::Done),
            (Some(Rights::Ram | Rights::SharedRam), Access::Read) => {
                return Ok(Outcome::Value(self.model.spec().content_of(frame)));
            }
            (Some(Rights::Ram | Rights::SharedRam), Access::Write(value)) => {
                self.model.write(frame, value);
                return Ok(Outcome::Done);
            }
            // What only guests have, or what the kernel has not.
            (None | Some(_), _) => {}
        }
        Ok(match self.model.touch(Touch { frame, by: who })? {
            TouchSeen::Inject => Outcome::Abort,
            TouchSeen::Decoy | TouchSeen::Retry => Outcome::Value(0),
        })
    }
}

/// A load of eight bytes into Xn.
const fn load(ipa: u64, register: u8) -> GuestEvent {
    GuestEvent::Access {
        ipa,
        width: 8,
        write: false,
        register,
    }
}

/// A store of X0.
const fn store(ipa: u64) -> GuestEvent {
    GuestEvent::Access {
        ipa,
        width: 8,
        write: true,
        register: 0,
    }
}

impl<M: Model> Executor for Modelled<M> {
    fn take(&mut self, order: u8, count: u64) -> Result<u64, Trouble> {
        let size = 1_u64 << order;
        // Pages come from the last block, so that whole blocks stay for large folios.
        let from = if order < 8 { RAM + 3 * 512 } else { RAM };
        let end = RAM + SPOKEN;
        let mut heads = (from..end).step_by(1 << order);
        let is_free = |head: u64| {
            let frames = head..head + size * count;
            frames.end <= end
                && frames.clone().all(|frame| {
                    !(EL2..EL2 + EL2_FRAMES).contains(&frame) && !self.taken.contains(&frame)
                })
        };
        let first = heads.find(|head| is_free(*head));
        let first = first.ok_or_else(|| {
            Trouble::Cannot(format!(
                "the model has no {count} free folios of order {order}"
            ))
        })?;
        self.taken.extend(first..first + size * count);
        Ok(first)
    }

    fn give_back(&mut self, first: u64, order: u8, count: u64) {
        for frame in first..first + (count << order) {
            self.taken.remove(&frame);
            self.model.set_pin_word(frame, 0);
        }
    }

    fn pin(&mut self, head: u64, order: u8, pin: Pin) -> Result<(), Trouble> {
        for frame in head..head + (1 << order) {
            if (RAM..RAM + SPOKEN).contains(&frame) {
                self.model
                    .set_pin_word(frame, if frame == head { pin.word(order) } else { 0 });
            }
        }
        Ok(())
    }

    fn place(&mut self, place: Place) -> Result<u64, Trouble> {
        Ok(match place {
            Place::Hyp => EL2,
            Place::Mmio => MMIO,
            Place::Hole => HOLE,
            Place::Nowhere => NOWHERE,
            Place::Table => TABLE,
            Place::Unspoken => RAM + SPOKEN,
        })
    }

    fn load(&mut self, _: u64, _: &[u32]) -> Result<(), Trouble> {
        Ok(())
    }

    fn feed(&mut self) -> Result<(), Trouble> {
        let first = self.take(4, 1)?;
        let donate = HostCall::PoolDonate {
            first: Pfn(first),
            count: Count(16),
        };
        match self.model.call(donate.encode())? {
            Some([0, 0, ..]) => Ok(()),
            answer => Err(Trouble::Wrong(format!(
                "the pool takes nothing: {answer:x?}"
            ))),
        }
    }

    fn step(&mut self, step: &Step) -> Result<Outcome, Trouble> {
        match self.begin(step)? {
            Begun::Ended(outcome) => Ok(outcome),
            Begun::InGuest { vm, vcpu, deed } => self.finish(vm, vcpu, deed),
        }
    }

    fn parallel(&mut self, lines: &[Vec<Step>]) -> Result<Vec<Vec<Outcome>>, Trouble> {
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); lines.len()];
        let mut in_guest: BTreeMap<usize, Begun> = BTreeMap::new();
        loop {
            let has_more = |(line, done): (&Vec<Step>, &Vec<Outcome>)| done.len() < line.len();
            let able: Vec<usize> = lines
                .iter()
                .zip(&outcomes)
                .zip(0..)
                .filter(|(pair, _)| has_more(*pair))
                .map(|(_, cpu)| cpu)
                .collect();
            let Some(cpu) = able
                .get(if able.len() > 1 {
                    self.schedule.choose(able.len())
                } else {
                    0
                })
                .copied()
            else {
                return Ok(outcomes);
            };
            let (Some(line), Some(done)) = (lines.get(cpu), outcomes.get_mut(cpu)) else {
                return Ok(outcomes);
            };
            let begun = match (in_guest.remove(&cpu), line.get(done.len())) {
                (Some(Begun::InGuest { vm, vcpu, deed }), _) => {
                    Begun::Ended(self.finish(vm, vcpu, deed)?)
                }
                (Some(ended @ Begun::Ended(_)), _) => ended,
                (None, Some(step)) => self.begin(step)?,
                (None, None) => return Ok(outcomes),
            };
            match begun {
                Begun::Ended(outcome) => done.push(outcome),
                in_it @ Begun::InGuest { .. } => {
                    in_guest.insert(cpu, in_it);
                }
            }
        }
    }
}
