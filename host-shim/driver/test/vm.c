// SPDX-License-Identifier: GPL-2.0
/* See vm.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/capability.h>

#include "vm.h"

int tests, failures;
int kvm, debug;
__u64 leaked_before;

void check(bool ok, const char *what)
{
	printf("%sok %d - %s\n", ok ? "" : "not ", ++tests, what);
	if (!ok) {
		printf("# errno %d (%s)\n", errno, strerror(errno));
		failures++;
	}
	fflush(stdout);
}

void check_errno(long ret, int expected, const char *what)
{
	bool ok = expected ? ret < 0 && errno == expected : ret >= 0;

	if (!ok)
		printf("# returned %ld\n", ret);
	check(ok, what);
}

/* This machine cannot run the case. */
void skip(const char *what, const char *why)
{
	printf("ok %d - %s # SKIP %s\n", ++tests, what, why);
	fflush(stdout);
}

void die(const char *what)
{
	perror(what);
	exit(2);
}

/* A VM with one vCPU and this memory, at whose beginning there is a guest. */
struct vm make_vm_of(char *ram, unsigned long size, __u64 device)
{
	struct vm vm = { .fd = ioctl(kvm, KVM_CREATE_VM, PROTECTED), .ram = ram, .size = size };

	if (vm.fd < 0)
		die("KVM_CREATE_VM");
	if (set_region(vm.fd, 0, 0, RAM, size, ram))
		die("KVM_SET_USER_MEMORY_REGION");
	vm.vcpu = ioctl(vm.fd, KVM_CREATE_VCPU, 0);
	vm.run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	vm.run = mmap(NULL, vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu, 0);
	if (vm.vcpu < 0 || vm.run == MAP_FAILED)
		die("KVM_CREATE_VCPU");
	if (vcpu_init(vm.vcpu, KVM_ARM_TARGET_GENERIC_V8, 1 << KVM_ARM_VCPU_PSCI_0_2, 0))
		die("KVM_ARM_VCPU_INIT");
	if (set_reg(vm.vcpu, CORE(regs.pc), RAM) || set_reg(vm.vcpu, CORE(regs.regs[1]), device) ||
	    set_reg(vm.vcpu, CORE(regs.regs[2]), RAM + PAGE))
		die("KVM_SET_ONE_REG");
	return vm;
}

/* The same with a little memory of its own. */
struct vm make_vm(const char *guest, const char *end, __u64 device, bool anonymous)
{
	int memory = anonymous ? -1 : memfd_create("guest", 0);
	char *ram;

	if (!anonymous && ftruncate(memory, RAM_PAGES * PAGE))
		die("ftruncate");
	ram = mmap(NULL, RAM_PAGES * PAGE, PROT_READ | PROT_WRITE,
		   anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, memory, 0);
	if (ram == MAP_FAILED)
		die("mmap");
	if (!anonymous)
		close(memory);
	memset(ram, 0xa5, RAM_PAGES * PAGE);
	memcpy(ram, guest, end - guest);
	return make_vm_of(ram, RAM_PAGES * PAGE, device);
}

void end_vm(struct vm *vm)
{
	munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->fd);
	munmap(vm->ram, vm->size);
}

/* Run until the vCPU has something other than a signal to say. */
int run(struct vm *vm)
{
	int ret;

	do {
		ret = ioctl(vm->vcpu, KVM_RUN, 0);
	} while (ret < 0 && errno == EINTR);
	return ret;
}

void *run_thread(void *vm)
{
	return (void *)(long)run(vm);
}

bool is_mmio(const struct vm *vm, __u64 addr, unsigned int len, bool write)
{
	return vm->run->exit_reason == KVM_EXIT_MMIO && vm->run->mmio.phys_addr == addr &&
	       vm->run->mmio.len == len && vm->run->mmio.is_write == write;
}

__u64 mmio_value(const struct vm *vm)
{
	__u64 value;

	memcpy(&value, vm->run->mmio.data, sizeof(value));
	return value;
}

/* Of KVM_EXIT_MEMORY_FAULT: flags, address, size. */
__u64 fault_address(const struct vm *vm)
{
	__u64 fault[3];

	memcpy(fault, &vm->run->hw, sizeof(fault));
	return fault[1];
}

