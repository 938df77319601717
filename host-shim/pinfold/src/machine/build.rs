//! From a checked [`Plan`] to a VM that only has to be run: [`Machine`].
//!
//! The order of KVM calls is the one that `Documentation/virt/kvm/devices/arm-vgic-v3.rst` asks
//! for: memory, vCPUs, GIC addresses, GIC initialisation, then the first run.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_DEV_ARM_VGIC_CTRL_INIT,
    KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
    KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::{DeviceFd, IoEventAddress, Kvm, VcpuFd, VmFd};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::pe::PE;
use vm_memory::{Bytes, GuestAddress};

use crate::device_tree::DeviceTree;
use crate::devices::serial::Uart;
use crate::devices::virtio::block::Block;
use crate::devices::virtio::mmio::{MmioTransport, QUEUE_NOTIFY};
use crate::devices::{Bus, InterruptLine};
use crate::layout::{
    GICD_BASE, GICR_BASE, INTERRUPTS, IPA_BITS, Layout, RAM_BASE, RAM_UNIT, Range, UART_BASE,
    UART_SIZE, UART_SPI, VIRTIO_BASE, VIRTIO_SPI, VIRTIO_STRIDE,
};
use crate::memory::{DeviceMemory, Ram};
use crate::run::Plan;

const KVM_API_VERSION: i32 = 12;
/// Bit 31 of the VM type: a protected VM (`KVM_VM_TYPE_ARM_PROTECTED`, pKVM's uAPI).
const VM_TYPE_PROTECTED: u64 = 1 << 31;

/// `KVM_REG_ARM_CORE_REG` of x0 and pc: offsets in `struct kvm_regs`, in 32-bit words.
const CORE_X0: u64 = 0;
const CORE_PC: u64 = 2 * 32;

/// A VM, ready to run.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) vm: VmFd,
    pub(super) gic: DeviceFd,
    pub(super) vcpus: Vec<VcpuFd>,
    pub(super) ram: Ram,
    pub(super) bus: Arc<Bus>,
    pub(super) uart: Arc<Mutex<Uart>>,
    pub(super) disks: Vec<Arc<Mutex<MmioTransport>>>,
}

impl Machine {
    /// Loads the guest and sets the VM up.
    pub(super) fn build(mut plan: Plan) -> anyhow::Result<Self> {
        let vm = create_vm(&plan.kvm)?;
        let ram = Ram::allocate(&plan.backing, plan.layout.ram)?;
        if plan.hugepages {
            ram.prefer_huge_pages()?;
        }
        load(&mut plan, &ram)?;
        give_memory(&vm, &ram)?;
        let vcpus = create_vcpus(&vm, &plan)?;
        let gic = create_gic(&vm)?;
        let mut bus = Bus::default();
        let uart = add_uart(&vm, &mut bus, &plan)?;
        let window = plan.layout.pool.unwrap_or(plan.layout.ram);
        let memory = Arc::new(ram.device_memory(window)?);
        let mut disks = Vec::new();
        for (slot, block) in (0..).zip(plan.disks) {
            disks.push(add_disk(&vm, &mut bus, slot, block, &memory)?);
        }
        Ok(Self {
            vm,
            gic,
            vcpus,
            ram,
            bus: Arc::new(bus),
            uart,
            disks,
        })
    }
}

fn create_vm(device: &Path) -> anyhow::Result<VmFd> {
    let path = CString::new(device.as_os_str().as_bytes()).context("--kvm contains a NUL")?;
    let kvm = Kvm::new_with_path(&path)
        .with_context(|| format!("cannot open {} (is pinfold.ko loaded?)", device.display()))?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION {
        bail!(
            "{} speaks KVM API {version}, not {KVM_API_VERSION}",
            device.display()
        );
    }
    kvm.create_vm_with_type(VM_TYPE_PROTECTED | u64::from(IPA_BITS))
        .context("cannot create a protected VM")
}

/// Puts kernel, initrd and device tree into RAM, while it is still the host's.
fn load(plan: &mut Plan, ram: &Ram) -> anyhow::Result<()> {
    let base = GuestAddress(RAM_BASE + RAM_UNIT);
    let loaded = PE::load(ram.memory(), Some(base), &mut plan.kernel, None)
        .context("cannot load the kernel")?;
    if loaded.kernel_load.0 != plan.layout.kernel.base {
        bail!("the kernel's file has changed while it was read");
    }
    if let Some(place) = plan.layout.initrd {
        ram.memory()
            .write_slice(&plan.initrd, GuestAddress(place.base))
            .context("cannot load the initrd")?;
    }
    let tree = device_tree(plan)?;
    let place = plan.layout.device_tree;
    if u64::try_from(tree.len())? > place.size {
        bail!("the device tree needs {} bytes", tree.len());
    }
    ram.memory()
        .write_slice(&tree, GuestAddress(place.base))
        .context("cannot load the device tree")
}

fn device_tree(plan: &Plan) -> anyhow::Result<Vec<u8>> {
    let mut seed = [0; 32];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .context("cannot get random bytes")?;
    DeviceTree {
        layout: &plan.layout,
        vcpus: plan.vcpus,
        virtio_devices: u32::try_from(plan.disks.len())?,
        command_line: &plan.command_line,
        seed,
    }
    .build()
    .context("cannot write the device tree")
}

