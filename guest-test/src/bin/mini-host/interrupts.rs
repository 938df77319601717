//! The [`Wiring`] of the machine's own interrupt controller: what the host set up there, which no guest may change.

use guest_test::{gic, mmio};

/// Offsets of what the distributor has once for each bit, byte or pair of bits: groups, enables, priorities and triggers of SPIs.
const DISTRIBUTOR: [core::ops::Range<u64>; 4] =
    [0x84..0xa4, 0x104..0x124, 0x420..0x520, 0xc08..0xc48];
/// The same for the private interrupts of CPU 0, less the two that EL2 keeps enabled for itself.
const PRIVATE: [core::ops::Range<u64>; 2] = [0x1_0400..0x1_0418, 0x1_0c00..0x1_0c04];

/// A digest of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wiring {
    control: u32,
    digest: u64,
}

impl Wiring {
    /// What it is now.
    pub(crate) fn read() -> Self {
        let shared = DISTRIBUTOR.into_iter().flat_map(|range| range.step_by(4));
        let routes = (0x6100..0x6900).step_by(4);
        let private = PRIVATE.into_iter().flat_map(|range| range.step_by(4));
        let places = shared.chain(routes).map(|offset| gic::GICD + offset);
        let places = places.chain(private.map(|offset| gic::GICR + offset));
        let digest = places.fold(0_u64, |digest, place| {
            // SAFETY: reading these registers of the GIC has no effect.
            digest.rotate_left(7) ^ u64::from(unsafe { mmio::read32(place) })
        });
        Self {
            // SAFETY: as above.
            control: unsafe { mmio::read32(gic::GICD) },
            digest,
        }
    }
}
