// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/pinfold: see uapi/pinfold.h.
 *
 * A raw call can do to the host whatever the host can do to itself.  What it
 * must not do is make the kernel free a page that EL2 has: a page pinned here
 * is let go only if EL2 says that it is the host's.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/exclusive_pin.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "driver.h"

#define PINFOLD_MAX_EXTRA_PINS	1024

/**
 * struct pinfold_cookie - a page that is held for user space
 * @page: the page
 * @kind: PINFOLD_KIND_*
 * @extra: ordinary pins on top
 * @given: a raw call gave the page to EL2
 */
struct pinfold_cookie {
	struct page *page;
	u32 kind;
	u32 extra;
	bool given;
};

/**
 * struct pinfold_debug - an open /dev/pinfold
 * @lock: guards @cookies
 * @cookies: number -> struct pinfold_cookie
 */
struct pinfold_debug {
	struct mutex lock; /* Guards @cookies. */
	struct xarray cookies;
};

static int pinfold_cookie_hold(struct pinfold_cookie *cookie, unsigned long addr)
{
	int ret;

	switch (cookie->kind) {
	case PINFOLD_KIND_NONE:
		ret = get_user_pages_fast(addr, 1, FOLL_WRITE, &cookie->page);
		return ret == 1 ? 0 : ret ?: -EFAULT;
	case PINFOLD_KIND_ORDINARY:
		return pinfold_pin_page(addr, false, &cookie->page);
	case PINFOLD_KIND_EXCLUSIVE:
		return pinfold_pin_page(addr, true, &cookie->page);
	case PINFOLD_KIND_ISOLATED:
		ret = pinfold_pin_page(addr, true, &cookie->page);
		if (ret)
			return ret;
		ret = pinfold_isolate(current->mm, page_folio(cookie->page));
		if (ret)
			unpin_user_page(cookie->page);
		return ret;
	default:
		return -EINVAL;
	}
}

static void pinfold_cookie_drop(struct pinfold_cookie *cookie)
{
	while (cookie->extra--)
		unpin_user_page(cookie->page);

	switch (cookie->kind) {
	case PINFOLD_KIND_NONE:
		put_page(cookie->page);
		break;
	case PINFOLD_KIND_ISOLATED:
		folio_unisolate_exclusive(page_folio(cookie->page));
		fallthrough;
	default:
		pinfold_unpin_page(cookie->page);
	}
	kfree(cookie);
}

static int pinfold_cookie_hold_extra(struct pinfold_cookie *cookie, unsigned long addr, u32 extra)
{
	struct page *page;
	int ret;

	while (cookie->extra < extra) {
		ret = pinfold_pin_page(addr, false, &page);
		if (ret)
			return ret;
		if (page != cookie->page) {
			unpin_user_page(page);
			return -EAGAIN;
		}
		cookie->extra++;
	}
	return 0;
}

static struct pinfold_cookie *pinfold_cookie_make(const struct pinfold_pin *args)
{
	struct pinfold_cookie *cookie = kzalloc(sizeof(*cookie), GFP_KERNEL);
	int ret;

	if (!cookie)
		return ERR_PTR(-ENOMEM);
	cookie->kind = args->kind;
	ret = pinfold_cookie_hold(cookie, args->addr);
	if (ret) {
		kfree(cookie);
		return ERR_PTR(ret);
	}
	ret = pinfold_cookie_hold_extra(cookie, args->addr, args->extra);
	if (ret) {
		pinfold_cookie_drop(cookie);
		return ERR_PTR(ret);
	}
	return cookie;
}

static long pinfold_debug_pin(struct pinfold_debug *debug, struct pinfold_pin __user *argp)
{
	struct pinfold_cookie *cookie;
	struct pinfold_pin args;
	int ret;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;
	if (args.extra > PINFOLD_MAX_EXTRA_PINS)
		return -EINVAL;
	cookie = pinfold_cookie_make(&args);
	if (IS_ERR(cookie))
		return PTR_ERR(cookie);
	args.pfn = page_to_pfn(cookie->page);
	args.word = folio_pin_word(page_folio(cookie->page));

	mutex_lock(&debug->lock);
	ret = xa_alloc(&debug->cookies, &args.cookie, cookie, xa_limit_31b, GFP_KERNEL);
	if (!ret && copy_to_user(argp, &args, sizeof(args))) {
		xa_erase(&debug->cookies, args.cookie);
		ret = -EFAULT;
	}
	mutex_unlock(&debug->lock);
	if (ret)
		pinfold_cookie_drop(cookie);
	return ret;
}

/* May the kernel have this page back? A build of EL2 without debug calls does not say. */
static bool pinfold_page_is_host(const struct pinfold_cookie *cookie, struct page *page)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_FOLIO_QUERY,
		.a1 = page_to_pfn(page),
	};

	if (pinfold_call(&regs))
		return !cookie->given;
	/* Of a page that a guest shares, the VM has a pin of its own. */
	if (regs.a3 == PINFOLD_STATE_GUEST_SHARED_HOST)
		return cookie->kind < PINFOLD_KIND_EXCLUSIVE;
	return regs.a3 == PINFOLD_STATE_HOST;
}

