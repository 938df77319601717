//! Scenarios about the interrupt controller.

use pinfold_abi::claim;
use pinfold_spec::{GuestEvent, Processors};

use crate::host::{GICD, GICR};
use crate::lockstep::{GUEST, Judged, Lockstep};

scenarios! {
    identity, reserved, control, groups, enables, pends, activates, priorities, triggers, routes, widths, kicks_by_write, lines_kick,
    sgis, sgis_elsewhere, level_is_told_again, level_goes, edge_stays, edge_comes_twice, overflow, ends_unlisted, urgent_first,
    timer_is_due, timer_fires, waits_not, software_pends,
}

/// `SGI_base` of vCPU 0.
const PRIVATE: u64 = GICR + 0x1_0000;
const NEXT: u64 = 0x2_0000;
const ENABLE: u64 = 0x100;
const DISABLE: u64 = 0x180;
const PEND: u64 = 0x200;
const UNPEND: u64 = 0x280;
const ACTIVATE: u64 = 0x300;
const DEACTIVATE: u64 = 0x380;
const PRIORITY: u64 = 0x400;
const TRIGGER: u64 = 0xC00;
const ROUTE: u64 = 0x6000;

/// A VM with two vCPUs that are on; vCPU 0 runs. Nothing is enabled.
fn fresh() -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::boot();
    both.watch(&Processors {
        id_registers: [0; 64],
        list_registers: 4,
    });
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    let on = [0xC400_0003, 1, GUEST << 12, 0];
    both.guest(vm, 0, on, GuestEvent::Call)?;
    both.run(vm, 0, 0)?;
    both.run(vm, 1, 0)?;
    both.guest(vm, 1, [0; 4], GuestEvent::Interrupt)?;
    Ok((both, vm))
}

/// Such a VM, where all interrupts are enabled at one priority.
fn ready() -> Judged<(Lockstep, claim::Handle)> {
    let (mut both, vm) = fresh()?;
    both.stores(vm, GICD, 2)?;
    for word in 1..3 {
        both.stores(vm, GICD + ENABLE + 4 * word, 0xFFFF_FFFF)?;
    }
    for word in 8..24 {
        both.stores(vm, GICD + PRIORITY + 4 * word, 0xA0A0_A0A0)?;
    }
    for vcpu in 0..2 {
        both.stores(vm, PRIVATE + NEXT * vcpu + ENABLE, 0xFFFF_FFFF)?;
    }
    Ok((both, vm))
}

impl Lockstep {
    /// vCPU 0 runs, if it does not yet.
    fn goes_on(&mut self, vm: claim::Handle) -> Judged {
        if !self.loaded.contains_key(&(vm.0, 0)) {
            self.run(vm, 0, 0)?;
        }
        Ok(())
    }

    fn accesses(&mut self, vm: claim::Handle, ipa: u64, width: u8, stored: Option<u64>) -> Judged {
        self.goes_on(vm)?;
        let event = GuestEvent::Access {
            ipa,
            width,
            write: stored.is_some(),
            register: 2,
        };
        self.guest(vm, 0, [0, 0, stored.unwrap_or(7), 0], event)
    }

    fn stores(&mut self, vm: claim::Handle, ipa: u64, value: u64) -> Judged {
        self.accesses(vm, ipa, 4, Some(value))
    }

    fn loads(&mut self, vm: claim::Handle, ipa: u64) -> Judged {
        self.accesses(vm, ipa, 4, None)
    }

    /// vCPU 0 writes `ICC_SGI1R_EL1`.
    fn sends(&mut self, vm: claim::Handle, value: u64) -> Judged {
        self.goes_on(vm)?;
        let event = GuestEvent::Register {
            register: [3, 0, 12, 11, 5],
            transfer: 2,
            read: false,
        };
        self.guest(vm, 0, [0, 0, value, 0], event)
    }

    /// vCPU 0 leaves for an interrupt of the host, and comes back.
    fn leaves(&mut self, vm: claim::Handle) -> Judged {
        self.goes_on(vm)?;
        self.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
        self.goes_on(vm)
    }
}

fn identity() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for offset in [0, 4, 8, 0xFFE8] {
        both.loads(vm, GICD + offset)?;
        both.stores(vm, GICD + offset, 0)?;
    }
    for offset in [0, 4, 8, 0xC, 0x14, 0xFFE8] {
        both.loads(vm, GICR + offset)?;
        both.loads(vm, GICR + NEXT + offset)?;
    }
    Ok(both)
}

fn reserved() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for ipa in [
        GICD + 0xC,
        GICD + ENABLE,
        GICD + PRIORITY,
        GICD + 0xF00,
        GICD + ENABLE + 4 * 9,
        GICD + ROUTE,
        GICD + ROUTE + 8 * 288,
        GICR,
        GICR + 0x14,
        GICR + 0x70,
        PRIVATE + ENABLE + 4,
        PRIVATE + PRIORITY + 32,
        PRIVATE + 0xF000,
    ] {
        both.stores(vm, ipa, 0xFFFF_FFFF)?;
        both.loads(vm, ipa)?;
    }
    Ok(both)
}

