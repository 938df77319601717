// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver promises user space, asked of the real thing: run it as root
 * in a host with pinfold.ko.  Prints TAP; exits 0 if everything holds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm.h"

#define DOORBELL	0x09001000UL
#define GICD		0x08000000UL
#define GICR		0x080a0000UL

static void on_alarm(int signal)
{
	(void)signal;
}

static void test_system(void)
{
	check(ioctl(kvm, KVM_GET_API_VERSION, 0) == 12, "API version 12");
	check_errno(ioctl(kvm, KVM_GET_API_VERSION, 1), EINVAL, "API version takes no argument");
	check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0) >= (int)sizeof(struct kvm_run),
	      "size of the run page");
	check(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE) == 40, "40 bits of IPA");
	check(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS) == 8, "8 vCPUs");
	check(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1, "KVM_CAP_USER_MEMORY");
	check(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_PMU_V3) == 0, "no PMU");
	check(ioctl(kvm, KVM_CHECK_EXTENSION, 0xffbadab1) == 1, "KVM_CAP_ARM_PROTECTED_VM");
	check_errno(ioctl(kvm, KVM_CREATE_VM, 0), EINVAL, "VMs are protected");
	check_errno(ioctl(kvm, KVM_CREATE_VM, PROTECTED | 39), EINVAL, "no 39 bits of IPA");
	check_errno(ioctl(kvm, KVM_CREATE_VM, PROTECTED | 0x100), EINVAL, "no unknown type");
	check_errno(ioctl(kvm, KVM_GET_DIRTY_LOG, 0), EINVAL, "no ioctl of another machine");
}

static void test_memory_regions(void)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, PROTECTED | 40);
	char *ram = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);

	check(vm >= 0, "create a VM of 40 bits");
	check_errno(set_region(vm, 0, 0, RAM, PAGE + 1, ram), EINVAL, "region: odd size");
	check_errno(set_region(vm, 0, 0, RAM + 1, PAGE, ram), EINVAL, "region: odd guest address");
	check_errno(set_region(vm, 0, 0, RAM, PAGE, ram + 1), EINVAL, "region: odd address");
	check_errno(set_region(vm, 16, 0, RAM, PAGE, ram), EINVAL, "region: too many slots");
	check_errno(set_region(vm, 0, KVM_MEM_READONLY, RAM, PAGE, ram), EINVAL,
		    "region: read-only");
	check_errno(set_region(vm, 0, KVM_MEM_LOG_DIRTY_PAGES, RAM, PAGE, ram), EINVAL,
		    "region: dirty log");
	check_errno(set_region(vm, 0, 0, 0, 0, ram), EINVAL, "region: delete nothing");
	check_errno(set_region(vm, 0, 0, 1UL << 40, PAGE, ram), EFAULT, "region: beyond 40 bits");
	check_errno(set_region(vm, 0, 0, -PAGE, 2 * PAGE, ram), EINVAL, "region: wraps");
	check_errno(set_region(vm, 0, 0, RAM, 4 * PAGE, ram), 0, "region: create");
	check_errno(set_region(vm, 0, 0, RAM, 8 * PAGE, ram), EINVAL, "region: resize");
	check_errno(set_region(vm, 1, 0, RAM + 3 * PAGE, PAGE, ram), EEXIST, "region: overlap");
	check_errno(set_region(vm, 0, 0, RAM + PAGE, 4 * PAGE, ram), 0, "region: move");
	check_errno(set_region(vm, 0, 0, RAM, 0, ram), 0, "region: delete");
	munmap(ram, 16 * PAGE);
	close(vm);
}

