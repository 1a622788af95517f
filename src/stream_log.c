/*
 * stream_log.c
 *		Events of the whole log in position order, up to the horizon.
 *
 * An ordered read takes the horizon first, then sees to it that it knows every
 * chunk below that, then takes its snapshot.  The other orders lose events: a
 * snapshot older than the horizon does not see all that lies below it, and a
 * chunk that this backend has not heard of would be passed over.  So under REPEATABLE READ, whose
 * snapshot is old, it is refused.  A standby goes by marks; see horizon_mark.c.
 *
 * Events hold their stream's number; the name is looked up, once, and kept: a
 * stream is never renamed and a number never used again.  The cache is bounded
 * and forgotten when es_streams changes as a table.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"

#define NAMES_MAX		65536	/* names kept */

/* A name in the cache; the text follows from the cache's own memory. */
typedef struct NameEntry
{
	int64		stream_id;		/* key */
	text	   *name;
} NameEntry;

static MemoryContext names_context = NULL;
static HTAB *names = NULL;
static Oid	names_of = InvalidOid;	/* the table they came from */

/* An empty cache for the names of this table. */
static void
reset_names(Oid table)
{
	HASHCTL		info;

	if (names_context == NULL)
		names_context = AllocSetContextCreate(TopMemoryContext, "es_pg stream names", ALLOCSET_DEFAULT_SIZES);
	names_of = InvalidOid;
	MemoryContextReset(names_context);
	info.keysize = sizeof(int64);
	info.entrysize = sizeof(NameEntry);
	info.hcxt = names_context;
	names = hash_create("es_pg stream names", 1024, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	names_of = table;
}

/* Called for every relation that changed. */
void
EsStreamNamesInvalidate(Oid relation)
{
	if (relation == InvalidOid || relation == names_of)
		names_of = InvalidOid;
}

/* A stream's name from its row; NULL when there is none. */
static text *
look_up_name(int64 stream_id, Snapshot snapshot)
{
	EsProbe		probe;
	ScanKeyData key;
	text	   *name = NULL;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->streams, EsCatalogGet()->streams_pkey);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream_id));
	if (EsIndexProbe(probe.rel, probe.index, snapshot, &key, 1, ForwardScanDirection, probe.slot))
	{
		MemoryContext old = MemoryContextSwitchTo(names_context);

		name = DatumGetTextPCopy(slot_getattr(probe.slot, Anum_es_streams_name, &isnull));
		MemoryContextSwitchTo(old);
	}
	EsProbeClose(&probe);
	return name;
}

/* The name of a stream, valid until the next call. */
const text *
EsStreamName(int64 stream_id, Snapshot snapshot)
{
	Oid			table = EsCatalogGet()->streams;
	NameEntry  *entry;
	bool		found;
	text	   *name;

	if (names_of != table || hash_get_num_entries(names) >= NAMES_MAX)
		reset_names(table);
	entry = hash_search(names, &stream_id, HASH_FIND, NULL);
	if (entry != NULL)
		return entry->name;

	name = look_up_name(stream_id, snapshot);
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("events of a stream without a row in es_streams"),
				 errdetail("Its number is " INT64_FORMAT ".", stream_id)));
	entry = hash_search(names, &stream_id, HASH_ENTER, &found);
	entry->name = name;
	return name;
}

/* The texts of an array argument, checked as names. */
static int
take_names(ArrayType *array, text ***result, const char *what)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;

	if (array == NULL)
		return 0;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	*result = palloc(sizeof(text *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not contain nulls", what)));
		(*result)[i] = DatumGetTextPP(values[i]);
		EsCheckName((*result)[i], what);
	}
	return n;
}