/* An exclusive pin is on the whole folio, and so is what is done with it. */
static bool pinfold_cookie_is_host(const struct pinfold_cookie *cookie)
{
	struct folio *folio = page_folio(cookie->page);
	long i;

	if (cookie->kind < PINFOLD_KIND_EXCLUSIVE)
		return pinfold_page_is_host(cookie, cookie->page);
	for (i = 0; i < folio_nr_pages(folio); i++)
		if (!pinfold_page_is_host(cookie, folio_page(folio, i)))
			return false;
	return true;
}

static long pinfold_debug_unpin(struct pinfold_debug *debug, unsigned long number)
{
	struct pinfold_cookie *cookie;
	long ret = 0;

	mutex_lock(&debug->lock);
	cookie = xa_load(&debug->cookies, number);
	if (!cookie) {
		ret = -ENOENT;
	} else if (!pinfold_cookie_is_host(cookie)) {
		ret = -EBUSY;
	} else {
		xa_erase(&debug->cookies, number);
		pinfold_cookie_drop(cookie);
	}
	mutex_unlock(&debug->lock);
	return ret;
}

static void pinfold_debug_note_given(struct pinfold_debug *debug, u64 pfn, u64 nr)
{
	struct pinfold_cookie *cookie;
	unsigned long index;

	mutex_lock(&debug->lock);
	xa_for_each(&debug->cookies, index, cookie) {
		struct folio *folio = page_folio(cookie->page);

		if (folio_pfn(folio) < pfn + nr && pfn < folio_pfn(folio) + folio_nr_pages(folio))
			cookie->given = true;
	}
	mutex_unlock(&debug->lock);
}

/* Issue the call, and keep the driver's own records right. */
static void pinfold_debug_issue(struct pinfold_debug *debug, struct arm_smccc_1_2_regs *regs)
{
	struct arm_smccc_1_2_regs args = *regs;
	unsigned long flags;

	/* As in KVM_RUN: an interrupt that is due must find EL2, not us. */
	local_irq_save(flags);
	arm_smccc_1_2_hvc(regs, regs);
	local_irq_restore(flags);
	/* Of what is done in steps, the whole counts from the first one on. */
	if (regs->a0 || (regs->a1 && regs->a1 != PINFOLD_STATUS_AGAIN))
		return;

	switch (args.a0) {
	case PINFOLD_CALL_POOL_DONATE:
		pinfold_debug_note_given(debug, args.a1, args.a2);
		break;
	case PINFOLD_CALL_POOL_RECLAIM:
		pinfold_pool_forget(regs->a2);
		break;
	case PINFOLD_CALL_MEM_DONATE:
	case PINFOLD_CALL_MEM_SHARE_GUEST:
		pinfold_debug_note_given(debug, args.a3, args.a4 << min_t(u64, args.a5, 9));
		break;
	}
}

static long pinfold_debug_call(struct pinfold_debug *debug, struct pinfold_call __user *argp)
{
	struct arm_smccc_1_2_regs regs = {};
	struct pinfold_call args;

	/* x0 to x7 are the first eight of the registers. */
	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;
	memcpy(&regs, args.x, sizeof(args.x));
	pinfold_debug_issue(debug, &regs);
	memcpy(args.x, &regs, sizeof(args.x));
	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}

/* Read or write where the access may abort. */
static long pinfold_touch_nofault(u64 *where, struct pinfold_touch *args)
{
	pagefault_disable();
	if (args->flags & PINFOLD_TOUCH_WRITE)
		__put_kernel_nofault(where, &args->value, u64, fault);
	else
		__get_kernel_nofault(&args->value, where, u64, fault);
	pagefault_enable();
	return 0;

fault:
	pagefault_enable();
	return -EFAULT;
}

/* Read or write as the kernel would by mistake. */
static long pinfold_touch_plain(u64 *where, struct pinfold_touch *args)
{
	if (args->flags & PINFOLD_TOUCH_WRITE)
		WRITE_ONCE(*where, args->value);
	else
		args->value = READ_ONCE(*where);
	return 0;
}

static long pinfold_touch_page(struct page *page, struct pinfold_touch *args)
{
	u64 *where = page_address(page) + args->offset;

	if (args->flags & PINFOLD_TOUCH_NOFAULT)
		return pinfold_touch_nofault(where, args);
	return pinfold_touch_plain(where, args);
}

/* A frame that is not in the linear map. */
static long pinfold_touch_foreign(u64 pfn, struct pinfold_touch *args)
{
	void *map;
	long ret;

	if (!(args->flags & PINFOLD_TOUCH_NOFAULT) || pfn > PHYS_PFN(PHYS_MASK))
		return -EINVAL;
	map = memremap(PFN_PHYS(pfn), PAGE_SIZE, MEMREMAP_WB);
	if (!map)
		return -ENXIO;
	ret = pinfold_touch_nofault(map + args->offset, args);
	memunmap(map);
	return ret;
}

