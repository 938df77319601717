//! A [`Tenant`]: an ordinary VM that comes and goes in the storm and uses frames of the host.
//!
//! All tenants use the frames of one [`LOT`], in several places and with different rights, so that CPUs count in the same folio words. In
//! each frame a tenant has a word of its own, which nobody writes but it, and the host for it: so what it finds can be foretold.

use alloc::vec::Vec;

use guest_test::bytes::{self, FRAME};
use guest_test::lock::SpinMutex;
use guest_test::random::Random;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq};
use pinfold_abi::limit::MAX_ORDER;
use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, GuestFunction, State};

use crate::calls::{self, ExitReason, Status};
use crate::folio::Folio;
use crate::micro::Command;
use crate::pool;
use crate::vm::{DENIED, EVERYTHING, Event, Exit, SCRATCH_GFN, Vm, in_steps, unshare};

/// Frames of the lot.
const FRAMES: usize = 1 << ORDER;
const ORDER: u8 = 4;
/// Guest frames that a tenant may have, besides its puppet's.
const GFNS: u64 = 40;
/// Shares after which it is full.
const MOST: usize = 24;
/// Where a block goes.
const BLOCK: u64 = SCRATCH_GFN + (1 << MAX_ORDER);
/// What a guest may do with its share.
const ACCESSES: [u64; 4] = [
    ACCESS_READ,
    ACCESS_READ | ACCESS_WRITE,
    ACCESS_READ | ACCESS_EXECUTE,
    EVERYTHING,
];
const MEM_SHARE: u64 = GuestFunction::MemShare.number();
/// SMCCC's `NOT_SUPPORTED`, as KVM's calls return it.
const NOT_SUPPORTED: u64 = u64::MAX;

/// The frames that all tenants use.
static LOT: SpinMutex<Option<Folio>> = SpinMutex::new(None);

/// Takes the lot, which is empty.
pub(crate) fn open() -> Outcome {
    let folio = Folio::take(ORDER)?;
    for offset in (0..folio.frames() * FRAME).step_by(8) {
        check!(folio.write(offset, 0).is_ok(), "clearing the lot");
    }
    *LOT.lock() = Some(folio);
    Ok(())
}

/// Gives the lot back, when there are no tenants.
pub(crate) fn close() {
    drop(LOT.lock().take());
}

/// Does something with the lot.
fn in_lot<T>(what: impl FnOnce(&Folio) -> T) -> Result<T, Failure> {
    let lot = LOT.lock();
    let lot = lot.as_ref().map(what);
    lot.ok_or_else(|| Failure::new(format_args!("there is no lot")))
}

/// A frame of the lot that the guest has.
#[derive(Clone, Copy, Debug)]
struct Share {
    gfn: u64,
    frame: u64,
    access: u64,
}

/// A VM, or none for now.
#[derive(Debug)]
pub(crate) struct Tenant {
    /// Where in each frame its word stands.
    offset: u64,
    vm: Option<Vm>,
    shares: Vec<Share>,
    words: [u64; FRAMES],
}

impl Tenant {
    /// None yet; no other one has the same number.
    pub(crate) const fn new(number: u64) -> Self {
        Self {
            offset: number * 8,
            vm: None,
            shares: Vec::new(),
            words: [0; FRAMES],
        }
    }

    /// Something that makes sense; whatever comes of it is known before.
    pub(crate) fn step(&mut self, random: &mut Random, theirs: u64) -> Outcome {
        let Some(vm) = &mut self.vm else {
            self.vm = Some(Vm::puppet_as(0)?);
            return Ok(());
        };
        let place = bytes::size(random.below(bytes::word(self.shares.len())));
        let share = self.shares.get(place).copied();
        match (random.below(24), share) {
            (6..=8, Some(share)) => {
                let word = vm.reads(share.gfn * FRAME + self.offset)?;
                check_eq!(word, self.word(share.frame), "what a tenant reads");
                Ok(())
            }
            (9..=11, Some(share)) => self.writes(place, share, random.word()),
            (12 | 13, Some(share)) => {
                let word = random.word();
                let offset = share.frame * FRAME + self.offset;
                let written = in_lot(|lot| lot.write(offset, word))?;
                check!(written.is_ok(), "the host cannot write what it shares");
                self.keep(share.frame, word);
                Ok(())
            }
            (14 | 15, _) => self.protect(random),
            (16, _) => self.unshare(random),
            (17, Some(share)) => self.is_counted(share),
            (18 | 19, _) => misuse(vm, random, theirs),
            (20, _) if random.below(8) == 0 => use_block(vm, random.word()),
            (21, _) => self.end(),
            (0..=5, _) | (_, None) if self.shares.len() < MOST => self.share(random),
            _ => vm.reads(crate::vm::RAM_GFN * FRAME).map(|_| ()),
        }
    }

