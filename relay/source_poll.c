/*
 * source_poll.c
 *		Reads a subscription by es_fetch, and is woken by the armed NOTIFY.
 *
 * The relay is a member of its subscription like any other: es_fetch and
 * es_ack are all it has, and the database's cursor is its only memory.
 *
 * A round is one trip to the database: the acknowledgements of the last batch,
 * es_fetch if it is time for that, and a look at the log's horizon and its last
 * position.  While the horizon is below the last position, writers are in
 * flight.  Each statement is its own transaction.
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
 * When not to fetch.  NOTIFY holds a lock through its writer's commit, so a
 * flag that is armed again and again makes the commits of a busy database
 * queue one behind the other.  So while writers are in flight the relay only
 * looks, after a short and growing pause, and fetches when the horizon has
 * moved.  (8 clients whose commits take 3 ms: 1,900 appends a second without a
 * relay, 300 with one that polls by es_fetch, 1,900 with this one; four
 * notifications instead of a thousand.)  If what moves the horizon is nothing
 * for this subscription, the fetches are spaced, and notifications do not
 * shorten that.
 *
 * Errors of the database.  Those that time or a failover can mend end the
 * connection like a network failure does, and the relay comes back with
 * backoff.  Those that only people can mend end the relay.
 */
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "source.h"
#include "subscription.h"

/* Pauses double from the first, up to one of these. */
#define PAUSE_FIRST		WAIT_MS(1)
#define PAUSE_MOVING	WAIT_MS(10) /* the log moves, with nothing for us */
#define PAUSE_STILL		WAIT_MS(100)	/* it is held up by a writer */

/* Not for the caller: the state has changed, look again. */
#define SOURCE_AGAIN	((SourceStatus) -1)

typedef enum ReaderState
{
	READER_CONNECTING,			/* or waiting for the next attempt */
	READER_RECEIVING,			/* requests are outstanding */
	READER_HANDED_OUT,			/* the batch is the caller's until fetch() */
	READER_SLEEPING,			/* nothing to deliver */
	READER_DONE
} ReaderState;

typedef struct Ack
{
	int			lane;
	int64_t		epoch;
	int64_t		position;
} Ack;

/* The log at a moment; -1 before the first look. */
typedef struct Look
{
	int64_t		horizon;
	int64_t		last;
} Look;

typedef struct Reader
{
	Source		base;
	const PipelineConfig *config;	/* the caller's */
	bool		once;			/* drain what is there, then leave */
	Subscription subscription;
	ReaderState state;
	bool		was_connected;	/* ever */
	bool		missing;		/* the subscription does not exist: create it */
	bool		created;		/* or tried to */

	/* What ack() said since the last round; how many the database owes. */
	Ack		   *acks;
	int			nacks;
	int			acks_size;
	int			acks_sent;

	/* The present round. */
	bool		fetched;		/* it has an es_fetch */
	int			rows;			/* of that, handed out */
	Look		before;			/* the newest look when that was sent */
	Look		look;			/* the newest */
	int64_t		covered;		/* fetched is everything up to here, at least */

	/* Sleeping. */
	int64_t		wake_at;
	int64_t		pause;			/* the next one; 0 until there is need for one */
	bool		wake_to_fetch;	/* not only to look */
	bool		deaf;			/* a notification is no reason to wake */
	bool		notified;		/* since the last round was sent */

	int64_t		fetched_at;
	int64_t		maintain_at;

	/* Leaving. */
	bool		finishing;
	int64_t		once_until;		/* --once: how far to deliver, or -1 */
} Reader;

static const Look no_look = {-1, -1};

/* ---------------------------------------------------------------- failures */

/* Ends the source; the error is set. */
static SourceStatus
fail(Reader *reader)
{
	reader->state = READER_DONE;
	return SOURCE_FAILED;
}

/*
 * Drops the connection and plans the next.  What is not acknowledged will come
 * again from the cursor.
 */
