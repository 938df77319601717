// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_IRQFD: an eventfd that pulses an interrupt line.
 *
 * As in KVM without a resample fd, a signal is the line going high and low at
 * once: right for interrupts that the guest configures as edge-triggered.  A
 * resample fd would need to know of the guest's end of interrupt, which EL2
 * does not tell; it is refused.  GSI n is SPI n, that is INTID n + 32.
 */
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "driver.h"

/**
 * struct pinfold_irqfd - one eventfd that is listened to
 * @vm: whose lines; the irqfd is gone before the VM is
 * @eventfd: the eventfd
 * @intid: the line
 * @wait: our entry in the eventfd's wait queue
 * @poll: how it gets there
 * @entry: in vm->irqfds, or nowhere once it is on its way out
 * @shutdown: takes it apart, since that cannot be done in a wake-up
 */
struct pinfold_irqfd {
	struct pinfold_vm *vm;
	struct eventfd_ctx *eventfd;
	unsigned int intid;
	wait_queue_entry_t wait;
	poll_table poll;
	struct list_head entry;
	struct work_struct shutdown;
};

static struct workqueue_struct *pinfold_irqfd_wq;

static void pinfold_irqfd_shutdown(struct work_struct *work)
{
	struct pinfold_irqfd *irqfd = container_of(work, struct pinfold_irqfd, shutdown);
	u64 count;

	eventfd_ctx_remove_wait_queue(irqfd->eventfd, &irqfd->wait, &count);
	eventfd_ctx_put(irqfd->eventfd);
	kfree(irqfd);
}

/* The one who takes it off the list is the one who ends it. */
static void pinfold_irqfd_deactivate(struct pinfold_irqfd *irqfd)
{
	lockdep_assert_held(&irqfd->vm->irqfd_lock);

	if (list_empty(&irqfd->entry))
		return;
	list_del_init(&irqfd->entry);
	queue_work(pinfold_irqfd_wq, &irqfd->shutdown);
}

static void pinfold_irqfd_pulse(struct pinfold_irqfd *irqfd)
{
	pinfold_irq_line(irqfd->vm, irqfd->intid, true);
	pinfold_irq_line(irqfd->vm, irqfd->intid, false);
}

/* Called with the eventfd's lock held and interrupts off. */
static int pinfold_irqfd_wakeup(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct pinfold_irqfd *irqfd = container_of(wait, struct pinfold_irqfd, wait);
	__poll_t events = key_to_poll(key);
	unsigned long flags;
	u64 count;

	if (events & EPOLLIN) {
		eventfd_ctx_do_read(irqfd->eventfd, &count);
		pinfold_irqfd_pulse(irqfd);
	}
	/* The last file of the eventfd is being closed. */
	if (events & EPOLLHUP) {
		spin_lock_irqsave(&irqfd->vm->irqfd_lock, flags);
		pinfold_irqfd_deactivate(irqfd);
		spin_unlock_irqrestore(&irqfd->vm->irqfd_lock, flags);
	}
	return !!(events & EPOLLIN);
}

static void pinfold_irqfd_poll(struct file *file, wait_queue_head_t *wqh, poll_table *table)
{
	struct pinfold_irqfd *irqfd = container_of(table, struct pinfold_irqfd, poll);

	add_wait_queue_priority(wqh, &irqfd->wait);
}

/* Put it on the VM's list, unless the eventfd is there already. */
static int pinfold_irqfd_list(struct pinfold_vm *vm, struct pinfold_irqfd *irqfd)
{
	struct pinfold_irqfd *other;
	int ret = 0;

	spin_lock_irq(&vm->irqfd_lock);
	list_for_each_entry(other, &vm->irqfds, entry)
		if (other->eventfd == irqfd->eventfd)
			ret = -EBUSY;
	if (!ret)
		list_add_tail(&irqfd->entry, &vm->irqfds);
	spin_unlock_irq(&vm->irqfd_lock);
	return ret;
}

static struct pinfold_irqfd *pinfold_irqfd_alloc(struct pinfold_vm *vm, unsigned int intid,
						 struct file *file)
{
	struct pinfold_irqfd *irqfd = kzalloc(sizeof(*irqfd), GFP_KERNEL_ACCOUNT);

