// SPDX-License-Identifier: GPL-2.0
/*
 * The driver's test: a guest's memory in huge pages, which go whole where the
 * guest can have them, and page after page otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm.h"

/* Map a huge page, full of 0xa5. */
static void map_large(char *at, bool anonymous)
{
	int memory = anonymous ? -1 : memfd_create("guest", 0);

	if (!anonymous && ftruncate(memory, LARGE))
		die("ftruncate");
	if (mmap(at, LARGE, PROT_READ | PROT_WRITE, MAP_FIXED |
		 (anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED), memory, 0) != at)
		die("mmap");
	if (!anonymous)
		close(memory);
	if (madvise(at, LARGE, MADV_HUGEPAGE))
		die("MADV_HUGEPAGE");
	memset(at, 0xa5, LARGE);
}

/* Map a page that is none of a huge page. */
static void map_page(char *at, int byte)
{
	if (mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != at)
		die("mmap");
	memset(at, byte, PAGE);
}

/*
 * A huge page with a guest in it.  What comes before and behind it in the
 * address space is out of reach.
 */
static char *make_large(const char *guest, const char *end, bool anonymous)
{
	char *place = mmap(NULL, 4 * LARGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((unsigned long)place + 2 * LARGE - 1) & -LARGE);

	map_large(at, anonymous);
	memcpy(at, guest, end - guest);
	return at;
}

static void unmap_large(char *ram)
{
	munmap(ram - LARGE, 3 * LARGE);
}

/* The guest says how it went with the page that it shares or takes back. */
static bool reports(struct vm *vm, __s64 result, __u64 content)
{
	__s64 said;

	if (run(vm) || !is_mmio(vm, MMIO, 8, true))
		return false;
	said = mmio_value(vm);
	if (run(vm) || !is_mmio(vm, MMIO, 8, true))
		return false;
	if (said != result || mmio_value(vm) != content)
		printf("# it says %lld, %llx\n", (long long)said,
		       (unsigned long long)mmio_value(vm));
	return said == result && mmio_value(vm) == content;
}

/* The guest gets a huge page as one folio, and shares one page of it. */
static void test_large(bool anonymous)
{
	int stopped = anonymous ? SIGSEGV : SIGBUS;
	char *ram = make_large(guest_large, guest_large_end, anonymous);
	struct pinfold_pin pin = look(ram + PAGE);
	struct vm vm = make_vm_of(ram, LARGE, MMIO);
	unsigned long locked = locked_kib();
	struct pinfold_call found;

	printf("# %s, pin word %x\n", anonymous ? "anonymous" : "memfd", pin.word);
	check(pin.word == 0x49000001, "a huge page has one exclusive pin");
	check(!run(&vm) && is_mmio(&vm, MMIO, 4, false), "the guest runs in it");
	check(stats().donated == 512, "512 frames were donated at once");
	check(locked_kib() - locked == LARGE / 1024, "RLIMIT_MEMLOCK counts all of them");
	found = query(pin.pfn + 100);
	check(found.x[3] == 3 && found.x[4] == 9 && found.x[6] == RAM / PAGE + 101,
	      "EL2 has one folio of order 9");
	check(touch(ram + LARGE - 1, true) == stopped, "its end is out of reach");
	check(!run(&vm) && mmio_value(&vm) == 0xa5a5a5a5a5a5a5a5, "the guest has what was in it");

	check(reports(&vm, 0, 0x5a), "it shares one page");
	check(stats().shared == 1 && stats().donated == 512, "the driver knows");
	check(touch(ram, true) == stopped && touch(ram + 2 * PAGE, false) == stopped &&
	      touch(ram + LARGE - 1, true) == stopped, "the others are still out of reach");
	check(ram[PAGE] == 0x5a, "the host reads the shared one");
	found = query(pin.pfn + 1);
	check(found.x[7] == 0xc0000001, "each of the others has a pin of its own");
	pin.kind = PINFOLD_KIND_ORDINARY;
	check_errno(ioctl(debug, PINFOLD_IOC_PIN, &pin), 0, "the shared one can be pinned");
	check(reports(&vm, -3, 0x5a), "then it cannot be taken back");
	check_errno(ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie), 0, "let go");
	/* It stays shared, so that this share fails. */
	check(reports(&vm, -3, 0x5a), "it is not shared twice");
	check(reports(&vm, 0, 0x5a), "it can be taken back");
	check(touch(ram + PAGE, false) == stopped && stats().shared == 0, "and is the guest's");
	check(reports(&vm, 0, 0x5a), "it can be shared again");
	check(ram[PAGE] == 0x5a, "and read");
	pin.kind = PINFOLD_KIND_NONE;
	check_errno(ioctl(debug, PINFOLD_IOC_PIN, &pin), 0, "somebody has a reference to it");
	check(reports(&vm, -3, 0x5a), "then it cannot be taken back either");
	check(ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie) == 0 && pin.word == 1, "let go");
	pin.kind = PINFOLD_KIND_ORDINARY;
	check(!ioctl(debug, PINFOLD_IOC_PIN, &pin) && pin.word == 2,
	      "it is pinned as it was, and lets others pin it");
	check_errno(ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie), 0, "let go");

	munmap(vm.run, vm.run_size);
	close(vm.vcpu);
	close(vm.fd);
	check(stats().donated == 0 && stats().leaked == 0 && stats().shared == 0, "all are back");
	check(locked_kib() == locked, "RLIMIT_MEMLOCK is as it was");
	check(!ram[0] && !ram[PAGE] && !ram[2 * PAGE] && !ram[LARGE - 1], "and read as zeroes");
	unmap_large(ram);
}

