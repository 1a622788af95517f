/*
 * stream_read.c
 *		The reads, as SQL calls them.
 *
 * Stream reads use the statement's own snapshot: the stream's lock makes its
 * versions commit in order, so what a snapshot sees of a stream has no holes.
 * (But for the transaction's own events under REPEATABLE READ, which may follow
 * others that its snapshot does not see.)
 * Reads of the log are ordered reads (stream_log.c).
 *
 * Rows go to a tuplestore as the table has them: nothing is detoasted or
 * flattened on the way.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"

PG_FUNCTION_INFO_V1(es_read_stream);
PG_FUNCTION_INFO_V1(es_read_category);
PG_FUNCTION_INFO_V1(es_read_all);
PG_FUNCTION_INFO_V1(es_read_event);
PG_FUNCTION_INFO_V1(es_stream_version);

/* A read that collects rows for its caller. */
typedef struct Collector
{
	ReturnSetInfo *result;
	const text *stream;			/* name, of a stream's own read */
	TimestampTz not_before;		/* older events are left out */
	int64		left;			/* rows still wanted */
} Collector;

/* An event as es_event has it. */
void
EsEventOf(TupleTableSlot *slot, const text *stream, Datum *values, bool *nulls)
{
	/* es_event's columns as columns of es_events; 0 is the stream's name */
	static const AttrNumber columns[Natts_es_event] = {
		Anum_es_events_position, 0, Anum_es_events_version, Anum_es_events_event_id,
		Anum_es_events_type, Anum_es_events_schema_version, Anum_es_events_source,
		Anum_es_events_data, Anum_es_events_metadata, Anum_es_events_correlation_id,
		Anum_es_events_causation_id, Anum_es_events_traceparent,
		Anum_es_events_occurred_at, Anum_es_events_recorded_at
	};

	EsEventValues(slot, columns, Natts_es_event, values, nulls);
	values[Anum_es_event_stream - 1] = PointerGetDatum(stream);
}

static void
put_event(ReturnSetInfo *result, TupleTableSlot *slot, const text *stream)
{
	Datum		values[Natts_es_event];
	bool		nulls[Natts_es_event];

	EsEventOf(slot, stream, values, nulls);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static int64
argument_count(FunctionCallInfo fcinfo, int arg)
{
	int64		count = PG_ARGISNULL(arg) ? ES_READ_DEFAULT : PG_GETARG_INT64(arg);

	if (count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must not be negative")));
	return count;
}

static EsPosition
argument_position(FunctionCallInfo fcinfo, int arg)
{
	int64		position = PG_ARGISNULL(arg) ? 0 : PG_GETARG_INT64(arg);

	if (position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position must not be negative")));
	return (EsPosition) position;
}

static ArrayType *
argument_array(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_ARRAYTYPE_P(arg);
}

static bool
collect_of_stream(TupleTableSlot *slot, void *arg)
{
	Collector  *collector = arg;
	bool		isnull;

	if (DatumGetTimestampTz(slot_getattr(slot, Anum_es_events_recorded_at, &isnull)) < collector->not_before)
		return true;
	put_event(collector->result, slot, collector->stream);
	return --collector->left > 0;
}

/* The lowest version that a stream's own limits leave, but for that of age. */
int64
EsStreamLowest(const EsStream *stream, Snapshot snapshot)
{
	int64		lowest = stream->truncate_before;

	if (stream->max_count > 0)
		lowest = Max(lowest, EsStreamHead(stream, snapshot).version - stream->max_count + 1);
	return lowest;
}

/* Older events are left out. */
TimestampTz
EsStreamOldest(const EsStream *stream)
{
	if (stream->max_age == NULL)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(stream->max_age)));
}

/* es_read_stream(stream, from_version, max_count, backward) */
Datum
es_read_stream(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "stream name");
	int64		from = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	int64		count = argument_count(fcinfo, 2);
	bool		backward = PG_ARGISNULL(3) ? false : PG_GETARG_BOOL(3);
	Snapshot	snapshot = GetActiveSnapshot();
	EsStream	stream;
	Collector	collector;
	int64		lowest;

	if (from < -1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version " INT64_FORMAT, from),
				 errhint("Use a version from 0 on, or -1 for the newest event.")));
	InitMaterializedSRF(fcinfo, 0);
	AcceptInvalidationMessages();
	if (!EsStreamFind(name, snapshot, &stream))
		return (Datum) 0;
	EsStreamCheckAlive(&stream, name);
	if (count == 0)
		return (Datum) 0;

	collector = (Collector) {(ReturnSetInfo *) fcinfo->resultinfo, name, EsStreamOldest(&stream), count};
	lowest = EsStreamLowest(&stream, snapshot);
	if (from == -1)
		from = EsStreamHead(&stream, snapshot).version;
	if (backward)
		EsStreamScan(&stream, lowest, from, true, snapshot, collect_of_stream, &collector);
	else
		EsStreamScan(&stream, Max(from, lowest), PG_INT64_MAX, false, snapshot, collect_of_stream, &collector);
	return (Datum) 0;
}