static void test_vcpus(void)
{
	struct kvm_vcpu_init target = { .target = 99 };
	struct kvm_mp_state state;
	struct { __u64 n; __u64 reg[64]; } list = { .n = 1 };
	int vm = ioctl(kvm, KVM_CREATE_VM, PROTECTED);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	__u64 value = 0;

	check(vcpu >= 0, "create a vCPU");
	check_errno(ioctl(vm, KVM_CREATE_VCPU, 0), EEXIST, "vCPU: exists");
	check_errno(ioctl(vm, KVM_CREATE_VCPU, 8), EINVAL, "vCPU: too many");
	check(!ioctl(vm, KVM_ARM_PREFERRED_TARGET, &target) &&
	      target.target == KVM_ARM_TARGET_GENERIC_V8, "preferred target");
	check_errno(ioctl(vcpu, KVM_RUN, 0), ENOEXEC, "run before init");
	check_errno(set_reg(vcpu, CORE(regs.pc), 0), ENOEXEC, "register before init");
	check_errno(vcpu_init(vcpu, 0, 0, 0), EINVAL, "init: other target");
	check_errno(vcpu_init(vcpu, target.target, 1 << KVM_ARM_VCPU_SVE, 0), EINVAL, "init: SVE");
	check_errno(vcpu_init(vcpu, target.target, 1U << 31, 0), ENOENT, "init: unknown feature");
	check_errno(vcpu_init(vcpu, target.target, 0, 1), ENOENT, "init: unknown word");
	check_errno(vcpu_init(vcpu, target.target, 1 << KVM_ARM_VCPU_POWER_OFF, 0), 0, "init: off");
	check(!ioctl(vcpu, KVM_GET_MP_STATE, &state) && state.mp_state == KVM_MP_STATE_STOPPED,
	      "it is stopped");
	state.mp_state = KVM_MP_STATE_RUNNABLE;
	check_errno(ioctl(vcpu, KVM_SET_MP_STATE, &state), 0, "make it runnable");
	state.mp_state = KVM_MP_STATE_HALTED;
	check_errno(ioctl(vcpu, KVM_SET_MP_STATE, &state), EINVAL, "but not halted");
	check_errno(set_reg(vcpu, CORE(regs.regs[30]), 0x1234), 0, "set x30");
	check(!get_reg(vcpu, CORE(regs.regs[30]), &value) && value == 0x1234, "get x30");
	check(!get_reg(vcpu, CORE(regs.pstate), &value) && value == 0x3c5,
	      "PSTATE is EL1h, masked");
	check_errno(set_reg(vcpu, CORE(regs.pstate), 0x3c5), 0, "PSTATE may be said again");
	check_errno(set_reg(vcpu, CORE(regs.pstate), 0x3c4), EINVAL, "but not changed");
	check_errno(set_reg(vcpu, CORE(sp_el1), 0), ENOENT, "no SP_EL1");
	check_errno(ioctl(vcpu, KVM_GET_REG_LIST, &list), E2BIG, "register list: no room");
	check(list.n == 34 && !ioctl(vcpu, KVM_GET_REG_LIST, &list), "register list");
	check(list.reg[1] == CORE(regs.regs[1]) && list.reg[31] == CORE(regs.pc), "its content");
	close(vcpu);
	close(vm);
}

static int device_attr(int device, unsigned long call, __u32 group, __u64 attr, void *value)
{
	struct kvm_device_attr args = { .group = group, .attr = attr, .addr = (__u64)value };

	return ioctl(device, call, &args);
}

static void test_vgic(int vm)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V2 };
	__u64 addr = 0x8001000;
	__u32 irqs = 33;
	int gic;

	check_errno(ioctl(vm, KVM_CREATE_DEVICE, &device), ENODEV, "no GICv2");
	device.type = KVM_DEV_TYPE_ARM_VGIC_V3;
	check_errno(ioctl(vm, KVM_CREATE_DEVICE, &device), 0, "create a GICv3");
	gic = device.fd;
	check_errno(ioctl(vm, KVM_CREATE_DEVICE, &device), EEXIST, "only one");
	check_errno(device_attr(gic, KVM_HAS_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0, NULL),
		    ENXIO, "its registers are EL2's");
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
				KVM_VGIC_V3_ADDR_TYPE_DIST, &addr), EINVAL, "GICD: alignment");
	addr = 0x8000000;
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
				KVM_VGIC_V3_ADDR_TYPE_DIST, &addr), 0, "GICD");
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
				KVM_VGIC_V3_ADDR_TYPE_DIST, &addr), EEXIST, "GICD: only once");
	addr = 1UL << 40;
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
				KVM_VGIC_V3_ADDR_TYPE_REDIST, &addr), E2BIG,
		    "GICR: beyond 40 bits");
	addr = 0x80a0000;
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
				KVM_VGIC_V3_ADDR_TYPE_REDIST, &addr), 0, "GICR");
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs),
		    EINVAL, "33 interrupts");
	irqs = 288;
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs),
		    0, "288 interrupts");
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs),
		    EBUSY, "said once");
	check_errno(device_attr(gic, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_CTRL,
				KVM_DEV_ARM_VGIC_CTRL_INIT, NULL), 0, "initialise it");
	check_errno(ioctl(vm, KVM_CREATE_VCPU, 1), EBUSY, "no more vCPUs then");
	close(gic);
}

