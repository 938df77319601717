//! The oracle: the specification judges each step of core, on the real machine (ADR 9).
//!
//! A step is a host call, an access of the host that stage 2 refused, or an exit of a guest with what follows from it. The
//! specification is told registers before and after, and what [`Watched`] saw core ask of the hardware; it compares folio words and
//! tables near the step after each one, and everything after each [`STEPS`]. The first violation is a panic that names the clause.
//!
//! Invariant: the oracle is asked only by who holds the lock of the hypervisor, and what it allocates is not the pool's.

mod deed;
mod real;
mod watched;

use alloc::vec::Vec;

use crate::lock::SpinMutex;
use aarch64_cpu::registers::{CNTVCT_EL0, Readable};
use pinfold_abi::{HostCall, Status};
use pinfold_core::addr::{FRAME_SHIFT, FrameRange, Physical};
use pinfold_core::exit::Exit;
use pinfold_core::hypervisor::{
    CallRegisters, HostAbort, HostAbortOutcome, HostCallOutcome, Hypervisor,
};
use pinfold_core::id_registers::Processor;
use pinfold_core::machine::Machine;
use pinfold_core::memory::{Layout, decoy};
use pinfold_core::run::Resumption;
use pinfold_core::vcpu::{LoadedVcpu, VcpuExit};
use pinfold_spec::{
    Boot, GuestDeed, GuestSeen, HostSeen, Processors, Spec, Taken, Touch, TouchBy, TouchSeen,
    Violation,
};
use spin::once::Once;

use crate::complaint::Complaint;
use crate::guest_trap;
use crate::heap::{self, aside};
use crate::hypervisor::{self, Guard};
use crate::mmu::{self, Access, stage1};
use crate::platform::{Bytes, Platform};
use crate::width::{narrow, wide};

use deed::{Deed, entry_of, registers_of, taken_by};
use real::Real;
pub(crate) use watched::{Watched, hardware};

/// Everything is compared after as many steps.
const STEPS: u64 = 1 << 15;
/// Memory of the oracle.
const MEMORY: u64 = 64 << 20;

struct Oracle {
    spec: Spec,
    /// What EL2 mapped at its boot: first frames and counts, ascending.
    at_boot: Vec<(u64, u64)>,
    passed_over: u64,
    /// How often everything was compared.
    whole: u64,
}

static ORACLE: Once<SpinMutex<Oracle>> = Once::new();

type Judged = Result<(), Violation>;

/// Takes memory off the end of RAM, which nobody else knows of then, and maps it.
pub(crate) fn claim_memory(platform: &mut Platform<'_>) -> Result<Option<Bytes>, Complaint> {
    let too_little = Complaint::TooLittleMemory { mebibytes: 0 };
    let Some(last) = platform.ram.last_mut() else {
        return Err(too_little);
    };
    let end = last.end & !(wide(mmu::BLOCK) - 1);
    let memory = Bytes {
        start: end.saturating_sub(MEMORY),
        end,
    };
    if memory.start <= last.start {
        return Err(too_little);
    }
    last.end = memory.start;
    platform.masters.push(memory);
    let [start, end] = [memory.start, memory.end].map(narrow);
    stage1()
        .map(start, end, Access::Data)
        .map_err(|mmu::NoTable| Complaint::OutOfFrames)?;
    // SAFETY: mapped above, and nobody's RAM from now on.
    unsafe { aside::set_up(start, end) };
    Ok(Some(memory))
}

/// Begins to watch: EL2's boot is over, and the host has not run yet.
pub(crate) fn watch(hypervisor: &Hypervisor<Watched>, layout: &Layout<'_>) {
    let ranges = |ranges: &[FrameRange<Physical>]| {
        let ranges = ranges
            .iter()
            .map(|range| (range.first().raw(), range.count()));
        ranges.collect::<Vec<_>>()
    };
    aside::with(|| {
        let mut spec = Spec::new(Boot {
            ram: ranges(layout.ram),
            hyp: ranges(layout.hyp),
            holes: ranges(layout.holes),
            decoy: hypervisor.memory.decoy_page().raw(),
            pool: heap::all_frames(),
            set_aside: 1 + wide(decoy::MOST),
            debug_calls: true,
        });
        let processor = guest_trap::processor();
        spec.watch(Processors {
            id_registers: processor.id_registers,
            list_registers: processor.list_registers,
        });
        let mapped = stage1().leaves().into_iter();
        let mapped = mapped
            .map(|(address, bytes, _)| (wide(address) >> FRAME_SHIFT, wide(bytes) >> FRAME_SHIFT));
        let mut oracle = Oracle {
            spec,
            at_boot: mapped.collect(),
            passed_over: 0,
            whole: 0,
        };
        let judged = oracle.compare_all(hypervisor);
        require(judged, "the boot");
        ORACLE.call_once(|| SpinMutex::new(oracle));
    });
    log::info!("oracle: {} MiB, the boot is as specified", MEMORY >> 20);
}

/// Lets the oracle judge.
fn judge(what: &str, judgement: impl FnOnce(&mut Oracle) -> Judged) {
    let judged = aside::with(|| judgement(&mut ORACLE.wait().lock()));
    require(judged, what);
}

