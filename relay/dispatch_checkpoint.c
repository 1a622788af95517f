/*
 * dispatch_checkpoint.c
 *		Acknowledging: how far each lane is done goes to the database.
 *
 * Only prefixes are acknowledged, so whatever ends the process, and when, what
 * is not confirmed comes again.  Confirmations are gathered for a while, for
 * each acknowledgement is a transaction of the database.
 *
 * A consumer that makes no call for its lease time has left.  One that cannot
 * fetch, for its window is full and its sink does not move, acknowledges up to
 * where it stands instead, which changes nothing.  That is the position before
 * its first message, and not its last acknowledgement: a parked message that was
 * handed out again stands far before that, and is not done.
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

/* Acknowledges all lanes that have moved; if none has, one up to where it stands. */
static void
send(Dispatch *dispatch, bool moved)
{
	SourcePlace place;

	for (DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->lost || !(moved ? lane->dirty : lane->head != NULL))
			continue;
		place = (SourcePlace) {lane->lane, lane->epoch, lane->confirmed};
		if (!moved)
			place.position = lane->head->position - 1;
		lane->dirty = false;
		dispatch->source->methods->ack(dispatch->source, &place);
		if (!moved)
			break;
	}
	dispatch->acked_at = dispatch->alive_at = WaitNow();
	dispatch->progress = true;
}

/* Acknowledges if it is time for that, or at once. */
void
CheckpointRun(Dispatch *dispatch, bool now)
{
	bool		pending = CheckpointPending(dispatch);

	if (now ? pending : WaitNow() >= due_at(dispatch))
		send(dispatch, pending);
}

/* Adds when it is time. */
void
CheckpointWait(const Dispatch *dispatch, WaitSet *set)
{
	WaitUntil(set, due_at(dispatch));
}