static long pinfold_touch_cookie(struct pinfold_debug *debug, struct pinfold_touch *args)
{
	struct pinfold_cookie *cookie;
	long ret = -ENOENT;

	mutex_lock(&debug->lock);
	cookie = xa_load(&debug->cookies, args->frame);
	if (cookie)
		ret = pinfold_touch_page(cookie->page, args);
	mutex_unlock(&debug->lock);
	return ret;
}

static long pinfold_debug_touch(struct pinfold_debug *debug, struct pinfold_touch __user *argp)
{
	struct pinfold_touch args;
	long ret;

	if (copy_from_user(&args, argp, sizeof(args)))
		return -EFAULT;
	if (args.offset > PAGE_SIZE - sizeof(args.value) || args.offset % sizeof(args.value))
		return -EINVAL;
	if (args.flags & ~(PINFOLD_TOUCH_WRITE | PINFOLD_TOUCH_NOFAULT | PINFOLD_TOUCH_COOKIE))
		return -EINVAL;

	if (args.flags & PINFOLD_TOUCH_COOKIE)
		ret = pinfold_touch_cookie(debug, &args);
	else if (pfn_valid(args.frame))
		ret = pinfold_touch_page(pfn_to_page(args.frame), &args);
	else
		ret = pinfold_touch_foreign(args.frame, &args);
	if (ret)
		return ret;
	return copy_to_user(argp, &args, sizeof(args)) ? -EFAULT : 0;
}

static u64 pinfold_read_count(unsigned int which)
{
	return atomic64_read(&pinfold_counts[which]);
}

static long pinfold_debug_stats(struct pinfold_stats __user *argp)
{
	struct pinfold_stats stats = {
		.vms = pinfold_read_count(PINFOLD_COUNT_VMS),
		.donated = pinfold_read_count(PINFOLD_COUNT_DONATED),
		.shared = pinfold_read_count(PINFOLD_COUNT_SHARED),
		.pool = pinfold_pool_size(),
		.leaked = pinfold_read_count(PINFOLD_COUNT_LEAKED),
		.donations = pinfold_read_count(PINFOLD_COUNT_DONATIONS),
		.reclaims = pinfold_read_count(PINFOLD_COUNT_RECLAIMS),
		.pin_busy = pinfold_read_count(PINFOLD_COUNT_PIN_BUSY),
		.isolate_retries = pinfold_read_count(PINFOLD_COUNT_ISOLATE_RETRIES),
		.runs = pinfold_read_count(PINFOLD_COUNT_RUNS),
		.kicks = pinfold_read_count(PINFOLD_COUNT_KICKS),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(stats.exits); i++)
		stats.exits[i] = pinfold_read_count(PINFOLD_COUNT_EXITS + i);
	return copy_to_user(argp, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static long pinfold_debug_ioctl(struct file *file, unsigned int ioctl, unsigned long arg)
{
	struct pinfold_debug *debug = file->private_data;
	void __user *argp = (void __user *)arg;

	switch (ioctl) {
	case PINFOLD_IOC_CALL:
		return pinfold_debug_call(debug, argp);
	case PINFOLD_IOC_PIN:
		return pinfold_debug_pin(debug, argp);
	case PINFOLD_IOC_UNPIN:
		return pinfold_debug_unpin(debug, arg);
	case PINFOLD_IOC_TOUCH:
		return pinfold_debug_touch(debug, argp);
	case PINFOLD_IOC_STATS:
		return pinfold_debug_stats(argp);
	default:
		return -ENOTTY;
	}
}

static int pinfold_debug_open(struct inode *inode, struct file *file)
{
	struct pinfold_debug *debug;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	debug = kzalloc(sizeof(*debug), GFP_KERNEL);
	if (!debug)
		return -ENOMEM;
	mutex_init(&debug->lock);
	xa_init_flags(&debug->cookies, XA_FLAGS_ALLOC1);
	file->private_data = debug;
	return 0;
}

static int pinfold_debug_release(struct inode *inode, struct file *file)
{
	struct pinfold_debug *debug = file->private_data;
	struct pinfold_cookie *cookie;
	unsigned long index, leaked = 0;

	xa_for_each(&debug->cookies, index, cookie) {
		if (pinfold_cookie_is_host(cookie)) {
			pinfold_cookie_drop(cookie);
			continue;
		}
		/* EL2 has it: the page stays as it is for good. */
		leaked++;
		kfree(cookie);
	}
	if (leaked) {
		pr_err("/dev/pinfold was closed while EL2 had %lu of its pages; they are lost\n",
		       leaked);
		pinfold_count(PINFOLD_COUNT_LEAKED, leaked);
	}
	xa_destroy(&debug->cookies);
	kfree(debug);
	return 0;
}

const struct file_operations pinfold_debug_fops = {
	.owner = THIS_MODULE,
	.open = pinfold_debug_open,
	.release = pinfold_debug_release,
	.unlocked_ioctl = pinfold_debug_ioctl,
	.llseek = noop_llseek,
};
