// SPDX-License-Identifier: GPL-2.0
/*
 * The GICv3 as a KVM device: where its registers are in the guest, how many
 * interrupts it has.  The GIC itself is EL2's; its state cannot be read or set.
 */
#include <linux/anon_inodes.h>
#include <linux/bitfield.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "driver.h"

/* KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION's value: Documentation/virt/kvm/devices/arm-vgic-v3.rst */
#define PINFOLD_REGION_INDEX	GENMASK_ULL(11, 0)
#define PINFOLD_REGION_FLAGS	GENMASK_ULL(15, 12)
#define PINFOLD_REGION_BASE	GENMASK_ULL(51, 16)
#define PINFOLD_REGION_COUNT	GENMASK_ULL(63, 52)

#define PINFOLD_VGIC_MIN_IRQS	64

/* Where the device is, if it has not been said before. */
static int pinfold_vgic_place(u64 *where, u64 addr, u64 size)
{
	if (*where != PINFOLD_VGIC_UNSET)
		return -EEXIST;
	if (!IS_ALIGNED(addr, SZ_64K) || addr + size < addr)
		return -EINVAL;
	if (addr + size > PINFOLD_IPA_SIZE)
		return -E2BIG;
	*where = addr;
	return 0;
}

static int pinfold_vgic_set_redist_region(struct pinfold_vgic *vgic, u64 value)
{
	u32 count = FIELD_GET(PINFOLD_REGION_COUNT, value);
	int ret;

	/* EL2 has the redistributors in one piece. */
	if (FIELD_GET(PINFOLD_REGION_INDEX, value) || FIELD_GET(PINFOLD_REGION_FLAGS, value) ||
	    !count)
		return -EINVAL;
	ret = pinfold_vgic_place(&vgic->redist, value & PINFOLD_REGION_BASE,
				 (u64)count * KVM_VGIC_V3_REDIST_SIZE);
	if (!ret)
		vgic->redist_count = count;
	return ret;
}

static int pinfold_vgic_set_addr(struct pinfold_vm *vm, u64 type, u64 value)
{
	struct pinfold_vgic *vgic = &vm->vgic;

	switch (type) {
	case KVM_VGIC_V3_ADDR_TYPE_DIST:
		return pinfold_vgic_place(&vgic->dist, value, KVM_VGIC_V3_DIST_SIZE);
	case KVM_VGIC_V3_ADDR_TYPE_REDIST:
		return pinfold_vgic_place(&vgic->redist, value,
					  (u64)vm->nr_vcpus * KVM_VGIC_V3_REDIST_SIZE);
	case KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION:
		return pinfold_vgic_set_redist_region(vgic, value);
	default:
		return -ENXIO;
	}
}

static int pinfold_vgic_set_nr_irqs(struct pinfold_vgic *vgic, u32 value)
{
	if (value < PINFOLD_VGIC_MIN_IRQS || value > PINFOLD_END_SPI || value % 32)
		return -EINVAL;
	if (vgic->nr_irqs || vgic->initialized)
		return -EBUSY;
	vgic->nr_irqs = value;
	return 0;
}

static int pinfold_vgic_set_locked(struct pinfold_vm *vm, const struct kvm_device_attr *attr,
				   u64 value)
{
	lockdep_assert_held(&vm->config_lock);

	if (vm->handle)
		return -EBUSY;
	switch (attr->group) {
	case KVM_DEV_ARM_VGIC_GRP_ADDR:
		return pinfold_vgic_set_addr(vm, attr->attr, value);
	case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
		return pinfold_vgic_set_nr_irqs(&vm->vgic, value);
	default:
		/* KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT */
		WRITE_ONCE(vm->vgic.initialized, true);
		return 0;
	}
}

static int pinfold_vgic_has(const struct kvm_device_attr *attr)
{
	switch (attr->group) {
	case KVM_DEV_ARM_VGIC_GRP_ADDR:
		switch (attr->attr) {
		case KVM_VGIC_V3_ADDR_TYPE_DIST:
		case KVM_VGIC_V3_ADDR_TYPE_REDIST:
		case KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION:
			return 0;
		}
		return -ENXIO;
	case KVM_DEV_ARM_VGIC_GRP_NR_IRQS:
		return 0;
	case KVM_DEV_ARM_VGIC_GRP_CTRL:
		return attr->attr == KVM_DEV_ARM_VGIC_CTRL_INIT ? 0 : -ENXIO;
	default:
		return -ENXIO;
	}
}

