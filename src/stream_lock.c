/*
 * stream_lock.c
 *		Finding a stream's row, locking it, making it, and finding its head.
 *
 * An append locks the stream's row (FOR NO KEY UPDATE) to the end of its
 * transaction and never updates it: so appends to one stream follow one another
 * and leave no dead rows, whatever snapshot is held elsewhere.  The head is not
 * stored: it is one backward probe of (stream_id, version).
 *
 * Rows are looked for with SnapshotSelf: it sees what committed while this
 * backend waited for the lock, and what this very command did (two appends in
 * one SELECT), and takes no predicate locks, so it makes no serialization
 * failures of its own.  It can miss a row that is being updated; then the
 * insertion that follows finds the conflict, or where none follows a second
 * look finds the row, and the search begins again.
 *
 * A new stream is a speculative insertion, as INSERT ... ON CONFLICT makes: of
 * N sessions that create one stream at once, one inserts and the others wait
 * for its end and then lock what it made.  Nobody gets a unique violation.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"

static void
read_stream_row(TupleTableSlot *slot, EsStream *stream)
{
	bool	   *nulls;
	Datum	   *values;

	slot_getallattrs(slot);
	values = slot->tts_values - 1;
	nulls = slot->tts_isnull - 1;
	stream->stream_id = DatumGetInt64(values[Anum_es_streams_stream_id]);
	stream->first_chunk = (EsPosition) DatumGetInt64(values[Anum_es_streams_first_chunk]);
	stream->category_id = DatumGetInt32(values[Anum_es_streams_category_id]);
	stream->deleted = DatumGetBool(values[Anum_es_streams_deleted]);
	stream->created = false;
	stream->truncate_before = nulls[Anum_es_streams_truncate_before] ? 0 :
		DatumGetInt64(values[Anum_es_streams_truncate_before]);
	stream->max_count = nulls[Anum_es_streams_max_count] ? 0 :
		DatumGetInt64(values[Anum_es_streams_max_count]);
	stream->max_age = NULL;
	if (!nulls[Anum_es_streams_max_age])
	{
		stream->max_age = palloc(sizeof(Interval));
		*stream->max_age = *DatumGetIntervalP(values[Anum_es_streams_max_age]);
	}
}

bool
EsStreamFind(const text *name, Snapshot snapshot, EsStream *stream)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->streams, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = EsStreamProbe(rel, name, snapshot, slot);

	if (found)
		read_stream_row(slot, stream);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return found;
}

/*
 * Fill the row of a stream that is about to be.  The positions of its first n
 * events are drawn already here: no other event of it can come before them, and
 * the first is unique enough to be the stream's id.
 */
static void
make_row(TupleTableSlot *slot, const text *name, uint32 n)
{
	int			length = EsCategoryLength(name);
	EsPosition	id = EsPositionsDraw(n);
	EsChunk		chunk;

	EsChunkEnsure(ES_CHUNK_EVENTS, id, id);
	if (!EsChunkFind(ES_CHUNK_EVENTS, id, &chunk))
		elog(ERROR, "no chunk for position " UINT64_FORMAT, id);

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, Anum_es_streams_name * sizeof(bool));
	slot->tts_values[Anum_es_streams_stream_id - 1] = Int64GetDatum((int64) id);
	slot->tts_values[Anum_es_streams_created_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	slot->tts_values[Anum_es_streams_first_chunk - 1] = Int64GetDatum((int64) chunk.lower);
	slot->tts_values[Anum_es_streams_category_id - 1] = Int32GetDatum(EsCategoryHash(VARDATA_ANY(name), length));
	slot->tts_values[Anum_es_streams_deleted - 1] = BoolGetDatum(false);
	slot->tts_values[Anum_es_streams_name - 1] = PointerGetDatum(name);
	ExecStoreVirtualTuple(slot);
}

/*
 * Insert a stream's row, unless another transaction has: then wait for that
 * one's end and return false.
 */