static SourceStatus
reconnect(Reader *reader, const char *why)
{
	bool		owed = reader->rows > 0 || reader->nacks > 0 || reader->acks_sent > 0;
	int64_t		pause;

	if (reader->finishing && owed)
	{
		LogErrorSet(&reader->base.error,
					"%s; what was not acknowledged will be delivered again", why);
		return fail(reader);
	}
	if (reader->once && !reader->was_connected)
	{
		LogErrorSet(&reader->base.error, "%s", why);
		return fail(reader);
	}

	pause = SubscriptionDrop(&reader->subscription);
	Log(LOG_WARNING, "%s; next attempt in %lld ms%s", why, (long long) pause / 1000,
		owed ? "; what was not acknowledged will be delivered again" : "");

	reader->nacks = 0;
	reader->acks_sent = 0;
	reader->rows = 0;
	reader->missing = false;
	reader->state = READER_CONNECTING;
	return SOURCE_RESET;
}

/* A request failed.  SOURCE_AGAIN if that is no reason to stop. */
static SourceStatus
handle_error(Reader *reader, RequestKind kind, const PGresult *result)
{
	const PipelineConfig *config = reader->config;
	const char *sqlstate = SubscriptionSqlstate(result);
	LogError	error;

	SubscriptionDescribe(result, &error);
	if (kind == REQUEST_MAINTAIN)
	{
		Log(LOG_WARNING, "es_maintain: %s", error.text);
		return SOURCE_AGAIN;
	}
	if (kind == REQUEST_ACK && strcmp(sqlstate, "SE007") == 0)
	{
		Log(LOG_WARNING, "es_ack: %s; the lane's new owner delivers again what was not acknowledged",
			error.text);
		return SOURCE_AGAIN;
	}
	if (kind == REQUEST_CREATE && strcmp(sqlstate, "42710") == 0)
		return SOURCE_AGAIN;	/* another relay was faster */
	if (kind == REQUEST_FETCH && strcmp(sqlstate, "42704") == 0 && !reader->created)
	{
		if (config->create != RELAY_CREATE_NO)
		{
			reader->missing = true;
			return SOURCE_AGAIN;
		}
		LogErrorSet(&reader->base.error,
					"%s; create it with es_create_subscription(), or set \"create\" in section [pipeline]",
					error.text);
		return fail(reader);
	}
	if (SubscriptionIsPermanent(sqlstate))
	{
		reader->base.error = error;
		return fail(reader);
	}
	return reconnect(reader, error.text);
}

/* ---------------------------------------------------------------- requests and answers */

/* Whether no further batch is wanted. */
static bool
is_leaving(const Reader *reader)
{
	return reader->finishing ||
		(reader->once_until >= 0 && reader->covered >= reader->once_until);
}

/*
 * Sends a round.  Housekeeping, when it is due, goes behind the fetch, whose
 * rows go out meanwhile.
 */
static void
send_round(Reader *reader, bool fetch)
{
	Subscription *subscription = &reader->subscription;
	int64_t		interval = WAIT_S(reader->config->database->maintain_interval_s);
	int64_t		now = WaitNow();

	for (int i = 0; i < reader->nacks; i++)
		SubscriptionSendAck(subscription, reader->acks[i].lane, reader->acks[i].epoch,
							reader->acks[i].position);
	reader->acks_sent += reader->nacks;
	reader->nacks = 0;
	reader->rows = 0;
	reader->state = READER_RECEIVING;
	reader->notified = false;
	if (is_leaving(reader))
		return;

	/* The membership is kept up by fetching, however long a writer takes. */
	if (now >= reader->fetched_at + WAIT_MS(reader->config->poll_interval_ms))
		fetch = true;
	reader->fetched = fetch;
	if (fetch)
	{
		SubscriptionSend(subscription, REQUEST_FETCH);
		reader->before = reader->look;
		reader->fetched_at = now;
	}
	SubscriptionSend(subscription, REQUEST_LOOK);
	if (interval > 0 && now >= reader->maintain_at && !reader->once)
	{
		SubscriptionSend(subscription, REQUEST_MAINTAIN);
		reader->maintain_at = now + interval;
	}
}

