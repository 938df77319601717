//! Random runs: valid calls, calls that are nearly right, and garbage, each judged. A run that fails is made smaller.
//!
//! `PINFOLD_SEED` chooses another seed than that of every day, `PROPTEST_CASES` how many runs.

use std::cell::{Cell, RefCell};

use pinfold_abi::{FUNCTION_BASE, HostCall, claim, pin_word};
use pinfold_spec::{Exercised, GuestEvent, TouchBy};
use proptest::prelude::*;
use proptest::test_runner::{
    FileFailurePersistence, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner,
};

use crate::directed::{FIRST, RELINQUISH, SHARE, UNSHARE};
use crate::host::GICD;
use crate::lockstep::{FRAMES, GUEST, GUEST_FRAMES, HOLE, Judged, Lockstep, RAM};

/// One step. VMs are named by the order of their creation.
#[derive(Clone, Debug)]
enum Step {
    /// A VM with all that it needs, started or not.
    Create {
        protected: bool,
        vcpus: u64,
        starts: bool,
    },
    /// Pins folios as a donation wants them, but for one word that may be another, and donates them.
    Donate(Donation),
    /// Shares folios with an ordinary VM.
    Share {
        folios: Donation,
        access: u64,
    },
    /// The host writes a pin word.
    Pin {
        pfn: u64,
        word: u32,
    },
    /// The host writes to a frame, if that is its own.
    Write {
        pfn: u64,
    },
    /// Runs a vCPU with an answer, and lets it do these things while it runs.
    Run {
        vm: usize,
        vcpu: u64,
        answer: u64,
        deeds: Vec<Deed>,
    },
    /// The host touches a frame.
    Touch {
        pfn: u64,
        by: TouchBy,
    },
    /// One call about a VM.
    Life {
        vm: usize,
        call: Life,
    },
    /// Any call, with arguments of the kinds that the table says.
    Typed {
        call: usize,
        arguments: Vec<Argument>,
    },
    /// Whatever these words stand for.
    Words([u64; 8]),
    PoolDonate {
        pfn: u64,
        count: u64,
    },
    PoolReclaim,
    Pins {
        table: u64,
        first: u64,
        count: u64,
    },
}

/// What a host gives, and how it has pinned it.
#[derive(Clone, Copy, Debug)]
struct Donation {
    vm: usize,
    gfn: u64,
    pfn: u64,
    count: u64,
    order: u8,
    word: Option<u32>,
}

impl Donation {
    /// It, aligned to the order most of the time, and not too long.
    fn aligned(self) -> Self {
        let size = 1 << self.order;
        let is_odd = self.count == 13;
        let align = |frame: u64| if is_odd { frame } else { frame & !(size - 1) };
        Self {
            gfn: align(self.gfn),
            pfn: align(self.pfn),
            count: self.count.min(512 / size),
            ..self
        }
    }
}

#[derive(Clone, Debug)]
enum Life {
    Start,
    Begin,
    Reclaim { gfn: u64, count: u64 },
    Unshare { gfn: u64, count: u64 },
    Protect { gfn: u64, count: u64, access: u64 },
    Finish,
    TearDown,
    Region { gfn: u64, count: u64 },
    Vcpu { vcpu: u64, flags: u64 },
    Set { vcpu: u64, register: u64 },
    Line { intid: u64 },
}

/// An argument, whatever kind it must be.
#[derive(Clone, Debug)]
struct Argument {
    vm: usize,
    pfn: u64,
    gfn: u64,
    small: u64,
    any: Option<u64>,
}

impl Argument {
    /// It, as the table says what it counts.
    fn of(&self, unit: &str, handle: u64) -> u64 {
        let fitting = match unit {
            claim::Handle::UNIT => handle,
            claim::Pfn::UNIT => self.pfn,
            claim::Gfn::UNIT => self.gfn,
            claim::Ipa::UNIT => self.small << 16,
            claim::Order::UNIT => self.small % 11,
            claim::VcpuIndex::UNIT | claim::Flags::UNIT => self.small % 3,
            claim::Access::UNIT => self.small % 9,
            _ => self.small,
        };
        self.any.unwrap_or(fitting)
    }
}

/// What a guest does.
#[derive(Clone, Debug)]
enum Deed {
    /// Shares the nth of its frames.
    Share(usize),
    /// Gives the nth of its frames back.
    Relinquish(usize),
    /// Takes the nth of its frames back; the host has pinned it exclusively, or not, or leaves its word alone.
    Unshare {
        nth: usize,
        pinned: Option<bool>,
    },
    Call([u64; 4]),
    Access {
        ipa: u64,
        width: u8,
        write: bool,
        register: u8,
    },
    Fetch(u64),
    Interrupt,
    Impossible,
}