    fn word(&self, frame: u64) -> u64 {
        let word = self.words.get(bytes::size(frame));
        word.copied().unwrap_or_default()
    }

    fn keep(&mut self, frame: u64, word: u64) {
        if let Some(place) = self.words.get_mut(bytes::size(frame)) {
            *place = word;
        }
    }

    fn handle(&self) -> u64 {
        self.vm.as_ref().map_or(0, Vm::handle)
    }

    /// Shares one or four frames, where there is something already or not.
    fn share(&mut self, random: &mut Random) -> Outcome {
        let order = random.below(2) * 2;
        let frame = random.below(bytes::word(FRAMES)) >> order << order;
        let gfn = SCRATCH_GFN + (random.below(GFNS) >> order << order);
        let access = any_access(random);
        let pfn = in_lot(Folio::pfn)? + frame;
        let handle = self.handle();
        let reply = pool::fed(|| calls::mem_share_guest(handle, gfn, pfn, 1, order, access))?;
        let place = gfn..gfn + (1 << order);
        if self.shares.iter().any(|share| place.contains(&share.gfn)) {
            return reply
                .refused(Status::Exists, "sharing where there is something")
                .map(|_| ());
        }
        reply.done("MEM_SHARE_GUEST")?;
        self.shares.extend(
            place
                .zip(frame..)
                .map(|(gfn, frame)| Share { gfn, frame, access }),
        );
        Ok(())
    }

    /// The guest writes its word, once it may.
    fn writes(&mut self, place: usize, share: Share, word: u64) -> Outcome {
        let kept = self.word(share.frame);
        let Some(vm) = &mut self.vm else {
            return Ok(());
        };
        let ipa = share.gfn * FRAME + self.offset;
        let mut event = vm.begins(Command::Write { ipa, word })?;
        if share.access & ACCESS_WRITE == 0 {
            let exit = Exit {
                reason: ExitReason::MemoryFault,
                details: [share.gfn, DENIED | 1, 0],
            };
            check_eq!(event, Event::Exit(exit), "a store that is denied");
            let found = in_lot(|lot| lot.read(share.frame * FRAME + self.offset))?;
            check_eq!(found, Ok(kept), "what stands there then");
            let access = ACCESS_READ | ACCESS_WRITE;
            calls::mem_protect_guest(vm.handle(), share.gfn, 1, access)
                .done("MEM_PROTECT_GUEST")?;
            event = vm.next(0, 0)?;
            if let Some(share) = self.shares.get_mut(place) {
                share.access = access;
            }
        }
        check_eq!(event, Event::Told(0), "a store of a tenant");
        self.keep(share.frame, word);
        self.is_kept(share.frame)
    }

    /// The host finds in a frame what the tenant's word is.
    fn is_kept(&self, frame: u64) -> Outcome {
        let found = in_lot(|lot| lot.read(frame * FRAME + self.offset))?;
        check_eq!(
            found,
            Ok(self.word(frame)),
            "a tenant's word in frame {frame}"
        );
        Ok(())
    }

    /// Changes what the guest may do, in some range.
    fn protect(&mut self, random: &mut Random) -> Outcome {
        let (first, count) = any_range(random);
        let (handle, access) = (self.handle(), any_access(random));
        in_steps(count, |done| {
            calls::mem_protect_guest(handle, first + done, count - done, access)
        })?;
        let range = first..first + count;
        let changed = self.shares.iter_mut();
        changed
            .filter(|share| range.contains(&share.gfn))
            .for_each(|share| share.access = access);
        Ok(())
    }

