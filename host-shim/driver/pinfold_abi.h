/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * The calls between the host and Pinfold at EL2.
 *
 * Made from hyp/abi/src/table.rs; edit that and run
 * PINFOLD_BLESS=1 cargo test -p pinfold-abi
 *
 * x0 = function, x1... = arguments. Back come x0 = PINFOLD_SMCCC_SUCCESS,
 * x1 = status, x2... = results; on a refusal x2 = index of the failing frame,
 * x3 = the folio word found there, x4 = the pin word.
 */
#ifndef PINFOLD_ABI_H
#define PINFOLD_ABI_H

#include <linux/errno.h>
#include <linux/types.h>

#define PINFOLD_SMCCC_SUCCESS		0
#define PINFOLD_SMCCC_NOT_SUPPORTED	(-1)
#define PINFOLD_VERSION_1_0		0x00010000
#define PINFOLD_UUID_FUNCTION		0x8600ff01
#define PINFOLD_UUID_WORD0		0x3c8f1f5d
#define PINFOLD_UUID_WORD1		0x0e4c0b6c
#define PINFOLD_UUID_WORD2		0x4950579a
#define PINFOLD_UUID_WORD3		0x4c4f464e
#define PINFOLD_FEATURE_DEBUG_CALLS	0x1
#define PINFOLD_VM_PROTECTED		0x1
#define PINFOLD_ACCESS_READ		0x1
#define PINFOLD_ACCESS_WRITE		0x2
#define PINFOLD_ACCESS_EXECUTE		0x4
#define PINFOLD_VCPU_POWERED_OFF	0x1
#define PINFOLD_REGISTER_PC		32

/* Functions: arguments from x1, results from x2. */

/* () -> version */
#define PINFOLD_CALL_VERSION		0xc6000100

/* () -> features, max_vms, max_vcpus, max_frames, el2_memory */
#define PINFOLD_CALL_FEATURES		0xc6000101

/* (table, first, frames) -> done */
#define PINFOLD_CALL_PIN_TABLE_REGISTER	0xc6000110

/* (first, count) -> taken */
#define PINFOLD_CALL_POOL_DONATE	0xc6000120

/* () -> frame */
#define PINFOLD_CALL_POOL_RECLAIM	0xc6000121

/* () -> free, donated */
#define PINFOLD_CALL_POOL_STATUS	0xc6000122

/* (flags, vcpus) -> handle */
#define PINFOLD_CALL_VM_CREATE		0xc6000130

/* (vm, first, count) */
#define PINFOLD_CALL_VM_MEMORY_REGION	0xc6000131

/* (vm, distributor, redistributors) */
#define PINFOLD_CALL_VM_GIC		0xc6000132

/* (vm) */
#define PINFOLD_CALL_VM_START		0xc6000133

/* (vm) */
#define PINFOLD_CALL_VM_TEARDOWN_BEGIN	0xc6000134

/* (vm) */
#define PINFOLD_CALL_VM_TEARDOWN_FINISH	0xc6000135

/* (vm, vcpu, flags) */
#define PINFOLD_CALL_VCPU_CREATE	0xc6000138

/* (vm, vcpu, register, value) */
#define PINFOLD_CALL_VCPU_SET_REGISTER	0xc6000139

/* (vm, vcpu, answer) -> reason, detail0, detail1, detail2 */
#define PINFOLD_CALL_VCPU_RUN		0xc600013a

/* (vm, gfn, pfn, count, order) -> done */
#define PINFOLD_CALL_MEM_DONATE		0xc6000140

/* (vm, gfn, count) -> done */
#define PINFOLD_CALL_MEM_RECLAIM	0xc6000141

/* (vm, gfn, pfn, count, order, access) -> done */
#define PINFOLD_CALL_MEM_SHARE_GUEST	0xc6000142

/* (vm, gfn, count) -> done */
#define PINFOLD_CALL_MEM_UNSHARE_GUEST	0xc6000143