/* Two vCPUs touch the same pages. */
void race(struct vm vm, unsigned int frames)
{
	struct vm second = vm;
	pthread_t thread;
	void *ret;

	second.vcpu = ioctl(vm.fd, KVM_CREATE_VCPU, 1);
	second.run = mmap(NULL, vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, second.vcpu, 0);
	vcpu_init(second.vcpu, KVM_ARM_TARGET_GENERIC_V8,
		  1 << KVM_ARM_VCPU_PSCI_0_2 | 1 << KVM_ARM_VCPU_POWER_OFF, 0);
	set_reg(vm.vcpu, CORE(regs.regs[3]), RAM_PAGES - 1);
	if (pthread_create(&thread, NULL, run_thread, &second))
		die("pthread_create");
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, true) && mmio_value(&vm) == RAM_PAGES - 1,
	      "the first vCPU touched all pages");
	pthread_join(thread, &ret);
	check(!ret && is_mmio(&second, MMIO, 4, true) && mmio_value(&second) == RAM_PAGES - 1,
	      "the second, which it started, as well");
	check(stats().donated == frames, "each page was donated once");
	munmap(second.run, second.run_size);
	close(second.vcpu);
	end_vm(&vm);
	check(stats().donated == 0 && stats().leaked == 0, "all are back");
}

struct pinfold_stats stats(void)
{
	struct pinfold_stats stats;

	if (ioctl(debug, PINFOLD_IOC_STATS, &stats))
		die("PINFOLD_IOC_STATS");
	stats.leaked -= leaked_before;
	return stats;
}

/* What EL2 knows of a frame: x2 to x7 of FOLIO_QUERY. */
struct pinfold_call query(__u64 pfn)
{
	struct pinfold_call call = { .x = { PINFOLD_CALL_FOLIO_QUERY, pfn } };

	if (ioctl(debug, PINFOLD_IOC_CALL, &call) || call.x[0] || call.x[1])
		die("FOLIO_QUERY");
	return call;
}

/* The frame behind an address, and its folio's pin word while it is pinned exclusively. */
struct pinfold_pin look(char *where)
{
	struct pinfold_pin pin = { .addr = (__u64)where, .kind = PINFOLD_KIND_EXCLUSIVE };

	if (ioctl(debug, PINFOLD_IOC_PIN, &pin) || ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie))
		die("PINFOLD_IOC_PIN");
	return pin;
}

/* How often EL2 had to give the kernel a page of zeroes. */
__u64 decoys(void)
{
	struct pinfold_call call = { .x = { PINFOLD_CALL_COUNTER, PINFOLD_COUNTER_DECOYS } };

	if (ioctl(debug, PINFOLD_IOC_CALL, &call) || call.x[0] || call.x[1])
		die("COUNTER");
	return call.x[2];
}

static sigjmp_buf fault_return;

void on_fault(int signal)
{
	siglongjmp(fault_return, signal);
}

/* The signal that reading, or writing, a byte ends in; 0 if it does not. */
int touch(char *where, bool write)
{
	int signal = sigsetjmp(fault_return, 1);
	long scratch;

	if (signal)
		return signal;
	if (write)
		asm volatile("strb wzr, [%0]" : : "r" (where) : "memory");
	else
		asm volatile("ldrb %w0, [%1]" : "=r" (scratch) : "r" (where) : "memory");
	return 0;
}

/* Let this process lock one page. */
void drop_ipc_lock(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};
	struct rlimit limit = { PAGE, PAGE };

	if (syscall(SYS_capset, &header, data) || setrlimit(RLIMIT_MEMLOCK, &limit))
		_exit(3);
}

unsigned long locked_kib(void)
{
	unsigned long kib = -1UL;
	char line[128];
	FILE *file = fopen("/proc/self/status", "r");

	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "VmLck: %lu", &kib);
	if (file)
		fclose(file);
	return kib;
}

void write_file(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		printf("# %s: %s\n", path, strerror(errno));
	if (file >= 0)
		close(file);
}
