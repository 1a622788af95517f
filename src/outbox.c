/*
 * outbox.c
 *		Publishing messages to the outbox, past the executor.
 *
 * A publish takes no lock but that of the chunk it writes to: check the
 * arguments, draw the positions, write.  So two transactions that publish the
 * same key do not wait for each other, and their messages are in the order in
 * which they drew, which is the order of their calls and need not be that of
 * their commits.  Who needs the latter holds a lock of the entity's own while
 * publishing, as a transaction that updated its row does anyway.
 *
 * A message id is the consumers' means of removing duplicates.  It is not
 * unique here: an index on it would cost every publish, to guard against what a
 * rollback takes back anyway, since the message and what it tells commit together.
 *
 * A message for later goes to es_delayed (outbox_delayed.c).
 */
#include "outbox.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "chunk.h"
#include "privilege.h"
#include "projection.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_publish);
PG_FUNCTION_INFO_V1(es_publish_batch);
PG_FUNCTION_INFO_V1(es_publish_binary);

/* What a chunk's writer asks for, row by row. */
typedef struct Filling
{
	const EsMessages *messages;
	EsPosition	first;
	TimestampTz now;
} Filling;

/*
 * A message's columns from message_id on, into arrays that begin with that
 * column.  A message without an id gets one, in the current memory context.
 */
void
EsMessageValues(const EsMessages *messages, uint32 i, Datum *values, bool *nulls)
{
	for (AttrNumber column = Anum_es_outbox_message_id; column <= Natts_es_outbox; column++)
	{
		int			at = column - Anum_es_outbox_message_id;

		values[at] = EsColumnValue(&messages->columns[column], i, &nulls[at]);
	}
	if (nulls[0])
	{
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		EsUuidNext(id);
		values[0] = UUIDPGetDatum(id);
		nulls[0] = false;
	}
}

static void
fill_slot(TupleTableSlot *slot, uint32 i, void *arg)
{
	const Filling *filling = arg;
	const int	before = Anum_es_outbox_message_id - 1;

	EsMessageValues(filling->messages, i, slot->tts_values + before, slot->tts_isnull + before);
	slot->tts_values[Anum_es_outbox_position - 1] = Int64GetDatum((int64) (filling->first + i));
	slot->tts_values[Anum_es_outbox_created_at - 1] = TimestampTzGetDatum(filling->now);
	memset(slot->tts_isnull, false, before * sizeof(bool));
}

/*
 * Publish messages in the current transaction, at consecutive positions; returns
 * the last.  The caller has checked the columns' values.
 */
EsPosition
EsPublish(const EsMessages *messages)
{
	EsInline   *inlines = EsInlineBegin(ES_CHUNK_OUTBOX, NULL);
	EsPosition	first = EsPositionsDraw(messages->n);
	EsPosition	last = first + messages->n - 1;
	Filling		filling = {messages, first, GetCurrentTimestamp()};
	EsLeaf		leaf = {ES_CHUNK_OUTBOX, Natts_es_outbox, inlines ? EsInlineSee : NULL, inlines};

	EsChunkEnsure(ES_CHUNK_OUTBOX, first, last);
	for (uint32 done = 0; done < messages->n;)
		done += EsLeafWrite(&leaf, first + done, done, messages->n, fill_slot, &filling);
	EsChunkAhead(ES_CHUNK_OUTBOX, &leaf.chunk, last);
	EsLeafClose(&leaf);
	if (inlines != NULL)
		EsInlineRun(inlines);
	return last;
}

/* A topic that users may publish to; es_pg's own begin with "$". */
void
EsCheckTopic(const text *topic)
{
	EsCheckName(topic, "topic");
	if (VARDATA_ANY(topic)[0] == '$')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("topic \"%s\" is reserved", text_to_cstring(topic)),
				 errdetail("Topics that begin with \"$\" are es_pg's own.")));
}

/* The topic, the first argument of all that publishes, if the user may publish to it. */
text *
EsArgTopic(FunctionCallInfo fcinfo)
{
	text	   *topic = EsArgName(fcinfo, 0, "topic");

	EsCheckTopic(topic);
	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_PUBLISH, VARDATA_ANY(topic), VARSIZE_ANY_EXHDR(topic));
	return topic;
}

/* What every form takes: the topic and the trace. */
static void
begin_messages(EsMessages *messages, FunctionCallInfo fcinfo, uint32 n)
{
	memset(messages, 0, sizeof(*messages));
	messages->n = n;
	EsColumnSetText(&messages->columns[Anum_es_outbox_topic], EsArgTopic(fcinfo));
	EsColumnSetText(&messages->columns[Anum_es_outbox_traceparent], EsSettingTraceparent());
}

/* The ids that tie a message to others; "arg" is the first of the two. */
static void
set_ids(EsMessages *messages, FunctionCallInfo fcinfo, int arg)
{
	EsColumnSetId(&messages->columns[Anum_es_outbox_correlation_id], fcinfo, arg,
				  EsSettingCorrelationId(), "correlation id");
	EsColumnSetId(&messages->columns[Anum_es_outbox_causation_id], fcinfo, arg + 1,
				  EsSettingCausationId(), "causation id");
}

