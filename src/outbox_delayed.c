/*
 * outbox_delayed.c
 *		Messages that wait for their time, in a table of their own.
 *
 * A delayed message has no position: it gets one when it is due and published,
 * so no reader ever has to go back for it.  Until then it lies in es_delayed
 * under a position that was drawn for it and is never delivered, which tells
 * the order in which messages of the same time came.
 *
 * Exactly once: the row is deleted and the message published in one transaction.
 * One transaction publishes at a time, so that due messages get their positions in
 * the order of their times; it does not wait for another one, and not for rows
 * that somebody has locked to cancel them.
 *
 * Nobody polls the table.  Shared memory holds a time before which no message is
 * due.  A commit of a delayed message lowers it, after the row is visible.  A
 * commit that published makes it unknown; who asks next raises it first and then
 * looks, with a snapshot taken after that.  So a commit is seen by that look, or
 * lowers the time after it.
 */
#include "outbox.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"

#define DUE_DEFAULT		1000	/* messages published by one call */
#define NOT_KNOWN		0
#define NONE_DUE		((uint64) DT_NOEND)
#define PUBLISHER		1		/* sub-id of the extension, for the lock of who publishes */

/* Columns of es_delayed: these, then those of es_outbox from message_id on. */
enum
{
	Anum_es_delayed_delayed_id = 1,
	Anum_es_delayed_deliver_after,
	Anum_es_delayed_created_at,
	Anum_es_delayed_message_id
};

#define Natts_es_delayed	(Natts_es_outbox - Anum_es_outbox_message_id + Anum_es_delayed_message_id)

PG_FUNCTION_INFO_V1(es_publish_due);
PG_FUNCTION_INFO_V1(es_cancel_delayed);

/* What this transaction has done to es_delayed. */
static EsLog *changed = NULL;
static TimestampTz earliest;	/* of the messages it added */
static bool looked;				/* and it has looked for due ones, to take them out */

/* A message may be due from this time on. */
static void
lower_next(EsLog *log, uint64 due)
{
	uint64		next = pg_atomic_read_u64(&log->delayed_next);

	while (due < next && !pg_atomic_compare_exchange_u64(&log->delayed_next, &next, due))
		;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (changed == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			lower_next(changed, (uint64) earliest);
			if (looked)
				pg_atomic_write_u64(&changed->delayed_next, NOT_KNOWN);
			changed = NULL;
			break;
		case XACT_EVENT_ABORT:
			changed = NULL;
			break;
		default:
			break;
	}
}

void
EsDelayedInit(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
}

/* This transaction changes es_delayed: see to it at its end. */
static void
note_change(EsLog *log)
{
	if (changed == log)
		return;
	changed = log;
	earliest = DT_NOEND;
	looked = false;
}

/* Keep one message until its time. */
void
EsDelay(const EsMessages *messages, TimestampTz deliver_after)
{
	Datum		values[Natts_es_delayed];
	bool		nulls[Natts_es_delayed];

	EsMessageValues(messages, 0, values + Anum_es_delayed_message_id - 1, nulls + Anum_es_delayed_message_id - 1);
	values[Anum_es_delayed_delayed_id - 1] = Int64GetDatum((int64) EsPositionsDraw(1));
	values[Anum_es_delayed_deliver_after - 1] = TimestampTzGetDatum(deliver_after);
	values[Anum_es_delayed_created_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	memset(nulls, false, Anum_es_delayed_message_id * sizeof(bool));
	EsInsertRow(EsCatalogGet()->delayed, Natts_es_delayed, values, nulls);

	note_change(EsLogGet());
	earliest = Min(earliest, deliver_after);
}

/* When the first message is due that a snapshot sees. */
static uint64
probe_next(Snapshot snapshot)
{
	EsProbe		probe;
	uint64		next = NONE_DUE;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->delayed, EsCatalogGet()->delayed_due_idx);
	if (EsIndexProbe(probe.rel, probe.index, snapshot, NULL, 0, ForwardScanDirection, probe.slot))
		next = (uint64) DatumGetTimestampTz(slot_getattr(probe.slot, Anum_es_delayed_deliver_after, &isnull));
	EsProbeClose(&probe);
	return next;
}

