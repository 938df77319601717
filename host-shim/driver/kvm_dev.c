// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/kvm: what there is, and new VMs.
 */
#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "driver.h"

/**
 * pinfold_check_extension - KVM_CHECK_EXTENSION, on /dev/kvm and on a VM
 * @cap: KVM_CAP_*
 *
 * Everything that is not named here is not offered.
 */
long pinfold_check_extension(unsigned long cap)
{
	switch (cap) {
	case KVM_CAP_IRQCHIP:
	case KVM_CAP_USER_MEMORY:
	case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
	case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
	case KVM_CAP_MP_STATE:
	case KVM_CAP_ONE_REG:
	case KVM_CAP_ARM_PSCI:
	case KVM_CAP_ARM_PSCI_0_2:
	case KVM_CAP_DEVICE_CTRL:
	case KVM_CAP_ENABLE_CAP_VM:
	case KVM_CAP_CHECK_EXTENSION_VM:
	case KVM_CAP_IRQFD:
	case KVM_CAP_IOEVENTFD:
	case KVM_CAP_IOEVENTFD_NO_LENGTH:
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
	case KVM_CAP_IMMEDIATE_EXIT:
	case KVM_CAP_ARM_IRQ_LINE_LAYOUT_2:
	case KVM_CAP_MEMORY_FAULT_INFO:
	case KVM_CAP_ARM_PROTECTED_VM:
		return 1;
	case KVM_CAP_NR_MEMSLOTS:
		return PINFOLD_MAX_SLOTS;
	case KVM_CAP_NR_VCPUS:
		return min_t(long, num_online_cpus(), PINFOLD_MAX_VCPUS);
	case KVM_CAP_MAX_VCPUS:
	case KVM_CAP_MAX_VCPU_ID:
		return PINFOLD_MAX_VCPUS;
	case KVM_CAP_ARM_VM_IPA_SIZE:
		return PINFOLD_IPA_BITS;
	default:
		return 0;
	}
}

static long pinfold_kvm_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	switch (ioctl) {
	case KVM_GET_API_VERSION:
		return arg ? -EINVAL : KVM_API_VERSION;
	case KVM_CREATE_VM:
		return pinfold_vm_create(arg);
	case KVM_CHECK_EXTENSION:
		return pinfold_check_extension(arg);
	case KVM_GET_VCPU_MMAP_SIZE:
		return arg ? -EINVAL : PAGE_SIZE;
	default:
		return -EINVAL;
	}
}

const struct file_operations pinfold_kvm_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = pinfold_kvm_ioctl,
	.llseek = noop_llseek,
};
