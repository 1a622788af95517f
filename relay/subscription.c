/*
 * subscription.c
 *		es_pg's side of a subscription: the statements that the relay sends, and
 *		the messages that come back.
 *
 * Names are qualified with the extension's schema, which need not be on the
 * search path.  Parameters are untyped text, and nothing is prepared, so that
 * all this works behind a connection pooler.
 *
 * A message's text stays in the PGresult of its row, which it owns.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "subscription.h"

/* @ is the extension's schema. */
static const char *const statements[REQUEST_KINDS] = {
	[REQUEST_SCHEMA] =
	"SELECT n.nspname FROM pg_catalog.pg_extension e"
	" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
	" WHERE e.extname OPERATOR(pg_catalog.=) 'es_pg'",

	[REQUEST_LISTEN] = "LISTEN es_pg",

	[REQUEST_CREATE] = "SELECT @.es_create_subscription($1, $2)",

	[REQUEST_ACK] = "SELECT @.es_ack($1, $2, $3, $4)",

	/* In the order of FetchColumn. */
	[REQUEST_FETCH] =
	"SELECT lane, epoch, position, incarnation, message_id, topic, type, source, key,"
	" version, schema_version, payload, headers, correlation_id, causation_id, traceparent,"
	" pg_catalog.encode(payload_binary, 'hex'), content_type,"
	" pg_catalog.to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
	" FROM @.es_fetch($1, $2, $3, session_bound => true)",

	[REQUEST_LOOK] = "SELECT @.es_horizon(), @.es_last_position()",

	[REQUEST_MAINTAIN] = "SELECT @.es_maintain()"
};

typedef enum FetchColumn
{
	FETCH_LANE,
	FETCH_EPOCH,
	FETCH_POSITION,
	FETCH_INCARNATION,
	FETCH_MESSAGE_ID,
	FETCH_TOPIC,
	FETCH_TYPE,
	FETCH_SOURCE,
	FETCH_KEY,
	FETCH_VERSION,
	FETCH_SCHEMA_VERSION,
	FETCH_PAYLOAD,
	FETCH_HEADERS,
	FETCH_CORRELATION_ID,
	FETCH_CAUSATION_ID,
	FETCH_TRACEPARENT,
	FETCH_PAYLOAD_BINARY,
	FETCH_CONTENT_TYPE,
	FETCH_OCCURRED_AT
} FetchColumn;

/* ---------------------------------------------------------------- statements */

/* A statement with the schema's name where it has an @. */
static char *
expand(const char *statement, const char *schema)
{
	Buffer		sql = {0};

	for (const char *c = statement; *c != '\0'; c++)
	{
		if (*c == '@')
			BufferAppendText(&sql, schema);
		else
			BufferAppend(&sql, c, 1);
	}
	return BufferToText(&sql);
}

static void
set_statements(Subscription *subscription, const char *schema)
{
	for (int kind = 0; kind < REQUEST_KINDS; kind++)
	{
		free(subscription->sql[kind]);
		subscription->sql[kind] = expand(statements[kind], schema);
	}
}

/* The configured source, or /es_pg/ and the database, fit for a URI. */
static void
set_source_name(Subscription *subscription)
{
	Buffer		name = {0};

	BufferAppendText(&name, subscription->config->source);
	if (name.len == 0)
	{
		BufferAppendText(&name, "/es_pg/");
		for (const char *c = PQdb(subscription->link.conn); *c != '\0'; c++)
		{
			if (isalnum((unsigned char) *c) || strchr("-._~", *c) != NULL)
				BufferAppend(&name, c, 1);
			else
				BufferAppendf(&name, "%%%02X", (unsigned char) *c);
		}
	}
	free(subscription->source_name);
	subscription->source_name = BufferToText(&name);
}

void
SubscriptionInit(Subscription *subscription, const PipelineConfig *config)
{
	memset(subscription, 0, sizeof(*subscription));
	subscription->config = config;
	PgInit(&subscription->link, config->database->conninfo);
	set_statements(subscription, "");
}

void
SubscriptionFree(Subscription *subscription)
{
	PgClose(&subscription->link);
	for (int kind = 0; kind < REQUEST_KINDS; kind++)
		free(subscription->sql[kind]);
	free(subscription->source_name);
	free(subscription->requests);
}

bool
SubscriptionUseSchema(Subscription *subscription, const char *schema)
{
	char	   *quoted = PQescapeIdentifier(subscription->link.conn, schema, strlen(schema));

	if (quoted == NULL)
		return false;
	set_statements(subscription, quoted);
	set_source_name(subscription);
	PQfreemem(quoted);
	return true;
}

/* ---------------------------------------------------------------- requests */

static void
send_request(Subscription *subscription, RequestKind kind, int nparams, const char *const *params)
{
	if (subscription->nrequests == subscription->requests_size)
	{
		subscription->requests_size = 2 * subscription->requests_size + 8;
		subscription->requests = MemRealloc(subscription->requests,
											subscription->requests_size * sizeof(RequestKind));
	}
	subscription->requests[subscription->nrequests++] = kind;
	PgSend(&subscription->link, subscription->sql[kind], nparams, params);
}

static void
send_fetch(Subscription *subscription)
{
	const PipelineConfig *config = subscription->config;
	char		batch_size[16];
	const char *const params[] = {
		config->subscription, config->consumer, batch_size
	};

	snprintf(batch_size, sizeof(batch_size), "%d", config->batch_size);
	send_request(subscription, REQUEST_FETCH, 3, params);
}

static void
send_create(Subscription *subscription)
{
	const PipelineConfig *config = subscription->config;
	const char *const params[] = {
		config->subscription,
		config->create == RELAY_CREATE_END ? "end" : "beginning"
	};

	send_request(subscription, REQUEST_CREATE, 2, params);
}