/* The extension's schema is known: listen, and fetch for the first time. */
static SourceStatus
handle_schema(Reader *reader, const PGresult *result)
{
	PGconn	   *conn = reader->subscription.link.conn;

	if (PQntuples(result) == 0)
	{
		LogErrorSet(&reader->base.error,
					"extension \"es_pg\" is not installed in database \"%s\"", PQdb(conn));
		return fail(reader);
	}
	if (!SubscriptionUseSchema(&reader->subscription, PQgetvalue(result, 0, 0)))
	{
		LogErrorSet(&reader->base.error, "%s", PQerrorMessage(conn));
		return fail(reader);
	}

	Log(LOG_INFO, "connected to %s port %s, database \"%s\", extension in schema \"%s\"",
		PQhost(conn), PQport(conn), PQdb(conn), PQgetvalue(result, 0, 0));
	SubscriptionSend(&reader->subscription, REQUEST_LISTEN);
	reader->look = no_look;
	reader->covered = 0;
	send_round(reader, true);
	return SOURCE_AGAIN;
}

static void
handle_look(Reader *reader, const PGresult *result)
{
	reader->look.horizon = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	reader->look.last = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
	if (reader->once && reader->once_until < 0)
		reader->once_until = reader->look.last;
}

/* A row of es_fetch is a message, which takes it over. */
static RelayMessage *
handle_row(Reader *reader, PGresult *row)
{
	RelayMessage *message = SubscriptionMessage(&reader->subscription, row);

	reader->rows++;
	reader->pause = 0;
	if (message->position > reader->covered)
		reader->covered = message->position;
	return message;
}

/* A result came.  SOURCE_AGAIN unless the caller has to know. */
static SourceStatus
handle_result(Reader *reader, RequestKind kind, PGresult *result, RelayMessage **message)
{
	SourceStatus status = SOURCE_AGAIN;

	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		status = handle_error(reader, kind, result);
	else if (kind == REQUEST_SCHEMA)
		status = handle_schema(reader, result);
	else if (kind == REQUEST_LOOK)
		handle_look(reader, result);
	else if (kind == REQUEST_CREATE)
		Log(LOG_INFO, "created subscription \"%s\"", reader->config->subscription);
	else if (kind == REQUEST_FETCH && PQntuples(result) > 0)
	{
		*message = handle_row(reader, result);
		return SOURCE_MESSAGE;
	}
	PgFree(result);
	return status;
}

/* Whether a batch has all the messages that it may have: there may be more. */
static bool
is_full(const Reader *reader)
{
	return reader->rows >= reader->config->batch_size;
}

/* A request is answered in full. */
static SourceStatus
handle_end(Reader *reader, RequestKind kind)
{
	if (kind == REQUEST_ACK)
		reader->acks_sent--;
	else if (kind == REQUEST_FETCH)
	{
		BackoffReset(&reader->subscription.link.backoff);
		if (!is_full(reader) && !reader->missing && reader->before.horizon > reader->covered)
			reader->covered = reader->before.horizon;
	}
	else if (kind == REQUEST_LOOK && reader->rows > 0)
	{
		reader->state = READER_HANDED_OUT;
		return SOURCE_BATCH_END;
	}
	return SOURCE_AGAIN;
}

/* ---------------------------------------------------------------- states */

static SourceStatus
connecting(Reader *reader, RelayMessage **message)
{
	(void) message;
	if (reader->finishing)
	{
		reader->state = READER_DONE;
		return SOURCE_AGAIN;
	}
	switch (PgConnect(&reader->subscription.link))
	{
		case PG_WAIT:
			return SOURCE_WAIT;
		case PG_READY:
			reader->was_connected = true;
			reader->state = READER_RECEIVING;
			SubscriptionSend(&reader->subscription, REQUEST_SCHEMA);
			return SOURCE_AGAIN;
		default:
			return reconnect(reader, reader->subscription.link.error.text);
	}
}

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

