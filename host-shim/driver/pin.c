// SPDX-License-Identifier: GPL-2.0
/*
 * Pins and isolation, around the kernel's exclusive pins: the locks, the
 * retries, and what is said of a page that cannot be had.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/exclusive_pin.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "driver.h"

/*
 * A passing reference (a reader of the page cache) delays an isolation.  Each
 * try drains the LRU batches of all CPUs, so there are few of them, with pauses
 * of 1, 2, 4 ... ms between them: about 250 ms in all.
 */
#define PINFOLD_AGAIN_TRIES	9
/* Another pin is more likely there to stay: about 60 ms. */
#define PINFOLD_BUSY_TRIES	7

/**
 * pinfold_pause - wait, if what was refused may be had a moment later
 * @ret: how it was refused
 * @tries: how often, so far; starts at 0
 *
 * Hold no lock that others need meanwhile.
 *
 * Return: true to try again.
 */
bool pinfold_pause(int ret, unsigned int *tries)
{
	unsigned int most = 0;

	if (ret == -EAGAIN)
		most = PINFOLD_AGAIN_TRIES;
	/* -ENOMEM: see pinfold_pin_page_once() */
	else if (ret == -EBUSY || ret == -ENOMEM)
		most = PINFOLD_BUSY_TRIES;

	if (++*tries >= most || fatal_signal_pending(current))
		return false;
	if (ret == -EAGAIN)
		pinfold_count(PINFOLD_COUNT_ISOLATE_RETRIES, 1);
	fsleep(USEC_PER_MSEC << (*tries - 1));
	return true;
}

/**
 * pinfold_pin_page_once - pin the page at an address of the caller's
 * @addr: the address
 * @exclusive: FOLL_EXCLUSIVE, which pins the whole folio, or an ordinary pin
 * @page: where the page goes
 *
 * Return: 0; -EBUSY if somebody else has it pinned; -EAGAIN; -ENOMEM, also if it
 * should migrate first, and somebody refers to it.
 */
int pinfold_pin_page_once(unsigned long addr, bool exclusive, struct page **page)
{
	unsigned int flags = FOLL_WRITE | FOLL_LONGTERM;
	long ret;

	if (exclusive)
		flags |= FOLL_EXCLUSIVE;

	mmap_read_lock(current->mm);
	ret = pin_user_pages(addr & PAGE_MASK, 1, flags, page);
	mmap_read_unlock(current->mm);
	if (ret == 1)
		return 0;
	return ret ? ret : -EFAULT;
}

/**
 * pinfold_pin_page - pinfold_pin_page_once() with patience
 * @addr: the address
 * @exclusive: FOLL_EXCLUSIVE, which pins the whole folio, or an ordinary pin
 * @page: where the page goes
 */
int pinfold_pin_page(unsigned long addr, bool exclusive, struct page **page)
{
	unsigned int tries = 0;
	int ret;

	do {
		ret = pinfold_pin_page_once(addr, exclusive, page);
	} while (ret && pinfold_pause(ret, &tries));
	return ret == -EAGAIN ? -EBUSY : ret;
}

/**
 * pinfold_isolate_once - take exclusively pinned folios out of the kernel's hands
 * @mm: where they were pinned
 * @folios: the folios; all are isolated, or none
 * @nr: how many
 *
 * Return: 0; -EAGAIN if somebody else has a reference; -EOPNOTSUPP if this
 * kind of memory cannot be isolated, or a large folio not as it is mapped.
 */
int pinfold_isolate_once(struct mm_struct *mm, struct folio **folios, unsigned int nr)
{
	int ret;

	mmap_read_lock(mm);
	ret = folios_isolate_exclusive(mm, folios, nr);
	mmap_read_unlock(mm);
	return ret;
}

/**
 * pinfold_isolate - pinfold_isolate_once() for one folio, with patience
 * @mm: where it was pinned
 * @folio: the folio
 *
 * Return: 0; -EBUSY if somebody else keeps a reference; -EOPNOTSUPP.
 */
int pinfold_isolate(struct mm_struct *mm, struct folio *folio)
{
	unsigned int tries = 0;
	int ret;

	do {
		ret = pinfold_isolate_once(mm, &folio, 1);
	} while (ret == -EAGAIN && pinfold_pause(ret, &tries));
	return ret == -EAGAIN ? -EBUSY : ret;
}

/**
 * pinfold_split - make single pages of an exclusively pinned large folio
 * @mm: where it was pinned
 * @page: a page of the folio
 *
 * If the folio is isolated, so are all its pages, each with a pin.  If not,
 * only @page stays pinned.
 *
 * Return: 0, also if it is a single page; -EAGAIN if somebody else has a
 * reference; -EBUSY if nobody has the folio mapped or in a file any more; -ENOMEM.
 */
int pinfold_split(struct mm_struct *mm, struct page *page)
{
	int ret;

	mmap_read_lock(mm);
	ret = page_split_exclusive(mm, page);
	mmap_read_unlock(mm);
	return ret;
}

/**
 * pinfold_unpin_page - drop the pin of a page that is not isolated
 * @page: the page
 */
void pinfold_unpin_page(struct page *page)
{
	unpin_user_pages_dirty_lock(&page, 1, true);
}

/**
 * pinfold_tell_refused - say in the log why a page cannot be given to a guest
 * @addr: where the caller has it
 * @ret: -EBUSY or -EOPNOTSUPP
 *
 * Return: @ret; -EIO for memory of a kind that cannot be had at all.
 */
int pinfold_tell_refused(unsigned long addr, int ret)
{
	struct folio *folio;
	struct page *page;

	if (get_user_pages_fast(addr & PAGE_MASK, 1, 0, &page) != 1)
		return ret;
	folio = page_folio(page);
	if (ret == -EBUSY) {
		pr_warn_ratelimited("the page at %lx (frame %lx) cannot be given to a guest: somebody else uses it; pin word %x, reference count %d, mapped %d times\n",
				    addr, page_to_pfn(page), folio_pin_word(folio),
				    folio_ref_count(folio) - 1, folio_mapcount(folio));
	} else {
		if (folio_test_hugetlb(folio) || !folio_test_swapbacked(folio))
			ret = -EIO;
		pr_warn_ratelimited("the page at %lx (frame %lx) cannot be given to a guest: %s\n",
				    addr, page_to_pfn(page),
				    folio_test_hugetlb(folio) ? "it is hugetlb memory" :
				    ret == -EIO ? "it is neither anonymous nor shmem" :
				    "this kernel cannot isolate it");
	}
	put_page(page);
	return ret;
}
