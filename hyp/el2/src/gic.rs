//! The GIC as EL2 needs it: the virtual CPU interface, and the two private interrupts that are EL2's own.
//!
//! PPI 27 (virtual timer) and PPI 25 (maintenance) fire for a guest that runs, and for nobody else; EL2 looks at what is
//! pending without acknowledging it, and binds the timer's activity to that of the guest's list register. Everything else
//! is the host's. Invariant: while the host runs, all list registers are invalid and the interface is off.
//!
//! IHI 0069 12.4 (`ICH_*`), 12.11 (redistributor).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use aarch64_cpu::registers::{ICH_AP0R0_EL2, ICH_AP0R1_EL2, ICH_AP0R2_EL2, ICH_AP0R3_EL2};
use aarch64_cpu::registers::{ICH_AP1R0_EL2, ICH_AP1R1_EL2, ICH_AP1R2_EL2, ICH_AP1R3_EL2};
use aarch64_cpu::registers::{ICH_HCR_EL2, ICH_VMCR_EL2, ICH_VTR_EL2};
use pinfold_core::exit::{MAINTENANCE_INTID, VIRTUAL_TIMER_INTID};
use pinfold_core::redistributor::{self, CONTROL_FRAME, Direction};
use pinfold_core::vcpu::InterfaceState;
use pinfold_core::vgic::{ListRegisters, MAX_LISTS};

use crate::percpu::{self, CPUS};
use crate::platform::{AFFINITY, Bytes};
use crate::sysreg::{ICC_HPPIR1_EL1, Readable, Writeable};
use crate::translation::barrier;
use crate::width::{narrow, wide};

/// The private interrupts that are EL2's.
const OWN: u32 = 1 << VIRTUAL_TIMER_INTID | 1 << MAINTENANCE_INTID;
const TIMER: u32 = 1 << VIRTUAL_TIMER_INTID;

/// Bytes of one redistributor: `RD_base` and `SGI_base`.
const REDISTRIBUTOR: usize = 0x2_0000;
/// `GICR_TYPER`'s lower half, and its field Last.
const TYPER: usize = 0x8;
const TYPER_LAST: u32 = 1 << 4;
/// `GICR_TYPER`'s upper half: the affinity.
const TYPER_AFFINITY: usize = 0xc;
/// `SGI_base`.
const SGI: usize = 0x1_0000;
const IGROUPR0: usize = SGI + 0x80;
const ISENABLER0: usize = SGI + 0x100;
const ISACTIVER0: usize = SGI + 0x300;
const ICACTIVER0: usize = SGI + 0x380;

/// The redistributor of each CPU; 0 until [`set_redistributors`].
static REDISTRIBUTORS: [AtomicUsize; CPUS] = [const { AtomicUsize::new(0) }; CPUS];

/// One redistributor, mapped as device memory for ever.
#[derive(Clone, Copy)]
struct Redistributor(usize);

impl Redistributor {
    /// This CPU's.
    fn current() -> Option<Self> {
        let address = REDISTRIBUTORS
            .get(percpu::current().index())?
            .load(Ordering::Relaxed);
        (address != 0).then_some(Self(address))
    }

    fn read(self, offset: usize) -> u32 {
        let register = core::ptr::with_exposed_provenance::<u32>(self.0 + offset);
        // SAFETY: `set_redistributors` was given mapped frames, and the offset is that of a register in them.
        unsafe { register.read_volatile() }
    }

    fn write(self, offset: usize, value: u32) {
        let register = core::ptr::with_exposed_provenance_mut::<u32>(self.0 + offset);
        // SAFETY: as for `read`; what is written concerns EL2's own two interrupts, or is the host's, less LPIs.
        unsafe { register.write_volatile(value) };
    }
}

/// Notes which redistributor is which CPU's. `ranges` are mapped as device memory, and stay so.
pub(crate) fn set_redistributors(ranges: impl Iterator<Item = Bytes>) {
    for range in ranges {
        for frame in (narrow(range.start)..narrow(range.end)).step_by(REDISTRIBUTOR) {
            let redistributor = Redistributor(frame);
            let [aff0, aff1, aff2, aff3] = redistributor.read(TYPER_AFFINITY).to_le_bytes();
            let mpidr =
                u64::from(u32::from_le_bytes([aff0, aff1, aff2, 0])) | u64::from(aff3) << 32;
            let cpu = percpu::by_affinity(mpidr & AFFINITY);
            if let Some(place) = cpu.and_then(|cpu| REDISTRIBUTORS.get(cpu.index())) {
                place.store(frame, Ordering::Relaxed);
            }
            // Behind the last there may be nothing that answers.
            if redistributor.read(TYPER) & TYPER_LAST != 0 {
                break;
            }
        }
    }
}

/// The control frames of all redistributors, which the host reaches by [`control_access`] only.
pub(crate) fn control_frames() -> Vec<Bytes> {
    let control = |start| Bytes {
        start,
        end: start + CONTROL_FRAME,
    };
    REDISTRIBUTORS
        .iter()
        .map(|place| wide(place.load(Ordering::Relaxed)))
        .filter(|start| *start != 0)
        .map(control)
        .collect()
}

