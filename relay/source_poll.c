/*
 * source_poll.c
 *		Reads a subscription by es_fetch, and is woken by the armed NOTIFY.
 *
 * The relay is a member of its subscription like any other: es_fetch, es_ack
 * and es_nack are all it has, and the database's cursor is its only memory.
 *
 * A round is es_fetch, if it is time for that, and a look at the log's horizon
 * and its last position.  While the horizon is below the last position, writers
 * are in flight.  Acknowledgements and failures are sent when they come, before,
 * behind and between rounds; answers come in the order of the requests.  Each
 * statement is its own transaction.
 *
 * Fetching ahead.  es_fetch is told what the caller still has, and goes on
 * behind that.  Of a lane of which the caller has something it hands out no
 * parked message that is due; so an acknowledgement that overtakes the rows of a
 * fetch never speaks for a message that was not seen.  When the caller has
 * nothing of a lane any more, such messages may come, and so another fetch is
 * due soon.
 *
 * When to sleep.  An es_fetch that finds nothing arms the database's flag, and
 * the next writer to commit takes it and notifies.  A writer that was past its
 * look at the flag when we armed it does not notify; it was in flight then.  So
 * the relay sleeps until a notification only when the looks before and behind
 * an empty fetch agree: no writer in flight, and the same last position.  Then
 * whoever drew a position had committed before that fetch, which found nothing,
 * and whoever draws one now will see the flag.  The safety poll covers what
 * breaks notifications, a connection pooler above all.
 *
 * A fetch that comes upon messages of a key that waits can only park them, and
 * hands nothing out behind them; its commit notifies, by which the relay knows
 * that it has to fetch again, whatever the horizon does.
 *
 * When not to fetch.  NOTIFY holds a lock through its writer's commit, so a
 * flag that is armed again and again makes the commits of a busy database
 * queue one behind the other.  So while writers are in flight the relay only
 * looks, after a short and growing pause, and fetches when the horizon has
 * moved.  (8 clients whose commits take 3 ms: 1,900 appends a second without a
 * relay, 300 with one that polls by es_fetch, 1,900 with this one; four
 * notifications instead of a thousand.)  If what moves the horizon is nothing
 * for this subscription, the fetches are spaced, and notifications do not
 * shorten that.
 */
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "source_poll.h"

/* Pauses double from the first, up to one of these. */
#define PAUSE_FIRST		WAIT_MS(1)
#define PAUSE_MOVING	WAIT_MS(10) /* the log moves, with nothing for us */
#define PAUSE_STILL		WAIT_MS(100)	/* it is held up by a writer */

/* ---------------------------------------------------------------- rounds */

/* --once: whether all there is to deliver was fetched. */
static bool
is_past_end(const Reader *reader)
{
	return reader->once_until >= 0 && reader->covered >= reader->once_until;
}

/* Asks for messages, if the caller has room, and near the end of --once nothing any more. */
static bool
send_fetch(Reader *reader)
{
	const SourcePlace *held;
	int			room = reader->base.demand(reader->base.context, &held, &reader->held);

	if (room == 0 || (reader->held > 0 && is_past_end(reader)))
		return false;
	SubscriptionSendFetch(&reader->subscription, room, held, reader->held);
	reader->nround++;
	reader->asked = room;
	reader->more = false;
	reader->before = reader->look;
	reader->fetched_at = WaitNow();
	reader->acked = false;
	return true;
}

/*
 * Sends a round.  Housekeeping, when it is due, goes behind the fetch, whose
 * rows go out meanwhile.
 */
static void
send_round(Reader *reader, bool fetch)
{
	int64_t		interval = WAIT_S(reader->config->database->maintain_interval_s);
	int64_t		now = WaitNow();

	/* The membership is kept up by fetching, however long a writer takes. */
	if (now >= reader->fetched_at + WAIT_MS(reader->config->poll_interval_ms))
		fetch = true;
	if (fetch && !send_fetch(reader))
	{
		reader->state = READER_READY;
		return;
	}
	reader->fetched = fetch;
	reader->rows = 0;
	reader->lowest = INT64_MAX;
	reader->state = READER_ROUND;
	reader->notified = false;
	PollSend(reader, REQUEST_LOOK);
	if (reader->config->maintains && interval > 0 && now >= reader->maintain_at && !reader->once)
	{
		PollSend(reader, REQUEST_MAINTAIN);
		reader->maintain_at = now + interval;
	}
}

