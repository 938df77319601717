//! From the first Rust function to the host's first instruction: check, read, carve, build, enter.
//!
//! [`boot_cpu`] runs once. Whatever a person can have got wrong ends in a [`Complaint`]; EL2's memory is carved out of RAM
//! (the 2 MiB that hold the image, the folio array at the top), the host's tree is written over the machine's, the host's
//! stage 2 is built by core, and the boot CPU leaves for the host. [`secondary_cpu`] is where the others come in.

use core::convert::Infallible;

use pinfold_core::addr::FRAME_SIZE;

use crate::complaint::{self, Complaint};
use crate::device_tree::{Tree, check, host as host_tree};
use crate::mmu::{self, Access, BLOCK, LIMIT};
use crate::percpu::{self, power};
use crate::platform::{self, Bytes, Platform};
use crate::sysreg::{ID_AA64MMFR0_EL1, ID_AA64MMFR4_EL1, field};
use crate::translation::watch;
use crate::width::{narrow, wide};
use crate::{cache, console, gic, heap, host, hypervisor, judged, semihosting, symbols};

use core::sync::atomic::Ordering;

/// The least RAM: what a host needs beside EL2.
const LEAST_RAM: u64 = 512 << 20;

/// Continues boot.S on the boot CPU; `device_tree` is x0 at entry.
pub(crate) extern "C" fn boot_cpu(device_tree: usize) -> ! {
    percpu::set_up();
    console::set_up();
    mmu::show_tables();
    match bring_up(device_tree) {
        Ok(never) => match never {},
        Err(complaint) => complaint::stop(&complaint),
    }
}

/// Continues boot.S on a CPU that the host switched on, or that lost its state in a suspend.
pub(crate) extern "C" fn secondary_cpu(_index: usize) -> ! {
    let cpu = percpu::current();
    let entry = cpu.entry.load(Ordering::Relaxed);
    let context = cpu.context.load(Ordering::Relaxed);
    cpu.power.store(power::ON, Ordering::Release);
    host::set_up_cpu();
    host::enter(entry, context)
}

fn bring_up(device_tree: usize) -> Result<Infallible, Complaint> {
    cpu_suffices()?;
    let image = Bytes {
        start: wide(symbols::image_start()),
        end: wide(mmu::block_end()),
    };
    if !symbols::image_start().is_multiple_of(BLOCK) {
        return Err(Complaint::Image {
            start: symbols::image_start(),
        });
    }
    // SAFETY: mmu.rs maps the rest of the image's block read-write, and nothing else lies there.
    unsafe { heap::set_up(symbols::image_end(), mmu::block_end()) };

    let blob = map_device_tree(device_tree, image)?;
    let squeezed = check::check(blob).map_err(Complaint::DeviceTree)?;
    let tree = Tree::new(squeezed.as_deref().unwrap_or(blob)).map_err(Complaint::DeviceTree)?;
    if platform::wants_semihosting(&tree) {
        semihosting::allow();
    }
    watch::choose_fault(platform::own_arguments(&tree));
    #[cfg(feature = "mutants")]
    crate::mutant::select(&tree);
    let mut platform = platform::read(&tree)?;
    let for_oracle = judged::claim_memory(&mut platform)?;
    map_devices(&platform)?;
    number_cpus(&platform)?;
    gic::set_redistributors(platform.redistributors_in_use());

    let folios = folio_array(&platform)?;
    let taken = [image, folios];
    let blob_place = Bytes {
        start: wide(device_tree),
        end: wide(device_tree + blob.len()),
    };
    check_layout(&platform, taken, blob_place)?;
    let kernel = kernel_entry(platform.kernel)?;
    let hidden: alloc::vec::Vec<_> = taken.into_iter().chain(for_oracle).collect();
    let new = host_tree::write(&tree, &platform, &hidden)
        .map_err(|_| Complaint::DeviceTree("it cannot be rewritten"))?;
    replace_device_tree(device_tree, blob.len(), &new)?;
    map_folio_array(folios)?;
    let root = hypervisor::set_up(&platform, image, folios)?;
    host::set_stage2(root);
    announce(&platform, taken);
    log::info!("entering host at EL1");
    host::set_up_cpu();
    watch::begin_fault();
    host::enter(kernel, blob_place.start)
}