#[expect(
    clippy::panic,
    reason = "it is core that is wrong, or the specification"
)]
fn require(judged: Judged, what: &str) {
    if let Err(Violation { clause, what: seen }) = judged {
        panic!(
            "oracle: {what} breaks {clause:?}: {seen}; {}",
            clause.text()
        );
    }
}

impl Oracle {
    /// Tells the specification which pin words core has read.
    fn learn_pins(&mut self, hypervisor: &Hypervisor<Watched>) {
        for (frame, index, word) in hypervisor.memory.machine().pins() {
            self.spec.host_writes_pin(frame, index, word);
        }
    }

    fn compare(&mut self, hypervisor: &Hypervisor<Watched>, named: &[u64]) -> Judged {
        let real = Real {
            hypervisor,
            at_boot: &self.at_boot,
        };
        self.spec.compare_near(&real, named)?;
        if self.spec.steps().is_multiple_of(STEPS) {
            self.compare_all(hypervisor)?;
        }
        Ok(())
    }

    fn compare_all(&mut self, hypervisor: &Hypervisor<Watched>) -> Judged {
        self.whole += 1;
        self.spec.compare(&Real {
            hypervisor,
            at_boot: &self.at_boot,
        })
    }

    fn host_call(
        &mut self,
        hypervisor: &Hypervisor<Watched>,
        before: &[u64; 18],
        call: &CallRegisters,
        outcome: &HostCallOutcome,
        free: u64,
    ) -> Judged {
        self.learn_pins(hypervisor);
        match outcome {
            HostCallOutcome::Return if is_about_traces(before) => {
                self.passed_over += 1;
                let [_, status, ..] = call.x;
                self.spec
                    .host_call_passed_over(status != Status::Ok.number());
            }
            HostCallOutcome::Return => {
                self.spec
                    .host_call(before, HostSeen::Returned(&call.x), free)?;
            }
            HostCallOutcome::Run(loaded) => {
                let registers = registers_of(&loaded.vcpu.context);
                self.spec
                    .host_call(before, HostSeen::Entered(&registers), free)?;
                let context = &loaded.vcpu.context;
                self.spec.guest_state(context.pstate, context.el1.sctlr)?;
            }
        }
        let [_, named @ ..] = before;
        self.compare(hypervisor, named)
    }

    fn guest_deed(
        &mut self,
        hypervisor: &Hypervisor<Watched>,
        name: [u64; 2],
        deed: &Deed,
        seen: GuestSeen<'_>,
        taken: Option<Taken>,
    ) -> Judged {
        self.learn_pins(hypervisor);
        let [vm, vcpu] = name;
        let Deed {
            registers,
            event,
            free,
        } = deed;
        if let Some(event) = *event {
            let deed = GuestDeed {
                vm,
                vcpu,
                registers,
                event,
            };
            self.spec.guest_event(deed, seen, *free)?;
            self.spec.guest_takes(taken)?;
        } else {
            self.passed_over += 1;
            let (guest, after) = match seen {
                GuestSeen::Resumed(guest) => (guest, None),
                GuestSeen::Exited { guest, after, .. } => (guest, Some(after)),
            };
            self.spec
                .guest_passed_over((vm, vcpu), "passed over", guest, after);
        }
        let [_, x1, ..] = registers.x;
        self.compare(hypervisor, &[vm, x1 >> FRAME_SHIFT])
    }

    /// The machine ends: what only guests reached is zeroes.
    fn end(&mut self, hypervisor: &Hypervisor<Watched>) -> Judged {
        let mut wiped = hypervisor.memory.machine().wiped().to_vec();
        wiped.sort_unstable();
        let mut guests = self.spec.guests_frames();
        let kept = guests.find(|(frame, _)| wiped.binary_search(frame).is_err());
        if let Some((frame, vm)) = kept {
            let what = alloc::format!("{frame:#x} of VM {vm:#x} is not wiped");
            return Err(Violation::new(pinfold_spec::Clause::MachineEnds, what));
        }
        drop(guests);
        self.spec.ends();
        self.spec.compare_end(&Real {
            hypervisor,
            at_boot: &self.at_boot,
        })
    }
}

/// Calls that show the trace, which the specification does not keep.
fn is_about_traces(x: &[u64; 18]) -> bool {
    let [function, x1, x2, x3, x4, x5, x6, x7, ..] = *x;
    matches!(
        HostCall::decode([function, x1, x2, x3, x4, x5, x6, x7]),
        Some(HostCall::TraceStatus { .. } | HostCall::TraceRead { .. })
    )
}

/// Forgets the last step, and says how many frames of the pool are free.
fn begin(hypervisor: &mut Hypervisor<Watched>) -> u64 {
    let machine = hypervisor.memory.machine_mut();
    machine.begin();
    heap::has_lacked();
    machine.pool_free()
}

/// How many frames were free for what core wanted: none if it did not find a block, though there be frames that lie apart.
fn free_for_core(free: u64) -> u64 {
    if heap::has_lacked() { 0 } else { free }
}