/* Any request but REQUEST_ACK. */
void
SubscriptionSend(Subscription *subscription, RequestKind kind)
{
	if (kind == REQUEST_FETCH)
		send_fetch(subscription);
	else if (kind == REQUEST_CREATE)
		send_create(subscription);
	else
		send_request(subscription, kind, 0, NULL);
}

void
SubscriptionSendAck(Subscription *subscription, int lane, int64_t epoch, int64_t position)
{
	char		lane_text[16];
	char		epoch_text[32];
	char		position_text[32];
	const char *const params[] = {
		subscription->config->subscription, lane_text, epoch_text, position_text
	};

	snprintf(lane_text, sizeof(lane_text), "%d", lane);
	snprintf(epoch_text, sizeof(epoch_text), "%lld", (long long) epoch);
	snprintf(position_text, sizeof(position_text), "%lld", (long long) position);
	send_request(subscription, REQUEST_ACK, 4, params);
}

/* ---------------------------------------------------------------- answers */

PgStatus
SubscriptionReceive(Subscription *subscription, RequestKind *kind, PGresult **result)
{
	PgStatus	status;

	*kind = subscription->requests[0];
	status = PgReceive(&subscription->link, *kind == REQUEST_FETCH, result);
	if (status == PG_END)
	{
		subscription->nrequests--;
		memmove(subscription->requests, subscription->requests + 1,
				subscription->nrequests * sizeof(RequestKind));
	}
	return status;
}

int64_t
SubscriptionDrop(Subscription *subscription)
{
	subscription->nrequests = 0;
	return PgDrop(&subscription->link);
}

static RelayText
column(const PGresult *row, FetchColumn number)
{
	RelayText	text = {NULL, 0};

	if (!PQgetisnull(row, 0, number))
	{
		text.data = PQgetvalue(row, 0, number);
		text.len = PQgetlength(row, 0, number);
	}
	return text;
}

static int
hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Bytes from their hexadecimal digits, in the place of those: the row is ours. */
static RelayText
column_bytes(const PGresult *row, FetchColumn number)
{
	RelayText	text = column(row, number);
	char	   *bytes = (char *) text.data;

	text.len /= 2;
	for (size_t i = 0; i < text.len; i++)
		bytes[i] = hex_digit(bytes[2 * i]) << 4 | hex_digit(bytes[2 * i + 1]);
	return text;
}

RelayMessage *
SubscriptionMessage(Subscription *subscription, PGresult *row)
{
	RelayMessage *message = MemAlloc(sizeof(RelayMessage));

	message->lane = atoi(PQgetvalue(row, 0, FETCH_LANE));
	message->epoch = strtoll(PQgetvalue(row, 0, FETCH_EPOCH), NULL, 10);
	message->position = strtoll(PQgetvalue(row, 0, FETCH_POSITION), NULL, 10);
	message->position_text = column(row, FETCH_POSITION);
	message->incarnation = column(row, FETCH_INCARNATION);
	message->message_id = column(row, FETCH_MESSAGE_ID);
	message->topic = column(row, FETCH_TOPIC);
	message->type = column(row, FETCH_TYPE);
	message->source = column(row, FETCH_SOURCE);
	message->key = column(row, FETCH_KEY);
	message->version = column(row, FETCH_VERSION);
	message->schema_version = column(row, FETCH_SCHEMA_VERSION);
	message->payload = column(row, FETCH_PAYLOAD);
	message->payload_binary = column_bytes(row, FETCH_PAYLOAD_BINARY);
	message->content_type = column(row, FETCH_CONTENT_TYPE);
	message->headers = column(row, FETCH_HEADERS);
	message->correlation_id = column(row, FETCH_CORRELATION_ID);
	message->causation_id = column(row, FETCH_CAUSATION_ID);
	message->traceparent = column(row, FETCH_TRACEPARENT);
	message->occurred_at = column(row, FETCH_OCCURRED_AT);
	if (message->source.len == 0)
	{
		message->source.data = subscription->source_name;
		message->source.len = strlen(subscription->source_name);
	}
	if (message->content_type.data == NULL && message->payload.data != NULL)
		message->content_type = (RelayText) {"application/json", strlen("application/json")};
	message->owner = row;
	message->size = sizeof(RelayMessage) + PQresultMemorySize(row);
	return message;
}

void
SubscriptionFreeMessage(RelayMessage *message)
{
	PgFree(message->owner);
	free(message);
}

const char *
SubscriptionSqlstate(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL ? sqlstate : "";
}

/* Whether an error is for people to mend: no time and no failover will. */
bool
SubscriptionIsPermanent(const char *sqlstate)
{
	static const char *const classes[] = {
		"0A",					/* not supported */
		"22",					/* a wrong argument */
		"42",					/* a name, a privilege, no such subscription */
		"SE",					/* es_pg's own: not ordered, forked log */
		NULL
	};

	for (int i = 0; classes[i] != NULL; i++)
	{
		if (strncmp(sqlstate, classes[i], 2) == 0)
			return true;
	}
	return false;
}

/* Message, code, detail and hint; not the context, which is es_pg's inside. */
void
SubscriptionDescribe(const PGresult *result, LogError *error)
{
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	if (message == NULL)
		LogErrorSet(error, "%s", PQresultErrorMessage(result));
	else
		LogErrorSet(error, "%s (SQLSTATE %s)%s%s%s%s", message, SubscriptionSqlstate(result),
					detail != NULL ? " DETAIL: " : "", detail != NULL ? detail : "",
					hint != NULL ? " HINT: " : "", hint != NULL ? hint : "");
}
