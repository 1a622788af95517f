/*
 * stream.c
 *		Names, categories, event ids and settings of the event store.
 */
#include "stream.h"

#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "common/cryptohash.h"
#include "common/sha1.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "replication/logicalworker.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "catalog.h"

PG_FUNCTION_INFO_V1(es_category);
PG_FUNCTION_INFO_V1(es_category_id);
PG_FUNCTION_INFO_V1(es_uuid);
PG_FUNCTION_INFO_V1(es_refuse_change);

#define RANDOM_POOL		512		/* random bytes had at once */

static char *correlation_id = NULL;
static char *causation_id = NULL;
static char *traceparent = NULL;

/* The namespace in which es_uuid makes a namespace of any text. */
static const unsigned char namespace_of_namespaces[UUID_LEN] = {
	0x6b, 0x1f, 0x0c, 0x5e, 0x9a, 0x3d, 0x4e, 0x52,
	0x8f, 0x27, 0xd1, 0x44, 0x70, 0xb8, 0x65, 0x3a
};

static bool
has_control_characters(const char *data, int length)
{
	for (int i = 0; i < length; i++)
	{
		if ((unsigned char) data[i] < 0x20 || data[i] == 0x7f)
			return true;
	}
	return false;
}

/* Names and ids: no more than ES_NAME_MAX bytes, nothing that cannot be seen. */
void
EsCheckText(const text *value, const char *what)
{
	int			length = VARSIZE_ANY_EXHDR(value);

	if (length > ES_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is too long", what),
				 errdetail("It has %d bytes; at most %d are allowed.", length, ES_NAME_MAX)));
	if (has_control_characters(VARDATA_ANY(value), length))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not contain control characters", what)));
}

/* The same, and not empty. */
void
EsCheckName(const text *name, const char *what)
{
	if (VARSIZE_ANY_EXHDR(name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	EsCheckText(name, what);
}

/* A required name among a function's arguments. */
text *
EsArgName(FunctionCallInfo fcinfo, int arg, const char *what)
{
	text	   *name;

	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	name = PG_GETARG_TEXT_PP(arg);
	EsCheckName(name, what);
	return name;
}

/* How many bytes of a stream's name are its category; checks the name. */
int
EsCategoryLength(const text *stream)
{
	const char *data = VARDATA_ANY(stream);
	int			length = VARSIZE_ANY_EXHDR(stream);
	const char *dash = memchr(data, '-', length);

	if (dash == data)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream name must not begin with \"-\""),
				 errdetail("What stands before the first \"-\" is the stream's category.")));
	return dash ? dash - data : length;
}

/* Never change this: it is stored with every event. */
int32
EsCategoryHash(const char *category, int length)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, category, length);
	FIN_CRC32C(crc);
	return (int32) crc;
}

/* Random bytes, taken many at a time: a call costs far more than its bytes. */
static void
random_bytes(unsigned char *bytes, int n)
{
	static unsigned char pool[RANDOM_POOL];
	static int	left = 0;

	if (left < n)
	{
		left = 0;
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= n;
	memcpy(bytes, pool + left, n);
}

/*
 * A UUIDv7: milliseconds, then 12 bits of a finer clock, then chance.  Within a
 * backend they always rise.
 */
void
EsUuidNext(pg_uuid_t *uuid)
{
	static uint64 last_ticks = 0;	/* of 1/4096 ms since the Unix epoch */
	uint64		usecs;
	uint64		ticks;
	uint64		ms;

	usecs = (uint64) GetCurrentTimestamp() +
		(uint64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * USECS_PER_SEC;
	ticks = (usecs / 1000) * 4096 + (usecs % 1000) * 4096 / 1000;
	if (ticks <= last_ticks)
		ticks = last_ticks + 1;
	last_ticks = ticks;

	ms = ticks / 4096;
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	uuid->data[6] = 0x70 | ((ticks >> 8) & 0x0f);
	uuid->data[7] = ticks & 0xff;
	random_bytes(&uuid->data[8], UUID_LEN - 8);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}

/* A W3C traceparent of version 00: 00-<32 hex>-<16 hex>-<2 hex>. */
bool
EsIsTraceparent(const char *value)
{
	return strlen(value) == 55 && value[2] == '-' && value[35] == '-' && value[52] == '-' &&
		strspn(value, "0123456789abcdef") == 2 &&
		strspn(value + 3, "0123456789abcdef") == 32 &&
		strspn(value + 36, "0123456789abcdef") == 16 &&
		strspn(value + 53, "0123456789abcdef") == 2;
}

static bool
check_traceparent(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || **newval == '\0' || EsIsTraceparent(*newval))
		return true;
	GUC_check_errdetail("A traceparent looks like \"%s\".", ES_TRACEPARENT_EXAMPLE);
	return false;
}

static bool
check_id(char **newval, void **extra, GucSource source)
{
	const char *value = *newval;

	if (value == NULL)
		return true;
	if (strlen(value) <= ES_NAME_MAX && !has_control_characters(value, strlen(value)))
		return true;
	GUC_check_errdetail("An id has at most %d bytes and no control characters.", ES_NAME_MAX);
	return false;
}

static text *
setting_text(const char *value)
{
	return value && *value ? cstring_to_text(value) : NULL;
}

text *
EsSettingCorrelationId(void)
{
	return setting_text(correlation_id);
}

text *
EsSettingCausationId(void)
{
	return setting_text(causation_id);
}

text *
EsSettingTraceparent(void)
{
	return setting_text(traceparent);
}

void
EsStreamInit(void)
{
	DefineCustomStringVariable("es_pg.correlation_id",
							   "Correlation id of events and messages whose call gives none.",
							   NULL, &correlation_id, "", PGC_USERSET, 0, check_id, NULL, NULL);
	DefineCustomStringVariable("es_pg.causation_id",
							   "Causation id of events and messages whose call gives none.",
							   NULL, &causation_id, "", PGC_USERSET, 0, check_id, NULL, NULL);
	DefineCustomStringVariable("es_pg.traceparent",
							   "W3C traceparent of the events and messages.",
							   NULL, &traceparent, "", PGC_USERSET, 0, check_traceparent, NULL, NULL);
	EsCatalogOnInvalidation(EsStreamNamesInvalidate);
}

Datum
es_category(PG_FUNCTION_ARGS)
{
	text	   *stream = EsArgName(fcinfo, 0, "stream name");

	PG_RETURN_TEXT_P(cstring_to_text_with_len(VARDATA_ANY(stream), EsCategoryLength(stream)));
}

Datum
es_category_id(PG_FUNCTION_ARGS)
{
	text	   *category = EsArgName(fcinfo, 0, "category");

	PG_RETURN_INT32(EsCategoryHash(VARDATA_ANY(category), VARSIZE_ANY_EXHDR(category)));
}

/* RFC 9562, section 5.5. */
static void
uuid_v5(pg_uuid_t *uuid, const unsigned char *namespace, const text *name)
{
	uint8		digest[SHA1_DIGEST_LENGTH];
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA1);

	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, namespace, UUID_LEN) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a SHA-1 hash")));
	pg_cryptohash_free(ctx);

	memcpy(uuid->data, digest, UUID_LEN);
	uuid->data[6] = 0x50 | (uuid->data[6] & 0x0f);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}