/// Does what a load or store of the host to the word or doubleword at `address` would, less LPIs, if it lies in a control frame:
/// says what was read, 0 for a store.
pub(crate) fn control_access(address: u64, is_word: bool, stored: Option<u64>) -> Option<u64> {
    let size = if is_word { 4 } else { 8 };
    let place = REDISTRIBUTORS.iter().find_map(|place| {
        let start = wide(place.load(Ordering::Relaxed));
        let offset = address.checked_sub(start)?;
        (start != 0 && offset < CONTROL_FRAME && offset % size == 0).then_some((start, offset))
    });
    let (start, offset) = place?;
    let redistributor = Redistributor(narrow(start));
    let register = narrow(offset);
    let halves = if is_word { 1 } else { 2 };
    let mut read = 0;
    for half in 0..halves {
        let register = register + 4 * half;
        let shift = 32 * half;
        if let Some(value) = stored {
            let keep = redistributor::filter(wide(register), Direction::Write);
            redistributor.write(register, low_half((value >> shift) & keep));
        } else {
            let keep = redistributor::filter(wide(register), Direction::Read);
            read |= (u64::from(redistributor.read(register)) & keep) << shift;
        }
    }
    Some(read)
}

fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Makes sure that EL2's own interrupts reach this CPU: the host may have initialized its redistributor again.
pub(crate) fn claim_own_interrupts() {
    let Some(redistributor) = Redistributor::current() else {
        return;
    };
    let groups = redistributor.read(IGROUPR0);
    if groups & OWN != OWN {
        redistributor.write(IGROUPR0, groups | OWN);
    }
    if redistributor.read(ISENABLER0) & OWN != OWN {
        redistributor.write(ISENABLER0, OWN);
    }
}

/// Makes the physical timer interrupt active, so that it does not fire until the guest has finished the virtual one.
pub(crate) fn hold_timer() {
    if let Some(redistributor) = Redistributor::current() {
        redistributor.write(ISACTIVER0, TIMER);
        barrier::system();
    }
}

/// Makes the physical timer interrupt inactive.
pub(crate) fn release_timer() {
    if let Some(redistributor) = Redistributor::current() {
        redistributor.write(ICACTIVER0, TIMER);
        barrier::system();
    }
}

/// INTID of the pending interrupt of the highest priority, which stays pending.
pub(crate) fn highest_pending() -> u32 {
    let [a, b, c, _, ..] = ICC_HPPIR1_EL1.get().to_le_bytes();
    u32::from_le_bytes([a, b, c, 0])
}

/// How many list registers this CPU has.
pub(crate) fn list_registers() -> usize {
    usize::try_from(ICH_VTR_EL2.get() & 0x1f).map_or(1, |last| (last + 1).min(MAX_LISTS))
}

/// How many active-priority registers of each group there are: by `ICH_VTR_EL2.PREbits`.
fn active_priority_registers() -> usize {
    match (ICH_VTR_EL2.get() >> 26) & 7 {
        0..=4 => 1,
        5 => 2,
        _ => 4,
    }
}

macro_rules! active_priorities {
    ($($register:ident),*) => {
        ([$(|| $register.get()),*], [$(|value| $register.set(value)),*])
    };
}

/// Readers and writers of a group's active-priority registers.
type Priorities = ([fn() -> u64; 4], [fn(u64); 4]);
const GROUP_0: Priorities =
    active_priorities!(ICH_AP0R0_EL2, ICH_AP0R1_EL2, ICH_AP0R2_EL2, ICH_AP0R3_EL2);
const GROUP_1: Priorities =
    active_priorities!(ICH_AP1R0_EL2, ICH_AP1R1_EL2, ICH_AP1R2_EL2, ICH_AP1R3_EL2);

unsafe extern "C" {
    /// world.S: reads `count` list registers to `values`.
    fn save_lists(values: *mut u64, count: usize);
    /// world.S: writes `count` list registers from `values`.
    fn load_lists(values: *const u64, count: usize);
}

/// Gives a guest its CPU interface.
pub(crate) fn load_interface(state: &InterfaceState) {
    ICH_VMCR_EL2.set(state.vmcr);
    let count = active_priority_registers();
    for ((_, writers), values) in [(GROUP_0, &state.ap0r), (GROUP_1, &state.ap1r)] {
        for (write, value) in writers.iter().zip(values).take(count) {
            write(*value);
        }
    }
}

/// Takes the CPU interface from a guest, and switches it off.
pub(crate) fn save_interface(state: &mut InterfaceState) {
    ICH_HCR_EL2.set(0);
    state.vmcr = ICH_VMCR_EL2.get();
    let count = active_priority_registers();
    for ((readers, _), values) in [(GROUP_0, &mut state.ap0r), (GROUP_1, &mut state.ap1r)] {
        for (read, value) in readers.iter().zip(values).take(count) {
            *value = read();
        }
    }
}

/// Writes the list registers in use and clears those up to `before`, which were; returns how many are in use.
pub(crate) fn write_lists(lists: &ListRegisters, before: usize) -> usize {
    let count = lists.used.max(before).min(MAX_LISTS);
    // SAFETY: `count` values are there, and as many list registers, since core was told how many.
    unsafe { load_lists(lists.values.as_ptr(), count) };
    ICH_HCR_EL2.set(lists.control);
    lists.used
}

/// Reads back the list registers in use.
pub(crate) fn read_lists(lists: &mut ListRegisters) {
    // SAFETY: `used` is at most the number of values and of list registers.
    unsafe { save_lists(lists.values.as_mut_ptr(), lists.used.min(MAX_LISTS)) };
    lists.control = ICH_HCR_EL2.get();
}

/// Clears the list registers in use.
pub(crate) fn clear_lists(count: usize) {
    let nothing = [0; MAX_LISTS];
    // SAFETY: `count` is what `write_lists` returned.
    unsafe { load_lists(nothing.as_ptr(), count.min(MAX_LISTS)) };
}