static int irq_line(int vm, unsigned int type, unsigned int number, unsigned int level)
{
	struct kvm_irq_level line = {
		.irq = type << KVM_ARM_IRQ_TYPE_SHIFT | number,
		.level = level,
	};

	return ioctl(vm, KVM_IRQ_LINE, &line);
}

static int irqfd(int vm, int fd, unsigned int gsi, unsigned int flags)
{
	struct kvm_irqfd args = { .fd = fd, .gsi = gsi, .flags = flags };

	return ioctl(vm, KVM_IRQFD, &args);
}

static void test_interrupts(void)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, true);
	struct kvm_enable_cap cap = { .cap = 0xffbadab1, .flags = 1 };
	__u64 info[8] = { 1 };
	struct kvm_msi msi = {};
	int event = eventfd(0, 0);

	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_SPI, 33, 1), ENXIO, "no line without a GIC");
	check_errno(irqfd(vm.fd, event, 1, 0), EAGAIN, "no irqfd without a GIC");
	test_vgic(vm.fd);
	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_SPI, 33, 1), 0, "line 33 high");
	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_SPI, 31, 1), EINVAL, "31 is no SPI");
	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_SPI, 288, 1), EINVAL, "288 is too high");
	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_CPU, 0, 1), ENXIO, "no CPU line");
	check_errno(irq_line(vm.fd, KVM_ARM_IRQ_TYPE_PPI, 27, 1), EINVAL, "no PPI line");
	check_errno(irqfd(vm.fd, event, 1, KVM_IRQFD_FLAG_RESAMPLE), EINVAL, "no resample fd");
	check_errno(irqfd(vm.fd, 9999, 1, 0), EBADF, "irqfd: no such file");
	check_errno(irqfd(vm.fd, kvm, 1, 0), EINVAL, "irqfd: no eventfd");
	check_errno(irqfd(vm.fd, event, 1, 0), 0, "irqfd");
	check_errno(irqfd(vm.fd, event, 1, 0), EBUSY, "irqfd: only once");
	check_errno(irqfd(vm.fd, event, 1, KVM_IRQFD_FLAG_DEASSIGN), 0, "irqfd: away");
	check_errno(irqfd(vm.fd, event, 1, 0), 0, "irqfd: again");
	check_errno(ioctl(vm.fd, KVM_SIGNAL_MSI, &msi), ENODEV, "no MSIs");
	cap.args[0] = (__u64)info;
	check(!ioctl(vm.fd, KVM_ENABLE_CAP, &cap) && info[0] == 0, "no firmware");
	cap.flags = 0;
	check_errno(ioctl(vm.fd, KVM_ENABLE_CAP, &cap), EINVAL, "so none to place");
	close(event);
	end_vm(&vm);
}

static int ioeventfd(int vm, int fd, __u64 addr, __u32 len, __u32 flags, __u64 match)
{
	struct kvm_ioeventfd args = {
		.datamatch = match, .addr = addr, .len = len, .fd = fd, .flags = flags,
	};

	return ioctl(vm, KVM_IOEVENTFD, &args);
}