static int pinfold_vgic_set(struct pinfold_vm *vm, const struct kvm_device_attr *attr)
{
	u64 value = 0;
	u32 value32;
	int ret;

	ret = pinfold_vgic_has(attr);
	if (ret)
		return ret;
	if (attr->group == KVM_DEV_ARM_VGIC_GRP_ADDR &&
	    get_user(value, (u64 __user *)u64_to_user_ptr(attr->addr)))
		return -EFAULT;
	if (attr->group == KVM_DEV_ARM_VGIC_GRP_NR_IRQS) {
		if (get_user(value32, (u32 __user *)u64_to_user_ptr(attr->addr)))
			return -EFAULT;
		value = value32;
	}

	mutex_lock(&vm->config_lock);
	ret = pinfold_vgic_set_locked(vm, attr, value);
	mutex_unlock(&vm->config_lock);
	return ret;
}

/* Reading a region says which one by what is there before. */
static int pinfold_vgic_get_addr(const struct pinfold_vgic *vgic, u64 type, u64 *value)
{
	switch (type) {
	case KVM_VGIC_V3_ADDR_TYPE_DIST:
		*value = vgic->dist;
		return 0;
	case KVM_VGIC_V3_ADDR_TYPE_REDIST:
		*value = vgic->redist;
		return 0;
	default:
		if (*value & PINFOLD_REGION_INDEX || vgic->redist == PINFOLD_VGIC_UNSET)
			return -ENOENT;
		*value = vgic->redist | FIELD_PREP(PINFOLD_REGION_COUNT, vgic->redist_count);
		return 0;
	}
}

static int pinfold_vgic_get(struct pinfold_vm *vm, const struct kvm_device_attr *attr)
{
	u64 __user *uaddr = u64_to_user_ptr(attr->addr);
	u64 value;
	u32 irqs;
	int ret;

	ret = pinfold_vgic_has(attr);
	if (ret)
		return ret;
	if (attr->group == KVM_DEV_ARM_VGIC_GRP_CTRL)
		return -ENXIO;
	if (attr->group == KVM_DEV_ARM_VGIC_GRP_NR_IRQS) {
		/* Unless told otherwise, all that there are. */
		irqs = READ_ONCE(vm->vgic.nr_irqs) ?: PINFOLD_END_SPI;
		return put_user(irqs, (u32 __user *)uaddr);
	}

	if (get_user(value, uaddr))
		return -EFAULT;
	mutex_lock(&vm->config_lock);
	ret = pinfold_vgic_get_addr(&vm->vgic, attr->attr, &value);
	mutex_unlock(&vm->config_lock);
	return ret ? ret : put_user(value, uaddr);
}

static long pinfold_vgic_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	struct pinfold_vm *vm = file->private_data;
	struct kvm_device_attr attr;

	if (vm->mm != current->mm)
		return -EIO;
	if (ioctl != KVM_SET_DEVICE_ATTR && ioctl != KVM_GET_DEVICE_ATTR &&
	    ioctl != KVM_HAS_DEVICE_ATTR)
		return -ENOTTY;
	if (copy_from_user(&attr, (void __user *)arg, sizeof(attr)))
		return -EFAULT;

	switch (ioctl) {
	case KVM_SET_DEVICE_ATTR:
		return pinfold_vgic_set(vm, &attr);
	case KVM_GET_DEVICE_ATTR:
		return pinfold_vgic_get(vm, &attr);
	default:
		return pinfold_vgic_has(&attr);
	}
}

static int pinfold_vgic_release(struct inode *inode, struct file *file)
{
	pinfold_vm_put(file->private_data);
	return 0;
}

static const struct file_operations pinfold_vgic_fops = {
	.owner = THIS_MODULE,
	.release = pinfold_vgic_release,
	.unlocked_ioctl = pinfold_vgic_ioctl,
	.llseek = noop_llseek,
};

static int pinfold_vgic_install(struct pinfold_vm *vm)
{
	int fd;

	lockdep_assert_held(&vm->config_lock);

	if (vm->vgic.created)
		return -EEXIST;
	if (vm->handle)
		return -EBUSY;
	pinfold_vm_get(vm);
	fd = anon_inode_getfd("kvm-arm-vgic-v3", &pinfold_vgic_fops, vm, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		pinfold_vm_put(vm);
	else
		WRITE_ONCE(vm->vgic.created, true);
	return fd;
}

/**
 * pinfold_device_create - KVM_CREATE_DEVICE
 * @vm: the VM
 * @args: in: the type; out: the device's file descriptor
 *
 * Return: -ENODEV for anything but the GICv3, -EEXIST for a second one.
 */
int pinfold_device_create(struct pinfold_vm *vm, struct kvm_create_device *args)
{
	int fd;

	if (args->type != KVM_DEV_TYPE_ARM_VGIC_V3)
		return -ENODEV;
	if (args->flags & KVM_CREATE_DEVICE_TEST)
		return 0;

	mutex_lock(&vm->config_lock);
	fd = pinfold_vgic_install(vm);
	mutex_unlock(&vm->config_lock);
	if (fd < 0)
		return fd;
	args->fd = fd;
	return 0;
}
