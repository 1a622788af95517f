/*
 * pg.c
 *		One connection to PostgreSQL that never blocks and comes back.
 *
 * libpq resolves host names while it connects, which is the one thing here
 * that can block.  Everything else is libpq's asynchronous interface, driven
 * by the main loop's wait set.
 *
 * A connection string with several hosts, target_session_attrs and the rest
 * pass through to libpq as they are.  Only connect_timeout is applied here,
 * because libpq leaves that to the caller in its asynchronous interface.
 *
 * Ownership: a PGresult belongs to whom PgReceive gave it, and PgFree is the
 * only place that frees one.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "pg.h"

#define RETRY_BASE			WAIT_MS(100)
#define RETRY_CAP			WAIT_S(10)
#define PATIENCE_DEFAULT	10	/* seconds */
#define RECORD_LOOK_AGAIN	WAIT_MS(20)

/* PostgreSQL's NOTICE and WARNING, and the last words of a backend that ends. */
static void
log_notice(void *context, const char *message)
{
	(void) context;
	Log(LOG_WARNING, "from the database: %s", message);
}

/* Notes why the connection is lost, in libpq's words. */
static PgStatus
lost(PgLink *link)
{
	LogErrorSet(&link->error, "%s", PQerrorMessage(link->conn));
	return PG_LOST;
}

/* libpq quotes the string in question, which may be a password or have one in it. */
static void
set_without_quotes(LogError *error, const char *text)
{
	const char *first = strchr(text, '"');
	const char *last = strrchr(text, '"');

	if (first == NULL)
		LogErrorSet(error, "%s", text);
	else
		LogErrorSet(error, "%.*s\"...\"%s", (int) (first - text), text, last + 1);
}

/* Whether libpq understands a connection string. */
bool
PgCheckConninfo(const char *conninfo, LogError *error)
{
	char	   *text = NULL;
	PQconninfoOption *parsed = PQconninfoParse(conninfo, &text);

	if (parsed == NULL)
		set_without_quotes(error, text != NULL ? text : "out of memory");
	PQfreemem(text);
	PQconninfoFree(parsed);
	return parsed != NULL;
}

void
PgInit(PgLink *link, const char *conninfo)
{
	memset(link, 0, sizeof(*link));
	link->conninfo = conninfo;
	link->backoff.base = RETRY_BASE;
	link->backoff.cap = RETRY_CAP;
}

/* connect_timeout by libpq's rules: it may come from anywhere, and 1 means 2. */
static int64_t
read_patience(PGconn *conn)
{
	PQconninfoOption *parsed = PQconninfo(conn);
	int			seconds = PATIENCE_DEFAULT;

	for (PQconninfoOption *option = parsed; option != NULL && option->keyword != NULL; option++)
	{
		if (strcmp(option->keyword, "connect_timeout") == 0 &&
			option->val != NULL && option->val[0] != '\0')
			seconds = atoi(option->val);
	}
	PQconninfoFree(parsed);
	if (seconds <= 0)
		return WAIT_FOREVER;
	return WAIT_S(seconds == 1 ? 2 : seconds);
}

/*
 * Begins an attempt.  What stands before "dbname" is a default that the
 * connection string overrides, what stands behind it is not: a dead peer must
 * be noticed though the relay has nothing to send, and CloudEvents is UTF-8.
 */
static PgStatus
start(PgLink *link)
{
	const char *const keywords[] = {
		"fallback_application_name",
		"keepalives_idle", "keepalives_interval", "keepalives_count",
		"tcp_user_timeout",
		"dbname", "client_encoding", NULL
	};
	const char *const values[] = {
		"es-relay",
		"30", "10", "3",
		"60000",
		link->conninfo, "UTF8", NULL
	};

	link->conn = PQconnectStartParams(keywords, values, true);
	if (link->conn == NULL)
	{
		LogErrorSet(&link->error, "out of memory");
		return PG_LOST;
	}
	if (PQstatus(link->conn) == CONNECTION_BAD)
		return lost(link);
	PQsetNoticeProcessor(link->conn, log_notice, NULL);
	link->patience = read_patience(link->conn);
	link->events = POLLOUT;
	link->host = NULL;
	return PG_WAIT;
}

/*
 * Keeps the time of the host that libpq tries.  One that takes too long has
 * its socket shut down, from which libpq concludes that it has to go on to the
 * next.  (After the TCP connection is made it gives up the attempt instead.)
 */
static void
watch_host(PgLink *link)
{
	int64_t		now = WaitNow();

	if (link->host == NULL || link->host != PQhost(link->conn))
	{
		link->host = PQhost(link->conn);
		link->host_until = link->patience == WAIT_FOREVER ? WAIT_FOREVER : now + link->patience;
	}
	else if (now >= link->host_until)
	{
		Log(LOG_WARNING, "no answer from %s port %s within %d s",
			PQhost(link->conn), PQport(link->conn), (int) (link->patience / WAIT_S(1)));
		shutdown(PQsocket(link->conn), SHUT_RDWR);
		link->host_until = now + link->patience;
	}
}

