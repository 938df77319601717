// SPDX-License-Identifier: GPL-2.0
/*
 * The cases of the kernel's selftest (exclusive_pin_cases.c of the patched
 * source), with memory that is really away: a small guest has it, which has
 * written a pattern into all of it and looks after it.
 *
 * Run it as root in a host with pinfold.ko and gup_test.  Prints TAP.  The
 * argument is the number of the cases to run, or "decoys": the cases in which the
 * kernel touches what is not its own, and EL2 has to see to it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "exclusive_pin_cases.h"
#include "../uapi/pinfold.h"
#include "../pinfold_abi.h"
#include "guests.h"
#include "kvm.h"

#define CODE		0x40000000UL
#define MEMORY		0x80000000UL

enum order {
	VERIFY,
	SHARE,
	UNSHARE,
};

static int kvm, debug;
static __u64 leaked_before;

static struct keeper_vm {
	int fd, vcpu;
	char *code;
	struct kvm_run *run;
} vms[HOLDER_MAX];

static int run_size;

static bool make_code(struct keeper_vm *vm)
{
	vm->code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->code == MAP_FAILED)
		return false;
	memcpy(vm->code, guest_keeper, guest_keeper_end - guest_keeper);
	/* The cases are about the other memory: no child needs this. */
	return !madvise(vm->code, PAGE, MADV_DONTFORK);
}

static bool make_vcpu(struct keeper_vm *vm, __u64 gpa, size_t len)
{
	vm->vcpu = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		return false;
	vm->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	return vm->run != MAP_FAILED &&
	       !vcpu_init(vm->vcpu, KVM_ARM_TARGET_GENERIC_V8, 1 << KVM_ARM_VCPU_PSCI_0_2, 0) &&
	       !set_reg(vm->vcpu, CORE(regs.pc), CODE) &&
	       !set_reg(vm->vcpu, CORE(regs.regs[1]), MMIO) &&
	       !set_reg(vm->vcpu, CORE(regs.regs[2]), gpa) &&
	       !set_reg(vm->vcpu, CORE(regs.regs[3]), len);
}

/* Until the guest says something, or what became of it instead. */
static int run(struct keeper_vm *vm, __u64 *said)
{
	int ret;

	do {
		ret = ioctl(vm->vcpu, KVM_RUN, 0);
	} while (ret < 0 && errno == EINTR);
	if (ret < 0)
		return -errno;
	if (vm->run->exit_reason != KVM_EXIT_MMIO || !vm->run->mmio.is_write)
		return -EPROTO;
	memcpy(said, vm->run->mmio.data, sizeof(*said));
	return 0;
}

/* The guest waits in a read of its orders. */
static int order(struct keeper_vm *vm, enum order what, __u64 *said)
{
	__u32 number = what;
	int ret;

	ret = ioctl(vm->vcpu, KVM_RUN, 0);
	if (ret < 0)
		return -errno;
	if (vm->run->exit_reason != KVM_EXIT_MMIO || vm->run->mmio.is_write)
		return -EPROTO;
	memcpy(vm->run->mmio.data, &number, sizeof(number));
	return run(vm, said);
}

static void donated_give_back(unsigned int n)
{
	struct keeper_vm *vm = &vms[n];

	if (vm->run && vm->run != MAP_FAILED)
		munmap(vm->run, run_size);
	if (vm->vcpu > 0)
		close(vm->vcpu);
	if (vm->fd > 0)
		close(vm->fd);
	if (vm->code && vm->code != MAP_FAILED)
		munmap(vm->code, PAGE);
	memset(vm, 0, sizeof(*vm));
}

static int donated_take(unsigned int n, void *addr, size_t len)
{
	/* A large folio goes whole only if it fits. */
	__u64 said, gpa = MEMORY + (uintptr_t)addr % LARGE;
	struct keeper_vm *vm = &vms[n];
	int ret;

	if (vm->fd)
		return -EEXIST;
	vm->fd = ioctl(kvm, KVM_CREATE_VM, PROTECTED);
	if (vm->fd < 0 || !make_code(vm) || set_region(vm->fd, 0, 0, CODE, PAGE, vm->code) ||
	    set_region(vm->fd, 1, 0, gpa, len, addr) || !make_vcpu(vm, gpa, len))
		ret = -errno;
	else
		ret = run(vm, &said);
	if (ret)
		donated_give_back(n);
	return ret;
}

static bool donated_intact(unsigned int n)
{
	__u64 wrong;

	if (!vms[n].fd || order(&vms[n], VERIFY, &wrong))
		return false;
	if (wrong)
		ksft_print_msg("the guest finds %llu words changed\n", (unsigned long long)wrong);
	return !wrong;
}

static int donated_share(unsigned int n)
{
	__u64 status;
	int ret = order(&vms[n], SHARE, &status);

	return ret ? ret : status ? -EIO : 0;
}

/* The guest is not told why. */
static int donated_unshare(unsigned int n)
{
	__u64 status;
	int ret = order(&vms[n], UNSHARE, &status);

	return ret ? ret : status ? -EBUSY : 0;
}

static struct pinfold_stats stats(void)
{
	struct pinfold_stats stats;

	if (ioctl(debug, PINFOLD_IOC_STATS, &stats))
		ksft_exit_fail_perror("PINFOLD_IOC_STATS");
	return stats;
}

static bool donated_nothing_held(void)
{
	struct pinfold_stats now = stats();

	return !now.vms && !now.donated && !now.shared && now.leaked == leaked_before;
}

/* EL2 counts how often it gave the kernel a decoy. */
static unsigned long donated_strays(void)
{
	struct pinfold_call call = { .x = { PINFOLD_CALL_COUNTER, PINFOLD_COUNTER_DECOYS } };

	if (ioctl(debug, PINFOLD_IOC_CALL, &call))
		ksft_exit_fail_perror("PINFOLD_IOC_CALL");
	if (call.x[0] || call.x[1])
		ksft_exit_skip("EL2 does not tell its counters\n");
	return call.x[2];
}

static const struct pin_holder guest_holder = {
	.name = "guest",
	.real = true,
	.busy_reference = -EBUSY,
	.take = donated_take,
	.intact = donated_intact,
	.give_back = donated_give_back,
	.share = donated_share,
	.unshare = donated_unshare,
	.nothing_held = donated_nothing_held,
	.strays = donated_strays,
};

int main(int argc, char **argv)
{
	__u64 strays;

	if (argc > 1 && !strcmp(argv[1], "decoys"))
		stray_cases = true;
	else if (argc > 1)
		only_case = atoi(argv[1]);
	ksft_print_header();
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	debug = open("/dev/pinfold", O_RDWR | O_CLOEXEC);
	if (kvm < 0 || debug < 0)
		ksft_exit_skip("no /dev/kvm and /dev/pinfold\n");
	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	gup_fd = open("/sys/kernel/debug/gup_test", O_RDWR);
	if (gup_fd < 0)
		ksft_exit_skip("no gup_test\n");
	run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	leaked_before = stats().leaked;
	strays = donated_strays();

	ksft_set_plan(count_cases());
	run_cases(&guest_holder, report_case);
	ksft_print_msg("the kernel strayed %llu times\n",
		       (unsigned long long)(donated_strays() - strays));
	ksft_finished();
}
