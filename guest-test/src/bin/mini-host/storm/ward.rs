//! A [`Ward`]: a VM that comes and goes in the storm, of which the mini host knows what it has, so that every answer about it can be
//! foretold.
//!
//! Invariant: `gifts` are what the guest has, at least its words at multiples of their strides; `coming` is what EL2 has begun to take for it, and nobody has.

use alloc::vec::Vec;

use guest_test::bytes::{self, FRAME};
use guest_test::lock::Yield;
use guest_test::random::Random;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, memory_probe, mmu};
use pinfold_abi::limit::MAX_ORDER;
use pinfold_abi::{GuestFunction, State, pin_word};
use spin::relax::RelaxStrategy;

use crate::calls::{self, Status};
use crate::folio::{Folio, pattern};
use crate::micro::came_back;
use crate::vm::{RAM_GFN, SCRATCH_GFN, Vm};
use crate::{frames, pool};

/// Guest frames for small folios, besides its puppet's.
const GFNS: u64 = 48;
/// Folios after which it is full.
const MOST: usize = 12;
/// One gift of so many is a large one: the oracle compares each of its frames at each step.
const LARGE_ONES: u64 = 128;
/// Orders of large ones, the costly ones seldom: frames that arrive in steps; frames that more than one call wipes; a block.
const LARGE_ORDERS: [u8; 8] = [5, 5, 5, 5, 5, 5, 8, MAX_ORDER];
/// The order from which on one call does not take everything back.
const PARTED: u8 = 8;
/// Where large folios go: the frames of one block.
const LARGE: u64 = SCRATCH_GFN + (1 << MAX_ORDER);
/// How often the pool is fed for one call of a guest.
const MEALS: u64 = 4;

const MEM_SHARE: u64 = GuestFunction::MemShare.number();
const MEM_UNSHARE: u64 = GuestFunction::MemUnshare.number();
/// `INVALID_PARAMETER` of KVM's calls.
const INVALID: u64 = u64::MAX - 2;

/// A folio that was given.
#[derive(Clone, Copy, Debug)]
struct Gift {
    gfn: u64,
    order: u8,
    /// The seed of its pattern.
    seed: u64,
    /// The pattern stands at multiples of so many bytes.
    stride: u64,
}

impl Gift {
    /// A gift of some size, at some place.
    fn any(random: &mut Random) -> Self {
        let is_large = random.below(LARGE_ONES) == 0;
        let (first, gfns, order, stride) = if is_large {
            let place = bytes::size(random.below(bytes::word(LARGE_ORDERS.len())));
            let order = LARGE_ORDERS.get(place).copied().unwrap_or(MAX_ORDER);
            (LARGE, 1 << MAX_ORDER, order, FRAME)
        } else {
            let order = u8::try_from(random.below(3)).unwrap_or(0);
            (SCRATCH_GFN, GFNS, order, 8)
        };
        Self {
            gfn: first + (random.below(gfns) >> order << order),
            order,
            seed: random.word(),
            stride,
        }
    }

    const fn frames(self) -> u64 {
        1 << self.order
    }

    /// A word of it that is known: where the guest has it, and what it is.
    fn word(self, random: &mut Random) -> (u64, u64) {
        let offset = random.below(self.frames() * FRAME / self.stride) * self.stride;
        (self.gfn * FRAME + offset, pattern(self.seed, offset))
    }

    /// The first word of one of its frames: where the guest has it, and what it is.
    fn frame(self, random: &mut Random) -> (u64, u64) {
        let offset = random.below(self.frames()) * FRAME;
        (self.gfn * FRAME + offset, pattern(self.seed, offset))
    }
}

/// A VM, or none for now.
#[derive(Debug, Default)]
pub(crate) struct Ward {
    vm: Option<Vm>,
    gifts: Vec<Gift>,
    coming: Option<Gift>,
}