static void test_large_race(bool anonymous)
{
	char *ram = make_large(guest_race, guest_race_end, anonymous);

	race(make_vm_of(ram, LARGE, MMIO), LARGE / PAGE);
	unmap_large(ram);
}

/* A host that is busy with a guest's memory while it is given away. */
static void disturb(char *ram, unsigned int turn, int memory)
{
	char *where = ram + turn * 7919 % LARGE;
	struct pinfold_pin pin = { .addr = (__u64)where, .kind = turn / 6 % 2 };
	pid_t child;
	char byte;

	switch (turn % 6) {
	case 0:
		child = fork();
		if (!child)
			_exit(0);
		waitpid(child, NULL, 0);
		break;
	case 1:
		madvise(ram, LARGE, MADV_COLD);
		break;
	case 2:
		madvise(ram, LARGE, MADV_PAGEOUT);
		break;
	case 3:
		byte = pread(memory, &byte, 1, (off_t)where);
		break;
	default:
		if (!ioctl(debug, PINFOLD_IOC_PIN, &pin))
			ioctl(debug, PINFOLD_IOC_UNPIN, pin.cookie);
	}
}

static char *disturbed;

static void *disturb_thread(void *ram)
{
	int memory = open("/proc/self/mem", O_RDONLY);
	unsigned int turn;

	for (turn = 0; __atomic_load_n(&disturbed, __ATOMIC_RELAXED); turn++)
		disturb(ram, turn, memory);
	close(memory);
	return NULL;
}

/* Run the vCPU, however often somebody else is there first. */
static int run_patiently(struct vm *vm)
{
	int tries, ret;

	for (tries = 0; tries < 100; tries++) {
		ret = run(vm);
		if (!ret || errno != EBUSY)
			break;
	}
	return ret;
}

