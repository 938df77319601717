// SPDX-License-Identifier: GPL-2.0
/*
 * vCPU files: creation, initial state, the page that is shared with the VMM.
 */
#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

/* The vCPU features that mainline knows, and those that are offered here. */
#define PINFOLD_FEATURES_KNOWN	GENMASK(KVM_ARM_VCPU_HAS_EL2, 0)
#define PINFOLD_FEATURES	(BIT(KVM_ARM_VCPU_POWER_OFF) | BIT(KVM_ARM_VCPU_PSCI_0_2))

/* PSCI is always there: EL2 answers it.  So KVM_ARM_VCPU_PSCI_0_2 changes nothing. */
static int pinfold_vcpu_init(struct pinfold_vcpu *vcpu, const struct kvm_vcpu_init *init)
{
	unsigned int i;
	int ret = 0;

	if (init->target != KVM_ARM_TARGET_GENERIC_V8)
		return -EINVAL;
	if (init->features[0] & ~PINFOLD_FEATURES_KNOWN)
		return -ENOENT;
	for (i = 1; i < ARRAY_SIZE(init->features); i++)
		if (init->features[i])
			return -ENOENT;
	if (init->features[0] & ~PINFOLD_FEATURES)
		return -EINVAL;

	mutex_lock(&vcpu->vm->config_lock);
	if (vcpu->vm->handle) {
		/* Only EL2 resets a protected VM's vCPU, when PSCI says so. */
		ret = -EPERM;
	} else {
		vcpu->powered_off = init->features[0] & BIT(KVM_ARM_VCPU_POWER_OFF);
		memset(vcpu->x, 0, sizeof(vcpu->x));
		vcpu->pc = 0;
		vcpu->initialized = true;
	}
	mutex_unlock(&vcpu->vm->config_lock);
	return ret;
}

static int pinfold_vcpu_get_mp_state(struct pinfold_vcpu *vcpu, struct kvm_mp_state __user *argp)
{
	struct kvm_mp_state state = {
		.mp_state = READ_ONCE(vcpu->powered_off) ? KVM_MP_STATE_STOPPED
							 : KVM_MP_STATE_RUNNABLE,
	};

	return copy_to_user(argp, &state, sizeof(state)) ? -EFAULT : 0;
}

static int pinfold_vcpu_set_mp_state(struct pinfold_vcpu *vcpu,
				     const struct kvm_mp_state __user *argp)
{
	struct kvm_mp_state state;
	bool off;
	int ret = 0;

	if (copy_from_user(&state, argp, sizeof(state)))
		return -EFAULT;
	if (state.mp_state != KVM_MP_STATE_RUNNABLE && state.mp_state != KVM_MP_STATE_STOPPED)
		return -EINVAL;
	off = state.mp_state == KVM_MP_STATE_STOPPED;

	mutex_lock(&vcpu->vm->config_lock);
	/* Once it runs, PSCI at EL2 decides. */
	if (!vcpu->vm->handle)
		vcpu->powered_off = off;
	else if (vcpu->powered_off != off)
		ret = -EPERM;
	mutex_unlock(&vcpu->vm->config_lock);
	return ret;
}

static int pinfold_vcpu_set_sigmask(struct pinfold_vcpu *vcpu,
				    const struct kvm_signal_mask __user *argp)
{
	struct kvm_signal_mask mask;

	if (!argp) {
		vcpu->sigset_active = false;
		return 0;
	}
	if (copy_from_user(&mask, argp, sizeof(mask)))
		return -EFAULT;
	if (mask.len != sizeof(vcpu->sigset))
		return -EINVAL;
	if (copy_from_user(&vcpu->sigset, argp->sigset, sizeof(vcpu->sigset)))
		return -EFAULT;
	sigdelsetmask(&vcpu->sigset, sigmask(SIGKILL) | sigmask(SIGSTOP));
	vcpu->sigset_active = true;
	return 0;
}

static long pinfold_vcpu_one_reg(struct pinfold_vcpu *vcpu, unsigned int ioctl, void __user *argp)
{
	struct kvm_one_reg reg;

	if (!vcpu->initialized)
		return -ENOEXEC;
	if (copy_from_user(&reg, argp, sizeof(reg)))
		return -EFAULT;
	if (ioctl == KVM_SET_ONE_REG)
		return pinfold_reg_set(vcpu, &reg);
	return pinfold_reg_get(vcpu, &reg);
}

