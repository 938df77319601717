// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading: find Pinfold, tell it where the pin words are, offer
 * the two devices.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/exclusive_pin.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/sched.h>
#include <asm/virt.h>

#include "driver.h"

atomic64_t pinfold_counts[PINFOLD_COUNT_END];

static struct miscdevice pinfold_kvm_dev = {
	.minor = KVM_MINOR,
	.name = "kvm",
	.fops = &pinfold_kvm_fops,
};

static struct miscdevice pinfold_debug_dev = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pinfold",
	.fops = &pinfold_debug_fops,
	.mode = 0600,
};

/* A long table takes several calls, each a bounded piece of the work. */
static int __init pinfold_register_pin_table(u64 table, u64 first_pfn, u64 nr)
{
	int status;

	do {
		struct arm_smccc_1_2_regs regs = {
			.a0 = PINFOLD_CALL_PIN_TABLE_REGISTER,
			.a1 = table,
			.a2 = first_pfn,
			.a3 = nr,
		};

		status = pinfold_call_pooled(&regs);
		cond_resched();
	} while (status == PINFOLD_STATUS_AGAIN);
	return status;
}

/*
 * EL2 reads the pin words of the pages it is given from these tables.  It
 * keeps them for good, so after a reload it has them already.
 */
static int __init pinfold_register_pin_tables(void)
{
	unsigned long first_pfn, nr;
	phys_addr_t table;
	unsigned int i;

	for (i = 0; !exclusive_pin_table(i, &table, &first_pfn, &nr); i++) {
		int status = pinfold_register_pin_table(PHYS_PFN(table), first_pfn, nr);

		if (status && status != PINFOLD_STATUS_EXISTS) {
			pr_err("EL2 refuses the pin table of frames %lx-%lx: %s\n",
			       first_pfn, first_pfn + nr - 1, pinfold_status_name(status));
			return pinfold_errno(status);
		}
	}
	if (!i) {
		pr_err("this kernel has no pin table; build it with CONFIG_EXCLUSIVE_PIN=y\n");
		return -ENODEV;
	}
	return 0;
}

static int __init pinfold_init(void)
{
	int ret;

	ret = pinfold_discover();
	if (ret)
		return ret;
	ret = pinfold_pool_init();
	if (ret)
		return ret;
	ret = pinfold_register_pin_tables();
	if (ret)
		goto out_pool;
	arm64_enable_hyp_stage2_aborts();
	/* For good: what EL2 does not give back stays isolated after us. */
	exclusive_pin_guard();

	ret = pinfold_irqfd_init();
	if (ret)
		goto out_pool;
	ret = misc_register(&pinfold_kvm_dev);
	if (ret) {
		pr_err("cannot register /dev/kvm (is KVM built into this kernel?): %d\n", ret);
		goto out_irqfd;
	}
	ret = misc_register(&pinfold_debug_dev);
	if (ret)
		goto out_kvm;
	return 0;

out_kvm:
	misc_deregister(&pinfold_kvm_dev);
out_irqfd:
	pinfold_irqfd_exit();
out_pool:
	pinfold_pool_abandon();
	pinfold_pool_exit();
	return ret;
}

static void __exit pinfold_exit(void)
{
	misc_deregister(&pinfold_debug_dev);
	misc_deregister(&pinfold_kvm_dev);
	pinfold_irqfd_exit();
	pinfold_pool_exit();
}

module_init(pinfold_init);
module_exit(pinfold_exit);

MODULE_DESCRIPTION("KVM's user interface on the Pinfold hypervisor");
MODULE_LICENSE("GPL");
MODULE_ALIAS_MISCDEV(KVM_MINOR);
MODULE_ALIAS("devname:kvm");
