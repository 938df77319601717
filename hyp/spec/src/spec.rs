//! The judge: [`Spec`] is told what happened, step by step, and says which clause was broken.

use alloc::format;
use alloc::vec::Vec;
use pinfold_abi::{
    Counter, HostCall, SMCCC_NOT_SUPPORTED, SMCCC_SUCCESS, Status, UUID_FUNCTION, UUID_WORDS,
};

use crate::calls::{self, Seen};
use crate::clause::{Clause, Exercised, Violation};
use crate::near::Cursor;
use crate::reality::Rights;
use crate::rules::Taken;
use crate::ruling::{Done, Refuse, Ruling};
use crate::state::{Boot, Owner, State, Word};
use crate::vm::GuestRegisters;

/// SMCCC's own calls (DEN0028, section 7), and the version that is offered.
const SMCCC_VERSION: u64 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u64 = 0x8000_0001;
const OFFERED_SMCCC: u64 = 0x1_0002;

/// The most frames above its floor that a call may want of the pool.
pub(crate) const MOST_WANTED: u64 = 16;

/// What the host saw of its call.
#[derive(Clone, Copy, Debug)]
pub enum HostSeen<'a> {
    /// x0 to x17 on return.
    Returned(&'a [u64; 18]),
    /// A vCPU was entered, with these registers.
    Entered(&'a GuestRegisters),
}

/// What the last step was, for the comparison after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) clause: Clause,
    pub(crate) what: &'static str,
    pub(crate) refused: bool,
    /// Free frames of the pool before it, and how many it had to leave.
    pub(crate) pool: Option<(u64, u64)>,
    pub(crate) decoy: Option<(u64, bool)>,
    /// The exception that a guest must take.
    pub(crate) takes: Option<Taken>,
}

impl Last {
    /// A step that `clause` decided, about `what`.
    pub(crate) const fn new(clause: Clause, what: &'static str) -> Self {
        Self {
            clause,
            what,
            refused: false,
            pool: None,
            decoy: None,
            takes: None,
        }
    }
}

/// The specification, and how far history has got.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) state: State,
    /// The state before the last step.
    pub(crate) before: State,
    pub(crate) last: Last,
    pub(crate) exercised: Exercised,
    /// Frames that the last step wiped.
    pub(crate) wiped: Vec<u64>,
    pub(crate) cursor: Cursor,
    steps: u64,
}

/// What registers x0 and on must be, and which clause says so.
pub(crate) type Expected = Vec<(Word, Clause)>;

pub(crate) fn expect<const N: usize>(clause: Clause, values: [u64; N]) -> Expected {
    values
        .into_iter()
        .map(|value| (Word::exactly(value), clause))
        .collect()
}

/// Compares registers with what they must be; those that are not named are as they were.
pub(crate) fn compare(
    before: &[u64; 18],
    after: &[u64; 18],
    expected: &Expected,
) -> Result<(), Violation> {
    for (number, (old, new)) in before.iter().zip(after).enumerate() {
        let named = expected.get(number).copied();
        let (word, clause) = named.unwrap_or((Word::exactly(*old), Clause::KeptRegisters));
        if !word.admits(*new) {
            let what = format!("x{number} is {new:#x}, not {:#x}", word.value);
            return Err(Violation::new(clause, what));
        }
    }
    Ok(())
}

impl Refuse {
    pub(crate) fn registers(&self) -> Expected {
        let mut expected = expect(self.clause, [SMCCC_SUCCESS, self.status.number()]);
        let found = [
            Word::exactly(self.index),
            self.word,
            Word::exactly(u64::from(self.pin)),
        ];
        expected.extend(found.map(|word| (word, Clause::RefusalSaysWhere)));
        expected
    }
}

impl Done {
    pub(crate) fn registers(&self) -> Expected {
        let mut expected = expect(self.clause, [SMCCC_SUCCESS, self.status.number()]);
        expected.extend(self.results.iter().map(|word| (*word, self.clause)));
        expected
    }
}