/* ---------------------------------------------------------------- plans */

static bool
in_flight(const Look *look)
{
	return look->horizon < look->last;
}

/*
 * Whether to fetch rather than to look: there is something new, or nobody is
 * in flight, so that it is time to arm the flag.
 */
static bool
wants_fetch(const Reader *reader)
{
	return reader->look.horizon > reader->covered || !in_flight(&reader->look);
}

/* Whether nothing can be missed by sleeping: see the head of this file. */
static bool
is_settled(const Reader *reader)
{
	return reader->fetched && !in_flight(&reader->before) && !in_flight(&reader->look) &&
		reader->before.last == reader->look.last;
}

/* --once: whether the last fetch, of one who had nothing, found nothing up to the end. */
static bool
is_drained(const Reader *reader)
{
	return is_past_end(reader) && reader->fetched && reader->held == 0 &&
		reader->before.horizon >= reader->once_until && reader->lowest > reader->once_until;
}

static void
sleep_for(Reader *reader, int64_t pause, bool to_fetch, bool deaf)
{
	reader->wake_at = WaitNow() + pause;
	reader->wake_to_fetch = to_fetch;
	reader->deaf = deaf;
	reader->state = READER_SLEEPING;
}

/* The next pause, which the one after that doubles. */
static int64_t
next_pause(Reader *reader, int64_t longest)
{
	int64_t		pause = reader->pause > 0 ? reader->pause : PAUSE_FIRST;

	if (pause > longest)
		pause = longest;
	reader->pause = 2 * pause;
	return pause;
}

/* A round brought nothing: fetches or looks again, or sleeps. */
static void
plan_idle(Reader *reader)
{
	if (is_settled(reader))
	{
		reader->pause = 0;
		sleep_for(reader, WAIT_MS(reader->config->poll_interval_ms), true, false);
	}
	else if (!wants_fetch(reader))
		sleep_for(reader, next_pause(reader, PAUSE_STILL), false, false);
	else if (!reader->fetched)
		send_round(reader, true);
	else if (reader->pause == 0)
	{
		/* In a quiet log, this second look settles it. */
		reader->pause = PAUSE_FIRST;
		send_round(reader, true);
	}
	else
		sleep_for(reader, next_pause(reader, PAUSE_MOVING), true, true);
}

/* All of a round is answered. */
static void
plan(Reader *reader)
{
	if (reader->missing)
	{
		PollSend(reader, REQUEST_CREATE);
		reader->missing = false;
		reader->created = true;
		reader->fetched = false;
		reader->fetched_at = 0;
	}
	else if (is_drained(reader))
		reader->state = READER_DRAINED;
	else if (reader->rows > 0 || reader->more)
		send_round(reader, PollIsFull(reader) || reader->more || wants_fetch(reader));
	else
		plan_idle(reader);
}

/* ---------------------------------------------------------------- states */

static SourceStatus
connecting(Reader *reader)
{
	switch (PgConnect(&reader->subscription.link))
	{
		case PG_WAIT:
			return SOURCE_WAIT;
		case PG_READY:
			reader->was_connected = true;
			reader->state = READER_ROUND;
			PollSend(reader, REQUEST_SCHEMA);
			return SOURCE_AGAIN;
		default:
			return PollReconnect(reader, reader->subscription.link.error.text);
	}
}

/* Takes note of notifications.  SOURCE_AGAIN unless the connection is lost. */
static SourceStatus
listen(Reader *reader)
{
	bool		notified;
	bool		by_us;

	if (PgNotified(&reader->subscription.link, &notified, &by_us) == PG_LOST)
		return PollReconnect(reader, reader->subscription.link.error.text);
	reader->notified |= notified;
	reader->more |= by_us;
	return SOURCE_AGAIN;
}

static SourceStatus
in_round(Reader *reader)
{
	SourceStatus status;

	if (reader->nround > 0)
		return SOURCE_WAIT;
	status = listen(reader);
	if (status == SOURCE_AGAIN)
		plan(reader);
	return status;
}

/* The caller may have room now. */
static SourceStatus
ready(Reader *reader)
{
	SourceStatus status = listen(reader);

	if (status != SOURCE_AGAIN)
		return status;
	send_round(reader, true);
	return reader->state == READER_READY ? SOURCE_WAIT : SOURCE_AGAIN;
}

