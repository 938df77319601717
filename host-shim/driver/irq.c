// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's interrupt lines.  EL2 has the GIC; a line is moved by a
 * hypercall, which says what vCPU should come and look.
 *
 * Until the VM starts there is no GIC to tell.  What the lines did is kept,
 * and told at the start.
 */
#include <linux/sched.h>

#include "driver.h"

/**
 * pinfold_vcpu_kick - make a vCPU look for something new
 * @vcpu: the vCPU
 *
 * If its thread waits it goes on; if it is in the guest it comes out.  May be
 * called from interrupts.
 */
void pinfold_vcpu_kick(struct pinfold_vcpu *vcpu)
{
	unsigned long flags;

	WRITE_ONCE(vcpu->kicked, true);
	/* A full barrier: pairs with smp_store_mb() in pinfold_enter(). */
	if (wq_has_sleeper(&vcpu->wq))
		wake_up(&vcpu->wq);
	if (!READ_ONCE(vcpu->in_guest))
		return;

	spin_lock_irqsave(&vcpu->kick_lock, flags);
	if (vcpu->task) {
		kick_process(vcpu->task);
		pinfold_count(PINFOLD_COUNT_KICKS, 1);
	}
	spin_unlock_irqrestore(&vcpu->kick_lock, flags);
}

static int pinfold_irq_call(struct pinfold_vm *vm, unsigned int intid, bool level,
			    struct pinfold_vcpu **target)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_IRQ_LINE,
		.a1 = vm->irq_handle,
		.a2 = intid,
		.a3 = level,
	};
	int status = pinfold_call(&regs);

	*target = !status && regs.a2 < PINFOLD_MAX_VCPUS ? vm->vcpus[regs.a2] : NULL;
	return pinfold_errno(status);
}

/**
 * pinfold_irq_line - move an interrupt line
 * @vm: the VM
 * @intid: a shared peripheral interrupt
 * @level: whether the line is high
 *
 * May be called from interrupts.
 */
int pinfold_irq_line(struct pinfold_vm *vm, unsigned int intid, bool level)
{
	struct pinfold_vcpu *target = NULL;
	unsigned long flags;
	int ret = 0;

	if (intid < PINFOLD_FIRST_SPI || intid >= PINFOLD_END_SPI)
		return -EINVAL;

	spin_lock_irqsave(&vm->irq_lock, flags);
	if (vm->irq_handle) {
		ret = pinfold_irq_call(vm, intid, level, &target);
	} else {
		__assign_bit(intid - PINFOLD_FIRST_SPI, vm->irq_level, level);
		if (level)
			__set_bit(intid - PINFOLD_FIRST_SPI, vm->irq_risen);
	}
	spin_unlock_irqrestore(&vm->irq_lock, flags);

	/* A line that falls is nothing to look at. */
	if (target && level)
		pinfold_vcpu_kick(target);
	return ret;
}

/**
 * pinfold_irq_start - the VM has started: tell EL2 what the lines did before
 * @vm: the VM; no vCPU has run yet
 * @handle: its name at EL2, which it does not know yet
 */
void pinfold_irq_start(struct pinfold_vm *vm, u64 handle)
{
	struct pinfold_vcpu *target;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&vm->irq_lock, flags);
	vm->irq_handle = handle;
	for_each_set_bit(i, vm->irq_risen, PINFOLD_NR_SPIS) {
		pinfold_irq_call(vm, PINFOLD_FIRST_SPI + i, true, &target);
		if (!test_bit(i, vm->irq_level))
			pinfold_irq_call(vm, PINFOLD_FIRST_SPI + i, false, &target);
	}
	spin_unlock_irqrestore(&vm->irq_lock, flags);
}

/**
 * pinfold_irq_line_ioctl - KVM_IRQ_LINE
 * @vm: the VM
 * @line: the interrupt in arm64's encoding, and its level
 *
 * Return: -ENXIO without a GIC and for the CPU's own lines, -EINVAL for
 * private interrupts, which EL2 raises alone.
 */
int pinfold_irq_line_ioctl(struct pinfold_vm *vm, const struct kvm_irq_level *line)
{
	u32 type = (line->irq >> KVM_ARM_IRQ_TYPE_SHIFT) & KVM_ARM_IRQ_TYPE_MASK;
	u32 number = (line->irq >> KVM_ARM_IRQ_NUM_SHIFT) & KVM_ARM_IRQ_NUM_MASK;

	if (type == KVM_ARM_IRQ_TYPE_CPU)
		return -ENXIO;
	if (type == KVM_ARM_IRQ_TYPE_SPI && !READ_ONCE(vm->vgic.created))
		return -ENXIO;
	if (type == KVM_ARM_IRQ_TYPE_SPI)
		return pinfold_irq_line(vm, number, line->level);
	return -EINVAL;
}