	if (!irqfd)
		return ERR_PTR(-ENOMEM);
	irqfd->vm = vm;
	irqfd->intid = intid;
	INIT_LIST_HEAD(&irqfd->entry);
	INIT_WORK(&irqfd->shutdown, pinfold_irqfd_shutdown);
	init_waitqueue_func_entry(&irqfd->wait, pinfold_irqfd_wakeup);
	init_poll_funcptr(&irqfd->poll, pinfold_irqfd_poll);
	irqfd->eventfd = eventfd_ctx_fileget(file);
	if (IS_ERR(irqfd->eventfd)) {
		int ret = PTR_ERR(irqfd->eventfd);

		kfree(irqfd);
		return ERR_PTR(ret);
	}
	return irqfd;
}

static int pinfold_irqfd_assign_file(struct pinfold_vm *vm, unsigned int intid, struct file *file)
{
	struct pinfold_irqfd *irqfd = pinfold_irqfd_alloc(vm, intid, file);
	int ret;

	if (IS_ERR(irqfd))
		return PTR_ERR(irqfd);
	ret = pinfold_irqfd_list(vm, irqfd);
	if (ret) {
		eventfd_ctx_put(irqfd->eventfd);
		kfree(irqfd);
		return ret;
	}
	/* It may have been signalled before we listened. */
	if (vfs_poll(file, &irqfd->poll) & EPOLLIN)
		pinfold_irqfd_pulse(irqfd);
	return 0;
}

static int pinfold_irqfd_assign(struct pinfold_vm *vm, const struct kvm_irqfd *args)
{
	struct fd f;
	int ret;

	/* Mainline's answers without a GIC. */
	if (!vm->vgic.initialized && !vm->handle)
		return -EAGAIN;
	if (args->gsi >= PINFOLD_NR_SPIS)
		return -EINVAL;

	f = fdget(args->fd);
	if (!fd_file(f))
		return -EBADF;
	ret = pinfold_irqfd_assign_file(vm, PINFOLD_FIRST_SPI + args->gsi, fd_file(f));
	fdput(f);
	return ret;
}

static int pinfold_irqfd_deassign(struct pinfold_vm *vm, const struct kvm_irqfd *args)
{
	struct eventfd_ctx *eventfd = eventfd_ctx_fdget(args->fd);
	struct pinfold_irqfd *irqfd, *next;

	if (IS_ERR(eventfd))
		return PTR_ERR(eventfd);

	spin_lock_irq(&vm->irqfd_lock);
	list_for_each_entry_safe(irqfd, next, &vm->irqfds, entry)
		if (irqfd->eventfd == eventfd && irqfd->intid == PINFOLD_FIRST_SPI + args->gsi)
			pinfold_irqfd_deactivate(irqfd);
	spin_unlock_irq(&vm->irqfd_lock);
	eventfd_ctx_put(eventfd);

	/* When we return, no interrupt comes from it any more. */
	flush_workqueue(pinfold_irqfd_wq);
	return 0;
}

/**
 * pinfold_irqfd - KVM_IRQFD
 * @vm: the VM
 * @args: what user space asks for
 *
 * Return: as mainline: -EAGAIN before the GIC is initialised, -EBUSY if the
 * eventfd is in use here already; -EINVAL also for KVM_IRQFD_FLAG_RESAMPLE.
 */
int pinfold_irqfd(struct pinfold_vm *vm, const struct kvm_irqfd *args)
{
	int ret;

	if (args->flags & ~KVM_IRQFD_FLAG_DEASSIGN)
		return -EINVAL;
	/* One at a time: what is on the list is in the eventfd's queue as well. */
	mutex_lock(&vm->config_lock);
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		ret = pinfold_irqfd_deassign(vm, args);
	else
		ret = pinfold_irqfd_assign(vm, args);
	mutex_unlock(&vm->config_lock);
	return ret;
}

/**
 * pinfold_irqfd_release - end all of them, since the VM's file is closed
 * @vm: the VM
 */
void pinfold_irqfd_release(struct pinfold_vm *vm)
{
	struct pinfold_irqfd *irqfd, *next;

	spin_lock_irq(&vm->irqfd_lock);
	list_for_each_entry_safe(irqfd, next, &vm->irqfds, entry)
		pinfold_irqfd_deactivate(irqfd);
	spin_unlock_irq(&vm->irqfd_lock);
	flush_workqueue(pinfold_irqfd_wq);
}

/**
 * pinfold_irqfd_init - with the module
 */
int __init pinfold_irqfd_init(void)
{
	pinfold_irqfd_wq = alloc_workqueue("pinfold-irqfd", 0, 0);
	return pinfold_irqfd_wq ? 0 : -ENOMEM;
}

/**
 * pinfold_irqfd_exit - with the module
 */
void pinfold_irqfd_exit(void)
{
	destroy_workqueue(pinfold_irqfd_wq);
}
