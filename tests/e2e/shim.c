/* A disk that fails and clocks that step, for a process started with LD_PRELOAD: reads its orders from the file that
 * FAULTS names, mapped into memory, at each call. The layout is that of faults.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct orders {
    volatile int64_t stepped_seconds; /* added to the time of day */
    volatile int64_t passed_seconds;  /* added to every clock */
    volatile int64_t sync_errno;      /* fsync and fdatasync of files whose path ends so fail with it, once */
    volatile int64_t write_errno;     /* writes to files whose path ends so fail with it, until it is 0 again */
    volatile int64_t syncs_failed;    /* how many were made to fail */
    volatile int64_t syncs_after;     /* how many of the same files were asked for after that */
    volatile int64_t writes_failed;
    char path_end[64];
};

static struct orders *orders;

__attribute__((constructor)) static void map_orders(void) {
    const char *path = getenv("FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (mapped != MAP_FAILED)
        orders = mapped;
}

static int is_meant(int file) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    size_t wanted = strlen(orders->path_end);
    return length >= (ssize_t)wanted && wanted && !memcmp(path + length - wanted, orders->path_end, wanted);
}

static int fails_to_sync(int file) {
    if (!orders || !(orders->sync_errno || orders->syncs_failed) || !is_meant(file))
        return 0;
    if (!orders->sync_errno) {
        orders->syncs_after++;
        return 0;
    }
    errno = (int)orders->sync_errno;
    orders->sync_errno = 0; /* the kernel tells of it once, and takes the pages for clean */
    orders->syncs_failed++;
    return 1;
}

static int fails_to_write(int file) {
    if (!orders || !orders->write_errno || !is_meant(file))
        return 0;
    errno = (int)orders->write_errno;
    orders->writes_failed++;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int file) { return fails_to_sync(file) ? -1 : REAL(fsync)(file); }

int fdatasync(int file) { return fails_to_sync(file) ? -1 : REAL(fdatasync)(file); }

ssize_t write(int file, const void *octets, size_t count) {
    static __typeof__(&write) real;
    if (!real)
        real = REAL(write);
    return fails_to_write(file) ? -1 : real(file, octets, count);
}

ssize_t pwrite64(int file, const void *octets, size_t count, off64_t offset) {
    return fails_to_write(file) ? -1 : REAL(pwrite64)(file, octets, count, offset);
}

ssize_t pwrite(int file, const void *octets, size_t count, off_t offset) {
    return fails_to_write(file) ? -1 : REAL(pwrite)(file, octets, count, offset);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real)
        real = REAL(clock_gettime);
    int result = real(clock, now);
    if (!result && orders) {
        if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
            now->tv_sec += orders->stepped_seconds + orders->passed_seconds;
        else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)
            now->tv_sec += orders->passed_seconds;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (!result && orders)
        now->tv_sec += orders->stepped_seconds + orders->passed_seconds;
    return result;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told)
        *told = now.tv_sec;
    return now.tv_sec;
}
