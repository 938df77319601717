// SPDX-License-Identifier: GPL-2.0
/*
 * What memory the guest has: KVM_SET_USER_MEMORY_REGION.  EL2 learns it when
 * the VM starts; from then on it cannot change.
 */
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "driver.h"

static bool pinfold_slots_overlap(struct pinfold_vm *vm, unsigned int except, u64 gfn, u64 nr)
{
	unsigned int i;

	for (i = 0; i < PINFOLD_MAX_SLOTS; i++) {
		const struct pinfold_slot *slot = &vm->slots[i];

		if (i != except && slot->nr && gfn < slot->gfn + slot->nr && slot->gfn < gfn + nr)
			return true;
	}
	return false;
}

static int pinfold_slot_check(const struct kvm_userspace_memory_region *region)
{
	u64 size = region->memory_size;

	/* No dirty log and no read-only memory: the host cannot see the writes. */
	if (region->flags)
		return -EINVAL;
	if (!PAGE_ALIGNED(size) || !PAGE_ALIGNED(region->guest_phys_addr) ||
	    !PAGE_ALIGNED(region->userspace_addr))
		return -EINVAL;
	if (region->userspace_addr != untagged_addr(region->userspace_addr) ||
	    !access_ok((void __user *)(unsigned long)region->userspace_addr, size))
		return -EINVAL;
	if (region->slot >= PINFOLD_MAX_SLOTS)
		return -EINVAL;
	if (region->guest_phys_addr + size < size)
		return -EINVAL;
	return 0;
}

/**
 * pinfold_slot_set - create, move or delete a slot
 * @vm: the VM
 * @region: what user space asks for
 *
 * Return: as mainline: -EINVAL for anything malformed, -EEXIST if slots would
 * overlap, -EFAULT beyond the guest's address space, -EPERM after the start.
 */
int pinfold_slot_set(struct pinfold_vm *vm, const struct kvm_userspace_memory_region *region)
{
	u64 gfn = PHYS_PFN(region->guest_phys_addr);
	u64 nr = PHYS_PFN(region->memory_size);
	struct pinfold_slot *slot;
	int ret;

	ret = pinfold_slot_check(region);
	if (ret)
		return ret;
	slot = &vm->slots[region->slot];

	mutex_lock(&vm->config_lock);
	if (vm->handle)
		ret = -EPERM;
	else if (!nr)
		ret = slot->nr ? 0 : -EINVAL;
	else if (slot->nr && (slot->nr != nr || slot->addr != region->userspace_addr))
		ret = -EINVAL;
	else if (pinfold_slots_overlap(vm, region->slot, gfn, nr))
		ret = -EEXIST;
	else if (gfn + nr > PHYS_PFN(PINFOLD_IPA_SIZE))
		ret = -EFAULT;

	if (!ret)
		*slot = (struct pinfold_slot){
			.gfn = gfn,
			.nr = nr,
			.addr = region->userspace_addr,
		};
	mutex_unlock(&vm->config_lock);
	return ret;
}

/**
 * pinfold_slot_find - the slot that holds a guest frame
 * @vm: a VM that has started, so that its slots are constant
 * @gfn: the guest frame
 */
const struct pinfold_slot *pinfold_slot_find(struct pinfold_vm *vm, u64 gfn)
{
	unsigned int i;

	for (i = 0; i < PINFOLD_MAX_SLOTS; i++) {
		const struct pinfold_slot *slot = &vm->slots[i];

		if (gfn >= slot->gfn && gfn - slot->gfn < slot->nr)
			return slot;
	}
	return NULL;
}