    /// Ends the sharing of some range.
    fn unshare(&mut self, random: &mut Random) -> Outcome {
        let (first, count) = any_range(random);
        unshare(self.handle(), first, count)?;
        let range = first..first + count;
        self.shares.retain(|share| !range.contains(&share.gfn));
        Ok(())
    }

    /// EL2 counts at least the places in which this tenant has the frame.
    fn is_counted(&self, share: Share) -> Outcome {
        let pfn = in_lot(Folio::pfn)? + share.frame;
        let [word, state, ..] = calls::folio_query(pfn).done("FOLIO_QUERY")?;
        check_eq!(state, State::HostSharedGuest.number(), "a tenant's frame");
        let own = self.shares.iter();
        let own = own.filter(|other| other.frame == share.frame).count();
        let count = word >> 8 & 0xffff;
        check!(
            count >= bytes::word(own),
            "EL2 counts {count} shares, a tenant {own}"
        );
        Ok(())
    }

    /// Ends it; the host keeps everything.
    pub(crate) fn end(&mut self) -> Outcome {
        let Some(mut vm) = self.vm.take() else {
            return Ok(());
        };
        let left = bytes::word(self.shares.len()) + 1;
        self.shares.clear();
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let found = calls::vm_teardown_finish(vm.handle())
            .refused(Status::Busy, "the end of a tenant that has frames")?;
        check_eq!(found.index, left, "frames left");
        unshare(vm.handle(), SCRATCH_GFN, GFNS)?;
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
        (0..bytes::word(FRAMES)).try_for_each(|frame| self.is_kept(frame))
    }
}

fn any_access(random: &mut Random) -> u64 {
    let place = bytes::size(random.below(bytes::word(ACCESSES.len())));
    ACCESSES.get(place).copied().unwrap_or(ACCESS_READ)
}

/// A range of guest frames, with or without shares.
fn any_range(random: &mut Random) -> (u64, u64) {
    let first = random.below(GFNS);
    (SCRATCH_GFN + first, 1 + random.below(GFNS - first))
}

/// What is not done with an ordinary VM.
fn misuse(vm: &mut Vm, random: &mut Random, theirs: u64) -> Outcome {
    let (handle, gfn) = (vm.handle(), SCRATCH_GFN + GFNS);
    let pfn = in_lot(Folio::pfn)? + random.below(bytes::word(FRAMES));
    let (reply, status) = match random.below(4) {
        0 => (calls::mem_donate(handle, gfn, pfn, 1, 0), Status::WrongKind),
        1 => (
            calls::mem_share_guest(handle, gfn, theirs, 1, 0, 1),
            Status::NotPermitted,
        ),
        2 => (
            calls::mem_share_guest(handle, gfn, pfn, 1, 0, ACCESS_WRITE),
            Status::Invalid,
        ),
        _ => {
            let x0 = vm.calls(MEM_SHARE, SCRATCH_GFN * FRAME)?;
            check_eq!(x0, NOT_SUPPORTED, "a share by a tenant");
            return Ok(());
        }
    };
    reply
        .refused(status, "what is not done with a tenant")
        .map(|_| ())
}

/// A block is shared and taken back whole.
fn use_block(vm: &mut Vm, word: u64) -> Outcome {
    let folio = Folio::take(MAX_ORDER)?;
    let last = (folio.frames() - 1) * FRAME;
    check!(folio.write(last, word).is_ok(), "preparing a block");
    let (handle, pfn, order) = (vm.handle(), folio.pfn(), u64::from(MAX_ORDER));
    pool::fed(|| calls::mem_share_guest(handle, BLOCK, pfn, 1, order, ACCESS_READ))?
        .done("MEM_SHARE_GUEST of a block")?;
    check_eq!(vm.reads(BLOCK * FRAME + last)?, word, "the end of a block");
    calls::mem_unshare_guest(handle, BLOCK + 1, 1).refused(Status::Granule, "a part of a block")?;
    unshare(handle, BLOCK, folio.frames())?;
    check_eq!(folio.read(last), Ok(word), "the end of a block afterwards");
    Ok(())
}
