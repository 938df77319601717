//! A guest's turn on this CPU: enter, let core decide, resume or leave.

use aarch64_cpu::registers::{ID_AA64ISAR0_EL1, ID_AA64MMFR2_EL1};
use pinfold_core::hypervisor::CallRegisters;
use pinfold_core::id_registers::{ID_REGISTERS, Processor};
use pinfold_core::run::Resumption;
use pinfold_core::vcpu::LoadedVcpu;
use spin::Once;

use crate::sysreg::{
    ID_AA64DFR0_EL1, ID_AA64ISAR1_EL1, ID_AA64ISAR2_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1,
    ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, Readable,
};
use crate::trace::Mark;
use crate::world::World;
use crate::{gic, hypervisor, judged, panic, trace};

/// What core wants to know of the CPUs, read once.
static PROCESSOR: Once<Processor> = Once::new();

/// What core wants to know of the CPUs.
pub(crate) fn processor() -> &'static Processor {
    PROCESSOR.call_once(read)
}

/// The ID registers of which a guest sees anything, by `CRm` * 8 + op2, and how many list registers there are.
fn read() -> Processor {
    let mut id_registers = [0; ID_REGISTERS];
    let known = [
        (32, ID_AA64PFR0_EL1.get()),
        (33, ID_AA64PFR1_EL1.get()),
        (40, ID_AA64DFR0_EL1.get()),
        (48, ID_AA64ISAR0_EL1.get()),
        (49, ID_AA64ISAR1_EL1.get()),
        (50, ID_AA64ISAR2_EL1.get()),
        (56, ID_AA64MMFR0_EL1.get()),
        (57, ID_AA64MMFR1_EL1.get()),
        (58, ID_AA64MMFR2_EL1.get()),
    ];
    for (index, value) in known {
        if let Some(register) = id_registers.get_mut(index) {
            *register = value;
        }
    }
    Processor {
        id_registers,
        list_registers: gic::list_registers(),
    }
}

/// Runs the vCPU until core says that the host has to know; `call` is the host's `VCPU_RUN`, noted as `mark`, which is
/// where its answer is to be noted when this returns.
pub(crate) fn run(mut loaded: LoadedVcpu, call: &mut CallRegisters, mark: Mark) -> Mark {
    let processor = processor();
    judged::prepare_entry(&mut loaded, processor);
    let mut world = World::load(&mut loaded);
    let (reason, kept) = loop {
        let exit = world.enter(&mut loaded);
        panic::park_if_panicking();
        let noted = trace::guest_exit(&loaded, &exit);
        // The lock is free again before the guest is entered.
        let mut hypervisor = hypervisor::lock();
        let (resumption, deed) = judged::guest_exit(&mut hypervisor, &mut loaded, exit, processor);
        match resumption {
            Resumption::Guest => {}
            Resumption::GuestWithFloatingPoint => world.give_fp(&loaded),
            Resumption::Host(reason) => {
                noted.left(reason);
                break (reason, judged::keep(hypervisor, deed));
            }
        }
    };
    world.put(&mut loaded);
    let mark = trace::last_call(mark, call);
    judged::finish_run(kept, loaded, reason, call);
    mark
}
