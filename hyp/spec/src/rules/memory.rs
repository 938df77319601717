//! `MEM_DONATE` and `MEM_RECLAIM`: how a folio comes to a VM, and how it comes back.

use pinfold_abi::{Counter, Status, limit, pin_word};

use super::is_range;
use crate::clause::Clause;
use crate::ruling::{Done, Refuse, Ruling, done, refuse, require};
use crate::state::{FRAME_LIMIT, GFN_LIMIT, Held, Owner, State};
use crate::vm::Phase;

/// Frames that one donation moves; a larger folio takes several.
const MOVES_PER_CALL: u64 = 16;

/// Frames that a donation cleans which goes on with another one; to give the folio counts as frames, too.
const CLEANS_PER_CALL: u64 = 72;

/// Frames that one reclaim wipes; to take a folio and to give it back count as frames, too.
const WIPES_PER_CALL: u64 = 40;

/// Entries that count as one frame where all of a folio are written.
const ENTRIES_PER_FRAME: u64 = 8;

/// As many might be wiped while a folio moves.
const WIPES_PER_FOLIO: u64 = 6;

/// What writing the entries of a folio counts as.
const fn entries(order: u8) -> u64 {
    if order == limit::MAX_ORDER {
        0
    } else {
        (1 << order) / ENTRIES_PER_FRAME
    }
}