impl Ward {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self {
            vm: None,
            gifts: Vec::new(),
            coming: None,
        }
    }

    /// Something that makes sense; whatever comes of it is known before.
    pub(crate) fn step(&mut self, random: &mut Random, theirs: u64) -> Outcome {
        let Some(vm) = &mut self.vm else {
            self.vm = Some(Vm::puppet()?);
            return Ok(());
        };
        let place = bytes::size(random.below(bytes::word(self.gifts.len())));
        let gift = self.gifts.get(place).copied();
        match (random.below(28), gift) {
            (8..=10, Some(gift)) => {
                let (ipa, word) = gift.word(random);
                check_eq!(vm.reads(ipa)?, word, "what a ward reads");
                Ok(())
            }
            (11 | 12, Some(gift)) => lend(vm, gift, random),
            (13 | 14, Some(gift)) => {
                replace(vm, gift, random)?;
                if let Some(gift) = self.gifts.get_mut(place) {
                    gift.stride = FRAME;
                }
                Ok(())
            }
            (15, _) => refused_pin(vm, random),
            (16, Some(gift)) => is_refused(vm, vm.pfn(gift.gfn)?, "giving what a ward has"),
            (17, _) => is_refused(vm, theirs, "giving what others have"),
            (18 | 19, Some(gift)) => is_known(vm, gift, random),
            (20, Some(gift)) => is_hidden(vm, gift, random),
            (21 | 22, _) => trespass(vm.handle(), random),
            (23 | 24, _) if self.coming.is_some() => self.go_on(random),
            (25, _) => self.end(random),
            (0..=7, _) | (_, None) if self.gifts.len() < MOST => self.give(random),
            _ => vm.reads(RAM_GFN * FRAME).map(|_| ()),
        }
    }

    /// Gives it a folio, where it has one already or not; of a large one perhaps not all for now.
    fn give(&mut self, random: &mut Random) -> Outcome {
        let Some(vm) = &mut self.vm else {
            return Ok(());
        };
        let gift = Gift::any(random);
        if gift.order >= PARTED && self.coming.is_some() {
            return self.go_on(random);
        }
        let (gfn, order) = (gift.gfn, gift.order);
        let is_vacant = (gfn..gfn + gift.frames()).all(|gfn| vm.folio(gfn).is_err());
        let folio = Folio::take_pinned(order)?;
        if !is_vacant {
            let reply = calls::mem_donate(vm.handle(), gfn, folio.pfn(), 1, u64::from(order));
            return reply
                .refused(Status::Exists, "giving where there is something")
                .map(|_| ());
        }
        folio.fill_each(gift.stride, gift.seed)?;
        let mut all = vm.begin_donation(gfn, folio)?;
        let waits = self.coming.is_none() && random.below(2) == 0;
        while !all && !waits {
            Yield::relax();
            all = vm.go_on_donating(gfn)?;
        }
        if all {
            self.gifts.push(gift);
        } else {
            self.coming = Some(gift);
        }
        Ok(())
    }

    /// What is on its way is nobody's; then the next part of it comes.
    fn go_on(&mut self, random: &mut Random) -> Outcome {
        let (Some(vm), Some(gift)) = (&self.vm, self.coming) else {
            return Ok(());
        };
        is_hidden(vm, gift, random)?;
        let (ipa, _) = gift.frame(random);
        let pfn = vm.pfn(ipa / FRAME)?;
        is_in(pfn, State::Arriving)?;
        is_refused(vm, pfn, "giving what is on its way")?;
        if vm.go_on_donating(gift.gfn)? {
            self.gifts.push(gift);
            self.coming = None;
        }
        Ok(())
    }

    /// Takes everything back, which is wiped then.
    pub(crate) fn end(&mut self, random: &mut Random) -> Outcome {
        let mut gifts = core::mem::take(&mut self.gifts);
        gifts.extend(self.coming.take());
        let Some(mut vm) = self.vm.take() else {
            return Ok(());
        };
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        for gift in gifts.into_iter().filter(|gift| gift.order >= PARTED) {
            let reply = calls::mem_reclaim(vm.handle(), gift.gfn, gift.frames());
            check!(reply.is(Status::Again), "taking 1 MiB at once: {reply:x?}");
            is_hidden(&vm, gift, random)?;
            let last = vm.pfn(gift.gfn + gift.frames() - 1)?;
            let [_, state, ..] = calls::folio_query(last).done("FOLIO_QUERY")?;
            check!(state != State::Host.number(), "{last:#x} is back too soon");
            Yield::relax();
        }
        for (_, folio) in vm.reclaim_all()? {
            for frame in 0..folio.frames() {
                let word = folio.read(frame * FRAME);
                check!(word == Ok(0), "a ward left {word:x?} in {:#x}", folio.pfn());
            }
        }
        vm.end_after_teardown()
    }
}

