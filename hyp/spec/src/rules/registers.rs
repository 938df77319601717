//! System registers that a guest does not have by itself, the virtual timer, and exceptions that it takes.
//!
//! What a guest finds in its ID registers is what the processor has, and no more than [`CEILINGS`]: an extension that is not
//! in them is not there. Fields: DDI 0487, D24.2; the virtual timer: D24.10.

use alloc::format;

use crate::clause::{Clause, Violation};
use crate::guest::{Follows, SGI, goes_on, takes};
use crate::spec::Spec;
use crate::state::State;
use crate::vm::Vcpu;

/// op0, op1, `CRn`, `CRm` and op2.
pub type Encoding = [u8; 5];

/// What the specification has to know of the processors.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    /// The ID registers: `CRm` * 8 + op2.
    pub id_registers: [u64; 64],
    /// How many list registers there are.
    pub list_registers: usize,
}

/// `CRm` and op2; the largest value of each field, a digit each; fields of which 0xF means that there is nothing.
struct Ceiling(u8, u8, u64, u64);

/// All others are 0.
const CEILINGS: &[Ceiling] = &[
    // PFR0: CSV3, CSV2, DIT, GIC, Advanced SIMD and FP with half precision; no AArch32.
    Ceiling(4, 0, 0x1101_0000_0111_0011, 0x0000_0000_00FF_0000),
    // PFR1: SSBS, BT.
    Ceiling(4, 1, 0x0000_0000_0000_0021, 0),
    // DFR0: Armv8 debug, no more than one of each; the double lock.
    Ceiling(5, 0, 0x0000_00F0_0000_0006, 0),
    // ISAR0: all but TME.
    Ceiling(6, 0, 0xFFFF_FFFF_F0FF_FFF0, 0),
    // ISAR1: all but XS and LS64.
    Ceiling(6, 1, 0x00FF_FFFF_FFFF_FFFF, 0),
    // ISAR2: no WFxT, no MOPS, no 128-bit registers.
    Ceiling(6, 2, 0x0010_0000_1110_FFF0, 0),
    // MMFR0: 40-bit addresses; 4 and 64 KiB without LPA2; no FGT, no ECV.
    Ceiling(7, 0, 0x0000_1000_001F_FFF2, 0x0000_0000_FF00_0000),
    // MMFR1: no VHE, LORegions, XNX, TWED, HCX, TIDCP1.
    Ceiling(7, 1, 0x1101_10F0_0130_2022, 0),
    // MMFR2: no LVA, NV, FWB, EVT.
    Ceiling(7, 2, 0x1021_0011_1010_1111, 0),
];

/// `OSLSR_EL1` (DDI 0487, D24.3.29): there is an OS lock, and it is open.
const OS_LOCK: u64 = 8;
/// `ICC_SRE_EL1` (IHI 0069, 12.2.24): system registers, and no way around them.
const SRE: u64 = 7;
/// ESR (DDI 0487, D24.2.37): an instruction of 32 bits; class 0.
const UNDEFINED: u64 = 1 << 25;
/// ESR: an external abort of a fetch from the same level; from EL0 bit 26 is 0.
const FETCH_ABORT: u64 = 0x21 << 26 | 1 << 25 | 0x10;
const FROM_SAME_LEVEL: u64 = 1 << 26;
/// PSTATE of a vCPU that starts: EL1 with its own stack pointer, all interrupts masked (DEN0022, 6.4.3).
const START_PSTATE: u64 = 0x3C5;
/// `SCTLR_EL1`: MMU, data cache and instruction cache, which are off when a vCPU starts (DEN0022, 6.4.3).
const SCTLR_ON: u64 = 1 | 1 << 2 | 1 << 12;
/// `CNTV_CTL_EL0`: enabled, masked.
const TIMER_ENABLED: u64 = 1;
const TIMER_MASKED: u64 = 2;

/// An exception that EL2 makes a guest take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// `ESR_EL1`.
    pub esr: u64,
    /// `FAR_EL1` is written.
    pub has_address: bool,
}

impl Taken {
    pub(crate) const UNDEFINED: Self = Self {
        esr: UNDEFINED,
        has_address: false,
    };
    pub(crate) const FETCH: Self = Self {
        esr: FETCH_ABORT,
        has_address: true,
    };

    const fn admits(self, seen: Self) -> bool {
        let is_abort = self.has_address;
        let mask = if is_abort { !FROM_SAME_LEVEL } else { u64::MAX };
        self.esr & mask == seen.esr & mask && self.has_address == seen.has_address
    }
}

impl Processors {
    /// What a guest reads, and by which clause.
    fn id_register(&self, crm: u8, op2: u8) -> (Clause, u64) {
        let here = usize::from(crm) * 8 + usize::from(op2);
        let physical = self.id_registers.get(here).copied().unwrap_or(0);
        let Some(Ceiling(_, _, ceiling, absent)) =
            CEILINGS.iter().find(|row| (row.0, row.1) == (crm, op2))
        else {
            return (Clause::IdHidden, 0);
        };
        let mut clause = Clause::IdCeiling;
        let value = (0..64).step_by(4).fold(0, |value, shift| {
            let digit = |word: u64| word >> shift & 0xF;
            let seen = if digit(*absent) == 0xF && digit(physical) == 0xF {
                clause = Clause::IdAbsent;
                0xF
            } else {
                digit(physical).min(digit(*ceiling))
            };
            value | seen << shift
        });
        (clause, value)
    }
}