static bool
insert_row(Relation rel, const text *name, uint32 n, EsStream *stream)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	List	   *arbiters;
	ItemPointerData existing;
	EsTarget	target;
	bool		inserted = false;

	EsTargetOpen(&target, rel, Natts_es_streams, true);
	arbiters = EsTargetArbiters(&target, Anum_es_streams_name, C_COLLATION_OID);
	make_row(slot, name, n);
	slot->tts_tableOid = RelationGetRelid(rel);
	while (!inserted &&
		   EsExecCheckIndexConstraints(target.rri, slot, target.estate, &existing, arbiters))
	{
		CHECK_FOR_INTERRUPTS();
		inserted = EsTargetInsertUnless(&target, slot, arbiters, NULL, NULL);
	}
	if (inserted)
	{
		read_stream_row(slot, stream);
		stream->created = true;
		EsStreamRemember(name, &slot->tts_tid);
	}
	EsTargetClose(&target);
	ExecDropSingleTupleTableSlot(slot);
	return inserted;
}

/* Did SnapshotSelf miss a row for its being updated just then? */
static bool
is_being_updated(Relation rel, const text *name, TupleTableSlot *slot)
{
	bool		found;

	PushActiveSnapshot(GetLatestSnapshot());
	found = EsStreamProbe(rel, name, GetActiveSnapshot(), slot);
	PopActiveSnapshot();
	return found;
}

/*
 * Lock a stream to the end of the transaction.  If there is none, make it with
 * positions drawn for n events; or, if n is 0, return false.
 */
bool
EsStreamLock(const text *name, uint32 n, EsStream *stream)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->streams, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		have = false;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (EsStreamProbe(rel, name, SnapshotSelf, slot))
		{
			if (EsRowLock(rel, slot))
			{
				read_stream_row(slot, stream);
				have = true;
				break;
			}
		}
		else if (n == 0)
		{
			if (!is_being_updated(rel, name, slot))
				break;
		}
		else if (insert_row(rel, name, n, stream))
		{
			have = true;
			break;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return have;
}

/* The newest version of a stream in one chunk, or -1. */
static int64
head_in_chunk(const EsStream *stream, EsPosition position, Snapshot snapshot)
{
	static const AttrNumber columns[] = {Anum_es_events_stream_id, Anum_es_events_version};
	EsChunk		chunk;
	Relation	leaf;
	Relation	index;
	TupleTableSlot *slot;
	ScanKeyData key;
	int64		version = -1;
	bool		isnull;

	if (!EsChunkFindSurely(ES_CHUNK_EVENTS, position, &chunk))
		return -1;
	leaf = EsChunkOpen(ES_CHUNK_EVENTS, &chunk, AccessShareLock);
	if (leaf == NULL)
		return -1;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	if (EsIndexProbe(leaf, index, snapshot, &key, 1, BackwardScanDirection, slot))
		version = DatumGetInt64(slot_getattr(slot, Anum_es_events_version, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(leaf, NoLock);
	return version;
}

/* Where a stream ends, by the chunks it is known to have entered. */
EsHead
EsStreamHeadByChunks(const EsStream *stream, Snapshot snapshot)
{
	EsHead		head = {-1, stream->first_chunk};

	(void) EsStreamChunkNewest(stream, snapshot, PG_INT64_MAX, &head.chunk);
	head.version = head_in_chunk(stream, head.chunk, snapshot);
	return head;
}

/*
 * Where a stream ends.  Nearly always in the chunk that is written to now, so
 * that one is probed before es_stream_chunks is asked; a stream whose first
 * chunk that is needs no asking at all.
 */
EsHead
EsStreamHead(const EsStream *stream, Snapshot snapshot)
{
	EsHead		head = {-1, stream->first_chunk};
	EsChunk		current;

	if (!RecoveryInProgress() &&
		EsChunkFind(ES_CHUNK_EVENTS, EsPositionLast(), &current))
	{
		head.version = head_in_chunk(stream, current.lower, snapshot);
		head.chunk = current.lower;
		if (head.version >= 0 || current.lower <= stream->first_chunk)
			return head;
	}
	return EsStreamHeadByChunks(stream, snapshot);
}

void
EsStreamCheckAlive(const EsStream *stream, const text *name)
{
	if (stream->deleted)
		ereport(ERROR,
				(errcode(ERRCODE_ES_STREAM_DELETED),
				 errmsg("stream \"%s\" is deleted", text_to_cstring(name))));
}