fn give_memory(vm: &VmFd, ram: &Ram) -> anyhow::Result<()> {
    let Range { base, size } = ram.range();
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: base,
        memory_size: size,
        userspace_addr: u64::try_from(ram.host_address())?,
    };
    // SAFETY: the region is exactly the mapping that `ram` owns, and the machine keeps `ram` until
    // after the VM's file is closed.
    unsafe { vm.set_user_memory_region(region) }.context("cannot give the VM its memory")
}

fn create_vcpus(vm: &VmFd, plan: &Plan) -> anyhow::Result<Vec<VcpuFd>> {
    let mut target = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut target)
        .context("the host names no vCPU type")?;
    (0..u64::from(plan.vcpus))
        .map(|index| {
            create_vcpu(vm, target, index, &plan.layout)
                .with_context(|| format!("cannot create vCPU {index}"))
        })
        .collect()
}

/// The first vCPU starts in the kernel with the device tree in x0; PSCI starts the others.
fn create_vcpu(
    vm: &VmFd,
    mut init: kvm_vcpu_init,
    index: u64,
    layout: &Layout,
) -> anyhow::Result<VcpuFd> {
    let vcpu = vm.create_vcpu(index)?;
    let [features, ..] = &mut init.features;
    *features |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if index > 0 {
        *features |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    vcpu.vcpu_init(&init)?;
    if index == 0 {
        set_core_register(&vcpu, CORE_PC, layout.kernel.base)?;
        set_core_register(&vcpu, CORE_X0, layout.device_tree.base)?;
    }
    Ok(vcpu)
}

fn set_core_register(vcpu: &VcpuFd, register: u64, value: u64) -> anyhow::Result<()> {
    let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | register;
    vcpu.set_one_reg(id, &value.to_le_bytes())?;
    Ok(())
}

fn create_gic(vm: &VmFd) -> anyhow::Result<DeviceFd> {
    let mut device = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
        fd: 0,
        flags: 0,
    };
    let gic = vm
        .create_device(&mut device)
        .context("cannot create the GICv3")?;
    let set = |group, attr, value: Option<&u64>| {
        gic.set_device_attr(&kvm_device_attr {
            flags: 0,
            group,
            attr: u64::from(attr),
            addr: value.map_or(0, address_of),
        })
        .with_context(|| format!("cannot set GICv3 attribute {group}:{attr}"))
    };
    // The kernel reads the count as 32 bits; its low half comes first in memory.
    let interrupts = u64::from(INTERRUPTS);
    set(KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, Some(&interrupts))?;
    set(
        KVM_DEV_ARM_VGIC_GRP_ADDR,
        KVM_VGIC_V3_ADDR_TYPE_DIST,
        Some(&GICD_BASE),
    )?;
    set(
        KVM_DEV_ARM_VGIC_GRP_ADDR,
        KVM_VGIC_V3_ADDR_TYPE_REDIST,
        Some(&GICR_BASE),
    )?;
    set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)?;
    Ok(gic)
}

/// Where `value` lies, for the kernel to read during a call.
fn address_of(value: &u64) -> u64 {
    let address = std::ptr::from_ref(value).expose_provenance();
    u64::try_from(address).unwrap_or(0)
}

fn add_uart(vm: &VmFd, bus: &mut Bus, plan: &Plan) -> anyhow::Result<Arc<Mutex<Uart>>> {
    let output = plan
        .console
        .output()
        .context("cannot open the console's output")?;
    let line = connected_line(vm, UART_SPI)?;
    let uart = Arc::new(Mutex::new(Uart::new(line, output)));
    let window = Range {
        base: UART_BASE,
        size: UART_SIZE,
    };
    bus.insert(window, Arc::clone(&uart))?;
    Ok(uart)
}

fn add_disk(
    vm: &VmFd,
    bus: &mut Bus,
    slot: u32,
    block: Block,
    memory: &Arc<DeviceMemory>,
) -> anyhow::Result<Arc<Mutex<MmioTransport>>> {
    let base = VIRTIO_BASE + u64::from(slot) * VIRTIO_STRIDE;
    let line = connected_line(vm, VIRTIO_SPI + slot)?;
    let transport = MmioTransport::new(Box::new(block), Arc::clone(memory), line)?;
    for (queue, event) in (0_u32..).zip(transport.notifications()) {
        vm.register_ioevent(event, &IoEventAddress::Mmio(base + QUEUE_NOTIFY), queue)
            .context("cannot register an ioeventfd")?;
    }
    let transport = Arc::new(Mutex::new(transport));
    let window = Range {
        base,
        size: VIRTIO_STRIDE,
    };
    bus.insert(window, Arc::clone(&transport))?;
    Ok(transport)
}

/// An interrupt line that the kernel turns into pulses of SPI `spi`.
fn connected_line(vm: &VmFd, spi: u32) -> anyhow::Result<InterruptLine> {
    let line = InterruptLine::new().context("cannot create an eventfd")?;
    vm.register_irqfd(line.event(), spi)
        .with_context(|| format!("cannot register an irqfd for SPI {spi}"))?;
    Ok(line)
}
