// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_GET_ONE_REG, KVM_SET_ONE_REG, KVM_GET_REG_LIST: the registers that the
 * VMM may choose for the first entry.  Once the VM runs they are EL2's, and
 * the host sees none of them.
 */
#include <linux/uaccess.h>
#include <asm/ptrace.h>
#include <asm/sysreg.h>

#include "driver.h"

#define PINFOLD_CORE_REG(name) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))
#define PINFOLD_REG_X0		PINFOLD_CORE_REG(regs.regs[0])
#define PINFOLD_REG_PC		PINFOLD_CORE_REG(regs.pc)
#define PINFOLD_REG_PSTATE	PINFOLD_CORE_REG(regs.pstate)
#define PINFOLD_REG_MPIDR	ARM64_SYS_REG(3, 0, 0, 0, 5)

/* EL2 enters every vCPU so. */
#define PINFOLD_PSTATE \
	(PSR_MODE_EL1h | PSR_A_BIT | PSR_I_BIT | PSR_F_BIT | PSR_D_BIT)
/* Bit 31 is RES1 in MPIDR_EL1; the index is Aff0. */
#define PINFOLD_MPIDR(id)	(BIT_ULL(31) | (id))

/* X0-X30, PC, PSTATE, MPIDR_EL1. */
#define PINFOLD_NR_REGS		34

/* Consecutive core registers of 64 bits are two apart. */
static u64 pinfold_reg_id(unsigned int i)
{
	switch (i) {
	case 31:
		return PINFOLD_REG_PC;
	case 32:
		return PINFOLD_REG_PSTATE;
	case 33:
		return PINFOLD_REG_MPIDR;
	default:
		return PINFOLD_REG_X0 + 2 * i;
	}
}

/* Where a register is kept, if the VMM may choose it. */
static u64 *pinfold_reg_slot(struct pinfold_vcpu *vcpu, u64 id)
{
	unsigned int i;

	if (id == PINFOLD_REG_PC)
		return &vcpu->pc;
	for (i = 0; i < ARRAY_SIZE(vcpu->x); i++)
		if (id == pinfold_reg_id(i))
			return &vcpu->x[i];
	return NULL;
}

/**
 * pinfold_reg_get - KVM_GET_ONE_REG
 * @vcpu: the vCPU
 * @reg: which register, and where its value goes
 *
 * Return: -ENOENT for a register that is not in the list, -EPERM once the VM
 * has started (MPIDR_EL1 apart, which is no secret).
 */
int pinfold_reg_get(struct pinfold_vcpu *vcpu, const struct kvm_one_reg *reg)
{
	u64 *slot = pinfold_reg_slot(vcpu, reg->id);
	u64 __user *uaddr = u64_to_user_ptr(reg->addr);
	bool started;
	u64 value;

	if (reg->id == PINFOLD_REG_MPIDR)
		return put_user(PINFOLD_MPIDR(vcpu->id), uaddr);
	if (!slot && reg->id != PINFOLD_REG_PSTATE)
		return -ENOENT;

	mutex_lock(&vcpu->vm->config_lock);
	started = vcpu->vm->handle;
	value = slot ? *slot : PINFOLD_PSTATE;
	mutex_unlock(&vcpu->vm->config_lock);
	return started ? -EPERM : put_user(value, uaddr);
}

/**
 * pinfold_reg_set - KVM_SET_ONE_REG
 * @vcpu: the vCPU
 * @reg: which register, and where its value is
 *
 * Return: -ENOENT for a register that is not in the list, -EINVAL for a PSTATE
 * or MPIDR_EL1 other than the one there is, -EPERM once the VM has started.
 */
int pinfold_reg_set(struct pinfold_vcpu *vcpu, const struct kvm_one_reg *reg)
{
	u64 *slot = pinfold_reg_slot(vcpu, reg->id);
	u64 value;
	int ret = 0;

	if (!slot && reg->id != PINFOLD_REG_PSTATE && reg->id != PINFOLD_REG_MPIDR)
		return -ENOENT;
	if (get_user(value, (u64 __user *)u64_to_user_ptr(reg->addr)))
		return -EFAULT;
	if (reg->id == PINFOLD_REG_PSTATE && value != PINFOLD_PSTATE)
		return -EINVAL;
	if (reg->id == PINFOLD_REG_MPIDR && value != PINFOLD_MPIDR(vcpu->id))
		return -EINVAL;

	mutex_lock(&vcpu->vm->config_lock);
	if (vcpu->vm->handle)
		ret = -EPERM;
	else if (slot)
		*slot = value;
	mutex_unlock(&vcpu->vm->config_lock);
	return ret;
}

/**
 * pinfold_reg_list - KVM_GET_REG_LIST
 * @list: in: how many there is room for; out: how many there are, and which
 *
 * Return: -E2BIG if the room is too small.
 */
int pinfold_reg_list(struct kvm_reg_list __user *list)
{
	unsigned int i;
	u64 room;

	if (get_user(room, &list->n) || put_user((u64)PINFOLD_NR_REGS, &list->n))
		return -EFAULT;
	if (room < PINFOLD_NR_REGS)
		return -E2BIG;
	for (i = 0; i < PINFOLD_NR_REGS; i++)
		if (put_user(pinfold_reg_id(i), &list->reg[i]))
			return -EFAULT;
	return 0;
}