/// Lets a guest ask until the pool has tables for it, should its folio be a block.
fn fed<T>(mut ask: impl FnMut() -> Result<(u64, T), Failure>) -> Result<(u64, T), Failure> {
    for _ in 0..MEALS {
        let answer = ask()?;
        if answer.0 == 0 {
            return Ok(answer);
        }
        pool::feed()?;
    }
    ask()
}

/// The guest shares a frame of a gift, the host looks, and the guest takes it back.
fn lend(vm: &mut Vm, gift: Gift, random: &mut Random) -> Outcome {
    let (ipa, word) = gift.frame(random);
    let (x0, ()) = fed(|| Ok((vm.calls(MEM_SHARE, ipa)?, ())))?;
    check_eq!(x0, 0, "a ward's share");
    let found = memory_probe::read(vm.pfn(ipa / FRAME)? * FRAME);
    check!(
        found == Ok(word),
        "the host reads {found:x?} of what a ward shares"
    );
    if random.below(4) == 0 {
        let found = vm.relinquishes(ipa)?;
        check_eq!(found, (INVALID, None), "giving back what is shared");
    }
    check_eq!(vm.calls(MEM_UNSHARE, ipa)?, 0, "a ward's unshare");
    Ok(())
}

/// The guest gives a frame of a gift back, which is wiped then; it finds it gone, and gets another one when it writes there what stood there.
fn replace(vm: &mut Vm, gift: Gift, random: &mut Random) -> Outcome {
    let (ipa, word) = gift.frame(random);
    let gfn = ipa / FRAME;
    let back = fed(|| vm.relinquishes(ipa))?;
    check_eq!(back, (0, Some(came_back(gfn))), "giving a frame back");
    let folio = vm.forget(gfn)?;
    is_in(folio.pfn(), State::Host)?;
    check_eq!(folio.read(0), Ok(0), "what a ward gave back");
    let gone = vm.relinquishes(ipa)?;
    check_eq!(gone, (0, None), "giving back what is gone");
    vm.writes(ipa, word)?;
    check!(vm.pfn(gfn)? != folio.pfn(), "a frame that is gone is there");
    check_eq!(vm.reads(ipa)?, word, "what a ward reads of another frame");
    Ok(())
}

/// The frame is in this state.
fn is_in(pfn: u64, wanted: State) -> Outcome {
    let [_, state, ..] = calls::folio_query(pfn).done("FOLIO_QUERY")?;
    check_eq!(state, wanted.number(), "the state of {pfn:#x}");
    Ok(())
}

/// EL2 says of a frame of a gift whose it is, and where.
fn is_known(vm: &Vm, gift: Gift, random: &mut Random) -> Outcome {
    let (ipa, _) = gift.frame(random);
    let gfn = ipa / FRAME;
    let [_, state, _, owner, place, _] = calls::folio_query(vm.pfn(gfn)?).done("FOLIO_QUERY")?;
    check_eq!(
        (state, owner, place),
        (State::Guest.number(), vm.handle(), gfn),
        "a ward's frame"
    );
    Ok(())
}

/// The host does not read what stands in a gift.
fn is_hidden(vm: &Vm, gift: Gift, random: &mut Random) -> Outcome {
    let (ipa, word) = gift.frame(random);
    let address = vm.pfn(ipa / FRAME)? * FRAME;
    // A process gets an abort, or the decoy that the kernel found a moment ago.
    for address in [address | mmu::HIGH, address] {
        let read = memory_probe::read(address);
        check!(read != Ok(word), "the host reads a ward's word");
    }
    Ok(())
}

/// A frame that is not the host's is not given.
fn is_refused(vm: &Vm, pfn: u64, what: &str) -> Outcome {
    let reply = calls::mem_donate(vm.handle(), SCRATCH_GFN + GFNS, pfn, 1, 0);
    reply.refused(Status::NotPermitted, what).map(|_| ())
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