impl State {
    pub(crate) fn donate(
        &mut self,
        handle: u64,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u64,
    ) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeTeardown, &[Phase::Created, Phase::Live])?;
        vm.require_protected(true)?;
        let malformed = refuse(Clause::DonateMalformed, Status::Invalid);
        let order = u8::try_from(order)
            .ok()
            .filter(|order| *order <= limit::MAX_ORDER)
            .ok_or(malformed)?;
        let frames = count
            .checked_mul(1 << order)
            .filter(|frames| *frames <= limit::MAX_FRAMES)
            .ok_or(malformed)?;
        require(
            is_range(pfn, frames, FRAME_LIMIT) && is_range(gfn, frames, FRAME_LIMIT),
            malformed,
        )?;
        let is_aligned = (pfn | gfn) & ((1 << order) - 1) == 0;
        require(is_aligned, refuse(Clause::DonateUnaligned, Status::Granule))?;
        require(
            vm.is_ram(gfn, frames),
            refuse(Clause::DonateOutsideRam, Status::Invalid),
        )?;
        if self.is_begun((handle, gfn, order), pfn) {
            return Ok(self.go_on((pfn, order), count));
        }
        let total = frames;
        let frames = total.min((MOVES_PER_CALL >> order).max(1) << order);
        self.require_hosts(Clause::DonateNotHosts, pfn, frames)?;
        for folio in (0..frames).step_by(1 << order) {
            self.require_exclusive_pin(pfn, folio, order)?;
        }
        let vm = self.vm(handle)?;
        if let Some(index) = (0..frames).find(|index| vm.frames.contains_key(&(gfn + index))) {
            return Err(refuse(Clause::DonateOccupied, Status::Exists)
                .at(index, crate::state::Word::exactly(0)));
        }
        vm.frames
            .extend((0..frames).map(|index| (gfn + index, pfn + index)));
        self.take((handle, gfn, order), pfn, frames);
        self.count(Counter::FramesDonated, frames);
        if frames > MOVES_PER_CALL {
            return Ok(done(Clause::DonateBounded, &[0]).again());
        }
        self.cleaned += frames;
        self.forgotten += 1;
        if frames < total {
            return Ok(done(Clause::DonateBounded, &[frames >> order]).again());
        }
        Ok(done(Clause::DonateGives, &[count]))
    }

    /// Takes frames from the host for a place: VM, GFN and order. A large folio is on its way from then on.
    fn take(&mut self, place: (u64, u64, u8), pfn: u64, frames: u64) {
        let (vm, gfn, order) = place;
        for index in 0..frames {
            let gfn = gfn + index;
            let held = Held { vm, gfn, order };
            let owner = if frames > MOVES_PER_CALL {
                Owner::Arriving { held, cleaned: 0 }
            } else {
                Owner::Guest(held)
            };
            self.give(pfn + index, owner);
        }
    }

    /// Whether an earlier call has taken the folio at `pfn` for this place: VM, GFN and order.
    fn is_begun(&self, place: (u64, u64, u8), pfn: u64) -> bool {
        let (vm, gfn, order) = place;
        let there = Held { vm, gfn, order };
        matches!(self.owner(pfn), Some(Owner::Arriving { held, .. }) if held == there)
    }

    /// Cleans a part of a folio (head and order) that was taken by an earlier call, the first of `count`.
    fn go_on(&mut self, folio: (u64, u8), count: u64) -> Done {
        let (head, order) = folio;
        let frames = 1 << order;
        let mut part = 0;
        for pfn in head..head + frames {
            if let Some(Owner::Arriving { held, cleaned }) = self.owner(pfn) {
                let now = frames.min(cleaned + CLEANS_PER_CALL);
                part = now - cleaned;
                let owner = if frames - cleaned + entries(order) > CLEANS_PER_CALL {
                    Owner::Arriving { held, cleaned: now }
                } else {
                    Owner::Guest(held)
                };
                self.give(pfn, owner);
            }
        }
        self.cleaned += part;
        if matches!(self.owner(head), Some(Owner::Arriving { .. })) {
            return done(Clause::DonateGoesOn, &[0]).again();
        }
        self.forgotten += 1;
        if count > 1 {
            return done(Clause::DonateBounded, &[1]).again();
        }
        done(Clause::DonateGives, &[1])
    }

    /// Refuses unless the host's pin words say what G1 demands of the folio `index` frames after `first`.
    fn require_exclusive_pin(&self, first: u64, index: u64, order: u8) -> Result<(), Refuse> {
        let head = first + index;
        let unknown = refuse(Clause::DonateNoPinTable, Status::NoPinTable);
        require(
            self.pins_for(head, 1 << order).is_some(),
            unknown.at(index, self.word(head)),
        )?;
        for tail in 0..1 << order {
            let found = self.pin_word(head + tail).unwrap_or(0);
            let expected = if tail == 0 {
                pin_word::donatable(order)
            } else {
                0
            };
            let other = refuse(Clause::DonateNotPinned, Status::NotExclusivelyPinned);
            require(
                found == expected,
                other.at(index + tail, self.word(head)).pin(found),
            )?;
        }
        Ok(())
    }

    pub(crate) fn poison(&mut self, pfn: u64) -> Ruling {
        let malformed = refuse(Clause::PoisonMalformed, Status::Invalid);
        require(pfn < FRAME_LIMIT, malformed)?;
        self.require_hosts(Clause::PoisonNotHosts, pfn, 1)?;
        self.give(pfn, Owner::Poisoned);
        Ok(done(Clause::PoisonTakes, &[]))
    }

    pub(crate) fn reclaim(&mut self, handle: u64, first: u64, count: u64) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyAfterTeardownBegin, &[Phase::Dying])?;
        vm.require_protected(true)?;
        let malformed = refuse(Clause::ReclaimMalformed, Status::Invalid);
        require(
            is_range(first, count, GFN_LIMIT) && count <= limit::MAX_FRAMES,
            malformed,
        )?;
        let end = first + count;
        if let Some((pfn, held)) = self.held_at(handle, first) {
            let folio = Self::folio(first, held.order);
            let cut = refuse(Clause::ReclaimCuts, Status::Granule).at(0, self.word(pfn));
            require(folio.start == first && folio.end <= end, cut)?;
        }
        let mut left = WIPES_PER_CALL;
        let mut clause = Clause::ReclaimHoles;
        let mut gfn = first;
        while gfn < end {
            let Some((pfn, held)) = self.held_at(handle, gfn) else {
                gfn += 1;
                continue;
            };
            let so_far = [gfn - first];
            if Self::folio(gfn, held.order).end > end {
                return Ok(done(Clause::ReclaimLeavesCut, &so_far).again());
            }
            let Some(rest) = self.wipe_folio(pfn, held, left) else {
                return Ok(done(Clause::ReclaimBounded, &so_far).again());
            };
            self.give_back(handle, gfn, pfn, held.order);
            left = rest.saturating_sub(WIPES_PER_FOLIO);
            gfn += 1 << held.order;
            clause = Clause::ReclaimGives;
        }
        Ok(done(clause, &[count]))
    }

    /// The frame that a VM has at `gfn`.
    pub(crate) fn held_at(&self, handle: u64, gfn: u64) -> Option<(u64, Held)> {
        let pfn = *self.vms.get(&handle)?.frames.get(&gfn)?;
        Some((pfn, self.owner(pfn)?.held()?))
    }

    /// Takes the folio from everybody and wipes on, at most `left` frames; returns how many are left then, if that is enough
    /// to give the folio back.
    fn wipe_folio(&mut self, first: u64, held: Held, left: u64) -> Option<u64> {
        let (already, left) = if let Some(Owner::Wiping { wiped, .. }) = self.owner(first) {
            (wiped, left)
        } else {
            (0, left.saturating_sub(entries(held.order)))
        };
        if left == 0 {
            return None;
        }
        let frames = 1 << held.order;
        let wiped = frames.min(already + left);
        (already..wiped).for_each(|index| self.wipe(first + index));
        for index in 0..frames {
            let gfn = held.gfn + index;
            let held = Held { gfn, ..held };
            self.give(first + index, Owner::Wiping { held, wiped });
        }
        left.checked_sub(frames - already + entries(held.order))
    }

    /// Makes a wiped folio the host's.
    fn give_back(&mut self, handle: u64, gfn: u64, head: u64, order: u8) {
        for index in 0..1 << order {
            self.give_host(head + index);
            if let Some(vm) = self.vms.get_mut(&handle) {
                vm.frames.remove(&(gfn + index));
            }
        }
        self.count(Counter::FramesReclaimed, 1 << order);
    }
}
