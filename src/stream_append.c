/*
 * stream_append.c
 *		Appending events to a stream, past the executor.
 *
 * The order of things, which is what makes an append right: lock the stream;
 * find its head with a snapshot that sees what committed meanwhile; check the
 * expected version; draw positions; write.  Positions are drawn under the lock,
 * so versions and positions of a stream rise together.
 *
 * A retry is recognized by its event ids: the same ids at the same place give
 * the first answer and nothing is written.  The same id with other content, or
 * only some of the ids, is an error.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"
#include "projection.h"

/* A comparison of events in the stream with those of a batch. */
typedef struct Comparison
{
	const EsBatch *batch;
	uint32		seen;			/* events compared */
	uint32		same_id;		/* of these, how many have the batch's id */
	bool		same_content;	/* all that have its id also have its content */
	EsPosition	position;		/* of the last event compared */
} Comparison;

/* The value of one event's column. */
static Datum
batch_value(const EsBatch *batch, uint32 i, AttrNumber column, bool *isnull)
{
	return EsColumnValue(&batch->columns[column], i, isnull);
}

static const pg_uuid_t *
batch_id(const EsBatch *batch, uint32 i)
{
	return DatumGetUUIDP(batch->columns[Anum_es_events_event_id].values[i]);
}

static bool
has_ids(const EsBatch *batch)
{
	return batch->columns[Anum_es_events_event_id].values != NULL;
}

/* Is a column of the event in the slot what the batch says? */
static bool
same_value(TupleTableSlot *slot, const EsBatch *batch, uint32 i, AttrNumber column, PGFunction equal)
{
	bool		there_null;
	bool		here_null;
	Datum		there = slot_getattr(slot, column, &there_null);
	Datum		here = batch_value(batch, i, column, &here_null);

	if (there_null || here_null)
		return there_null && here_null;
	return DatumGetBool(DirectFunctionCall2Coll(equal, C_COLLATION_OID, there, here));
}

static bool
compare_event(TupleTableSlot *slot, void *arg)
{
	Comparison *comparison = arg;
	const EsBatch *batch = comparison->batch;
	uint32		i = comparison->seen++;
	bool		isnull;
	pg_uuid_t  *id;

	if (i >= batch->n)
		return false;
	id = DatumGetUUIDP(slot_getattr(slot, Anum_es_events_event_id, &isnull));
	comparison->position = (EsPosition)
		DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull));
	if (memcmp(id, batch_id(batch, i), UUID_LEN) == 0)
	{
		comparison->same_id++;
		comparison->same_content &=
			same_value(slot, batch, i, Anum_es_events_type, texteq) &&
			same_value(slot, batch, i, Anum_es_events_data, jsonb_eq) &&
			same_value(slot, batch, i, Anum_es_events_metadata, jsonb_eq) &&
			same_value(slot, batch, i, Anum_es_events_schema_version, texteq);
	}
	return true;
}

/* The version of an event of this stream in one chunk, by its id; -1: not there. */
static int64
find_id_in_chunk(const EsStream *stream, EsPosition position, const pg_uuid_t *id)
{
	static const AttrNumber columns[] = {Anum_es_events_event_id};
	EsChunk		chunk;
	Relation	leaf;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;
	int64		version = -1;

	if (!EsChunkFindSurely(ES_CHUNK_EVENTS, position, &chunk) ||
		(leaf = EsChunkOpen(ES_CHUNK_EVENTS, &chunk, AccessShareLock)) == NULL)
		return -1;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	scan = es_index_beginscan(leaf, index, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (version < 0 && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (DatumGetInt64(slot_getattr(slot, Anum_es_events_stream_id, &isnull)) == stream->stream_id)
			version = DatumGetInt64(slot_getattr(slot, Anum_es_events_version, &isnull));
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(leaf, NoLock);
	return version;
}

/* The same in the stream's newest two chunks. */
static int64
find_id(const EsStream *stream, EsHead head, const pg_uuid_t *id)
{
	EsPosition	previous = stream->first_chunk;
	int64		version = find_id_in_chunk(stream, head.chunk, id);

	if (version >= 0 || head.chunk == stream->first_chunk)
		return version;
	(void) EsStreamChunkNewest(stream, SnapshotSelf, head.chunk, &previous);
	return find_id_in_chunk(stream, previous, id);
}

static void
idempotency_conflict(const EsBatch *batch, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_IDEMPOTENCY_CONFLICT),
			 errmsg("event ids were already used in stream \"%s\"", text_to_cstring(batch->stream)),
			 errdetail("%s", detail),
			 errhint("A retry gives the same events with the same ids; new events need new ids.")));
}

