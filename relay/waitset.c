/*
 * waitset.c
 *		Time, and how the one thread sleeps: clock, wait set, backoff.
 */
#define _GNU_SOURCE				/* ppoll */
#include <stdlib.h>
#include <time.h>

#include "mem.h"
#include "waitset.h"

static int64_t
read_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return WAIT_S(now.tv_sec) + now.tv_nsec / 1000;
}

int64_t		(*WaitClock) (void) = read_clock;

void
WaitSetClear(WaitSet *set)
{
	set->nfds = 0;
	set->deadline = WAIT_FOREVER;
}

void
WaitSetFree(WaitSet *set)
{
	free(set->fds);
	*set = (WaitSet) {NULL};
}

/* Wakes on any of the events, and on an error or hang-up even if events is 0. */
void
WaitForFd(WaitSet *set, int fd, short events)
{
	if (set->nfds == set->fds_size)
	{
		set->fds_size = 2 * set->fds_size + 8;
		set->fds = MemRealloc(set->fds, set->fds_size * sizeof(struct pollfd));
	}
	set->fds[set->nfds].fd = fd;
	set->fds[set->nfds].events = events;
	set->fds[set->nfds].revents = 0;
	set->nfds++;
}

void
WaitUntil(WaitSet *set, int64_t when)
{
	if (when < set->deadline)
		set->deadline = when;
}

/*
 * Sleeps until one of the descriptors is ready, the deadline is reached, or a
 * signal comes.  Whoever wakes looks at its own state, so nobody is told why.
 */
void
WaitSleep(WaitSet *set)
{
	struct timespec timeout;
	int64_t		left = 0;

	if (set->deadline != WAIT_FOREVER)
	{
		left = set->deadline - WaitNow();
		if (left < 0)
			left = 0;
		timeout.tv_sec = left / WAIT_S(1);
		timeout.tv_nsec = left % WAIT_S(1) * 1000;
	}
	ppoll(set->fds, set->nfds,
		  set->deadline == WAIT_FOREVER ? NULL : &timeout, NULL);
}

int64_t
BackoffNext(Backoff *backoff)
{
	int64_t		limit = backoff->base;

	for (int i = 0; i < backoff->attempts && limit < backoff->cap; i++)
		limit *= 2;
	if (limit > backoff->cap)
		limit = backoff->cap;
	backoff->attempts++;
	return random() % (limit + 1);
}

void
BackoffReset(Backoff *backoff)
{
	backoff->attempts = 0;
}
