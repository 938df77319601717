/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests of a few instructions.  Each begins at the first byte of its memory;
 * x1 is the address of a device, x2 of a page of RAM.
 */
	.equ	MEM_SHARE, 0xc6000003
	.equ	MEM_UNSHARE, 0xc6000004

	/* MEM_SHARE or MEM_UNSHARE of the page at x20; the answer is in x0. */
	.macro	mem_call function
	ldr	x0, =\function
	mov	x1, x20
	mov	x2, #0
	mov	x3, #0
	hvc	#0
	.endm

	/* The same; the device at x19 gets the answer, and what is in the page. */
	.macro	mem_call_and_say function
	mem_call \function
	str	x0, [x19]
	ldr	x3, [x20]
	str	x3, [x19]
	.endm

	.section .rodata
	.balign 8
	.globl	guest_mmio
guest_mmio:	// reads 4 bytes, writes them back plus 1
	ldr	w0, [x1]
	add	w0, w0, #1
	str	w0, [x1, #8]
	ldrsb	x0, [x1]	// one byte, sign-extended
	str	x0, [x2]	// through RAM
	ldr	x3, [x2]
	str	x3, [x1, #16]
	ldr	x0, =0x84000008	// PSCI SYSTEM_OFF
	hvc	#0
	b	.
	.ltorg
	.globl	guest_mmio_end
guest_mmio_end:
	.balign 8
	.globl	guest_wfi
guest_wfi:
	wfi
	b	guest_wfi
	.globl	guest_wfi_end
guest_wfi_end:
	.balign 8
	.globl	guest_spin
guest_spin:
	b	guest_spin
	.globl	guest_spin_end
guest_spin_end:
	.balign 8
	.globl	guest_doorbell
guest_doorbell:
	mov	w0, #7
	str	w0, [x1]	// matched: stays in the kernel
	mov	w0, #8
	str	w0, [x1]	// not matched: exits
	ldr	x0, =0x84000009	// PSCI SYSTEM_RESET
	hvc	#0
	b	.
	.ltorg
	.globl	guest_doorbell_end
guest_doorbell_end:
	.balign 8
	.globl	guest_share
guest_share:
	mov	x19, x1
	mov	x20, x2
	mov	x0, #0x5a
	str	x0, [x20]
	mem_call_and_say MEM_SHARE	// the host writes in between
	mem_call_and_say MEM_UNSHARE
	b	.
	.ltorg
	.globl	guest_share_end
guest_share_end:

	/*
	 * Shares the page at x2, takes it back, and says each time how that
	 * went and what is in the page; first it asks.
	 */
	.balign 8
	.globl	guest_large
guest_large:
	mov	x19, x1
	mov	x20, x2
	ldr	w0, [x19]	// here the guest has its first page
	ldr	x3, [x20]
	str	x3, [x19]	// what the VMM left for it
1:	mov	x0, #0x5a
	str	x0, [x20]
	mem_call_and_say MEM_SHARE
	mem_call_and_say MEM_UNSHARE
	b	1b
	.ltorg
	.globl	guest_large_end
guest_large_end:

	/*
	 * Waits for interrupts, and says which.  x2 is the distributor, x3 the
	 * redistributor.  SPI 33 is edge-triggered, 34 level-sensitive; x4 is 0
	 * to wait by WFI, 1 to spin.
	 */
	.balign 8
	.globl	guest_irq
guest_irq:
	mov	w0, #1
	msr	s3_0_c12_c12_5, x0	// ICC_SRE_EL1
	isb
	mov	w0, #0xff
	msr	s3_0_c4_c6_0, x0	// ICC_PMR_EL1
	mov	w0, #1
	msr	s3_0_c12_c12_7, x0	// ICC_IGRPEN1_EL1
	mov	w0, #0x12		// GICD_CTLR: ARE, group 1
	str	w0, [x2]
	mov	w0, #-1
	str	w0, [x2, #0x84]		// GICD_IGROUPR1
	mov	w0, #0x8		// GICD_ICFGR2: 33 is edge-triggered
	str	w0, [x2, #0xc08]
	mov	w0, #0x6		// GICD_ISENABLER1: 33 and 34
	str	w0, [x2, #0x104]
	isb
	str	wzr, [x1]		// ready
1:	cbnz	x4, 2f
	wfi
2:	mrs	x0, s3_0_c12_c12_0	// ICC_IAR1_EL1
	cmp	w0, #1020
	b.hs	1b
	str	w0, [x1]
	msr	s3_0_c12_c12_1, x0	// ICC_EOIR1_EL1
	isb
	b	1b
	.globl	guest_irq_end
guest_irq_end:

	/*
	 * Two vCPUs touch the same x3 pages from x2 on, then each says what it
	 * counted.  The first one starts the second.
	 */
	.balign 8
	.globl	guest_race
guest_race:
	mov	x21, x1
	mov	x22, x2
	mov	x23, x3
	ldr	x0, =0xc4000003		// PSCI CPU_ON
	mov	x1, #1
	adr	x2, 1f
	adr	x3, 3f
	stp	x21, x22, [x3]
	str	x23, [x3, #16]
	hvc	#0
	cbnz	w0, 2f
	adr	x0, 3f
1:	ldp	x21, x22, [x0]
	ldr	x23, [x0, #16]
	mov	x24, #0
4:	mov	x1, #1
	ldr	x5, [x22]
	str	x1, [x22]
	add	x22, x22, #4096
	add	x24, x24, #1
	subs	x23, x23, #1
	b.ne	4b
	mov	x0, x24
2:	str	w0, [x21]
	b	.
	.balign 8
3:	.quad	0, 0, 0
	.ltorg
	.globl	guest_race_end
guest_race_end:

	/*
	 * Looks after memory: x1 is the address of a device, x2 and x3 are the
	 * memory and its length.  Each word gets its address, in disguise.  Then
	 * the guest reads what to do from the device, and writes there what came
	 * of it.
	 */
	.balign 8
	.globl	guest_keeper
guest_keeper:
	mov	x19, x1
	mov	x20, x2
	add	x21, x2, x3
	ldr	x22, =0x9e3779b97f4a7c15
	mov	x4, x20
1:	eor	x5, x4, x22
	str	x5, [x4], #8
	cmp	x4, x21
	b.lo	1b
	mov	x0, #0
2:	str	x0, [x19]
	ldr	w6, [x19, #8]
	mov	x0, #0
	cbnz	w6, 5f
	mov	x4, x20			// 0: how many words are wrong?
3:	eor	x5, x4, x22
	ldr	x7, [x4], #8
	cmp	x5, x7
	cinc	x0, x0, ne
	cmp	x4, x21
	b.lo	3b
	b	2b
5:	cmp	w6, #1
	b.ne	6f
	mem_call MEM_SHARE		// 1: of the first page
	b	2b
6:	mem_call MEM_UNSHARE		// 2: likewise
	b	2b
	.ltorg
	.globl	guest_keeper_end
guest_keeper_end:

	.section .note.GNU-stack, "", %progbits
