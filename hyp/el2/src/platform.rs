//! What the machine is, as its device tree says: RAM, CPUs, GIC, console, boot modules.
//!
//! [`read`] turns a checked [`Tree`] into a [`Platform`], or into the [`Complaint`] that names the first thing missing.
//! A [`Platform`] holds what EL2 needs, checked for sense on its own; boot.rs checks it against EL2's memory.

use alloc::vec::Vec;

use fdt::node::{FdtNode, NodeProperty};

use crate::complaint::Complaint;
use crate::device_tree::{Tree, cells, has_string, is_compatible, pairs};
use crate::mmu::LIMIT;
use crate::percpu::CPUS;
use crate::width::{narrow, wide};

/// The word in EL2's own arguments (QEMU's `-append`) that asks for an exit code through semihosting.
const SEMIHOSTING: &str = "pinfold.semihosting";

/// MPIDR_EL1's affinity fields (DDI 0487, D24.2.110), which are a CPU's `reg`.
pub(crate) const AFFINITY: u64 = 0xff_00ff_ffff;

/// Physical addresses from `start` up to `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Bytes {
    /// The first.
    pub(crate) start: u64,
    /// One past the last.
    pub(crate) end: u64,
}

impl Bytes {
    fn new((start, size): (u64, u64)) -> Self {
        Self {
            start,
            end: start.saturating_add(size),
        }
    }

    /// How many there are.
    pub(crate) const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether a byte is in both.
    pub(crate) const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether all of `other` is in here.
    pub(crate) const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What is left without `other`: at most two pieces.
    pub(crate) fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let before = Self {
            start: self.start,
            end: self.end.min(other.start),
        };
        let behind = Self {
            start: self.start.max(other.end),
            end: self.end,
        };
        [before, behind]
            .into_iter()
            .filter(|piece| piece.start < piece.end)
    }
}

/// The GIC's interrupt translation service, a child of the GIC.
const ITS: &str = "arm,gic-v3-its";

/// The facts.
#[derive(Debug)]
pub(crate) struct Platform<'a> {
    /// RAM, ascending, without overlaps.
    pub(crate) ram: Vec<Bytes>,
    /// The affinities of the CPUs, in the order of the tree.
    pub(crate) cpus: Vec<u64>,
    /// The PL011.
    pub(crate) uart: u64,
    /// The GIC's redistributors: two frames of 64 KiB for each CPU.
    pub(crate) redistributors: Vec<Bytes>,
    /// What the host must not reach, because it writes to memory wherever it is told: QEMU's fw_cfg, the GIC's ITS.
    pub(crate) masters: Vec<Bytes>,
    /// The host's kernel.
    pub(crate) kernel: Bytes,
    /// The host kernel's arguments.
    pub(crate) kernel_arguments: Option<&'a str>,
    /// The host's initramfs.
    pub(crate) initramfs: Option<Bytes>,
}

impl Platform<'_> {
    /// The redistributors of as many CPUs as there are: each region only as far as they can fill it.
    pub(crate) fn redistributors_in_use(&self) -> impl Iterator<Item = Bytes> {
        const BYTES_OF_ONE: u64 = 0x2_0000;
        let most = BYTES_OF_ONE * wide(self.cpus.len());
        self.redistributors.iter().map(move |region| Bytes {
            start: region.start,
            end: region.end.min(region.start + most),
        })
    }
}

/// Whether EL2's own arguments ask for semihosting.
pub(crate) fn wants_semihosting(tree: &Tree<'_>) -> bool {
    own_arguments(tree).any(|word| word == SEMIHOSTING)
}

/// The words of EL2's own arguments.
pub(crate) fn own_arguments<'a>(tree: &Tree<'a>) -> impl Iterator<Item = &'a str> {
    let arguments = tree
        .node("/chosen")
        .and_then(|chosen| chosen.property("bootargs"))
        .and_then(NodeProperty::as_str);
    arguments.into_iter().flat_map(str::split_whitespace)
}

