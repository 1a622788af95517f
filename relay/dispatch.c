/*
 * dispatch.c
 *		Between a source and a sink: who has which message, and what is confirmed.
 *
 * What is acknowledged is only ever a prefix: of each lane, the positions up
 * to the first message that the sink has not confirmed.  So whatever ends the
 * process, and when, what is not confirmed comes again.
 *
 * A batch is published as it arrives; when the sink has confirmed all of it,
 * the lanes are acknowledged and the next batch is asked for.  Fetching ahead
 * would be a matter of calling the source's fetch earlier.
 *
 * Memory: the window holds WINDOW_BYTES, or one message that is larger; when
 * it is full nothing more is read from the source, nor by libpq from the
 * socket.
 *
 * The four outcomes.  OK moves the prefix.  RETRY and DOWN stop publishing;
 * when the sink has reported on all that it has, what is not confirmed is
 * published again in its order, after a pause that grows.  REJECT is the end,
 * for to go on would be to lose the message: the prefix is acknowledged, and
 * the relay leaves with the error.
 */
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "mem.h"

#define WINDOW_BYTES	(8 * 1024 * 1024)
#define HOLD_BASE		WAIT_MS(100)
#define HOLD_CAP		WAIT_S(30)

/* How long a stop may take: less than a supervisor waits before it kills. */
#define STOP_LIMIT		WAIT_S(20)

static DispatchLane *
find_lane(Dispatch *dispatch, const RelayMessage *message)
{
	for (int i = 0; i < dispatch->nlanes; i++)
	{
		if (dispatch->lanes[i].lane == message->lane &&
			dispatch->lanes[i].epoch == message->epoch)
			return &dispatch->lanes[i];
	}
	return NULL;
}

static DispatchLane *
add_lane(Dispatch *dispatch, const RelayMessage *message)
{
	DispatchLane *lane;

	if (dispatch->nlanes == dispatch->lanes_size)
	{
		dispatch->lanes_size = 2 * dispatch->lanes_size + 8;
		dispatch->lanes = MemRealloc(dispatch->lanes,
									 dispatch->lanes_size * sizeof(DispatchLane));
	}
	lane = &dispatch->lanes[dispatch->nlanes++];
	memset(lane, 0, sizeof(*lane));
	lane->lane = message->lane;
	lane->epoch = message->epoch;
	return lane;
}

/* Puts a message from the source at the end of its lane. */
static void
take(Dispatch *dispatch, RelayMessage *message)
{
	DispatchLane *lane = find_lane(dispatch, message);

	if (lane == NULL)
		lane = add_lane(dispatch, message);

	message->state = RELAY_MESSAGE_WAITING;
	message->next = NULL;
	if (lane->head == NULL)
		lane->head = message;
	else
		lane->tail->next = message;
	lane->tail = message;
	if (lane->unsent == NULL)
		lane->unsent = message;

	dispatch->window_messages++;
	dispatch->window_bytes += message->size;
}

/* Takes a lane's first message out of the window. */
static void
drop_head(Dispatch *dispatch, DispatchLane *lane)
{
	RelayMessage *message = lane->head;

	lane->head = message->next;
	if (lane->unsent == message)
		lane->unsent = lane->head;
	dispatch->window_messages--;
	dispatch->window_bytes -= message->size;
	dispatch->source->methods->release(dispatch->source, message);
}

/* Forgets the batch.  The sink must not have any of it. */
static void
clear_window(Dispatch *dispatch)
{
	for (int i = 0; i < dispatch->nlanes; i++)
	{
		while (dispatch->lanes[i].head != NULL)
			drop_head(dispatch, &dispatch->lanes[i]);
	}
	dispatch->nlanes = 0;
}

/*
 * Stops because of an error, of which the first counts.  What was confirmed
 * before it is still acknowledged.
 */
static void
fail(Dispatch *dispatch, const char *reason, const char *text)
{
	if (dispatch->failing)
		return;
	dispatch->failing = true;
	LogErrorSet(&dispatch->error, "%s%s", reason, text);
	DispatchStop(dispatch);
}

static void
fail_sink(Dispatch *dispatch)
{
	dispatch->sink_failed = true;
	dispatch->with_sink = 0;
	fail(dispatch, "", dispatch->sink->error.text);
}

