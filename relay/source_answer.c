/*
 * source_answer.c
 *		What the database says to the source that polls, and what follows from it.
 *
 * Errors that time or a failover can mend end the connection like a network
 * failure does, and the relay comes back with backoff.  Those that only people
 * can mend end the relay.  An epoch that is over concerns its lane only.
 */
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "source_poll.h"

/* es_protocol_version(): this relay's, and it works with the neighbours. */
#define PROTOCOL		1

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
SourceStatus
PollReconnect(Reader *reader, const char *why)
{
	int64_t		pause;

	if (reader->state == READER_FINISHING && reader->owed == 0)
	{
		reader->state = READER_DONE;
		return SOURCE_AGAIN;
	}
	if (reader->state == READER_FINISHING || (reader->once && !reader->was_connected))
	{
		LogErrorSet(&reader->base.error, "%s%s", why,
					reader->owed > 0 ? "; what was not acknowledged will be delivered again" : "");
		return fail(reader);
	}
	pause = SubscriptionDrop(&reader->subscription);
	Log(LOG_WARNING, "%s; next attempt in %lld ms; what was not acknowledged will be delivered again",
		why, (long long) pause / 1000);

	reader->owed = 0;
	reader->nround = 0;
	reader->rows = 0;
	reader->missing = false;
	reader->state = READER_CONNECTING;
	return SOURCE_RESET;
}

/* The lane of a request is another's now. */
static SourceStatus
lose(const Request *request, const LogError *error, SourceEvent *event)
{
	Log(LOG_WARNING, "%s: %s; the lane's new owner delivers again what was not acknowledged",
		request->kind == REQUEST_ACK ? "es_ack" : "es_nack", error->text);
	event->lane = request->place.lane;
	event->epoch = request->place.epoch;
	return SOURCE_LOST;
}

/* The subscription does not exist.  One that somebody dropped is not made again. */
static SourceStatus
handle_missing(Reader *reader, const LogError *error)
{
	if (reader->config->create != RELAY_CREATE_NO && !reader->created && !reader->existed)
	{
		reader->missing = true;
		return SOURCE_AGAIN;
	}
	LogErrorSet(&reader->base.error,
				"%s; create it with es_create_subscription(), or set \"create\" in section [pipeline%s%s]",
				error->text, reader->config->name[0] != '\0' ? " " : "", reader->config->name);
	return fail(reader);
}

/* A request failed.  SOURCE_AGAIN if that is no reason to stop. */
static SourceStatus
handle_error(Reader *reader, const Request *request, const PGresult *result, SourceEvent *event)
{
	const char *sqlstate = SubscriptionSqlstate(result);
	bool		about_lane = request->kind == REQUEST_ACK || request->kind == REQUEST_NACK;
	LogError	error;

	SubscriptionDescribe(result, &error);
	if (request->kind == REQUEST_MAINTAIN || request->kind == REQUEST_RELEASE)
	{
		Log(LOG_WARNING, "%s: %s", request->kind == REQUEST_MAINTAIN ? "es_maintain" : "es_release", error.text);
		return SOURCE_AGAIN;
	}
	if (about_lane && strcmp(sqlstate, "SE007") == 0)
		return lose(request, &error, event);
	if (request->kind == REQUEST_CREATE && strcmp(sqlstate, "42710") == 0)
		return SOURCE_AGAIN;	/* another relay was faster */
	if (request->kind == REQUEST_FETCH && strcmp(sqlstate, "42704") == 0)
		return handle_missing(reader, &error);
	if (request->kind == REQUEST_PROTOCOL && strcmp(sqlstate, "42883") == 0)
		LogErrorSet(&error, "extension \"es_pg\" is older than this relay: it has no es_protocol_version(); update it");
	else if (!SubscriptionIsPermanent(sqlstate))
		return PollReconnect(reader, error.text);
	reader->base.error = error;
	return fail(reader);
}

/* ---------------------------------------------------------------- answers */

void
PollSend(Reader *reader, RequestKind kind)
{
	SubscriptionSend(&reader->subscription, kind);
	reader->nround++;
}

/* The extension's schema is known: asks what it speaks. */
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
	PollSend(reader, REQUEST_PROTOCOL);
	return SOURCE_AGAIN;
}

