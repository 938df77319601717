//! Host hypercalls as words, and what came back.
//!
//! [`call`] is the only way in. A [`Reply`] is judged by [`Reply::done`] (must have succeeded) or [`Reply::refused`] (must have been refused, and why).

pub(crate) use pinfold_abi::{Counter, ExitReason, State, Status};

use crate::storm::tally;
use guest_test::smccc;
use guest_test::tap::{Failure, Outcome};
use guest_test::{bytes, check};
use pinfold_abi::claim::{
    Access, Count, CounterNumber, Flags, Gfn, Handle, Ipa, Number, Order, Pfn, Value, VcpuIndex,
};
use pinfold_abi::{HostCall, UUID_FUNCTION, UUID_WORDS};

/// What a call gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    /// SMCCC status.
    pub(crate) x0: u64,
    /// Pinfold's status.
    pub(crate) status: u64,
    /// x2..x7.
    pub(crate) results: [u64; 6],
}

impl Reply {
    /// The reply that x0 onwards hold.
    pub(crate) fn of(registers: &[u64]) -> Self {
        let mut words = registers.iter().copied();
        let mut next = || words.next().unwrap_or(0);
        Self {
            x0: next(),
            status: next(),
            results: core::array::from_fn(|_| next()),
        }
    }

    /// The results of a call that must have succeeded.
    pub(crate) fn done(self, what: &str) -> Result<[u64; 6], Failure> {
        if self.x0 == 0 && self.status == Status::Ok.number() {
            Ok(self.results)
        } else {
            Err(self.failure(what, "to be done"))
        }
    }

    /// The first result of a call that must have succeeded.
    pub(crate) fn value(self, what: &str) -> Result<u64, Failure> {
        let [value, ..] = self.done(what)?;
        Ok(value)
    }

    /// What was found by a call that must have been refused with this status.
    pub(crate) fn refused(self, status: Status, what: &str) -> Result<Found, Failure> {
        if self.is(status) {
            let [index, folio, pin, ..] = self.results;
            Ok(Found { index, folio, pin })
        } else {
            Err(Failure::new(format_args!(
                "{what}: x0 {:#x}, status {}, wanted {status:?}",
                self.x0, self.status
            )))
        }
    }

    /// The call must have been refused with one of these.
    pub(crate) fn refused_as_one_of(self, statuses: &[Status], what: &str) -> Outcome {
        if statuses.iter().any(|status| self.is(*status)) {
            Ok(())
        } else {
            Err(Failure::new(format_args!(
                "{what}: x0 {:#x}, status {}, wanted one of {statuses:?}",
                self.x0, self.status
            )))
        }
    }

    /// The call is not there.
    pub(crate) fn not_supported(self, what: &str) -> Outcome {
        check!(
            self.x0 == smccc::NOT_SUPPORTED,
            "{what}: x0 {:#x}, wanted NOT_SUPPORTED",
            self.x0
        );
        Ok(())
    }

    /// It has this status.
    pub(crate) fn is(self, status: Status) -> bool {
        self.x0 == 0 && self.status == status.number()
    }

    fn failure(self, what: &str, wanted: &str) -> Failure {
        let [index, folio, pin, ..] = self.results;
        Failure::new(format_args!(
            "{what}: x0 {:#x}, status {}, index {index:#x}, folio {folio:#x}, pin {pin:#x}; wanted {wanted}",
            self.x0, self.status
        ))
    }
}

/// What a refusal says it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Index of the failing frame or folio.
    pub(crate) index: u64,
    /// Folio word there.
    pub(crate) folio: u64,
    /// Pin word there.
    pub(crate) pin: u64,
}

/// Calls any function id with any arguments.
pub(crate) fn call(id: u32, arguments: &[u64]) -> Reply {
    let reply = Reply::of(&smccc::hvc(id, arguments));
    tally::note(id, &reply);
    reply
}

