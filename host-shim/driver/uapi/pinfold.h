/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * /dev/pinfold: the debug device of the Pinfold driver.
 *
 * For tests and for people who look at the hypervisor from the host: it issues
 * any hypercall as it stands, pins a page of the caller in every way there is,
 * and makes the kernel itself touch a frame.  Needs CAP_SYS_ADMIN.
 */
#ifndef _UAPI_PINFOLD_H
#define _UAPI_PINFOLD_H

#include <linux/const.h>
#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct pinfold_call - one hypercall, issued as given
 * @x: in: x0 (the function id) to x7; out: x0 (SMCCC status), x1 (Pinfold
 *     status), x2 to x7 (results)
 */
struct pinfold_call {
	__u64 x[8];
};

/* How PINFOLD_IOC_PIN holds the page. */
#define PINFOLD_KIND_NONE		0	/* a plain reference, no pin */
#define PINFOLD_KIND_ORDINARY		1	/* one FOLL_PIN */
#define PINFOLD_KIND_EXCLUSIVE		2	/* one FOLL_PIN | FOLL_EXCLUSIVE */
#define PINFOLD_KIND_ISOLATED		3	/* exclusive, and isolated */

/**
 * struct pinfold_pin - pin one page of the caller's address space
 * @addr: in: an address in the page
 * @kind: in: PINFOLD_KIND_*
 * @extra: in: how many ordinary pins to take on top (at most 1024)
 * @pfn: out: the page's frame number
 * @word: out: the folio's pin word
 * @cookie: out: the name of this pin for the other calls
 */
struct pinfold_pin {
	__u64 addr;
	__u32 kind;
	__u32 extra;
	__u64 pfn;
	__u32 word;
	__u32 cookie;
};

#define PINFOLD_TOUCH_WRITE	_BITUL(0)	/* write @value instead of reading */
#define PINFOLD_TOUCH_NOFAULT	_BITUL(1)	/* answer EFAULT if the access aborts */
#define PINFOLD_TOUCH_COOKIE	_BITUL(2)	/* @frame is a cookie, not a PFN */

/**
 * struct pinfold_touch - make the kernel read or write eight bytes of a frame
 * @frame: in: PFN, or the cookie of a pin
 * @offset: in: offset in the frame, a multiple of 8
 * @flags: in: PINFOLD_TOUCH_*
 * @value: in: what to write; out: what was read
 *
 * The access goes through the linear map.  A frame that the kernel does not
 * know as its memory (EL2's, say) is mapped for the access, and then needs
 * PINFOLD_TOUCH_NOFAULT.
 */
struct pinfold_touch {
	__u64 frame;
	__u32 offset;
	__u32 flags;
	__u64 value;
};

/**
 * struct pinfold_stats - what the driver has counted since it was loaded
 * @vms: VMs that exist now
 * @donated: frames that guests own or share now
 * @shared: of these, frames that the guest shares with the host
 * @pool: frames that EL2's pool holds now
 * @leaked: frames that EL2 did not give back and that are lost for good
 * @donations: frames donated so far
 * @reclaims: frames reclaimed so far
 * @pin_busy: donations that failed because somebody else held the page
 * @isolate_retries: isolations that had to be tried again
 * @runs: entries into guests so far
 * @kicks: interrupts sent to a CPU to make its guest exit
 * @exits: exits from guests by reason (index PINFOLD_EXIT_*)
 */
struct pinfold_stats {
	__u64 vms;
	__u64 donated;
	__u64 shared;
	__u64 pool;
	__u64 leaked;
	__u64 donations;
	__u64 reclaims;
	__u64 pin_busy;
	__u64 isolate_retries;
	__u64 runs;
	__u64 kicks;
	__u64 exits[16];
};

#define PINFOLD_IOC_MAGIC	0xB9
#define PINFOLD_IOC_CALL	_IOWR(PINFOLD_IOC_MAGIC, 0x00, struct pinfold_call)
#define PINFOLD_IOC_PIN		_IOWR(PINFOLD_IOC_MAGIC, 0x01, struct pinfold_pin)
#define PINFOLD_IOC_UNPIN	_IO(PINFOLD_IOC_MAGIC, 0x02)	/* arg: cookie */
#define PINFOLD_IOC_TOUCH	_IOWR(PINFOLD_IOC_MAGIC, 0x03, struct pinfold_touch)
#define PINFOLD_IOC_STATS	_IOR(PINFOLD_IOC_MAGIC, 0x04, struct pinfold_stats)

#endif /* _UAPI_PINFOLD_H */