static void test_doorbell(void)
{
	struct vm vm = make_vm(guest_doorbell, guest_doorbell_end, DOORBELL, false);
	int event = eventfd(0, EFD_NONBLOCK);
	__u64 count = 0;

	check_errno(ioeventfd(vm.fd, event, DOORBELL, 3, 0, 0), EINVAL, "ioeventfd: 3 bytes");
	check_errno(ioeventfd(vm.fd, event, DOORBELL, 0, KVM_IOEVENTFD_FLAG_DATAMATCH, 7), EINVAL,
		    "ioeventfd: a value of no length");
	check_errno(ioeventfd(vm.fd, event, DOORBELL, 4, KVM_IOEVENTFD_FLAG_PIO, 0), EINVAL,
		    "ioeventfd: no ports");
	check_errno(ioeventfd(vm.fd, event, DOORBELL, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 7), 0,
		    "ioeventfd");
	check_errno(ioeventfd(vm.fd, event, DOORBELL, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 7), EEXIST,
		    "ioeventfd: only once");
	check_errno(ioeventfd(vm.fd, event, DOORBELL, 4, KVM_IOEVENTFD_FLAG_DEASSIGN, 0), ENOENT,
		    "ioeventfd: no such");
	check(!run(&vm) && is_mmio(&vm, DOORBELL, 4, true) && mmio_value(&vm) == 8,
	      "the other value exits");
	check(read(event, &count, sizeof(count)) == sizeof(count) && count == 1,
	      "the matched one signalled");
	check(!run(&vm) && vm.run->exit_reason == KVM_EXIT_SYSTEM_EVENT &&
	      vm.run->system_event.type == KVM_SYSTEM_EVENT_RESET, "the guest wants a reset");
	close(event);
	end_vm(&vm);
}

static void test_mmio(bool anonymous)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, anonymous);
	__u64 value = 0;

	vm.run->immediate_exit = 1;
	check_errno(ioctl(vm.vcpu, KVM_RUN, 0), EINTR, "immediate_exit");
	vm.run->immediate_exit = 0;

	check(!run(&vm) && is_mmio(&vm, MMIO, 4, false), "a read of 4 bytes");
	value = 0xfffffffe;
	memcpy(vm.run->mmio.data, &value, 4);
	check(!run(&vm) && is_mmio(&vm, MMIO + 8, 4, true) && mmio_value(&vm) == 0xffffffff,
	      "its value came back, plus one");
	check(!run(&vm) && is_mmio(&vm, MMIO, 1, false), "a read of 1 byte");
	vm.run->mmio.data[0] = 0x80;
	vm.run->immediate_exit = 1;
	check_errno(ioctl(vm.vcpu, KVM_RUN, 0), EINTR, "immediate_exit completes a read");
	vm.run->immediate_exit = 0;
	vm.run->mmio.data[0] = 0;
	check(!run(&vm) && is_mmio(&vm, MMIO + 16, 8, true) &&
	      mmio_value(&vm) == 0xffffffffffffff80, "it was sign-extended, and went through RAM");

	check(stats().donated == 2, "two pages are the guest's");
	check(touch(vm.ram, false) == (anonymous ? SIGSEGV : SIGBUS),
	      "reading one ends in a signal");
	check(touch(vm.ram, true) == (anonymous ? SIGSEGV : SIGBUS), "writing one as well");
	check(touch(vm.ram + 2 * PAGE, false) == 0, "an untouched one is ours");
	check_errno(set_reg(vm.vcpu, CORE(regs.pc), 0), EPERM, "no register after the start");
	check_errno(get_reg(vm.vcpu, CORE(regs.regs[0]), &value), EPERM, "not even to read");
	check_errno(set_region(vm.fd, 1, 0, 0x80000000, PAGE, vm.ram), EPERM,
		    "no memory after the start");
	check_errno(ioctl(vm.fd, KVM_CREATE_VCPU, 1), EBUSY, "no vCPU after the start");

	check(!run(&vm) && vm.run->exit_reason == KVM_EXIT_SYSTEM_EVENT &&
	      vm.run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN, "the guest is off");

	munmap(vm.run, vm.run_size);
	close(vm.fd);
	close(vm.vcpu);
	check(stats().donated == 0 && stats().vms == 0, "the pages are back");
	check(stats().pool == 0 && stats().leaked == 0, "and EL2's, and none was lost");
	check(vm.ram[0] == 0 && vm.ram[PAGE] == 0, "those that the guest had read as zeroes");
	check((unsigned char)vm.ram[2 * PAGE] == 0xa5, "the others are as they were");
	munmap(vm.ram, RAM_PAGES * PAGE);
}

