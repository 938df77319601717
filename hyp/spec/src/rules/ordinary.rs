//! `MEM_SHARE_GUEST`, `MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST`: memory of ordinary VMs, which stays the host's.

use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Status, limit};

use super::is_range;
use crate::clause::Clause;
use crate::ruling::{Done, Refuse, Ruling, done, refuse, require};
use crate::shadow::BLOCK;
use crate::state::{FRAME_LIMIT, GFN_LIMIT, Owner, State, Word};
use crate::vm::{Grant, Phase};

/// Frames that one call shares, unless a single folio has more.
const SHARES_PER_CALL: u64 = 32;
/// Frames of which one call changes the share; a block counts as all of them.
const CHANGES_PER_CALL: u64 = 10;

/// Whether these bits say what may be done: to read at least.
const fn is_access(bits: u64) -> bool {
    bits & ACCESS_READ != 0 && bits & !(ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE) == 0
}

impl State {
    /// `folios`: GFN, PFN, count and order.
    pub(crate) fn share_with_guest(
        &mut self,
        handle: u64,
        folios: (u64, u64, u64, u64),
        access: u64,
    ) -> Ruling {
        let (gfn, pfn, count, order) = folios;
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeTeardown, &[Phase::Created, Phase::Live])?;
        vm.require_protected(false)?;
        let malformed = refuse(Clause::ShareGuestMalformed, Status::Invalid);
        require(
            order <= u64::from(limit::MAX_ORDER) && is_access(access),
            malformed,
        )?;
        let size = 1 << order;
        let total = count
            .checked_mul(size)
            .filter(|frames| *frames <= limit::MAX_FRAMES)
            .ok_or(malformed)?;
        let is_sound = is_range(pfn, total, FRAME_LIMIT) && is_range(gfn, total, FRAME_LIMIT);
        require(is_sound, malformed)?;
        let cut = refuse(Clause::ShareGuestMalformed, Status::Granule);
        require((pfn | gfn) & (size - 1) == 0, cut)?;
        let outside = refuse(Clause::ShareGuestOutsideRam, Status::Invalid);
        require(vm.is_ram(gfn, total), outside)?;
        let frames = total.min(SHARES_PER_CALL.max(size));
        for index in 0..frames {
            self.require_shareable(index, pfn + index)?;
        }
        let vm = self.vm(handle)?;
        if let Some(index) = (0..frames).find(|index| vm.frames.contains_key(&(gfn + index))) {
            let occupied = refuse(Clause::ShareGuestOccupied, Status::Exists);
            return Err(occupied.at(index, Word::exactly(0)));
        }
        let block = size == BLOCK;
        for index in 0..frames {
            vm.frames.insert(gfn + index, pfn + index);
            vm.grants.insert(gfn + index, Grant { access, block });
        }
        for frame in pfn..pfn + frames {
            let shares = self.shares(frame) + 1;
            self.give(frame, Owner::SharedGuest(shares));
        }
        if access & ACCESS_EXECUTE != 0 {
            self.forgotten += 1;
        }
        if frames < total {
            return Ok(done(Clause::ShareGuestBounded, &[frames / size]).again());
        }
        Ok(done(Clause::ShareGuestLets, &[count]))
    }

    /// In how many places ordinary VMs have a frame.
    fn shares(&self, frame: u64) -> u64 {
        match self.owner(frame) {
            Some(Owner::SharedGuest(shares)) => shares,
            _ => 0,
        }
    }

    /// Refuses unless the frame, the one at `index` of a range, can be shared once more.
    fn require_shareable(&self, index: u64, frame: u64) -> Result<(), Refuse> {
        let shares = self.shares(frame);
        if !self.is_hosts(frame) && shares == 0 {
            return Err(self.refuse_state(Clause::ShareGuestNotHosts, index, frame));
        }
        require(
            shares < u64::from(limit::MAX_SHARES),
            self.refuse_state(Clause::ShareGuestFull, index, frame),
        )
    }

    pub(crate) fn unshare_from_guest(&mut self, handle: u64, first: u64, count: u64) -> Ruling {
        self.vm(handle)?.require_protected(false)?;
        self.change_shared((handle, first, count), None)
    }

    pub(crate) fn protect_guest(
        &mut self,
        handle: u64,
        first: u64,
        count: u64,
        access: u64,
    ) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeTeardown, &[Phase::Created, Phase::Live])?;
        vm.require_protected(false)?;
        let malformed = refuse(Clause::GuestRangeMalformed, Status::Invalid);
        require(is_access(access), malformed)?;
        self.change_shared((handle, first, count), Some(access))
    }

    /// Gives the guest this access to what it has of the range (handle, first frame, count), or none.
    fn change_shared(&mut self, range: (u64, u64, u64), access: Option<u64>) -> Ruling {
        let (handle, first, count) = range;
        let is_sound = is_range(first, count, GFN_LIMIT) && count <= limit::MAX_FRAMES;
        require(
            is_sound,
            refuse(Clause::GuestRangeMalformed, Status::Invalid),
        )?;
        let end = first + count;
        if let Some((pfn, size)) = self.shared_at(handle, first) {
            let cut = refuse(Clause::GuestRangeCuts, Status::Granule).at(0, self.word(pfn));
            require(first.is_multiple_of(size) && first + size <= end, cut)?;
        }
        let mut left = CHANGES_PER_CALL;
        let (mut gfn, mut clause) = (first, Clause::GuestRangeHoles);
        while gfn < end {
            let Some((_, size)) = self.shared_at(handle, gfn) else {
                gfn += 1;
                continue;
            };
            if gfn + size > end {
                return Ok(part(Clause::GuestRangeLeavesCut, gfn - first));
            }
            if left == 0 {
                return Ok(part(Clause::GuestRangeBounded, gfn - first));
            }
            for gfn in gfn..gfn + size {
                self.change_grant(handle, gfn, access);
            }
            clause = if access.is_some() {
                Clause::ProtectGuestSays
            } else {
                Clause::UnshareGuestTakes
            };
            left = left.saturating_sub(size);
            gfn += size;
        }
        Ok(done(clause, &[count]))
    }

    /// The frame that is shared at `gfn`, and how many the entry has that says so.
    fn shared_at(&self, handle: u64, gfn: u64) -> Option<(u64, u64)> {
        let vm = self.vms.get(&handle)?;
        let (pfn, grant) = (vm.frames.get(&gfn)?, vm.grants.get(&gfn)?);
        Some((*pfn, if grant.block { BLOCK } else { 1 }))
    }

    fn change_grant(&mut self, handle: u64, gfn: u64, access: Option<u64>) {
        let Some(vm) = self.vms.get_mut(&handle) else {
            return;
        };
        if let (Some(grant), Some(access)) = (vm.grants.get_mut(&gfn), access) {
            grant.access = access;
            return;
        }
        vm.grants.remove(&gfn);
        if let Some(pfn) = vm.frames.remove(&gfn) {
            match self.shares(pfn) {
                0 | 1 => self.give_host(pfn),
                shares => self.give(pfn, Owner::SharedGuest(shares - 1)),
            }
        }
    }
}

/// So many frames are done.
fn part(clause: Clause, frames: u64) -> Done {
    done(clause, &[frames]).again()
}