static void
version_conflict(const EsBatch *batch, int64 actual)
{
	char		expected[32];

	if (batch->expected == ES_NO_STREAM)
		strlcpy(expected, "no stream", sizeof(expected));
	else if (batch->expected == ES_STREAM_EXISTS)
		strlcpy(expected, "an existing stream", sizeof(expected));
	else
		snprintf(expected, sizeof(expected), "version " INT64_FORMAT, batch->expected);
	ereport(ERROR,
			(errcode(ERRCODE_ES_WRONG_EXPECTED_VERSION),
			 errmsg("wrong expected version for stream \"%s\"", text_to_cstring(batch->stream)),
			 errdetail("Expected %s, but the stream is at version " INT64_FORMAT ".", expected, actual),
			 errhint("Read the stream again and decide anew.")));
}

/*
 * Compare the batch with what the stream holds from a version on.  True when
 * all of it is there; false when nothing of it is; else an error.
 */
static bool
compare_from(const EsBatch *batch, const EsStream *stream, int64 from, EsPosition *position)
{
	Comparison	comparison = {batch, 0, 0, true, 0};

	EsStreamScan(stream, from, from + batch->n - 1, false, SnapshotSelf, compare_event, &comparison);
	if (comparison.same_id == 0)
		return false;
	if (comparison.same_id < batch->n)
		idempotency_conflict(batch, "Only some of the events are in the stream at this place.");
	if (!comparison.same_content)
		idempotency_conflict(batch, "An event with the same id has other content.");
	*position = comparison.position;
	return true;
}

/*
 * Is this a retry?  Then find the first answer.  An append that expects a
 * version below the head is one if its events stand right after that version;
 * any other if its first event is found by id in the newest two chunks.
 */
static bool
is_retry(const EsBatch *batch, const EsStream *stream, EsHead head,
		 int64 *version, EsPosition *position)
{
	bool		exact = batch->expected >= ES_NO_STREAM;
	int64		from;

	if (!has_ids(batch) || head.version < 0)
		return false;
	if (exact && batch->expected < head.version)
		from = batch->expected + 1;
	else
	{
		from = find_id(stream, head, batch_id(batch, 0));
		for (uint32 i = 1; from < 0 && i < batch->n; i++)
		{
			if (find_id(stream, head, batch_id(batch, i)) >= 0)
				idempotency_conflict(batch, "Only some of the events are in the stream.");
		}
		if (from < 0)
			return false;
		if (exact)
			idempotency_conflict(batch, "The first event is in the stream at another version than the expected one would give.");
	}
	if (!compare_from(batch, stream, from, position))
		return false;
	*version = from + batch->n - 1;
	return true;
}

static bool
version_matches(const EsBatch *batch, int64 actual)
{
	switch (batch->expected)
	{
		case ES_ANY:
			return true;
		case ES_STREAM_EXISTS:
			return actual >= 0;
		default:
			return batch->expected == actual;
	}
}

/* The index of an open chunk that has a stream's versions. */
static Relation
version_index(const EsLeaf *leaf)
{
	static const AttrNumber columns[] = {Anum_es_events_stream_id, Anum_es_events_version};
	const ResultRelInfo *rri = leaf->target.rri;

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		if (EsIndexBeginsWith(rri->ri_IndexRelationDescs[i], columns, lengthof(columns)))
			return rri->ri_IndexRelationDescs[i];
	}
	return NULL;
}

/*
 * The newest event of a stream in an open chunk, in the chunk's slot.  A btree hands
 * out a page at a time, so the bare backward scan compares all events of the
 * stream on the page, hundreds where few streams get many.  So it is first asked
 * for those from the version on that this backend found or wrote last, which is
 * one or two.  If there are none, by a rollback, nothing is known.
 */
static bool
probe_head(const EsStream *stream, const EsLeaf *leaf, Relation index)
{
	int64		known = EsStreamKnownVersion(stream->stream_id);
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(known));
	return (known > 0 && EsIndexProbe(leaf->target.rel, index, SnapshotSelf, keys, 2, BackwardScanDirection, leaf->slot)) ||
		EsIndexProbe(leaf->target.rel, index, SnapshotSelf, keys, 1, BackwardScanDirection, leaf->slot);
}

/*
 * Where a locked stream ends: by the chunk that is written to now, or else by
 * the stream's own chunks.
 */
static EsHead
find_head(const EsStream *stream, EsLeaf *leaf)
{
	EsHead		head = {-1, stream->first_chunk};
	Relation	index;
	bool		isnull;

	if (stream->created)
		return head;
	if (EsLeafOpen(leaf, EsPositionLast()) && (index = version_index(leaf)) != NULL &&
		probe_head(stream, leaf, index))
	{
		head.version = DatumGetInt64(slot_getattr(leaf->slot, Anum_es_events_version, &isnull));
		head.chunk = leaf->chunk.lower;
		ExecClearTuple(leaf->slot);
		return head;
	}
	return EsStreamHeadByChunks(stream, SnapshotSelf);
}

/* What a chunk's writer asks for, row by row. */
typedef struct Filling
{
	const EsBatch *batch;
	const EsStream *stream;
	EsPosition	position;		/* of the first event */
	int64		version;		/* of the first event */
	TimestampTz now;
	pg_uuid_t	last_id;
} Filling;