/// Pinfold answers the UUID call.
pub(crate) fn pinfold_answers() -> bool {
    unsafe extern "C" fn ask(function: u64, word: u64) -> u64 {
        let answer = smccc::hvc(bytes::low32(function), &[]);
        answer.get(bytes::size(word)).copied().unwrap_or(0)
    }
    (0..).zip(UUID_WORDS).all(|(word, wanted)| {
        // SAFETY: without a hypervisor an HVC is an undefined instruction, which the probe catches; the call changes nothing.
        let found = unsafe { guest_test::probe::call(ask, UUID_FUNCTION, word) };
        found == Ok(u64::from(wanted))
    })
}

/// Makes a host call.
pub(crate) fn issue(host_call: HostCall) -> Reply {
    let [function, arguments @ ..] = host_call.encode();
    call(bytes::low32(function), &arguments)
}

macro_rules! calls {
    ($($(#[$doc:meta])+ $name:ident = $call:ident { $($argument:ident: $claim:ident),* };)+) => {
        $($(#[$doc])+ pub(crate) fn $name($($argument: u64),*) -> Reply {
            issue(HostCall::$call { $($argument: $claim($argument)),* })
        })+
    };
}

calls! {
    /// Version of the interface.
    version = Version {};
    /// Features and limits.
    features = Features {};
    /// Registers a pin table.
    pin_table_register = PinTableRegister { table: Pfn, first: Pfn, frames: Count };
    /// Gives frames to EL2's pool.
    pool_donate = PoolDonate { first: Pfn, count: Count };
    /// Takes one frame back from EL2's pool.
    pool_reclaim = PoolReclaim {};
    /// Free frames, donated frames.
    pool_status = PoolStatus {};
    /// Makes a VM.
    vm_create = VmCreate { flags: Flags, vcpus: Count };
    /// Names guest RAM.
    vm_memory_region = VmMemoryRegion { vm: Handle, first: Gfn, count: Count };
    /// Places the virtual GIC.
    vm_gic = VmGic { vm: Handle, distributor: Ipa, redistributors: Ipa };
    /// Seals the configuration.
    vm_start = VmStart { vm: Handle };
    /// Ends running and donating.
    vm_teardown_begin = VmTeardownBegin { vm: Handle };
    /// Ends the VM.
    vm_teardown_finish = VmTeardownFinish { vm: Handle };
    /// Makes a vCPU.
    vcpu_create = VcpuCreate { vm: Handle, vcpu: VcpuIndex, flags: Flags };
    /// Sets a register before the first run.
    vcpu_set_register = VcpuSetRegister { vm: Handle, vcpu: VcpuIndex, register: Number, value: Value };
    /// Runs a vCPU.
    vcpu_run = VcpuRun { vm: Handle, vcpu: VcpuIndex, answer: Value };
    /// Gives folios to a guest.
    mem_donate = MemDonate { vm: Handle, gfn: Gfn, pfn: Pfn, count: Count, order: Order };
    /// Takes frames back from a dying guest.
    mem_reclaim = MemReclaim { vm: Handle, gfn: Gfn, count: Count };
    /// Shares folios of the host with an ordinary guest.
    mem_share_guest = MemShareGuest { vm: Handle, gfn: Gfn, pfn: Pfn, count: Count, order: Order, access: Access };
    /// Ends the sharing.
    mem_unshare_guest = MemUnshareGuest { vm: Handle, gfn: Gfn, count: Count };
    /// Changes what an ordinary guest may do.
    mem_protect_guest = MemProtectGuest { vm: Handle, gfn: Gfn, count: Count, access: Access };
    /// Sets an interrupt line.
    irq_line = IrqLine { vm: Handle, intid: Number, level: Number };
    /// What EL2 knows about a frame.
    folio_query = FolioQuery { pfn: Pfn };
    /// Frames by state.
    folio_census = FolioCensus {};
    /// Digest of folio words.
    folio_digest = FolioDigest { first: Pfn, count: Count };
}

/// One of EL2's counters.
pub(crate) fn counter(which: Counter) -> Result<u64, Failure> {
    issue(HostCall::Counter {
        counter: CounterNumber(which.number()),
    })
    .value(which.name())
}