/// What no machine of today lacks, and EL2 cannot do without.
fn cpu_suffices() -> Result<(), Complaint> {
    let lacks = [
        (
            field(&ID_AA64MMFR0_EL1, 0) < 2,
            "fewer than 40 bits of physical address",
        ),
        (field(&ID_AA64MMFR0_EL1, 28) == 0xf, "no 4 KiB granule"),
        (
            field(&ID_AA64MMFR0_EL1, 40) == 1,
            "no 4 KiB granule at stage 2",
        ),
        (
            field(&ID_AA64MMFR4_EL1, 24) >= 8,
            "no EL2 without the Virtualization Host Extensions",
        ),
    ];
    lacks
        .into_iter()
        .find(|(lacking, _)| *lacking)
        .map_or(Ok(()), |(_, what)| Err(Complaint::Cpu(what)))
}

/// Maps the blob read-only, in whole blocks, and says where it is.
fn map_device_tree(address: usize, image: Bytes) -> Result<&'static [u8], Complaint> {
    const NONE: fn(usize) -> Complaint = |address| Complaint::NoDeviceTree { address };
    let place = Bytes {
        start: wide(address),
        end: wide(address.saturating_add(check::LARGEST)),
    };
    if address == 0
        || !address.is_multiple_of(8)
        || place.end > wide(LIMIT)
        || place.overlaps(image)
    {
        return Err(NONE(address));
    }
    let (start, end) = blocks(address, check::LARGEST);
    mmu::stage1()
        .map(start, end, Access::Constant)
        .map_err(|mmu::NoTable| Complaint::OutOfFrames)?;
    let header = bytes_at(address, 8);
    let size = check::total_size(header).map_err(Complaint::DeviceTree)?;
    Ok(bytes_at(address, size))
}

fn blocks(address: usize, size: usize) -> (usize, usize) {
    (
        address & !(BLOCK - 1),
        (address + size).next_multiple_of(BLOCK),
    )
}

fn bytes_at(address: usize, size: usize) -> &'static [u8] {
    let first = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the caller has mapped these bytes, and before the host runs nothing changes them.
    unsafe { core::slice::from_raw_parts(first, size) }
}

/// Overwrites the machine's tree, whose bytes are `room`, by the host's, and takes it out of EL2's map.
fn replace_device_tree(address: usize, room: usize, new: &[u8]) -> Result<(), Complaint> {
    if new.len() > room {
        return Err(Complaint::DeviceTree(
            "the host's does not fit in its place",
        ));
    }
    let (start, end) = blocks(address, check::LARGEST);
    let mut stage1 = mmu::stage1();
    stage1.unmap(start, end);
    stage1
        .map(start, end, Access::Data)
        .map_err(|mmu::NoTable| Complaint::OutOfFrames)?;
    let first = core::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: mapped writable a moment ago, as large as `room`; no reference to the old tree is left.
    unsafe { first.copy_from_nonoverlapping(new.as_ptr(), new.len()) };
    cache::clean_and_invalidate(address, new.len());
    stage1.unmap(start, end);
    Ok(())
}

/// The console and the redistributors, which EL2 keeps mapped.
fn map_devices(platform: &Platform<'_>) -> Result<(), Complaint> {
    let frames = |range: &Bytes| (narrow(range.start), narrow(range.end));
    let mut stage1 = mmu::stage1();
    let uart = Bytes {
        start: platform.uart,
        end: platform.uart + FRAME_SIZE,
    };
    for range in platform.redistributors_in_use().chain([uart]) {
        let (start, end) = frames(&range);
        stage1
            .map(start, end, Access::Device)
            .map_err(|mmu::NoTable| Complaint::OutOfFrames)?;
    }
    let (base, _) = frames(&uart);
    // SAFETY: mapped above, and the device tree calls it a PL011.
    unsafe { console::use_uart_at(base) };
    Ok(())
}

/// Gives each CPU of the tree its block; the boot CPU's is the first.
fn number_cpus(platform: &Platform<'_>) -> Result<(), Complaint> {
    use aarch64_cpu::registers::{MPIDR_EL1, Readable};
    let own = MPIDR_EL1.get() & platform::AFFINITY;
    if !platform.cpus.contains(&own) {
        return Err(Complaint::DeviceTree("the CPU that boots is not in it"));
    }
    let others = platform
        .cpus
        .iter()
        .copied()
        .filter(|affinity| *affinity != own);
    for (block, affinity) in percpu::BLOCKS
        .iter()
        .zip(core::iter::once(own).chain(others))
    {
        block.affinity.store(affinity, Ordering::Relaxed);
    }
    percpu::current().power.store(power::ON, Ordering::Relaxed);
    Ok(())
}

