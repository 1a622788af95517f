/*
 * dispatch_checkpoint.c
 *		Acknowledging: how far each lane is done goes to the database.
 *
 * Only prefixes are acknowledged, so whatever ends the process, and when, what
 * is not confirmed comes again.  Confirmations are gathered for a while, for
 * each acknowledgement is a transaction of the database.
 *
 * A consumer that makes no call for its lease time has left.  One that does not
 * fetch, for its window is full and its sink does not move, gives a sign of life
 * now and then, and so hears which lanes it has lost.
 */
#include "dispatch.h"

#define ALIVE_INTERVAL	WAIT_S(3)

/* Whether there is anything to acknowledge. */
bool
CheckpointPending(const Dispatch *dispatch)
{
	for (const DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (!lane->lost && lane->dirty)
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

/* Acknowledges all lanes that have moved. */
static void
send(Dispatch *dispatch)
{
	for (DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		SourcePlace place = {lane->lane, lane->epoch, lane->confirmed};

		if (lane->lost || !lane->dirty)
			continue;
		lane->dirty = false;
		dispatch->source->methods->ack(dispatch->source, &place);
	}
	dispatch->acked_at = dispatch->alive_at = WaitNow();
	dispatch->progress = true;
}

/* Acknowledges if it is time for that, or at once; or gives a sign of life. */
void
CheckpointRun(Dispatch *dispatch, bool now)
{
	bool		pending = CheckpointPending(dispatch);

	if (pending && (now || WaitNow() >= due_at(dispatch)))
		send(dispatch);
	else if (!pending && WaitNow() >= due_at(dispatch))
	{
		dispatch->alive_at = WaitNow();
		dispatch->source->methods->renew(dispatch->source);
	}
}

/* Adds when it is time. */
void
CheckpointWait(const Dispatch *dispatch, WaitSet *set)
{
	WaitUntil(set, due_at(dispatch));
}