/// Reads the facts.
pub(crate) fn read<'a>(tree: &Tree<'a>) -> Result<Platform<'a>, Complaint> {
    two_cells(tree)?;
    let top: &Vec<_> = &tree.top().filter(|node| is_enabled(*node)).collect();
    psci(top)?;
    timer(top)?;
    let (kernel, kernel_arguments, initramfs) = modules(top)?;
    Ok(Platform {
        ram: ram(top)?,
        cpus: cpus(top)?,
        uart: uart(top)?,
        redistributors: redistributors(top)?,
        masters: masters(top),
        kernel,
        kernel_arguments,
        initramfs,
    })
}

/// The children of the root, found once: `fdt` walks the tree for each.
type Top<'b, 'a> = [FdtNode<'b, 'a>];

/// Whether the node is for us: what belongs to the secure world is "disabled" here.
fn is_enabled(node: FdtNode<'_, '_>) -> bool {
    node.property("status")
        .is_none_or(|status| has_string(status.value, "okay") || has_string(status.value, "ok"))
}

fn compatible<'b, 'a>(top: &Top<'b, 'a>, wanted: &[&str]) -> Option<FdtNode<'b, 'a>> {
    top.iter()
        .copied()
        .find(|node| wanted.iter().any(|wanted| is_compatible(*node, wanted)))
}

fn named<'b, 'a>(top: &Top<'b, 'a>, name: &str) -> Option<FdtNode<'b, 'a>> {
    top.iter().copied().find(|node| node.name == name)
}

/// Addresses and sizes have two cells each: everything below relies on it.
fn two_cells(tree: &Tree<'_>) -> Result<(), Complaint> {
    let root = tree.root();
    let is_two = |name| {
        root.and_then(|root| root.property(name))
            .and_then(NodeProperty::as_usize)
            == Some(2)
    };
    if is_two("#address-cells") && is_two("#size-cells") {
        return Ok(());
    }
    Err(Complaint::DeviceTree(
        "addresses and sizes of the root are not of two cells",
    ))
}

/// Whether EL2 keeps the device from the host.
pub(crate) fn is_master(node: FdtNode<'_, '_>) -> bool {
    is_compatible(node, "qemu,fw-cfg-mmio") || is_compatible(node, ITS)
}

fn masters(top: &Top<'_, '_>) -> Vec<Bytes> {
    top.iter()
        .flat_map(|node| core::iter::once(*node).chain(node.children()))
        .filter(|node| is_master(*node))
        .filter_map(first_pair)
        .collect()
}

fn first_pair(node: FdtNode<'_, '_>) -> Option<Bytes> {
    pairs(node.property("reg")?.value).next().map(Bytes::new)
}

fn psci(top: &Top<'_, '_>) -> Result<(), Complaint> {
    let node = compatible(top, &["arm,psci-1.0", "arm,psci-0.2"]);
    let node = node.ok_or(Complaint::NodeMissing(
        "PSCI node",
        "give QEMU -M virt,virtualization=on,secure=off",
    ))?;
    match node.property("method") {
        Some(method) if has_string(method.value, "smc") => Ok(()),
        Some(_) | None => Err(Complaint::Psci),
    }
}

/// The host needs the second of the timer's interrupts, that of the physical timer of EL1.
fn timer(top: &Top<'_, '_>) -> Result<(), Complaint> {
    let interrupts =
        compatible(top, &["arm,armv8-timer"]).and_then(|node| node.property("interrupts"));
    if interrupts.is_some_and(|interrupts| cells(interrupts.value).count() >= 12) {
        return Ok(());
    }
    Err(Complaint::NodeMissing(
        "timer with its interrupts",
        "give the device tree that QEMU makes",
    ))
}

fn ram(top: &Top<'_, '_>) -> Result<Vec<Bytes>, Complaint> {
    const MISSING: Complaint =
        Complaint::NodeMissing("memory node with a size", "give QEMU -m 512M or more");
    let is_memory = |node: &&FdtNode<'_, '_>| {
        node.property("device_type")
            .is_some_and(|kind| has_string(kind.value, "memory"))
    };
    let nodes = top.iter().filter(is_memory);
    let ranges = nodes.flat_map(|node| {
        node.property("reg")
            .into_iter()
            .flat_map(|reg| pairs(reg.value))
    });
    let mut ram: Vec<Bytes> = ranges
        .map(Bytes::new)
        .filter(|range| range.size() > 0)
        .collect();
    ram.sort_unstable();
    if ram.is_empty() {
        return Err(MISSING);
    }
    if ram
        .iter()
        .zip(ram.iter().skip(1))
        .any(|(low, high)| low.overlaps(*high))
    {
        return Err(Complaint::DeviceTree("its memory ranges overlap"));
    }
    if ram.iter().any(|range| narrow(range.end) > LIMIT) {
        return Err(Complaint::MemoryTooHigh);
    }
    if ram
        .iter()
        .any(|range| range.start % 4096 != 0 || range.end % 4096 != 0)
    {
        return Err(Complaint::DeviceTree("its memory is not of whole frames"));
    }
    Ok(ram)
}

