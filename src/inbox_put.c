/*
 * inbox_put.c
 *		es_inbox_put: a message is stored once, to be handled later.
 *
 * A durable inbox is a topic of the outbox, which nobody else can publish to,
 * and a subscription to it, whose name is the same.  To put a message is to take
 * its mark, as es_inbox_accept does, and to publish it there in the same
 * transaction.  All that comes after that, order, attempts, dead letters, is the
 * subscription's.
 */
#include "inbox_durable.h"

#include "access/genam.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_inbox_put);
PG_FUNCTION_INFO_V1(es_inbox_put_batch);

/* Columns of es_inboxes. */
enum
{
	Anum_es_inboxes_consumer_id = 1,
	Anum_es_inboxes_handler_timeout,
	Anum_es_inboxes_first_sequence,
	Anum_es_inboxes_resequence_timeout,
	Anum_es_inboxes_on_missing,
	Anum_es_inboxes_name
};

/* The durable inbox of a consumer. */
void
EsInboxFind(const text *consumer, EsInbox *inbox)
{
	EsProbe		probe;
	ScanKeyData key;
	Interval   *timeout;
	bool		isnull;

	if (!EsInboxConsumerFind(consumer, &inbox->consumer))
		inbox->consumer = 0;

	EsProbeOpen(&probe, EsCatalogGet()->inboxes, EsCatalogGet()->inboxes_pkey);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(inbox->consumer));
	if (!EsIndexProbe(probe.rel, probe.index, SnapshotSelf, &key, 1, ForwardScanDirection, probe.slot))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" has no inbox", text_to_cstring(consumer)),
				 errhint("Use es_create_inbox.")));
	inbox->name = DatumGetTextPCopy(slot_getattr(probe.slot, Anum_es_inboxes_name, &isnull));
	timeout = DatumGetIntervalP(slot_getattr(probe.slot, Anum_es_inboxes_handler_timeout, &isnull));
	inbox->handler_usecs = timeout->time + timeout->day * USECS_PER_DAY;
	(void) slot_getattr(probe.slot, Anum_es_inboxes_resequence_timeout, &isnull);
	inbox->resequences = !isnull;
	EsProbeClose(&probe);
}

/* What both forms do when their arguments are good: find the inbox, and set what all messages share. */
static void
begin(const text *consumer, const char *command, EsInbox *inbox, EsMessages *messages)
{
	EsInboxFind(consumer, inbox);
	EsPublishCheck(command);
	EsColumnSetText(&messages->columns[Anum_es_outbox_topic], inbox->name);
	EsColumnSetText(&messages->columns[Anum_es_outbox_traceparent], EsSettingTraceparent());
}