/* Raise first, look after: see above. */
static void
look_anew(EsLog *log)
{
	pg_atomic_write_u64(&log->delayed_next, NONE_DUE);
	pg_memory_barrier();
	PushActiveSnapshot(GetLatestSnapshot());
	lower_next(log, probe_next(GetActiveSnapshot()));
	PopActiveSnapshot();
}

/* No delayed message is due before this time; DT_NOEND when there is none. */
TimestampTz
EsDelayedNext(EsLog *log)
{
	if (pg_atomic_read_u64(&log->delayed_next) == NOT_KNOWN)
		look_anew(log);
	return (TimestampTz) pg_atomic_read_u64(&log->delayed_next);
}

/* Be the one that publishes, to the end of the transaction; false: another is. */
static bool
lock_publisher(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, EsCatalogGet()->extension, PUBLISHER);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Take due messages out of the table, in the order of their times. */
static void
take_due(uint32 max)
{
	const char *schema = quote_identifier(get_namespace_name(EsCatalogGet()->schema));
	char	   *sql = psprintf("WITH due AS (SELECT delayed_id FROM %s.es_delayed WHERE deliver_after <= $1"
							   " ORDER BY deliver_after, delayed_id LIMIT $2 FOR UPDATE SKIP LOCKED),"
							   " taken AS (DELETE FROM %s.es_delayed AS d USING due"
							   " WHERE d.delayed_id = due.delayed_id RETURNING d.*)"
							   " SELECT * FROM taken ORDER BY deliver_after, delayed_id", schema, schema);
	Oid			types[] = {TIMESTAMPTZOID, INT8OID};
	Datum		values[] = {TimestampTzGetDatum(GetCurrentTimestamp()), Int64GetDatum(max)};

	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read delayed messages");
}

/*
 * What SPI took out of a table, as messages to be published; so many columns come
 * before those of es_outbox from message_id on.
 */
void
EsMessagesTaken(EsMessages *messages, int before)
{
	memset(messages, 0, sizeof(*messages));
	messages->n = SPI_processed;
	for (AttrNumber column = Anum_es_outbox_message_id; column <= Natts_es_outbox; column++)
	{
		EsColumn   *c = &messages->columns[column];
		int			number = column - Anum_es_outbox_message_id + 1 + before;

		c->values = palloc_extended(messages->n * sizeof(Datum), MCXT_ALLOC_HUGE);
		c->nulls = palloc(messages->n * sizeof(bool));
		for (uint32 i = 0; i < messages->n; i++)
			c->values[i] = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, number, &c->nulls[i]);
	}
}

/*
 * Publish messages that are due, at most so many, in the current transaction and
 * as a user who may; returns how many.  None while another transaction does it.
 */
uint32
EsDelayedPublishDue(uint32 max)
{
	EsMessages	messages;

	if (!lock_publisher())
		return 0;
	note_change(EsLogGet());
	looked = true;
	SPI_connect();
	take_due(max);
	EsMessagesTaken(&messages, Anum_es_delayed_message_id - 1);
	if (messages.n > 0)
		(void) EsPublish(&messages);
	SPI_finish();
	return messages.n;
}

/* es_publish_due(max_count) */
Datum
es_publish_due(PG_FUNCTION_ARGS)
{
	int32		max = PG_ARGISNULL(0) ? DUE_DEFAULT : PG_GETARG_INT32(0);

	PreventCommandIfReadOnly("es_publish_due()");
	PreventCommandIfParallelMode("es_publish_due()");
	if (max < 1 || max > ES_BATCH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be between 1 and %d", ES_BATCH_MAX)));
	PG_RETURN_INT32((int32) EsDelayedPublishDue(max));
}

/* es_cancel_delayed(topic, message_id) */
Datum
es_cancel_delayed(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, UUIDOID};
	Datum		values[] = {PointerGetDatum(EsArgTopic(fcinfo)), PG_GETARG_DATUM(1)};
	EsOwner		before;
	bool		found;

	EsArgRequire(PG_ARGISNULL(1), "message id");
	PreventCommandIfReadOnly("es_cancel_delayed()");
	PreventCommandIfParallelMode("es_cancel_delayed()");
	EsOwnerBegin(&before);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("DELETE FROM %s.es_delayed WHERE topic = $1 AND message_id = $2",
									   quote_identifier(get_namespace_name(EsCatalogGet()->schema))),
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete delayed messages");
	found = SPI_processed > 0;
	SPI_finish();
	EsOwnerEnd(&before);
	PG_RETURN_BOOL(found);
}