fn control() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.stores(vm, GICD, 0)?;
    both.loads(vm, GICD)?;
    both.stores(vm, GICD, 2)?;
    both.line(vm, 32, 1)?;
    both.stores(vm, GICD, 0)?;
    both.loads(vm, GICD)?;
    both.leaves(vm)?;
    both.stores(vm, GICD, 0xFFFF_FFFF)?;
    both.loads(vm, GICD)?;
    Ok(both)
}

fn groups() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for ipa in [GICD + 0x84, PRIVATE + 0x80] {
        both.stores(vm, ipa, 0)?;
        both.loads(vm, ipa)?;
    }
    Ok(both)
}

/// Writes both registers of a pair, and reads each after it.
fn pair(set: u64, clear: u64) -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for (base, word) in [(PRIVATE + NEXT, 0), (GICD, 4), (GICD, 32), (PRIVATE, 0)] {
        for (register, value) in [
            (set, 0xF0F0_FFFF),
            (clear, 0xFF00_0F0F),
            (clear, 0),
            (set, 1),
        ] {
            both.stores(vm, base + register + word, value)?;
            both.loads(vm, base + set + word)?;
            both.loads(vm, base + clear + word)?;
        }
    }
    Ok(both)
}

fn enables() -> Judged<Lockstep> {
    pair(ENABLE, DISABLE)
}

fn pends() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    both.line(vm, 40, 1)?;
    both.stores(vm, GICD + UNPEND + 4, 0xFFFF_FFFF)?;
    both.loads(vm, GICD + PEND + 4)?;
    both.line(vm, 40, 0)?;
    both.loads(vm, GICD + PEND + 4)?;
    pair(PEND, UNPEND)
}

fn activates() -> Judged<Lockstep> {
    pair(ACTIVATE, DEACTIVATE)
}

fn priorities() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for base in [
        GICD + PRIORITY + 32,
        GICD + PRIORITY + 284,
        PRIVATE + PRIORITY + 28,
    ] {
        both.stores(vm, base, 0x1122_3344)?;
        both.accesses(vm, base + 1, 1, Some(0xEE))?;
        both.loads(vm, base)?;
        both.accesses(vm, base + 3, 1, None)?;
    }
    Ok(both)
}

fn triggers() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    for base in [
        GICD + TRIGGER + 8,
        GICD + TRIGGER + 68,
        PRIVATE + TRIGGER,
        PRIVATE + TRIGGER + 4,
    ] {
        both.loads(vm, base)?;
        both.stores(vm, base, 0xFFFF_0F0B)?;
        both.loads(vm, base)?;
    }
    Ok(both)
}

fn routes() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    let here = GICD + ROUTE + 8 * 33;
    for route in [1, 0xFF_00FF_FFFF, 1 << 31 | 7, u64::MAX, 5] {
        both.accesses(vm, here, 8, Some(route))?;
        both.accesses(vm, here, 8, None)?;
        both.loads(vm, here + 4)?;
        both.line(vm, 33, 1)?;
        both.leaves(vm)?;
        both.line(vm, 33, 0)?;
    }
    Ok(both)
}

fn widths() -> Judged<Lockstep> {
    let (mut both, vm) = fresh()?;
    both.accesses(vm, GICR + NEXT + 8, 8, None)?;
    both.accesses(vm, GICD + PRIORITY + 40, 8, Some(0x0102_0304_0506_0708))?;
    both.accesses(vm, GICD + PRIORITY + 42, 2, None)?;
    both.accesses(vm, GICD + PRIORITY + 40, 8, None)?;
    both.accesses(vm, GICD + PRIORITY + 40, 1, Some(0x90))?;
    for wide in [false, true] {
        let signed = GuestEvent::SignedLoad {
            ipa: GICD + PRIORITY + 40,
            width: 1,
            register: 2,
            wide,
        };
        both.guest(vm, 0, [0; 4], signed)?;
    }
    Ok(both)
}

fn kicks_by_write() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.accesses(vm, GICD + ROUTE + 8 * 40, 8, Some(1))?;
    both.stores(vm, GICD + PEND + 4, 1 << 8)?;
    both.stores(vm, GICD + UNPEND + 4, 1 << 8)?;
    both.stores(vm, PRIVATE + NEXT + PEND, 1 << 20)?;
    both.run(vm, 1, 0)?;
    Ok(both)
}

fn lines_kick() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.accesses(vm, GICD + ROUTE + 8 * 40, 8, Some(1))?;
    for intid in [32, 40, 96, 287] {
        both.line(vm, intid, 1)?;
        both.line(vm, intid, 0)?;
    }
    // vCPU 0 has it.
    both.line(vm, 32, 1)?;
    both.leaves(vm)?;
    both.line(vm, 32, 0)?;
    Ok(both)
}

