//! The guest's physical memory map: fixed device addresses and, per VM, a [`Layout`] of its RAM.
//!
//! ```text
//! 0x0800_0000  GIC distributor          64 KiB
//! 0x080a_0000  GIC redistributors       128 KiB per vCPU
//! 0x0900_0000  16550 UART               INTID 33
//! 0x0a00_0000  virtio-mmio, 512 B each  INTID 48 + n
//! 0x4000_0000  RAM: 2 MiB spare, kernel, ..., initrd, device tree, bounce pool
//! ```
//!
//! Invariant of a `Layout`: kernel, initrd, device tree and pool lie inside RAM and are disjoint.

use thiserror::Error;

/// Where the distributor's registers lie.
pub const GICD_BASE: u64 = 0x0800_0000;
/// Bytes of the distributor's registers (GICv3, IHI 0069 section 12.1).
pub const GICD_SIZE: u64 = 0x1_0000;
/// Where the first vCPU's redistributor lies.
pub const GICR_BASE: u64 = 0x080A_0000;
/// Bytes of one redistributor: `RD_base` and `SGI_base` frames.
pub const GICR_SIZE: u64 = 0x2_0000;
/// Where the UART lies.
pub const UART_BASE: u64 = 0x0900_0000;
/// Bytes the UART answers to.
pub const UART_SIZE: u64 = 0x1000;
/// The UART's interrupt as an SPI number (INTID 33).
pub const UART_SPI: u32 = 1;
/// Where the first virtio-mmio device lies.
pub const VIRTIO_BASE: u64 = 0x0A00_0000;
/// Bytes from one virtio-mmio device to the next.
pub const VIRTIO_STRIDE: u64 = 0x200;
/// The first virtio device's interrupt as an SPI number (INTID 48).
pub const VIRTIO_SPI: u32 = 16;
/// INTIDs that the guest's distributor has (a multiple of 32; IHI 0069, `GICD_TYPER`).
pub const INTERRUPTS: u32 = 128;
/// Where RAM starts.
pub const RAM_BASE: u64 = 0x4000_0000;
/// The most vCPUs a VM may have (Pinfold's limit).
pub const MAX_VCPUS: u32 = 8;

/// A frame.
pub const PAGE: u64 = 0x1000;
/// One mebibyte.
pub const MIB: u64 = 0x10_0000;
/// Guest RAM comes in units of this many bytes; the kernel's base is aligned to it as well.
pub const RAM_UNIT: u64 = 2 * MIB;
/// Bytes kept for the device tree.
pub const DEVICE_TREE_SIZE: u64 = 64 * 1024;
/// IPA space of a guest in bits; RAM must end below it.
pub const IPA_BITS: u32 = 40;

// Device windows do not touch, nor do interrupts.
const _: () = assert!(
    GICD_BASE + GICD_SIZE <= GICR_BASE
        && GICR_BASE + 8 * GICR_SIZE <= UART_BASE
        && MAX_VCPUS == 8
        && UART_BASE + UART_SIZE <= VIRTIO_BASE
        && VIRTIO_SPI > UART_SPI
);

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub base: u64,
    /// How many bytes.
    pub size: u64,
}

impl Range {
    /// The first address after the range.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.size)
    }
}

/// What has to be put into a guest's RAM, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    /// All RAM.
    pub memory: u64,
    /// From the kernel's 2 MiB-aligned base to its first byte (Image header).
    pub text_offset: u64,
    /// What the kernel occupies once it runs, .bss included.
    pub kernel: u64,
    /// The initrd, or 0.
    pub initrd: u64,
    /// The bounce pool, or 0.
    pub pool: u64,
}

/// Why the contents do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// RAM is no multiple of [`RAM_UNIT`] or zero.
    #[error("--mem must be a multiple of 2 MiB and not zero")]
    MemoryUnit,
    /// RAM would reach beyond the IPA space.
    #[error("--mem is more than a guest with {IPA_BITS}-bit addresses can have")]
    MemoryTooLarge,
    /// The pool is no multiple of 1 MiB.
    #[error("--swiotlb must be a multiple of 1 MiB")]
    PoolUnit,
    /// It does not all fit.
    #[error(
        "--mem is too small: kernel, initrd, device tree and bounce pool need {} MiB",
        needed.div_ceil(MIB)
    )]
    TooSmall {
        /// The smallest RAM that would do, in bytes.
        needed: u64,
    },
}