/// What becomes of an access: what a load finds.
fn access(register: Encoding, read: bool) -> (Clause, Option<u64>) {
    match register {
        [2, 0, 1, 1, 4] if read => (Clause::DebugNothing, Some(OS_LOCK)),
        [2, 0 | 3, 0 | 1 | 7, _, _] => (Clause::DebugNothing, Some(0)),
        // AIDR_EL1, ACTLR_EL1.
        [3, 1, 0, 0, 7] if read => (Clause::ImplementationNothing, Some(0)),
        [3, 0, 1, 0, 1] => (Clause::ImplementationNothing, Some(0)),
        [3, 0, 12, 12, 5] => (Clause::InterfaceFixed, Some(SRE)),
        // ICC_ASGI1R_EL1, ICC_SGI0R_EL1.
        [3, 0, 12, 11, 6 | 7] if !read => (Clause::SgiOfOthers, Some(0)),
        _ => (Clause::RegisterUndefined, None),
    }
}

impl Vcpu {
    /// When the virtual timer fires; nothing if that was not told.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let (control, compare) = self.timer?;
        let fires = control & (TIMER_ENABLED | TIMER_MASKED) == TIMER_ENABLED;
        Some(if fires { compare } else { u64::MAX })
    }
}

impl State {
    /// What must follow from an access of Xn to a system register that traps.
    pub(crate) fn register(
        &mut self,
        name: (u64, u64),
        register: Encoding,
        transfer: u8,
        read: bool,
    ) -> Option<Follows> {
        let processors = self.processors;
        let (handle, index) = name;
        if register == SGI && !read {
            return self.sends(handle, index, transfer);
        }
        let vcpu = self.vms.get_mut(&handle)?.vcpus.get_mut(&index)?;
        let (clause, value) = match register {
            [3, 0, 0, crm @ 0..8, op2 @ 0..8] if read => {
                let known = processors.map(|all| all.id_register(crm, op2));
                let (clause, value) = known.unwrap_or((Clause::IdHidden, 0));
                (clause, Some(value))
            }
            _ => access(register, read),
        };
        let Some(value) = value else {
            return Some(takes(clause, Taken::UNDEFINED));
        };
        vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
        if read {
            vcpu.registers.write(transfer, value);
        }
        let is_id = matches!(register, [3, 0, 0, ..]);
        Some(Follows {
            loose: is_id && processors.is_none(),
            ..goes_on(clause)
        })
    }
}

impl Spec {
    /// Judges ID registers and interrupts of guests, too; to be said before the first VM is there.
    ///
    /// Whoever drives tells what list registers hold at each stop ([`Spec::guest_left`]) and at each entry ([`Spec::guest_prepared`] before
    /// the first one of a run, [`Spec::guest_enters`] after that and after each stop that is no exit), and what the timer's registers are
    /// when a run ends ([`Spec::guest_sets_timer`]).
    pub fn watch(&mut self, processors: Processors) {
        self.state.processors = Some(processors);
    }

    /// A vCPU that runs writes `CNTV_CTL_EL0` and `CNTV_CVAL_EL0`.
    pub fn guest_sets_timer(&mut self, vm: u64, vcpu: u64, control: u64, compare: u64) {
        if let Some(vcpu) = self.state.vcpu_of(vm, vcpu) {
            vcpu.timer = Some((control, compare));
        }
    }

    /// Judges the exception that a vCPU takes after the last event.
    pub fn guest_takes(&self, seen: Option<Taken>) -> Result<(), Violation> {
        let right = self.last.takes;
        let is_right = match (right, seen) {
            (None, None) => true,
            (Some(right), Some(seen)) => right.admits(seen),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if is_right {
            return Ok(());
        }
        let what = format!("the guest takes {seen:x?}, not {right:x?}");
        Err(Violation::new(self.last.clause, what))
    }

    /// Judges PSTATE and `SCTLR_EL1` of a vCPU that was entered by the last call.
    pub fn guest_state(&mut self, pstate: u64, sctlr: u64) -> Result<(), Violation> {
        if !matches!(self.last.clause, Clause::RunStarts | Clause::RegisterSet) {
            return Ok(());
        }
        self.exercised.note(Clause::StartState, self.last.what);
        if pstate == START_PSTATE && sctlr & SCTLR_ON == 0 {
            return Ok(());
        }
        let what = format!("a vCPU starts with PSTATE {pstate:#x} and SCTLR {sctlr:#x}");
        Err(Violation::new(Clause::StartState, what))
    }
}

impl State {
    /// A vCPU by the handle of its VM and its index.
    pub(crate) fn vcpu_of(&mut self, handle: u64, index: u64) -> Option<&mut Vcpu> {
        self.vms.get_mut(&handle)?.vcpus.get_mut(&index)
    }
}
