//! What the device tree says: memory, CPUs, command line, and where the guest image is.
//!
//! Invariant: [`read`] runs once, on CPU 0, before anything asks [`machine`].

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use fdt::Fdt;
use guest_test::{bytes, start};
use spin::Once;

/// The machine as EL2's device tree describes it.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Ranges of memory that the host may use.
    pub(crate) memory: Vec<Range<u64>>,
    /// MPIDR affinity of each CPU.
    pub(crate) cpus: Vec<u64>,
    /// The guest image.
    pub(crate) guest: Range<u64>,
    /// What of the memory is in use: this image, the device tree, the guest image.
    pub(crate) used: [Range<u64>; 3],
    bootargs: String,
    has_hypervisor_node: bool,
}

static MACHINE: Once<Machine> = Once::new();

/// Reads the device tree at `address`.
pub(crate) fn read(address: u64) -> Result<(), &'static str> {
    if address == 0 {
        return Err("no device tree in x0; load the flat image, not the ELF file");
    }
    let pointer = core::ptr::with_exposed_provenance::<u8>(bytes::size(address));
    // SAFETY: the boot protocol says that x0 is a device tree, and nothing writes it.
    let tree = unsafe { Fdt::from_ptr(pointer) }.map_err(|_| "x0 is not a device tree")?;
    let chosen = tree
        .find_node("/chosen")
        .ok_or("the device tree has no /chosen")?;
    let text = |name| {
        chosen
            .property(name)
            .and_then(fdt::node::NodeProperty::as_str)
            .unwrap_or("")
            .to_string()
    };
    let number = |name| {
        chosen.property(name).map(|property| {
            property
                .value
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        })
    };
    let guest = number("linux,initrd-start").unwrap_or(0)..number("linux,initrd-end").unwrap_or(0);
    let memory: Vec<Range<u64>> = tree
        .find_all_nodes("/memory")
        .filter_map(fdt::node::FdtNode::reg)
        .flatten()
        .map(|region| {
            let first = bytes::word(region.starting_address.expose_provenance());
            first..first + region.size.map_or(0, bytes::word)
        })
        .collect();
    if memory.is_empty() {
        return Err("the device tree has no memory");
    }
    let cpus = tree
        .cpus()
        .map(|cpu| bytes::word(cpu.ids().first()))
        .collect();
    let image = start::image_range();
    let used = [
        image.0..image.1,
        address..address + bytes::word(tree.total_size()),
        guest.clone(),
    ];
    let has_hypervisor_node = tree.find_node("/hypervisor").is_some();
    MACHINE.call_once(|| Machine {
        memory,
        cpus,
        guest,
        used,
        bootargs: text("bootargs"),
        has_hypervisor_node,
    });
    Ok(())
}

/// The machine.
pub(crate) fn machine() -> &'static Machine {
    MACHINE.call_once(|| Machine {
        memory: Vec::new(),
        cpus: Vec::new(),
        guest: 0..0,
        used: [0..0, 0..0, 0..0],
        bootargs: String::new(),
        has_hypervisor_node: false,
    })
}

impl Machine {
    /// What follows `key` in the boot arguments.
    pub(crate) fn option(&self, key: &str) -> Option<&str> {
        self.bootargs
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    }

    /// The device tree names Pinfold.
    pub(crate) const fn has_hypervisor_node(&self) -> bool {
        self.has_hypervisor_node
    }

    /// The lowest multiple of `alignment` from which `size` bytes of memory are free.
    pub(crate) fn free_range(&self, size: u64, alignment: u64) -> Option<u64> {
        self.memory.iter().find_map(|range| {
            let mut first = range.start.next_multiple_of(alignment);
            while first + size <= range.end {
                let clash = self
                    .used
                    .iter()
                    .find(|used| used.start < first + size && first < used.end);
                match clash {
                    Some(used) => first = used.end.next_multiple_of(alignment),
                    None => return Some(first),
                }
            }
            None
        })
    }
}
