/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The Pinfold driver: KVM's uAPI upwards, Pinfold's hypercalls downwards.
 *
 * Lock order, outermost first:
 *	vcpu->mutex		one ioctl at a time on a vCPU
 *	vm->config_lock		what a VM is made of, until it starts
 *	vm->memory_lock		the records of donated pages
 *	mmap_lock, pool_lock
 *	vm->irqfd_lock, vm->ioeventfd_lock, vm->irq_lock, vcpu->kick_lock
 * The last line is taken with interrupts off or from interrupts.
 */
#ifndef _PINFOLD_DRIVER_H
#define _PINFOLD_DRIVER_H

#include <linux/arm-smccc.h>
#include <linux/bitmap.h>
#include <linux/kref.h>
#include <linux/kvm.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/signal_types.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/xarray.h>

#include "pinfold_abi.h"
#include "uapi/pinfold.h"

struct eventfd_ctx;
struct file;
struct folio;
struct mm_struct;
struct page;

#define PINFOLD_MAX_SLOTS	PINFOLD_LIMIT_MAX_REGIONS
#define PINFOLD_MAX_VCPUS	PINFOLD_LIMIT_MAX_VCPUS
#define PINFOLD_FIRST_SPI	PINFOLD_LIMIT_MIN_SPI
#define PINFOLD_END_SPI		(PINFOLD_LIMIT_MAX_SPI + 1)
#define PINFOLD_NR_SPIS		(PINFOLD_END_SPI - PINFOLD_FIRST_SPI)
#define PINFOLD_IPA_BITS	40
#define PINFOLD_IPA_SIZE	BIT_ULL(PINFOLD_IPA_BITS)
/* The order of the batches in which frames are given to EL2's pool. */
#define PINFOLD_POOL_ORDER	6

/* Not in 6.12's <linux/kvm.h>: mainline 7.2 and Android's common kernel. */
#define KVM_VM_TYPE_ARM_PROTECTED	BIT(31)
#define KVM_CAP_ARM_PROTECTED_VM	0xffbadab1

#define PINFOLD_VGIC_UNSET	U64_MAX

/**
 * struct pinfold_slot - a piece of guest memory, as user space described it
 * @gfn: first guest frame
 * @nr: number of frames; 0 means that the slot is empty
 * @addr: where it begins in the VMM's address space
 */
struct pinfold_slot {
	u64 gfn;
	u64 nr;
	unsigned long addr;
};

/**
 * struct pinfold_vgic - the GIC that user space asked for
 * @created: KVM_CREATE_DEVICE was called
 * @initialized: KVM_DEV_ARM_VGIC_CTRL_INIT was called
 * @dist: guest address of the distributor, or PINFOLD_VGIC_UNSET
 * @redist: guest address of the redistributors, or PINFOLD_VGIC_UNSET
 * @redist_count: how many vCPUs @redist has room for; 0 if it was set without
 * @nr_irqs: what KVM_DEV_ARM_VGIC_GRP_NR_IRQS said, or 0
 */
struct pinfold_vgic {
	bool created;
	bool initialized;
	u64 dist;
	u64 redist;
	u32 redist_count;
	u32 nr_irqs;
};

struct pinfold_vm;

/**
 * struct pinfold_vcpu - a vCPU; lives as long as its VM
 * @vm: the VM
 * @id: KVM's vCPU id, which is EL2's index
 * @mutex: one ioctl at a time
 * @run: the page that user space maps
 * @initialized: KVM_ARM_VCPU_INIT was called
 * @powered_off: as far as the host knows, PSCI has this vCPU off
 * @x: X0-X30 at the first entry
 * @pc: the first instruction
 * @sigset_active: @sigset is in force during KVM_RUN
 * @sigset: KVM_SET_SIGNAL_MASK
 * @answer: goes to EL2 with the next entry
 * @mmio_read_len: KVM_RUN returned for a read of that many bytes; 0 if not
 * @wq: where the vCPU's thread waits while the guest does
 * @kicked: something happened that the guest should see; do not wait
 * @in_guest: the vCPU's thread is at EL2, or has interrupts off to get there
 * @kick_lock: guards @task
 * @task: the thread that is in KVM_RUN
 */
