//! The guest's flattened device tree: [`DeviceTree`] says what the machine has, `build` writes it.
//!
//! Bindings: Linux `Documentation/devicetree/bindings` (`arm/psci.yaml`,
//! `interrupt-controller/arm,gic-v3.yaml`, `timer/arm,arch_timer.yaml`, `serial/8250.yaml`,
//! `virtio/mmio.yaml`, `reserved-memory/shared-dma-pool.yaml`).
//!
//! Invariant: virtio devices, and nothing else, carry `memory-region` = the bounce pool, so that a
//! protected guest's drivers share that pool with the host and not one page more.

use vm_fdt::{Error, FdtWriter};

use crate::layout::{
    GICD_BASE, GICD_SIZE, GICR_BASE, GICR_SIZE, Layout, Range, UART_BASE, UART_SIZE, UART_SPI,
    VIRTIO_BASE, VIRTIO_SPI, VIRTIO_STRIDE,
};

const GIC_PHANDLE: u32 = 1;
const POOL_PHANDLE: u32 = 2;
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// What the guest is told about its machine.
#[derive(Clone, Debug)]
pub struct DeviceTree<'a> {
    /// Where RAM, initrd and pool are.
    pub layout: &'a Layout,
    /// How many vCPUs there are.
    pub vcpus: u32,
    /// How many virtio-mmio devices there are.
    pub virtio_devices: u32,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Fresh random bytes for the guest's generator.
    pub seed: [u8; 32],
}

impl DeviceTree<'_> {
    /// Writes the flattened tree.
    pub fn build(&self) -> Result<Vec<u8>, Error> {
        let mut fdt = FdtWriter::new()?;
        let root = fdt.begin_node("")?;
        fdt.property_string("compatible", "linux,dummy-virt")?;
        fdt.property_string("model", "pinfold")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;
        self.chosen(&mut fdt)?;
        self.memory(&mut fdt)?;
        self.cpus(&mut fdt)?;
        psci(&mut fdt)?;
        self.interrupt_controller(&mut fdt)?;
        timer(&mut fdt)?;
        uart(&mut fdt)?;
        self.virtio(&mut fdt)?;
        fdt.end_node(root)?;
        fdt.finish()
    }

    fn chosen(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let node = fdt.begin_node("chosen")?;
        fdt.property_string("bootargs", self.command_line)?;
        fdt.property_string("stdout-path", &format!("/{}:115200", uart_name()))?;
        fdt.property("rng-seed", &self.seed)?;
        if let Some(initrd) = self.layout.initrd {
            fdt.property_u64("linux,initrd-start", initrd.base)?;
            fdt.property_u64("linux,initrd-end", initrd.end())?;
        }
        fdt.end_node(node)
    }

    fn memory(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let ram = self.layout.ram;
        let node = fdt.begin_node(&format!("memory@{:x}", ram.base))?;
        fdt.property_string("device_type", "memory")?;
        reg(fdt, &[ram])?;
        fdt.end_node(node)?;
        let Some(pool) = self.layout.pool else {
            return Ok(());
        };
        let node = fdt.begin_node("reserved-memory")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_null("ranges")?;
        let bounce = fdt.begin_node(&format!("restricted-dma@{:x}", pool.base))?;
        fdt.property_string("compatible", "restricted-dma-pool")?;
        reg(fdt, &[pool])?;
        fdt.property_phandle(POOL_PHANDLE)?;
        fdt.end_node(bounce)?;
        fdt.end_node(node)
    }

    fn cpus(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let node = fdt.begin_node("cpus")?;
        fdt.property_u32("#address-cells", 1)?;
        fdt.property_u32("#size-cells", 0)?;
        for index in 0..self.vcpus {
            let cpu = fdt.begin_node(&format!("cpu@{index:x}"))?;
            fdt.property_string("device_type", "cpu")?;
            fdt.property_string("compatible", "arm,armv8")?;
            fdt.property_string("enable-method", "psci")?;
            fdt.property_u32("reg", index)?;
            fdt.end_node(cpu)?;
        }
        fdt.end_node(node)
    }

    fn interrupt_controller(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        let node = fdt.begin_node(&format!("intc@{GICD_BASE:x}"))?;
        fdt.property_string("compatible", "arm,gic-v3")?;
        fdt.property_u32("#interrupt-cells", 3)?;
        fdt.property_null("interrupt-controller")?;
        let distributor = Range {
            base: GICD_BASE,
            size: GICD_SIZE,
        };
        let redistributors = Range {
            base: GICR_BASE,
            size: GICR_SIZE * u64::from(self.vcpus),
        };
        reg(fdt, &[distributor, redistributors])?;
        fdt.property_phandle(GIC_PHANDLE)?;
        fdt.end_node(node)
    }

    fn virtio(&self, fdt: &mut FdtWriter) -> Result<(), Error> {
        for (base, spi) in (VIRTIO_BASE..)
            .step_by(usize::try_from(VIRTIO_STRIDE).unwrap_or(usize::MAX))
            .zip(VIRTIO_SPI..VIRTIO_SPI + self.virtio_devices)
        {
            let node = fdt.begin_node(&format!("virtio@{base:x}"))?;
            fdt.property_string("compatible", "virtio,mmio")?;
            let window = Range {
                base,
                size: VIRTIO_STRIDE,
            };
            reg(fdt, &[window])?;
            fdt.property_array_u32("interrupts", &[SPI, spi, EDGE_RISING])?;
            fdt.property_null("dma-coherent")?;
            if self.layout.pool.is_some() {
                fdt.property_u32("memory-region", POOL_PHANDLE)?;
            }
            fdt.end_node(node)?;
        }
        Ok(())
    }
}