static SourceStatus
sleeping(Reader *reader)
{
	bool		parked = reader->parked && reader->acked;
	SourceStatus status = listen(reader);

	if (status != SOURCE_AGAIN)
		return status;
	if (WaitNow() < reader->wake_at && (reader->deaf || !reader->notified) && !parked &&
		!(reader->once && reader->acked))
		return SOURCE_WAIT;

	send_round(reader, reader->wake_to_fetch || parked || reader->once);
	return SOURCE_AGAIN;
}

static SourceStatus
drained(Reader *reader)
{
	SourceStatus status = listen(reader);

	return status != SOURCE_AGAIN ? status : SOURCE_END;
}

static SourceStatus
finishing(Reader *reader)
{
	if (reader->subscription.nrequests > 0)
		return SOURCE_WAIT;
	reader->state = READER_DONE;
	return SOURCE_AGAIN;
}

static SourceStatus
done(Reader *reader)
{
	(void) reader;
	return SOURCE_DONE;
}

static SourceStatus (*const states[]) (Reader *reader) = {
	[READER_CONNECTING] = connecting,
	[READER_ROUND] = in_round,
	[READER_READY] = ready,
	[READER_SLEEPING] = sleeping,
	[READER_DRAINED] = drained,
	[READER_FINISHING] = finishing,
	[READER_DONE] = done
};

/* ---------------------------------------------------------------- callbacks */

static Source *
open_reader(const PipelineConfig *config, bool once)
{
	Reader	   *reader = MemAlloc(sizeof(Reader));

	reader->base.methods = &PollSource;
	reader->config = config;
	reader->once = once;
	SubscriptionInit(&reader->subscription, config);
	reader->state = READER_CONNECTING;
	reader->once_until = -1;
	return &reader->base;
}

/* Answers come first, whatever the state. */
static SourceStatus
next(Source *source, SourceEvent *event)
{
	Reader	   *reader = (Reader *) source;
	SourceStatus status;

	do
	{
		status = SOURCE_WAIT;
		if (reader->subscription.nrequests > 0 && reader->state != READER_DONE)
			status = PollReceive(reader, event);
		if (status == SOURCE_WAIT)
			status = states[reader->state] (reader);
	} while (status == SOURCE_AGAIN);
	return status;
}

static void
release(Source *source, RelayMessage *message)
{
	(void) source;
	SubscriptionFreeMessage(message);
}

/* Without a connection there is nothing to say: the caller will be told. */
static bool
is_connected(const Reader *reader)
{
	return reader->subscription.link.ready;
}

static void
ack(Source *source, const SourcePlace *place)
{
	Reader	   *reader = (Reader *) source;

	if (!is_connected(reader))
		return;
	SubscriptionSendAck(&reader->subscription, place);
	reader->owed++;
	reader->acked = true;
}

static void
nack(Source *source, const SourcePlace *place, const char *text, bool reject)
{
	Reader	   *reader = (Reader *) source;

	reader->parked = true;
	if (!is_connected(reader))
		return;
	SubscriptionSendNack(&reader->subscription, place, text, reject);
	reader->owed++;
}

static void
renew(Source *source)
{
	Reader	   *reader = (Reader *) source;

	if (is_connected(reader))
		SubscriptionSend(&reader->subscription, REQUEST_RENEW);
}

static void
finish(Source *source)
{
	Reader	   *reader = (Reader *) source;

	if (reader->state == READER_DONE)
		return;
	if (!is_connected(reader))
	{
		reader->state = READER_DONE;
		return;
	}
	SubscriptionSend(&reader->subscription, REQUEST_RELEASE);
	reader->state = READER_FINISHING;
}

static void
wait_for(Source *source, WaitSet *set)
{
	Reader	   *reader = (Reader *) source;

	PgWait(&reader->subscription.link, set);
	if (reader->state == READER_SLEEPING)
		WaitUntil(set, reader->wake_at);
}

static void
close_reader(Source *source)
{
	Reader	   *reader = (Reader *) source;

	SubscriptionFree(&reader->subscription);
	free(reader->behind);
	free(reader->lanes);
	free(reader);
}

const SourceMethods PollSource = {
	.name = "poll",
	.open = open_reader,
	.next = next,
	.release = release,
	.ack = ack,
	.nack = nack,
	.renew = renew,
	.finish = finish,
	.wait = wait_for,
	.close = close_reader
};