struct pinfold_vcpu {
	struct pinfold_vm *vm;
	unsigned int id;
	struct mutex mutex; /* See the lock order above. */
	struct kvm_run *run;
	bool initialized;
	bool powered_off;
	u64 x[31];
	u64 pc;
	bool sigset_active;
	sigset_t sigset;
	u64 answer;
	u32 mmio_read_len;
	wait_queue_head_t wq;
	bool kicked;
	bool in_guest;
	spinlock_t kick_lock; /* Guards @task. */
	struct task_struct *task;
};

/**
 * struct pinfold_vm - a VM; lives until the last of its files is closed
 * @ref: one for each file (VM, vCPUs, devices)
 * @mm: whose memory it is; ioctls from elsewhere get EIO
 * @config_lock: guards what follows up to @handle; after the start all of it is constant
 * @slots: the guest's memory
 * @vgic: the guest's GIC
 * @vcpus: by id
 * @nr_vcpus: how many there are
 * @handle: EL2's name of the VM; 0 until the VM starts
 * @stopped: the guest is off or was reset; nothing runs any more
 * @memory_lock: guards @pages
 * @pages: GFN -> struct page, for each frame that EL2 holds
 * @irq_lock: guards the two bitmaps and the moment of the start
 * @irq_level: lines that are high, until the start
 * @irq_risen: lines that have risen, until the start
 * @irq_handle: @handle once interrupts go to EL2; 0 until then
 * @irqfd_lock: guards @irqfds
 * @irqfds: KVM_IRQFD
 * @ioeventfd_lock: guards @ioeventfds
 * @ioeventfds: KVM_IOEVENTFD
 * @nr_ioeventfds: how many
 */
struct pinfold_vm {
	struct kref ref;
	struct mm_struct *mm;
	struct mutex config_lock; /* See the lock order above. */
	struct pinfold_slot slots[PINFOLD_MAX_SLOTS];
	struct pinfold_vgic vgic;
	struct pinfold_vcpu *vcpus[PINFOLD_MAX_VCPUS];
	unsigned int nr_vcpus;
	u64 handle;
	bool stopped;
	struct mutex memory_lock; /* Guards @pages. */
	struct xarray pages;
	spinlock_t irq_lock; /* Guards the four below. */
	DECLARE_BITMAP(irq_level, PINFOLD_NR_SPIS);
	DECLARE_BITMAP(irq_risen, PINFOLD_NR_SPIS);
	u64 irq_handle;
	spinlock_t irqfd_lock; /* Guards @irqfds. */
	struct list_head irqfds;
	spinlock_t ioeventfd_lock; /* Guards the two below. */
	struct list_head ioeventfds;
	unsigned int nr_ioeventfds;
};

/* call.c: hypercalls. */
int pinfold_call(struct arm_smccc_1_2_regs *regs);
int pinfold_call_pooled(struct arm_smccc_1_2_regs *regs);
int pinfold_errno(int status);
const char *pinfold_status_name(int status);
int pinfold_discover(void);

/* pool.c: frames that EL2 works with. */
int pinfold_pool_init(void);
void pinfold_pool_exit(void);
int pinfold_pool_top_up(void);
void pinfold_pool_drain(void);
void pinfold_pool_abandon(void);
bool pinfold_pool_forget(unsigned long pfn);
u64 pinfold_pool_size(void);

/* pin.c: pins and isolation. */
bool pinfold_pause(int ret, unsigned int *tries);
int pinfold_pin_page_once(unsigned long addr, bool exclusive, struct page **page);
int pinfold_pin_page(unsigned long addr, bool exclusive, struct page **page);
int pinfold_isolate_once(struct mm_struct *mm, struct folio **folios, unsigned int nr);
int pinfold_isolate(struct mm_struct *mm, struct folio *folio);
int pinfold_split(struct mm_struct *mm, struct page *page);
void pinfold_unpin_page(struct page *page);
int pinfold_tell_refused(unsigned long addr, int ret);

/* kvm_dev.c: /dev/kvm. */
extern const struct file_operations pinfold_kvm_fops;
long pinfold_check_extension(unsigned long cap);

/* vm.c: VM files. */
int pinfold_vm_create(unsigned long type);
void pinfold_vm_get(struct pinfold_vm *vm);
void pinfold_vm_put(struct pinfold_vm *vm);

