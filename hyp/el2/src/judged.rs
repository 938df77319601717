//! Core's decisions, as the oracle sees them: whoever asks core asks here.
//!
//! Without the feature `oracle` every function is core's own. With it, each is judged by the specification before the lock of
//! the hypervisor is free again; [`crate::oracle`] says how (ADR 9).

#[cfg(not(feature = "oracle"))]
pub(crate) use plain::{
    Hardware, claim_memory, end_guests, finish_run, guest_exit, hardware, host_abort, host_call,
    keep, prepare_entry, watch,
};

#[cfg(feature = "oracle")]
pub(crate) use crate::oracle::{
    Watched as Hardware, claim_memory, end_guests, finish_run, guest_exit, hardware, host_abort,
    host_call, keep, prepare_entry, watch,
};

#[cfg(not(feature = "oracle"))]
mod plain {
    use aarch64_cpu::registers::{CNTVCT_EL0, Readable};
    use pinfold_core::exit::Exit;
    use pinfold_core::hypervisor::{
        CallRegisters, HostAbort, HostAbortOutcome, HostCallOutcome, Hypervisor,
    };
    use pinfold_core::id_registers::Processor;
    use pinfold_core::memory::Layout;
    use pinfold_core::run::Resumption;
    use pinfold_core::vcpu::{LoadedVcpu, VcpuExit};

    use crate::complaint::Complaint;
    use crate::hypervisor::{self, Guard};
    use crate::machine::El2Machine;
    use crate::platform::{Bytes, Platform};

    /// What core runs on.
    pub(crate) type Hardware = El2Machine;

    /// The hardware itself.
    pub(crate) const fn hardware() -> Hardware {
        El2Machine::new()
    }

    /// Takes nothing of RAM.
    #[expect(clippy::unnecessary_wraps, reason = "an oracle may not find the room")]
    pub(crate) const fn claim_memory(
        _platform: &mut Platform<'_>,
    ) -> Result<Option<Bytes>, Complaint> {
        Ok(None)
    }

    /// Nobody watches.
    pub(crate) const fn watch(_hypervisor: &Hypervisor<Hardware>, _layout: &Layout<'_>) {}

    /// Performs a call.
    pub(crate) fn host_call(call: &mut CallRegisters, cpu: usize) -> HostCallOutcome {
        hypervisor::lock().host_call(call, cpu)
    }

    /// Decides about an access that stage 2 refused.
    pub(crate) fn host_abort(abort: HostAbort) -> HostAbortOutcome {
        hypervisor::lock().host_abort(abort)
    }

    /// Gives a vCPU its interrupts before its first entry.
    pub(crate) fn prepare_entry(loaded: &mut LoadedVcpu, processor: &Processor) {
        hypervisor::lock().prepare_entry(loaded, processor, CNTVCT_EL0.get());
    }

    /// Decides about an exit; the second value is for [`keep`].
    pub(crate) fn guest_exit(
        hypervisor: &mut Guard,
        loaded: &mut LoadedVcpu,
        exit: Exit,
        processor: &Processor,
    ) -> (Resumption, ()) {
        (hypervisor.guest_exit(loaded, exit, processor), ())
    }

    /// Lets others have the lock until [`finish_run`].
    pub(crate) fn keep(hypervisor: Guard, (): ()) {
        drop(hypervisor);
    }

    /// Ends a run.
    pub(crate) fn finish_run((): (), loaded: LoadedVcpu, exit: VcpuExit, call: &mut CallRegisters) {
        hypervisor::lock().finish_run(loaded, exit, call);
    }

    /// Ends all guests.
    pub(crate) fn end_guests(hypervisor: &mut Guard) {
        hypervisor.end_guests();
    }
}
