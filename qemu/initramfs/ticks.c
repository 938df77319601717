/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A first process that prints the virtual counter and powers off. Under
 * `-icount shift=0 -cpu max` one tick is one instruction, so the number is
 * what the boot cost up to here. Built without a C library.
 */

#define SYS_WRITE 64
#define SYS_REBOOT 142
#define REBOOT_MAGIC1 0xfee1dead
#define REBOOT_MAGIC2 672274793
#define REBOOT_POWER_OFF 0x4321fedc

static long syscall4(long number, long a, long b, long c, long d)
{
	register long x8 asm("x8") = number;
	register long x0 asm("x0") = a;
	register long x1 asm("x1") = b;
	register long x2 asm("x2") = c;
	register long x3 asm("x3") = d;

	asm volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}

void _start(void)
{
	char text[32] = "\nticks                       \n";
	unsigned long ticks;
	int place = 28;

	asm volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks));
	for (; ticks; ticks /= 10)
		text[place--] = '0' + ticks % 10;
	syscall4(SYS_WRITE, 1, (long)text, 30, 0);
	syscall4(SYS_REBOOT, REBOOT_MAGIC1, REBOOT_MAGIC2, REBOOT_POWER_OFF, 0);
	for (;;)
		;
}
