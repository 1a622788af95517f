/*
 * subscription_due.c
 *		Handing out parked messages that are due.
 *
 * Of a key with something due, the first message that is not dead must be due
 * itself; then it goes out, with what waits behind it, in the order of positions.
 * So it cannot happen that one of a key overtakes another, whatever was planned
 * for each of them.
 *
 * What went out is marked with the epoch of its lane, and an acknowledgement
 * speaks for what is so marked.  So what an earlier fetch handed out and this
 * one does not loses its mark.  The caller has locked the lane's lease, and taken
 * its snapshot after that: else what was acknowledged meanwhile would go out again.
 */
#include "subscription.h"

#include "access/genam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"

/* A parked message to be handed out. */
typedef struct Due
{
	EsPosition	position;
	EsDelivered message;		/* in the memory of the look */
} Due;

/* Collecting them, lane by lane. */
typedef struct DueScan
{
	const EsSubscription *subscription;
	EsLane	   *lane;
	TimestampTz now;
	int			room;			/* messages that still fit */
	List	   *found;			/* of Due */
	EsProbe		by_key;
} DueScan;

static EsStatement mark = {
	"UPDATE @.es_parked SET delivered_epoch = $2"
	" WHERE subscription_id = $1 AND position = ANY ($3) AND delivered_epoch IS DISTINCT FROM $2",
	3, {INT4OID, INT8OID, INT8ARRAYOID}
};

static EsStatement unmark = {
	"UPDATE @.es_parked SET delivered_epoch = NULL"
	" WHERE subscription_id = $1 AND lane = $2 AND delivered_epoch IS NOT NULL AND position <> ALL ($3)",
	3, {INT4OID, INT4OID, INT8ARRAYOID}
};

/* A row of es_parked as a row of es_delivery, copied. */
static Due *
copy_row(TupleTableSlot *slot, const EsLane *lane)
{
	Due		   *due = palloc0(sizeof(Due));

	slot_getallattrs(slot);
	for (int i = 0; i < Natts_es_delivery; i++)
	{
		AttrNumber	column = EsParkedColumn(i);

		due->message.nulls[i] = slot->tts_isnull[column - 1];
		if (!due->message.nulls[i])
			due->message.values[i] = datumCopy(slot->tts_values[column - 1],
											   TupleDescAttr(slot->tts_tupleDescriptor, column - 1)->attbyval,
											   TupleDescAttr(slot->tts_tupleDescriptor, column - 1)->attlen);
	}
	due->message.values[DELIVERY_EPOCH] = Int64GetDatum(lane->epoch);
	due->message.nulls[DELIVERY_EPOCH] = false;
	due->position = (EsPosition) DatumGetInt64(due->message.values[DELIVERY_POSITION]);
	return due;
}

static bool
has(const List *found, EsPosition position)
{
	ListCell   *cell;

	foreach(cell, found)
	{
		if (((const Due *) lfirst(cell))->position == position)
			return true;
	}
	return false;
}

static int
by_position(const ListCell *a, const ListCell *b)
{
	EsPosition	x = ((const Due *) lfirst(a))->position;
	EsPosition	y = ((const Due *) lfirst(b))->position;

	return x < y ? -1 : x > y ? 1 : 0;
}

/* Is this row of the key, or the very one where there is none? */
static bool
same_key(TupleTableSlot *slot, Datum key, bool keyless, EsPosition position)
{
	bool		isnull;
	Datum		other = slot_getattr(slot, Anum_es_parked_key, &isnull);

	if (keyless || isnull)
		return (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_parked_position, &isnull)) == position;
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, other, key));
}

/*
 * Take the key of a due row from its first message on, if that is due too and
 * no dead letter before it blocks.
 */
