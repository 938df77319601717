//! Just enough GICv3 (IHI 0069) for a single-purpose image: affinity routing, group 1, one priority.
//!
//! The same addresses serve the mini host (QEMU's `virt` machine) and the guest (Pinfold's virtual GIC).
//! [`serve`] acknowledges one interrupt, quiets its source if that is a timer, counts it and ends it.
//! Invariant: an interrupt that was acknowledged is ended before [`serve`] returns.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{bytes, mmio, timer};

/// Distributor frame.
pub const GICD: u64 = 0x0800_0000;
/// First redistributor; each CPU has [`GICR_STRIDE`] bytes.
pub const GICR: u64 = 0x080a_0000;
/// `RD_base` and `SGI_base`, 64 KiB each.
pub const GICR_STRIDE: u64 = 0x2_0000;

const GICD_CTLR: u64 = 0x0;
const GICD_IGROUPR: u64 = 0x80;
const GICD_ISENABLER: u64 = 0x100;
const GICD_IPRIORITYR: u64 = 0x400;
const GICR_WAKER: u64 = 0x14;
const SGI_BASE: u64 = 0x1_0000;

/// INTIDs that are counted.
const COUNTED: usize = 288;
static SEEN: [AtomicU32; COUNTED] = [const { AtomicU32::new(0) }; COUNTED];

/// Reads or writes a GIC register.
fn read(address: u64) -> u32 {
    // SAFETY: the GIC's frames are device memory in every map that `mmu` makes.
    unsafe { mmio::read32(address) }
}

fn write(address: u64, value: u32) {
    // SAFETY: as in `read`; none of the registers used here makes the GIC write memory.
    unsafe { mmio::write32(address, value) };
}

/// Brings up the distributor (idempotent) and this CPU's redistributor and CPU interface.
pub fn start(cpu: u64) {
    // ICC_SRE_EL1.SRE: system registers instead of MMIO.
    // SAFETY: these registers only select how this CPU takes interrupts, which stay masked.
    unsafe { asm!("msr icc_sre_el1, {0}", "isb", in(reg) 7_u64, options(nostack)) };
    write(GICD + GICD_CTLR, 0x12); // ARE_NS, EnableGrp1A (IHI 0069 12.9.4, non-secure view or one security state)
    let redistributor = GICR + cpu * GICR_STRIDE;
    write(redistributor + GICR_WAKER, 0);
    for _ in 0..1000 {
        if read(redistributor + GICR_WAKER) & 4 == 0 {
            break;
        }
    }
    write(redistributor + SGI_BASE + GICD_IGROUPR, u32::MAX);
    // SAFETY: as above: priority mask, group 1 enable.
    unsafe {
        asm!("msr icc_pmr_el1, {0}", "msr icc_igrpen1_el1, {1}", "isb", in(reg) 0xff_u64, in(reg) 1_u64, options(nostack));
    }
}

/// Enables an SGI or PPI of `cpu`, or an SPI for CPU 0.
pub fn enable(cpu: u64, intid: u32) {
    let frame = if intid < 32 {
        GICR + cpu * GICR_STRIDE + SGI_BASE
    } else {
        GICD
    };
    let bit = 1 << (intid % 32);
    let word = u64::from(intid / 32) * 4;
    if intid >= 32 {
        let groups = frame + GICD_IGROUPR + word;
        write(groups, read(groups) | bit);
    }
    // SAFETY: the GIC's frames are device memory.
    unsafe { mmio::write8(frame + GICD_IPRIORITYR + u64::from(intid), 0xa0) };
    write(frame + GICD_ISENABLER + word, bit);
}

/// Sends SGI `intid` to the CPU with this Aff0 (all other affinities 0).
pub fn send_sgi(intid: u64, aff0: u64) {
    let value = intid << 24 | 1 << aff0;
    // SAFETY: raises an interrupt, which stays masked until somebody serves it.
    unsafe { asm!("dsb ishst", "msr icc_sgi1r_el1, {0}", "isb", in(reg) value, options(nostack)) };
}

/// Serves one pending interrupt; gives its INTID, or `None` if there was none.
pub fn serve() -> Option<u32> {
    let acknowledged: u64;
    // SAFETY: acknowledging makes the interrupt active; it is ended below.
    unsafe { asm!("mrs {0}, icc_iar1_el1", "dsb sy", out(reg) acknowledged, options(nostack)) };
    let intid = bytes::low32(acknowledged & 0xff_ffff);
    if intid >= 1020 {
        return None;
    }
    match intid {
        timer::VIRTUAL_INTID => timer::stop_virtual(),
        timer::PHYSICAL_INTID => timer::stop_physical(),
        _ => (),
    }
    if let Some(counter) = SEEN.get(bytes::size(u64::from(intid))) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: ends what was acknowledged above.
    unsafe { asm!("msr icc_eoir1_el1, {0}", "isb", in(reg) acknowledged, options(nostack)) };
    Some(intid)
}

/// How often an interrupt was served since the image started.
#[must_use]
pub fn count(intid: u32) -> u32 {
    SEEN.get(bytes::size(u64::from(intid)))
        .map_or(0, |counter| counter.load(Ordering::Relaxed))
}

/// Lets interrupts in for the next instructions, then masks them again.
pub fn open_for_a_moment() {
    // SAFETY: the IRQ vector saves what it uses and returns here.
    unsafe {
        asm!(
            "msr daifclr, #2",
            "isb",
            "nop",
            "isb",
            "msr daifset, #2",
            options(nostack)
        );
    };
}
