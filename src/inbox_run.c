/*
 * inbox_run.c
 *		es_inbox_run: the messages of a durable inbox are handled.
 *
 * One call is one fetch of the inbox's subscription, by a member that is this
 * session, a handler's call for each message, and an acknowledgement for each
 * lane, all in the caller's transaction.  So effects and acknowledgement commit
 * together, and a call that is rolled back, or whose session dies, has not been.
 *
 * The leases of the lanes are locked before the first handler is called, and not
 * by the acknowledgement only: however long the call takes, nobody else takes
 * the lanes meanwhile, to do the same in vain.
 *
 * A message whose handler fails is refused as es_nack does; what of its key was
 * fetched behind it is passed over, for it is parked now.  The order within a key
 * is the subscription's.
 */
#include "inbox_durable.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "subscription.h"

PG_FUNCTION_INFO_V1(es_inbox_run);

#define RUN_DEFAULT		50		/* messages of one call: beyond 64 subtransactions others' snapshots are slower */

/* Columns of es_inbox_message, from 0. */
enum
{
	MESSAGE_CONSUMER,
	MESSAGE_MESSAGE_ID,
	MESSAGE_TOPIC,
	MESSAGE_TYPE,
	MESSAGE_KEY,
	MESSAGE_SEQUENCE,
	MESSAGE_PAYLOAD,
	MESSAGE_HEADERS,
	MESSAGE_CORRELATION_ID,
	MESSAGE_CAUSATION_ID,
	MESSAGE_TRACEPARENT,
	MESSAGE_RECEIVED_AT,
	MESSAGE_PAYLOAD_BINARY,
	MESSAGE_CONTENT_TYPE,
	MESSAGE_POSITION,
	MESSAGE_ATTEMPT,
	Natts_es_inbox_message
};

/* A lane that this call serves. */
typedef struct ServedLane
{
	int32		number;
	int64		epoch;
	EsPosition	cursor;			/* when it was fetched */
	EsPosition	done;			/* up to here; 0: nothing */
} ServedLane;

/* A call in progress. */
typedef struct Run
{
	text	   *consumer;
	EsInbox		inbox;
	EsSubscription subscription;
	EsHandler	handler;
	TupleDesc	desc;			/* of es_inbox_message */
	SPITupleTable *rows;		/* of es_delivery */
	uint64		nrows;
	List	   *lanes;			/* of ServedLane */
	HTAB	   *passed;			/* positions that are parked behind a failed one */
	MemoryContext context;		/* of one message */
	TimestampTz renewed;		/* the last sign of life */
	text	   *member;
	int32		handled;
	int32		failed;
} Run;

static bool running = false;	/* in this session, so that handlers cannot call it */

static EsStatement fetch = {
	"SELECT * FROM @.es_fetch($1, $2, $3, $4, true)", 4, {TEXTOID, TEXTOID, INT4OID, INTERVALOID}
};

static EsStatement ack = {
	"SELECT @.es_ack($1, $2, $3, $4)", 4, {TEXTOID, INT4OID, INT8OID, INT8OID}
};

static EsStatement nack = {
	"SELECT * FROM @.es_nack($1, $2, $3, $4, $5, NULL, $6)",
	6, {TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID, BOOLOID}
};

/* ---------------------------------------------------------------- what was fetched */

static Datum
column(const Run *run, uint64 row, int delivery_column, bool *isnull)
{
	return SPI_getbinval(run->rows->vals[row], run->rows->tupdesc, delivery_column + 1, isnull);
}

static ServedLane *
find_lane(const Run *run, int32 number)
{
	ListCell   *cell;

	foreach(cell, run->lanes)
	{
		if (((ServedLane *) lfirst(cell))->number == number)
			return lfirst(cell);
	}
	return NULL;
}

/* Lock the leases of the lanes that something was fetched of. */
static void
lock_lanes(Run *run)
{
	for (uint64 i = 0; i < run->nrows; i++)
	{
		bool		isnull;
		int32		number = DatumGetInt32(column(run, i, DELIVERY_LANE, &isnull));
		ServedLane *lane;

		if (find_lane(run, number) != NULL)
			continue;
		lane = palloc0(sizeof(ServedLane));
		lane->number = number;
		lane->epoch = DatumGetInt64(column(run, i, DELIVERY_EPOCH, &isnull));
		EsLeaseLockOrFail(&run->subscription, number, lane->epoch);
		lane->cursor = EsCursorNow(run->subscription.id, number, NULL);
		run->lanes = lappend(run->lanes, lane);
	}
}