/* Whether the socket is ready for what libpq waits for while connecting. */
static bool
socket_ready(PgLink *link)
{
	struct pollfd fd = {.fd = PQsocket(link->conn), .events = link->events};

	return poll(&fd, 1, 0) > 0;
}

/* Drives the connection attempt on: PG_WAIT, PG_READY or PG_LOST. */
PgStatus
PgConnect(PgLink *link)
{
	if (link->conn == NULL)
	{
		if (WaitNow() < link->retry_at)
			return PG_WAIT;
		if (start(link) == PG_LOST)
			return PG_LOST;
	}

	for (;;)
	{
		watch_host(link);
		if (!socket_ready(link))
			return PG_WAIT;
		switch (PQconnectPoll(link->conn))
		{
			case PGRES_POLLING_READING:
				link->events = POLLIN;
				break;
			case PGRES_POLLING_WRITING:
				link->events = POLLOUT;
				break;
			case PGRES_POLLING_OK:
				if (PQsetnonblocking(link->conn, 1) != 0 || !PQenterPipelineMode(link->conn))
					return lost(link);
				link->ready = true;
				link->fresh = true;
				return PG_READY;
			default:
				return lost(link);
		}
	}
}

/*
 * Sends a statement, as far as the socket takes it; PgReceive and PgWait see to
 * the rest.  If that fails, the next PgReceive says so.
 */
void
PgSend(PgLink *link, const char *sql, int nparams, const char *const *params)
{
	link->outstanding++;
	if (!PQsendQueryParams(link->conn, sql, nparams, NULL, params, NULL, NULL, 0) ||
		!PQpipelineSync(link->conn) || PQflush(link->conn) < 0)
		link->unsent = true;
}

/*
 * The next part of the answer to the oldest request: PG_RESULT any number of
 * times, then PG_END.  Row by row, each result is one row, and no more is read
 * from the socket than is asked for here, so the server waits for us.
 */
PgStatus
PgReceive(PgLink *link, bool row_by_row, PGresult **result)
{
	if (link->unsent)
		return lost(link);
	if (link->fresh && row_by_row && !PQsetSingleRowMode(link->conn))
		return lost(link);
	link->fresh = false;

	for (;;)
	{
		PGresult   *res;

		if (PQflush(link->conn) < 0)
			return lost(link);
		if (PQisBusy(link->conn))
		{
			if (!PQconsumeInput(link->conn))
				return lost(link);
			if (PQisBusy(link->conn))
				return PG_WAIT;
		}

		res = PQgetResult(link->conn);
		if (PQstatus(link->conn) == CONNECTION_BAD)
		{
			PgFree(res);
			return lost(link);
		}
		if (PQresultStatus(res) == PGRES_PIPELINE_SYNC)
		{
			PgFree(res);
			link->outstanding--;
			link->fresh = true;
			return PG_END;
		}
		if (res != NULL)
		{
			*result = res;
			return PG_RESULT;
		}
		/* The end of the statement's results; its Sync's comes next. */
	}
}

/* Looks for notifications, of whatever channel: we listen to one.  Some are our own doing. */
PgStatus
PgNotified(PgLink *link, bool *notified, bool *by_us)
{
	PGnotify   *notify;

	*notified = false;
	*by_us = false;
	if (!PQconsumeInput(link->conn))
		return lost(link);
	while ((notify = PQnotifies(link->conn)) != NULL)
	{
		*notified = true;
		*by_us |= notify->be_pid == PQbackendPID(link->conn);
		PQfreemem(notify);
	}
	if (PQstatus(link->conn) == CONNECTION_BAD)
		return lost(link);
	return PG_READY;
}

/* Adds what the connection, or its next attempt, waits for. */
void
PgWait(PgLink *link, WaitSet *set)
{
	if (link->conn == NULL)
		WaitUntil(set, link->retry_at);
	else if (!link->ready)
	{
		WaitForFd(set, PQsocket(link->conn), link->events);
		WaitUntil(set, link->host_until);
	}
	else
	{
		WaitForFd(set, PQsocket(link->conn),
				  POLLIN | (PQflush(link->conn) == 1 ? POLLOUT : 0));

		/* Part of a record may be in the library already, where poll does not see it. */
		if (link->outstanding > 0 && (PQsslInUse(link->conn) || PQgssEncInUse(link->conn)))
			WaitUntil(set, WaitNow() + RECORD_LOOK_AGAIN);
	}
}

/* Closes a lost connection, and returns how long it will stay closed. */
int64_t
PgDrop(PgLink *link)
{
	int64_t		pause = BackoffNext(&link->backoff);

	PgClose(link);
	link->retry_at = WaitNow() + pause;
	return pause;
}

void
PgClose(PgLink *link)
{
	PQfinish(link->conn);
	link->conn = NULL;
	link->ready = false;
	link->unsent = false;
	link->outstanding = 0;
}

void
PgFree(PGresult *result)
{
	PQclear(result);
}