static void set_alarm(long usec)
{
	struct itimerval timer = { .it_value = { 0, usec } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void test_signals(void)
{
	struct vm wfi = make_vm(guest_wfi, guest_wfi_end, MMIO, true);
	struct vm spin = make_vm(guest_spin, guest_spin_end, MMIO, true);

	set_alarm(100000);
	check_errno(ioctl(wfi.vcpu, KVM_RUN, 0), EINTR, "a signal ends a wait");
	check(wfi.run->exit_reason == KVM_EXIT_INTR, "as KVM_EXIT_INTR");
	set_alarm(100000);
	check_errno(ioctl(spin.vcpu, KVM_RUN, 0), EINTR, "a signal ends a loop");
	end_vm(&wfi);
	end_vm(&spin);
}

static void test_pinned(__u32 kind, const char *what)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, false);
	struct pinfold_pin pin = { .addr = (__u64)vm.ram, .kind = kind };
	char text[80];

	check_errno(ioctl(debug, PINFOLD_IOC_PIN, &pin), 0, what);
	printf("# pfn %llx, pin word %x\n", (unsigned long long)pin.pfn, pin.word);
	snprintf(text, sizeof(text), "%s: the donation fails", what);
	check_errno(run(&vm), EBUSY, text);
	check(vm.run->exit_reason == KVM_EXIT_MEMORY_FAULT && fault_address(&vm) == RAM,
	      "and says where");
	check(stats().donated == 0, "nothing was donated");
	check_errno(ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie), 0, "let go");
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, false), "then it works");
	end_vm(&vm);
}

static void test_share(void)
{
	struct vm vm = make_vm(guest_share, guest_share_end, MMIO, false);
	struct pinfold_pin pin = { .addr = (__u64)vm.ram + PAGE, .kind = PINFOLD_KIND_ORDINARY };

	check(!run(&vm) && is_mmio(&vm, MMIO, 8, true) && mmio_value(&vm) == 0, "a page is shared");
	check(stats().shared == 1, "the driver knows");
	check(vm.ram[PAGE] == 0x5a, "the host reads what the guest wrote");
	vm.ram[PAGE] = 0x66;
	check(!run(&vm) && is_mmio(&vm, MMIO, 8, true) && (mmio_value(&vm) & 0xff) == 0x66,
	      "the guest reads what the host wrote");
	check_errno(ioctl(debug, PINFOLD_IOC_PIN, &pin), 0, "a shared page can be pinned");
	check(!run(&vm) && is_mmio(&vm, MMIO, 8, true) && (__s64)mmio_value(&vm) < 0,
	      "then it cannot be unshared");
	check_errno(ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie), 0, "let go");
	end_vm(&vm);

	vm = make_vm(guest_share, guest_share_end, MMIO, false);
	run(&vm);
	run(&vm);
	check(!run(&vm) && is_mmio(&vm, MMIO, 8, true) && mmio_value(&vm) == 0,
	      "without the pin it can");
	check(touch(vm.ram + PAGE, false) == SIGBUS, "and is the guest's again");
	check(!run(&vm) && (mmio_value(&vm) & 0xff) == 0x5a, "with its content");
	check(stats().shared == 0, "the driver knows");
	end_vm(&vm);
	check(stats().donated == 0 && stats().pool == 0 && stats().leaked == 0, "all is back");
}

/* How many decoys test_kernel_touch() has made EL2 give. */
static __u64 wanted_decoys;