static void
fetch_messages(Run *run, int32 max_count, Datum wait, bool no_wait)
{
	Datum		args[] = {
		PointerGetDatum(run->inbox.name), PointerGetDatum(run->member), Int32GetDatum(max_count), wait
	};

	run->nrows = EsStatementRun(&fetch, args, no_wait ? "   n" : NULL);
	run->rows = SPI_tuptable;
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(run->inbox.name, GetActiveSnapshot(), &run->subscription);
	PopActiveSnapshot();
	lock_lanes(run);
}

/* ---------------------------------------------------------------- one message */

/* Columns of es_delivery for those of es_inbox_message that are the same; -1 is something else. */
static const int delivery_columns[Natts_es_inbox_message] = {
	[MESSAGE_CONSUMER] = -1,
	[MESSAGE_MESSAGE_ID] = -1,
	[MESSAGE_TOPIC] = -1,
	[MESSAGE_TYPE] = DELIVERY_TYPE,
	[MESSAGE_KEY] = DELIVERY_KEY,
	[MESSAGE_SEQUENCE] = -1,
	[MESSAGE_PAYLOAD] = DELIVERY_PAYLOAD,
	[MESSAGE_HEADERS] = -1,
	[MESSAGE_CORRELATION_ID] = DELIVERY_CORRELATION_ID,
	[MESSAGE_CAUSATION_ID] = DELIVERY_CAUSATION_ID,
	[MESSAGE_TRACEPARENT] = DELIVERY_TRACEPARENT,
	[MESSAGE_RECEIVED_AT] = DELIVERY_OCCURRED_AT,
	[MESSAGE_PAYLOAD_BINARY] = DELIVERY_PAYLOAD_BINARY,
	[MESSAGE_CONTENT_TYPE] = DELIVERY_CONTENT_TYPE,
	[MESSAGE_POSITION] = DELIVERY_POSITION,
	[MESSAGE_ATTEMPT] = DELIVERY_ATTEMPT
};

static Datum
form_message(const Run *run, uint64 row, const EsEnvelope *envelope)
{
	Datum		values[Natts_es_inbox_message];
	bool		nulls[Natts_es_inbox_message] = {false};

	for (int i = 0; i < Natts_es_inbox_message; i++)
	{
		if (delivery_columns[i] >= 0)
			values[i] = column(run, row, delivery_columns[i], &nulls[i]);
	}
	values[MESSAGE_CONSUMER] = PointerGetDatum(run->consumer);
	values[MESSAGE_MESSAGE_ID] = PointerGetDatum(envelope->message_id);
	values[MESSAGE_TOPIC] = PointerGetDatum(envelope->topic);
	values[MESSAGE_SEQUENCE] = Int64GetDatum(envelope->sequence);
	nulls[MESSAGE_SEQUENCE] = !envelope->numbered;
	values[MESSAGE_HEADERS] = PointerGetDatum(envelope->headers);
	nulls[MESSAGE_HEADERS] = envelope->headers == NULL;
	return HeapTupleGetDatum(heap_form_tuple(run->desc, values, nulls));
}

/* Note the positions that a refusal has parked behind its message. */
static void
pass_over(Run *run, uint64 n)
{
	if (run->passed == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(EsPosition),.entrysize = sizeof(EsPosition),.hcxt = MemoryContextGetParent(run->context)};

		run->passed = hash_create("es_inbox_run", 128, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		EsPosition	position = (EsPosition)
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		(void) hash_search(run->passed, &position, HASH_ENTER, NULL);
	}
}

static void
refuse(Run *run, const ServedLane *lane, EsPosition position, const char *why, bool forever)
{
	Datum		args[] = {
		PointerGetDatum(run->inbox.name), Int32GetDatum(lane->number), Int64GetDatum(lane->epoch),
		Int64GetDatum((int64) position), CStringGetTextDatum(why), BoolGetDatum(forever)
	};

	pass_over(run, EsStatementRun(&nack, args, NULL));
	SPI_freetuptable(SPI_tuptable);
	run->failed++;
}

/* Messages before this one did not come in time; but who redrives it knows that. */
static bool
refuse_after_missing(Run *run, const ServedLane *lane, EsPosition position, const EsEnvelope *envelope)
{
	if (envelope->missing == NULL || position <= lane->cursor)
		return false;
	refuse(run, lane, position, psprintf("%s: sequence %s of this key is missing",
		   unpack_sql_state(ERRCODE_NO_DATA_FOUND), envelope->missing), true);
	return true;
}

static const char *
string_or_empty(const Run *run, uint64 row, int delivery_column)
{
	bool		isnull;
	Datum		value = column(run, row, delivery_column, &isnull);

	return isnull ? "" : TextDatumGetCString(value);
}