fn pfn() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..4, 0_u64..64).prop_map(|(block, at)| RAM + block * 512 + at * 8),
        4 => (0_u64..16).prop_map(|at| FIRST + at),
        2 => (0_u64..4).prop_map(|block| RAM + block * 512),
        1 => RAM - 2..RAM + FRAMES + 2,
    ]
}

fn gfn() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0_u64..128).prop_map(|at| GUEST + at * 8),
        4 => (0_u64..16).prop_map(|at| GUEST + at),
        2 => (0_u64..2).prop_map(|block| GUEST + block * 512),
        1 => GUEST - 2..GUEST + GUEST_FRAMES + 2,
    ]
}

fn order() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0_u8), 3 => 1_u8..4, 3 => Just(9_u8), 1 => 4_u8..9]
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(pin_word::donatable(0)),
        order().prop_map(pin_word::donatable),
        Just(0x4000_0001),
        Just(0x8000_0001),
        Just(0xC000_0002),
        any::<u32>()
    ]
}

fn value() -> impl Strategy<Value = u64> {
    let handles = (0_u64..4, 0_u64..4).prop_map(|(generation, slot)| generation << 8 | slot);
    prop_oneof![
        0_u64..10,
        pfn(),
        gfn(),
        handles,
        Just(u64::MAX),
        Just(1 << 36),
        Just(1 << 28),
        any::<u64>()
    ]
}

fn argument() -> impl Strategy<Value = Argument> {
    let small = prop_oneof![3 => 0_u64..10, 1 => 0_u64..600];
    let any = prop_oneof![15 => Just(None), 1 => value().prop_map(Some)];
    (0_usize..3, pfn(), gfn(), small, any).prop_map(|(vm, pfn, gfn, small, any)| Argument {
        vm,
        pfn,
        gfn,
        small,
        any,
    })
}

