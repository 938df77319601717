// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a guest's page, as the host sees it:
 *
 *	nothing -> pinned exclusively -> isolated -> recorded -> donated
 *	shared with the host and back, as the guest decides: while it is, the
 *		page is in the kernel's hands, under an ordinary pin
 *	donated -> given back by the guest, alone -> unpinned
 *	donated or shared -> reclaimed -> back in the kernel's hands -> unpinned
 *
 * A large folio goes this way as one, under one pin, until the guest shares a
 * part of it: then it is split, and each page goes on alone.
 *
 * A page is in vm->pages exactly while EL2 may hold it.  What EL2 does not
 * give back is never unpinned: it stays isolated, and is lost.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/exclusive_pin.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "driver.h"

/* The guest shares this page with the host. */
#define PINFOLD_PAGE_SHARED	XA_MARK_1
/* The guest gave this page back, and its folio is not split yet. */
#define PINFOLD_PAGE_RELINQUISHED	XA_MARK_2

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

/*
 * Give an isolated and recorded folio to EL2, which takes a large one in steps.
 * From the first step on it is EL2's, and what the VM's end gives back: if EL2
 * refuses a later one, because somebody tears the VM down, that is no failure.
 */
static int pinfold_donate_recorded(struct pinfold_vm *vm, u64 gfn, struct folio *folio)
{
	struct arm_smccc_1_2_regs regs;
	bool taken = false;
	int status;

	for (;;) {
		regs = (struct arm_smccc_1_2_regs){
			.a0 = PINFOLD_CALL_MEM_DONATE,
			.a1 = vm->handle,
			.a2 = gfn,
			.a3 = folio_pfn(folio),
			.a4 = 1,
			.a5 = folio_order(folio),
		};
		status = pinfold_call_pooled(&regs);
		if (status != PINFOLD_STATUS_AGAIN)
			break;
		taken = true;
	}

	if (!status || taken) {
		pinfold_count(PINFOLD_COUNT_DONATIONS, folio_nr_pages(folio));
		pinfold_count(PINFOLD_COUNT_DONATED, folio_nr_pages(folio));
		return 0;
	}
	pr_err_ratelimited("EL2 refuses frame %lx for guest frame %llx: %s (folio %lx, pin word %lx)\n",
			   folio_pfn(folio), gfn, pinfold_status_name(status), regs.a3, regs.a4);
	return pinfold_errno(status);
}

/* Isolate, record and donate a folio that is pinned exclusively. */
static int pinfold_donate_folio(struct pinfold_vm *vm, u64 gfn, struct folio *folio)
{
	int ret;

	ret = pinfold_isolate_once(vm->mm, &folio, 1);
	if (ret)
		return ret;
	ret = pinfold_record(vm, gfn, folio);
	if (ret)
		goto out_unisolate;
	ret = pinfold_donate_recorded(vm, gfn, folio);
	if (ret)
		goto out_unrecord;
	return 0;

out_unrecord:
	pinfold_unrecord(vm, gfn, folio);
out_unisolate:
	folio_unisolate_exclusive(folio);
	return ret;
}

/* Has the guest nothing in these frames, all of them in the slot and alike aligned? */
static bool pinfold_has_room(struct pinfold_vm *vm, const struct pinfold_slot *slot, u64 gfn,
			     unsigned int order)
{
	u64 end = gfn + BIT(order);
	unsigned long index = gfn;

	return order <= PINFOLD_LIMIT_MAX_ORDER && IS_ALIGNED(gfn, BIT(order)) &&
	       gfn >= slot->gfn && end > gfn && end <= slot->gfn + slot->nr &&
	       !xa_find(&vm->pages, &index, end - 1, XA_PRESENT);
}

/*
 * Does the caller find the whole folio at @addr?  It may have mapped something
 * else over a part of it, or have moved or dropped a part.
 */
static bool pinfold_is_at(struct folio *folio, unsigned long addr)
{
	long i, j, got, nr = folio_nr_pages(folio);
	bool same = true;

	for (i = 0; same && i < nr; i += got) {
		struct page *pages[32];

		got = get_user_pages_fast(addr + i * PAGE_SIZE, min_t(long, nr - i, 32), FOLL_WRITE,
					  pages);
		same = got > 0;
		for (j = 0; j < got; j++) {
			same &= pages[j] == folio_page(folio, i + j);
			put_page(pages[j]);
		}
	}
	return same;
}

/*
 * Donate the large folio of a page, of which one frame is accounted for.
 * Return: -EOPNOTSUPP if it cannot be donated whole.
 */
static int pinfold_donate_large(struct pinfold_vm *vm, const struct pinfold_slot *slot, u64 gfn,
				struct page *page)
{
	struct folio *folio = page_folio(page);
	long idx = folio_page_idx(folio, page), nr = folio_nr_pages(folio);
	u64 first = gfn - idx;
	int ret;

