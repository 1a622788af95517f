/*
 * dispatch.c
 *		Between a source and a sink: who has which message, and what is confirmed.
 *
 * One round moves all that can be moved without waiting: the sink is driven,
 * messages are read from the source and given to the sink as they come, what is
 * confirmed is acknowledged while others are still on their way.  The source
 * fetches ahead as long as the window has room.
 *
 * What is acknowledged is only ever a prefix: of each lane, the positions up to
 * the first message that is not confirmed and not parked.  So whatever ends the
 * process, and when, what is not confirmed comes again.
 *
 * Backpressure: when the window is full nothing more is read from the source,
 * nor by libpq from the socket.
 *
 * Stopping: nothing more is given to the sink; what it has is waited for, up to
 * a limit, then acknowledged, and the lanes are handed over.
 */
#include "dispatch.h"

#define ROUND_LIMIT		10000	/* messages; then others have their turn */
#define FINISH_LIMIT	WAIT_S(5)	/* for the database, after the sink's limit */

/* Stops because of an error, of which the first counts. */
void
DispatchFail(Dispatch *dispatch, const char *text)
{
	if (dispatch->failing)
		return;
	dispatch->failing = true;
	LogErrorSet(&dispatch->error, "%s", text);
	DispatchStop(dispatch);
}

/* Whether the source is to be asked for more. */
static bool
wants_more(const Dispatch *dispatch)
{
	/* When stopping, what comes is not kept. */
	return dispatch->stopping || (int64_t) dispatch->bytes < dispatch->config->window_bytes;
}

static void
take(Dispatch *dispatch, RelayMessage *message)
{
	if (dispatch->stopping)
		dispatch->source->methods->release(dispatch->source, message);
	else
		WindowTake(dispatch, message);
}

static void
lose(Dispatch *dispatch, const SourceEvent *event)
{
	DispatchLane *lane = WindowFind(dispatch, event->lane, event->epoch);

	if (lane != NULL)
		WindowLose(dispatch, lane);
}

/* The connection is lost.  Who wants to stop does not wait for the next. */
static void
reset(Dispatch *dispatch)
{
	if (dispatch->stopping && (dispatch->nitems > 0 || CheckpointPending(dispatch)))
		DispatchFail(dispatch, "the connection to the database was lost; what was not acknowledged will be delivered again");
	WindowLoseAll(dispatch);
}

/* Reads from the source, and gives to the sink, until one of them has to wait. */
static DispatchStatus
move(Dispatch *dispatch, int *left)
{
	for (; *left > 0; (*left)--)
	{
		SourceEvent event = {0};

		PublishAll(dispatch);
		if (!wants_more(dispatch))
			return DISPATCH_WAIT;
		switch (dispatch->source->methods->next(dispatch->source, &event))
		{
			case SOURCE_MESSAGE:
				take(dispatch, event.message);
				break;
			case SOURCE_PARKED:
				WindowParked(dispatch, &event);
				break;
			case SOURCE_LANES:
				WindowKeep(dispatch, &event);
				break;
			case SOURCE_LOST:
				lose(dispatch, &event);
				break;
			case SOURCE_RESET:
				reset(dispatch);
				break;
			case SOURCE_WAIT:
				return DISPATCH_WAIT;
			case SOURCE_END:
				dispatch->ended = true;
				return DISPATCH_WAIT;
			case SOURCE_DONE:
				return dispatch->failing ? DISPATCH_FAILED : DISPATCH_DONE;
			case SOURCE_FAILED:
				DispatchFail(dispatch, dispatch->source->error.text);
				return DISPATCH_FAILED;
		}
	}
	return DISPATCH_WAIT;
}

/* Whether there is nobody left to wait for but the database. */
static bool
is_settled(const Dispatch *dispatch)
{
	if (dispatch->ended)
		return dispatch->nitems == 0;
	if (!dispatch->stopping || (dispatch->with_sink > 0 && !dispatch->sink_failed &&
								WaitNow() < dispatch->stop_by))
		return false;
	for (const DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->failed != NULL)
			return false;
	}
	return true;
}

/* When all is confirmed that will be, that is acknowledged and the source is told. */
static void
finish(Dispatch *dispatch)
{
	if (dispatch->finishing || !is_settled(dispatch))
		return;
	if (dispatch->stopping && dispatch->with_sink > 0 && !dispatch->sink_failed)
		DispatchFail(dispatch, "could not finish in time; what was not acknowledged will be delivered again");
	CheckpointRun(dispatch, true);
	dispatch->finishing = true;
	dispatch->source->methods->finish(dispatch->source);
	dispatch->progress = true;
}

/* ---------------------------------------------------------------- the caller's */

void
DispatchInit(Dispatch *dispatch, const PipelineConfig *config, Source *source, Sink *sink)
{
	*dispatch = (Dispatch)
	{
		.config = config,.source = source,.sink = sink
	};
	sink->report = OutcomeReport;
	sink->context = dispatch;
	source->demand = WindowDemand;
	source->context = dispatch;
}

/* Moves all that can be moved without waiting. */
DispatchStatus
DispatchRun(Dispatch *dispatch)
{
	int			left = ROUND_LIMIT;

	if (dispatch->stopping && WaitNow() >= dispatch->stop_by + FINISH_LIMIT)
	{
		DispatchFail(dispatch, "the database did not answer in time; what was not acknowledged will be delivered again");
		return DISPATCH_FAILED;
	}
	dispatch->sink_full = false;
	PublishDrive(dispatch, dispatch->sink->methods->poll);
	do
	{
		DispatchStatus status;

		dispatch->progress = false;
		status = move(dispatch, &left);
		if (status != DISPATCH_WAIT)
			return status;
		PublishFlush(dispatch);
		CheckpointRun(dispatch, dispatch->ended);
		finish(dispatch);
	} while (dispatch->progress && left > 0);
	dispatch->hurry = dispatch->progress;
	return DISPATCH_WAIT;
}

/* Adds what DispatchRun waits for. */
void
DispatchWait(Dispatch *dispatch, WaitSet *set)
{
	if (wants_more(dispatch))
		dispatch->source->methods->wait(dispatch->source, set);
	if (!dispatch->sink_failed)
		dispatch->sink->methods->wait(dispatch->sink, set);
	PublishWait(dispatch, set);
	CheckpointWait(dispatch, set);
	if (dispatch->stopping)
		WaitUntil(set, WaitNow() < dispatch->stop_by ? dispatch->stop_by : dispatch->stop_by + FINISH_LIMIT);
	if (dispatch->hurry)
		WaitUntil(set, WaitNow());
}

/* Finishes what the sink has, and leaves: DispatchRun says when. */
void
DispatchStop(Dispatch *dispatch)
{
	if (dispatch->stopping)
		return;
	dispatch->stopping = true;
	dispatch->progress = true;
	dispatch->stop_by = WaitNow() + WAIT_S(dispatch->config->drain_limit_s);
}

void
DispatchClose(Dispatch *dispatch)
{
	dispatch->sink->methods->close(dispatch->sink);
	WindowFree(dispatch);
	dispatch->source->methods->close(dispatch->source);
}
