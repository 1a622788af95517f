/*
 * inflight.h
 *		The messages that a sink has sent and owes an outcome for: by age, by key.
 *
 * For a sink whose far side may confirm a message although an earlier one of
 * its key failed; with this it can keep the contract of sink.h.
 */
#ifndef INFLIGHT_H
#define INFLIGHT_H

#include "relay.h"

/* One message on its way.  The set makes it and frees it. */
typedef struct InFlight
{
	RelayMessage *message;
	int64_t		since;			/* WaitNow() when it was added */
	void	   *place;			/* the sink's: where the message went */
	bool		overtook;		/* one of its key failed that was sent before it */
	bool		expired;		/* the sink's: it waited too long */

	/* The set's. */
	uint64_t	hash;			/* of the key, 0 if there is none */
	struct InFlight *older;
	struct InFlight *newer;
	struct InFlight *chain;		/* the next older of its bucket */
} InFlight;

#define INFLIGHT_BUCKETS	1024

/* All zeroes is an empty one. */
typedef struct InFlightSet
{
	InFlight   *oldest;
	InFlight   *newest;
	int			count;
	InFlight   *spare;			/* freed ones, for the next */
	InFlight   *buckets[INFLIGHT_BUCKETS];
} InFlightSet;

extern InFlight *InFlightAdd(InFlightSet *set, RelayMessage *message);

/* Takes an entry out; the caller reports its message. */
extern void InFlightRemove(InFlightSet *set, InFlight *entry);

/* The newest entry with this message's key; NULL if there is none, or no key. */
extern InFlight *InFlightOfKey(const InFlightSet *set, const RelayMessage *message);

/* An entry has failed: those of its key that are newer overtook it. */
extern void InFlightFail(InFlightSet *set, const InFlight *entry);

extern void InFlightFree(InFlightSet *set);

#endif							/* INFLIGHT_H */
