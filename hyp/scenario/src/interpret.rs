//! The interpreter: [`run`] performs a [`Program`] on an [`Executor`].
//!
//! It knows the names, makes VMs, compares what came with what is expected, and ends by taking back everything: VMs are torn down, the
//! pool is emptied, frames are given back. A scenario after which that does not work has failed.

mod end;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use pinfold_abi::claim::{Count, Gfn, Order, Pfn};
use pinfold_abi::describe::CallInfo;
use pinfold_abi::{HostCall, State, Status, VM_PROTECTED};

use crate::executor::{Executor, Outcome, Step, Trouble};
use crate::matches::{is_usual, matches};
use crate::program::{
    Access, Action, Deed, Expression, Pattern, Program, Sign, Statement, Term, VmKind,
};
use crate::puppet;
use crate::transcript::Transcript;

/// How often a call is made again after the pool was fed.
const MEALS: u32 = 16;
/// How often a call is made that is to be finished.
const MOST_AGAIN: u32 = 1000;
/// The most rounds of a loop.
const MOST_ROUNDS: u64 = 100_000;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The outcomes that every executor must agree on, line by line.
    pub transcript: Vec<String>,
    /// A digest of them.
    pub digest: u64,
}

/// Performs a program.
pub fn run(program: &Program, on: &mut dyn Executor) -> Result<Report, Trouble> {
    let mut run = Run {
        on,
        program,
        names: BTreeMap::new(),
        vms: Vec::new(),
        taken: Vec::new(),
        lent: false,
        at_it: BTreeSet::new(),
        parallel: Vec::new(),
        transcript: Transcript::default(),
    };
    let performed = run.block(&program.statements);
    let ended = run.end();
    let (transcript, digest) = run.transcript.finish();
    performed.and(ended).map(|()| Report { transcript, digest })
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
enum Thing {
    Number(u64),
    Frames { first: u64, order: u8, count: u64 },
}

/// A VM that must be gone in the end, and what was given to it or shared with it: first frame and count.
#[derive(Clone, Debug)]
struct Made {
    handle: u64,
    kind: VmKind,
    given: BTreeSet<(u64, u64)>,
}

struct Run<'a> {
    on: &'a mut dyn Executor,
    program: &'a Program,
    names: BTreeMap<String, Thing>,
    vms: Vec<Made>,
    taken: Vec<(u64, u8, u64)>,
    /// The pool was given something.
    lent: bool,
    /// vCPUs that wait to go on with what they were at.
    at_it: BTreeSet<(u64, u64)>,
    /// The outcomes of the last parallel lines.
    parallel: Vec<Outcome>,
    transcript: Transcript,
}

/// Moves the arguments of a call behind what it has done.
fn advance(call: &CallInfo, words: &mut [u64; 8], done: u64) {
    let [_, arguments @ ..] = words;
    let mut fields = call.arguments.iter().zip(arguments.iter());
    let order = fields.find(|(field, _)| field.unit == Order::UNIT);
    let frames = done << order.map_or(0, |(_, order)| *order);
    for (field, word) in call.arguments.iter().zip(arguments) {
        match field.unit {
            Gfn::UNIT | Pfn::UNIT => *word += frames,
            Count::UNIT => *word -= done,
            _ => {}
        }
    }
}

fn wrong<T>(what: String) -> Result<T, Trouble> {
    Err(Trouble::Wrong(what))
}