static bool
collect_of_log(TupleTableSlot *slot, const text *stream, void *arg)
{
	Collector  *collector = arg;

	put_event(collector->result, slot, stream);
	return --collector->left > 0;
}

/*
 * An ordered read.  One that finds nothing asks the next writer for a
 * notification, and looks once more.
 */
static void
read_log(FunctionCallInfo fcinfo, const EsFilter *filter, EsPosition after, int64 count)
{
	Collector	collector = {(ReturnSetInfo *) fcinfo->resultinfo, NULL, DT_NOBEGIN, count};
	EsOrderedRead read;

	EsOrderedReadCheck();
	InitMaterializedSRF(fcinfo, 0);
	for (int pass = 0; pass < 2 && collector.left == count && count > 0; pass++)
	{
		EsOrderedReadBegin(&read, ES_CHUNK_EVENTS);
		EsLogScan(filter, after, read.horizon, GetActiveSnapshot(), collect_of_log, &collector);
		EsOrderedReadEnd(&read);
		after = Max(after, read.horizon);
		if (read.log == NULL)
			break;
		if (pass == 0 && collector.left == count)
		{
			EsWakeArm(read.log);
			ES_DEBUG_BREAK(no_look_after_arming, break);
		}
	}
}

/* es_read_category(category, after_position, max_count, types) */
Datum
es_read_category(PG_FUNCTION_ARGS)
{
	text	   *category = EsArgName(fcinfo, 0, "category");
	Datum		categories[1] = {PointerGetDatum(category)};
	EsFilter	filter;

	EsFilterSet(&filter, construct_array(categories, 1, TEXTOID, -1, false, TYPALIGN_INT),
				argument_array(fcinfo, 3));
	read_log(fcinfo, &filter, argument_position(fcinfo, 1), argument_count(fcinfo, 2));
	return (Datum) 0;
}

/* es_read_all(after_position, max_count, categories, types) */
Datum
es_read_all(PG_FUNCTION_ARGS)
{
	EsFilter	filter;

	EsFilterSet(&filter, argument_array(fcinfo, 2), argument_array(fcinfo, 3));
	read_log(fcinfo, &filter, argument_position(fcinfo, 0), argument_count(fcinfo, 1));
	return (Datum) 0;
}

/* The events with an id in one chunk. */
static void
read_id_in_chunk(const EsChunk *chunk, const pg_uuid_t *id, ReturnSetInfo *result)
{
	static const AttrNumber columns[] = {Anum_es_events_event_id};
	Relation	leaf = EsChunkOpen(ES_CHUNK_EVENTS, chunk, AccessShareLock);
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;
	bool		found = false;

	if (leaf == NULL)
		return;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	scan = es_index_beginscan(leaf, index, GetActiveSnapshot(), 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		stream_id = DatumGetInt64(slot_getattr(slot, Anum_es_events_stream_id, &isnull));

		put_event(result, slot, EsStreamName(stream_id, GetActiveSnapshot()));
		found = true;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(leaf, found ? NoLock : AccessShareLock);	/* TOAST pointers need it */
}

/* es_read_event(event_id) */
Datum
es_read_event(PG_FUNCTION_ARGS)
{
	EsPosition	from = 0;
	EsChunk		chunk;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("event id must not be null")));
	InitMaterializedSRF(fcinfo, 0);
	if (RecoveryInProgress())
		AcceptInvalidationMessages();
	else
	{
		EsChunkCover(ES_CHUNK_EVENTS, EsHorizonRead(EsLogGet()));
		(void) EsChunkFindSurely(ES_CHUNK_EVENTS, EsPositionLast(), &chunk);
	}
	for (; EsChunkFindNext(ES_CHUNK_EVENTS, from, &chunk); from = chunk.upper)
	{
		CHECK_FOR_INTERRUPTS();
		read_id_in_chunk(&chunk, PG_GETARG_UUID_P(0), (ReturnSetInfo *) fcinfo->resultinfo);
	}
	return (Datum) 0;
}

/* es_stream_version(stream) */
Datum
es_stream_version(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "stream name");
	EsStream	stream;

	AcceptInvalidationMessages();
	if (!EsStreamFind(name, GetActiveSnapshot(), &stream))
		PG_RETURN_INT64(-1);
	EsStreamCheckAlive(&stream, name);
	PG_RETURN_INT64(EsStreamHead(&stream, GetActiveSnapshot()).version);
}