/* A filter from two optional arrays; an empty array filters nothing out. */
void
EsFilterSet(EsFilter *filter, ArrayType *categories, ArrayType *types)
{
	memset(filter, 0, sizeof(*filter));
	filter->ncategories = take_names(categories, &filter->categories, "categories");
	filter->ntypes = take_names(types, &filter->types, "event types");
	filter->category_ids = palloc(sizeof(int32) * (filter->ncategories + 1));
	for (int i = 0; i < filter->ncategories; i++)
		filter->category_ids[i] = EsCategoryHash(VARDATA_ANY(filter->categories[i]),
												 VARSIZE_ANY_EXHDR(filter->categories[i]));
}

static bool
same_text(const text *a, const char *b, int length)
{
	return VARSIZE_ANY_EXHDR(a) == length && memcmp(VARDATA_ANY(a), b, length) == 0;
}

/* Is a stream of one of the filter's categories? */
bool
EsFilterWantsStream(const EsFilter *filter, const text *stream)
{
	bool		match = filter->ncategories == 0;

	for (int i = 0; i < filter->ncategories && !match; i++)
		match = same_text(filter->categories[i], VARDATA_ANY(stream), EsCategoryLength(stream));
	return match;
}

/* Does the filter want this event?  If so, look its stream's name up. */
bool
EsFilterWants(const EsFilter *filter, TupleTableSlot *slot, Snapshot snapshot, const text **stream)
{
	bool		isnull;
	bool		match = filter->ntypes == 0;
	int32		category_id;

	if (!match)
	{
		text	   *type = DatumGetTextPP(slot_getattr(slot, Anum_es_events_type, &isnull));

		for (int i = 0; i < filter->ntypes && !match; i++)
			match = same_text(filter->types[i], VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type));
		if (!match)
			return false;
	}

	category_id = DatumGetInt32(slot_getattr(slot, Anum_es_events_category_id, &isnull));
	match = filter->ncategories == 0;
	for (int i = 0; i < filter->ncategories && !match; i++)
		match = filter->category_ids[i] == category_id;
	if (!match)
		return false;

	*stream = EsStreamName(DatumGetInt64(slot_getattr(slot, Anum_es_events_stream_id, &isnull)), snapshot);
	return EsFilterWantsStream(filter, *stream);	/* hashes may collide */
}

/*
 * An event's values in another order of columns: for each, its column in
 * es_events, or 0 where the caller fills in something else.
 */
void
EsEventValues(TupleTableSlot *slot, const AttrNumber *columns, int n,
			  Datum *values, bool *nulls)
{
	slot_getallattrs(slot);
	for (int i = 0; i < n; i++)
	{
		AttrNumber	column = columns[i];

		nulls[i] = false;
		if (column == 0)
			continue;
		if (column == Anum_es_events_occurred_at && slot->tts_isnull[column - 1])
			column = Anum_es_events_recorded_at;
		values[i] = slot->tts_values[column - 1];
		nulls[i] = slot->tts_isnull[column - 1];
	}
}

/*
 * Visit the rows of one chunk, of one category if there is one given; false
 * when told to stop.  The position is the first column of either kind.
 */