fn cpus(top: &Top<'_, '_>) -> Result<Vec<u64>, Complaint> {
    const MISSING: Complaint = Complaint::NodeMissing(
        "CPU node with a reg",
        "give the device tree that QEMU makes",
    );
    let parent = named(top, "cpus").ok_or(MISSING)?;
    let is_cpu = |node: &FdtNode<'_, '_>| {
        node.property("device_type")
            .is_some_and(|kind| has_string(kind.value, "cpu"))
    };
    let affinity = |node: FdtNode<'_, '_>| {
        let reg = node.property("reg").ok_or(MISSING)?;
        Ok(cells(reg.value).fold(0, |number, cell| number << 32 | u64::from(cell)) & AFFINITY)
    };
    let cpus: Vec<u64> = parent
        .children()
        .filter(is_cpu)
        .map(affinity)
        .collect::<Result<_, _>>()?;
    if cpus.is_empty() || cpus.len() > CPUS {
        return Err(Complaint::Cpus { found: cpus.len() });
    }
    Ok(cpus)
}

/// The PL011 that `/chosen` names as the console, or the first.
fn uart(top: &Top<'_, '_>) -> Result<u64, Complaint> {
    let path = named(top, "chosen")
        .and_then(|chosen| chosen.property("stdout-path"))
        .and_then(NodeProperty::as_str)
        .and_then(|path| path.split(':').next());
    let chosen = path
        .and_then(|path| named(top, path.trim_start_matches('/')))
        .filter(|node| is_compatible(*node, "arm,pl011"));
    let place = chosen
        .or_else(|| compatible(top, &["arm,pl011"]))
        .and_then(first_pair)
        .filter(|place| place.start % 4096 == 0 && in_range(*place));
    place.map(|place| place.start).ok_or(Complaint::NodeMissing(
        "PL011 with a reg",
        "give QEMU -M virt",
    ))
}

fn redistributors(top: &Top<'_, '_>) -> Result<Vec<Bytes>, Complaint> {
    let node = compatible(top, &["arm,gic-v3"]).ok_or(Complaint::Gic)?;
    // The distributor comes first, then as many regions of redistributors as the property says, one without it.
    let regions = node
        .property("#redistributor-regions")
        .and_then(NodeProperty::as_usize)
        .unwrap_or(1);
    let reg = node.property("reg").ok_or(Complaint::Gic)?;
    let found: Vec<Bytes> = pairs(reg.value)
        .skip(1)
        .take(regions)
        .map(Bytes::new)
        .collect();
    if found.is_empty()
        || found
            .iter()
            .any(|region| region.start % 4096 != 0 || !in_range(*region))
    {
        return Err(Complaint::DeviceTree(
            "the GIC's redistributors have no sensible reg",
        ));
    }
    Ok(found)
}

fn in_range(place: Bytes) -> bool {
    place.start < place.end && narrow(place.end) <= LIMIT
}

/// The kernel with its arguments, and the initramfs, from `/chosen/module@…` (Multiboot's binding, as for Xen).
fn modules<'a>(top: &Top<'_, 'a>) -> Result<(Bytes, Option<&'a str>, Option<Bytes>), Complaint> {
    let chosen = named(top, "chosen").ok_or(Complaint::NoKernel)?;
    let module = |kind| chosen.children().find(|node| is_compatible(*node, kind));
    let kernel = module("multiboot,kernel").ok_or(Complaint::NoKernel)?;
    let place = first_pair(kernel)
        .filter(|place| in_range(*place))
        .ok_or(Complaint::NoKernel)?;
    let arguments = kernel.property("bootargs").and_then(NodeProperty::as_str);
    Ok((
        place,
        arguments,
        module("multiboot,ramdisk").and_then(first_pair),
    ))
}