static void
confirm(Dispatch *dispatch, RelayMessage *message)
{
	DispatchLane *lane = find_lane(dispatch, message);

	message->state = RELAY_MESSAGE_CONFIRMED;
	dispatch->delivered++;
	BackoffReset(&dispatch->backoff);
	while (lane->head != NULL && lane->head->state == RELAY_MESSAGE_CONFIRMED)
	{
		lane->confirmed = lane->head->position;
		drop_head(dispatch, lane);
	}
}

static void
reject(Dispatch *dispatch, const RelayMessage *message, const char *text)
{
	LogError	reason;

	LogErrorSet(&reason, "the sink rejected message %s at position %s: ",
				message->message_id.data, message->position_text.data);
	fail(dispatch, reason.text, text);
}

/* A sink's word on a message that it was given. */
static void
report(void *context, RelayMessage *message, SinkOutcome outcome, const char *text)
{
	Dispatch   *dispatch = context;

	dispatch->with_sink--;
	message->state = RELAY_MESSAGE_WAITING;
	switch (outcome)
	{
		case SINK_OK:
			confirm(dispatch, message);
			break;
		case SINK_REJECT:
			reject(dispatch, message, text);
			break;
		case SINK_RETRY:
		case SINK_DOWN:
		case SINK_SPLIT:
			Log(LOG_WARNING, "%s at position %s: %s",
				outcome == SINK_DOWN ? "the sink is down" : "the sink failed",
				message->position_text.data, text);
			dispatch->holding = true;
			dispatch->hold_until = WAIT_FOREVER;
			break;
	}

	/* The pause begins when the sink has nothing left. */
	if (dispatch->holding && dispatch->with_sink == 0)
		dispatch->hold_until = WaitNow() + BackoffNext(&dispatch->backoff);
}

/* After the pause, everything that is not confirmed is published again. */
static void
check_hold(Dispatch *dispatch)
{
	if (!dispatch->holding || WaitNow() < dispatch->hold_until)
		return;
	dispatch->holding = false;
	for (int i = 0; i < dispatch->nlanes; i++)
		dispatch->lanes[i].unsent = dispatch->lanes[i].head;
}

/* Whether the sink may be given messages. */
static bool
may_publish(const Dispatch *dispatch)
{
	return !dispatch->holding && !dispatch->sink_full &&
		!dispatch->failing && !dispatch->resetting;
}

/* Gives a lane's messages to the sink, as far as it takes them. */
static void
publish_lane(Dispatch *dispatch, DispatchLane *lane)
{
	Sink	   *sink = dispatch->sink;

	while (lane->unsent != NULL && may_publish(dispatch))
	{
		RelayMessage *message = lane->unsent;

		/* The sink may report, and so free it, before publish returns. */
		lane->unsent = message->next;
		if (message->state == RELAY_MESSAGE_CONFIRMED)
			continue;
		message->state = RELAY_MESSAGE_WITH_SINK;
		dispatch->with_sink++;
		switch (sink->methods->publish(sink, message))
		{
			case SINK_READY:
				break;
			case SINK_FULL:
				message->state = RELAY_MESSAGE_WAITING;
				dispatch->with_sink--;
				lane->unsent = message;
				dispatch->sink_full = true;
				break;
			case SINK_FAILED:
				fail_sink(dispatch);
				break;
		}
	}
}

/* One of the sink's poll and flush. */
static void
drive_sink(Dispatch *dispatch, SinkStatus (*call) (Sink *sink))
{
	if (!dispatch->sink_failed && call(dispatch->sink) == SINK_FAILED)
		fail_sink(dispatch);
}

static void
publish(Dispatch *dispatch)
{
	check_hold(dispatch);
	for (int i = 0; i < dispatch->nlanes; i++)
		publish_lane(dispatch, &dispatch->lanes[i]);
}

/*
 * Has the sink send what it holds back.  If it was full it may have room now,
 * and would not wake us for that.
 */
static void
flush(Dispatch *dispatch)
{
	bool		was_full;

	do
	{
		was_full = dispatch->sink_full;
		drive_sink(dispatch, dispatch->sink->methods->flush);
		if (was_full)
		{
			dispatch->sink_full = false;
			publish(dispatch);
		}
	} while (was_full && !dispatch->sink_full);
}

/* Whether the source is to be asked for more. */
static bool
wants_more(const Dispatch *dispatch)
{
	if (dispatch->batch_ended || dispatch->resetting)
		return false;

	/* When failing, what comes is not kept. */
	return dispatch->failing || dispatch->window_bytes < WINDOW_BYTES;
}

