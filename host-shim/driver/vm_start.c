// SPDX-License-Identifier: GPL-2.0
/*
 * A VM exists at EL2 from the first KVM_RUN of any of its vCPUs until its last
 * file is closed.  Everything that user space said about it until then is
 * handed over in one go; nothing of it can change afterwards.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/mm.h>

#include "driver.h"

#define PINFOLD_TEARDOWN_TRIES	50

static int pinfold_start_call(struct arm_smccc_1_2_regs *regs, const char *what)
{
	int status = pinfold_call_pooled(regs);

	if (status)
		pr_debug("EL2 refuses %s: %s\n", what, pinfold_status_name(status));
	return pinfold_errno(status);
}

static int pinfold_start_memory(struct pinfold_vm *vm, u64 handle)
{
	unsigned int i;
	int ret;

	for (i = 0; i < PINFOLD_MAX_SLOTS; i++) {
		struct arm_smccc_1_2_regs regs = {
			.a0 = PINFOLD_CALL_VM_MEMORY_REGION,
			.a1 = handle,
			.a2 = vm->slots[i].gfn,
			.a3 = vm->slots[i].nr,
		};

		if (!vm->slots[i].nr)
			continue;
		ret = pinfold_start_call(&regs, "a memory region");
		if (ret)
			return ret;
	}
	return 0;
}

static int pinfold_start_vgic(struct pinfold_vm *vm, u64 handle)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_VM_GIC,
		.a1 = handle,
		.a2 = vm->vgic.dist,
		.a3 = vm->vgic.redist,
	};

	if (!vm->vgic.created)
		return 0;
	/* As mainline's first run, if the addresses were forgotten. */
	if (vm->vgic.dist == PINFOLD_VGIC_UNSET || vm->vgic.redist == PINFOLD_VGIC_UNSET)
		return -ENXIO;
	if (vm->vgic.redist_count && vm->vgic.redist_count < vm->nr_vcpus)
		return -EINVAL;
	return pinfold_start_call(&regs, "the GIC");
}

static int pinfold_start_register(struct pinfold_vcpu *vcpu, u64 handle, u64 which, u64 value)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_VCPU_SET_REGISTER,
		.a1 = handle,
		.a2 = vcpu->id,
		.a3 = which,
		.a4 = value,
	};

	/* That is what EL2 starts with. */
	if (!value)
		return 0;
	return pinfold_start_call(&regs, "a register");
}

static int pinfold_start_vcpu(struct pinfold_vcpu *vcpu, u64 handle)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_VCPU_CREATE,
		.a1 = handle,
		.a2 = vcpu->id,
		.a3 = vcpu->powered_off ? PINFOLD_VCPU_POWERED_OFF : 0,
	};
	unsigned int i;
	int ret;

	ret = pinfold_start_call(&regs, "a vCPU");
	for (i = 0; !ret && i < ARRAY_SIZE(vcpu->x); i++)
		ret = pinfold_start_register(vcpu, handle, i, vcpu->x[i]);
	if (!ret)
		ret = pinfold_start_register(vcpu, handle, PINFOLD_REGISTER_PC, vcpu->pc);
	return ret;
}

static int pinfold_start_vcpus(struct pinfold_vm *vm, u64 handle)
{
	unsigned int i;
	int ret;

	for (i = 0; i < vm->nr_vcpus; i++) {
		/* EL2 numbers them without gaps. */
		if (!vm->vcpus[i])
			return -EINVAL;
		ret = pinfold_start_vcpu(vm->vcpus[i], handle);
		if (ret)
			return ret;
	}
	return 0;
}

static int pinfold_end(u64 handle, u64 call)
{
	struct arm_smccc_1_2_regs regs = { .a0 = call, .a1 = handle };

	return pinfold_call(&regs);
}

/**
 * pinfold_vm_start - make the VM at EL2, unless it is there
 * @vm: the VM; the caller holds config_lock
 *
 * Return: 0, or why EL2 would not have it; then the VM can still be changed.
 */
int pinfold_vm_start(struct pinfold_vm *vm)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_VM_CREATE,
		.a1 = PINFOLD_VM_PROTECTED,
		.a2 = vm->nr_vcpus,
	};
	u64 handle;
	int ret;

	lockdep_assert_held(&vm->config_lock);

	ret = pinfold_start_call(&regs, "a VM");
	if (ret)
		return ret;
	handle = regs.a2;

	ret = pinfold_start_memory(vm, handle);
	if (!ret)
		ret = pinfold_start_vgic(vm, handle);
	if (!ret)
		ret = pinfold_start_vcpus(vm, handle);
	if (!ret) {
		regs = (struct arm_smccc_1_2_regs){
			.a0 = PINFOLD_CALL_VM_START,
			.a1 = handle,
		};
		ret = pinfold_start_call(&regs, "the start");
	}
	if (ret) {
		pinfold_end(handle, PINFOLD_CALL_VM_TEARDOWN_BEGIN);
		pinfold_end(handle, PINFOLD_CALL_VM_TEARDOWN_FINISH);
		return ret;
	}

	/* Before any vCPU can run: what is raised from then on kicks it. */
	pinfold_irq_start(vm, handle);
	/* Pairs with the acquire in pinfold_vcpu_run(). */
	smp_store_release(&vm->handle, handle);
	return 0;
}

/**
 * pinfold_vm_teardown - take a VM down at EL2 and its memory back
 * @vm: a VM that has started and that nobody uses any more
 */
void pinfold_vm_teardown(struct pinfold_vm *vm)
{
	int tries, status;

	/* Only a raw call through /dev/pinfold can keep a vCPU loaded now. */
	for (tries = 0; tries < PINFOLD_TEARDOWN_TRIES; tries++) {
		status = pinfold_end(vm->handle, PINFOLD_CALL_VM_TEARDOWN_BEGIN);
		if (status != PINFOLD_STATUS_BUSY)
			break;
		fsleep(1000);
	}
	if (!status)
		pinfold_memory_reclaim(vm);
	pinfold_memory_leak(vm);
	if (!status)
		status = pinfold_end(vm->handle, PINFOLD_CALL_VM_TEARDOWN_FINISH);
	if (status)
		pr_err("EL2 refuses to end VM %llx: %s\n", vm->handle,
		       pinfold_status_name(status));
}