impl Spec {
    /// Begins where EL2's boot ends.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        let state = State::new(boot);
        let last = Last::new(Clause::NothingElseChanges, "boot");
        Self {
            before: state.clone(),
            state,
            last,
            exercised: Exercised::default(),
            wiped: Vec::new(),
            cursor: Cursor::default(),
            steps: 0,
        }
    }

    /// What was exercised so far.
    #[must_use]
    pub const fn exercised(&self) -> &Exercised {
        &self.exercised
    }

    /// How many steps were judged so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The host writes word `index` of a frame of what is, or may become, a pin table.
    pub fn host_writes_pin(&mut self, frame: u64, index: u64, word: u32) {
        if word == 0 {
            self.state.pin_words.remove(&(frame, index));
        } else {
            self.state.pin_words.insert((frame, index), word);
        }
    }

    /// Somebody who may writes to a frame; the value stands for all of it.
    pub fn writes(&mut self, frame: u64, value: u64) {
        if value == 0 {
            self.state.content.remove(&frame);
        } else {
            self.state.content.insert(frame, value);
        }
    }

    /// Whether the host reaches the frame to write to it, as its own or shared.
    #[must_use]
    pub fn host_may_write(&self, frame: u64) -> bool {
        let rights = self.state.host_view(frame);
        matches!(rights, Some(Rights::Ram | Rights::SharedRam))
    }

    /// The frames that a VM has alone, or shares: where it has them, and which.
    #[must_use]
    pub fn frames_of(&self, handle: u64, shared: bool) -> Vec<(u64, u64)> {
        let frames = self
            .state
            .vms
            .get(&handle)
            .into_iter()
            .flat_map(|vm| &vm.frames);
        let frames = frames.map(|(gfn, pfn)| (*gfn, *pfn));
        let is_shared = |pfn| matches!(self.state.owner(pfn), Some(Owner::GuestShared(_)));
        frames
            .filter(|(_, pfn)| is_shared(*pfn) == shared)
            .collect()
    }

    /// Frames that only a VM reaches, and its handle.
    pub fn guests_frames(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.state.owners.iter().filter_map(|(frame, owner)| {
            let held = owner.held()?;
            (*owner == Owner::Guest(held)).then_some((*frame, held.vm))
        })
    }

    /// Takes a step: `next` is the state after it.
    pub(crate) fn step(&mut self, next: State, last: Last) {
        self.exercised.note(last.clause, last.what);
        self.steps += 1;
        let mut next = next;
        self.wiped = core::mem::take(&mut next.wiped);
        self.before = core::mem::replace(&mut self.state, next);
        self.last = last;
    }

    /// Judges a host call: registers before, what was seen, and how many frames of the pool were free before.
    pub fn host_call(
        &mut self,
        before: &[u64; 18],
        seen: HostSeen<'_>,
        free: u64,
    ) -> Result<(), Violation> {
        let [function, argument, x2, x3, x4, x5, x6, x7, ..] = *before;
        let call = HostCall::decode([function, argument, x2, x3, x4, x5, x6, x7]);
        match call.filter(|call| self.state.boot.debug_calls || !call.is_debug()) {
            Some(call) => self.pinfold_call(call, before, seen, free),
            None => self.other_call(function, argument, before, seen),
        }
    }

    /// A call that is not in the table.
    fn other_call(
        &mut self,
        function: u64,
        argument: u64,
        before: &[u64; 18],
        seen: HostSeen<'_>,
    ) -> Result<(), Violation> {
        let mut next = self.state.clone();
        let expected = unlisted(function, argument);
        let clause = expected
            .first()
            .map_or(Clause::UnknownCall, |(_, clause)| *clause);
        if clause == Clause::UnknownCall {
            next.count(Counter::UnknownCalls, 1);
        }
        let HostSeen::Returned(after) = seen else {
            return Err(Violation::new(
                clause,
                format!("{function:#x} enters a vCPU"),
            ));
        };
        let refused = clause == Clause::UnknownCall;
        self.step(
            next,
            Last {
                refused,
                ..Last::new(clause, "no call")
            },
        );
        self.exercised.note(Clause::KeptRegisters, "no call");
        compare(before, after, &expected)
    }

    fn pinfold_call(
        &mut self,
        call: HostCall,
        before: &[u64; 18],
        seen: HostSeen<'_>,
        free: u64,
    ) -> Result<(), Violation> {
        let what = calls::name(&call);
        let floor = calls::floor(&call);
        let looked = match seen {
            HostSeen::Returned([_, status, result, ..]) => Seen {
                status: Status::from_number(*status),
                result: *result,
                free,
            },
            HostSeen::Entered(_) => Seen {
                status: None,
                result: 0,
                free,
            },
        };
        let mut next = self.state.clone();
        next.count(Counter::Calls, 1);
        let mut ruling = next.perform(call, looked);
        if looked.status == Some(Status::NoMemory) && !matches!(call, HostCall::PoolReclaim {}) {
            ruling = out_of_memory(free, floor);
        }
        if ruling.is_err() {
            next = self.state.clone();
            next.count(Counter::Calls, 1);
            next.count(Counter::Refusals, 1);
        }
        let pool = floor.map(|floor| (free, floor));
        self.judge(next, &ruling, before, seen, what, pool)
    }

    fn judge(
        &mut self,
        next: State,
        ruling: &Ruling,
        before: &[u64; 18],
        seen: HostSeen<'_>,
        what: &'static str,
        pool: Option<(u64, u64)>,
    ) -> Result<(), Violation> {
        let (clause, refused, enters, expected) = match ruling {
            Ok(done) => (done.clause, false, done.enters, done.registers()),
            Err(refuse) => (refuse.clause, true, false, refuse.registers()),
        };
        self.step(
            next,
            Last {
                refused,
                pool,
                ..Last::new(clause, what)
            },
        );
        match seen {
            HostSeen::Returned(after) if !enters => {
                let note = if refused {
                    Clause::RefusalSaysWhere
                } else {
                    Clause::KeptRegisters
                };
                self.exercised.note(note, what);
                compare(before, after, &expected)
            }
            HostSeen::Entered(registers) if enters => {
                let [_, handle, index, ..] = *before;
                self.compare_guest((handle, index), registers, clause)
            }
            HostSeen::Returned(after) => Err(Violation::new(
                clause,
                format!("{what} enters nothing: {after:x?}"),
            )),
            HostSeen::Entered(_) => Err(Violation::new(clause, format!("{what} enters a vCPU"))),
        }
    }
}

