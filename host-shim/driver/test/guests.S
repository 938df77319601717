/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Guests of a few instructions.  Each begins at the first byte of its memory;
 * x1 is the address of a device, x2 of a page of RAM.
 */
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
	ldr	x0, =0xc6000003	// MEM_SHARE
	mov	x1, x20
	mov	x2, #0
	mov	x3, #0
	hvc	#0
	str	x0, [x19]
	ldr	x3, [x20]	// what the host wrote meanwhile
	str	x3, [x19]
	ldr	x0, =0xc6000004	// MEM_UNSHARE
	mov	x1, x20
	mov	x2, #0
	mov	x3, #0
	hvc	#0
	str	x0, [x19]
	ldr	x3, [x20]
	str	x3, [x19]
	b	.
	.ltorg
	.globl	guest_share_end
guest_share_end:

	.section .note.GNU-stack, "", %progbits