	if (idx > gfn || !pinfold_has_room(vm, slot, first, folio_order(folio)) ||
	    !pinfold_is_at(folio, slot->addr + ((first - slot->gfn) << PAGE_SHIFT)))
		return -EOPNOTSUPP;
	/* RLIMIT_MEMLOCK may still do for a page. */
	if (account_locked_vm(vm->mm, nr - 1, true))
		return -EOPNOTSUPP;
	ret = pinfold_donate_folio(vm, first, folio);
	if (ret)
		account_locked_vm(vm->mm, nr - 1, false);
	return ret;
}

/* Donate the folio of a page that is pinned exclusively, or else the page alone. */
static int pinfold_donate_pinned(struct pinfold_vm *vm, const struct pinfold_slot *slot, u64 gfn,
				 struct page *page)
{
	int ret;

	if (folio_test_large(page_folio(page))) {
		ret = pinfold_donate_large(vm, slot, gfn, page);
		if (ret != -EOPNOTSUPP)
			return ret;
		ret = pinfold_split(vm->mm, page);
		if (ret)
			return ret;
	}
	return pinfold_donate_folio(vm, gfn, page_folio(page));
}

/* Try once to give the guest a page; nothing changes if that fails. */
static int pinfold_donate(struct pinfold_vm *vm, u64 gfn, unsigned long addr,
			  const struct pinfold_slot *slot)
{
	struct page *page;
	int ret;

	lockdep_assert_held(&vm->memory_lock);

	ret = account_locked_vm(vm->mm, 1, true);
	if (ret)
		return ret;
	ret = pinfold_pin_page_once(addr, true, &page);
	if (ret)
		goto out_unaccount;
	ret = pinfold_donate_pinned(vm, slot, gfn, page);
	if (ret)
		goto out_unpin;
	return 0;

out_unpin:
	unpin_user_page(page);
out_unaccount:
	account_locked_vm(vm->mm, 1, false);
	return ret;
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

/* Let go of a page that EL2 has given back alone: the rest of its folio stays. */
static int pinfold_release_page(struct pinfold_vm *vm, u64 gfn)
{
	struct page *page = xa_load(&vm->pages, gfn);
	int ret = pinfold_split(vm->mm, page);

	if (!ret)
		pinfold_release_range(vm, gfn, 1);
	return ret;
}

/**
 * pinfold_memory_relinquished - the guest has given pages back
 * @vm: the VM; its mm is the caller's
 * @gfn: the first
 * @nr: how many
 *
 * EL2 has wiped them and mapped them for the host.  A page whose folio cannot be
 * split now stays pinned and isolated until the guest touches it again, or goes.
 */
void pinfold_memory_relinquished(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	u64 end = gfn + nr;

	for (; gfn < end; gfn++) {
		unsigned int tries = 0;
		int ret;

		do {
			mutex_lock(&vm->memory_lock);
			ret = 0;
			if (xa_load(&vm->pages, gfn)) {
				xa_set_mark(&vm->pages, gfn, PINFOLD_PAGE_RELINQUISHED);
				ret = pinfold_release_page(vm, gfn);
			}
			mutex_unlock(&vm->memory_lock);
		} while (ret && pinfold_pause(ret, &tries));
		if (ret)
			pr_warn_ratelimited("guest frame %llx came back, and its folio cannot be split: %d\n",
					    gfn, ret);
	}
}

/* Give the guest what it touched, unless another vCPU was faster. */
static int pinfold_serve_fault(struct pinfold_vm *vm, u64 gfn, unsigned long addr,
			       const struct pinfold_slot *slot)
{
	if (xa_get_mark(&vm->pages, gfn, PINFOLD_PAGE_RELINQUISHED)) {
		int ret = pinfold_release_page(vm, gfn);

		if (ret)
			return ret;
	}
	return xa_load(&vm->pages, gfn) ? 0 : pinfold_donate(vm, gfn, addr, slot);
}

/**
 * pinfold_memory_fault - give the guest the page that it touched
 * @vm: the VM; its mm is the caller's
 * @gfn: the guest frame
 *
 * A large folio goes whole if the guest can have it at the place where the VMM
 * has it; otherwise it is split.
 *
 * Return: 0, also if another vCPU was faster; -EFAULT outside of the slots or
 * where nothing is mapped that can be pinned for long, -EBUSY if somebody else
 * holds the page, -ENOMEM also for RLIMIT_MEMLOCK, -EIO for memory that is
 * neither anonymous nor shmem, -EOPNOTSUPP for memory that has come after boot,
 * whose pins are not counted, -EINTR for a deadly signal while waiting.
 */
int pinfold_memory_fault(struct pinfold_vm *vm, u64 gfn)
{
	const struct pinfold_slot *slot = pinfold_slot_find(vm, gfn);
	unsigned int tries = 0;
	unsigned long addr;
	int ret;

	if (!slot)
		return -EFAULT;
	addr = slot->addr + ((gfn - slot->gfn) << PAGE_SHIFT);

	do {
		mutex_lock(&vm->memory_lock);
		ret = pinfold_serve_fault(vm, gfn, addr, slot);
		mutex_unlock(&vm->memory_lock);
	} while (ret && pinfold_pause(ret, &tries));

	if (ret && fatal_signal_pending(current))
		return -EINTR;
	if (ret == -EAGAIN)
		ret = -EBUSY;
	if (ret == -EBUSY)
		pinfold_count(PINFOLD_COUNT_PIN_BUSY, 1);
	if (ret == -EBUSY || ret == -EOPNOTSUPP)
		ret = pinfold_tell_refused(addr, ret);
	return ret;
}

/* Split every large folio that these frames are part of. */
static int pinfold_split_range(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	unsigned long index;
	struct page *page;
	int ret;

	xa_for_each_range(&vm->pages, index, page, gfn, gfn + nr - 1) {
		/* A shared page was split off before, and is not exclusive any more. */
		if (xa_get_mark(&vm->pages, index, PINFOLD_PAGE_SHARED))
			continue;
		ret = pinfold_split(vm->mm, page);
		if (ret)
			return ret;
	}
	return 0;
}

static void pinfold_make_ordinary(struct folio *folio)
{
	folio_unisolate_exclusive(folio);
	folio_pin_make_ordinary(folio);
}

static void pinfold_share_range(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	unsigned long index;
	struct page *page;

	xa_for_each_range(&vm->pages, index, page, gfn, gfn + nr - 1) {
		if (xa_get_mark(&vm->pages, index, PINFOLD_PAGE_SHARED))
			continue;
		xa_set_mark(&vm->pages, index, PINFOLD_PAGE_SHARED);
		pinfold_make_ordinary(page_folio(page));
		pinfold_count(PINFOLD_COUNT_SHARED, 1);
	}
}

/**
 * pinfold_memory_shared - the guest has shared pages with the host
 * @vm: the VM
 * @gfn: the first
 * @nr: how many
 *
 * EL2 has mapped them already.  They become ordinary memory of the VMM's
 * again, but stay pinned.  Of a large folio only these pages do, so it is split.
 *
 * Return: false if that cannot be done; then the pages stay isolated, EL2 takes
 * them back, and the guest learns that it has not shared them.
 */
bool pinfold_memory_shared(struct pinfold_vm *vm, u64 gfn, u64 nr)
{
	unsigned int tries = 0;
	int ret;

	do {
		mutex_lock(&vm->memory_lock);
		ret = pinfold_split_range(vm, gfn, nr);
		if (!ret)
			pinfold_share_range(vm, gfn, nr);
		mutex_unlock(&vm->memory_lock);
	} while (ret && pinfold_pause(ret, &tries));
	if (ret)
		pr_warn_ratelimited("guest frame %llx cannot be shared: its folio cannot be split: %d\n",
				    gfn, ret);
	return !ret;
}

/* Those of these frames that are shared: their folios. Return: how many, or -ENOENT. */
static long pinfold_shared_folios(struct pinfold_vm *vm, u64 gfn, u64 nr, struct folio **folios)
{
	long found = 0;
	u64 i;

	for (i = gfn; i < gfn + nr; i++) {
		struct page *page = xa_load(&vm->pages, i);

		if (!page)
			return -ENOENT;
		if (xa_get_mark(&vm->pages, i, PINFOLD_PAGE_SHARED))
			folios[found++] = page_folio(page);
	}
	return found;
}

/* Make all these folios exclusive and isolated again, or none. */
static int pinfold_take_folios(struct mm_struct *mm, struct folio **folios, long nr)
{
	long done;
	int ret = 0;

	for (done = 0; done < nr; done++) {
		ret = folio_pin_make_exclusive(folios[done]);
		if (ret)
			break;
	}
	if (!ret && nr)
		ret = pinfold_isolate_once(mm, folios, nr);
	while (ret && done--)
		folio_pin_make_ordinary(folios[done]);
	return ret;
}

static int pinfold_unshare_range(struct pinfold_vm *vm, u64 gfn, u64 nr, struct folio **folios)
{
	long found = pinfold_shared_folios(vm, gfn, nr, folios);
	u64 i;
	int ret;

	if (found < 0)
		return found;
	ret = pinfold_take_folios(vm->mm, folios, found);
	if (ret)
		return ret;
	for (i = gfn; i < gfn + nr; i++)
		xa_clear_mark(&vm->pages, i, PINFOLD_PAGE_SHARED);
	pinfold_count(PINFOLD_COUNT_SHARED, -found);
	return 0;
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
	unsigned int tries = 0;
	struct folio **folios;
	int ret;

	if (nr > PINFOLD_LIMIT_MAX_FRAMES)
		return false;
	folios = kmalloc_array(nr, sizeof(*folios), GFP_KERNEL);
	if (!folios)
		return false;
	do {
		mutex_lock(&vm->memory_lock);
		ret = pinfold_unshare_range(vm, gfn, nr, folios);
		mutex_unlock(&vm->memory_lock);
	} while (ret && pinfold_pause(ret, &tries));
	kfree(folios);
	return !ret;
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
