/*
 * horizon_mark.c
 *		How far a standby may read the log in order.
 *
 * The registry of writers is not there, so the horizon is not known.  But the
 * primary leaves marks in tables: positions that were at or below its horizon
 * when the mark was written.  A standby sees commits in the order in which the
 * primary wrote them to WAL; whatever lies below a horizon had been written
 * there before that horizon was taken.  So a snapshot that sees a mark sees all
 * that is below it, and the newest mark that it sees is as good as a horizon.
 * The one snapshot serves for the mark and for the events; it may be as old as
 * it likes, so REPEATABLE READ is no trouble here.
 *
 * Marks are the rows of es_marks, which es_maintain() leaves, and the cursors of
 * subscriptions, which are never above the horizon.
 */
#include "horizon.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "catalog.h"

/* The newest row of es_marks; 0: none. */
static EsPosition
newest_mark(Snapshot snapshot)
{
	EsProbe		probe;
	EsPosition	position = 0;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->marks, EsCatalogGet()->marks_pkey);
	if (EsIndexProbe(probe.rel, probe.index, snapshot, NULL, 0, BackwardScanDirection, probe.slot))
		position = (EsPosition) DatumGetInt64(slot_getattr(probe.slot, 1, &isnull));
	EsProbeClose(&probe);
	return position;
}

/*
 * The next cursor in descending order of (subscription, lane): the newest of
 * the subscription's next lower lane, or else of the next lower subscription.
 */
static bool
next_cursor(EsProbe *probe, Snapshot snapshot, int32 subscription, int32 lane)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&keys[1], 2, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(lane));
	if (EsIndexProbe(probe->rel, probe->index, snapshot, keys, 2, BackwardScanDirection, probe->slot))
		return true;
	ScanKeyInit(&keys[0], 1, BTLessStrategyNumber, F_INT4LT, Int32GetDatum(subscription));
	return EsIndexProbe(probe->rel, probe->index, snapshot, keys, 1, BackwardScanDirection, probe->slot);
}

/* The furthest cursor of any subscription's lane; 0: none. */
static EsPosition
furthest_cursor(Snapshot snapshot)
{
	EsProbe		probe;
	int32		subscription = PG_INT32_MAX;
	int32		lane = PG_INT32_MAX;
	EsPosition	furthest = 0;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->cursors, EsCatalogGet()->cursors_pkey);
	while (next_cursor(&probe, snapshot, subscription, lane))
	{
		subscription = DatumGetInt32(slot_getattr(probe.slot, Anum_es_cursors_subscription_id, &isnull));
		lane = DatumGetInt32(slot_getattr(probe.slot, Anum_es_cursors_lane, &isnull));
		furthest = Max(furthest, (EsPosition) DatumGetInt64(slot_getattr(probe.slot, Anum_es_cursors_position, &isnull)));
	}
	EsProbeClose(&probe);
	return furthest;
}

/* The highest position below which a snapshot is known to see everything. */
EsPosition
EsMarkRead(Snapshot snapshot)
{
	EsPosition	mark = newest_mark(snapshot);
	EsPosition	cursor = furthest_cursor(snapshot);

	return Max(mark, cursor);
}
