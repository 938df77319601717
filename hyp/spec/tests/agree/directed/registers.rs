//! Scenarios about system registers, waiting and exceptions.

use pinfold_abi::claim;
use pinfold_spec::{Encoding, GuestEvent, Processors};

use crate::lockstep::{Judged, Lockstep};

scenarios! {
    id_registers, id_registers_absent, debug_registers, implementation_registers, interface_registers, unknown_registers,
    undefined_instruction, floating_point, waits, waits_for_timer, waits_for_event,
}

/// A started VM whose vCPU 0 runs, on processors whose ID registers all say the same.
fn running(id: u64) -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::boot();
    both.watch(&Processors {
        id_registers: [id; 64],
        list_registers: 4,
    });
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    Ok((both, vm))
}

impl Lockstep {
    /// vCPU 0 reads a register to X5, then writes X3 to it.
    fn touches(&mut self, vm: claim::Handle, register: Encoding) -> Judged {
        self.reads(vm, register)?;
        let event = GuestEvent::Register {
            register,
            transfer: 3,
            read: false,
        };
        self.guest(vm, 0, [1, 2, 3, u64::MAX], event)
    }

    /// vCPU 0 reads a register to X5.
    fn reads(&mut self, vm: claim::Handle, register: Encoding) -> Judged {
        let event = GuestEvent::Register {
            register,
            transfer: 5,
            read: true,
        };
        self.guest(vm, 0, [1, 2, 3, 4], event)
    }
}

fn id_registers() -> Judged<Lockstep> {
    for id in [
        0,
        0x1111_1111_1111_1111,
        0x0123_4567_89AB_CDEF,
        0xFEDC_BA98_7654_3210,
    ] {
        reads_all(id)?;
    }
    reads_all(u64::MAX)
}

/// Reads what is in the space of ID registers, and writes to two of them.
fn reads_all(id: u64) -> Judged<Lockstep> {
    let (mut both, vm) = running(id)?;
    for (crm, op2) in (0..16).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
        both.reads(vm, [3, 0, 0, crm, op2])?;
    }
    both.touches(vm, [3, 0, 0, 4, 0])?;
    both.touches(vm, [3, 0, 0, 3, 7])?;
    Ok(both)
}

/// Neither FP nor the granules of 64 and 4 KiB.
fn id_registers_absent() -> Judged<Lockstep> {
    let (mut both, vm) = running(0x0000_0000_FFFF_0000)?;
    both.reads(vm, [3, 0, 0, 4, 0])?;
    both.reads(vm, [3, 0, 0, 7, 0])?;
    Ok(both)
}

fn debug_registers() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for (op1, crn, crm, op2) in [
        (0, 0, 2, 2),
        (0, 0, 0, 5),
        (0, 0, 15, 7),
        (0, 1, 0, 4),
        (0, 1, 1, 4),
        (0, 7, 8, 6),
        (3, 0, 4, 0),
    ] {
        both.touches(vm, [2, op1, crn, crm, op2])?;
    }
    Ok(both)
}

fn implementation_registers() -> Judged<Lockstep> {
    let (mut both, vm) = running(u64::MAX)?;
    both.touches(vm, [3, 1, 0, 0, 7])?;
    both.touches(vm, [3, 0, 1, 0, 1])?;
    Ok(both)
}

/// `ICC_SRE_EL1`, `ICC_SGI1R_EL1`, `ICC_ASGI1R_EL1` and `ICC_SGI0R_EL1`.
fn interface_registers() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for (crm, op2) in [(12, 5), (11, 5), (11, 6), (11, 7)] {
        both.touches(vm, [3, 0, 12, crm, op2])?;
    }
    Ok(both)
}

/// A few of each kind: PMU, physical timer, SVE, `TCR2_EL1`, RAS, trace, set/way, and what nobody has defined.
fn unknown_registers() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for register in [
        [3, 3, 9, 12, 0],
        [3, 3, 14, 2, 1],
        [3, 0, 1, 2, 0],
        [3, 0, 2, 0, 3],
        [3, 0, 5, 3, 0],
        [2, 1, 0, 1, 0],
        [1, 0, 7, 6, 2],
        [3, 0, 11, 0, 0],
        [3, 4, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ] {
        both.touches(vm, register)?;
    }
    Ok(both)
}

fn undefined_instruction() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::Undefined)?;
    Ok(both)
}

fn floating_point() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::FloatingPoint)?;
    Ok(both)
}

fn waits() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::Wait)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

/// The deadline is that of a timer that is enabled and not masked.
fn waits_for_timer() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for (control, compare) in [(1, 1000), (3, 1000), (0, 1000), (2, 7), (5, 1 << 56)] {
        both.sets_timer(vm, 0, control, compare);
        both.guest(vm, 0, [0; 4], GuestEvent::Wait)?;
        both.run(vm, 0, 0)?;
    }
    Ok(both)
}

fn waits_for_event() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::WaitForEvent)?;
    Ok(both)
}
