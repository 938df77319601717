// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a guest's page, as the host sees it:
 *
 *	nothing -> pinned exclusively -> isolated -> recorded -> donated
 *	shared with the host and back, as the guest decides: while it is, the
 *		page is in the kernel's hands, under an ordinary pin
 *	donated or shared -> reclaimed -> back in the kernel's hands -> unpinned
 *
 * A page is in vm->pages exactly while EL2 may hold it.  What EL2 does not
 * give back is never unpinned: it stays isolated, and is lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/exclusive_pin.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "driver.h"

/* The guest shares this page with the host. */
#define PINFOLD_PAGE_SHARED	XA_MARK_1

/* Record the folio's pages, or no page at all. */
static int pinfold_record(struct pinfold_vm *vm, u64 gfn, struct folio *folio)
{
	long i, nr = folio_nr_pages(folio);
	int ret;

	for (i = 0; i < nr; i++) {
		ret = xa_insert(&vm->pages, gfn + i, folio_page(folio, i), GFP_KERNEL_ACCOUNT);
		if (ret)
			break;
	}
	if (i == nr)
		return 0;
	while (i--)
		xa_erase(&vm->pages, gfn + i);
	return ret;
}

static void pinfold_unrecord(struct pinfold_vm *vm, u64 gfn, struct folio *folio)
{
	long i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		xa_erase(&vm->pages, gfn + i);
}

/* Give an isolated and recorded folio to EL2. */
static int pinfold_donate_folio(struct pinfold_vm *vm, u64 gfn, struct folio *folio)
{
	struct arm_smccc_1_2_regs regs = {
		.a0 = PINFOLD_CALL_MEM_DONATE,
		.a1 = vm->handle,
		.a2 = gfn,
		.a3 = folio_pfn(folio),
		.a4 = 1,
		.a5 = folio_order(folio),
	};
	int status = pinfold_call_pooled(&regs);

	if (!status) {
		pinfold_count(PINFOLD_COUNT_DONATIONS, folio_nr_pages(folio));
		pinfold_count(PINFOLD_COUNT_DONATED, folio_nr_pages(folio));
		return 0;
	}
	pr_err_ratelimited("EL2 refuses frame %lx for guest frame %llx: %s (folio %lx, pin word %lx)\n",
			   folio_pfn(folio), gfn, pinfold_status_name(status), regs.a3, regs.a4);
	return pinfold_errno(status);
}

/* Isolate, record and donate the folio of a page that is pinned exclusively. */
static int pinfold_donate_pinned(struct pinfold_vm *vm, const struct pinfold_slot *slot,
				 u64 gfn, struct page *page)
{
	struct folio *folio = page_folio(page);
	u64 first = gfn - folio_page_idx(folio, page);
	int ret;

	/*
	 * A file system's page would be written back while nobody can read
	 * it.  Anonymous and shmem pages stay as long as they are pinned.
	 */
	if (!folio_test_swapbacked(folio))
		return -EIO;
	/* A large folio goes whole, where the slot has room for it. */
	if (!IS_ALIGNED(first, folio_nr_pages(folio)) || first < slot->gfn || first > gfn ||
	    first + folio_nr_pages(folio) > slot->gfn + slot->nr)
		return -EOPNOTSUPP;

	ret = pinfold_isolate(vm->mm, page);
	if (ret)
		return ret;
	ret = pinfold_record(vm, first, folio);
	if (ret)
		goto out_unisolate;
	ret = pinfold_donate_folio(vm, first, folio);
	if (ret)
		goto out_unrecord;
	return 0;

out_unrecord:
	pinfold_unrecord(vm, first, folio);
out_unisolate:
	folio_unisolate_exclusive(folio);
	return ret;
}

/*
 * An exclusive pin is not for every kind of memory.  Say whether it is the kind
 * (mainline's -EIO: hugetlb, say) or the folio's size.
 */
static int pinfold_unpinnable(unsigned long addr)
{
	struct page *page;
	int ret;

	ret = pinfold_pin_page(addr, false, &page);
	if (ret)
		return ret;
	ret = folio_test_swapbacked(page_folio(page)) ? -EOPNOTSUPP : -EIO;
	unpin_user_page(page);
	return ret;
}

