/*
 * A clock that steps: a library for LD_PRELOAD that adds an offset to the wall clock of a process. The offset stands in a
 * file and may be changed while the process runs; all other clocks are left alone.
 *
 * Why C: see powerloss.c. Bare system calls and calls straight into the vDSO can't be seen.
 *
 * Environment
 *   SIGILLO_CLOCK  a file of 8 bytes in the machine's order: nanoseconds to add to CLOCK_REALTIME, signed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static _Atomic int64_t *offset;
static int (*_Atomic real_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("SIGILLO_CLOCK");
	long mapped;
	int fd;
	if (!path)
		return;
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	mapped = syscall(SYS_mmap, NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0L);
	if (fd < 0 || mapped == -1) {
		fprintf(stderr, "clock: %s can't be mapped\n", path);
		abort();
	}
	syscall(SYS_close, fd);
	offset = (void *)mapped;
}

/* By libc's own function, which reads the clock without a system call. */
static int gettime(clockid_t clock, struct timespec *time)
{
	int (*real)(clockid_t, struct timespec *) = atomic_load(&real_gettime);
	if (!real) {
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
		if (!real)
			return (int)syscall(SYS_clock_gettime, clock, time);
		atomic_store(&real_gettime, real);
	}
	return real(clock, time);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int result = gettime(clock, time);
	if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t added = atomic_load(offset), nanos = time->tv_nsec + added % SECOND;
		time->tv_sec += added / SECOND + (nanos >= SECOND) - (nanos < 0);
		time->tv_nsec = nanos + (nanos < 0 ? SECOND : nanos >= SECOND ? -SECOND : 0);
	}
	return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	*time = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
	return 0;
}

time_t time(time_t *to)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	if (to)
		*to = now.tv_sec;
	return now.tv_sec;
}