static void test_disturbed(bool anonymous, int rounds)
{
	unsigned long locked = locked_kib();
	int i, bad = 0;

	for (i = 0; i < rounds; i++) {
		char *ram = make_large(guest_large, guest_large_end, anonymous);
		struct vm vm = make_vm_of(ram, LARGE, MMIO);
		pthread_t thread;
		int turn;

		disturbed = ram;
		if (pthread_create(&thread, NULL, disturb_thread, ram))
			die("pthread_create");
		bad += run_patiently(&vm) || !is_mmio(&vm, MMIO, 4, false);
		bad += run_patiently(&vm) || mmio_value(&vm) != 0xa5a5a5a5a5a5a5a5;
		/* Sharing and taking back may fail; what is in the page stays. */
		for (turn = 0; turn < 8; turn++) {
			bad += run_patiently(&vm) || !is_mmio(&vm, MMIO, 8, true);
			bad += run_patiently(&vm) || mmio_value(&vm) != 0x5a;
		}
		__atomic_store_n(&disturbed, NULL, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
		end_vm(&vm);
		unmap_large(ram);
	}
	check(!bad, anonymous ? "guests of a busy host, anonymous memory"
			      : "guests of a busy host, memfd");
	check(stats().donated == 0 && stats().leaked == 0 && stats().shared == 0 &&
	      locked_kib() == locked, "all are back");
}

/* Run a guest of a huge page that does not fit: it gets page after page. */
static void runs_in_pages(struct vm *vm, __u64 content, const char *what)
{
	unsigned long locked = locked_kib();

	check(!run(vm) && is_mmio(vm, MMIO, 4, false) && stats().donated == 1, what);
	check(!run(vm) && mmio_value(vm) == content && stats().donated == 2, "page after page");
	check(locked_kib() - locked == 2 * PAGE / 1024, "two of them are locked");
	check(reports(vm, 0, 0x5a) && reports(vm, 0, 0x5a), "it shares and takes back");
	munmap(vm->run, vm->run_size);
	close(vm->vcpu);
	close(vm->fd);
	check(stats().donated == 0 && stats().leaked == 0 && locked_kib() == locked,
	      "all are back");
}

static void test_large_misfits(bool anonymous)
{
	char *ram = make_large(guest_large, guest_large_end, anonymous);
	struct vm vm;

	memmove(ram + PAGE, ram, PAGE);
	vm = make_vm_of(ram + PAGE, LARGE - PAGE, MMIO);
	runs_in_pages(&vm, 0xa5a5a5a5a5a5a5a5, "a huge page without its beginning");
	unmap_large(ram);

	ram = make_large(guest_large, guest_large_end, anonymous);
	mprotect(ram - PAGE, PAGE, PROT_READ | PROT_WRITE);
	memcpy(ram - PAGE, ram, PAGE);
	memset(ram, 0xa5, PAGE);
	vm = make_vm_of(ram - PAGE, LARGE + PAGE, MMIO);
	runs_in_pages(&vm, 0xa5a5a5a5a5a5a5a5, "a huge page at an odd guest address");
	unmap_large(ram);

	ram = make_large(guest_large, guest_large_end, anonymous);
	vm = make_vm_of(ram, LARGE / 2, MMIO);
	runs_in_pages(&vm, 0xa5a5a5a5a5a5a5a5, "half a huge page");
	check((unsigned char)ram[LARGE - 1] == 0xa5, "the other half is untouched");
	unmap_large(ram);

	ram = make_large(guest_large, guest_large_end, anonymous);
	map_page(ram + PAGE, 0x11);
	vm = make_vm_of(ram, LARGE, MMIO);
	runs_in_pages(&vm, 0x1111111111111111, "a huge page with another page in it");
	unmap_large(ram);

	ram = make_large(guest_large, guest_large_end, anonymous);
	munmap(ram + LARGE - PAGE, PAGE);
	vm = make_vm_of(ram, LARGE, MMIO);
	runs_in_pages(&vm, 0xa5a5a5a5a5a5a5a5, "a huge page without its end");
	unmap_large(ram);

	ram = make_large(guest_large, guest_large_end, anonymous);
	mprotect(ram + LARGE - PAGE, PAGE, PROT_READ);
	vm = make_vm_of(ram, LARGE, MMIO);
	runs_in_pages(&vm, 0xa5a5a5a5a5a5a5a5, "a huge page with an end that is read-only");
	unmap_large(ram);
}

/* The VMM maps a huge page where the guest has a page of another one already. */
static void test_large_too_late(bool anonymous)
{
	char *ram = make_large(guest_large, guest_large_end, anonymous);
	struct vm vm;

	map_page(ram, 0);
	memcpy(ram, guest_large, guest_large_end - guest_large);
	vm = make_vm_of(ram, LARGE, MMIO);
	check(!run(&vm) && stats().donated == 1, "a page is the guest's");
	map_large(ram, anonymous);
	memset(ram + PAGE, 0x22, PAGE);
	check(!run(&vm) && mmio_value(&vm) == 0x2222222222222222 && stats().donated == 2,
	      "a huge page comes too late to be donated whole");
	end_vm(&vm);
	check(stats().donated == 0 && stats().leaked == 0, "all are back");
	unmap_large(ram);
}

/* Nobody has the folio any more, so it cannot be split. */
static void test_large_declined(void)
{
	char *ram = make_large(guest_large, guest_large_end, true);
	struct vm vm = make_vm_of(ram, LARGE, MMIO);

	check(!run(&vm) && stats().donated == 512, "a huge page is the guest's");
	unmap_large(ram);
	check(!run(&vm) && mmio_value(&vm) == 0xa5a5a5a5a5a5a5a5, "the VMM has unmapped it");
	check(reports(&vm, -3, 0x5a), "then the guest cannot share a page of it");
	check(stats().shared == 0, "and the driver has not");
	munmap(vm.run, vm.run_size);
	close(vm.vcpu);
	close(vm.fd);
	check(stats().donated == 0 && stats().leaked == 0, "all are back");
}

/* In a child, with a huge page but less memory to lock: it gets what it may. */
int child_memlock_large(void)
{
	char *ram = make_large(guest_large, guest_large_end, true);
	struct vm vm = make_vm_of(ram, LARGE, MMIO);

	drop_ipc_lock();
	if (run(&vm) || !is_mmio(&vm, MMIO, 4, false) || stats().donated != 1)
		return 1;
	return !(run(&vm) < 0 && errno == ENOMEM && vm.run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
		 fault_address(&vm) == RAM + PAGE);
}

void test_hugetlb(void)
{
	char *ram;
	struct vm vm;

	write_file("/proc/sys/vm/nr_hugepages", "1");
	ram = mmap(NULL, LARGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (ram == MAP_FAILED) {
		skip("hugetlb memory is not for guests", "there is none");
		return;
	}
	memcpy(ram, guest_mmio, guest_mmio_end - guest_mmio);
	vm = make_vm_of(ram, LARGE, MMIO);
	check_errno(run(&vm), EIO, "hugetlb memory is not for guests");
	check(stats().donated == 0 && locked_kib() == 0, "nothing was donated");
	end_vm(&vm);
	write_file("/proc/sys/vm/nr_hugepages", "0");
}

void test_huge_pages(void)
{
	write_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
	test_large(true);
	test_large(false);
	test_large_race(true);
	test_large_race(false);
	test_large_misfits(true);
	test_large_misfits(false);
	test_large_too_late(true);
	test_large_too_late(false);
	test_large_declined();
	test_disturbed(true, 10);
	test_disturbed(false, 10);
}
