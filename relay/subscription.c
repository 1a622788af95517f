/*
 * subscription.c
 *		es_pg's side of a subscription: the statements that the relay sends, and
 *		the messages that come back.
 *
 * Names are qualified with the extension's schema, which need not be on the
 * search path.  Parameters are untyped text, and nothing is prepared, so that
 * all this works behind a connection pooler.
 *
 * A message's text is its own, or if it is large stays in the PGresult of its
 * row, which it owns then.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "subscription.h"

#define ERROR_MAX	2000		/* bytes of a far side's words to keep */
#define COPY_MAX	(64 * 1024) /* a larger message stays in its row */

/* @ is the extension's schema. */
static const char *const statements[REQUEST_KINDS] = {
	[REQUEST_SCHEMA] =
	"SELECT n.nspname FROM pg_catalog.pg_extension e"
	" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
	" WHERE e.extname OPERATOR(pg_catalog.=) 'es_pg'",

	[REQUEST_PROTOCOL] = "SELECT @.es_protocol_version()",

	[REQUEST_LISTEN] = "LISTEN es_pg",

	[REQUEST_CREATE] =
	"SELECT @.es_create_subscription($1, $2, source => $3, lanes => $4,"
	" categories => pg_catalog.regexp_split_to_array($5, '\\s*,\\s*'),"
	" topics => pg_catalog.regexp_split_to_array($6, '\\s*,\\s*'),"
	" types => pg_catalog.regexp_split_to_array($7, '\\s*,\\s*'))",

	/* What a crash of the server takes back of these is delivered again. */
	[REQUEST_ACK] =
	"SELECT pg_catalog.set_config('synchronous_commit', 'off', true), @.es_ack($1, $2, $3, $4)",

	[REQUEST_NACK] = "SELECT @.es_nack($1, $2, $3, $4, $5, NULL, $6)",

	/* In the order of FetchColumn. */
	[REQUEST_FETCH] =
	"SELECT lane, epoch, position, incarnation, message_id, topic, type, source, key,"
	" version, schema_version, payload, headers, correlation_id, causation_id, traceparent,"
	" pg_catalog.encode(payload_binary, 'base64'), content_type,"
	" pg_catalog.to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
	" FROM @.es_fetch($1, $2, $3, session_bound => true,"
	" held_lanes => $4, held_epochs => $5, held_positions => $6)",

	[REQUEST_LOOK] = "SELECT @.es_horizon(), @.es_last_position()",

	[REQUEST_RENEW] = "SELECT lane, epoch FROM @.es_renew($1, $2)",

	[REQUEST_MAINTAIN] = "SELECT @.es_maintain()",

	[REQUEST_RELEASE] = "SELECT @.es_release($1, $2)"
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

/*
 * The configured source, or /es_pg/ and the database, fit for a URI.  Made once,
 * for messages of an earlier connection may point to it.
 */
static void
set_source_name(Subscription *subscription)
{
	Buffer		name = {0};

	if (subscription->source_name != NULL)
		return;
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
send_request(Subscription *subscription, RequestKind kind, const SourcePlace *place,
			 int nparams, const char *const *params)
{
	Request    *request;

	if (subscription->nrequests == subscription->requests_size)
	{
		subscription->requests_size = 2 * subscription->requests_size + 8;
		subscription->requests = MemRealloc(subscription->requests,
											subscription->requests_size * sizeof(Request));
	}
	request = &subscription->requests[subscription->nrequests++];
	*request = (Request) {.kind = kind};
	if (place != NULL)
		request->place = *place;
	PgSend(&subscription->link, subscription->sql[kind], nparams, params);
}

static const char *
null_if_empty(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

static void
send_create(Subscription *subscription)
{
	const PipelineConfig *config = subscription->config;
	char		lanes[16];
	const char *const params[] = {
		config->subscription,
		config->create == RELAY_CREATE_END ? "end" : "beginning",
		config->create_reads == RELAY_READS_OUTBOX ? "outbox" : "events",
		lanes,
		null_if_empty(config->create_categories),
		null_if_empty(config->create_topics),
		null_if_empty(config->create_types)
	};

	snprintf(lanes, sizeof(lanes), "%d", config->create_lanes);
	send_request(subscription, REQUEST_CREATE, NULL, 7, params);
}

void
SubscriptionSend(Subscription *subscription, RequestKind kind)
{
	const PipelineConfig *config = subscription->config;
	const char *const member[] = {config->subscription, config->consumer};

	if (kind == REQUEST_CREATE)
		send_create(subscription);
	else if (kind == REQUEST_RELEASE || kind == REQUEST_RENEW)
		send_request(subscription, kind, NULL, 2, member);
	else
		send_request(subscription, kind, NULL, 0, NULL);
}

/* The texts of a place's numbers. */
typedef struct PlaceText
{
	char		lane[16];
	char		epoch[32];
	char		position[32];
} PlaceText;

static PlaceText
place_text(const SourcePlace *place)
{
	PlaceText	text;

	snprintf(text.lane, sizeof(text.lane), "%d", place->lane);
	snprintf(text.epoch, sizeof(text.epoch), "%lld", (long long) place->epoch);
	snprintf(text.position, sizeof(text.position), "%lld", (long long) place->position);
	return text;
}

void
SubscriptionSendAck(Subscription *subscription, const SourcePlace *place)
{
	PlaceText	text = place_text(place);
	const char *const params[] = {
		subscription->config->subscription, text.lane, text.epoch, text.position
	};

	send_request(subscription, REQUEST_ACK, place, 4, params);
}

/* How many bytes the UTF-8 character has that begins here; 0 if it is none. */
static int
utf8_length(const unsigned char *c)
{
	int			length = c[0] < 0x80 ? 1 : c[0] >= 0xf0 && c[0] < 0xf5 ? 4 :
		c[0] >= 0xe0 && c[0] < 0xf0 ? 3 : c[0] >= 0xc2 && c[0] < 0xe0 ? 2 : 0;

	for (int i = 1; i < length; i++)
	{
		if ((c[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) ||
		(c[0] == 0xf0 && c[1] < 0x90) || (c[0] == 0xf4 && c[1] > 0x8f))
		return 0;
	return length;
}

/*
 * What a far side said, as a text that the database takes: it may be anything,
 * and a database that is not UTF-8 has not every character.
 */
char *
SubscriptionCleanText(const char *text, bool utf8)
{
	Buffer		clean = {0};

	while (*text != '\0' && clean.len < ERROR_MAX)
	{
		int			length = utf8_length((const unsigned char *) text);
		bool		kept = length == 1 || (length > 1 && utf8);

		BufferAppend(&clean, kept ? text : "?", kept ? length : 1);
		text += length > 0 ? length : 1;
	}
	return BufferToText(&clean);
}

static bool
is_utf8(const Subscription *subscription)
{
	const char *encoding = PQparameterStatus(subscription->link.conn, "server_encoding");

	return encoding != NULL && strcmp(encoding, "UTF8") == 0;
}

void
SubscriptionSendNack(Subscription *subscription, const SourcePlace *place,
					 const char *error, bool reject)
{
	PlaceText	text = place_text(place);
	char	   *clean = SubscriptionCleanText(error, is_utf8(subscription));
	const char *const params[] = {
		subscription->config->subscription, text.lane, text.epoch, text.position,
		clean, reject ? "true" : "false"
	};

	send_request(subscription, REQUEST_NACK, place, 6, params);
	free(clean);
}

/* What is held goes as three arrays. */
void
SubscriptionSendFetch(Subscription *subscription, int max_count,
					  const SourcePlace *held, int nheld)
{
	Buffer		lanes = {0};
	Buffer		epochs = {0};
	Buffer		positions = {0};
	char		count[16];
	const char *params[] = {
		subscription->config->subscription, subscription->config->consumer, count, NULL, NULL, NULL
	};

	snprintf(count, sizeof(count), "%d", max_count);
	for (int i = 0; i < nheld; i++)
	{
		char		separator = i == 0 ? '{' : ',';

		BufferAppendf(&lanes, "%c%d", separator, held[i].lane);
		BufferAppendf(&epochs, "%c%lld", separator, (long long) held[i].epoch);
		BufferAppendf(&positions, "%c%lld", separator, (long long) held[i].position);
	}
	if (nheld > 0)
	{
		BufferAppendText(&lanes, "}");
		BufferAppendText(&epochs, "}");
		BufferAppendText(&positions, "}");
		params[3] = BufferToText(&lanes);
		params[4] = BufferToText(&epochs);
		params[5] = BufferToText(&positions);
	}
	send_request(subscription, REQUEST_FETCH, NULL, 6, params);
	BufferFree(&lanes);
	BufferFree(&epochs);
	BufferFree(&positions);
}

/* ---------------------------------------------------------------- answers */

PgStatus
SubscriptionReceive(Subscription *subscription, Request *request, PGresult **result)
{
	PgStatus	status;

	*request = subscription->requests[0];
	status = PgReceive(&subscription->link, request->kind == REQUEST_FETCH, result);
	if (status == PG_END)
	{
		subscription->nrequests--;
		memmove(subscription->requests, subscription->requests + 1,
				subscription->nrequests * sizeof(Request));
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

/* The six bits of a base64 digit; 64 for what is none. */
static uint32_t
base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* Bytes from base64, in the place of that: the row is ours. */
static RelayText
column_bytes(const PGresult *row, FetchColumn number)
{
	RelayText	text = column(row, number);
	char	   *bytes = (char *) text.data;
	size_t		len = 0;
	uint32_t	bits = 0;
	int			nbits = 0;

	for (size_t i = 0; i < text.len; i++)
	{
		uint32_t	digit = base64_digit(text.data[i]);

		if (digit == 64)		/* a line end, or padding */
			continue;
		bits = bits << 6 | digit;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			bytes[len++] = bits >> nbits & 0xff;
		}
	}
	text.len = len;
	return text;
}

static void
read_columns(RelayMessage *message, const PGresult *row)
{
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
	if (message->content_type.data == NULL && message->payload.data != NULL)
		message->content_type = (RelayText) {"application/json", strlen("application/json")};
}

/* The texts of a message, one behind the other as relay.h declares them. */
#define FIRST_TEXT(message) (&(message)->position_text)
#define NTEXTS	((offsetof(RelayMessage, occurred_at) - offsetof(RelayMessage, position_text)) / \
				 sizeof(RelayText) + 1)

/*
 * The same message in memory of its own.  libpq copies the description of all
 * columns into each single row, which is more than most messages are long.
 */
static RelayMessage *
copy_message(const RelayMessage *message, size_t len)
{
	RelayMessage *copy = MemAlloc(len);
	char	   *to = (char *) (copy + 1);

	*copy = *message;
	for (size_t i = 0; i < NTEXTS; i++)
	{
		RelayText  *text = &FIRST_TEXT(copy)[i];

		if (text->data == NULL)
			continue;
		memcpy(to, text->data, text->len);
		text->data = to;
		to += text->len;
	}
	copy->size = len;
	return copy;
}

RelayMessage *
SubscriptionMessage(Subscription *subscription, PGresult *row)
{
	RelayMessage message = {0};
	RelayMessage *copy;
	size_t		len = sizeof(RelayMessage);

	read_columns(&message, row);
	if (message.source.len == 0)
		message.source = (RelayText) {subscription->source_name, strlen(subscription->source_name)};
	for (size_t i = 0; i < NTEXTS; i++)
		len += FIRST_TEXT(&message)[i].len;
	if (len <= COPY_MAX)
	{
		copy = copy_message(&message, len);
		PgFree(row);
		return copy;
	}
	message.owner = row;
	message.size = sizeof(RelayMessage) + PQresultMemorySize(row);
	copy = MemAlloc(sizeof(RelayMessage));
	*copy = message;
	return copy;
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