static int pinfold_donate(struct pinfold_vm *vm, const struct pinfold_slot *slot, u64 gfn)
{
	unsigned long addr = slot->addr + ((gfn - slot->gfn) << PAGE_SHIFT);
	struct page *page;
	long nr = 1;
	int ret;

	ret = account_locked_vm(vm->mm, 1, true);
	if (ret)
		return ret;
	ret = pinfold_pin_page(addr, true, &page);
	if (ret == -EOPNOTSUPP)
		ret = pinfold_unpinnable(addr);
	if (ret)
		goto out_unaccount;

	/* The rest of a large folio counts as well, once we know of it. */
	nr = folio_nr_pages(page_folio(page));
	if (nr > 1) {
		ret = account_locked_vm(vm->mm, nr - 1, true);
		if (ret) {
			nr = 1;
			goto out_unpin;
		}
	}
	ret = pinfold_donate_pinned(vm, slot, gfn, page);
	if (!ret)
		return 0;

out_unpin:
	unpin_user_page(page);
out_unaccount:
	account_locked_vm(vm->mm, nr, false);
	if (ret == -EBUSY)
		pinfold_count(PINFOLD_COUNT_PIN_BUSY, 1);
	return ret;
}

/**
 * pinfold_memory_fault - give the guest the page that it touched
 * @vm: the VM; its mm is the caller's
 * @gfn: the guest frame
 *
 * Return: 0, also if another vCPU was faster; -EFAULT outside of the slots or
 * where nothing is mapped that can be pinned for long, -EBUSY if somebody else
 * holds the page, -ENOMEM also for RLIMIT_MEMLOCK, -EIO for memory that is not
 * swap-backed, -EOPNOTSUPP for a large folio.
 */
int pinfold_memory_fault(struct pinfold_vm *vm, u64 gfn)
{
	const struct pinfold_slot *slot = pinfold_slot_find(vm, gfn);
	int ret = 0;

	if (!slot)
		return -EFAULT;

	mutex_lock(&vm->memory_lock);
	if (!xa_load(&vm->pages, gfn))
		ret = pinfold_donate(vm, slot, gfn);
	mutex_unlock(&vm->memory_lock);
	return ret;
}

/**
 * pinfold_memory_shared - the guest has shared pages with the host
 * @vm: the VM
 * @gfn: the first
 * @nr: how many
 *
 * EL2 has mapped them already.  They become ordinary memory of the VMM's
 * again, but stay pinned.
 */
void pinfold_memory_shared(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	struct page *page;
	u64 end = gfn + nr;

	mutex_lock(&vm->memory_lock);
	for (; gfn < end; gfn++) {
		page = xa_load(&vm->pages, gfn);
		if (!page || xa_get_mark(&vm->pages, gfn, PINFOLD_PAGE_SHARED))
			continue;
		xa_set_mark(&vm->pages, gfn, PINFOLD_PAGE_SHARED);
		pinfold_make_ordinary(page);
		pinfold_count(PINFOLD_COUNT_SHARED, 1);
	}
	mutex_unlock(&vm->memory_lock);
}

/* Undo or do the host's part of one page's unsharing. */
static bool pinfold_unshare_page(struct pinfold_vm *vm, u64 gfn)
{
	struct page *page = xa_load(&vm->pages, gfn);

	if (!page)
		return false;
	if (!xa_get_mark(&vm->pages, gfn, PINFOLD_PAGE_SHARED))
		return true;
	if (pinfold_make_exclusive(vm->mm, page))
		return false;
	xa_clear_mark(&vm->pages, gfn, PINFOLD_PAGE_SHARED);
	pinfold_count(PINFOLD_COUNT_SHARED, -1);
	return true;
}

/**
 * pinfold_memory_unshare - the guest wants pages for itself again
 * @vm: the VM
 * @gfn: the first
 * @nr: how many
 *
 * EL2 still maps them for the host, and takes them once they are pinned
 * exclusively and isolated.
 *
 * Return: false if that cannot be had for all of them; then nothing changed.
 */