/// What a call that is not in the table must return.
pub(crate) fn unlisted(function: u64, argument: u64) -> Expected {
    match function {
        UUID_FUNCTION => expect(Clause::Uuid, UUID_WORDS.map(u64::from)),
        SMCCC_VERSION => expect(Clause::Smccc, [OFFERED_SMCCC]),
        SMCCC_ARCH_FEATURES if matches!(argument, SMCCC_VERSION | SMCCC_ARCH_FEATURES) => {
            expect(Clause::Smccc, [SMCCC_SUCCESS])
        }
        SMCCC_ARCH_FEATURES => expect(Clause::Smccc, [SMCCC_NOT_SUPPORTED]),
        _ => expect(Clause::UnknownCall, [SMCCC_NOT_SUPPORTED]),
    }
}

impl Spec {
    /// A call of the host was made of which nothing is specified, but that it changes nothing.
    pub fn host_call_passed_over(&mut self, refused: bool) {
        let mut next = self.state.clone();
        next.count(Counter::Calls, 1);
        next.count(Counter::Refusals, u64::from(refused));
        self.step(next, Last::new(Clause::NothingElseChanges, "passed over"));
    }
}

/// What `NO_MEMORY` is allowed for.
fn out_of_memory(free: u64, floor: Option<u64>) -> Ruling {
    let refuse = crate::ruling::refuse(Clause::NoMemoryOnlyWhenDry, Status::NoMemory);
    let is_dry = floor.is_some_and(|floor| free < floor + MOST_WANTED);
    // A status that is never returned, where it is wrong.
    let status = if is_dry { Status::NoMemory } else { Status::Ok };
    Err(Refuse { status, ..refuse })
}