/// Where the folio array goes: the top of RAM, whole blocks, eight bytes for each frame from the lowest to the highest.
fn folio_array(platform: &Platform<'_>) -> Result<Bytes, Complaint> {
    let total: u64 = platform.ram.iter().map(|range| range.size()).sum();
    let too_little = Complaint::TooLittleMemory {
        mebibytes: total >> 20,
    };
    if total < LEAST_RAM {
        return Err(too_little);
    }
    let (Some(first), Some(last)) = (platform.ram.first(), platform.ram.last()) else {
        return Err(too_little);
    };
    let block = wide(BLOCK);
    let bytes = ((last.end - first.start) / FRAME_SIZE * 8).next_multiple_of(block);
    let end = last.end & !(block - 1);
    match end.checked_sub(bytes) {
        Some(start) if start >= last.start => Ok(Bytes { start, end }),
        Some(_) | None => Err(too_little),
    }
}

fn map_folio_array(place: Bytes) -> Result<(), Complaint> {
    let [start, end] = [place.start, place.end].map(narrow);
    mmu::stage1()
        .map(start, end, Access::Data)
        .map_err(|mmu::NoTable| Complaint::OutOfFrames)
}

/// Everything lies in RAM and nothing on top of another.
fn check_layout(platform: &Platform<'_>, taken: [Bytes; 2], tree: Bytes) -> Result<(), Complaint> {
    let [image, folios] = taken;
    let kernel = Bytes {
        end: platform
            .kernel
            .start
            .saturating_add(kernel_size(platform.kernel)?),
        ..platform.kernel
    };
    let mut placed = alloc::vec::Vec::from([
        ("pinfold.img", image),
        ("EL2's folio array", folios),
        ("the device tree", tree),
        ("the host kernel", kernel),
    ]);
    placed.extend(platform.initramfs.map(|place| ("the initramfs", place)));
    for (number, (name, place)) in placed.iter().enumerate() {
        if !platform.ram.iter().any(|range| range.covers(*place)) {
            return Err(Complaint::OutsideMemory(name));
        }
        if let Some((other, _)) = placed
            .iter()
            .skip(number + 1)
            .find(|(_, other)| place.overlaps(*other))
        {
            return Err(Complaint::Overlap(name, other));
        }
    }
    Ok(())
}

/// The arm64 Image header (Documentation/arch/arm64/booting.rst): text offset, size, magic.
struct ImageHeader {
    text_offset: u64,
    size: u64,
}

fn image_header(kernel: Bytes) -> Result<ImageHeader, Complaint> {
    const MAGIC: &[u8] = b"ARM\x64";
    let not_an_image = Complaint::NotAnImage {
        start: kernel.start,
    };
    let start = narrow(kernel.start);
    if kernel.size() < 64 || !start.is_multiple_of(64) {
        return Err(not_an_image);
    }
    let header: [u8; 64] = mmu::with_window(start, Access::Constant, |window| {
        let first = core::ptr::with_exposed_provenance::<[u8; 64]>(window + start % BLOCK % 4096);
        // SAFETY: the window shows the frame, and 64 bytes at a multiple of 64 lie within it.
        unsafe { first.read_volatile() }
    });
    let word = |at: usize| {
        header
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u64::from_le_bytes(*bytes))
    };
    match (header.get(56..60), word(8), word(16)) {
        (Some(MAGIC), Some(text_offset), Some(size)) => Ok(ImageHeader { text_offset, size }),
        _ => Err(not_an_image),
    }
}

fn kernel_size(kernel: Bytes) -> Result<u64, Complaint> {
    Ok(image_header(kernel)?.size.max(kernel.size()))
}

/// Where the kernel starts: its first instruction.
fn kernel_entry(kernel: Bytes) -> Result<u64, Complaint> {
    let header = image_header(kernel)?;
    let base = kernel.start.checked_sub(header.text_offset);
    if base.is_none_or(|base| !base.is_multiple_of(wide(BLOCK))) {
        return Err(Complaint::KernelMisplaced {
            start: kernel.start,
        });
    }
    Ok(kernel.start)
}

fn announce(platform: &Platform<'_>, taken: [Bytes; 2]) {
    let ram: u64 = platform.ram.iter().map(|range| range.size()).sum();
    let own: u64 = taken.iter().map(|range| range.size()).sum();
    log::info!(
        "EL2 up, {} CPUs, {} MiB RAM, {} KiB for EL2",
        platform.cpus.len(),
        ram >> 20,
        own >> 10
    );
}
