/* SPDX-License-Identifier: GPL-2.0 */
/* What KVM's user interface takes to make a VM, in the words of the tests. */
#ifndef KVM_TEST_H
#define KVM_TEST_H

#include <stddef.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>

#define PROTECTED	0x80000000UL
#define PAGE		4096UL
#define LARGE		(512 * PAGE)
#define MMIO		0x09000000UL

#define CORE(name) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))

static inline int set_reg(int vcpu, __u64 id, __u64 value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (__u64)&value };

	return ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

static inline int get_reg(int vcpu, __u64 id, __u64 *value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (__u64)value };

	return ioctl(vcpu, KVM_GET_ONE_REG, &reg);
}

static inline int set_region(int vm, __u32 slot, __u32 flags, __u64 gpa, __u64 size, void *at)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (__u64)at,
	};

	return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static inline int vcpu_init(int vcpu, __u32 target, __u32 features0, __u32 features1)
{
	struct kvm_vcpu_init init = { .target = target, .features = { features0, features1 } };

	return ioctl(vcpu, KVM_ARM_VCPU_INIT, &init);
}

#endif /* KVM_TEST_H */
