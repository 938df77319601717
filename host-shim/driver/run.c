// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_RUN: enter the guest, serve its exits, until one of them is the VMM's or
 * a signal comes.
 *
 * Entering is one hypercall.  It is made with interrupts off, so that whatever
 * arrives meanwhile (a tick, a wake-up, the kick of another CPU) is still
 * pending when EL2 looks, ends the guest's turn, and is taken here afterwards.
 */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/vtime.h>
#include <asm/barrier.h>

#include "driver.h"

/*
 * Let the guest run, unless there is a reason not to.
 *
 * Return: whether EL2 was called; its status goes to @status.
 */
static bool pinfold_enter(struct pinfold_vcpu *vcpu, struct arm_smccc_1_2_regs *regs, int *status)
{
	bool enter;

	preempt_disable();
	local_irq_disable();

	/* Pairs with pinfold_vcpu_kick(): one of the two sees the other. */
	smp_store_mb(vcpu->in_guest, true);
	enter = !READ_ONCE(vcpu->kicked) && !signal_pending(current) && !need_resched();
	if (enter) {
		vtime_account_guest_enter();
		*status = pinfold_call(regs);
	}
	WRITE_ONCE(vcpu->in_guest, false);

	if (enter) {
		/* A tick that ended the turn is still the guest's time. */
		local_irq_enable();
		isb();
		local_irq_disable();
		vtime_account_guest_exit();
		pinfold_count(PINFOLD_COUNT_RUNS, 1);
	}
	local_irq_enable();
	preempt_enable();
	return enter;
}

static int pinfold_fail_entry(struct pinfold_vcpu *vcpu, int status)
{
	struct kvm_run *run = vcpu->run;

	run->exit_reason = KVM_EXIT_FAIL_ENTRY;
	run->fail_entry.hardware_entry_failure_reason = status;
	run->fail_entry.cpu = raw_smp_processor_id();
	return 0;
}

/* One turn of the guest. Return: 1 to go on, else what KVM_RUN returns. */
static int pinfold_run_once(struct pinfold_vcpu *vcpu)
{
	struct pinfold_vm *vm = vcpu->vm;
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_VCPU_RUN,
		.a1 = vm->handle,
		.a2 = vcpu->id,
		.a3 = vcpu->answer,
	};
	int status, ret;

	cond_resched();
	if (signal_pending(current)) {
		vcpu->run->exit_reason = KVM_EXIT_INTR;
		return -EINTR;
	}
	WRITE_ONCE(vcpu->kicked, false);
	/* As in mainline, nothing runs after PSCI's SYSTEM_OFF and SYSTEM_RESET. */
	if (READ_ONCE(vm->stopped)) {
		wait_event_interruptible(vcpu->wq, READ_ONCE(vcpu->kicked));
		return 1;
	}

	if (!pinfold_enter(vcpu, &regs, &status))
		return 1;
	switch (status) {
	case PINFOLD_STATUS_OK:
		vcpu->answer = 0;
		return pinfold_vcpu_exit(vcpu, &regs);
	case PINFOLD_STATUS_AGAIN:
		return 1;
	case PINFOLD_STATUS_NO_MEMORY:
		ret = pinfold_pool_top_up();
		return ret ? ret : 1;
	default:
		return pinfold_fail_entry(vcpu, status);
	}
}

/* The value that the VMM read for the guest goes to EL2 with the next entry. */
static void pinfold_finish_mmio_read(struct pinfold_vcpu *vcpu)
{
	if (!vcpu->mmio_read_len)
		return;
	vcpu->answer = 0;
	memcpy(&vcpu->answer, vcpu->run->mmio.data, vcpu->mmio_read_len);
	vcpu->mmio_read_len = 0;
}

static int pinfold_start_once(struct pinfold_vm *vm)
{
	int ret = 0;

	/* Pairs with the release in pinfold_vm_start(). */
	if (smp_load_acquire(&vm->handle))
		return 0;
	mutex_lock(&vm->config_lock);
	if (!vm->handle)
		ret = pinfold_vm_start(vm);
	mutex_unlock(&vm->config_lock);
	return ret;
}

static void pinfold_set_task(struct pinfold_vcpu *vcpu, struct task_struct *task)
{
	spin_lock_irq(&vcpu->kick_lock);
	vcpu->task = task;
	spin_unlock_irq(&vcpu->kick_lock);
}

static int pinfold_run_loop(struct pinfold_vcpu *vcpu)
{
	int ret;

	vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
	vcpu->run->flags = 0;
	pinfold_set_task(vcpu, current);
	do {
		ret = pinfold_run_once(vcpu);
	} while (ret > 0);
	pinfold_set_task(vcpu, NULL);
	return ret;
}

/**
 * pinfold_vcpu_run - KVM_RUN
 * @vcpu: the vCPU; the caller holds its mutex
 *
 * Return: 0 with an exit reason in the shared page; -EINTR for a signal or
 * immediate_exit, -ENOEXEC without KVM_ARM_VCPU_INIT, what
 * pinfold_memory_fault() says (and where, as KVM_EXIT_MEMORY_FAULT), or why
 * the VM cannot start.
 */
int pinfold_vcpu_run(struct pinfold_vcpu *vcpu)
{
	int ret;

	if (!vcpu->initialized)
		return -ENOEXEC;
	pinfold_finish_mmio_read(vcpu);
	if (READ_ONCE(vcpu->run->immediate_exit__unsafe))
		return -EINTR;
	ret = pinfold_start_once(vcpu->vm);
	if (ret)
		return ret;

	/* ->real_blocked is ours alone, and a subset of ->blocked. */
	if (vcpu->sigset_active)
		sigprocmask(SIG_SETMASK, &vcpu->sigset, &current->real_blocked);
	ret = pinfold_run_loop(vcpu);
	if (vcpu->sigset_active) {
		sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
		sigemptyset(&current->real_blocked);
	}
	return ret;
}