/* A round brought nothing to hand out: fetches or looks again, or sleeps. */
static void
plan(Reader *reader)
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

/* All is answered, and there was nothing to hand out. */
static void
round_over(Reader *reader)
{
	if (reader->missing)
	{
		SubscriptionSend(&reader->subscription, REQUEST_CREATE);
		reader->missing = false;
		reader->created = true;
		send_round(reader, true);
	}
	else if (is_leaving(reader))
		reader->state = READER_DONE;
	else
		plan(reader);
}

static SourceStatus
receiving(Reader *reader, RelayMessage **message)
{
	while (reader->subscription.nrequests > 0)
	{
		RequestKind kind;
		PGresult   *result;
		SourceStatus status;

		/* A fetch of which nothing was handed out is nobody's loss. */
		if (reader->finishing && reader->rows == 0 && reader->acks_sent == 0)
		{
			reader->state = READER_DONE;
			return SOURCE_AGAIN;
		}
		switch (SubscriptionReceive(&reader->subscription, &kind, &result))
		{
			case PG_WAIT:
				return SOURCE_WAIT;
			case PG_RESULT:
				status = handle_result(reader, kind, result, message);
				break;
			case PG_END:
				status = handle_end(reader, kind);
				break;
			default:
				return reconnect(reader, reader->subscription.link.error.text);
		}
		if (status != SOURCE_AGAIN)
			return status;
	}

	round_over(reader);
	return SOURCE_AGAIN;
}

static SourceStatus
handed_out(Reader *reader, RelayMessage **message)
{
	(void) reader;
	(void) message;
	return SOURCE_BATCH_END;
}

static SourceStatus
sleeping(Reader *reader, RelayMessage **message)
{
	bool		notified;

	(void) message;
	if (reader->finishing)
	{
		reader->state = READER_DONE;
		return SOURCE_AGAIN;
	}
	if (PgNotified(&reader->subscription.link, &notified) == PG_LOST)
		return reconnect(reader, reader->subscription.link.error.text);
	reader->notified |= notified;
	if (WaitNow() < reader->wake_at && (reader->deaf || !reader->notified))
		return SOURCE_WAIT;

	send_round(reader, reader->wake_to_fetch);
	return SOURCE_AGAIN;
}

static SourceStatus
done(Reader *reader, RelayMessage **message)
{
	(void) reader;
	(void) message;
	return SOURCE_DONE;
}

static SourceStatus (*const states[]) (Reader *reader, RelayMessage **message) = {
	[READER_CONNECTING] = connecting,
	[READER_RECEIVING] = receiving,
	[READER_HANDED_OUT] = handed_out,
	[READER_SLEEPING] = sleeping,
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

static SourceStatus
next(Source *source, RelayMessage **message)
{
	Reader	   *reader = (Reader *) source;
	SourceStatus status;

	do
		status = states[reader->state] (reader, message);
	while (status == SOURCE_AGAIN);
	return status;
}

static void
release(Source *source, RelayMessage *message)
{
	(void) source;
	SubscriptionFreeMessage(message);
}

static void
ack(Source *source, int lane, int64_t epoch, int64_t position)
{
	Reader	   *reader = (Reader *) source;

	if (reader->nacks == reader->acks_size)
	{
		reader->acks_size = 2 * reader->acks_size + 8;
		reader->acks = MemRealloc(reader->acks, reader->acks_size * sizeof(Ack));
	}
	reader->acks[reader->nacks++] = (Ack) {lane, epoch, position};
}

static void
fetch(Source *source)
{
	Reader	   *reader = (Reader *) source;

	send_round(reader, is_full(reader) || wants_fetch(reader));
}

static void
finish(Source *source)
{
	((Reader *) source)->finishing = true;
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
	free(reader->acks);
	free(reader);
}

const SourceMethods PollSource = {
	.name = "poll",
	.open = open_reader,
	.next = next,
	.release = release,
	.ack = ack,
	.fetch = fetch,
	.finish = finish,
	.wait = wait_for,
	.close = close_reader
};