bool pinfold_memory_unshare(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	DECLARE_BITMAP(done, PINFOLD_LIMIT_MAX_FRAMES) = {};
	unsigned long i;
	bool ok = true;

	if (nr > PINFOLD_LIMIT_MAX_FRAMES)
		return false;

	mutex_lock(&vm->memory_lock);
	for (i = 0; i < nr && ok; i++) {
		if (xa_get_mark(&vm->pages, gfn + i, PINFOLD_PAGE_SHARED))
			__set_bit(i, done);
		ok = pinfold_unshare_page(vm, gfn + i);
		if (!ok)
			__clear_bit(i, done);
	}
	if (!ok) {
		for_each_set_bit(i, done, nr) {
			xa_set_mark(&vm->pages, gfn + i, PINFOLD_PAGE_SHARED);
			pinfold_make_ordinary(xa_load(&vm->pages, gfn + i));
			pinfold_count(PINFOLD_COUNT_SHARED, 1);
		}
	}
	mutex_unlock(&vm->memory_lock);
	return ok;
}

/* EL2 has given these frames back, wiped: let go of them. */
static void pinfold_release_range(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	unsigned long index;
	struct page *page;

	xa_for_each_range(&vm->pages, index, page, gfn, gfn + nr - 1) {
		struct folio *folio = page_folio(page);

		bool shared = xa_get_mark(&vm->pages, index, PINFOLD_PAGE_SHARED);

		xa_erase(&vm->pages, index);
		if (shared)
			pinfold_count(PINFOLD_COUNT_SHARED, -1);
		/* The folio has one pin, which goes with its last page. */
		if (folio_page_idx(folio, page) < folio_nr_pages(folio) - 1)
			continue;
		if (!shared)
			folio_unisolate_exclusive(folio);
		pinfold_unpin_page(page);
	}
	account_locked_vm(vm->mm, nr, false);
	pinfold_count(PINFOLD_COUNT_DONATED, -(s64)nr);
	pinfold_count(PINFOLD_COUNT_RECLAIMS, nr);
}

/* How many frames from @gfn on are recorded without a gap: at most one call's worth. */
static u64 pinfold_run_length(struct pinfold_vm *vm, u64 gfn)
{
	u64 nr = 1;

	while (nr < PINFOLD_LIMIT_MAX_FRAMES && xa_load(&vm->pages, gfn + nr))
		nr++;
	return nr;
}

/**
 * pinfold_memory_leak - give up what is still recorded
 * @vm: a VM that nobody uses any more
 *
 * The pages stay pinned and isolated for good, so that nobody touches them.
 */
void pinfold_memory_leak(struct pinfold_vm *vm)
{
	unsigned long index, nr = 0;
	struct page *page;

	xa_for_each(&vm->pages, index, page)
		nr++;
	if (!nr)
		return;
	pr_err("EL2 did not give back %lu frames; they are lost\n", nr);
	pinfold_count(PINFOLD_COUNT_DONATED, -(s64)nr);
	pinfold_count(PINFOLD_COUNT_LEAKED, nr);
}

/**
 * pinfold_memory_reclaim - take back all memory of a VM
 * @vm: a VM that nobody uses any more, in teardown at EL2
 *
 * EL2 wipes what it gives back, a bounded piece per call.
 */
void pinfold_memory_reclaim(struct pinfold_vm *vm)
{
	unsigned long gfn = 0;

	while (xa_find(&vm->pages, &gfn, ULONG_MAX, XA_PRESENT)) {
		struct arm_smccc_1_2_regs regs = {
			.a0 = PINFOLD_CALL_MEM_RECLAIM,
			.a1 = vm->handle,
			.a2 = gfn,
			.a3 = pinfold_run_length(vm, gfn),
		};
		u64 nr = regs.a3, done;
		int status = pinfold_call(&regs);

		done = status ? min_t(u64, regs.a2, nr) : nr;
		if (status && status != PINFOLD_STATUS_AGAIN) {
			pr_err("EL2 refuses to give back guest frame %lx: %s\n", gfn,
			       pinfold_status_name(status));
			return;
		}
		if (done)
			pinfold_release_range(vm, gfn, done);
		gfn += done;
		cond_resched();
	}
}
