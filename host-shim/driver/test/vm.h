/* SPDX-License-Identifier: GPL-2.0 */
/* The driver's test: TAP, VMs of one vCPU, and what driver and EL2 say of them. */
#ifndef VM_H
#define VM_H

#include <stdbool.h>

#include "../uapi/pinfold.h"
#include "../pinfold_abi.h"
#include "guests.h"
#include "kvm.h"

#define RAM		0x40000000UL
#define RAM_PAGES	16

/* Not in Debian 12's <linux/kvm.h>. */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT	39
#endif

struct vm {
	int fd, vcpu;
	char *ram;
	unsigned long size;
	struct kvm_run *run;
	int run_size;
};

/* TAP: results so far, which main() announces at the end. */
extern int tests, failures;

void check(bool ok, const char *what);
void check_errno(long ret, int expected, const char *what);
void skip(const char *what, const char *why);
void die(const char *what);

/* /dev/kvm, /dev/pinfold; what was lost before we came. */
extern int kvm, debug;
extern __u64 leaked_before;

struct vm make_vm_of(char *ram, unsigned long size, __u64 device);
struct vm make_vm(const char *guest, const char *end, __u64 device, bool anonymous);
void end_vm(struct vm *vm);
int run(struct vm *vm);
void *run_thread(void *vm);
bool is_mmio(const struct vm *vm, __u64 addr, unsigned int len, bool write);
__u64 mmio_value(const struct vm *vm);
__u64 fault_address(const struct vm *vm);
void race(struct vm vm, unsigned int frames);

/* What driver and EL2 say. */
struct pinfold_stats stats(void);
struct pinfold_call query(__u64 pfn);
struct pinfold_pin look(char *where);
__u64 decoys(void);

/* What the kernel says of this process, and to it. */
void on_fault(int signal);
int touch(char *where, bool write);
void drop_ipc_lock(void);
unsigned long locked_kib(void);
void write_file(const char *path, const char *text);

/* large.c: memory in huge pages. */
void test_huge_pages(void);
void test_hugetlb(void);
int child_memlock_large(void);

#endif /* VM_H */
