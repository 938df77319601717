// SPDX-License-Identifier: GPL-2.0
/*
 * VM files.  The VM's own file, its vCPUs' and its devices' files each hold a
 * reference; with the last one the VM is taken down and its memory comes back.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

/* Android's KVM_CAP_ARM_PROTECTED_VM: the flags say what is asked for. */
#define PINFOLD_PROTECTED_VM_SET_FW_IPA	0
#define PINFOLD_PROTECTED_VM_INFO	1

struct pinfold_protected_vm_info {
	__u64 firmware_size;
	__u64 reserved[7];
};

/**
 * pinfold_vm_get - one file more
 * @vm: the VM
 */
void pinfold_vm_get(struct pinfold_vm *vm)
{
	kref_get(&vm->ref);
}

static void pinfold_vm_free(struct kref *ref)
{
	struct pinfold_vm *vm = container_of(ref, struct pinfold_vm, ref);
	unsigned int i;

	if (vm->handle)
		pinfold_vm_teardown(vm);
	pinfold_ioeventfd_release(vm);
	for (i = 0; i < PINFOLD_MAX_VCPUS; i++)
		pinfold_vcpu_free(vm->vcpus[i]);
	xa_destroy(&vm->pages);
	mmdrop(vm->mm);
	kfree(vm);
	/* The last VM takes with it what EL2's pool got for VMs. */
	if (atomic64_dec_return(&pinfold_counts[PINFOLD_COUNT_VMS]) == 0)
		pinfold_pool_drain();
}

/**
 * pinfold_vm_put - one file less
 * @vm: the VM
 */
void pinfold_vm_put(struct pinfold_vm *vm)
{
	kref_put(&vm->ref, pinfold_vm_free);
}

static int pinfold_vm_enable_cap(const struct kvm_enable_cap *cap)
{
	struct pinfold_protected_vm_info info = {};

	if (cap->cap != KVM_CAP_ARM_PROTECTED_VM)
		return -EINVAL;

	switch (cap->flags) {
	case PINFOLD_PROTECTED_VM_INFO:
		/* No firmware: its size is 0. */
		if (copy_to_user(u64_to_user_ptr(cap->args[0]), &info, sizeof(info)))
			return -EFAULT;
		return 0;
	case PINFOLD_PROTECTED_VM_SET_FW_IPA:
	default:
		return -EINVAL;
	}
}

static int pinfold_vm_create_device(struct pinfold_vm *vm, struct kvm_create_device __user *argp)
{
	struct kvm_create_device args;
	int ret;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;
	ret = pinfold_device_create(vm, &args);
	if (ret)
		return ret;
	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}

static long pinfold_vm_irq_line(struct pinfold_vm *vm, unsigned int ioctl, void __user *argp)
{
	struct kvm_irq_level line;
	int ret;

	if (copy_from_user(&line, argp, sizeof(line)))
		return -EFAULT;
	ret = pinfold_irq_line_ioctl(vm, &line);
	if (ret || ioctl == KVM_IRQ_LINE)
		return ret;
	return copy_to_user(argp, &line, sizeof(line)) ? -EFAULT : 0;
}

static long pinfold_vm_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	struct pinfold_vm *vm = file->private_data;
	void __user *argp = (void __user *)arg;

	if (vm->mm != current->mm)
		return -EIO;

	switch (ioctl) {
	case KVM_CREATE_VCPU:
		return pinfold_vcpu_create(vm, arg);
	case KVM_CHECK_EXTENSION:
		return pinfold_check_extension(arg);
	case KVM_ENABLE_CAP: {
		struct kvm_enable_cap cap;

		if (copy_from_user(&cap, argp, sizeof(cap)))
			return -EFAULT;
		return pinfold_vm_enable_cap(&cap);
	}
	case KVM_SET_USER_MEMORY_REGION: {
		struct kvm_userspace_memory_region region;

		if (copy_from_user(&region, argp, sizeof(region)))
			return -EFAULT;
		return pinfold_slot_set(vm, &region);
	}
	case KVM_ARM_PREFERRED_TARGET: {
		struct kvm_vcpu_init init = { .target = KVM_ARM_TARGET_GENERIC_V8 };

		return copy_to_user(argp, &init, sizeof(init)) ? -EFAULT : 0;
	}
	case KVM_IRQ_LINE:
	case KVM_IRQ_LINE_STATUS:
		return pinfold_vm_irq_line(vm, ioctl, argp);
	case KVM_IRQFD: {
		struct kvm_irqfd args;

		if (copy_from_user(&args, argp, sizeof(args)))
			return -EFAULT;
		return pinfold_irqfd(vm, &args);
	}
	case KVM_IOEVENTFD: {
		struct kvm_ioeventfd args;

		if (copy_from_user(&args, argp, sizeof(args)))
			return -EFAULT;
		return pinfold_ioeventfd(vm, &args);
	}
	case KVM_CREATE_DEVICE:
		return pinfold_vm_create_device(vm, argp);
	case KVM_SIGNAL_MSI:
		/* There is no ITS to send it to; mainline's answer without one. */
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

static int pinfold_vm_release(struct inode *inode, struct file *file)
{
	struct pinfold_vm *vm = file->private_data;

	pinfold_irqfd_release(vm);
	pinfold_vm_put(vm);
	return 0;
}

static const struct file_operations pinfold_vm_fops = {
	.owner = THIS_MODULE,
	.release = pinfold_vm_release,
	.unlocked_ioctl = pinfold_vm_ioctl,
	.llseek = noop_llseek,
};

static struct pinfold_vm *pinfold_vm_alloc(void)
{
	struct pinfold_vm *vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);

	if (!vm)
		return NULL;
	kref_init(&vm->ref);
	mutex_init(&vm->config_lock);
	mutex_init(&vm->memory_lock);
	xa_init(&vm->pages);
	spin_lock_init(&vm->irq_lock);
	spin_lock_init(&vm->irqfd_lock);
	INIT_LIST_HEAD(&vm->irqfds);
	spin_lock_init(&vm->ioeventfd_lock);
	INIT_LIST_HEAD(&vm->ioeventfds);
	vm->vgic.dist = PINFOLD_VGIC_UNSET;
	vm->vgic.redist = PINFOLD_VGIC_UNSET;
	mmgrab(current->mm);
	vm->mm = current->mm;
	pinfold_count(PINFOLD_COUNT_VMS, 1);
	return vm;
}

/**
 * pinfold_vm_create - KVM_CREATE_VM
 * @type: KVM_VM_TYPE_ARM_PROTECTED, and the size of the guest's address space
 *
 * EL2 learns of the VM when its first vCPU runs.
 *
 * Return: the VM's file descriptor; -EINVAL for what is not offered: VMs that
 * are not protected, other sizes than 40 bits.
 */
int pinfold_vm_create(unsigned long type)
{
	unsigned long ipa_bits = KVM_VM_TYPE_ARM_IPA_SIZE(type);
	struct pinfold_vm *vm;
	int fd;

	if (type & ~(KVM_VM_TYPE_ARM_PROTECTED | KVM_VM_TYPE_ARM_IPA_SIZE_MASK))
		return -EINVAL;
	if (!(type & KVM_VM_TYPE_ARM_PROTECTED))
		return -EINVAL;
	if (ipa_bits && ipa_bits != PINFOLD_IPA_BITS)
		return -EINVAL;

	vm = pinfold_vm_alloc();
	if (!vm)
		return -ENOMEM;
	fd = anon_inode_getfd("kvm-vm", &pinfold_vm_fops, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		pinfold_vm_put(vm);
	return fd;
}
