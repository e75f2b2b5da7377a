/* Clocks that run SECO_CLOCK_RATE times as fast as the system's, for a process that this is preloaded into and for
 * those that it starts. What it asks the time is told so much more of it, and what waits for a time waits so much less.
 * The first process fixes the moment from which on time runs faster, so that all have the same time. CPU time, dates of
 * files and the kernel's own timers stay as they are. Linux with 64 bits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

typedef long (*system_call)(long, ...);
typedef int (*clock_reader)(clockid_t, struct timespec *);

static system_call next_syscall;
static clock_reader next_clock;
static int64_t rate = 1;
/* When time began to run faster: of CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME. */
static int64_t since[3];

static int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec timespec_of(int64_t time) {
    struct timespec result = {time / SECOND, time % SECOND};
    return result;
}

/* Which of the three a clock follows, or -1: it is none of the world's. */
static int follows(clockid_t clock) {
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return 0;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
        return 1;
    case CLOCK_BOOTTIME:
        return 2;
    default:
        return -1;
    }
}

static int64_t of_system(int which) {
    static const clockid_t clocks[3] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
    struct timespec now;
    next_clock(clocks[which], &now);
    return nanoseconds(&now);
}

/* A point of our time as one of the system's. */
static int64_t system_time(int which, int64_t time) { return since[which] + (time - since[which]) / rate; }

static void begin(void) {
    if (next_syscall) return;
    next_clock = (clock_reader)dlsym(RTLD_NEXT, "clock_gettime");
    system_call call = (system_call)dlsym(RTLD_NEXT, "syscall");
    const char *text = getenv("SECO_CLOCK_RATE");
    int64_t wanted = text ? atoll(text) : 1;
    const char *start = getenv("SECO_CLOCK_START");
    long long known[3];
    if (start && sscanf(start, "%lld %lld %lld", &known[0], &known[1], &known[2]) == 3) {
        for (int which = 0; which < 3; which++) since[which] = known[which];
    } else {
        char told[80];
        for (int which = 0; which < 3; which++) since[which] = of_system(which);
        snprintf(told, sizeof told, "%lld %lld %lld", (long long)since[0], (long long)since[1], (long long)since[2]);
        setenv("SECO_CLOCK_START", told, 1);
    }
    if (wanted > 0) rate = wanted;
    next_syscall = call;
}

__attribute__((constructor)) static void load(void) { begin(); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    begin();
    int which = follows(clock);
    if (which < 0) return next_clock(clock, time);
    *time = timespec_of(since[which] + (of_system(which) - since[which]) * rate);
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
    begin();
    int which = follows(clock);
    int64_t time = nanoseconds(wanted);
    if (which >= 0) time = flags & TIMER_ABSTIME ? system_time(which, time) : time / rate;
    struct timespec wait = timespec_of(time);
    /* The call itself gives -1 and errno, the function the error. */
    int result = next_syscall(SYS_clock_nanosleep, (long)clock, (long)flags, &wait, left) ? errno : 0;
    if (result == EINTR && left && !(flags & TIMER_ABSTIME)) *left = timespec_of(nanoseconds(left) * rate);
    return result;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
    int result = clock_nanosleep(CLOCK_MONOTONIC, 0, wanted, left);
    if (!result) return 0;
    errno = result;
    return -1;
}

int epoll_wait(int poll, struct epoll_event *events, int most, int milliseconds) {
    begin();
    struct timespec wait = timespec_of(milliseconds * (SECOND / 1000) / rate);
    return (int)next_syscall(SYS_epoll_pwait2, (long)poll, events, (long)most, milliseconds < 0 ? NULL : &wait, NULL, 0L);
}

int poll(struct pollfd *files, nfds_t count, int milliseconds) {
    begin();
    struct timespec wait = timespec_of(milliseconds * (SECOND / 1000) / rate);
    return ppoll(files, count, milliseconds < 0 ? NULL : &wait, NULL);
}

/* Rust's library and tokio wait for each other by this one. */
long syscall(long number, ...) {
    begin();
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec wait;
    if (number == SYS_futex && a[3]) {
        const struct timespec *wanted = (const struct timespec *)a[3];
        switch (a[1] & FUTEX_CMD_MASK) {
        case FUTEX_WAIT:
            wait = timespec_of(nanoseconds(wanted) / rate);
            a[3] = (long)&wait;
            break;
        case FUTEX_WAIT_BITSET:
            wait = timespec_of(system_time(a[1] & FUTEX_CLOCK_REALTIME ? 0 : 1, nanoseconds(wanted)));
            a[3] = (long)&wait;
            break;
        }
    }
    return next_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
