//! The guest's registers keep their values over every kind of exit.

use guest_test::canary::{self, Canaries, SYSTEM_REGISTERS, Trigger};
use guest_test::smccc::psci;
use guest_test::tap::Outcome;
use guest_test::{bytes, check, check_eq, port, tests};

/// The owner of the guest's canaries.
const GUEST: u16 = 0x6e57;

/// Lets one event happen with canaries everywhere; `inputs` are the registers that the event needs, `outputs` those that it may change.
fn survive(event: Trigger, inputs: &[(usize, u64)], outputs: &[usize]) -> Outcome {
    let mut canaries = Canaries::of(GUEST);
    for (register, word) in inputs {
        if let Some(place) = canaries.x.get_mut(*register) {
            *place = *word;
        }
    }
    let before = canaries.clone();
    let own = canary::read_system_registers();
    let system = canary::system_canaries(GUEST);
    // SAFETY: nothing here faults until the old values are back.
    unsafe { canary::write_system_registers(&system) };
    // SAFETY: the events of this module reach only the port and scratch memory.
    unsafe { canaries.around(event) };
    let system_after = canary::read_system_registers();
    // SAFETY: these are the values that were there.
    unsafe { canary::write_system_registers(&own) };
    for (register, (found, wanted)) in canaries.x.iter().zip(before.x).enumerate() {
        check!(
            outputs.contains(&register) || *found == wanted,
            "{event:?}: x{register} is {found:#x}, was {wanted:#x}"
        );
    }
    for (register, (found, wanted)) in canaries.v.iter().zip(before.v).enumerate() {
        check!(
            *found == wanted,
            "{event:?}: v{register} is {found:#x}, was {wanted:#x}"
        );
    }
    check_eq!(canaries.fp, before.fp, "{event:?}: FPCR and FPSR");
    for ((name, mask), (found, wanted)) in
        SYSTEM_REGISTERS.iter().zip(system_after.iter().zip(system))
    {
        check!(
            found & mask == wanted,
            "{event:?}: {name} is {found:#x}, was {wanted:#x}"
        );
    }
    Ok(())
}

/// SMCCC 1.1: a call may change x0..x3 only.
const CALL: &[usize] = &[0, 1, 2, 3];

tests! { "registers":
    /// Over a call that the hypervisor answers.
    over_hypercall {
        survive(Trigger::Hvc, &[(0, u64::from(psci::VERSION))], CALL)?;
        survive(Trigger::Hvc, &[(0, u64::from(u32::MAX))], CALL)?;
    }

    /// Over a device write that the host sees.
    over_device_write {
        survive(Trigger::Store, &[(1, port::TELL)], &[])?;
    }

    /// Over a device read that the host answers.
    over_device_read {
        survive(Trigger::Load, &[(1, port::ASK)], &[3])?;
    }

    /// Over a first touch of memory.
    over_memory_fault {
        survive(Trigger::Store, &[(1, port::SCRATCH)], &[])?;
        survive(Trigger::Load, &[(1, port::SCRATCH + bytes::FRAME)], &[3])?;
    }

    /// Over a WFI; its deadline is one that has passed.
    over_wfi {
        guest_test::timer::arm_virtual(0);
        survive(Trigger::Wfi, &[], &[])?;
        guest_test::timer::stop_virtual();
    }

    /// The ID registers offer nothing that the guest was not given.
    identity {
        use aarch64_cpu::registers::{ID_AA64PFR0_EL1, MPIDR_EL1, Readable};
        let features = ID_AA64PFR0_EL1.get();
        check_eq!(features >> 8 & 0xff, 0, "EL2 and EL3 in ID_AA64PFR0_EL1");
        check_eq!(features >> 32 & 0xf, 0, "SVE in ID_AA64PFR0_EL1");
        check_eq!(MPIDR_EL1.get() & 0xff_00ff_ffff, 0, "affinity of vCPU 0");
    }

    /// The keys of pointer authentication begin as nobody's, and keep what the guest writes.
    keys {
        let mut wanted = [0; canary::KEYS.len()];
        for round in 0..3 {
            port::tell(round);
            check_eq!(canary::read_keys(), wanted, "keys in round {round}");
            for (number, key) in (0x500..).zip(&mut wanted) {
                *key = canary::value(GUEST, number + round);
            }
            // SAFETY: this image authenticates no pointer.
            unsafe { canary::write_keys(&wanted) };
        }
    }
}