/// Performs a call.
pub(crate) fn host_call(call: &mut CallRegisters, cpu: usize) -> HostCallOutcome {
    let mut hypervisor = hypervisor::lock();
    let (free, before) = (begin(&mut hypervisor), call.x);
    let outcome = hypervisor.host_call(call, cpu);
    let free = free_for_core(free);
    judge("a call", |oracle| {
        oracle.host_call(&hypervisor, &before, call, &outcome, free)
    });
    outcome
}

/// Decides about an access that stage 2 refused.
pub(crate) fn host_abort(abort: HostAbort) -> HostAbortOutcome {
    let mut hypervisor = hypervisor::lock();
    begin(&mut hypervisor);
    let outcome = hypervisor.host_abort(abort);
    let by = match (abort.instruction, abort.from_el0, abort.far_is_kernel) {
        (true, ..) => TouchBy::Fetch,
        (false, true, _) => TouchBy::Process,
        (false, false, false) => TouchBy::KernelForProcess,
        (false, false, true) => TouchBy::Kernel,
    };
    let seen = match outcome {
        HostAbortOutcome::Retry => TouchSeen::Retry,
        HostAbortOutcome::Decoy => TouchSeen::Decoy,
        HostAbortOutcome::Inject => TouchSeen::Inject,
    };
    let frame = abort.ipa.frame().raw();
    judge("an access of the host", |oracle| {
        oracle.spec.host_touch(Touch { frame, by }, seen)?;
        oracle.compare(&hypervisor, &[frame])
    });
    outcome
}

/// Gives a vCPU its interrupts before its first entry.
pub(crate) fn prepare_entry(loaded: &mut LoadedVcpu, processor: &Processor) {
    let mut hypervisor = hypervisor::lock();
    let now = CNTVCT_EL0.get();
    hypervisor.prepare_entry(loaded, processor, now);
    let [vm, vcpu] = loaded.name();
    judge("an entry of a guest", |oracle| {
        oracle.spec.guest_prepared(vm, vcpu, now);
        oracle.spec.guest_enters(vm, vcpu, entry_of(loaded))
    });
}

/// Decides about an exit; the second value is for [`keep`].
pub(crate) fn guest_exit(
    hypervisor: &mut Guard,
    loaded: &mut LoadedVcpu,
    exit: Exit,
    processor: &Processor,
) -> (Resumption, Deed) {
    let free = begin(hypervisor);
    let [vm, vcpu] = loaded.name();
    let mut deed = aside::with(|| {
        let spec = &mut ORACLE.wait().lock().spec;
        spec.guest_left(vm, vcpu, entry_of(loaded));
        Deed::of(loaded, &exit, spec, free)
    });
    let resumption = hypervisor.guest_exit(loaded, exit, processor);
    deed.free = free_for_core(deed.free);
    if !matches!(resumption, Resumption::Host(_)) {
        let registers = registers_of(&loaded.vcpu.context);
        judge("an exit of a guest", |oracle| {
            let seen = GuestSeen::Resumed(&registers);
            oracle.guest_deed(hypervisor, [vm, vcpu], &deed, seen, taken_by(loaded))?;
            oracle.spec.guest_enters(vm, vcpu, entry_of(loaded))
        });
    }
    (resumption, deed)
}

/// An exit to the host of which the end is to come. The lock is not free in between: the two are one step.
pub(crate) struct Kept {
    hypervisor: Guard,
    deed: Deed,
}

/// Keeps the lock until [`finish_run`].
pub(crate) fn keep(hypervisor: Guard, deed: Deed) -> Kept {
    Kept { hypervisor, deed }
}

/// Ends a run.
pub(crate) fn finish_run(kept: Kept, loaded: LoadedVcpu, exit: VcpuExit, call: &mut CallRegisters) {
    let Kept {
        mut hypervisor,
        deed,
    } = kept;
    let (before, name) = (call.x, loaded.name());
    let guest = registers_of(&loaded.vcpu.context);
    let (timer, taken) = (loaded.vcpu.context.timer, taken_by(&loaded));
    hypervisor.finish_run(loaded, exit, call);
    let seen = GuestSeen::Exited {
        guest: &guest,
        before: &before,
        after: &call.x,
    };
    judge("an exit of a guest to the host", |oracle| {
        let [vm, vcpu] = name;
        let spec = &mut oracle.spec;
        spec.guest_sets_timer(vm, vcpu, timer.control, timer.compare);
        oracle.guest_deed(&hypervisor, name, &deed, seen, taken)
    });
}

/// Ends all guests, and says what was judged.
pub(crate) fn end_guests(hypervisor: &mut Guard) {
    begin(hypervisor);
    judge("the time before the end", |oracle| {
        oracle.compare_all(hypervisor)
    });
    hypervisor.end_guests();
    judge("the end", |oracle| {
        oracle.end(hypervisor)?;
        let clauses = pinfold_spec::Clause::ALL.len() - oracle.spec.exercised().missing().count();
        log::info!(
            "oracle: {} steps judged, {} of them passed over, everything compared {} times, {clauses} clauses exercised",
            oracle.spec.steps(),
            oracle.passed_over,
            oracle.whole
        );
        Ok(())
    });
}