/* vm_start.c: making it at EL2, and taking it down there. */
int pinfold_vm_start(struct pinfold_vm *vm);
void pinfold_vm_teardown(struct pinfold_vm *vm);

/* memslot.c: what memory the guest has. */
int pinfold_slot_set(struct pinfold_vm *vm, const struct kvm_userspace_memory_region *region);
const struct pinfold_slot *pinfold_slot_find(struct pinfold_vm *vm, u64 gfn);

/* memory.c: pages that EL2 holds. */
int pinfold_memory_fault(struct pinfold_vm *vm, u64 gfn);
bool pinfold_memory_shared(struct pinfold_vm *vm, u64 gfn, u64 nr);
void pinfold_memory_relinquished(struct pinfold_vm *vm, u64 gfn, u64 nr);
bool pinfold_memory_unshare(struct pinfold_vm *vm, u64 gfn, u64 nr);
void pinfold_memory_reclaim(struct pinfold_vm *vm);
void pinfold_memory_leak(struct pinfold_vm *vm);

/* vcpu.c: vCPU files. */
int pinfold_vcpu_create(struct pinfold_vm *vm, unsigned long id);
void pinfold_vcpu_free(struct pinfold_vcpu *vcpu);

/* regs.c: the registers of the first entry. */
int pinfold_reg_get(struct pinfold_vcpu *vcpu, const struct kvm_one_reg *reg);
int pinfold_reg_set(struct pinfold_vcpu *vcpu, const struct kvm_one_reg *reg);
int pinfold_reg_list(struct kvm_reg_list __user *list);

/* run.c and run_exit.c: KVM_RUN. */
int pinfold_vcpu_run(struct pinfold_vcpu *vcpu);
int pinfold_vcpu_exit(struct pinfold_vcpu *vcpu, const struct arm_smccc_1_2_regs *exit);

/* irq.c: interrupt lines, and making a vCPU look at them. */
int pinfold_irq_line(struct pinfold_vm *vm, unsigned int intid, bool level);
int pinfold_irq_line_ioctl(struct pinfold_vm *vm, const struct kvm_irq_level *line);
void pinfold_irq_start(struct pinfold_vm *vm, u64 handle);
void pinfold_vcpu_kick(struct pinfold_vcpu *vcpu);

/* irqfd.c: eventfd -> interrupt line. */
int pinfold_irqfd(struct pinfold_vm *vm, const struct kvm_irqfd *args);
void pinfold_irqfd_release(struct pinfold_vm *vm);
int pinfold_irqfd_init(void);
void pinfold_irqfd_exit(void);

/* ioeventfd.c: guest write -> eventfd. */
int pinfold_ioeventfd(struct pinfold_vm *vm, const struct kvm_ioeventfd *args);
bool pinfold_ioeventfd_match(struct pinfold_vm *vm, u64 addr, u32 len, u64 value);
void pinfold_ioeventfd_release(struct pinfold_vm *vm);

/* vgic.c: the GICv3 as a KVM device. */
int pinfold_device_create(struct pinfold_vm *vm, struct kvm_create_device *args);

/* debug.c: /dev/pinfold. */
extern const struct file_operations pinfold_debug_fops;

/* main.c: counters. */
enum pinfold_count {
	PINFOLD_COUNT_VMS,
	PINFOLD_COUNT_DONATED,
	PINFOLD_COUNT_SHARED,
	PINFOLD_COUNT_LEAKED,
	PINFOLD_COUNT_DONATIONS,
	PINFOLD_COUNT_RECLAIMS,
	PINFOLD_COUNT_PIN_BUSY,
	PINFOLD_COUNT_ISOLATE_RETRIES,
	PINFOLD_COUNT_RUNS,
	PINFOLD_COUNT_KICKS,
	PINFOLD_COUNT_EXITS,
	PINFOLD_COUNT_END = PINFOLD_COUNT_EXITS + 16,
};

extern atomic64_t pinfold_counts[PINFOLD_COUNT_END];

static inline void pinfold_count(enum pinfold_count which, s64 by)
{
	atomic64_add(by, &pinfold_counts[which]);
}

#endif /* _PINFOLD_DRIVER_H */
