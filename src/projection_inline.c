/*
 * projection_inline.c
 *		Inline projections: their bodies run in the append or publish itself.
 *
 * The writer of a batch of rows shows each row that it has formed (EsInlineSee),
 * and when all are written the bodies of the projections that wanted some of them
 * run, each once over what it wanted.  What fails there fails the append.
 *
 * Without an inline projection an append pays for a table lock that its backend
 * takes by itself, and a look at a list.
 */
#include "projection.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"

/* What one projection wants of the batch. */
typedef struct Taking
{
	EsProjection *projection;
	TupleDesc	shape;
	Tuplestorestate *rows;		/* NULL: nothing yet */
	int64		n;
} Taking;

struct EsInline
{
	const text *stream;			/* of events */
	MemoryContext context;		/* lives as long as the batch */
	List	   *takings;
};

/* May a projection want something of this batch? */
static bool
concerns(const EsProjection *projection, EsChunkKind kind, const text *stream)
{
	return projection->is_inline && projection->wants.source == kind &&
		(stream == NULL || EsFilterWantsStream(&projection->wants.filter, stream));
}

/*
 * Before a batch is written, and before the writer holds anything that others
 * wait for; NULL when no inline projection wants any of it.
 */
EsInline *
EsInlineBegin(EsChunkKind kind, const text *stream)
{
	EsInline   *inlines = NULL;
	ListCell   *cell;

	EsProjectionsCheckWrite();
	EsProjectionsLock();
	foreach(cell, EsProjectionsGet())
	{
		EsProjection *projection = lfirst(cell);
		Taking	   *taking;

		if (!concerns(projection, kind, stream))
			continue;
		if (inlines == NULL)
		{
			inlines = palloc0(sizeof(EsInline));
			inlines->stream = stream;
			inlines->context = CurrentMemoryContext;
		}
		taking = palloc0(sizeof(Taking));
		taking->projection = projection;
		inlines->takings = lappend(inlines->takings, taking);
	}
	return inlines;
}

static void
take(EsInline *inlines, Taking *taking, const EsDelivered *row)
{
	Datum		values[Natts_es_delivery];
	bool		nulls[Natts_es_delivery];

	if (taking->rows == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(inlines->context);

		taking->shape = EsProjectionShape(taking->projection);
		taking->rows = tuplestore_begin_heap(false, false, work_mem);
		MemoryContextSwitchTo(old);
	}
	EsProjectionValues(taking->projection, row->values, row->nulls, values, nulls);
	tuplestore_putvalues(taking->rows, taking->shape, values, nulls);
	taking->n++;
}

/* A row that is about to be written. */
void
EsInlineSee(TupleTableSlot *slot, void *arg)
{
	EsInline   *inlines = arg;
	EsDelivered row;
	ListCell   *cell;

	foreach(cell, inlines->takings)
	{
		Taking	   *taking = lfirst(cell);
		const EsSubscription *wants = &taking->projection->wants;

		if (!EsSubscriptionWantsContent(wants, slot))
			continue;
		EsDeliveryForm(wants, slot, inlines->stream, &row);
		row.nulls[DELIVERY_LANE] = row.nulls[DELIVERY_EPOCH] = row.nulls[DELIVERY_INCARNATION] = true;
		take(inlines, taking, &row);
	}
}

/* All rows are written: run the bodies. */
void
EsInlineRun(EsInline *inlines)
{
	ListCell   *cell;

	EsProjectionsUse();
	PG_TRY();
	{
		foreach(cell, inlines->takings)
		{
			Taking	   *taking = lfirst(cell);

			if (taking->rows == NULL)
				continue;
			EsProjectionApply(taking->projection, taking->rows, taking->n);
			tuplestore_end(taking->rows);
			EsProjectionMoved(taking->projection);
		}
	}
	PG_FINALLY();
	{
		EsProjectionsRelease();
	}
	PG_END_TRY();
}
