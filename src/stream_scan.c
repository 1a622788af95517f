/*
 * stream_scan.c
 *		The events of one stream in version order, across its chunks.
 *
 * es_streams has the first chunk that may hold a stream's events, and
 * es_stream_chunks a row for each further chunk that the stream entered, with
 * the first version there.  A scan opens exactly the chunks that hold the
 * versions asked for.  A stream that never left the chunk which is written to
 * now, which is most of them, needs no look into es_stream_chunks.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"

#include "catalog.h"
#include "compat.h"

/* Columns of es_stream_chunks. */
enum
{
	Anum_es_stream_chunks_stream_id = 1,
	Anum_es_stream_chunks_chunk,
	Anum_es_stream_chunks_first_version
};

/* A chunk of a stream, and the first version it holds. */
typedef struct StreamChunk
{
	EsPosition	chunk;
	int64		first_version;
} StreamChunk;

/* Remember that a stream enters a chunk. */
void
EsStreamChunkNote(const EsStream *stream, EsPosition chunk, int64 first_version)
{
	Datum		values[3] = {
		Int64GetDatum(stream->stream_id),
		Int64GetDatum((int64) chunk),
		Int64GetDatum(first_version)
	};
	bool		nulls[3] = {false};

	EsInsertRow(EsCatalogGet()->stream_chunks, lengthof(values), values, nulls);
}

/* The newest chunk that a stream has entered after its first, below "before". */
bool
EsStreamChunkNewest(const EsStream *stream, Snapshot snapshot, EsPosition before, EsPosition *chunk)
{
	const EsCatalog *catalog = EsCatalogGet();
	Relation	rel = table_open(catalog->stream_chunks, AccessShareLock);
	Relation	index = index_open(EsCatalogGet()->stream_chunks_pkey, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ScanKeyData keys[2];
	bool		isnull;
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT8LT, Int64GetDatum((int64) before));
	found = EsIndexProbe(rel, index, snapshot, keys, 2, BackwardScanDirection, slot);
	if (found)
		*chunk = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_stream_chunks_chunk, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return found;
}

/* Is the stream's first chunk the one that is written to now? */
static bool
in_current_chunk(const EsStream *stream)
{
	EsChunk		chunk;

	return !RecoveryInProgress() &&
		EsChunkFind(ES_CHUNK_EVENTS, stream->first_chunk, &chunk) &&
		EsPositionLast() < chunk.upper;
}

/* All chunks of a stream, oldest first, in the current memory context. */
static StreamChunk *
list_chunks(const EsStream *stream, Snapshot snapshot, int *n)
{
	int			size = 8;
	StreamChunk *chunks = palloc(size * sizeof(StreamChunk));
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;

	chunks[0].chunk = stream->first_chunk;
	chunks[0].first_version = 0;
	*n = 1;
	if (in_current_chunk(stream))
		return chunks;

	rel = EsTableOpen(EsCatalogGet()->stream_chunks, AccessShareLock);
	index = index_open(EsCatalogGet()->stream_chunks_pkey, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	scan = es_index_beginscan(rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (*n == size)
		{
			size *= 2;
			chunks = repalloc(chunks, size * sizeof(StreamChunk));
		}
		chunks[*n].chunk = (EsPosition)
			DatumGetInt64(slot_getattr(slot, Anum_es_stream_chunks_chunk, &isnull));
		chunks[*n].first_version =
			DatumGetInt64(slot_getattr(slot, Anum_es_stream_chunks_first_version, &isnull));
		(*n)++;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return chunks;
}

/* Visit the versions from..to that one chunk holds; false when told to stop. */
static bool
scan_chunk(const EsStream *stream, EsPosition position, int64 from, int64 to, bool backward,
		   Snapshot snapshot, EsEventVisitor visit, void *arg)
{
	static const AttrNumber columns[] = {Anum_es_events_stream_id, Anum_es_events_version};
	EsChunk		chunk;
	Relation	leaf;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData keys[3];
	bool		more = true;

	if (!EsChunkFindSurely(ES_CHUNK_EVENTS, position, &chunk))
		return true;
	leaf = EsChunkOpen(ES_CHUNK_EVENTS, &chunk, AccessShareLock);
	if (leaf == NULL)
		return true;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&keys[2], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(to));
	scan = es_index_beginscan(leaf, index, snapshot, lengthof(keys));
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	while (more &&
		   index_getnext_slot(scan, backward ? BackwardScanDirection : ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		more = visit(slot, arg);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, NoLock);
	table_close(leaf, NoLock);	/* TOAST pointers handed out need the lock */
	return more;
}

/*
 * Visit the versions from..to of a stream, upwards or backwards.  Of a chunk
 * only the versions that its row claims are looked at: a restore through the
 * parent may have put several of the stream's chunks into one.
 */
void
EsStreamScan(const EsStream *stream, int64 from, int64 to, bool backward,
			 Snapshot snapshot, EsEventVisitor visit, void *arg)
{
	int			n;
	StreamChunk *chunks;

	if (from > to)
		return;
	chunks = list_chunks(stream, snapshot, &n);
	for (int i = 0; i < n; i++)
	{
		int			j = backward ? n - 1 - i : i;
		int64		first = Max(from, chunks[j].first_version);
		int64		last = j + 1 < n ? Min(to, chunks[j + 1].first_version - 1) : to;

		if (first > last)
			continue;
		if (!scan_chunk(stream, chunks[j].chunk, first, last, backward, snapshot, visit, arg))
			break;
	}
	pfree(chunks);
}

static bool
take_position(TupleTableSlot *slot, void *arg)
{
	bool		isnull;

	*(EsPosition *) arg = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_events_position, &isnull));
	return false;
}

/* The position of one of a stream's versions; 0: it is not there. */
EsPosition
EsStreamPosition(const EsStream *stream, int64 version, Snapshot snapshot)
{
	EsPosition	position = 0;

	EsStreamScan(stream, version, version, false, snapshot, take_position, &position);
	return position;
}
