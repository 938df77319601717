// SPDX-License-Identifier: GPL-2.0
/*
 * Frames that EL2 works with: its tables and objects.  The driver gives them
 * when EL2 asks, and takes them back when the last VM has gone.  As long as EL2
 * has any, the module stays, for only it knows which they are, and the machine
 * does not hibernate.  The frames are marked offline: whoever looks at memory by
 * frame number (kcore, a dump) passes them over.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/page-flags.h>
#include <linux/suspend.h>

#include "driver.h"

/* The set of frames that EL2 has, by PFN. */
static DEFINE_XARRAY(pinfold_pool);
static DEFINE_MUTEX(pinfold_pool_lock);
static u64 pinfold_pool_frames;
/* An image of the memory is being made, or is taking its place. */
static bool pinfold_pool_closed;

static struct page *pinfold_pool_alloc(unsigned int *order)
{
	struct page *page;

	for (*order = PINFOLD_POOL_ORDER; *order; (*order)--) {
		page = alloc_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_NORETRY, *order);
		if (page) {
			split_page(page, *order);
			return page;
		}
	}
	return alloc_page(GFP_KERNEL);
}

/* A frame that EL2 does not have, or not any more, is one like others. */
static void pinfold_pool_free_frame(struct page *page)
{
	__folio_clear_offline(page_folio(page));
	__free_page(page);
}

/* Forget and free the first @nr frames from @page on. */
static void pinfold_pool_free(struct page *page, unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		xa_erase(&pinfold_pool, page_to_pfn(page) + i);
		pinfold_pool_free_frame(page + i);
	}
}

/**
 * pinfold_pool_top_up - give EL2 a batch of frames
 *
 * The kernel must not touch them until pinfold_pool_drain() has them back.
 *
 * Return: 0; -ENOMEM; -EBUSY while the machine hibernates; what EL2 says.
 */
int pinfold_pool_top_up(void)
{
	struct arm_smccc_1_2_regs regs;
	unsigned int order;
	struct page *page;
	unsigned long i;
	int ret;

	mutex_lock(&pinfold_pool_lock);
	if (pinfold_pool_closed) {
		ret = -EBUSY;
		goto out;
	}
	page = pinfold_pool_alloc(&order);
	if (!page) {
		ret = -ENOMEM;
		goto out;
	}
	for (i = 0; i < BIT(order); i++)
		__folio_set_offline(page_folio(page + i));
	for (i = 0; i < BIT(order); i++) {
		ret = xa_err(xa_store(&pinfold_pool, page_to_pfn(page) + i, xa_mk_value(0),
				      GFP_KERNEL));
		if (ret)
			goto out_free;
	}

	regs = (struct arm_smccc_1_2_regs){
		.a0 = PINFOLD_CALL_POOL_DONATE,
		.a1 = page_to_pfn(page),
		.a2 = BIT(order),
	};
	ret = pinfold_call(&regs);
	if (ret) {
		pr_err("EL2 refuses pool frame %lx: %s\n", page_to_pfn(page),
		       pinfold_status_name(ret));
		ret = pinfold_errno(ret);
		goto out_free;
	}
	if (!pinfold_pool_frames)
		__module_get(THIS_MODULE);
	pinfold_pool_frames += BIT(order);
	goto out;

out_free:
	pinfold_pool_free(page, BIT(order));
out:
	mutex_unlock(&pinfold_pool_lock);
	return ret;
}

/* The frame is ours again: free it, if it was one of those that we gave. */
static bool pinfold_pool_take(unsigned long pfn)
{
	lockdep_assert_held(&pinfold_pool_lock);

	if (!xa_erase(&pinfold_pool, pfn))
		return false;
	pinfold_pool_frames--;
	if (!pinfold_pool_frames)
		module_put(THIS_MODULE);
	pinfold_pool_free_frame(pfn_to_page(pfn));
	return true;
}

/**
 * pinfold_pool_drain - take back every frame that EL2 does not use
 */
void pinfold_pool_drain(void)
{
	mutex_lock(&pinfold_pool_lock);
	while (pinfold_pool_frames) {
		struct arm_smccc_1_2_regs regs = { .a0 = PINFOLD_CALL_POOL_RECLAIM };

		if (pinfold_call(&regs))
			break;
		pinfold_pool_take(regs.a2);
		cond_resched();
	}
	mutex_unlock(&pinfold_pool_lock);
}

/**
 * pinfold_pool_abandon - take back what EL2 does not use, because the module goes
 *
 * Only for a module that fails to load: what EL2 keeps (a table for the pin
 * table, which it keeps as well) is lost.
 */
void pinfold_pool_abandon(void)
{
	pinfold_pool_drain();
	if (pinfold_pool_frames)
		pr_err("EL2 keeps %llu frames; they are lost\n", pinfold_pool_frames);
}

/**
 * pinfold_pool_forget - note that EL2 gave a frame back to somebody's raw call
 * @pfn: the frame
 *
 * Return: true if it was a frame of the driver's; then it is free now.
 */
bool pinfold_pool_forget(unsigned long pfn)
{
	bool known;

	mutex_lock(&pinfold_pool_lock);
	known = pinfold_pool_take(pfn);
	mutex_unlock(&pinfold_pool_lock);
	return known;
}

/**
 * pinfold_pool_size - how many frames of the driver's EL2 has
 */
u64 pinfold_pool_size(void)
{
	return READ_ONCE(pinfold_pool_frames);
}

/*
 * What EL2 has can neither be saved in an image nor be overwritten by one, and
 * another EL2 would not know of it.
 */
static int pinfold_pool_pm_event(struct notifier_block *block, unsigned long event, void *data)
{
	int ret = 0;

	mutex_lock(&pinfold_pool_lock);
	switch (event) {
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		if (pinfold_pool_frames) {
			pr_err("no hibernation: EL2 has %llu frames of the kernel's\n",
			       pinfold_pool_frames);
			ret = -EBUSY;
			break;
		}
		pinfold_pool_closed = true;
		break;
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		pinfold_pool_closed = false;
		break;
	}
	mutex_unlock(&pinfold_pool_lock);
	return notifier_from_errno(ret);
}

static struct notifier_block pinfold_pool_pm_block = {
	.notifier_call = pinfold_pool_pm_event,
};

/**
 * pinfold_pool_init - keep the machine from hibernating while EL2 has frames
 */
int pinfold_pool_init(void)
{
	return register_pm_notifier(&pinfold_pool_pm_block);
}

/**
 * pinfold_pool_exit - undo pinfold_pool_init()
 */
void pinfold_pool_exit(void)
{
	unregister_pm_notifier(&pinfold_pool_pm_block);
}
