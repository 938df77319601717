// SPDX-License-Identifier: GPL-2.0
/*
 * Hypercalls: SMCCC 1.2 fast calls by HVC, and what their statuses mean to
 * Linux.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/array_size.h>
#include <linux/errno.h>
#include <linux/of.h>
#include <linux/printk.h>

#include "driver.h"

/* How often a call is tried again while EL2 asks for more pool frames. */
#define PINFOLD_POOL_TRIES	16

static const char * const pinfold_status_names[] = {
	[PINFOLD_STATUS_OK] = "OK",
	[PINFOLD_STATUS_NOT_PERMITTED] = "NOT_PERMITTED",
	[PINFOLD_STATUS_BUSY] = "BUSY",
	[PINFOLD_STATUS_NO_MEMORY] = "NO_MEMORY",
	[PINFOLD_STATUS_GRANULE] = "GRANULE",
	[PINFOLD_STATUS_NOT_MAPPED] = "NOT_MAPPED",
	[PINFOLD_STATUS_POISONED] = "POISONED",
	[PINFOLD_STATUS_AGAIN] = "AGAIN",
	[PINFOLD_STATUS_INVALID] = "INVALID",
	[PINFOLD_STATUS_NOT_EXCLUSIVELY_PINNED] = "NOT_EXCLUSIVELY_PINNED",
	[PINFOLD_STATUS_NO_PIN_TABLE] = "NO_PIN_TABLE",
	[PINFOLD_STATUS_NO_SUCH_VM] = "NO_SUCH_VM",
	[PINFOLD_STATUS_NO_SUCH_VCPU] = "NO_SUCH_VCPU",
	[PINFOLD_STATUS_WRONG_PHASE] = "WRONG_PHASE",
	[PINFOLD_STATUS_EXISTS] = "EXISTS",
	[PINFOLD_STATUS_LIMIT] = "LIMIT",
	[PINFOLD_STATUS_NOT_RAM] = "NOT_RAM",
	[PINFOLD_STATUS_WRONG_KIND] = "WRONG_KIND",
};

/**
 * pinfold_errno - the errno for what pinfold_call() returned
 * @status: a status, or an errno already
 */
int pinfold_errno(int status)
{
	return status < 0 ? status : pinfold_status_errno(status);
}

/**
 * pinfold_status_name - the name of what pinfold_call() returned, for messages
 * @status: a status, or an errno
 */
const char *pinfold_status_name(int status)
{
	if (status == -EOPNOTSUPP)
		return "NOT_SUPPORTED";
	if (status == -ENOMEM)
		return "no frames for its pool";
	if (status < 0 || status >= ARRAY_SIZE(pinfold_status_names))
		return "an unknown status";
	return pinfold_status_names[status];
}

/**
 * pinfold_call - issue one hypercall
 * @regs: x0 is the function; all registers are replaced by the results
 *
 * Return: Pinfold's status (0 is success, positive a refusal), -EOPNOTSUPP if
 * EL2 does not know the function.
 */
int pinfold_call(struct arm_smccc_1_2_regs *regs)
{
	arm_smccc_1_2_hvc(regs, regs);
	if (regs->a0)
		return -EOPNOTSUPP;
	return (u32)regs->a1 & S32_MAX;
}

/**
 * pinfold_call_pooled - issue a hypercall, and give EL2 the frames it asks for
 * @regs: as for pinfold_call()
 *
 * May sleep.  Return: as pinfold_call(), and -ENOMEM if there are no frames.
 */
int pinfold_call_pooled(struct arm_smccc_1_2_regs *regs)
{
	struct arm_smccc_1_2_regs args = *regs;
	int tries, status, ret;

	for (tries = 0; ; tries++) {
		status = pinfold_call(regs);
		if (status != PINFOLD_STATUS_NO_MEMORY || tries == PINFOLD_POOL_TRIES)
			return status;
		ret = pinfold_pool_top_up();
		if (ret)
			return ret;
		*regs = args;
	}
}

/**
 * pinfold_discover - make sure that Pinfold is at EL2, in a version we speak
 *
 * The device tree is asked first, because an HVC is undefined where nobody
 * takes it.
 */
int __init pinfold_discover(void)
{
	struct device_node *node = of_find_compatible_node(NULL, NULL, "pinfold,hypervisor");
	struct arm_smccc_1_2_regs regs = { .a0 = PINFOLD_UUID_FUNCTION };
	int status;

	if (!node) {
		pr_err("this kernel does not run under Pinfold (no pinfold,hypervisor in its device tree)\n");
		return -ENODEV;
	}
	of_node_put(node);

	arm_smccc_1_2_hvc(&regs, &regs);
	if ((u32)regs.a0 != PINFOLD_UUID_WORD0 || (u32)regs.a1 != PINFOLD_UUID_WORD1 ||
	    (u32)regs.a2 != PINFOLD_UUID_WORD2 || (u32)regs.a3 != PINFOLD_UUID_WORD3) {
		pr_err("another hypervisor than Pinfold answers at EL2\n");
		return -ENODEV;
	}

	regs = (struct arm_smccc_1_2_regs){ .a0 = PINFOLD_CALL_VERSION };
	status = pinfold_call(&regs);
	if (status || regs.a2 >> 16 != PINFOLD_VERSION_1_0 >> 16) {
		pr_err("EL2 speaks version %llu.%llu of the interface, this driver %u\n",
		       (u64)regs.a2 >> 16, (u64)regs.a2 & 0xffff, PINFOLD_VERSION_1_0 >> 16);
		return -EPROTO;
	}
	return 0;
}