static void test_kernel_touch(void)
{
	__u64 before = decoys();
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, false);
	struct pinfold_pin pin = { .addr = (__u64)vm.ram + PAGE, .kind = PINFOLD_KIND_NONE };
	struct pinfold_touch touch = {};

	/* Where the page is, before it goes. */
	if (ioctl(debug, PINFOLD_IOC_PIN, &pin) || ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie))
		die("PINFOLD_IOC_PIN");
	run(&vm);
	run(&vm);
	run(&vm);
	memset(vm.run->mmio.data, 0x42, 8);
	check(!run(&vm) && is_mmio(&vm, MMIO + 16, 8, true), "the guest uses a page");
	touch.frame = pin.pfn;
	check_errno(ioctl(debug, PINFOLD_IOC_TOUCH, &touch), 0, "the kernel reads it and lives");
	check(touch.value == 0, "it sees zeroes");
	touch.flags = PINFOLD_TOUCH_WRITE;
	touch.value = 0x6666;
	check_errno(ioctl(debug, PINFOLD_IOC_TOUCH, &touch), 0, "the kernel writes it and lives");
	wanted_decoys = decoys() - before;
	check(wanted_decoys > 0, "EL2 has counted it");
	check(!run(&vm) && vm.run->exit_reason == KVM_EXIT_SYSTEM_EVENT, "the guest goes on");
	end_vm(&vm);
}

/* A GICv3 where the guests look for it. */
static void add_gic(const struct vm *vm)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	__u64 dist = GICD, redist = GICR;

	if (ioctl(vm->fd, KVM_CREATE_DEVICE, &device) ||
	    device_attr(device.fd, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
			KVM_VGIC_V3_ADDR_TYPE_DIST, &dist) ||
	    device_attr(device.fd, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_ADDR,
			KVM_VGIC_V3_ADDR_TYPE_REDIST, &redist) ||
	    device_attr(device.fd, KVM_SET_DEVICE_ATTR, KVM_DEV_ARM_VGIC_GRP_CTRL,
			KVM_DEV_ARM_VGIC_CTRL_INIT, NULL))
		die("GICv3");
	close(device.fd);
}

/* Wait until the vCPU's thread is in the guest, or waits for it, most likely. */
static void settle(void)
{
	usleep(50000);
}

/* Run the vCPU in a thread, meanwhile ring; the guest has to say @number. */
static bool rings(struct vm *vm, int event, unsigned int number)
{
	pthread_t thread;
	__u64 one = 1;
	void *ret;

	if (pthread_create(&thread, NULL, run_thread, vm))
		die("pthread_create");
	settle();
	if (event >= 0) {
		if (write(event, &one, sizeof(one)) != sizeof(one))
			die("eventfd");
	} else if (irq_line(vm->fd, KVM_ARM_IRQ_TYPE_SPI, number, 1)) {
		die("KVM_IRQ_LINE");
	}
	pthread_join(thread, &ret);
	/* The line falls before the guest can end the interrupt. */
	if (event < 0)
		irq_line(vm->fd, KVM_ARM_IRQ_TYPE_SPI, number, 0);
	return !ret && is_mmio(vm, MMIO, 4, true) && mmio_value(vm) == number;
}

static void test_irq(bool spin)
{
	struct vm vm = make_vm(guest_irq, guest_irq_end, MMIO, false);
	int event = eventfd(0, 0), before;

	add_gic(&vm);
	set_reg(vm.vcpu, CORE(regs.regs[2]), GICD);
	set_reg(vm.vcpu, CORE(regs.regs[3]), GICR);
	set_reg(vm.vcpu, CORE(regs.regs[4]), spin);
	/* GSI 1 is SPI 1, INTID 33. */
	check_errno(irqfd(vm.fd, event, 1, 0), 0, "irqfd");
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, true) && mmio_value(&vm) == 0,
	      "the guest is ready");
	check(rings(&vm, -1, 34), spin ? "a line reaches a guest that runs"
				       : "a line reaches a guest that waits");
	check(rings(&vm, event, 33), spin ? "an eventfd reaches a guest that runs"
					  : "an eventfd reaches a guest that waits");
	before = stats().kicks;
	check(rings(&vm, event, 33), "and once more");
	printf("# %lld kicks\n", (long long)stats().kicks - before);
	close(event);
	end_vm(&vm);
}

static void test_race(bool anonymous)
{
	race(make_vm(guest_race, guest_race_end, MMIO, anonymous), RAM_PAGES);
}