static long pinfold_vcpu_ioctl_locked(struct pinfold_vcpu *vcpu, unsigned int ioctl,
				      unsigned long arg)
{
	void __user *argp = (void __user *)arg;

	switch (ioctl) {
	case KVM_RUN:
		return arg ? -EINVAL : pinfold_vcpu_run(vcpu);
	case KVM_ARM_VCPU_INIT: {
		struct kvm_vcpu_init init;

		if (copy_from_user(&init, argp, sizeof(init)))
			return -EFAULT;
		return pinfold_vcpu_init(vcpu, &init);
	}
	case KVM_GET_ONE_REG:
	case KVM_SET_ONE_REG:
		return pinfold_vcpu_one_reg(vcpu, ioctl, argp);
	case KVM_GET_REG_LIST:
		return vcpu->initialized ? pinfold_reg_list(argp) : -ENOEXEC;
	case KVM_GET_MP_STATE:
		return pinfold_vcpu_get_mp_state(vcpu, argp);
	case KVM_SET_MP_STATE:
		return pinfold_vcpu_set_mp_state(vcpu, argp);
	case KVM_SET_SIGNAL_MASK:
		return pinfold_vcpu_set_sigmask(vcpu, argp);
	default:
		return -EINVAL;
	}
}

static long pinfold_vcpu_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	struct pinfold_vcpu *vcpu = file->private_data;
	long ret;

	if (vcpu->vm->mm != current->mm)
		return -EIO;
	if (_IOC_TYPE(ioctl) != KVMIO)
		return -EINVAL;
	if (mutex_lock_killable(&vcpu->mutex))
		return -EINTR;
	ret = pinfold_vcpu_ioctl_locked(vcpu, ioctl, arg);
	mutex_unlock(&vcpu->mutex);
	return ret;
}

static vm_fault_t pinfold_vcpu_fault(struct vm_fault *vmf)
{
	struct pinfold_vcpu *vcpu = vmf->vma->vm_file->private_data;

	if (vmf->pgoff)
		return VM_FAULT_SIGBUS;
	vmf->page = virt_to_page(vcpu->run);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct pinfold_vcpu_vm_ops = {
	.fault = pinfold_vcpu_fault,
};

static int pinfold_vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &pinfold_vcpu_vm_ops;
	return 0;
}

static int pinfold_vcpu_release(struct inode *inode, struct file *file)
{
	struct pinfold_vcpu *vcpu = file->private_data;

	pinfold_vm_put(vcpu->vm);
	return 0;
}

static const struct file_operations pinfold_vcpu_fops = {
	.owner = THIS_MODULE,
	.release = pinfold_vcpu_release,
	.unlocked_ioctl = pinfold_vcpu_ioctl,
	.mmap = pinfold_vcpu_mmap,
	.llseek = noop_llseek,
};

static struct pinfold_vcpu *pinfold_vcpu_alloc(struct pinfold_vm *vm, unsigned int id)
{
	struct pinfold_vcpu *vcpu = kzalloc(sizeof(*vcpu), GFP_KERNEL_ACCOUNT);

	if (!vcpu)
		return NULL;
	BUILD_BUG_ON(sizeof(struct kvm_run) > PAGE_SIZE);
	vcpu->run = (struct kvm_run *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!vcpu->run) {
		kfree(vcpu);
		return NULL;
	}
	vcpu->vm = vm;
	vcpu->id = id;
	mutex_init(&vcpu->mutex);
	spin_lock_init(&vcpu->kick_lock);
	init_waitqueue_head(&vcpu->wq);
	return vcpu;
}

/**
 * pinfold_vcpu_free - free a vCPU with its VM
 * @vcpu: the vCPU, or NULL
 */
void pinfold_vcpu_free(struct pinfold_vcpu *vcpu)
{
	if (!vcpu)
		return;
	free_page((unsigned long)vcpu->run);
	kfree(vcpu);
}

/* Make the file; the vCPU is the VM's from then on. */
static int pinfold_vcpu_install(struct pinfold_vm *vm, struct pinfold_vcpu *vcpu)
{
	int fd;

	lockdep_assert_held(&vm->config_lock);

	if (vm->handle || vm->vgic.initialized)
		return -EBUSY;
	if (vm->vcpus[vcpu->id])
		return -EEXIST;

	pinfold_vm_get(vm);
	fd = anon_inode_getfd("kvm-vcpu", &pinfold_vcpu_fops, vcpu, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		pinfold_vm_put(vm);
		return fd;
	}
	vm->vcpus[vcpu->id] = vcpu;
	vm->nr_vcpus = max(vm->nr_vcpus, vcpu->id + 1);
	return fd;
}

/**
 * pinfold_vcpu_create - KVM_CREATE_VCPU
 * @vm: the VM
 * @id: the vCPU's id; ids have no gaps when the VM starts
 *
 * Return: the vCPU's file descriptor; -EINVAL for an id that is too large,
 * -EEXIST, -EBUSY once the GIC is initialised or the VM has started.
 */
int pinfold_vcpu_create(struct pinfold_vm *vm, unsigned long id)
{
	struct pinfold_vcpu *vcpu;
	int fd;

	if (id >= PINFOLD_MAX_VCPUS)
		return -EINVAL;
	vcpu = pinfold_vcpu_alloc(vm, id);
	if (!vcpu)
		return -ENOMEM;

	mutex_lock(&vm->config_lock);
	fd = pinfold_vcpu_install(vm, vcpu);
	mutex_unlock(&vm->config_lock);
	if (fd < 0)
		pinfold_vcpu_free(vcpu);
	return fd;
}