static void
check_sequence(int64 sequence, bool has_key)
{
	EsCheckSequence(sequence);
	if (!has_key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message with a sequence must have a key")));
}

static void
seal(EsMessages *messages, const EsEnvelope *envelope)
{
	EsColumnSet(&messages->columns[Anum_es_outbox_headers], JsonbPGetDatum(EsEnvelopeSeal(envelope)));
}

/* Either form of payload among the arguments. */
static void
set_payload(EsMessages *messages, FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(5) == PG_ARGISNULL(11))
		ereport(ERROR,
				(errcode(PG_ARGISNULL(5) ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either payload or payload_binary must be given")));
	if (PG_ARGISNULL(11))
		EsColumnSet(&messages->columns[Anum_es_outbox_payload], PG_GETARG_DATUM(5));
	else
	{
		EsColumnSet(&messages->columns[Anum_es_outbox_payload_binary], PG_GETARG_DATUM(11));
		EsColumnSetText(&messages->columns[Anum_es_outbox_content_type], EsArgName(fcinfo, 12, "content type"));
	}
}

/* The arguments of es_inbox_put that are the message's own. */
static void
set_message(EsMessages *messages, FunctionCallInfo fcinfo, EsEnvelope *envelope)
{
	messages->n = 1;
	envelope->message_id = EsArgName(fcinfo, 1, "message id");
	envelope->topic = EsArgName(fcinfo, 2, "topic");
	EsColumnSetText(&messages->columns[Anum_es_outbox_type], EsArgName(fcinfo, 3, "message type"));
	if (!PG_ARGISNULL(4))
		EsColumnSetText(&messages->columns[Anum_es_outbox_key], EsArgName(fcinfo, 4, "message key"));
	set_payload(messages, fcinfo);
	if (!PG_ARGISNULL(6))
	{
		envelope->headers = PG_GETARG_JSONB_P(6);
		EsColumnSet(&messages->columns[Anum_es_outbox_headers], JsonbPGetDatum(envelope->headers));
		EsEnvelopeCheck(messages);
	}
	envelope->numbered = !PG_ARGISNULL(7);
	if (envelope->numbered)
	{
		envelope->sequence = PG_GETARG_INT64(7);
		check_sequence(envelope->sequence, !PG_ARGISNULL(4));
	}
	EsColumnSetId(&messages->columns[Anum_es_outbox_correlation_id], fcinfo, 9,
				  EsSettingCorrelationId(), "correlation id");
	EsColumnSetId(&messages->columns[Anum_es_outbox_causation_id], fcinfo, 10,
				  EsSettingCausationId(), "causation id");
}

/* es_inbox_put(consumer, message_id, topic, type, key, payload, headers, sequence, message_time,
 *				correlation_id, causation_id, payload_binary, content_type) */
Datum
es_inbox_put(PG_FUNCTION_ARGS)
{
	text	   *consumer = EsArgInbox(fcinfo, 0, NULL, "es_inbox_put()");
	EsMessages	messages = {0};
	EsEnvelope	envelope = {NULL};
	EsInbox		inbox;

	set_message(&messages, fcinfo, &envelope);
	begin(consumer, "es_inbox_put()", &inbox, &messages);
	if (!EsInboxAccept(inbox.consumer, envelope.message_id,
					   PG_ARGISNULL(8) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(8)))
		PG_RETURN_BOOL(false);
	seal(&messages, &envelope);
	if (envelope.numbered)
		PG_RETURN_BOOL(EsResequence(&inbox, &messages, envelope.sequence));
	(void) EsPublish(&messages);
	PG_RETURN_BOOL(true);
}

/* ---------------------------------------------------------------- the batch */

/* What es_inbox_put_batch was given. */
typedef struct Batch
{
	EsInbox		inbox;
	EsMessages	messages;		/* all of them, with headers as they came */
	EsColumn	ids;
	EsColumn	sequences;
	EsColumn	times;
	const text *topic;
	bool	   *accepted;
} Batch;

static void
set_column(Batch *batch, EsColumn *column, FunctionCallInfo fcinfo, int arg, bool required, const char *what)
{
	(void) EsColumnSetArray(column, batch->messages.n, fcinfo, arg, required, what);
}

static void
check_sequences(const Batch *batch)
{
	for (uint32 i = 0; batch->sequences.values != NULL && i < batch->messages.n; i++)
	{
		bool		no_sequence;
		bool		no_key;
		Datum		sequence = EsColumnValue(&batch->sequences, i, &no_sequence);

		(void) EsColumnValue(&batch->messages.columns[Anum_es_outbox_key], i, &no_key);
		if (!no_sequence)
			check_sequence(DatumGetInt64(sequence), !no_key);
	}
}

static void
set_batch(Batch *batch, FunctionCallInfo fcinfo)
{
	EsMessages *messages = &batch->messages;
	EsColumn   *columns = messages->columns;

	messages->n = EsColumnSetArray(&columns[Anum_es_outbox_type], -1, fcinfo, 3, true, "message types");
	set_column(batch, &batch->ids, fcinfo, 1, true, "message ids");
	set_column(batch, &columns[Anum_es_outbox_key], fcinfo, 4, false, "message keys");
	set_column(batch, &columns[Anum_es_outbox_payload], fcinfo, 5, true, "payloads");
	set_column(batch, &columns[Anum_es_outbox_headers], fcinfo, 6, false, "headers");
	set_column(batch, &batch->sequences, fcinfo, 7, false, "sequences");
	set_column(batch, &batch->times, fcinfo, 8, false, "message times");
	EsBatchCheckSize(messages->n, "message");
	EsColumnCheckNames(&batch->ids, messages->n, "message id");
	EsColumnCheckNames(&columns[Anum_es_outbox_type], messages->n, "message type");
	EsColumnCheckNames(&columns[Anum_es_outbox_key], messages->n, "message key");
	EsEnvelopeCheck(messages);
	check_sequences(batch);
	batch->topic = EsArgName(fcinfo, 2, "topic");
	EsColumnSetText(&columns[Anum_es_outbox_correlation_id], EsSettingCorrelationId());
	EsColumnSetText(&columns[Anum_es_outbox_causation_id], EsSettingCausationId());
}

static EsEnvelope
envelope_of(const Batch *batch, uint32 i)
{
	EsEnvelope	envelope = {(const text *) DatumGetPointer(batch->ids.values[i]), batch->topic};
	bool		isnull;
	Datum		value = EsColumnValue(&batch->sequences, i, &isnull);

	envelope.numbered = !isnull;
	envelope.sequence = isnull ? 0 : DatumGetInt64(value);
	value = EsColumnValue(&batch->messages.columns[Anum_es_outbox_headers], i, &isnull);
	envelope.headers = isnull ? NULL : DatumGetJsonbP(value);
	return envelope;
}

/* Make a column of those of its values that belong to chosen messages. */
static void
choose(EsColumn *column, const bool *chosen, uint32 n)
{
	uint32		kept = 0;

	if (column->values == NULL || column->constant)
		return;
	for (uint32 i = 0; i < n; i++)
	{
		if (!chosen[i])
			continue;
		column->values[kept] = column->values[i];
		if (column->nulls != NULL)
			column->nulls[kept] = column->nulls[i];
		kept++;
	}
}

/* Publish the accepted messages of a batch at once; none of them is numbered. */
static void
publish_batch(Batch *batch)
{
	EsMessages	messages = batch->messages;
	Datum	   *headers = palloc_extended(sizeof(Datum) * messages.n, MCXT_ALLOC_HUGE);
	uint32		n = 0;

	for (uint32 i = 0; i < messages.n; i++)
	{
		EsEnvelope	envelope;

		if (!batch->accepted[i])
			continue;
		envelope = envelope_of(batch, i);
		headers[n++] = JsonbPGetDatum(EsEnvelopeSeal(&envelope));
	}
	for (AttrNumber column = Anum_es_outbox_message_id; column <= Natts_es_outbox; column++)
		choose(&messages.columns[column], batch->accepted, messages.n);
	messages.columns[Anum_es_outbox_headers] = (EsColumn) {headers, NULL, false};
	messages.n = n;
	if (n > 0)
		(void) EsPublish(&messages);
}

/* One of a batch that has numbers; false when its turn is over. */
static bool
put_one(Batch *batch, uint32 i)
{
	EsMessages	message = {1};
	EsEnvelope	envelope = envelope_of(batch, i);

	for (AttrNumber column = Anum_es_outbox_message_id; column <= Natts_es_outbox; column++)
	{
		bool		isnull;
		Datum		value = EsColumnValue(&batch->messages.columns[column], i, &isnull);

		if (!isnull)
			EsColumnSet(&message.columns[column], value);
	}
	seal(&message, &envelope);
	if (envelope.numbered)
		return EsResequence(&batch->inbox, &message, envelope.sequence);
	(void) EsPublish(&message);
	return true;
}

/* es_inbox_put_batch(consumer, message_ids, topic, types, keys, payloads, headers, sequences, message_times) */
Datum
es_inbox_put_batch(PG_FUNCTION_ARGS)
{
	text	   *consumer = EsArgInbox(fcinfo, 0, NULL, "es_inbox_put_batch()");
	Batch		batch = {{0}};
	uint32		n;

	set_batch(&batch, fcinfo);
	n = batch.messages.n;
	begin(consumer, "es_inbox_put_batch()", &batch.inbox, &batch.messages);
	batch.accepted = palloc0(n * sizeof(bool));
	EsInboxAcceptMany(batch.inbox.consumer, &batch.ids, n, &batch.times, batch.accepted);
	if (batch.sequences.values == NULL)
		publish_batch(&batch);
	for (uint32 i = 0; batch.sequences.values != NULL && i < n; i++)
		batch.accepted[i] = batch.accepted[i] && put_one(&batch, i);
	PG_RETURN_ARRAYTYPE_P(EsInboxIndexes(batch.accepted, n));
}