static void
take_key(DueScan *scan, TupleTableSlot *due)
{
	bool		isnull;
	bool		keyless;
	Datum		key = slot_getattr(due, Anum_es_parked_key, &keyless);
	EsPosition	position = (EsPosition) DatumGetInt64(slot_getattr(due, Anum_es_parked_position, &isnull));
	uint64		hash = (uint64) DatumGetInt64(slot_getattr(due, Anum_es_parked_key_hash, &isnull));
	TupleTableSlot *slot = scan->by_key.slot;
	IndexScanDesc rows = EsParkedKeyScan(&scan->by_key, scan->subscription->id, hash, false, PG_INT64_MAX);
	bool		first = true;

	while (scan->room > 0 && index_getnext_slot(rows, ForwardScanDirection, slot))
	{
		Due		   *copy;

		if (!same_key(slot, key, keyless, position))
			continue;
		if (first)
		{
			TimestampTz at = DatumGetTimestampTz(slot_getattr(slot, Anum_es_parked_next_attempt_at, &isnull));

			if (isnull || at > scan->now)
				break;
		}
		copy = copy_row(slot, scan->lane);
		if (first && !keyless && !scan->subscription->skip_dead &&
			EsParkedBefore(scan->subscription->id, hash, &copy->message, true))
			break;
		if (copy->position > scan->lane->cursor || has(scan->found, copy->position))
			break;
		first = false;
		scan->found = lappend(scan->found, copy);
		scan->room--;
	}
	index_endscan(rows);
}

/* What is due in one lane, the longest due first. */
static void
scan_lane(DueScan *scan)
{
	EsProbe		probe;
	IndexScanDesc rows;
	ScanKeyData keys[3];

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_due);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scan->subscription->id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(scan->lane->number));
	ScanKeyInit(&keys[2], 3, BTLessEqualStrategyNumber, F_TIMESTAMP_LE, TimestampTzGetDatum(scan->now));
	rows = es_index_beginscan(probe.rel, probe.index, GetActiveSnapshot(), 3);
	index_rescan(rows, keys, 3, NULL, 0);
	while (scan->room > 0 && index_getnext_slot(rows, ForwardScanDirection, probe.slot))
		take_key(scan, probe.slot);
	index_endscan(rows);
	EsProbeClose(&probe);
}

/* Is anything of a lane marked that does not go out now? */
static bool
any_stale(const EsSubscription *subscription, const EsLane *lane, const List *found)
{
	EsProbe		probe;
	IndexScanDesc rows;
	ScanKeyData keys[2];
	bool		stale = false;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_out);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription->id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(lane->number));
	rows = es_index_beginscan(probe.rel, probe.index, GetActiveSnapshot(), 2);
	index_rescan(rows, keys, 2, NULL, 0);
	while (!stale && index_getnext_slot(rows, ForwardScanDirection, probe.slot))
	{
		bool		isnull;

		stale = !has(found, (EsPosition) DatumGetInt64(slot_getattr(probe.slot, Anum_es_parked_position, &isnull)));
	}
	index_endscan(rows);
	EsProbeClose(&probe);
	return stale;
}

/* Mark what goes out of a lane, and take the mark from what does not. */
static void
mark_lane(const EsSubscription *subscription, const EsLane *lane, const List *found)
{
	Datum	   *positions = palloc(sizeof(Datum) * (list_length(found) + 1));
	Datum		args[3] = {Int32GetDatum(subscription->id)};
	ListCell   *cell;
	int			n = 0;

	foreach(cell, found)
		positions[n++] = Int64GetDatum((int64) ((Due *) lfirst(cell))->position);
	args[2] = PointerGetDatum(construct_array(positions, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_connect();
	args[1] = Int64GetDatum(lane->epoch);
	if (n > 0)
		EsStatementRun(&mark, args, NULL);
	args[1] = Int32GetDatum(lane->number);
	if (any_stale(subscription, lane, found))
		EsStatementRun(&unmark, args, NULL);
	SPI_finish();
}

/* What is due in a lane and may go out, at most so many messages. */
static List *
find_due(const EsSubscription *subscription, EsLane *lane, int room)
{
	DueScan		scan = {subscription, lane, GetCurrentTimestamp(), room};

	EsProbeOpen(&scan.by_key, EsCatalogGet()->parked, EsCatalogGet()->parked_key);
	scan_lane(&scan);
	EsProbeClose(&scan.by_key);
	list_sort(scan.found, by_position);
	return scan.found;
}

/* Is there anything in a lane to be handed out?  Asked before its lease is locked. */
bool
EsDueAny(const EsSubscription *subscription, EsLane *lane)
{
	return find_due(subscription, lane, 1) != NIL;
}

/* Hand out what is due in a locked lane, at most so many messages; how many there were. */
int
EsDueHandOut(const EsSubscription *subscription, EsLane *lane, int room, EsDeliverer deliver, void *arg)
{
	List	   *found = find_due(subscription, lane, room);
	ListCell   *cell;

	mark_lane(subscription, lane, found);
	foreach(cell, found)
		deliver(&((Due *) lfirst(cell))->message, arg);
	return list_length(found);
}