/* Headers are objects. */
void
EsMessagesCheckHeaders(const EsMessages *messages)
{
	const EsColumn *column = &messages->columns[Anum_es_outbox_headers];

	for (uint32 i = 0; column->values != NULL && i < messages->n; i++)
	{
		bool		isnull;
		Datum		headers = EsColumnValue(column, i, &isnull);

		if (!isnull && !JB_ROOT_IS_OBJECT(DatumGetJsonbP(headers)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("headers must be a JSON object")));
	}
}

/* Key, headers and message id of one message; "arg" is the first of the three. */
static void
set_single(EsMessages *messages, FunctionCallInfo fcinfo, int arg)
{
	if (!PG_ARGISNULL(arg))
		EsColumnSetText(&messages->columns[Anum_es_outbox_key], EsArgName(fcinfo, arg, "message key"));
	if (!PG_ARGISNULL(arg + 1))
		EsColumnSet(&messages->columns[Anum_es_outbox_headers], PointerGetDatum(PG_GETARG_JSONB_P(arg + 1)));
	if (!PG_ARGISNULL(arg + 2))
		EsColumnSet(&messages->columns[Anum_es_outbox_message_id], PG_GETARG_DATUM(arg + 2));
	EsMessagesCheckHeaders(messages);
}

/* May this transaction publish, and has the outbox room?  Called before EsPublish. */
void
EsPublishCheck(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	EsProjectionsCheckWrite();
	EsBacklogCheck();
}

/* Publish one message now, or at a time that has not come yet: then there is no position. */
static Datum
publish_at(const EsMessages *messages, FunctionCallInfo fcinfo, int arg)
{
	if (!PG_ARGISNULL(arg))
	{
		TimestampTz deliver_after = PG_GETARG_TIMESTAMPTZ(arg);

		if (TIMESTAMP_NOT_FINITE(deliver_after))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("deliver_after must be finite")));
		if (deliver_after > GetCurrentTimestamp())
		{
			EsDelay(messages, deliver_after);
			PG_RETURN_NULL();
		}
	}
	PG_RETURN_INT64((int64) EsPublish(messages));
}

/* es_publish(topic, type, payload, key, headers, message_id, deliver_after,
 *			  correlation_id, causation_id) */
Datum
es_publish(PG_FUNCTION_ARGS)
{
	EsMessages	messages;

	begin_messages(&messages, fcinfo, 1);
	EsColumnSetText(&messages.columns[Anum_es_outbox_type], EsArgName(fcinfo, 1, "message type"));
	EsArgRequire(PG_ARGISNULL(2), "payload");
	EsColumnSet(&messages.columns[Anum_es_outbox_payload], PG_GETARG_DATUM(2));
	set_single(&messages, fcinfo, 3);
	set_ids(&messages, fcinfo, 7);
	EsPublishCheck("es_publish()");
	return publish_at(&messages, fcinfo, 6);
}

/* es_publish_binary(topic, type, payload, content_type, key, headers, message_id,
 *					 deliver_after, correlation_id, causation_id) */
Datum
es_publish_binary(PG_FUNCTION_ARGS)
{
	EsMessages	messages;

	begin_messages(&messages, fcinfo, 1);
	EsColumnSetText(&messages.columns[Anum_es_outbox_type], EsArgName(fcinfo, 1, "message type"));
	EsArgRequire(PG_ARGISNULL(2), "payload");
	EsColumnSet(&messages.columns[Anum_es_outbox_payload_binary], PG_GETARG_DATUM(2));
	EsColumnSetText(&messages.columns[Anum_es_outbox_content_type], EsArgName(fcinfo, 3, "content type"));
	set_single(&messages, fcinfo, 4);
	set_ids(&messages, fcinfo, 8);
	EsPublishCheck("es_publish_binary()");
	return publish_at(&messages, fcinfo, 7);
}

/* An array argument becomes a column of as many messages as there are types. */
static void
set_array(EsMessages *messages, AttrNumber column, FunctionCallInfo fcinfo, int arg,
		  bool required, const char *what)
{
	(void) EsColumnSetArray(&messages->columns[column], messages->n, fcinfo, arg, required, what);
}

/* es_publish_batch(topic, types[], payloads[], keys[], headers[], message_ids[],
 *					correlation_id, causation_id) */
Datum
es_publish_batch(PG_FUNCTION_ARGS)
{
	EsMessages	messages;
	EsColumn   *types = &messages.columns[Anum_es_outbox_type];

	begin_messages(&messages, fcinfo, 0);
	messages.n = EsColumnSetArray(types, -1, fcinfo, 1, true, "message types");
	set_array(&messages, Anum_es_outbox_payload, fcinfo, 2, true, "payloads");
	set_array(&messages, Anum_es_outbox_key, fcinfo, 3, false, "message keys");
	set_array(&messages, Anum_es_outbox_headers, fcinfo, 4, false, "headers");
	set_array(&messages, Anum_es_outbox_message_id, fcinfo, 5, false, "message ids");
	EsBatchCheckSize(messages.n, "message");
	EsColumnCheckNames(types, messages.n, "message type");
	EsColumnCheckNames(&messages.columns[Anum_es_outbox_key], messages.n, "message key");
	EsMessagesCheckHeaders(&messages);
	set_ids(&messages, fcinfo, 6);
	EsPublishCheck("es_publish_batch()");
	PG_RETURN_INT64((int64) EsPublish(&messages));
}

void
EsOutboxInit(void)
{
	EsDelayedInit();
	EsBacklogInit();
}