fn words() -> impl Strategy<Value = [u64; 8]> {
    let number = prop_oneof![8 => 0_u64..0x70, 1 => any::<u64>()];
    (number, prop::array::uniform7(value())).prop_map(|(number, rest)| {
        let mut x = [FUNCTION_BASE.wrapping_add(number); 8];
        x[1..].copy_from_slice(&rest);
        x
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    let function = prop_oneof![
        2 => Just(SHARE),
        2 => Just(UNSHARE),
        3 => Just(0xC400_0003_u64),
        2 => Just(0x8400_0002),
        1 => Just(0x8400_0009),
        2 => prop_oneof![Just(0x8600_0000_u64), Just(0xC600_0002), Just(0x8400_0000), any::<u64>()],
    ];
    let page = gfn().prop_map(|gfn| gfn << 12);
    let argument = prop_oneof![4 => page, 2 => 0_u64..4, 1 => value()];
    let place = || prop_oneof![4 => gfn().prop_map(|gfn| gfn << 12), 1 => Just(GICD), 2 => 0x900_0000_u64..0x900_1000];
    let width = prop_oneof![Just(1_u8), Just(2), Just(4), Just(8)];
    prop_oneof![
        24 => (0_usize..40).prop_map(Deed::Share),
        8 => (0_usize..40).prop_map(Deed::Relinquish),
        30 => (0_usize..40, any::<Option<bool>>()).prop_map(|(nth, pinned)| Deed::Unshare { nth, pinned }),
        8 => (function, argument, prop_oneof![9 => Just(0_u64), 1 => Just(1)]).prop_map(|(id, x1, x2)| Deed::Call([id, x1, x2, 0])),
        3 => (place(), width, any::<bool>(), 0_u8..32)
            .prop_map(|(ipa, width, write, register)| Deed::Access { ipa, width, write, register }),
        1 => place().prop_map(Deed::Fetch),
        2 => Just(Deed::Interrupt),
        1 => Just(Deed::Impossible),
    ]
}

/// What may be done with shared frames: to read, most of the time.
fn access() -> impl Strategy<Value = u64> {
    prop_oneof![9 => (0_u64..4).prop_map(|rest| rest << 1 | 1), 1 => 0_u64..9]
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![
        3 => Just(Life::Start),
        2 => Just(Life::Begin),
        6 => (gfn(), 1_u64..514).prop_map(|(gfn, count)| Life::Reclaim { gfn, count }),
        3 => (gfn(), 1_u64..514).prop_map(|(gfn, count)| Life::Unshare { gfn, count }),
        3 => (gfn(), 1_u64..514, access()).prop_map(|(gfn, count, access)| Life::Protect { gfn, count, access }),
        1 => Just(Life::Finish),
        1 => Just(Life::TearDown),
        1 => (gfn(), 0_u64..20).prop_map(|(gfn, count)| Life::Region { gfn: gfn + 4096, count }),
        1 => (0_u64..4, 0_u64..3).prop_map(|(vcpu, flags)| Life::Vcpu { vcpu, flags }),
        1 => (0_u64..4, 0_u64..34).prop_map(|(vcpu, register)| Life::Set { vcpu, register }),
        1 => (30_u64..290).prop_map(|intid| Life::Line { intid }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let vm = || prop_oneof![6 => Just(0_usize), 3 => Just(1), 1 => Just(2)];
    let by = prop_oneof![
        Just(TouchBy::Process),
        Just(TouchBy::KernelForProcess),
        Just(TouchBy::Kernel),
        Just(TouchBy::Kernel),
        Just(TouchBy::Fetch)
    ];
    let odd_word = prop_oneof![4 => Just(None), 1 => word().prop_map(Some)];
    let deeds = prop::collection::vec(deed(), 1..5);
    let folios =
        (vm(), gfn(), pfn(), 1_u64..20, order()).prop_map(|(vm, gfn, pfn, count, order)| {
            Donation {
                vm,
                gfn,
                pfn,
                count,
                order,
                word: None,
            }
        });
    prop_oneof![
        2 => (any::<bool>(), 1_u64..4, any::<bool>())
            .prop_map(|(protected, vcpus, starts)| Step::Create { protected, vcpus, starts }),
        5 => (folios, access()).prop_map(|(folios, access)| Step::Share { folios, access }),
        9 => (vm(), gfn(), pfn(), 1_u64..20, order(), odd_word)
            .prop_map(|(vm, gfn, pfn, count, order, word)| Step::Donate(Donation { vm, gfn, pfn, count, order, word })),
        3 => (pfn(), word()).prop_map(|(pfn, word)| Step::Pin { pfn, word }),
        2 => pfn().prop_map(|pfn| Step::Write { pfn }),
        8 => (vm(), prop_oneof![6 => Just(0_u64), 2 => Just(1), 1 => Just(2)], prop_oneof![2 => Just(0_u64), 1 => Just(1), 1 => any::<u64>()], deeds)
            .prop_map(|(vm, vcpu, answer, deeds)| Step::Run { vm, vcpu, answer, deeds }),
        4 => (prop_oneof![20 => pfn(), 1 => Just(HOLE)], by).prop_map(|(pfn, by)| Step::Touch { pfn, by }),
        8 => (vm(), life()).prop_map(|(vm, call)| Step::Life { vm, call }),
        10 => (0..HostCall::TABLE.len(), prop::collection::vec(argument(), 7))
            .prop_map(|(call, arguments)| Step::Typed { call, arguments }),
        2 => words().prop_map(Step::Words),
        2 => (pfn(), 1_u64..40).prop_map(|(pfn, count)| Step::PoolDonate { pfn, count }).boxed(),
        2 => Just(Step::PoolReclaim).boxed(),
        1 => (pfn(), value(), 1_u64..5000).prop_map(|(table, first, count)| Step::Pins { table, first, count }).boxed(),
    ]
}

/// A run: both sides, and the VMs that were created.
struct Run {
    both: Lockstep,
    vms: Vec<claim::Handle>,
}

impl Run {
    fn vm(&self, vm: usize) -> claim::Handle {
        self.vms.get(vm).copied().unwrap_or(claim::Handle(0x100))
    }

    fn create(&mut self, protected: bool, vcpus: u64, starts: bool) -> Judged {
        let vm = self.both.create(u64::from(protected), vcpus)?;
        self.vms.push(vm);
        self.both.region(vm, GUEST, GUEST_FRAMES)?;
        self.both.gic(vm, GICD, 0x80A_0000)?;
        for index in 0..vcpus {
            self.both.vcpu(vm, index, u64::from(index > 0))?;
        }
        if starts {
            self.both.start(vm)?;
        }
        Ok(())
    }

    fn pin(&mut self, pfn: u64, word: u32) {
        if (RAM..RAM + FRAMES).contains(&pfn) {
            self.both.pin(pfn, word);
        }
    }

    /// Aligns a donation, most of the time.
    fn donate(&mut self, donation: Donation) -> Judged {
        let Donation {
            vm,
            gfn,
            pfn,
            count,
            order,
            word,
        } = donation.aligned();
        // Some hosts call once and leave it at that.
        let stops = gfn % 3 == 0;
        let size = 1 << order;
        for folio in 0..count {
            for tail in 0..size {
                let word = if tail == 0 {
                    pin_word::donatable(order)
                } else {
                    0
                };
                self.pin(pfn + folio * size + tail, word);
            }
        }
        if let Some(word) = word {
            self.pin(pfn + count * size / 2, word);
        }
        let vm = self.vm(vm);
        if stops {
            self.both.donate(vm, gfn, pfn, count, u64::from(order))?;
        } else {
            self.both.donate_all(vm, gfn, pfn, count, order)?;
        }
        self.both.guests_write();
        Ok(())
    }

    /// Shares folios with a VM, which had better be an ordinary one.
    fn share(&mut self, folios: Donation, access: u64) -> Judged {
        let Donation {
            vm,
            gfn,
            pfn,
            count,
            order,
            ..
        } = folios.aligned();
        let folios = (gfn, pfn, count, u64::from(order));
        self.both
            .share_with_guest(self.vm(vm), folios, access)
            .map(|_| ())
    }

    fn run(&mut self, vm: usize, vcpu: u64, answer: u64, deeds: &[Deed]) -> Judged {
        let vm = self.vm(vm);
        self.both.run(vm, vcpu, answer)?;
        for deed in deeds {
            let (x, event) = self.event(vm, deed);
            self.both.guest(vm, vcpu, x, event)?;
        }
        Ok(())
    }

    /// A call of the table.
    fn typed(&mut self, call: usize, arguments: &[Argument]) -> Judged {
        let info = &HostCall::TABLE[call];
        let mut words = [FUNCTION_BASE + info.number; 8];
        for ((word, field), argument) in words[1..].iter_mut().zip(info.arguments).zip(arguments) {
            *word = argument.of(field.unit, self.vm(argument.vm).0);
        }
        self.both.words(words).map(|_| ())
    }

    /// What a guest's deed is, and X0 to X3.
    fn event(&mut self, vm: claim::Handle, deed: &Deed) -> ([u64; 4], GuestEvent) {
        match *deed {
            Deed::Share(nth) => {
                let (gfn, _) = self.nth_frame(vm, nth, false);
                ([SHARE, gfn << 12, 0, 0], GuestEvent::Call)
            }
            Deed::Relinquish(nth) => {
                let (gfn, _) = self.nth_frame(vm, nth, false);
                ([RELINQUISH, gfn << 12, 0, 0], GuestEvent::Call)
            }
            Deed::Unshare { nth, pinned } => {
                let (gfn, pfn) = self.nth_frame(vm, nth, true);
                if let Some(pinned) = pinned {
                    self.pin(pfn, if pinned { pin_word::donatable(0) } else { 1 });
                }
                ([UNSHARE, gfn << 12, 0, 0], GuestEvent::Call)
            }
            Deed::Call(x) => (x, GuestEvent::Call),
            Deed::Access {
                ipa,
                width,
                write,
                register,
            } => (
                [1, 2, 3, u64::MAX],
                GuestEvent::Access {
                    ipa,
                    width,
                    write,
                    register,
                },
            ),
            Deed::Fetch(ipa) => ([0; 4], GuestEvent::Fetch { ipa }),
            Deed::Interrupt => ([5; 4], GuestEvent::Interrupt),
            Deed::Impossible => ([0; 4], GuestEvent::Impossible { class: 0x0E << 26 }),
        }
    }

    /// The nth of the frames that a VM has, or has shared: where, and which.
    fn nth_frame(&self, vm: claim::Handle, nth: usize, shared: bool) -> (u64, u64) {
        let frames = self.both.spec.frames_of(vm.0, shared);
        let nth = nth
            .checked_rem(frames.len())
            .and_then(|nth| frames.get(nth));
        nth.copied().unwrap_or((GUEST, FIRST))
    }

    fn life(&mut self, vm: usize, call: &Life) -> Judged {
        let (vm, both) = (self.vm(vm), &mut self.both);
        match *call {
            Life::Start => both.start(vm)?,
            Life::Begin => both.begin(vm)?,
            Life::Reclaim { gfn, count } => both.reclaim(vm, gfn, count)?,
            Life::Unshare { gfn, count } => both.unshare_from_guest(vm, gfn, count)?,
            Life::Protect { gfn, count, access } => both.protect_guest(vm, gfn, count, access)?,
            Life::Finish => both.finish(vm)?,
            Life::Region { gfn, count } => both.region(vm, gfn, count)?,
            Life::Vcpu { vcpu, flags } => both.vcpu(vm, vcpu, flags)?,
            Life::Set { vcpu, register } => both.set(vm, vcpu, register, 0x77)?,
            Life::Line { intid } => both.line(vm, intid, 1)?,
            Life::TearDown => return both.tear_down(vm),
        };
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Judged {
        match *step {
            Step::Create {
                protected,
                vcpus,
                starts,
            } => self.create(protected, vcpus, starts),
            Step::Donate(donation) => self.donate(donation),
            Step::Share { folios, access } => self.share(folios, access),
            Step::Pin { pfn, word } => {
                self.pin(pfn, word);
                Ok(())
            }
            Step::Write { pfn } => {
                if self.both.spec.host_may_write(pfn) {
                    self.both.host_writes(pfn, pfn << 8 | 1);
                }
                Ok(())
            }
            Step::Run {
                vm,
                vcpu,
                answer,
                ref deeds,
            } => self.run(vm, vcpu, answer, deeds),
            Step::Touch { pfn, by } => self.both.touch(pfn, by),
            Step::Life { vm, ref call } => self.life(vm, call),
            Step::Typed {
                call,
                ref arguments,
            } => self.typed(call, arguments),
            Step::Words(words) => self.both.words(words).map(|_| ()),
            Step::PoolDonate { pfn, count } => self.both.pool_donate(pfn, count).map(|_| ()),
            Step::PoolReclaim => self.both.call(HostCall::PoolReclaim {}).map(|_| ()),
            Step::Pins {
                table,
                first,
                count,
            } => self.both.register(table, first, count).map(|_| ()),
        }
    }

    /// Stops everybody, tears every VM down, and empties the pool of what the host gave.
    fn end(&mut self) -> Judged {
        for (vm, vcpu) in self.both.loaded.keys().copied().collect::<Vec<_>>() {
            self.both
                .guest(claim::Handle(vm), vcpu, [0; 4], GuestEvent::Interrupt)?;
        }
        for vm in self.vms.clone() {
            self.both.tear_down(vm)?;
        }
        while self.both.call(HostCall::PoolReclaim {})?[1] == 0 {}
        Ok(())
    }
}

fn run(steps: &[Step]) -> Judged<Lockstep> {
    let mut run = Run {
        both: Lockstep::with_pins()?,
        vms: Vec::new(),
    };
    run.create(true, 2, true)?;
    run.create(false, 1, true)?;
    for step in steps {
        run.step(step)?;
    }
    run.end()?;
    Ok(run.both)
}

/// The seed: the same every day, unless somebody wants another.
fn seed() -> [u8; 32] {
    let wanted = std::env::var("PINFOLD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&wanted.unwrap_or(1_u64).to_le_bytes());
    seed
}

/// What random runs came to.
pub(crate) struct Outcome {
    /// The smallest run that fails, if one fails, and why.
    pub(crate) failure: Option<(usize, String)>,
    /// Steps judged.
    pub(crate) steps: u64,
    /// What was exercised.
    pub(crate) exercised: Exercised,
}

/// Runs that failed once, by their seeds; they are tried first.
const FAILURES: &str = "tests/agree/failures.txt";

/// Makes `cases` random runs; remembers one that fails if `remembers`.
pub(crate) fn runs(cases: u32, remembers: bool) -> Outcome {
    let persistence = FileFailurePersistence::Direct(FAILURES);
    let config = ProptestConfig {
        cases,
        max_shrink_iters: 4000,
        failure_persistence: remembers.then_some(Box::new(persistence)),
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed());
    let steps = prop::collection::vec(step(), 1..80);
    let (judged, exercised) = (Cell::new(0), RefCell::new(Exercised::default()));
    let result = TestRunner::new_with_rng(config, rng).run(&steps, |steps| {
        let both =
            run(&steps).map_err(|violation| TestCaseError::fail(format!("{violation:?}")))?;
        judged.set(judged.get() + both.spec.steps());
        exercised.borrow_mut().add(both.spec.exercised());
        Ok(())
    });
    let failure = match result {
        Ok(()) => None,
        Err(TestError::Fail(_, smallest)) => Some((smallest.len(), format!("{smallest:#?}"))),
        Err(TestError::Abort(why)) => Some((0, why.to_string())),
    };
    Outcome {
        failure,
        steps: judged.get(),
        exercised: exercised.into_inner(),
    }
}

/// How many runs somebody wants, or as many as are usual.
pub(crate) fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(96)
}
