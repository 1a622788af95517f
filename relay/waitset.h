/*
 * waitset.h
 *		Time, and how the one thread sleeps: clock, wait set, backoff.
 *
 * Every part of the relay that waits for something adds its descriptors and
 * its deadline to the one WaitSet of the main loop; nothing else sleeps.
 */
#ifndef WAITSET_H
#define WAITSET_H

#include <limits.h>
#include <poll.h>
#include <stdint.h>

#define WAIT_MS(ms)		((int64_t) (ms) * 1000)
#define WAIT_S(s)		((int64_t) (s) * 1000000)
#define WAIT_FOREVER	INT64_MAX

/* Microseconds on a clock that nobody sets.  Tests put their own in place. */
extern int64_t (*WaitClock) (void);

static inline int64_t
WaitNow(void)
{
	return WaitClock();
}

/* All zeroes is an empty one.  Kept from sleep to sleep: it grows to what is needed. */
typedef struct WaitSet
{
	struct pollfd *fds;
	int			nfds;
	int			fds_size;
	int64_t		deadline;		/* the earliest that anybody asked for */
} WaitSet;

extern void WaitSetClear(WaitSet *set);
extern void WaitSetFree(WaitSet *set);
extern void WaitForFd(WaitSet *set, int fd, short events);
extern void WaitUntil(WaitSet *set, int64_t when);
extern void WaitSleep(WaitSet *set);

/*
 * The pauses between attempts, with full jitter: anything from nothing up to
 * base * 2^attempts, at most cap.  Half the relays of a site must not come
 * back in the same instant after its database restarted.
 */
typedef struct Backoff
{
	int64_t		base;
	int64_t		cap;
	int			attempts;
} Backoff;

extern int64_t BackoffNext(Backoff *backoff);
extern void BackoffReset(Backoff *backoff);

#endif							/* WAITSET_H */
