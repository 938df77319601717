// SPDX-License-Identifier: GPL-2.0
/*
 * What pinning costs: the first and only process of a machine whose time is
 * the number of instructions, one a nanosecond. mm/gup_test.c measures, this
 * asks for it and prints
 *
 *	gup-bench: <what> <memory> <batch> get <ns> put <ns> of <units>
 *
 * where units are pages, or folios where folios are what is taken, and before
 * that the memory that the kernel left to others.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include <mm/gup_test.h>

#define FOLL_WRITE	1

#define KB		1024UL
#define MB		(1024 * KB)
#define HUGE		(2 * MB)
#define SIZE		(64 * MB)
/* Rounding to microseconds is lost in the sum. */
#define REPEATS		8

enum memory { ANON, MEMFD, THP, MEMFD_THP, NR_MEMORIES };

static const char * const memory_names[] = { "anon", "memfd", "thp", "memfd-thp" };

static int gup_fd;
static char *areas[NR_MEMORIES];

static void allow_huge_memfd(void)
{
	int fd;

	mkdir("/sys", 0700);
	if (mount("sys", "/sys", "sysfs", 0, NULL))
		err(1, "sysfs");
	fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_WRONLY);
	if (fd < 0 || write(fd, "advise", 6) != 6)
		err(1, "shmem_enabled");
	close(fd);
}

static char *map(enum memory memory)
{
	char *area, *aligned;
	int fd = -1;

	if (memory == MEMFD || memory == MEMFD_THP) {
		fd = memfd_create("bench", 0);
		if (fd < 0 || ftruncate(fd, SIZE + HUGE))
			err(1, "memfd");
	}
	area = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE,
		    fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
	if (area == MAP_FAILED)
		err(1, "mmap");
	if (madvise(area, SIZE + HUGE,
		    memory >= THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		err(1, "madvise");
	aligned = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));
	memset(aligned, 1, SIZE);
	return aligned;
}

/* Isolated memory of a file is not mapped afterwards; the fault is not what is measured. */
static void touch(volatile char *area)
{
	unsigned long at;

	for (at = 0; at < SIZE; at += 4 * KB)
		area[at] = 1;
}

static void measure(const char *what, unsigned long request, enum memory memory,
		    unsigned int batch, unsigned long unit)
{
	unsigned long long get = 0, put = 0;
	int i;

	/* The first round is not counted: it finds LRU batches to drain. */
	for (i = 0; i <= REPEATS; i++) {
		struct gup_test test = {
			.addr = (uintptr_t)areas[memory],
			.size = SIZE,
			.nr_pages_per_call = batch,
			.gup_flags = FOLL_WRITE,
		};

		touch(areas[memory]);
		if (ioctl(gup_fd, request, &test) || test.size != SIZE) {
			printf("gup-bench: %s %s %u failed: %m, %llu bytes\n",
			       what, memory_names[memory], batch,
			       (unsigned long long)test.size);
			return;
		}
		if (i > 0) {
			get += test.get_delta_usec;
			put += test.put_delta_usec;
		}
	}
	printf("gup-bench: %s %s %u get %llu put %llu of %lu\n", what,
	       memory_names[memory], batch, get * 1000, put * 1000,
	       REPEATS * SIZE / unit);
}

static unsigned long long now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/* A page that nobody ever pins: it is allocated, and its word is looked at when it is freed. */
static void measure_life(void)
{
	unsigned long long get = 0, put = 0;
	int i;

	for (i = 0; i <= REPEATS; i++) {
		unsigned long long start = now(), middle, end;
		char *area = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (area == MAP_FAILED || madvise(area, SIZE, MADV_NOHUGEPAGE) ||
		    madvise(area, SIZE, MADV_POPULATE_WRITE))
			err(1, "life");
		middle = now();
		munmap(area, SIZE);
		end = now();
		if (i > 0) {
			get += middle - start;
			put += end - middle;
		}
	}
	printf("gup-bench: life anon %lu get %llu put %llu of %lu\n",
	       SIZE / (4 * KB), get, put, REPEATS * SIZE / (4 * KB));
}

int main(int argc, char **argv)
{
	static const unsigned int batches[] = { 1, 512 };
	enum memory memory;
	struct sysinfo info;
	unsigned int i;

	if (sysinfo(&info))
		err(1, "sysinfo");
	printf("gup-bench: memory %lu\n", info.totalram * info.mem_unit);
	mkdir("/debug", 0700);
	if (mount("debug", "/debug", "debugfs", 0, NULL))
		err(1, "debugfs");
	gup_fd = open("/debug/gup_test", O_RDWR);
	if (gup_fd < 0)
		err(1, "gup_test");
	allow_huge_memfd();
	for (memory = ANON; memory < NR_MEMORIES; memory++)
		areas[memory] = map(memory);
	for (memory = ANON; memory < MEMFD_THP; memory++) {
		for (i = 0; i < 2; i++) {
			measure("get_fast", GUP_FAST_BENCHMARK, memory,
				batches[i], 4 * KB);
			measure("pin_fast", PIN_FAST_BENCHMARK, memory,
				batches[i], 4 * KB);
			measure("pin_longterm", PIN_LONGTERM_BENCHMARK, memory,
				batches[i], 4 * KB);
		}
	}
	measure_life();
#ifdef EXCLUSIVE_PIN_BENCHMARK
	/* Only said on the command line of the kernel that has the option. */
	if (getenv("exclusive")) {
		for (i = 0; i < 2; i++) {
			measure("exclusive", EXCLUSIVE_PIN_BENCHMARK, ANON,
				batches[i], 4 * KB);
			measure("exclusive", EXCLUSIVE_PIN_BENCHMARK, MEMFD,
				batches[i], 4 * KB);
		}
		for (memory = THP; memory <= MEMFD_THP; memory++) {
			measure("exclusive", EXCLUSIVE_PIN_BENCHMARK, memory, 1, HUGE);
			measure("exclusive", EXCLUSIVE_PIN_BENCHMARK, memory, 16, HUGE);
		}
	}
#endif
	printf("gup-bench: done\n");
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
