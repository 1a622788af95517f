/*
 * dispatch_publish.c
 *		Giving messages to the sink: in order, with pauses, in units.
 *
 * Lanes are independent of each other; within a lane messages are given in
 * position order, and those that come back are given again before any that
 * stand behind them.
 *
 * DOWN makes its lane wait.  When the sink has reported on all it has of the
 * lane, a pause begins, which grows from one to the next; after it one message
 * is given, to see, and the others when it is confirmed.
 *
 * SPLIT makes everything wait.  When the sink has nothing any more, messages
 * are given in units of half as many as were refused together, each with a
 * flush behind it and a wait for its outcomes.  A unit that passes doubles the
 * next one, one that is refused halves it, down to the one message that is to
 * blame, which the sink must then RETRY or REJECT.  One that the sink had no room
 * for has not passed, and begins again.  That goes on until none is left of those
 * that were refused.
 */
#include "dispatch.h"

#define UNIT_MAX	100000

/* ---------------------------------------------------------------- pauses */

/* The sink said DOWN for a message of this lane. */
void
PublishDown(Dispatch *dispatch, DispatchLane *lane)
{
	if (!lane->down)
		dispatch->ndown++;
	lane->down = true;
	lane->again = true;
	lane->holding = true;
	lane->hold_until = WAIT_FOREVER;
}

/* The sink has confirmed one of this lane, or the lane is lost. */
void
PublishUp(Dispatch *dispatch, DispatchLane *lane)
{
	BackoffReset(&lane->backoff);
	if (!lane->down)
		return;
	lane->down = false;
	dispatch->ndown--;
	if (dispatch->ndown > 0 || lane->lost || !dispatch->down_logged)
		return;
	Log(LOG_INFO, "the sink is back");
	dispatch->down_logged = false;
}

/* The sink has nothing of this lane any more: its pause begins. */
void
PublishSettled(DispatchLane *lane)
{
	if (lane->again)
		lane->unsent = lane->head;
	lane->again = false;
	if (lane->holding)
		lane->hold_until = WaitNow() + BackoffNext(&lane->backoff);
}

static void
check_holds(Dispatch *dispatch)
{
	for (DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->holding && WaitNow() >= lane->hold_until)
			lane->holding = false;
	}
}

/* ---------------------------------------------------------------- units */

/* Whether an item is one of those that were refused together. */
void
PublishSuspect(Dispatch *dispatch, DispatchItem *item, bool suspect)
{
	if (item->suspect == suspect)
		return;
	item->suspect = suspect;
	dispatch->nsuspects += suspect ? 1 : -1;
	if (dispatch->nsuspects == 0)
		dispatch->unit = dispatch->unit_left = dispatch->unit_refused = 0;
}

/* When the sink has nothing any more, the next unit may begin. */
static void
begin_unit(Dispatch *dispatch)
{
	if (dispatch->nsuspects == 0 || dispatch->with_sink > 0)
		return;
	if (dispatch->unit_refused > 0)
		dispatch->unit = dispatch->unit_refused / 2;
	else if (dispatch->unit_given && dispatch->unit < UNIT_MAX)
		dispatch->unit *= 2;
	if (dispatch->unit < 1)
		dispatch->unit = 1;
	dispatch->unit_refused = 0;
	dispatch->unit_given = false;
	dispatch->unit_left = dispatch->unit;
}

/* ---------------------------------------------------------------- giving */

static void
fail_sink(Dispatch *dispatch)
{
	dispatch->sink_failed = true;
	DispatchFail(dispatch, dispatch->sink->error.text);
}

/* One of the sink's poll and flush. */
void
PublishDrive(Dispatch *dispatch, SinkStatus (*call) (Sink *sink))
{
	if (!dispatch->sink_failed && call(dispatch->sink) == SINK_FAILED)
		fail_sink(dispatch);
}

/* Whether the sink may be given messages. */
static bool
may_publish(const Dispatch *dispatch)
{
	return !dispatch->sink_full && !dispatch->sink_failed && !dispatch->stopping &&
		(dispatch->nsuspects == 0 || dispatch->unit_left > 0);
}

/* Whether a lane has to wait for the sink: see above, and a lost one of its number. */
static bool
is_waiting(const Dispatch *dispatch, const DispatchLane *lane)
{
	if (lane->lost || lane->holding || (lane->down && lane->with_sink > 0))
		return true;
	for (const DispatchLane *other = dispatch->lanes; other != NULL; other = other->next)
	{
		if (other->lost && other->lane == lane->lane)
			return true;
	}
	return false;
}

/* Gives one message; it stays the next one if the sink has no room for it. */
static void
give(Dispatch *dispatch, DispatchItem *item)
{
	item->state = ITEM_WITH_SINK;
	item->lane->with_sink++;
	dispatch->with_sink++;
	if (dispatch->nsuspects > 0)
		dispatch->unit_left--;

	/* The sink may report, and so free the item, before publish returns. */
	switch (dispatch->sink->methods->publish(dispatch->sink, item->message))
	{
		case SINK_READY:
			dispatch->progress = true;
			dispatch->unit_given = true;
			break;
		case SINK_FULL:
			if (dispatch->nsuspects > 0)
				dispatch->unit_left++;
			dispatch->with_sink--;
			item->lane->with_sink--;
			item->lane->unsent = item;
			item->state = ITEM_WAITING;
			dispatch->sink_full = true;

			/* It may have reported all others of the lane meanwhile. */
			if (item->lane->with_sink == 0)
				PublishSettled(item->lane);
			break;
		case SINK_FAILED:
			fail_sink(dispatch);
			break;
	}
}

/* Gives a lane's messages to the sink, as far as it takes them. */
static void
publish_lane(Dispatch *dispatch, DispatchLane *lane)
{
	while (lane->unsent != NULL && may_publish(dispatch) && !is_waiting(dispatch, lane))
	{
		DispatchItem *item = lane->unsent;

		lane->unsent = item->next;
		if (item->state == ITEM_WAITING)
			give(dispatch, item);
	}
}

/* Gives what can be given; the lane that was not served comes first the next time. */
void
PublishAll(Dispatch *dispatch)
{
	DispatchLane *first = dispatch->lanes;
	DispatchLane *lane;

	check_holds(dispatch);
	begin_unit(dispatch);
	while (first != NULL && first->lane != dispatch->turn)
		first = first->next;
	if (first == NULL)
		first = dispatch->lanes;
	lane = first;
	while (lane != NULL && may_publish(dispatch))
	{
		dispatch->turn = lane->lane;
		publish_lane(dispatch, lane);
		lane = lane->next != NULL ? lane->next : dispatch->lanes;
		if (lane == first)
			break;
	}
	if (dispatch->nsuspects > 0 && dispatch->unit_left == 0 && dispatch->with_sink > 0)
		PublishDrive(dispatch, dispatch->sink->methods->flush);
}

/*
 * Nothing more is to be given for now: has the sink send what it holds back.
 * That may make room in it of which it would not wake us.
 */
void
PublishFlush(Dispatch *dispatch)
{
	if (dispatch->nsuspects > 0)
		dispatch->unit_left = 0;
	PublishDrive(dispatch, dispatch->sink->methods->flush);
	if (dispatch->sink_full)
	{
		dispatch->sink_full = false;
		PublishAll(dispatch);
	}
}

/* Adds when a pause is over. */
void
PublishWait(const Dispatch *dispatch, WaitSet *set)
{
	for (const DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->holding)
			WaitUntil(set, lane->hold_until);
	}
}