/* What it speaks is known: listens, and looks around before the first fetch. */
static SourceStatus
handle_protocol(Reader *reader, const PGresult *result)
{
	int			version = atoi(PQgetvalue(result, 0, 0));

	if (version < PROTOCOL - 1 || version > PROTOCOL + 1)
	{
		LogErrorSet(&reader->base.error,
					"extension \"es_pg\" speaks protocol version %d, this relay (%s) %d and its neighbours: update the %s",
					version, RELAY_VERSION, PROTOCOL, version < PROTOCOL ? "extension" : "relay");
		return fail(reader);
	}
	reader->look = no_look;
	reader->covered = 0;
	reader->pause = 0;
	reader->fetched = false;
	reader->fetched_at = 0;
	PollSend(reader, REQUEST_LISTEN);
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
static SourceStatus
handle_row(Reader *reader, PGresult *row, SourceEvent *event)
{
	RelayMessage *message = SubscriptionMessage(&reader->subscription, row);

	reader->rows++;
	reader->pause = 0;
	if (message->position < reader->lowest)
		reader->lowest = message->position;
	if (message->position > reader->covered)
		reader->covered = message->position;
	event->message = message;
	return SOURCE_MESSAGE;
}

/* What es_nack parked behind the message. */
static SourceStatus
handle_parked(Reader *reader, const Request *request, const PGresult *result, SourceEvent *event)
{
	int			n = PQntuples(result);

	if (n > reader->behind_size)
	{
		reader->behind_size = n;
		reader->behind = MemRealloc(reader->behind, n * sizeof(int64_t));
	}
	for (int i = 0; i < n; i++)
		reader->behind[i] = strtoll(PQgetvalue(result, i, 0), NULL, 10);
	event->lane = request->place.lane;
	event->epoch = request->place.epoch;
	event->position = request->place.position;
	event->behind = reader->behind;
	event->nbehind = n;
	return SOURCE_PARKED;
}

/* The lanes that are ours. */
static SourceStatus
handle_lanes(Reader *reader, const PGresult *result, SourceEvent *event)
{
	int			n = PQntuples(result);

	if (n > reader->lanes_size)
	{
		reader->lanes_size = n;
		reader->lanes = MemRealloc(reader->lanes, n * sizeof(SourcePlace));
	}
	for (int i = 0; i < n; i++)
	{
		reader->lanes[i].lane = atoi(PQgetvalue(result, i, 0));
		reader->lanes[i].epoch = strtoll(PQgetvalue(result, i, 1), NULL, 10);
	}
	event->lanes = reader->lanes;
	event->nlanes = n;
	return SOURCE_LANES;
}

/* A result came.  SOURCE_AGAIN unless the caller has to know. */
static SourceStatus
handle_result(Reader *reader, const Request *request, PGresult *result, SourceEvent *event)
{
	SourceStatus status = SOURCE_AGAIN;

	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		status = handle_error(reader, request, result, event);
	else if (request->kind == REQUEST_FETCH && PQntuples(result) > 0)
		return handle_row(reader, result, event);
	else if (request->kind == REQUEST_NACK)
		status = handle_parked(reader, request, result, event);
	else if (request->kind == REQUEST_RENEW)
		status = handle_lanes(reader, result, event);
	else if (request->kind == REQUEST_SCHEMA)
		status = handle_schema(reader, result);
	else if (request->kind == REQUEST_PROTOCOL)
		status = handle_protocol(reader, result);
	else if (request->kind == REQUEST_LOOK)
		handle_look(reader, result);
	else if (request->kind == REQUEST_CREATE)
		Log(LOG_INFO, "created subscription \"%s\"", reader->config->subscription);
	PgFree(result);
	return status;
}

/*
 * Whether a fetch brought so much that there is more.  Lanes that are far apart
 * share what may be brought, so it need not be all.
 */
bool
PollIsFull(const Reader *reader)
{
	return reader->rows > 0 && reader->rows >= reader->asked / 4;
}

/* A request is answered in full. */
static void
handle_end(Reader *reader, const Request *request)
{
	if (request->kind == REQUEST_ACK || request->kind == REQUEST_NACK)
		reader->owed--;
	else if (request->kind != REQUEST_RENEW)
		reader->nround--;
	if (request->kind == REQUEST_FETCH)
	{
		reader->existed |= !reader->missing;
		BackoffReset(&reader->subscription.link.backoff);
		if (!PollIsFull(reader) && !reader->missing && reader->before.horizon > reader->covered)
			reader->covered = reader->before.horizon;
	}
}

/* The next of what is there.  SOURCE_WAIT if that is nothing. */
SourceStatus
PollReceive(Reader *reader, SourceEvent *event)
{
	Request		request;
	PGresult   *result;

	switch (SubscriptionReceive(&reader->subscription, &request, &result))
	{
		case PG_WAIT:
			return SOURCE_WAIT;
		case PG_RESULT:
			return handle_result(reader, &request, result, event);
		case PG_END:
			handle_end(reader, &request);
			return SOURCE_AGAIN;
		default:
			return PollReconnect(reader, reader->subscription.link.error.text);
	}
}

