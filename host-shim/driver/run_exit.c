// SPDX-License-Identifier: GPL-2.0
/*
 * Why the guest stopped, and what is done about it: here, or by the VMM
 * through the page that it shares with us.
 */
#include <linux/math64.h>
#include <linux/mm.h>
#include <asm/arch_timer.h>

#include "driver.h"

/* A vCPU that waits looks up at least once an hour. */
#define PINFOLD_LONGEST_WAIT	3600

/* Wait for an interrupt line, CPU_ON, a signal, or the time. */
static int pinfold_wait(struct pinfold_vcpu *vcpu, ktime_t timeout)
{
	/* Signals are seen by the loop; the rest by EL2. */
	wait_event_interruptible_hrtimeout(vcpu->wq, READ_ONCE(vcpu->kicked), timeout);
	return 1;
}

/* The host's counter and the guest's are the same: CNTVOFF is 0. */
static int pinfold_wait_until(struct pinfold_vcpu *vcpu, u64 deadline)
{
	u64 freq = arch_timer_get_cntfrq();
	u64 now = __arch_counter_get_cntvct();
	u64 ticks;

	if (deadline == U64_MAX)
		return pinfold_wait(vcpu, KTIME_MAX);
	if (deadline <= now)
		return 1;
	ticks = min(deadline - now, freq * PINFOLD_LONGEST_WAIT);
	return pinfold_wait(vcpu, ns_to_ktime(mul_u64_u64_div_u64(ticks, NSEC_PER_SEC, freq)));
}

/*
 * KVM's documentation knows EFAULT and EHWPOISON beside KVM_EXIT_MEMORY_FAULT.
 * A VMM may as well learn more: the errors of pinfold_memory_fault().
 */
static int pinfold_exit_memory_fault(struct pinfold_vcpu *vcpu, u64 gfn)
{
	struct kvm_run *run = vcpu->run;
	int ret = pinfold_memory_fault(vcpu->vm, gfn);

	/* A signal ended a wait: the loop sees it. */
	if (!ret || ret == -EINTR)
		return 1;
	run->exit_reason = KVM_EXIT_MEMORY_FAULT;
	run->memory_fault.flags = KVM_MEMORY_EXIT_FLAG_PRIVATE;
	run->memory_fault.gpa = gfn << PAGE_SHIFT;
	run->memory_fault.size = PAGE_SIZE;
	return ret;
}

static int pinfold_exit_mmio(struct pinfold_vcpu *vcpu, u64 addr, u32 len, u64 value, bool write)
{
	struct kvm_run *run = vcpu->run;

	if (write && pinfold_ioeventfd_match(vcpu->vm, addr, len, value))
		return 1;
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = addr;
	run->mmio.len = len;
	run->mmio.is_write = write;
	memcpy(run->mmio.data, &value, sizeof(run->mmio.data));
	if (!write)
		vcpu->mmio_read_len = min_t(u32, len, sizeof(run->mmio.data));
	return 0;
}

static int pinfold_exit_cpu_on(struct pinfold_vcpu *vcpu, u64 index)
{
	struct pinfold_vcpu *target;

	if (index >= PINFOLD_MAX_VCPUS)
		return 1;
	target = vcpu->vm->vcpus[index];
	if (target) {
		WRITE_ONCE(target->powered_off, false);
		pinfold_vcpu_kick(target);
	}
	return 1;
}

/* Something that one vCPU did is for others to look at: an SGI, say. */
static int pinfold_exit_kick(struct pinfold_vcpu *vcpu, u64 mask)
{
	unsigned int i;

	for (i = 0; i < vcpu->vm->nr_vcpus; i++)
		if (mask & BIT_ULL(i) && i != vcpu->id)
			pinfold_vcpu_kick(vcpu->vm->vcpus[i]);
	return 1;
}

static int pinfold_exit_event(struct pinfold_vcpu *vcpu, u32 type, u64 data)
{
	struct kvm_run *run = vcpu->run;
	unsigned int i;

	/* The other vCPUs stop as well. */
	WRITE_ONCE(vcpu->vm->stopped, true);
	for (i = 0; i < vcpu->vm->nr_vcpus; i++)
		pinfold_vcpu_kick(vcpu->vm->vcpus[i]);

	run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
	run->system_event.type = type;
	run->system_event.ndata = 1;
	run->system_event.data[0] = data;
	return 0;
}

static int pinfold_exit_unknown(struct pinfold_vcpu *vcpu, u64 reason)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
	run->internal.suberror = KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON;
	run->internal.ndata = 1;
	run->internal.data[0] = reason;
	return 0;
}

/**
 * pinfold_vcpu_exit - serve one exit
 * @vcpu: the vCPU
 * @exit: what VCPU_RUN returned: x2 is the reason, x3 to x5 its details
 *
 * Return: 1 to go on, else what KVM_RUN returns.
 */
int pinfold_vcpu_exit(struct pinfold_vcpu *vcpu, const struct arm_smccc_1_2_regs *exit)
{
	u64 reason = exit->a2, x3 = exit->a3, x4 = exit->a4;

	pinfold_count(PINFOLD_COUNT_EXITS + min_t(u64, reason, 15), 1);

	switch (reason) {
	case PINFOLD_EXIT_INTERRUPT:
		return 1;
	case PINFOLD_EXIT_WFI:
		return pinfold_wait_until(vcpu, x3);
	case PINFOLD_EXIT_MEMORY_FAULT:
		return pinfold_exit_memory_fault(vcpu, x3);
	case PINFOLD_EXIT_MMIO_READ:
		return pinfold_exit_mmio(vcpu, x3, x4, 0, false);
	case PINFOLD_EXIT_MMIO_WRITE:
		return pinfold_exit_mmio(vcpu, x3, x4, exit->a5, true);
	case PINFOLD_EXIT_SHARED:
		vcpu->answer = pinfold_memory_shared(vcpu->vm, x3, x4) ? 0 : 1;
		return 1;
	case PINFOLD_EXIT_UNSHARE_REQUEST:
		vcpu->answer = pinfold_memory_unshare(vcpu->vm, x3, x4) ? 0 : 1;
		return 1;
	case PINFOLD_EXIT_RELINQUISHED:
		pinfold_memory_relinquished(vcpu->vm, x3, x4);
		return 1;
	case PINFOLD_EXIT_CPU_ON:
		return pinfold_exit_cpu_on(vcpu, x3);
	case PINFOLD_EXIT_KICK:
		return pinfold_exit_kick(vcpu, x3);
	case PINFOLD_EXIT_POWERED_OFF:
		WRITE_ONCE(vcpu->powered_off, true);
		return pinfold_wait(vcpu, KTIME_MAX);
	case PINFOLD_EXIT_SYSTEM_OFF:
		return pinfold_exit_event(vcpu, KVM_SYSTEM_EVENT_SHUTDOWN, 0);
	case PINFOLD_EXIT_SYSTEM_RESET:
		return pinfold_exit_event(vcpu, KVM_SYSTEM_EVENT_RESET, x3);
	case PINFOLD_EXIT_CRASHED:
		return pinfold_exit_event(vcpu, KVM_SYSTEM_EVENT_CRASH, x3);
	default:
		return pinfold_exit_unknown(vcpu, reason);
	}
}