/* Does this text have the form 8-4-4-4-12 of a UUID?  If so, take it. */
static bool
parse_uuid(const text *value, pg_uuid_t *uuid)
{
	const char *data = VARDATA_ANY(value);
	int			out = 0;

	if (VARSIZE_ANY_EXHDR(value) != 36)
		return false;
	for (int i = 0; i < 36;)
	{
		uint8		byte;

		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (data[i++] != '-')
				return false;
			continue;
		}
		if (!isxdigit((unsigned char) data[i]) || !isxdigit((unsigned char) data[i + 1]))
			return false;
		hex_decode(data + i, 2, (char *) &byte);
		uuid->data[out++] = byte;
		i += 2;
	}
	return true;
}

Datum
es_uuid(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *result = palloc(sizeof(pg_uuid_t));
	pg_uuid_t	namespace;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("namespace and name must not be null")));
	if (!parse_uuid(PG_GETARG_TEXT_PP(0), &namespace))
		uuid_v5(&namespace, namespace_of_namespaces, PG_GETARG_TEXT_PP(0));
	uuid_v5(result, namespace.data, PG_GETARG_TEXT_PP(1));
	PG_RETURN_UUID_P(result);
}

/* The statement of the portal that runs now, if that is a COPY FROM. */
static const CopyStmt *
running_copy_from(void)
{
	PlannedStmt *planned = ActivePortal != NULL && list_length(ActivePortal->stmts) == 1 ?
		linitial_node(PlannedStmt, ActivePortal->stmts) : NULL;
	const Node *statement = planned ? planned->utilityStmt : NULL;

	if (statement == NULL || !IsA(statement, CopyStmt) || !((const CopyStmt *) statement)->is_from)
		return NULL;
	return (const CopyStmt *) statement;
}

/*
 * Does this INSERT bring back rows that es_append once wrote?  A restore uses
 * COPY into this table, and so does a new logical subscriber.  A COPY that some
 * function runs, and an INSERT by a function that a COPY calls, are not that.
 */
static bool
is_restore(Relation rel)
{
	const CopyStmt *copy = running_copy_from();

	if (IsLogicalWorker())
		return true;
	return copy != NULL && copy->relation != NULL &&
		RangeVarGetRelid(copy->relation, NoLock, true) == RelationGetRelid(rel) &&
		DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0)) == 1;
}

static void
refuse_change(Relation rel, const char *what, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_IMMUTABLE),
			 errmsg("cannot change %s in \"%s\"", what, RelationGetRelationName(rel)),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* The trigger that keeps history as it is. */
Datum
es_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	rel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"es_refuse_change\" was not called by trigger manager")));
	rel = trigger->tg_relation;
	if (RelationGetRelid(rel) == EsCatalogGet()->streams)
		refuse_change(rel, "streams",
					  "The row of a stream is how its events are found.",
					  "Set deleted to end a stream, truncate_before to hide its older events.");
	if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		refuse_change(rel, "events",
					  "An event is a fact: it cannot be updated or deleted.",
					  "Append an event that corrects it.");
	if (!is_restore(rel))
		refuse_change(rel, "events",
					  "Readers could miss a row whose position was not drawn by es_append.",
					  "Use es_append. A restore uses COPY, which is let through.");
	return PointerGetDatum(NULL);
}