/* (vm, gfn, count, access) -> done */
#define PINFOLD_CALL_MEM_PROTECT_GUEST	0xc6000144

/* (pfn) */
#define PINFOLD_CALL_MEM_POISON		0xc6000145

/* (vm, intid, level) -> vcpu */
#define PINFOLD_CALL_IRQ_LINE		0xc6000150

/* (pfn) -> word, state, order, vm, gfn, pin */
#define PINFOLD_CALL_FOLIO_QUERY	0xc6000160

/* () -> host, hyp, host_shared_hyp, guest, guest_shared_host, other */
#define PINFOLD_CALL_FOLIO_CENSUS	0xc6000161

/* (first, count) -> digest */
#define PINFOLD_CALL_FOLIO_DIGEST	0xc6000162

/* (counter) -> value */
#define PINFOLD_CALL_COUNTER		0xc6000163

/* (first) -> frames, state, order, vm, gfn */
#define PINFOLD_CALL_FOLIO_RANGE	0xc6000164

/* (cpu) -> oldest, next */
#define PINFOLD_CALL_TRACE_STATUS	0xc6000165

/* (cpu, entry, part) -> word0, word1, word2, word3, word4, word5 */
#define PINFOLD_CALL_TRACE_READ		0xc6000166

/* Statuses (x1). */
#define PINFOLD_STATUS_OK		0
#define PINFOLD_STATUS_NOT_PERMITTED	1
#define PINFOLD_STATUS_BUSY		2
#define PINFOLD_STATUS_NO_MEMORY	3
#define PINFOLD_STATUS_GRANULE		4
#define PINFOLD_STATUS_NOT_MAPPED	5
#define PINFOLD_STATUS_POISONED		6
#define PINFOLD_STATUS_AGAIN		7
#define PINFOLD_STATUS_INVALID		8
#define PINFOLD_STATUS_NOT_EXCLUSIVELY_PINNED	9
#define PINFOLD_STATUS_NO_PIN_TABLE	10
#define PINFOLD_STATUS_NO_SUCH_VM	11
#define PINFOLD_STATUS_NO_SUCH_VCPU	12
#define PINFOLD_STATUS_WRONG_PHASE	13
#define PINFOLD_STATUS_EXISTS		14
#define PINFOLD_STATUS_LIMIT		15
#define PINFOLD_STATUS_NOT_RAM		16
#define PINFOLD_STATUS_WRONG_KIND	17

/* Exit reasons (x2 of VCPU_RUN). */
#define PINFOLD_EXIT_INTERRUPT		0
#define PINFOLD_EXIT_WFI		1
#define PINFOLD_EXIT_MEMORY_FAULT	2
#define PINFOLD_EXIT_MMIO_READ		3
#define PINFOLD_EXIT_MMIO_WRITE		4
#define PINFOLD_EXIT_SHARED		5
#define PINFOLD_EXIT_UNSHARE_REQUEST	6
#define PINFOLD_EXIT_CPU_ON		7
#define PINFOLD_EXIT_POWERED_OFF	8
#define PINFOLD_EXIT_SYSTEM_OFF		9
#define PINFOLD_EXIT_SYSTEM_RESET	10
#define PINFOLD_EXIT_CRASHED		11
#define PINFOLD_EXIT_KICK		12
#define PINFOLD_EXIT_RELINQUISHED	13

/* States of a folio (x3 of FOLIO_QUERY). */
#define PINFOLD_STATE_HOST		0
#define PINFOLD_STATE_HYP		1
#define PINFOLD_STATE_HOST_SHARED_HYP	2
#define PINFOLD_STATE_GUEST		3
#define PINFOLD_STATE_GUEST_SHARED_HOST	4
#define PINFOLD_STATE_WIPING		5
#define PINFOLD_STATE_POISONED		6
#define PINFOLD_STATE_NOT_RAM		7
#define PINFOLD_STATE_HOST_SHARED_GUEST	8
#define PINFOLD_STATE_ARRIVING		9