/* Whether the sink has said all that it will say about the batch. */
static bool
is_settled(const Dispatch *dispatch)
{
	if (dispatch->failing || dispatch->resetting)
		return dispatch->with_sink == 0;
	return dispatch->window_messages == 0;
}

/* The batch is done with: acknowledges it, and asks for the next. */
static void
end_batch(Dispatch *dispatch)
{
	Source	   *source = dispatch->source;

	for (int i = 0; i < dispatch->nlanes; i++)
	{
		DispatchLane *lane = &dispatch->lanes[i];

		if (lane->confirmed > 0)
			source->methods->ack(source, lane->lane, lane->epoch, lane->confirmed);
	}
	clear_window(dispatch);
	dispatch->batch_ended = false;
	source->methods->fetch(source);
}

/* The source begins anew: so does the window. */
static void
end_reset(Dispatch *dispatch)
{
	clear_window(dispatch);
	dispatch->batch_ended = false;
	dispatch->resetting = false;
	dispatch->holding = false;
}

/* Nothing more is to be read for now: it is the sink's turn. */
static void
settle(Dispatch *dispatch)
{
	flush(dispatch);
	if (!is_settled(dispatch))
		return;
	if (dispatch->resetting)
		end_reset(dispatch);
	else if (dispatch->batch_ended)
		end_batch(dispatch);
}

/* ---------------------------------------------------------------- the caller's */

void
DispatchInit(Dispatch *dispatch, Source *source, Sink *sink)
{
	memset(dispatch, 0, sizeof(*dispatch));
	dispatch->source = source;
	dispatch->sink = sink;
	dispatch->backoff.base = HOLD_BASE;
	dispatch->backoff.cap = HOLD_CAP;
	sink->report = report;
	sink->context = dispatch;
}

/* Moves all that can be moved without waiting. */
DispatchStatus
DispatchRun(Dispatch *dispatch)
{
	Source	   *source = dispatch->source;
	RelayMessage *message;

	if (dispatch->stopping && WaitNow() >= dispatch->stop_by)
	{
		fail(dispatch, "could not finish in time; what was not acknowledged will be delivered again", "");
		return DISPATCH_FAILED;
	}
	dispatch->sink_full = false;
	drive_sink(dispatch, dispatch->sink->methods->poll);

	for (;;)
	{
		publish(dispatch);
		if (!wants_more(dispatch))
		{
			settle(dispatch);
			if (!wants_more(dispatch))
				return DISPATCH_WAIT;
		}
		switch (source->methods->next(source, &message))
		{
			case SOURCE_MESSAGE:
				if (dispatch->failing)
					source->methods->release(source, message);
				else
					take(dispatch, message);
				break;
			case SOURCE_WAIT:
				flush(dispatch);
				return DISPATCH_WAIT;
			case SOURCE_BATCH_END:
				dispatch->batch_ended = true;
				break;
			case SOURCE_RESET:
				dispatch->resetting = true;
				break;
			case SOURCE_DONE:
				return dispatch->failing ? DISPATCH_FAILED : DISPATCH_DONE;
			case SOURCE_FAILED:
				fail(dispatch, "", source->error.text);
				return DISPATCH_FAILED;
		}
	}
}

/* Adds what DispatchRun waits for. */
void
DispatchWait(Dispatch *dispatch, WaitSet *set)
{
	if (wants_more(dispatch))
		dispatch->source->methods->wait(dispatch->source, set);
	if (!dispatch->sink_failed)
		dispatch->sink->methods->wait(dispatch->sink, set);
	if (dispatch->holding)
		WaitUntil(set, dispatch->hold_until);
	if (dispatch->stopping)
		WaitUntil(set, dispatch->stop_by);
}

/* Finishes the batch in hand, and leaves: DispatchRun says when. */
void
DispatchStop(Dispatch *dispatch)
{
	if (dispatch->stopping)
		return;
	dispatch->stopping = true;
	dispatch->stop_by = WaitNow() + STOP_LIMIT;
	dispatch->source->methods->finish(dispatch->source);
}

void
DispatchClose(Dispatch *dispatch)
{
	dispatch->sink->methods->close(dispatch->sink);
	clear_window(dispatch);
	dispatch->source->methods->close(dispatch->source);
	free(dispatch->lanes);
}