fn sgis() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    for value in [1, 2, 3 | 5 << 24, 1 << 40 | 7 << 24, 0xFFFC, 0xF << 24 | 2] {
        both.sends(vm, value)?;
    }
    both.run(vm, 1, 0)?;
    both.goes_on(vm)?;
    while let Some(intid) = both.takes(vm, 0) {
        both.ends(vm, 0, intid);
        both.guest(vm, 0, [0; 4], GuestEvent::Maintenance)?;
    }
    Ok(both)
}

fn sgis_elsewhere() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    for field in [16, 32, 44, 48] {
        both.sends(vm, 1 << field | 1)?;
        both.sends(vm, 1 << field | 3)?;
    }
    Ok(both)
}

/// A level that is high when its interrupt ends comes again.
fn level_is_told_again() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.line(vm, 50, 1)?;
    both.leaves(vm)?;
    both.takes(vm, 0);
    both.leaves(vm)?;
    both.loads(vm, GICD + ACTIVATE + 4)?;
    both.loads(vm, GICD + PEND + 4)?;
    both.ends(vm, 0, 50);
    both.guest(vm, 0, [0; 4], GuestEvent::Maintenance)?;
    Ok(both)
}

/// A level that falls before its interrupt is taken is gone.
fn level_goes() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.line(vm, 50, 1)?;
    both.leaves(vm)?;
    both.line(vm, 50, 0)?;
    both.leaves(vm)?;
    both.loads(vm, GICD + PEND + 4)?;
    Ok(both)
}

fn edge_stays() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.stores(vm, GICD + TRIGGER + 12, 2 << 4)?;
    both.line(vm, 50, 1)?;
    both.line(vm, 50, 0)?;
    both.leaves(vm)?;
    both.leaves(vm)?;
    both.loads(vm, GICD + PEND + 4)?;
    both.takes(vm, 0);
    both.loads(vm, GICD + PEND + 4)?;
    both.ends(vm, 0, 50);
    both.leaves(vm)?;
    Ok(both)
}

/// An edge that comes while the interrupt is active makes it pending, too.
fn edge_comes_twice() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.stores(vm, GICD + TRIGGER + 12, 2 << 4)?;
    both.line(vm, 50, 1)?;
    both.leaves(vm)?;
    both.takes(vm, 0);
    both.line(vm, 50, 0)?;
    both.line(vm, 50, 1)?;
    both.leaves(vm)?;
    both.ends(vm, 0, 50);
    both.leaves(vm)?;
    both.takes(vm, 0);
    both.ends(vm, 0, 50);
    both.leaves(vm)?;
    Ok(both)
}

fn overflow() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    for intid in 60..67 {
        both.line(vm, intid, 1)?;
    }
    both.leaves(vm)?;
    let taken = both.takes(vm, 0).unwrap();
    both.accesses(vm, GICD + PRIORITY + 66, 1, Some(0x10))?;
    both.ends(vm, 0, taken);
    both.guest(vm, 0, [0; 4], GuestEvent::Maintenance)?;
    Ok(both)
}

/// What is active keeps its list register when something more urgent comes.
fn urgent_first() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.line(vm, 60, 1)?;
    both.leaves(vm)?;
    both.takes(vm, 0);
    both.line(vm, 60, 0)?;
    for intid in 33..38 {
        both.accesses(vm, GICD + PRIORITY + intid, 1, Some(0x20))?;
        both.line(vm, intid, 1)?;
    }
    both.leaves(vm)?;
    Ok(both)
}

/// Five interrupts are active in four list registers, and the guest ends all of them.
fn ends_unlisted() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.stores(vm, GICD + ACTIVATE + 4, 0x1F)?;
    for intid in 32..37 {
        both.ends(vm, 0, intid);
    }
    both.leaves(vm)?;
    both.loads(vm, GICD + ACTIVATE + 4)?;
    Ok(both)
}

fn timer_is_due() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    for (control, compare) in [(1, 100), (1, 101), (3, 50), (0, 50), (1, u64::MAX)] {
        both.sets_timer(vm, 0, control, compare);
        both.now = Some(100);
        both.leaves(vm)?;
        both.loads(vm, PRIVATE + PEND)?;
    }
    Ok(both)
}

fn timer_fires() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.sets_timer(vm, 0, 1, 100);
    both.guest(vm, 0, [0; 4], GuestEvent::Timer)?;
    both.takes(vm, 0);
    both.loads(vm, PRIVATE + ACTIVATE)?;
    both.now = Some(100);
    both.leaves(vm)?;
    both.ends(vm, 0, 27);
    both.leaves(vm)?;
    Ok(both)
}

fn waits_not() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.line(vm, 32, 1)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Wait)?;
    both.guest(vm, 0, [0x8400_0001, 0, 0, 0], GuestEvent::Call)?;
    both.line(vm, 32, 0)?;
    both.goes_on(vm)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Wait)?;
    Ok(both)
}

/// Software makes a level pending, once.
fn software_pends() -> Judged<Lockstep> {
    let (mut both, vm) = ready()?;
    both.stores(vm, GICD + PEND + 4, 1 << 18)?;
    both.leaves(vm)?;
    both.takes(vm, 0);
    both.leaves(vm)?;
    both.ends(vm, 0, 50);
    both.leaves(vm)?;
    Ok(both)
}