/* What a handler appends and publishes was caused by its message. */
static char *
call_handler(const Run *run, uint64 row, const EsEnvelope *envelope)
{
	const char *const settings[][2] = {
		{"es_pg.correlation_id", string_or_empty(run, row, DELIVERY_CORRELATION_ID)},
		{"es_pg.causation_id", text_to_cstring(envelope->message_id)},
		{"es_pg.traceparent", string_or_empty(run, row, DELIVERY_TRACEPARENT)}
	};
	int			nest = EsSettingsBegin(settings, lengthof(settings));
	char	   *failure;

	EsNackForbid(run->subscription.id);
	failure = EsHandlerCall(&run->handler, form_message(run, row, envelope));
	EsNackForbid(0);
	AtEOXact_GUC(true, nest);
	return failure;
}

static void
handle(Run *run, uint64 row, const ServedLane *lane, EsPosition position)
{
	EsEnvelope	envelope;
	bool		isnull;
	char	   *failure;

	EsEnvelopeOpen(DatumGetJsonbP(column(run, row, DELIVERY_HEADERS, &isnull)), &envelope);
	if (refuse_after_missing(run, lane, position, &envelope))
		return;
	failure = call_handler(run, row, &envelope);
	if (failure != NULL)
		refuse(run, lane, position, failure, false);
	else
		run->handled++;
}

static void
show_life(Run *run)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now - run->renewed < run->subscription.lease_usecs / 4)
		return;
	EsMemberRenew(&run->subscription, run->member);
	run->renewed = now;
}

/* ---------------------------------------------------------------- the call */

static void
handle_messages(Run *run)
{
	MemoryContext old = CurrentMemoryContext;

	for (uint64 i = 0; i < run->nrows; i++)
	{
		bool		isnull;
		EsPosition	position = (EsPosition) DatumGetInt64(column(run, i, DELIVERY_POSITION, &isnull));
		ServedLane *lane = find_lane(run, DatumGetInt32(column(run, i, DELIVERY_LANE, &isnull)));

		CHECK_FOR_INTERRUPTS();
		show_life(run);
		if (run->passed == NULL || hash_search(run->passed, &position, HASH_FIND, NULL) == NULL)
		{
			MemoryContextSwitchTo(run->context);
			handle(run, i, lane, position);
			MemoryContextSwitchTo(old);
			MemoryContextReset(run->context);
		}
		lane->done = position;
	}
}

static void
acknowledge(const Run *run)
{
	ListCell   *cell;

	foreach(cell, run->lanes)
	{
		const ServedLane *lane = lfirst(cell);
		Datum		args[] = {
			PointerGetDatum(run->inbox.name), Int32GetDatum(lane->number),
			Int64GetDatum(lane->epoch), Int64GetDatum((int64) lane->done)
		};

		EsStatementRun(&ack, args, NULL);
	}
}

static void
run_inbox(Run *run, FunctionCallInfo fcinfo)
{
	bool		no_wait;

	run->member = cstring_to_text(psprintf("session %d", MyProcPid));
	no_wait = EsResequenceOverdue(&run->inbox) || PG_ARGISNULL(3);
	SPI_connect();
	EsHandlerBegin(&run->handler, PG_GETARG_OID(1), run->inbox.handler_usecs);
	run->desc = EsInboxMessageDesc();
	run->context = AllocSetContextCreate(CurrentMemoryContext, "es_inbox_run", ALLOCSET_DEFAULT_SIZES);
	fetch_messages(run, PG_ARGISNULL(2) ? RUN_DEFAULT : PG_GETARG_INT32(2), PG_GETARG_DATUM(3), no_wait);
	handle_messages(run);
	acknowledge(run);
	ReleaseTupleDesc(run->desc);
	SPI_finish();
}

static Datum
form_result(const Run *run, FunctionCallInfo fcinfo)
{
	TupleDesc	desc;
	Datum		values[] = {Int32GetDatum(run->handled), Int32GetDatum(run->failed)};
	bool		nulls[] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "es_inbox_run() must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* es_inbox_run(consumer, handler, max_count, wait) */
Datum
es_inbox_run(PG_FUNCTION_ARGS)
{
	Run			run = {NULL};

	if (running)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("es_inbox_run() cannot be called by a handler")));
	run.consumer = EsArgInbox(fcinfo, 0, NULL, "es_inbox_run()");
	EsInboxFind(run.consumer, &run.inbox);
	EsArgRequire(PG_ARGISNULL(1), "handler");
	running = true;
	PG_TRY();
	{
		run_inbox(&run, fcinfo);
	}
	PG_FINALLY();
	{
		running = false;
		EsNackForbid(0);
	}
	PG_END_TRY();
	return form_result(&run, fcinfo);
}
