//! A [`Ward`]: a VM that comes and goes in the storm, of which the mini host knows what it has, so that every answer about it can be
//! foretold.

use alloc::vec::Vec;

use guest_test::bytes::FRAME;
use guest_test::random::Random;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, memory_probe};
use pinfold_abi::{State, pin_word};

use crate::calls::{self, Status};
use crate::folio::{Folio, pattern};
use crate::frames;
use crate::vm::{SCRATCH_GFN, Vm};

/// Guest frames that a ward may have, besides its puppet's.
const GFNS: u64 = 48;
/// Folios after which it is full.
const MOST: usize = 12;

const MEM_SHARE: u64 = 0xc600_0003;
const MEM_UNSHARE: u64 = 0xc600_0004;

/// A folio that was given: guest frame, order, and the seed of its pattern.
type Gift = (u64, u8, u64);

/// A VM, or none for now.
#[derive(Debug, Default)]
pub(crate) struct Ward {
    vm: Option<Vm>,
    gifts: Vec<Gift>,
}

impl Ward {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            vm: None,
            gifts: Vec::new(),
        }
    }

    /// Something that makes sense; whatever comes of it is known before.
    pub(crate) fn step(&mut self, random: &mut Random, theirs: u64) -> Outcome {
        let Some(vm) = &mut self.vm else {
            self.vm = Some(Vm::puppet()?);
            return Ok(());
        };
        let count = u64::try_from(self.gifts.len()).unwrap_or(0);
        let place = usize::try_from(random.below(count)).unwrap_or(0);
        let gift = self.gifts.get(place).copied();
        match (random.below(24), gift) {
            (0..=7, _) | (_, None) if self.gifts.len() < MOST => self.give(random),
            (8..=10, Some((gfn, _, seed))) => {
                let offset = random.below(512) * 8;
                let word = vm.reads(gfn * FRAME + offset)?;
                check_eq!(word, pattern(seed, offset), "what a ward reads");
                Ok(())
            }
            (11 | 12, Some(gift)) => lend(vm, gift),
            (13, _) => refused_pin(vm, random),
            (14, Some((gfn, ..))) => {
                let pfn = vm.pfn(gfn)?;
                let reply = calls::mem_donate(vm.handle(), SCRATCH_GFN + GFNS, pfn, 1, 0);
                reply
                    .refused(Status::NotPermitted, "giving what a ward has")
                    .map(|_| ())
            }
            (15, _) => {
                let reply = calls::mem_donate(vm.handle(), SCRATCH_GFN + GFNS, theirs, 1, 0);
                reply
                    .refused(Status::NotPermitted, "giving what others have")
                    .map(|_| ())
            }
            (16 | 17, Some((gfn, ..))) => {
                let pfn = vm.pfn(gfn)?;
                let [_, state, _, owner, ..] = calls::folio_query(pfn).done("FOLIO_QUERY")?;
                check_eq!(
                    (state, owner),
                    (State::Guest.number(), vm.handle()),
                    "a ward's frame"
                );
                Ok(())
            }
            (18, Some((gfn, _, seed))) => {
                let folio = vm.folio(gfn)?;
                // A process gets an abort, or the decoy that the kernel found a moment ago.
                for address in [folio.kernel_address(), folio.address()] {
                    let read = memory_probe::read(address);
                    check!(read != Ok(pattern(seed, 0)), "the host reads a ward's word");
                }
                Ok(())
            }
            (19 | 20, _) => trespass(vm.handle(), random),
            (21, _) | (_, None) => self.end(),
            _ => {
                vm.reads(crate::vm::RAM_GFN * FRAME)?;
                Ok(())
            }
        }
    }

    /// Gives it a folio, where it has one already or not.
    fn give(&mut self, random: &mut Random) -> Outcome {
        let Some(vm) = &mut self.vm else {
            return Ok(());
        };
        let order = u8::try_from(random.below(3)).unwrap_or(0);
        let gfn = SCRATCH_GFN + (random.below(GFNS) >> order << order);
        let frames = gfn..gfn + (1 << order);
        let is_vacant = frames.clone().all(|gfn| vm.folio(gfn).is_err());
        let seed = random.word();
        if is_vacant {
            vm.give_filled(gfn, order, seed)?;
            self.gifts.push((gfn, order, seed));
            return Ok(());
        }
        let folio = Folio::take_pinned(order)?;
        let reply = calls::mem_donate(vm.handle(), gfn, folio.pfn(), 1, u64::from(order));
        reply
            .refused(Status::Exists, "giving where there is something")
            .map(|_| ())
    }

    /// Takes everything back, which is wiped then.
    pub(crate) fn end(&mut self) -> Outcome {
        self.gifts.clear();
        let Some(mut vm) = self.vm.take() else {
            return Ok(());
        };
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        for (_, folio) in vm.reclaim_all()? {
            for frame in 0..folio.frames() {
                let word = folio.read(frame * FRAME + 8);
                check!(word == Ok(0), "a ward left {word:x?} in {:#x}", folio.pfn());
            }
        }
        vm.end_after_teardown()
    }
}

/// The guest shares the first frame of a gift, the host looks, and the guest takes it back.
fn lend(vm: &mut Vm, gift: Gift) -> Outcome {
    let (gfn, _, seed) = gift;
    check_eq!(vm.calls(MEM_SHARE, gfn * FRAME)?, 0, "a ward's share");
    let pfn = vm.pfn(gfn)?;
    let word = memory_probe::read(pfn * FRAME);
    check!(
        word == Ok(pattern(seed, 0)),
        "the host reads {word:x?} of what a ward shares"
    );
    check_eq!(vm.calls(MEM_UNSHARE, gfn * FRAME)?, 0, "a ward's unshare");
    Ok(())
}

/// A frame whose pin word is wrong in some way.
fn refused_pin(vm: &Vm, random: &mut Random) -> Outcome {
    const WORDS: [u32; 6] = [
        0,
        1,
        2,
        pin_word::EXCLUSIVE | 1,
        pin_word::donatable(0) + 1,
        pin_word::donatable(1),
    ];
    frames::register()?;
    let folio = Folio::take(0)?;
    let place = usize::try_from(random.below(6)).unwrap_or(0);
    let word = WORDS.get(place).copied().unwrap_or(0);
    folio.set_pin(word);
    let reply = calls::mem_donate(vm.handle(), SCRATCH_GFN + GFNS, folio.pfn(), 1, 0);
    let found = reply.refused(Status::NotExclusivelyPinned, "giving what is not pinned so")?;
    check_eq!(found.pin, u64::from(word), "the pin word that was found");
    Ok(())
}

/// What nobody can do to a VM that lives.
fn trespass(handle: u64, random: &mut Random) -> Outcome {
    let reply = match random.below(6) {
        0 => calls::vm_start(handle),
        1 => calls::vm_memory_region(handle, random.below(1 << 20), 1 + random.below(512)),
        2 => calls::vm_gic(handle, random.below(64) << 16, random.below(64) << 17),
        3 => calls::vcpu_create(handle, random.below(2), 0),
        4 => calls::vm_teardown_finish(handle),
        _ => calls::mem_reclaim(handle, SCRATCH_GFN + random.below(64), 1 + random.below(64)),
    };
    let statuses = [Status::WrongPhase, Status::Invalid];
    reply.refused_as_one_of(&statuses, "what is not done to a VM that lives")
}

/// The failure that ends a storm, with the ward that it came from.
pub(crate) fn of_ward(number: u64, failure: &Failure) -> Failure {
    Failure::new(format_args!("ward {number}: {}", failure.reason()))
}
