//! The life of a VM: created, configured, started, torn down, ended.

use pinfold_abi::{Status, VM_PROTECTED, limit};

use super::is_range;
use crate::calls::Seen;
use crate::clause::Clause;
use crate::ruling::{Ruling, done, refuse, require};
use crate::state::{GFN_LIMIT, State, Word};
use crate::vm::{Phase, Vm};

/// The distributor, and each redistributor.
const DISTRIBUTOR: u64 = 0x1_0000;
pub(crate) const REDISTRIBUTOR: u64 = 0x2_0000;

/// `IRQ_LINE`: nobody is to be kicked.
pub(super) const NOBODY: u64 = u64::MAX;

impl State {
    /// EL2 chooses the handle.
    pub(crate) fn create_vm(&mut self, flags: u64, vcpus: u64, seen: Seen) -> Ruling {
        let is_sound = flags & !VM_PROTECTED == 0 && (1..=limit::MAX_VCPUS).contains(&vcpus);
        require(is_sound, refuse(Clause::CreateMalformed, Status::Invalid))?;
        let slots = self.slots();
        let is_full = (0..limit::MAX_VMS).all(|slot| slots.contains(&slot));
        require(!is_full, refuse(Clause::CreateLimit, Status::Limit))?;
        let slot = seen.result & 0xFF;
        let is_handle = seen.result >> 32 == 0 && slot < limit::MAX_VMS && !slots.contains(&slot);
        let is_new = seen.result >> 8 != 0 && !self.handles.contains(&seen.result);
        let handle = if is_handle && is_new { seen.result } else { 0 };
        self.handles.insert(handle);
        self.vms
            .insert(handle, Vm::new(flags == VM_PROTECTED, vcpus));
        Ok(done(Clause::Create, &[handle]))
    }

    pub(crate) fn add_region(&mut self, handle: u64, first: u64, count: u64) -> Ruling {
        require(
            is_range(first, count, GFN_LIMIT),
            refuse(Clause::RegionMalformed, Status::Invalid),
        )?;
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeStart, &[Phase::Created])?;
        let overlaps =
            |(other, frames): &(u64, u64)| first < other + frames && *other < first + count;
        require(
            !vm.regions.iter().any(overlaps),
            refuse(Clause::RegionOverlap, Status::Exists),
        )?;
        require(
            vm.regions.len() < limit::MAX_REGIONS,
            refuse(Clause::RegionLimit, Status::Limit),
        )?;
        vm.regions.push((first, count));
        Ok(done(Clause::Region, &[]))
    }

    pub(crate) fn place_gic(
        &mut self,
        handle: u64,
        distributor: u64,
        redistributors: u64,
    ) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeStart, &[Phase::Created])?;
        let is_address = (distributor | redistributors) >> 40 == 0;
        let is_aligned = (distributor | redistributors).is_multiple_of(DISTRIBUTOR);
        let size = vm.count * REDISTRIBUTOR;
        let is_apart = is_address
            && (distributor + DISTRIBUTOR <= redistributors
                || redistributors + size <= distributor);
        require(
            is_aligned && is_apart,
            refuse(Clause::GicMalformed, Status::Invalid),
        )?;
        vm.gic = Some((distributor, redistributors));
        Ok(done(Clause::Gic, &[]))
    }

    pub(crate) fn start_vm(&mut self, handle: u64) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeStart, &[Phase::Created])?;
        vm.phase = Phase::Live;
        Ok(done(Clause::Start, &[]))
    }

    pub(crate) fn begin_teardown(&mut self, handle: u64) -> Ruling {
        let vm = self.vm(handle)?;
        let runs = vm.vcpus.values().any(|vcpu| vcpu.loaded);
        require(!runs, refuse(Clause::TeardownBusy, Status::Busy))?;
        vm.phase = Phase::Dying;
        Ok(done(Clause::TeardownBegin, &[]))
    }

    pub(crate) fn finish_teardown(&mut self, handle: u64) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyAfterTeardownBegin, &[Phase::Dying])?;
        let left = u64::try_from(vm.frames.len()).unwrap_or(u64::MAX);
        require(
            left == 0,
            refuse(Clause::TeardownOwns, Status::Busy).at(left, Word::exactly(0)),
        )?;
        self.vms.remove(&handle);
        Ok(done(Clause::TeardownFinish, &[]))
    }

    /// Whom to kick says the interrupt controller, if it is judged.
    pub(crate) fn set_line(&mut self, handle: u64, intid: u64, level: u64, seen: Seen) -> Ruling {
        let vm = self.vm(handle)?;
        vm.require(Clause::OnlyBeforeTeardown, &[Phase::Created, Phase::Live])?;
        let is_sound = (limit::MIN_SPI..=limit::MAX_SPI).contains(&intid) && level <= 1;
        require(is_sound, refuse(Clause::LineMalformed, Status::Invalid))?;
        let count = vm.count;
        if let Some(kicked) = self.set_watched_line(handle, intid, level == 1) {
            return Ok(done(Clause::LineKicks, &[kicked]));
        }
        let is_legal = seen.result == NOBODY || seen.result < count;
        Ok(done(
            Clause::Line,
            &[if is_legal { seen.result } else { NOBODY }],
        ))
    }
}