/* In a child, with little memory to lock: 0 if the second page gets ENOMEM. */
static int child_memlock(void)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, true);

	drop_ipc_lock();
	if (run(&vm) || run(&vm) || run(&vm))
		return 1;
	return !(run(&vm) < 0 && errno == ENOMEM && vm.run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
		 fault_address(&vm) == RAM + PAGE);
}

/* In a child, to be killed in the middle of it. */
static int child_spins(void)
{
	struct vm vm = make_vm(guest_spin, guest_spin_end, MMIO, false);

	run(&vm);
	return 1;
}

static int in_child(int (*what)(void), bool kill_it)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (!child)
		_exit(what());
	if (kill_it) {
		settle();
		kill(child, SIGKILL);
	}
	if (waitpid(child, &status, 0) != child)
		die("waitpid");
	return kill_it ? !WIFSIGNALED(status) : status;
}

static struct vm inherited;

static int child_uses_inherited(void)
{
	return !(ioctl(inherited.fd, KVM_CHECK_EXTENSION, 0) < 0 && errno == EIO &&
		 ioctl(inherited.vcpu, KVM_RUN, 0) < 0 && errno == EIO &&
		 touch(inherited.ram, false) == SIGBUS);
}

static void test_processes(void)
{
	inherited = make_vm(guest_mmio, guest_mmio_end, MMIO, true);
	run(&inherited);
	check(!in_child(child_uses_inherited, false),
	      "a child can use neither the VM nor its pages");
	end_vm(&inherited);
	check(!in_child(child_memlock, false), "RLIMIT_MEMLOCK counts");
	check(!in_child(child_memlock_large, false), "and lets a page of a huge page be donated");
	check(!in_child(child_spins, true), "a VMM is killed");
	check(stats().vms == 0 && stats().donated == 0 && stats().leaked == 0,
	      "its VM is gone, its pages are back");
}

/* The guest's memory is something that cannot be given. */
static void test_memory_kinds(void)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, true);
	int file;

	mprotect(vm.ram, PAGE, PROT_READ);
	check_errno(run(&vm), EFAULT, "memory that is read-only");
	check(vm.run->exit_reason == KVM_EXIT_MEMORY_FAULT, "says where");
	munmap(vm.ram, PAGE);
	check_errno(run(&vm), EFAULT, "memory that is not there");

	/* As in mainline, what needs to be written back cannot be pinned for long. */
	mkdir("/ramfs", 0700);
	if (mount("none", "/ramfs", "ramfs", 0, NULL))
		die("mount");
	file = open("/ramfs/page", O_RDWR | O_CREAT, 0600);
	if (file < 0 || ftruncate(file, PAGE))
		die("/ramfs/page");
	if (mmap(vm.ram, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != vm.ram)
		die("mmap");
	memcpy(vm.ram, guest_mmio, guest_mmio_end - guest_mmio);
	check_errno(run(&vm), EFAULT, "memory of a file system");
	close(file);

	if (mmap(vm.ram, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != vm.ram)
		die("mmap");
	memcpy(vm.ram, guest_mmio, guest_mmio_end - guest_mmio);
	/* To be thrown away when memory is short; it is not. */
	madvise(vm.ram, PAGE, MADV_FREE);
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, false), "and then memory that is good");
	end_vm(&vm);
	umount("/ramfs");
	check(stats().donated == 0 && stats().leaked == 0, "all are back");
}

static void *unpin_soon(void *pin)
{
	usleep(2000);
	return (void *)(long)ioctl(debug, PINFOLD_IOC_UNPIN, ((struct pinfold_pin *)pin)->cookie);
}

/* A pin that is gone in a moment, as of a read with O_DIRECT, does no harm. */
static void test_moment(void)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, true);
	struct pinfold_pin pin = { .addr = (__u64)vm.ram, .kind = PINFOLD_KIND_ORDINARY };
	__s64 busy = stats().pin_busy;
	pthread_t thread;

	if (ioctl(debug, PINFOLD_IOC_PIN, &pin) ||
	    pthread_create(&thread, NULL, unpin_soon, &pin))
		die("a pin");
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, false), "a pin of a moment is waited for");
	check((__s64)stats().pin_busy == busy, "and does not count as busy");
	pthread_join(thread, NULL);
	end_vm(&vm);
}

