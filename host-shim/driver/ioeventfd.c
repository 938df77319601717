// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_IOEVENTFD: a guest's write to an address that signals an eventfd, without
 * a way out to the VMM.
 */
#include <linux/eventfd.h>
#include <linux/slab.h>

#include "driver.h"

/* As many as KVM's buses hold devices. */
#define PINFOLD_MAX_IOEVENTFDS	1000

/**
 * struct pinfold_ioeventfd - one write that is looked for
 * @entry: in vm->ioeventfds
 * @eventfd: what is signalled
 * @addr: the guest address
 * @len: how long a write; 0 for any
 * @match: whether the value matters
 * @value: then it must be this
 */
struct pinfold_ioeventfd {
	struct list_head entry;
	struct eventfd_ctx *eventfd;
	u64 addr;
	u32 len;
	bool match;
	u64 value;
};

static bool pinfold_ioeventfds_collide(const struct pinfold_ioeventfd *a,
				       const struct pinfold_ioeventfd *b)
{
	if (a->addr != b->addr)
		return false;
	if (!a->len || !b->len)
		return true;
	return a->len == b->len && (!a->match || !b->match || a->value == b->value);
}

static int pinfold_ioeventfd_add(struct pinfold_vm *vm, struct pinfold_ioeventfd *new)
{
	struct pinfold_ioeventfd *old;
	int ret = 0;

	spin_lock(&vm->ioeventfd_lock);
	if (vm->nr_ioeventfds >= PINFOLD_MAX_IOEVENTFDS)
		ret = -ENOSPC;
	list_for_each_entry(old, &vm->ioeventfds, entry)
		if (pinfold_ioeventfds_collide(old, new))
			ret = -EEXIST;
	if (!ret) {
		list_add_tail(&new->entry, &vm->ioeventfds);
		vm->nr_ioeventfds++;
	}
	spin_unlock(&vm->ioeventfd_lock);
	return ret;
}

static void pinfold_ioeventfd_free(struct pinfold_ioeventfd *old)
{
	eventfd_ctx_put(old->eventfd);
	kfree(old);
}

static int pinfold_ioeventfd_assign(struct pinfold_vm *vm, const struct kvm_ioeventfd *args,
				    struct eventfd_ctx *eventfd)
{
	struct pinfold_ioeventfd *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	int ret;

	if (!new) {
		eventfd_ctx_put(eventfd);
		return -ENOMEM;
	}
	new->eventfd = eventfd;
	new->addr = args->addr;
	new->len = args->len;
	new->match = args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;
	new->value = args->datamatch;
	ret = pinfold_ioeventfd_add(vm, new);
	if (ret)
		pinfold_ioeventfd_free(new);
	return ret;
}

static int pinfold_ioeventfd_deassign(struct pinfold_vm *vm, const struct kvm_ioeventfd *args,
				      struct eventfd_ctx *eventfd)
{
	bool match = args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;
	struct pinfold_ioeventfd *old, *found = NULL;

	spin_lock(&vm->ioeventfd_lock);
	list_for_each_entry(old, &vm->ioeventfds, entry) {
		if (old->eventfd != eventfd || old->addr != args->addr || old->len != args->len ||
		    old->match != match || (match && old->value != args->datamatch))
			continue;
		found = old;
		list_del(&old->entry);
		vm->nr_ioeventfds--;
		break;
	}
	spin_unlock(&vm->ioeventfd_lock);
	eventfd_ctx_put(eventfd);
	if (!found)
		return -ENOENT;
	pinfold_ioeventfd_free(found);
	return 0;
}

static int pinfold_ioeventfd_check(const struct kvm_ioeventfd *args)
{
	if (args->len > 8 || (args->len && !is_power_of_2(args->len)))
		return -EINVAL;
	if (args->addr + args->len < args->addr)
		return -EINVAL;
	/* There are no ports, and no channel I/O, on arm64. */
	if (args->flags & ~(KVM_IOEVENTFD_FLAG_DATAMATCH | KVM_IOEVENTFD_FLAG_DEASSIGN))
		return -EINVAL;
	if (!args->len && (args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
		return -EINVAL;
	return 0;
}

/**
 * pinfold_ioeventfd - KVM_IOEVENTFD
 * @vm: the VM
 * @args: what user space asks for
 *
 * Return: as mainline: -EEXIST if another one would match the same write,
 * -ENOENT if there is none to take away, -ENOSPC if there are too many.
 */
int pinfold_ioeventfd(struct pinfold_vm *vm, const struct kvm_ioeventfd *args)
{
	struct eventfd_ctx *eventfd;
	int ret;

	ret = pinfold_ioeventfd_check(args);
	if (ret)
		return ret;
	eventfd = eventfd_ctx_fdget(args->fd);
	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);
	if (args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		return pinfold_ioeventfd_deassign(vm, args, eventfd);
	return pinfold_ioeventfd_assign(vm, args, eventfd);
}

/**
 * pinfold_ioeventfd_match - signal the eventfd that a write is for
 * @vm: the VM
 * @addr: where the guest wrote
 * @len: how many bytes
 * @value: what
 *
 * Return: whether there was one; then the write is done.
 */
bool pinfold_ioeventfd_match(struct pinfold_vm *vm, u64 addr, u32 len, u64 value)
{
	struct pinfold_ioeventfd *one;
	bool found = false;

	spin_lock(&vm->ioeventfd_lock);
	list_for_each_entry(one, &vm->ioeventfds, entry) {
		if (one->addr != addr || (one->len && one->len != len) ||
		    (one->match && one->value != value))
			continue;
		eventfd_signal(one->eventfd);
		found = true;
		break;
	}
	spin_unlock(&vm->ioeventfd_lock);
	return found;
}

/**
 * pinfold_ioeventfd_release - end all of them, with the VM
 * @vm: the VM
 */
void pinfold_ioeventfd_release(struct pinfold_vm *vm)
{
	struct pinfold_ioeventfd *one, *next;

	list_for_each_entry_safe(one, next, &vm->ioeventfds, entry)
		pinfold_ioeventfd_free(one);
}