fn psci(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("psci")?;
    let versions = vec!["arm,psci-1.0".to_owned(), "arm,psci-0.2".to_owned()];
    fdt.property_string_list("compatible", versions)?;
    fdt.property_string("method", "hvc")?;
    fdt.end_node(node)
}

/// The architected PPIs: secure 29, non-secure 30, virtual 27, hypervisor 26 (less 16 each).
fn timer(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    let interrupts = [13, 14, 11, 10].map(|ppi| [PPI, ppi, LEVEL_HIGH]);
    fdt.property_array_u32("interrupts", interrupts.as_flattened())?;
    fdt.property_null("always-on")?;
    fdt.end_node(node)
}

fn uart_name() -> String {
    format!("uart@{UART_BASE:x}")
}

fn uart(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&uart_name())?;
    fdt.property_string("compatible", "ns16550a")?;
    let window = Range {
        base: UART_BASE,
        size: UART_SIZE,
    };
    reg(fdt, &[window])?;
    fdt.property_array_u32("interrupts", &[SPI, UART_SPI, EDGE_RISING])?;
    fdt.property_u32("clock-frequency", 1_843_200)?;
    fdt.property_u32("current-speed", 115_200)?;
    fdt.property_u32("reg-shift", 0)?;
    fdt.property_u32("reg-io-width", 1)?;
    fdt.end_node(node)
}

fn reg(fdt: &mut FdtWriter, ranges: &[Range]) -> Result<(), Error> {
    let cells: Vec<u64> = ranges
        .iter()
        .flat_map(|range| [range.base, range.size])
        .collect();
    fdt.property_array_u64("reg", &cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Contents, MIB};

    fn layout(pool: u64) -> Layout {
        Layout::of(Contents {
            memory: 64 * MIB,
            text_offset: 0,
            kernel: 8 * MIB,
            initrd: 5000,
            pool,
        })
        .unwrap()
    }

    fn source(layout: &Layout, vcpus: u32) -> Vec<u8> {
        DeviceTree {
            layout,
            vcpus,
            virtio_devices: 2,
            command_line: "console=ttyS0 quiet",
            seed: [7; 32],
        }
        .build()
        .unwrap()
    }

    fn cells(node: &fdt::node::FdtNode<'_, '_>, property: &str) -> Vec<u32> {
        node.property(property)
            .unwrap_or_else(|| panic!("{} lacks {property}", node.name))
            .value
            .chunks(4)
            .map(|cell| u32::from_be_bytes(cell.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn linux_finds_what_it_needs() {
        let layout = layout(8 * MIB);
        let blob = source(&layout, 3);
        assert!(blob.len() < usize::try_from(layout.device_tree.size).unwrap());
        let tree = fdt::Fdt::new(&blob).unwrap();
        let chosen = tree.find_node("/chosen").unwrap();
        assert_eq!(
            chosen.property("bootargs").unwrap().as_str(),
            Some("console=ttyS0 quiet")
        );
        assert_eq!(chosen.property("rng-seed").unwrap().value, [7; 32]);
        assert_eq!(
            cells(&tree.find_node("/memory@40000000").unwrap(), "reg"),
            [0, 0x4000_0000, 0, 0x0400_0000]
        );
        assert_eq!(tree.find_node("/cpus").unwrap().children().count(), 3);
        assert_eq!(
            tree.find_node("/psci")
                .unwrap()
                .property("method")
                .unwrap()
                .as_str(),
            Some("hvc")
        );
        assert_eq!(
            cells(&tree.find_node("/intc@8000000").unwrap(), "reg"),
            [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080A_0000, 0, 0x6_0000]
        );
        assert_eq!(
            cells(&tree.find_node("/timer").unwrap(), "interrupts")[6..9],
            [1, 11, 4]
        );
        assert_eq!(
            cells(&tree.find_node("/uart@9000000").unwrap(), "interrupts"),
            [0, 1, 1]
        );
    }

    #[test]
    fn virtio_devices_are_tied_to_the_pool() {
        let with_pool = layout(8 * MIB);
        let blob = source(&with_pool, 1);
        let tree = fdt::Fdt::new(&blob).unwrap();
        let pool = tree
            .find_node("/reserved-memory/restricted-dma@43800000")
            .unwrap();
        assert_eq!(cells(&pool, "reg"), [0, 0x4380_0000, 0, 0x0080_0000]);
        for (name, spi) in [("/virtio@a000000", 16), ("/virtio@a000200", 17)] {
            let device = tree.find_node(name).unwrap();
            assert_eq!(cells(&device, "memory-region"), cells(&pool, "phandle"));
            assert_eq!(cells(&device, "interrupts"), [0, spi, 1]);
            assert!(device.property("dma-coherent").is_some());
        }
        let without = layout(0);
        let blob = source(&without, 1);
        let tree = fdt::Fdt::new(&blob).unwrap();
        assert!(tree.find_node("/reserved-memory").is_none());
        assert!(
            tree.find_node("/virtio@a000000")
                .unwrap()
                .property("memory-region")
                .is_none()
        );
    }
}
