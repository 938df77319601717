//! What a guest did, in the specification's words: [`Deed`].
//!
//! Not specified, and so passed over, are aborts that are neither of stage 2's making nor one plain load or store that a syndrome
//! describes, and walks of the guest's own tables (ADR 9).

use pinfold_core::exit::{Access, Conduit, DataAbort, Exit, Fault, FaultKind};
use pinfold_core::sysreg::SystemRegister;
use pinfold_core::vcpu::{GuestContext, LoadedVcpu};
use pinfold_spec::{Encoding, Entry, GuestEvent, GuestRegisters, Spec, Taken};

/// The class of an illegal state (DDI 0487, D24.2.37), where it stands in an ESR: what AArch32 is for a guest that does not have it.
const ILLEGAL_STATE: u64 = 0x0E << 26;

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

/// What the list registers of a vCPU hold.
pub(super) fn entry_of(loaded: &LoadedVcpu) -> Entry<'_> {
    let lists = &loaded.vcpu.lists;
    Entry {
        lists: lists.values.get(..lists.used).unwrap_or_default(),
        control: lists.control,
        timer_held: lists.timer_held,
    }
}

/// The exception that a vCPU takes when it goes on.
pub(super) fn taken_by(loaded: &LoadedVcpu) -> Option<Taken> {
    let injection = loaded.vcpu.injection.as_ref()?;
    Some(Taken {
        esr: injection.esr,
        has_address: injection.far.is_some(),
    })
}

impl Deed {
    /// The deed that ended in `exit`.
    pub(super) fn of(loaded: &LoadedVcpu, exit: &Exit, spec: &Spec, free: u64) -> Self {
        let [vm, _] = loaded.name();
        let context = &loaded.vcpu.context;
        let event = if context.is_aarch32() {
            Some(GuestEvent::Impossible {
                class: ILLEGAL_STATE,
            })
        } else {
            event(exit, |ipa| spec.is_guest_ram(vm, ipa))
        };
        Self {
            registers: registers_of(context),
            event,
            free,
        }
    }
}

fn event(exit: &Exit, is_ram: impl Fn(u64) -> bool) -> Option<GuestEvent> {
    match exit {
        Exit::Call(Conduit::Hvc(0)) => Some(GuestEvent::Call),
        Exit::Call(Conduit::Hvc(immediate)) => Some(GuestEvent::CallBy {
            smc: false,
            immediate: *immediate,
        }),
        Exit::Call(Conduit::Smc(immediate)) => Some(GuestEvent::CallBy {
            smc: true,
            immediate: *immediate,
        }),
        Exit::Interrupt => Some(GuestEvent::Interrupt),
        Exit::Timer => Some(GuestEvent::Timer),
        Exit::Maintenance => Some(GuestEvent::Maintenance),
        Exit::WaitForInterrupt => Some(GuestEvent::Wait),
        Exit::WaitForEvent => Some(GuestEvent::WaitForEvent),
        Exit::FloatingPoint => Some(GuestEvent::FloatingPoint),
        Exit::SystemRegister(access) => Some(GuestEvent::Register {
            register: encoding(access.register),
            transfer: access.transfer,
            read: access.read,
        }),
        Exit::Undefined => Some(GuestEvent::Undefined),
        Exit::SystemError(class) | Exit::Unexpected(class) => {
            Some(GuestEvent::Impossible { class: *class })
        }
        Exit::InstructionAbort(fault) => fetch(fault),
        Exit::DataAbort(abort) if is_judged(&abort.fault) => data(abort, is_ram),
        Exit::DataAbort(_) => None,
    }
}

/// Whether the specification knows the fault: nothing is there, or what is there does not allow it. A walk of the guest's own tables is not allowed for what
/// the processor makes of it.
fn is_judged(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::Translation => true,
        FaultKind::Permission => !fault.table_walk,
        FaultKind::External | FaultKind::Other => false,
    }
}

const fn encoding(register: SystemRegister) -> Encoding {
    let SystemRegister {
        op0,
        op1,
        crn,
        crm,
        op2,
    } = register;
    [op0, op1, crn, crm, op2]
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
        wide,
    } = abort.access.filter(|_| !abort.cache_maintenance)?;
    Some(if sign_extend {
        GuestEvent::SignedLoad {
            ipa,
            width,
            register,
            wide,
        }
    } else {
        GuestEvent::Access {
            ipa,
            width,
            write,
            register,
        }
    })
}
