/*
 * outbox_backlog.c
 *		How far the slowest reader of the outbox is, and how much waits for it.
 *
 * es_pg.max_outbox_backlog makes es_publish refuse when that many messages wait.
 * The limit must cost nothing while it is far away.  A message takes a position,
 * so after a count that found room for r more, r positions may be drawn, by
 * anybody, before another count is needed; each backend remembers that for itself.
 * Near the limit one hundredth of it is given as room, which bounds
 * what counting costs and says how far the limit may be overshot.  A backend
 * that has refused counts again when the slowest reader has moved, or after a
 * second; at once, if what it counted was not all committed.
 *
 * Counted is what has committed, and what this transaction has published itself.
 */
#include "outbox.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "chunk.h"
#include "compat.h"

static int	max_backlog = 0;

/* The last count, of which log and limit it was, and what it said. */
static struct
{
	Oid			outbox;
	int			limit;
	EsPosition	free_until;		/* publish without a look up to this position */
	EsPosition	lowest;			/* the slowest reader */
	TimestampTz refused_until;	/* refuse without a count as long as it is there */
}			last;

void
EsBacklogInit(void)
{
	DefineCustomIntVariable("es_pg.max_outbox_backlog",
							"Messages waiting for the slowest subscription at which es_publish is refused.",
							"0 is no limit.",
							&max_backlog, 0, 0, PG_INT32_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
}

/*
 * What every subscription to the outbox that counts has acknowledged, as
 * es_lowest_cursor() says.  False when there is no such subscription.
 */
bool
EsCursorLowest(EsPosition *lowest)
{
	EsOwner		before;
	char	   *sql;
	bool		isnull;
	Datum		value;

	EsOwnerBegin(&before);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	sql = psprintf("SELECT %s.es_lowest_cursor('outbox')",
				   quote_identifier(get_namespace_name(EsCatalogGet()->schema)));
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the lowest cursor");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		*lowest = (EsPosition) DatumGetInt64(value);
	SPI_finish();
	PopActiveSnapshot();
	EsOwnerEnd(&before);
	return !isnull;
}

/* How many messages one chunk has after a position; stops at "most". */
static int
count_in_chunk(const EsChunk *chunk, EsPosition after, int most)
{
	static const AttrNumber columns[] = {Anum_es_outbox_position};
	Relation	leaf = EsChunkOpen(ES_CHUNK_OUTBOX, chunk, AccessShareLock);
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData key;
	int			n = 0;

	if (leaf == NULL)
		return 0;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	ScanKeyInit(&key, 1, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum((int64) after));
	slot = table_slot_create(leaf, NULL);
	scan = es_index_beginscan(leaf, index, SnapshotSelf, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n < most && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		n++;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(leaf, AccessShareLock);
	return n;
}

static int
count_messages(EsPosition after, int most)
{
	EsPosition	from = after + 1;
	EsChunk		chunk;
	int			n = 0;

	while (n < most && EsChunkFindNext(ES_CHUNK_OUTBOX, from, &chunk))
	{
		n += count_in_chunk(&chunk, after, most - n);
		from = chunk.upper;
	}
	return n;
}

static void
refuse(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the outbox has too many messages that wait for a subscription"),
			 errdetail("There are %d or more after position " UINT64_FORMAT ", which the slowest subscription has acknowledged.",
					   max_backlog, last.lowest),
			 errhint("See es_outbox_status; let the subscription catch up or drop it, or raise es_pg.max_outbox_backlog.")));
}

/* Refuse to publish while too much waits. */
void
EsBacklogCheck(void)
{
	EsPosition	drawn;
	EsPosition	lowest;
	Oid			outbox;
	int			n;

	if (max_backlog == 0)
		return;
	drawn = EsPositionLast();
	outbox = EsCatalogGet()->outbox;
	if (last.outbox != outbox || last.limit != max_backlog)
		memset(&last, 0, sizeof(last));
	if (drawn < last.free_until)
		return;

	if (!EsCursorLowest(&lowest))
		lowest = drawn;
	if (last.lowest == lowest && GetCurrentStatementStartTimestamp() < last.refused_until)
		refuse();
	n = drawn < lowest + max_backlog ? drawn - lowest : count_messages(lowest, max_backlog);
	last.outbox = outbox;
	last.limit = max_backlog;
	last.lowest = lowest;
	last.refused_until = 0;
	if (n >= max_backlog)
	{
		if (!EsHorizonWriting())
			last.refused_until = GetCurrentTimestamp() + USECS_PER_SEC;
		refuse();
	}
	last.free_until = drawn + Max(max_backlog - n, max_backlog / 100 + 1);
}
