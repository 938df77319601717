//! What a guest did, in the specification's words: [`Deed`].
//!
//! Not specified, and so passed over, are: interrupts of the timer and of list registers, `WFI` and `WFE`, first use of FP/SIMD,
//! trapped registers (SGIs among them), undefined instructions, calls with an immediate, and aborts that are neither in guest RAM nor one
//! plain load or store that a syndrome describes. Accesses to the interrupt controller and most of PSCI are specified as far as that they
//! change nothing of who owns what.

use pinfold_core::exit::{Access, Conduit, DataAbort, Exit, Fault, FaultKind};
use pinfold_core::vcpu::{GuestContext, LoadedVcpu};
use pinfold_spec::{GuestEvent, GuestRegisters, Spec};

/// What a guest did, with the registers that it had.
pub(crate) struct Deed {
    pub(super) registers: GuestRegisters,
    /// Nothing if that is not specified.
    pub(super) event: Option<GuestEvent>,
    /// Free frames of the pool before.
    pub(super) free: u64,
}

pub(super) fn registers_of(context: &GuestContext) -> GuestRegisters {
    GuestRegisters {
        x: context.x,
        pc: context.pc,
    }
}

/// The class of an illegal execution state (DDI 0487 D24.2.37): no ID register offers `AArch32`, and a guest that is there cannot be.
const ILLEGAL_STATE: u64 = 0x0e << 26;

impl Deed {
    /// The deed that ended in `exit`.
    pub(super) fn of(loaded: &LoadedVcpu, exit: &Exit, spec: &Spec, free: u64) -> Self {
        let [vm, _] = loaded.name();
        let mut registers = registers_of(&loaded.vcpu.context);
        let event = if loaded.vcpu.context.is_aarch32() {
            Some(GuestEvent::Impossible {
                class: ILLEGAL_STATE,
            })
        } else {
            event(exit, |ipa| spec.is_guest_ram(vm, ipa))
        };
        if let Exit::Call(Conduit::Smc(_)) = exit {
            // An SMC traps with the PC on it, and is like an HVC from there on.
            registers.pc = registers.pc.wrapping_add(4);
        }
        Self {
            registers,
            event,
            free,
        }
    }
}

fn event(exit: &Exit, is_ram: impl Fn(u64) -> bool) -> Option<GuestEvent> {
    match exit {
        Exit::Call(Conduit::Hvc(0) | Conduit::Smc(0)) => Some(GuestEvent::Call),
        Exit::Interrupt => Some(GuestEvent::Interrupt),
        Exit::SystemError(class) | Exit::Unexpected(class) => {
            Some(GuestEvent::Impossible { class: *class })
        }
        Exit::InstructionAbort(fault) => fetch(fault),
        Exit::DataAbort(abort) if abort.fault.kind == FaultKind::Translation => data(abort, is_ram),
        Exit::DataAbort(_)
        | Exit::Call(_)
        | Exit::Timer
        | Exit::Maintenance
        | Exit::WaitForInterrupt
        | Exit::WaitForEvent
        | Exit::FloatingPoint
        | Exit::SystemRegister(_)
        | Exit::Undefined => None,
    }
}

fn fetch(fault: &Fault) -> Option<GuestEvent> {
    let is_plain = fault.kind == FaultKind::Translation && !fault.table_walk;
    is_plain.then_some(GuestEvent::Fetch { ipa: fault.ipa })
}

fn data(abort: &DataAbort, is_ram: impl Fn(u64) -> bool) -> Option<GuestEvent> {
    let DataAbort { fault, write, .. } = abort;
    if is_ram(fault.ipa) {
        // How wide it is does not matter there.
        return Some(GuestEvent::Access {
            ipa: fault.ipa,
            width: 8,
            write: *write || fault.table_walk,
            register: 31,
        });
    }
    let Access {
        ipa,
        width,
        write,
        register,
        sign_extend,
        ..
    } = abort.access?;
    let is_plain = !abort.cache_maintenance && !sign_extend;
    is_plain.then_some(GuestEvent::Access {
        ipa,
        width,
        write,
        register,
    })
}