/// Where everything is in one guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// All RAM.
    pub ram: Range,
    /// The kernel; its base is also the entry point.
    pub kernel: Range,
    /// The initrd, if there is one.
    pub initrd: Option<Range>,
    /// The room for the device tree.
    pub device_tree: Range,
    /// The bounce pool, the only memory that the guest's drivers share with the host.
    pub pool: Option<Range>,
}

impl Layout {
    /// Places the contents: kernel low, everything else from the top downwards.
    pub fn of(contents: Contents) -> Result<Self, LayoutError> {
        let Contents {
            memory,
            text_offset,
            kernel,
            initrd,
            pool,
        } = contents;
        if memory == 0 || memory % RAM_UNIT != 0 {
            return Err(LayoutError::MemoryUnit);
        }
        if memory > (1 << IPA_BITS) - RAM_BASE {
            return Err(LayoutError::MemoryTooLarge);
        }
        if pool % MIB != 0 {
            return Err(LayoutError::PoolUnit);
        }
        let kernel_base = (RAM_BASE + RAM_UNIT).saturating_add(text_offset);
        let kernel_end = kernel_base.saturating_add(kernel);
        let initrd_span = initrd.saturating_add(PAGE - 1) & !(PAGE - 1);
        let above = initrd_span
            .saturating_add(DEVICE_TREE_SIZE)
            .saturating_add(pool);
        let needed = kernel_end.saturating_add(above).saturating_sub(RAM_BASE);
        if needed > memory {
            return Err(LayoutError::TooSmall { needed });
        }
        let pool_base = RAM_BASE + memory - pool;
        let tree_base = pool_base - DEVICE_TREE_SIZE;
        let initrd_base = tree_base - initrd_span;
        Ok(Self {
            ram: Range {
                base: RAM_BASE,
                size: memory,
            },
            kernel: Range {
                base: kernel_base,
                size: kernel,
            },
            initrd: (initrd != 0).then_some(Range {
                base: initrd_base,
                size: initrd,
            }),
            device_tree: Range {
                base: tree_base,
                size: DEVICE_TREE_SIZE,
            },
            pool: (pool != 0).then_some(Range {
                base: pool_base,
                size: pool,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        Contents {
            memory: 128 * MIB,
            text_offset: 0,
            kernel: 10 * MIB + 5,
            initrd: 3 * MIB + 1,
            pool: 8 * MIB,
        }
    }

    #[test]
    fn everything_is_disjoint_and_inside() {
        let layout = Layout::of(contents()).unwrap();
        let initrd = layout.initrd.unwrap();
        let pool = layout.pool.unwrap();
        assert_eq!(layout.kernel.base, 0x4020_0000);
        assert!(layout.kernel.end() <= initrd.base);
        assert!(initrd.end() <= layout.device_tree.base);
        assert_eq!(layout.device_tree.end(), pool.base);
        assert_eq!(pool.end(), layout.ram.end());
        assert_eq!(initrd.base % PAGE, 0);
        assert_eq!(layout.device_tree.base % PAGE, 0);
    }

    #[test]
    fn the_smallest_memory_is_exact() {
        let LayoutError::TooSmall { needed } = Layout::of(Contents {
            memory: RAM_UNIT,
            ..contents()
        })
        .unwrap_err() else {
            panic!("another error");
        };
        let enough = needed.next_multiple_of(RAM_UNIT);
        assert!(
            Layout::of(Contents {
                memory: enough,
                ..contents()
            })
            .is_ok()
        );
        assert!(
            Layout::of(Contents {
                memory: enough - RAM_UNIT,
                ..contents()
            })
            .is_err()
        );
    }

    #[test]
    fn absurd_sizes_are_refused_without_overflow() {
        for bad in [u64::MAX, u64::MAX - 1] {
            assert!(matches!(
                Layout::of(Contents {
                    kernel: bad,
                    ..contents()
                }),
                Err(LayoutError::TooSmall { .. })
            ));
            assert!(matches!(
                Layout::of(Contents {
                    initrd: bad,
                    ..contents()
                }),
                Err(LayoutError::TooSmall { .. })
            ));
        }
        assert_eq!(
            Layout::of(Contents {
                memory: 3 * MIB,
                ..contents()
            }),
            Err(LayoutError::MemoryUnit)
        );
        assert_eq!(
            Layout::of(Contents {
                memory: 1 << 41,
                ..contents()
            }),
            Err(LayoutError::MemoryTooLarge)
        );
    }
}
