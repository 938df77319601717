//! Writes the host's device tree: what the machine's says, minus what is EL2's, plus what the boot modules say.
//!
//! Memory loses EL2's ranges; `/chosen` gets the kernel's arguments and the initramfs and loses the modules; fw_cfg and
//! the GIC's ITS go, bus masters that no stage 2 holds; the timer loses its virtual interrupt, so that Linux takes the physical one
//! (`arch_timer_of_init()` in drivers/clocksource/arm_arch_timer.c); `/hypervisor` comes.

use alloc::vec::Vec;

use fdt::node::FdtNode;
use vm_fdt::{Error, FdtWriter};

use super::{Tree, has_string, is_compatible, pairs};
use crate::platform::{Bytes, Platform, is_master};

/// The node by which a host finds out whom it runs on.
const COMPATIBLE: &str = "pinfold,hypervisor";

/// The names of the timer's interrupts in the order of the binding (arm,arch_timer.yaml).
const TIMER_NAMES: [&str; 5] = ["sec-phys", "phys", "virt", "hyp-phys", "hyp-virt"];

/// What the writer knows.
struct Host<'a> {
    platform: &'a Platform<'a>,
    taken: &'a [Bytes],
    writer: FdtWriter,
}

/// Makes the host's tree out of the machine's; `taken` is EL2's memory.
pub(crate) fn write(
    tree: &Tree<'_>,
    platform: &Platform<'_>,
    taken: &[Bytes],
) -> Result<Vec<u8>, Error> {
    let mut host = Host {
        platform,
        taken,
        writer: FdtWriter::new()?,
    };
    if let Some(root) = tree.root() {
        let node = host.writer.begin_node("")?;
        host.properties(root, &[])?;
        for child in root.children() {
            host.top_node(child)?;
        }
        let hypervisor = host.writer.begin_node("hypervisor")?;
        host.writer.property_string("compatible", COMPATIBLE)?;
        host.writer.end_node(hypervisor)?;
        host.writer.end_node(node)?;
    }
    host.writer.finish()
}

impl Host<'_> {
    /// A child of the root, changed as it needs.
    fn top_node(&mut self, node: FdtNode<'_, '_>) -> Result<(), Error> {
        if is_master(node) || node.name == "hypervisor" {
            return Ok(());
        }
        let begun = self.writer.begin_node(node.name)?;
        if node
            .property("device_type")
            .is_some_and(|kind| has_string(kind.value, "memory"))
        {
            self.properties(node, &["reg"])?;
            self.memory(node)?;
        } else if node.name == "chosen" {
            self.properties(
                node,
                &["bootargs", "linux,initrd-start", "linux,initrd-end"],
            )?;
            self.chosen()?;
        } else if is_compatible(node, "arm,armv8-timer") {
            self.properties(node, &["interrupts", "interrupt-names"])?;
            self.timer(node)?;
        } else {
            self.properties(node, &[])?;
            self.children(node)?;
        }
        self.writer.end_node(begun)
    }

    /// All properties of `node` but those named.
    fn properties(&mut self, node: FdtNode<'_, '_>, without: &[&str]) -> Result<(), Error> {
        for property in node
            .properties()
            .filter(|property| !without.contains(&property.name))
        {
            self.writer.property(property.name, property.value)?;
        }
        Ok(())
    }

    /// All children of `node` as they are. The check bounds the depth.
    fn children(&mut self, node: FdtNode<'_, '_>) -> Result<(), Error> {
        for child in node.children().filter(|child| !is_master(*child)) {
            let begun = self.writer.begin_node(child.name)?;
            self.properties(child, &[])?;
            self.children(child)?;
            self.writer.end_node(begun)?;
        }
        Ok(())
    }

    fn memory(&mut self, node: FdtNode<'_, '_>) -> Result<(), Error> {
        let mut cells = Vec::new();
        for (start, size) in node
            .property("reg")
            .into_iter()
            .flat_map(|reg| pairs(reg.value))
        {
            let mut left = Vec::from([Bytes {
                start,
                end: start.saturating_add(size),
            }]);
            for taken in self.taken {
                left = left
                    .into_iter()
                    .flat_map(|range| range.without(*taken))
                    .collect();
            }
            cells.extend(
                left.into_iter()
                    .flat_map(|range| [range.start, range.end - range.start]),
            );
        }
        self.writer.property_array_u64("reg", &cells)
    }

    fn chosen(&mut self) -> Result<(), Error> {
        if let Some(arguments) = self.platform.kernel_arguments {
            self.writer.property_string("bootargs", arguments)?;
        }
        if let Some(initramfs) = self.platform.initramfs {
            self.writer
                .property_u64("linux,initrd-start", initramfs.start)?;
            self.writer
                .property_u64("linux,initrd-end", initramfs.end)?;
        }
        Ok(())
    }

    /// Keeps the interrupts that are not virtual, and names them. One is three cells of the GIC.
    fn timer(&mut self, node: FdtNode<'_, '_>) -> Result<(), Error> {
        let old = node
            .property("interrupts")
            .map_or(&[][..], |property| property.value)
            .as_chunks::<12>()
            .0;
        let kept = || {
            old.iter()
                .zip(TIMER_NAMES)
                .filter(|(_, name)| !name.ends_with("virt"))
        };
        let interrupts: Vec<u8> = kept().flat_map(|(interrupt, _)| *interrupt).collect();
        let names: Vec<u8> = kept()
            .flat_map(|(_, name)| name.bytes().chain([0]))
            .collect();
        self.writer.property("interrupts", &interrupts)?;
        self.writer.property("interrupt-names", &names)
    }
}
