/*
 * dispatch_outcome.c
 *		What the sink reports, and what follows from it.
 *
 * OK is done.  RETRY and REJECT go to the database at once: it parks the
 * message, and those of its key that it handed out behind it, and all others go
 * on.  What the sink still has of that key is doomed: its contract says that
 * none of it is confirmed, and if one is nevertheless, that was in vain, for it
 * will come again.  DOWN and SPLIT are no message's fault, or of one that is
 * not known: they are given again (dispatch_publish.c), and the database hears
 * nothing of it.
 */
#include "dispatch.h"

#define LOG_INTERVAL	WAIT_S(1)

/* A failure in the log; of many within a second, only their number. */
void
OutcomeLog(Dispatch *dispatch, const RelayMessage *message, const char *what, const char *text)
{
	int64_t		now = WaitNow();

	if (dispatch->logged_at != 0 && now < dispatch->logged_at + LOG_INTERVAL)
	{
		dispatch->unlogged++;
		return;
	}
	if (dispatch->unlogged > 0)
		Log(LOG_WARNING, "%llu more failures were not logged", (unsigned long long) dispatch->unlogged);
	Log(LOG_WARNING, "%s message %.*s at position %.*s: %s", what,
		(int) message->message_id.len, message->message_id.data,
		(int) message->position_text.len, message->position_text.data, text);
	dispatch->logged_at = now;
	dispatch->unlogged = 0;
}

static void
confirm(Dispatch *dispatch, DispatchItem *item)
{
	dispatch->counts.delivered++;
	PublishUp(dispatch, item->lane);
	WindowItemDone(dispatch, item);
	WindowAdvance(dispatch, item->lane);
}

/* The message is to be parked. */
static void
refuse(Dispatch *dispatch, DispatchItem *item, const char *text, bool reject)
{
	SourcePlace place = {item->lane->lane, item->lane->epoch, item->position};

	OutcomeLog(dispatch, item->message, reject ? "the sink rejected" : "the sink failed at", text);
	if (reject)
		dispatch->counts.rejected++;
	else
		dispatch->counts.retried++;
	WindowItemForget(dispatch, item);
	dispatch->source->methods->nack(dispatch->source, &place, text, reject);
}

static void
go_down(Dispatch *dispatch, DispatchItem *item, const char *text)
{
	dispatch->counts.downs++;
	if (dispatch->ndown == 0 && !dispatch->down_logged &&
		(dispatch->down_at == 0 || WaitNow() >= dispatch->down_at + LOG_INTERVAL))
	{
		Log(LOG_WARNING, "the sink is down: %s", text);
		dispatch->down_logged = true;
		dispatch->down_at = WaitNow();
	}
	PublishDown(dispatch, item->lane);
}

/* It was parked behind another one, or its lane is lost. */
static void
ignore(Dispatch *dispatch, DispatchItem *item, SinkOutcome outcome)
{
	if (outcome == SINK_OK)
		dispatch->counts.in_vain++;
	WindowItemDone(dispatch, item);
	WindowAdvance(dispatch, item->lane);
}

static void
take_outcome(Dispatch *dispatch, DispatchItem *item, SinkOutcome outcome, const char *text)
{
	switch (outcome)
	{
		case SINK_OK:
			confirm(dispatch, item);
			break;
		case SINK_RETRY:
		case SINK_REJECT:
			refuse(dispatch, item, text, outcome == SINK_REJECT);
			break;
		case SINK_DOWN:
			go_down(dispatch, item, text);
			break;
		case SINK_SPLIT:
			dispatch->unit_refused++;
			item->lane->again = true;
			PublishSuspect(dispatch, item, true);
			break;
	}
}

/* The sink's word on a message that it was given. */
void
OutcomeReport(void *context, RelayMessage *message, SinkOutcome outcome, const char *text)
{
	Dispatch   *dispatch = context;
	DispatchItem *item = message->item;
	DispatchLane *lane = item->lane;

	if (text == NULL)
		text = "no reason given";
	if (lane->lost)
	{
		dispatch->counts.in_vain += outcome == SINK_OK;
		WindowReported(dispatch, item);
		return;
	}
	WindowReported(dispatch, item);
	if (item->doomed)
		ignore(dispatch, item, outcome);
	else if (outcome == SINK_SPLIT && dispatch->unit == 1)
		refuse(dispatch, item, text, false);	/* against the contract */
	else
		take_outcome(dispatch, item, outcome, text);
	if (lane->with_sink == 0)
		PublishSettled(lane);
}