static bool
scan_chunk(EsChunkKind kind, const EsChunk *chunk, const int32 *category_id, EsPosition from,
		   EsPosition upto, Snapshot snapshot, EsRowVisitor visit, void *arg)
{
	static const AttrNumber columns[] = {Anum_es_events_category_id, Anum_es_events_position};
	int			skip = category_id ? 0 : 1; /* the category's key */
	Relation	leaf = EsChunkOpen(kind, chunk, AccessShareLock);
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData keys[3];
	EsRowVerdict verdict;
	bool		visited = false;
	bool		more = true;

	if (leaf == NULL)
		return true;
	index = EsLeafIndexOpen(leaf, columns + skip, lengthof(columns) - skip, AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(category_id ? *category_id : 0));
	ScanKeyInit(&keys[1], 2 - skip, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum((int64) from));
	ScanKeyInit(&keys[2], 2 - skip, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum((int64) upto));
	scan = es_index_beginscan(leaf, index, snapshot, lengthof(keys) - skip);
	index_rescan(scan, keys + skip, lengthof(keys) - skip, NULL, 0);
	while (more && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		verdict = visit(slot, arg);
		visited |= verdict == ES_ROW_TAKEN || verdict == ES_ROW_LAST;
		more = verdict == ES_ROW_PASSED || verdict == ES_ROW_TAKEN;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	/* TOAST pointers handed out need the lock; but there may be more chunks than locks */
	table_close(leaf, visited ? NoLock : AccessShareLock);
	return more;
}

/*
 * Visit the rows after a position and up to another, in the order of their
 * positions.  With a single category its index is used; others of the same
 * hash come too.
 */
void
EsLogRows(EsChunkKind kind, const EsFilter *filter, EsPosition after, EsPosition upto,
		  Snapshot snapshot, EsRowVisitor visit, void *arg)
{
	const int32 *category_id = filter && filter->ncategories == 1 ? filter->category_ids : NULL;
	EsPosition	from = after + 1;
	EsChunk		chunk;

	while (from <= upto && EsChunkFindNext(kind, from, &chunk) && chunk.lower <= upto)
	{
		if (!scan_chunk(kind, &chunk, category_id, from, upto, snapshot, visit, arg))
			break;
		from = chunk.upper;
	}
}

/* A filtered read of events. */
typedef struct LogScan
{
	const EsFilter *filter;
	Snapshot	snapshot;
	EsLogVisitor visit;
	void	   *arg;
} LogScan;

static EsRowVerdict
visit_wanted(TupleTableSlot *slot, void *arg)
{
	LogScan    *scan = arg;
	const text *stream;

	if (!EsFilterWants(scan->filter, slot, scan->snapshot, &stream))
		return ES_ROW_PASSED;
	return scan->visit(slot, stream, scan->arg) ? ES_ROW_TAKEN : ES_ROW_LAST;
}

/* Visit the events after a position and up to another that the filter wants. */
void
EsLogScan(const EsFilter *filter, EsPosition after, EsPosition upto,
		  Snapshot snapshot, EsLogVisitor visit, void *arg)
{
	LogScan		scan = {filter, snapshot, visit, arg};

	EsLogRows(ES_CHUNK_EVENTS, filter, after, upto, snapshot, visit_wanted, &scan);
}

/* Refuse an ordered read where its order could not be trusted. */
void
EsOrderedReadCheck(void)
{
	if (IsolationUsesXactSnapshot() && !RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_ORDERED),
				 errmsg("cannot read the log in order in a transaction that is %s",
						IsolationIsSerializable() ? "SERIALIZABLE" : "REPEATABLE READ"),
				 errdetail("Its snapshot is older than the horizon, so events could be skipped."),
				 errhint("Use READ COMMITTED.")));
}

/* On a standby: a mark, and the same snapshot for what lies below it. */
static void
begin_on_standby(EsOrderedRead *read, EsChunkKind kind)
{
	static bool told = false;

	PushActiveSnapshot(IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : GetLatestSnapshot());
	read->log = NULL;
	read->horizon = EsMarkRead(GetActiveSnapshot());
	EsChunkCover(kind, read->horizon);
	if (!told)
		ereport(NOTICE,
				(errmsg("this is a standby: the log is read up to position " UINT64_FORMAT
						", the newest mark of the primary", read->horizon)));
	told = true;
}

/* Horizon, then its chunks, then the snapshot. */
void
EsOrderedReadBegin(EsOrderedRead *read, EsChunkKind kind)
{
	if (RecoveryInProgress())
	{
		begin_on_standby(read, kind);
		return;
	}
	read->log = EsLogGet();
	read->horizon = EsHorizonRead(read->log);
	EsChunkCover(kind, read->horizon);
	PushActiveSnapshot(GetLatestSnapshot());
	ES_DEBUG_BREAK(horizon_after_snapshot, read->horizon = EsHorizonRead(read->log));
}

void
EsOrderedReadEnd(EsOrderedRead *read)
{
	PopActiveSnapshot();
}