/* Counters (x1 of COUNTER). */
#define PINFOLD_COUNTER_CALLS		0
#define PINFOLD_COUNTER_REFUSALS	1
#define PINFOLD_COUNTER_FRAMES_DONATED	2
#define PINFOLD_COUNTER_FRAMES_RECLAIMED	3
#define PINFOLD_COUNTER_FRAMES_WIPED	4
#define PINFOLD_COUNTER_HOST_ABORTS	5
#define PINFOLD_COUNTER_DECOYS		6
#define PINFOLD_COUNTER_GUEST_EXITS	7
#define PINFOLD_COUNTER_UNKNOWN_CALLS	8

/* Kinds of trace entries (word 0). */
#define PINFOLD_TRACE_CALL		0
#define PINFOLD_TRACE_ANSWER		1
#define PINFOLD_TRACE_GUEST_EXIT	2
#define PINFOLD_TRACE_HOST_TRAP		3

/* Limits. */
#define PINFOLD_LIMIT_MAX_VMS		64
#define PINFOLD_LIMIT_MAX_VCPUS		8
#define PINFOLD_LIMIT_MAX_GIFT		64
#define PINFOLD_LIMIT_MAX_FRAMES	512
#define PINFOLD_LIMIT_MAX_ORDER		9
#define PINFOLD_LIMIT_MAX_REGIONS	16
#define PINFOLD_LIMIT_MAX_PIN_RANGES	8
#define PINFOLD_LIMIT_MAX_DIGEST	1024
#define PINFOLD_LIMIT_MAX_RANGE		256
#define PINFOLD_LIMIT_MAX_SHARES	256
#define PINFOLD_LIMIT_TRACE_LENGTH	64
#define PINFOLD_LIMIT_MIN_SPI		32
#define PINFOLD_LIMIT_MAX_SPI		287

/* The pin word: one u32 for each frame, at the head of a folio. */
#define PINFOLD_PIN_COUNT_MASK		0x00ffffff
#define PINFOLD_PIN_ORDER_SHIFT		24
#define PINFOLD_PIN_ORDER_MASK		0x0f000000
#define PINFOLD_PIN_EXCLUSIVE		0x40000000
#define PINFOLD_PIN_ISOLATED		0x80000000

/* What a status means to the rest of Linux: 0 or a negative errno. */
static inline int pinfold_status_errno(__u64 status)
{
	switch (status) {
	case PINFOLD_STATUS_OK:
		return 0;
	case PINFOLD_STATUS_NOT_PERMITTED:
		return -EPERM;
	case PINFOLD_STATUS_BUSY:
		return -EBUSY;
	case PINFOLD_STATUS_NO_MEMORY:
		return -ENOMEM;
	case PINFOLD_STATUS_GRANULE:
		return -E2BIG;
	case PINFOLD_STATUS_NOT_MAPPED:
		return -ENOENT;
	case PINFOLD_STATUS_POISONED:
		return -EHWPOISON;
	case PINFOLD_STATUS_AGAIN:
		return -EAGAIN;
	case PINFOLD_STATUS_INVALID:
		return -EINVAL;
	case PINFOLD_STATUS_NOT_EXCLUSIVELY_PINNED:
		return -EBUSY;
	case PINFOLD_STATUS_NO_PIN_TABLE:
		return -ENXIO;
	case PINFOLD_STATUS_NO_SUCH_VM:
		return -ENOENT;
	case PINFOLD_STATUS_NO_SUCH_VCPU:
		return -ENOENT;
	case PINFOLD_STATUS_WRONG_PHASE:
		return -EPERM;
	case PINFOLD_STATUS_EXISTS:
		return -EEXIST;
	case PINFOLD_STATUS_LIMIT:
		return -ENOSPC;
	case PINFOLD_STATUS_NOT_RAM:
		return -EFAULT;
	case PINFOLD_STATUS_WRONG_KIND:
		return -EPERM;
	default:
		return -EIO;
	}
}

#endif /* PINFOLD_ABI_H */
