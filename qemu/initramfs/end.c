/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A first process that powers off at once, where only the boot before it
 * matters. Built without a C library, at an address below 16 MiB, by which
 * qemu/plugin knows it.
 */

#define SYS_REBOOT 142
#define REBOOT_MAGIC1 0xfee1dead
#define REBOOT_MAGIC2 672274793
#define REBOOT_POWER_OFF 0x4321fedc

void _start(void)
{
	register long x8 asm("x8") = SYS_REBOOT;
	register long x0 asm("x0") = REBOOT_MAGIC1;
	register long x1 asm("x1") = REBOOT_MAGIC2;
	register long x2 asm("x2") = REBOOT_POWER_OFF;

	asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	for (;;)
		;
}
