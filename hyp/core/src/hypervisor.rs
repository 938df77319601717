//! The one object that EL2 calls: [`Hypervisor`].
//!
//! It owns the memory, the VMs and the counters, and stands behind EL2's one lock. Each door takes what the hardware
//! reported and returns what to do next; the registers of a vCPU that runs are outside, in a [`LoadedVcpu`].
//!
//! Invariant: between two calls of a door, the folio array, the tables and the TLBs agree.

use pinfold_abi::Counter;

use crate::addr::{FRAME_SIZE, Ipa, Pfn};
use crate::folio::{Folio, FolioState};
use crate::machine::{Machine, OutOfMemory};
use crate::memory::{Layout, Memory};
use crate::stage2::Entry;
use crate::vcpu::LoadedVcpu;
use crate::vm::VmTable;

/// x0 to x17 of a caller: arguments on the way in, results on the way out (SMCCC DEN0028, section 2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallRegisters {
    /// x0 to x17.
    pub x: [u64; 18],
}

/// What EL2 does after a host call.
#[derive(Debug)]
pub enum HostCallOutcome {
    /// Go back to the host; the registers are set.
    Return,
    /// Run this vCPU; the registers are set when it stops, by [`Hypervisor::finish_run`].
    Run(LoadedVcpu),
}

/// A stage-2 abort that the host took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a bit of a syndrome")]
pub struct HostAbort {
    /// The address that stage 2 refused.
    pub ipa: Ipa,
    /// The virtual address was one of the kernel's (bit 55 set).
    pub far_is_kernel: bool,
    /// The access came from EL0.
    pub from_el0: bool,
    /// It was a write.
    pub write: bool,
    /// It was an instruction fetch.
    pub instruction: bool,
    /// The address of the instruction.
    pub pc: u64,
}

/// What EL2 does after a host abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostAbortOutcome {
    /// Let the host try again: it may access the frame now.
    Retry,
    /// Let the host try again: it now finds a decoy page of zeroes there, until the owner runs again.
    Decoy,
    /// Give the host the abort.
    Inject,
}

/// What EL2 counts since boot, besides what [`Memory`] tallies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    calls: u64,
    refusals: u64,
    host_aborts: u64,
    guest_exits: u64,
    unknown_calls: u64,
}

impl Counters {
    /// Counts one more. What [`Memory`] tallies is not counted here.
    pub(crate) fn count(&mut self, counter: Counter) {
        let place = match counter {
            Counter::Calls => &mut self.calls,
            Counter::Refusals => &mut self.refusals,
            Counter::HostAborts => &mut self.host_aborts,
            Counter::GuestExits => &mut self.guest_exits,
            Counter::UnknownCalls => &mut self.unknown_calls,
            Counter::FramesDonated
            | Counter::FramesReclaimed
            | Counter::FramesWiped
            | Counter::Decoys => return,
        };
        *place = place.wrapping_add(seeded!(CountsTwice, 2, 1));
    }
}

/// The hypervisor's state.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Hypervisor<M: Machine> {
    /// Who owns what, and the tables that show it.
    pub memory: Memory<M>,
    /// The VMs.
    pub vms: VmTable,
    pub(crate) counters: Counters,
    pub(crate) el2_kib: u64,
}

impl<M: Machine> Hypervisor<M> {
    /// Takes over the machine. `folios` is EL2's memory for the folio array, the first of which speaks for the frame `first`; it
    /// reaches to the end of RAM.
    pub fn new(
        machine: M,
        first: Pfn,
        folios: &'static mut [Folio],
        layout: &Layout<'_>,
    ) -> Result<Self, OutOfMemory> {
        let memory = Memory::new(machine, first, folios, layout)?;
        let vms = VmTable::try_new().ok_or(OutOfMemory)?;
        let frames = layout
            .hyp
            .iter()
            .fold(0_u64, |sum, range| sum.saturating_add(range.count()));
        let el2_kib = frames.saturating_mul(FRAME_SIZE / 1024);
        Ok(Self {
            memory,
            vms,
            counters: Counters::default(),
            el2_kib,
        })
    }

    /// Decides about an access of the host that stage 2 refused.
    ///
    /// The frame may be the host's by now, because another CPU had its entry broken for a moment. Otherwise a process, or the
    /// kernel on a process's behalf, gets the abort, and the kernel itself gets a decoy (G7).
    pub fn host_abort(&mut self, abort: HostAbort) -> HostAbortOutcome {
        let gfn = abort.ipa.frame();
        let is_mapped = matches!(
            self.memory.host().lookup(gfn, self.memory.machine()).entry,
            Entry::Leaf(_)
        );
        let may_fetch = matches!(
            self.memory.folios().whole(gfn.identity()).state,
            FolioState::Host | FolioState::HostSharedGuest { .. }
        );
        if is_mapped && (may_fetch || !abort.instruction) && !mutant!(NeverRetries) {
            return HostAbortOutcome::Retry;
        }
        let is_kernel = abort.far_is_kernel && !abort.from_el0 || mutant!(DecoyForProcess);
        let by_kernel = is_kernel && !abort.instruction;
        if by_kernel && !mutant!(NoDecoys) && self.memory.map_decoy(gfn.identity()).is_ok() {
            return HostAbortOutcome::Decoy;
        }
        self.counters.count(Counter::HostAborts);
        HostAbortOutcome::Inject
    }

    /// Ends all VMs and wipes their memory and registers, because the machine is about to be reset or switched off: RAM may live through that, and
    /// whoever boots next is not the one who was refused. Nothing else may be asked of this object afterwards.
    pub fn end_guests(&mut self) {
        for vm in self.vms.iter_mut() {
            vm.memory.stage2.sever(&mut self.memory.machine);
            vm.vcpus.forget_registers();
        }
        if !mutant!(EndsUnwiped) {
            self.memory.wipe_what_guests_own();
        }
    }

    /// The value of a counter.
    #[must_use]
    pub const fn counter_value(&self, counter: Counter) -> u64 {
        let tally = self.memory.tally();
        match counter {
            Counter::Calls => self.counters.calls,
            Counter::Refusals => self.counters.refusals,
            Counter::FramesDonated => tally.donated,
            Counter::FramesReclaimed => tally.reclaimed,
            Counter::FramesWiped => tally.wiped,
            Counter::HostAborts => self.counters.host_aborts,
            Counter::Decoys => tally.decoys,
            Counter::GuestExits => self.counters.guest_exits,
            Counter::UnknownCalls => self.counters.unknown_calls,
        }
    }
}
