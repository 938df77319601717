//! Which rules a host call follows: one match over the ABI table.

use pinfold_abi::{FEATURE_DEBUG_CALLS, HostCall, Status, VERSION, limit};

use crate::clause::Clause;
use crate::ruling::{Ruling, done, refuse};
use crate::state::{POOL_FLOOR, State};

/// What the caller saw, where a rule leaves room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// x1.
    pub(crate) status: Option<Status>,
    /// x2.
    pub(crate) result: u64,
    /// Free frames of the pool before the call.
    pub(crate) free: u64,
}

impl Seen {
    /// The call was done, or a part of it.
    pub(crate) fn is_done(self) -> bool {
        matches!(self.status, Some(Status::Ok | Status::Again))
    }
}

/// The name of a call in the table.
pub(crate) fn name(call: &HostCall) -> &'static str {
    let mut table = HostCall::TABLE.iter();
    table
        .find(|info| info.number == call.number())
        .map_or("", |info| info.name)
}

/// Whether a call may take frames of the pool, and how low it may leave it.
pub(crate) fn floor(call: &HostCall) -> Option<u64> {
    match call {
        HostCall::PoolDonate { .. } => Some(0),
        HostCall::PinTableRegister { .. }
        | HostCall::VmCreate { .. }
        | HostCall::VmMemoryRegion { .. }
        | HostCall::VcpuCreate { .. }
        | HostCall::MemDonate { .. }
        | HostCall::MemShareGuest { .. }
        | HostCall::MemPoison { .. } => Some(POOL_FLOOR),
        HostCall::Version {}
        | HostCall::Features {}
        | HostCall::PoolReclaim {}
        | HostCall::PoolStatus {}
        | HostCall::VmGic { .. }
        | HostCall::VmStart { .. }
        | HostCall::VmTeardownBegin { .. }
        | HostCall::VmTeardownFinish { .. }
        | HostCall::VcpuSetRegister { .. }
        | HostCall::VcpuRun { .. }
        | HostCall::MemReclaim { .. }
        | HostCall::MemUnshareGuest { .. }
        | HostCall::MemProtectGuest { .. }
        | HostCall::IrqLine { .. }
        | HostCall::FolioQuery { .. }
        | HostCall::FolioCensus {}
        | HostCall::FolioDigest { .. }
        | HostCall::FolioRange { .. }
        | HostCall::TraceStatus { .. }
        | HostCall::TraceRead { .. }
        | HostCall::Counter { .. } => None,
    }
}

impl State {
    /// What `call` must come to; the state becomes what it is then.
    #[expect(clippy::too_many_lines, reason = "one arm for each call of the table")]
    pub(crate) fn perform(&mut self, call: HostCall, seen: Seen) -> Ruling {
        match call {
            HostCall::Version {} => Ok(done(Clause::Version, &[VERSION])),
            HostCall::Features {} => Ok(self.features()),
            HostCall::PinTableRegister {
                table,
                first,
                frames,
            } => self.register_pins(table.0, first.0, frames.0, seen),
            HostCall::PoolDonate { first, count } => self.donate_to_pool(first.0, count.0),
            HostCall::PoolReclaim {} => self.reclaim_from_pool(seen),
            HostCall::PoolStatus {} => {
                let given = u64::try_from(self.given.len()).unwrap_or(u64::MAX);
                Ok(done(Clause::PoolStatus, &[seen.free, given]))
            }
            HostCall::VmCreate { flags, vcpus } => self.create_vm(flags.0, vcpus.0, seen),
            HostCall::VmMemoryRegion { vm, first, count } => {
                self.add_region(vm.0, first.0, count.0)
            }
            HostCall::VmGic {
                vm,
                distributor,
                redistributors,
            } => self.place_gic(vm.0, distributor.0, redistributors.0),
            HostCall::VmStart { vm } => self.start_vm(vm.0),
            HostCall::VmTeardownBegin { vm } => self.begin_teardown(vm.0),
            HostCall::VmTeardownFinish { vm } => self.finish_teardown(vm.0),
            HostCall::VcpuCreate { vm, vcpu, flags } => self.create_vcpu(vm.0, vcpu.0, flags.0),
            HostCall::VcpuSetRegister {
                vm,
                vcpu,
                register,
                value,
            } => self.set_register(vm.0, vcpu.0, register.0, value.0),
            HostCall::VcpuRun { vm, vcpu, answer } => self.run(vm.0, vcpu.0, answer.0),
            HostCall::MemDonate {
                vm,
                gfn,
                pfn,
                count,
                order,
            } => self.donate(vm.0, gfn.0, pfn.0, count.0, order.0),
            HostCall::MemReclaim { vm, gfn, count } => self.reclaim(vm.0, gfn.0, count.0),
            HostCall::MemShareGuest {
                vm,
                gfn,
                pfn,
                count,
                order,
                access,
            } => {
                let folios = (gfn.0, pfn.0, count.0, order.0);
                self.share_with_guest(vm.0, folios, access.0)
            }
            HostCall::MemUnshareGuest { vm, gfn, count } => {
                self.unshare_from_guest(vm.0, gfn.0, count.0)
            }
            HostCall::MemProtectGuest {
                vm,
                gfn,
                count,
                access,
            } => self.protect_guest(vm.0, gfn.0, count.0, access.0),
            HostCall::MemPoison { pfn } => self.poison(pfn.0),
            HostCall::IrqLine { vm, intid, level } => self.set_line(vm.0, intid.0, level.0, seen),
            HostCall::FolioQuery { pfn } => self.query(pfn.0),
            HostCall::FolioCensus {} => Ok(self.census()),
            HostCall::FolioDigest { first, count } => self.digest(first.0, count.0, seen),
            HostCall::FolioRange { first } => self.range(first.0),
            HostCall::TraceStatus { .. } | HostCall::TraceRead { .. } => {
                Err(refuse(Clause::TraceOfNobody, Status::Invalid))
            }
            HostCall::Counter { counter } => self.read_counter(counter.0),
        }
    }

    fn features(&self) -> crate::ruling::Done {
        let bits = if self.boot.debug_calls {
            FEATURE_DEBUG_CALLS
        } else {
            0
        };
        let frames: u64 = self.boot.hyp.iter().map(|(_, count)| count).sum();
        let limits = [limit::MAX_VMS, limit::MAX_VCPUS, limit::MAX_FRAMES];
        let [vms, vcpus, most] = limits;
        done(Clause::Features, &[bits, vms, vcpus, most, frames * 4])
    }
}