/* EL2's handle of the one VM that there is: it knows no other in that slot. */
static __u64 find_handle(void)
{
	__u64 generation;

	for (generation = 1; generation < 1 << 20; generation++) {
		struct pinfold_call call = {
			.x = { PINFOLD_CALL_MEM_RECLAIM, generation << 8, RAM / PAGE, 1 },
		};

		if (ioctl(debug, PINFOLD_IOC_CALL, &call))
			die("MEM_RECLAIM");
		if (call.x[1] != PINFOLD_STATUS_NO_SUCH_VM)
			return generation << 8;
	}
	return 0;
}

static __u64 raw_call(__u64 function, __u64 vm)
{
	struct pinfold_call call = { .x = { function, vm, RAM / PAGE, RAM_PAGES } };

	if (ioctl(debug, PINFOLD_IOC_CALL, &call))
		die("a raw call");
	return call.x[0] ?: call.x[1];
}

/*
 * Somebody else has ended the VM at EL2, so the driver cannot get its pages
 * back by its own calls: it must not let go of them.
 */
static void test_leak(bool anonymous)
{
	struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, anonymous);
	struct pinfold_pin pin = look(vm.ram);
	struct pinfold_stats before = stats();
	__u64 handle;

	check(!run(&vm) && stats().donated == 1, "a page is the guest's");
	handle = find_handle();
	check(!raw_call(PINFOLD_CALL_VM_TEARDOWN_BEGIN, handle) &&
	      !raw_call(PINFOLD_CALL_MEM_RECLAIM, handle) &&
	      !raw_call(PINFOLD_CALL_VM_TEARDOWN_FINISH, handle), "the VM is ended at EL2");
	end_vm(&vm);
	check(stats().leaked == before.leaked + 1 && stats().donated == 0,
	      "the driver gives the page up");
	check(query(pin.pfn).x[7] == 0xc0000001, "and keeps it pinned and isolated");
}

static void test_rounds(int rounds)
{
	struct pinfold_stats before, after;
	int i, bad = 0;

	before = stats();
	for (i = 0; i < rounds; i++) {
		struct vm vm = make_vm(guest_mmio, guest_mmio_end, MMIO, i & 1);

		bad += run(&vm) || !is_mmio(&vm, MMIO, 4, false);
		end_vm(&vm);
	}
	after = stats();
	check(!bad, "many VMs, one after the other");
	check(after.donations - before.donations == after.reclaims - before.reclaims &&
	      after.donated == 0 && after.pool == 0 && after.leaked == before.leaked,
	      "as much came back as went");
}

int main(int argc, char **argv)
{
	__u64 decoys_before;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	debug = open("/dev/pinfold", O_RDWR | O_CLOEXEC);
	if (kvm < 0 || debug < 0)
		die("/dev/kvm and /dev/pinfold");
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	/* Without SA_RESTART. */
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_alarm }, NULL);

	leaked_before = stats().leaked;
	decoys_before = decoys();
	test_system();
	test_memory_regions();
	test_vcpus();
	test_interrupts();
	test_mmio(true);
	test_mmio(false);
	test_doorbell();
	test_signals();
	test_pinned(PINFOLD_KIND_ORDINARY, "an ordinary pin");
	test_pinned(PINFOLD_KIND_EXCLUSIVE, "an exclusive pin");
	test_pinned(PINFOLD_KIND_NONE, "a reference");
	test_share();
	test_kernel_touch();
	test_irq(false);
	test_irq(true);
	test_race(true);
	test_race(false);
	test_processes();
	test_memory_kinds();
	test_moment();
	test_hugetlb();
	test_huge_pages();
	test_rounds(argc > 1 ? atoi(argv[1]) : 100);
	/* What these lose stays lost. */
	test_leak(true);
	test_leak(false);
	check(decoys() - decoys_before == wanted_decoys,
	      "the kernel itself touched nothing that it was not told to");
	printf("1..%d\n", tests);
	return failures ? 1 : 0;
}
