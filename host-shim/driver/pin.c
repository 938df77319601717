// SPDX-License-Identifier: GPL-2.0
/*
 * Pins and isolation, around the kernel's exclusive pins: the retries and the
 * locks.
 */
#include <linux/delay.h>
#include <linux/exclusive_pin.h>
#include <linux/mm.h>

#include "driver.h"

/*
 * A passing reference (an LRU batch, a reader of the page cache) delays an
 * isolation.  Twenty tries with a growing pause are about 200 ms.
 */
#define PINFOLD_ISOLATE_TRIES	20

/**
 * pinfold_pin_page - pin the page at an address of the caller's
 * @addr: the address
 * @exclusive: FOLL_EXCLUSIVE, or an ordinary pin
 * @page: where the page goes
 *
 * Return: 0; -EBUSY if somebody else has it pinned.
 */
int pinfold_pin_page(unsigned long addr, bool exclusive, struct page **page)
{
	unsigned int flags = FOLL_WRITE | FOLL_LONGTERM;
	int tries;
	long ret;

	if (exclusive)
		flags |= FOLL_EXCLUSIVE;

	for (tries = 0; tries < PINFOLD_ISOLATE_TRIES; tries++) {
		mmap_read_lock(current->mm);
		ret = pin_user_pages(addr & PAGE_MASK, 1, flags, page);
		mmap_read_unlock(current->mm);
		if (ret != -EAGAIN)
			break;
		fsleep(tries * 1000);
	}
	if (ret == 1)
		return 0;
	return ret ? ret : -EFAULT;
}

/**
 * pinfold_isolate - take an exclusively pinned page out of the kernel's hands
 * @mm: where it was pinned
 * @page: the page; its whole folio is isolated
 *
 * Return: 0; -EBUSY if somebody else keeps a reference; -EOPNOTSUPP if this
 * kind of memory cannot be isolated.
 */
int pinfold_isolate(struct mm_struct *mm, struct page *page)
{
	struct folio *folio = page_folio(page);
	int tries, ret;

	for (tries = 0; tries < PINFOLD_ISOLATE_TRIES; tries++) {
		mmap_read_lock(mm);
		ret = folio_isolate_exclusive(folio);
		mmap_read_unlock(mm);
		if (ret != -EAGAIN)
			return ret;
		pinfold_count(PINFOLD_COUNT_ISOLATE_RETRIES, 1);
		fsleep(tries * 1000);
	}
	return -EBUSY;
}

/**
 * pinfold_make_exclusive - make an ordinary pin exclusive, and isolate
 * @mm: where the page was pinned
 * @page: the page
 */
int pinfold_make_exclusive(struct mm_struct *mm, struct page *page)
{
	struct folio *folio = page_folio(page);
	int ret;

	ret = folio_pin_make_exclusive(folio);
	if (ret)
		return ret;
	ret = pinfold_isolate(mm, page);
	if (ret)
		folio_pin_make_ordinary(folio);
	return ret;
}

/**
 * pinfold_make_ordinary - give an isolated page back to the kernel, still pinned
 * @page: the page
 */
void pinfold_make_ordinary(struct page *page)
{
	struct folio *folio = page_folio(page);

	folio_unisolate_exclusive(folio);
	folio_pin_make_ordinary(folio);
}

/**
 * pinfold_unpin_page - drop the pin of a page that is not isolated
 * @page: the page
 */
void pinfold_unpin_page(struct page *page)
{
	unpin_user_pages_dirty_lock(&page, 1, true);
}