impl Run<'_> {
    fn block(&mut self, statements: &[Statement]) -> Result<(), Trouble> {
        for statement in statements {
            self.statement(statement).map_err(|trouble| match trouble {
                Trouble::Wrong(what) if !what.starts_with("line ") => {
                    let line = self.program.line(statement.line);
                    Trouble::Wrong(format!("line {}, `{line}`: {what}", statement.line))
                }
                Trouble::Wrong(_) | Trouble::Cannot(_) => trouble,
            })?;
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), Trouble> {
        match &statement.action {
            Action::Vm { name, vcpus, kind } => self.make_vm(name, vcpus, *kind),
            Action::Take { name, order, count } => self.take(name, order, count),
            Action::Pin {
                what,
                whole,
                order,
                kind,
                count,
            } => self.pin(what, whole.as_deref(), order.as_ref(), (*kind, count)),
            Action::Call { into, .. } => self.call(statement, into.as_ref()),
            Action::Raw(_) | Action::Guest { .. } | Action::Touch { .. } => {
                self.outcome(statement).map(|_| ())
            }
            Action::State {
                frame,
                state,
                owner,
                order,
            } => self.check_state(frame, *state, owner.as_ref(), order.as_ref()),
            Action::Count { pattern, times } => self.check_count(pattern, times),
            Action::Let { name, value } => {
                let value = self.value(value)?;
                self.names.insert(name.clone(), Thing::Number(value));
                Ok(())
            }
            Action::Repeat {
                times,
                counter,
                body,
            } => self.repeat(times, counter.as_ref(), body),
            Action::Each { name, values, body } => values.iter().try_for_each(|value| {
                let value = self.value(value)?;
                self.round(Some(name), value, body)
            }),
            Action::Parallel(lines) => self.run_parallel(lines),
        }
    }

    /// A call of the table, whose first result may get a name.
    fn call(&mut self, statement: &Statement, into: Option<&String>) -> Result<(), Trouble> {
        let outcome = self.outcome(statement)?;
        if let (
            Some(name),
            Outcome::Answer {
                x: [_, _, first, ..],
                ..
            },
        ) = (into, outcome)
        {
            self.names.insert(name.clone(), Thing::Number(first));
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        times: &Expression,
        counter: Option<&String>,
        body: &[Statement],
    ) -> Result<(), Trouble> {
        let times = self.value(times)?;
        if times > MOST_ROUNDS {
            return wrong(format!("more than {MOST_ROUNDS} rounds"));
        }
        (0..times).try_for_each(|round| self.round(counter, round, body))
    }

    fn round(
        &mut self,
        name: Option<&String>,
        value: u64,
        body: &[Statement],
    ) -> Result<(), Trouble> {
        if let Some(name) = name {
            self.names.insert(name.clone(), Thing::Number(value));
        }
        self.block(body)
    }

    fn value(&mut self, expression: &Expression) -> Result<u64, Trouble> {
        let mut sum = 0_u64;
        for (sign, term) in &expression.terms {
            let value = match term {
                Term::Number(number) => *number,
                Term::Place(place) => self.on.place(*place)?,
                Term::Name(name) => match self.names.get(name) {
                    Some(Thing::Number(value) | Thing::Frames { first: value, .. }) => *value,
                    None => return wrong(format!("`{name}` has no value yet")),
                },
            };
            sum = match sign {
                Sign::Plus => sum.wrapping_add(value),
                Sign::Minus => sum.wrapping_sub(value),
            };
        }
        Ok(sum)
    }

    /// A step with everything in numbers.
    fn step_of(&mut self, action: &Action) -> Result<Option<Step>, Trouble> {
        Ok(Some(match action {
            Action::Call {
                info, arguments, ..
            } => {
                let mut x = [0; 8];
                let [function, words @ ..] = &mut x;
                *function = pinfold_abi::FUNCTION_BASE + info.number;
                for (word, argument) in words.iter_mut().zip(arguments) {
                    *word = self.value(argument)?;
                }
                Step::Call(x)
            }
            Action::Raw(words) => {
                let mut x = [0; 8];
                for (word, value) in x.iter_mut().zip(words) {
                    *word = self.value(value)?;
                }
                Step::Call(x)
            }
            Action::Guest { vm, vcpu, deed } => Step::Guest {
                vm: self.value(vm)?,
                vcpu: *vcpu,
                deed: self.deed(deed)?,
            },
            Action::Touch { by, access, frame } => {
                let access = match access {
                    Access::Read => Access::Read,
                    Access::Write(value) => Access::Write(self.value(value)?),
                    Access::Fetch => Access::Fetch,
                };
                Step::Touch {
                    by: *by,
                    access,
                    frame: self.value(frame)?,
                }
            }
            Action::Vm { .. }
            | Action::Take { .. }
            | Action::Pin { .. }
            | Action::State { .. }
            | Action::Count { .. }
            | Action::Let { .. }
            | Action::Repeat { .. }
            | Action::Each { .. }
            | Action::Parallel(_) => return Ok(None),
        }))
    }

    fn deed(&mut self, deed: &Deed<Expression>) -> Result<Deed<u64>, Trouble> {
        Ok(match deed {
            Deed::Share(gfn) => Deed::Share(self.value(gfn)?),
            Deed::Unshare(gfn) => Deed::Unshare(self.value(gfn)?),
            Deed::Relinquish(gfn) => Deed::Relinquish(self.value(gfn)?),
            Deed::Read(gfn) => Deed::Read(self.value(gfn)?),
            Deed::Write(gfn, value) => Deed::Write(self.value(gfn)?, self.value(value)?),
            Deed::Fetch(gfn) => Deed::Fetch(self.value(gfn)?),
            Deed::Spin(times) => Deed::Spin(self.value(times)?),
            Deed::Resume(answer) => Deed::Resume(self.value(answer)?),
            Deed::Hvc([x0, x1, x2, x3]) => Deed::Hvc([
                self.value(x0)?,
                self.value(x1)?,
                self.value(x2)?,
                self.value(x3)?,
            ]),
        })
    }

    /// Takes the step of a statement and compares its outcome.
    fn outcome(&mut self, statement: &Statement) -> Result<Outcome, Trouble> {
        let Some(step) = self.step_of(&statement.action)? else {
            return wrong("comes to nothing".into());
        };
        if let Step::Guest { vm, vcpu, deed } = step {
            let resumes = matches!(deed, Deed::Resume(_));
            if self.at_it.contains(&(vm, vcpu)) != resumes {
                return wrong(
                    if resumes {
                        "the vCPU has nothing to go on with"
                    } else {
                        "the vCPU is at its last deed still: `resume` it"
                    }
                    .into(),
                );
            }
        }
        let is_dry_fine = statement.expected.iter().any(|pattern| {
            matches!(
                pattern,
                Pattern::Status {
                    status: Some(Status::NoMemory),
                    ..
                }
            )
        });
        let mut outcome = if is_dry_fine {
            self.on.step(&step)?
        } else {
            self.fed(&step)?
        };
        self.note(&step, &outcome);
        if matches!(statement.action, Action::Call { finish: true, .. }) {
            outcome = self.finished(step, outcome)?;
        }
        let outcome = self.seen(&step, outcome)?;
        // Where several outcomes are right, each executor has its own.
        if statement.expected.len() < 2 {
            self.transcript.note(statement.line, &outcome);
        }
        self.compare(statement, &outcome)?;
        Ok(outcome)
    }

    /// Makes a call again from where it got to, as long as it is `AGAIN`; says in the end how much was done in all.
    fn finished(&mut self, mut step: Step, mut outcome: Outcome) -> Result<Outcome, Trouble> {
        let mut sum = 0;
        for _ in 0..MOST_AGAIN {
            let (Step::Call(words), Outcome::Answer { call, x }) = (&mut step, &mut outcome) else {
                return Ok(outcome);
            };
            let [0, status, done, ..] = x else {
                return Ok(outcome);
            };
            if *status == Status::Ok.number() {
                *done += sum;
                return Ok(outcome);
            }
            let Some(call) = call.filter(|_| *status == Status::Again.number()) else {
                return Ok(outcome);
            };
            sum += *done;
            advance(call, words, *done);
            outcome = self.fed(&step)?;
            self.note(&step, &outcome);
        }
        wrong(format!("is AGAIN after {MOST_AGAIN} calls"))
    }

    /// Takes a step, and feeds the pool as often as it is dry.
    fn fed(&mut self, step: &Step) -> Result<Outcome, Trouble> {
        for _ in 0..MEALS {
            let outcome = self.on.step(step)?;
            let Outcome::Answer {
                x: [0, status, ..], ..
            } = outcome
            else {
                return Ok(outcome);
            };
            let is_reclaim = matches!(step, Step::Call(x) if HostCall::decode(*x) == Some(HostCall::PoolReclaim {}));
            if status != Status::NoMemory.number() || is_reclaim {
                return Ok(outcome);
            }
            self.lent = true;
            self.on.feed()?;
        }
        wrong(format!("the pool is dry after {MEALS} meals"))
    }

    /// What a touch that was let through has found.
    fn seen(&mut self, step: &Step, outcome: Outcome) -> Result<Outcome, Trouble> {
        let Step::Touch { access, frame, .. } = *step else {
            return Ok(outcome);
        };
        if !matches!(outcome, Outcome::Value(_) | Outcome::Done) || access == Access::Fetch {
            return Ok(outcome);
        }
        let [_, state, ..] = self.must(HostCall::FolioQuery { pfn: Pfn(frame) })?;
        let is_out_of_reach = [
            State::Hyp,
            State::Arriving,
            State::Guest,
            State::Wiping,
            State::Poisoned,
        ]
        .iter()
        .any(|hidden| hidden.number() == state);
        let is_read = access == Access::Read && state != State::NotRam.number();
        Ok(if is_out_of_reach {
            Outcome::Decoy
        } else if is_read {
            outcome
        } else {
            Outcome::Done
        })
    }

    /// Remembers what must be undone in the end.
    fn note(&mut self, step: &Step, outcome: &Outcome) {
        if let Step::Call(words) = step
            && let Outcome::Answer {
                x: [0, status, result, ..],
                ..
            } = outcome
            && [Status::Ok, Status::Again]
                .map(Status::number)
                .contains(status)
        {
            self.note_call(HostCall::decode(*words), *result);
        }
        if let Step::Guest { vm, vcpu, .. } = step {
            let waits =
                matches!(outcome, Outcome::Exit { reason, .. } if puppet::waits_after(*reason));
            if waits {
                self.at_it.insert((*vm, *vcpu));
            } else {
                self.at_it.remove(&(*vm, *vcpu));
            }
        }
    }

    fn note_call(&mut self, call: Option<HostCall>, result: u64) {
        match call {
            Some(HostCall::PoolDonate { .. }) => self.lent = true,
            Some(HostCall::VmCreate { flags, .. }) => self.vms.push(Made {
                handle: result,
                kind: if flags.0 & VM_PROTECTED == 0 {
                    VmKind::Ordinary
                } else {
                    VmKind::Protected
                },
                given: BTreeSet::new(),
            }),
            Some(
                HostCall::MemDonate {
                    vm,
                    gfn,
                    count,
                    order,
                    ..
                }
                | HostCall::MemShareGuest {
                    vm,
                    gfn,
                    count,
                    order,
                    ..
                },
            ) => {
                let made = self.vms.iter_mut().find(|made| made.handle == vm.0);
                if let Some(made) = made {
                    made.given.insert((gfn.0, count.0 << order.0.min(9)));
                }
            }
            _ => {}
        }
    }

    fn compare(&mut self, statement: &Statement, outcome: &Outcome) -> Result<(), Trouble> {
        let Statement {
            action,
            expected,
            expected_line,
            ..
        } = statement;
        if expected.is_empty() {
            return if is_usual(action, outcome) {
                Ok(())
            } else {
                wrong(format!("came to {outcome}, and nothing is said of that"))
            };
        }
        for pattern in expected {
            if self.is(pattern, outcome)? {
                return Ok(());
            }
        }
        let line = self.program.line(*expected_line);
        wrong(format!(
            "came to {outcome}; line {expected_line} says `{line}`"
        ))
    }

    fn is(&mut self, pattern: &Pattern, outcome: &Outcome) -> Result<bool, Trouble> {
        // What an expression is worth is asked first, since a frame may have to be looked for.
        let mut values: Vec<(Expression, u64)> = Vec::new();
        let expressions: Vec<&Expression> = match pattern {
            Pattern::Status { fields, .. } => fields.iter().map(|(_, value)| value).collect(),
            Pattern::Exit { details, .. } => details.iter().collect(),
            Pattern::Value(value) => Vec::from([value]),
            Pattern::Done | Pattern::Abort | Pattern::Decoy => Vec::new(),
        };
        for expression in expressions {
            values.push((expression.clone(), self.value(expression)?));
        }
        let value = |wanted: &Expression| {
            let known = values.iter().find(|(expression, _)| expression == wanted);
            known.map_or(0, |(_, value)| *value)
        };
        Ok(matches(pattern, outcome, &value))
    }

    fn check_count(&mut self, pattern: &Pattern, times: &Expression) -> Result<(), Trouble> {
        let (mut found, wanted) = (0, self.value(times)?);
        for outcome in self.parallel.clone() {
            found += u64::from(self.is(pattern, &outcome)?);
        }
        if found == wanted {
            Ok(())
        } else {
            wrong(format!("{found} outcomes are so"))
        }
    }

    fn check_state(
        &mut self,
        frame: &Expression,
        state: State,
        owner: Option<&(Expression, Expression)>,
        order: Option<&Expression>,
    ) -> Result<(), Trouble> {
        let pfn = Pfn(self.value(frame)?);
        let [_, found, found_order, vm, gfn, ..] = self.must(HostCall::FolioQuery { pfn })?;
        let (vm_wanted, gfn_wanted) = match owner {
            Some((owner, place)) => (self.value(owner)?, self.value(place)?),
            None => (0, 0),
        };
        let order = order.map(|order| self.value(order)).transpose()?;
        let is_owner = owner.is_none() || (vm, gfn) == (vm_wanted, gfn_wanted);
        if found == state.number() && is_owner && order.is_none_or(|order| order == found_order) {
            return Ok(());
        }
        let name = State::from_number(found).map_or("no state", State::name);
        wrong(format!(
            "it is {name}, order {found_order}, GFN {gfn:#x} of VM {vm:#x}"
        ))
    }

    /// The lines of all CPUs at once.
    fn run_parallel(&mut self, lines: &[Vec<Statement>]) -> Result<(), Trouble> {
        let mut steps = Vec::new();
        for line in lines {
            let mut of_cpu = Vec::new();
            for statement in line {
                of_cpu.extend(self.step_of(&statement.action)?);
            }
            steps.push(of_cpu);
        }
        self.transcript.close();
        let outcomes = self.on.parallel(&steps)?;
        self.parallel.clear();
        for ((line, steps), outcomes) in lines.iter().zip(&steps).zip(&outcomes) {
            if outcomes.len() != line.len() {
                return wrong("a CPU did not take all its steps".into());
            }
            for (step, outcome) in steps.iter().zip(outcomes) {
                self.note(step, outcome);
                self.parallel.push(*outcome);
            }
        }
        for (statement, outcome) in lines.iter().flatten().zip(outcomes.iter().flatten()) {
            self.compare(statement, outcome)
                .map_err(|trouble| match trouble {
                    Trouble::Wrong(what) => Trouble::Wrong(format!(
                        "line {}, `{}`: {what}",
                        statement.line,
                        self.program.line(statement.line)
                    )),
                    Trouble::Cannot(_) => trouble,
                })?;
        }
        Ok(())
    }
}