/* Fill a slot with one event. */
static void
fill_slot(TupleTableSlot *slot, uint32 i, void *arg)
{
	Filling    *filling = arg;
	const EsBatch *batch = filling->batch;
	Datum	   *values = slot->tts_values - 1;
	bool	   *nulls = slot->tts_isnull - 1;
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	for (AttrNumber column = Anum_es_events_type; column <= Natts_es_events; column++)
		values[column] = batch_value(batch, i, column, &nulls[column]);
	memset(slot->tts_isnull, false, Anum_es_events_event_id * sizeof(bool));
	if (has_ids(batch))
		*id = *batch_id(batch, i);
	else
		EsUuidNext(id);
	filling->last_id = *id;
	values[Anum_es_events_position] = Int64GetDatum((int64) filling->position + i);
	values[Anum_es_events_stream_id] = Int64GetDatum(filling->stream->stream_id);
	values[Anum_es_events_version] = Int64GetDatum(filling->version + i);
	values[Anum_es_events_recorded_at] = TimestampTzGetDatum(filling->now);
	values[Anum_es_events_category_id] = Int32GetDatum(filling->stream->category_id);
	values[Anum_es_events_event_id] = UUIDPGetDatum(id);
}

/* Write a batch, chunk by chunk, and note the chunks that the stream enters. */
static void
write_events(const EsBatch *batch, const EsStream *stream, EsHead head,
			 EsPosition first, EsLeaf *leaf, pg_uuid_t *id)
{
	Filling		filling = {batch, stream, first, head.version + 1, GetCurrentTimestamp()};
	EsPosition	chunk_of_head = head.chunk;

	EsChunkEnsure(ES_CHUNK_EVENTS, first, first + batch->n - 1);
	for (uint32 done = 0; done < batch->n;)
	{
		int64		version = filling.version + done;

		done += EsLeafWrite(leaf, first + done, done, batch->n, fill_slot, &filling);
		if (leaf->chunk.lower != chunk_of_head)
			EsStreamChunkNote(stream, leaf->chunk.lower, version);
		chunk_of_head = leaf->chunk.lower;
	}
	EsChunkAhead(ES_CHUNK_EVENTS, &leaf->chunk, first + batch->n - 1);
	*id = filling.last_id;
}

static void
check_batch(const EsBatch *batch)
{
	if (batch->expected < ES_STREAM_EXISTS || batch->expected == -3)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid expected version " INT64_FORMAT, batch->expected),
				 errhint("Use a version from 0 on, es_any(), es_no_stream() or es_stream_exists().")));
	EsBatchCheckSize(batch->n, "event");
	(void) EsCategoryLength(batch->stream);
}

/*
 * Append a batch in the current transaction; returns version, position and id
 * of its last event.  The caller has checked the columns' values.
 */
void
EsAppend(EsBatch *batch, int64 *version, EsPosition *position, pg_uuid_t *id)
{
	bool		may_create = batch->expected == ES_ANY || batch->expected == ES_NO_STREAM;
	EsStream	stream;
	EsHead		head;
	EsPosition	first;
	EsInline   *inlines;
	EsLeaf		leaf = {ES_CHUNK_EVENTS, Natts_es_events};

	PreventCommandIfReadOnly("es_append()");
	PreventCommandIfParallelMode("es_append()");
	check_batch(batch);
	inlines = EsInlineBegin(ES_CHUNK_EVENTS, batch->stream);
	if (inlines != NULL)
	{
		leaf.witness = EsInlineSee;
		leaf.witness_arg = inlines;
	}

	ES_DEBUG_BREAK(position_before_lock, EsDebugKept = EsPositionsDraw(batch->n));
	ES_DEBUG_POINT(before_stream_lock);
	if (!EsStreamLock(batch->stream, may_create ? batch->n : 0, &stream))
		version_conflict(batch, -1);
	EsStreamCheckAlive(&stream, batch->stream);
	AcceptInvalidationMessages();	/* of chunks made while we waited */
	head = find_head(&stream, &leaf);
	if (head.version < 0 && !stream.created)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("events of stream \"%s\" are missing", text_to_cstring(batch->stream)),
				 errdetail("Its newest chunk, from position " UINT64_FORMAT " on, holds none of them.", head.chunk)));

	if (is_retry(batch, &stream, head, version, position))
	{
		EsLeafClose(&leaf);
		*id = *batch_id(batch, batch->n - 1);
		return;
	}
	if (!version_matches(batch, head.version))
		version_conflict(batch, head.version);

	first = stream.created ? (EsPosition) stream.stream_id : EsPositionsDraw(batch->n);
	ES_DEBUG_BREAK(position_before_lock, first = stream.created ? first : EsDebugKept);
	write_events(batch, &stream, head, first, &leaf, id);
	EsLeafClose(&leaf);
	if (inlines != NULL)
		EsInlineRun(inlines);
	*version = head.version + batch->n;
	*position = first + batch->n - 1;
	EsStreamRememberVersion(stream.stream_id, *version);
}
