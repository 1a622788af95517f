/*
 * dispatch_checkpoint.c
 *		Acknowledging: how far each lane is done goes to the database.
 *
 * Only prefixes are acknowledged, so whatever ends the process, and when, what
 * is not confirmed comes again.  Confirmations are gathered for a while, for
 * each acknowledgement is a transaction of the database; all lanes share one.
 *
 * A consumer that makes no call for its lease time has left.  One that cannot
 * fetch, for its window is full and its sink does not move, repeats its last
 * acknowledgement instead.
 */
#include <stdlib.h>

#include "dispatch.h"
#include "mem.h"

#define ALIVE_INTERVAL	WAIT_S(3)

/* Whether there is anything to acknowledge. */
bool
CheckpointPending(const Dispatch *dispatch)
{
	for (const DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (!lane->lost && lane->confirmed > lane->acked)
			return true;
	}
	return false;
}

static int64_t
due_at(const Dispatch *dispatch)
{
	if (CheckpointPending(dispatch))
		return dispatch->acked_at + WAIT_MS(dispatch->config->ack_interval_ms);
	if (dispatch->nitems > 0)
		return dispatch->alive_at + ALIVE_INTERVAL;
	return WAIT_FOREVER;
}

/* Acknowledges all lanes that have moved; or, if none has, the first as it was. */
static void
send(Dispatch *dispatch, bool repeat)
{
	SourcePlace *places = NULL;
	int			nplaces = 0;
	int			nlanes = 0;

	for (const DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
		nlanes++;
	places = MemAlloc(nlanes * sizeof(SourcePlace));
	for (DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->lost || (lane->confirmed == lane->acked && !(repeat && nplaces == 0 && lane->head != NULL)))
			continue;
		places[nplaces++] = (SourcePlace) {lane->lane, lane->epoch, lane->confirmed};
		lane->acked = lane->confirmed;
	}
	if (nplaces > 0)
		dispatch->source->methods->ack(dispatch->source, places, nplaces);
	free(places);
	dispatch->acked_at = dispatch->alive_at = WaitNow();
	dispatch->progress = true;
}

/* Acknowledges if it is time for that, or at once. */
void
CheckpointRun(Dispatch *dispatch, bool now)
{
	bool		pending = CheckpointPending(dispatch);

	if (now ? pending : WaitNow() >= due_at(dispatch))
		send(dispatch, !pending);
}

/* Adds when it is time. */
void
CheckpointWait(const Dispatch *dispatch, WaitSet *set)
{
	WaitUntil(set, due_at(dispatch));
}
