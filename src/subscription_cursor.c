/*
 * subscription_cursor.c
 *		Where the lanes of a subscription are.
 *
 * A lane's cursor is the highest (epoch, position) of its rows in es_cursors.  An
 * acknowledgement inserts a row and updates none, so a snapshot held elsewhere
 * costs nothing; es_maintain() deletes what newer rows replaced.
 *
 * The highest row is the first of a backward scan, but a btree hands out a page
 * at a time, and so would compare all of the lane's older rows on that page,
 * hundreds of them.  So a backend remembers where it last found a lane and reads
 * forward from there, which is a row or two; the last of them is the highest.
 * That is only a hint, and right or wrong by what is found, not by what was
 * remembered: no row from there on, because it was rolled back or pruned, or too
 * many of them, and the backward scan is asked.
 */
#include "subscription.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "compat.h"

#define HINTS			256		/* a power of two */
#define READ_ON_MAX		32		/* rows behind a hint that are looked at, dead ones too */

/* A cursor that was there once. */
typedef struct Hint
{
	int32		subscription;
	int32		lane;
	int64		epoch;			/* 0: nothing is remembered */
	EsPosition	position;
} Hint;

static Hint hints[HINTS];

static Hint *
hint_of(int32 subscription, int32 lane)
{
	return &hints[EsHashNumber(((uint64) subscription << 32) | (uint32) lane) & (HINTS - 1)];
}

static void
take_row(Hint *hint, TupleTableSlot *slot)
{
	bool		isnull;

	hint->epoch = DatumGetInt64(slot_getattr(slot, Anum_es_cursors_epoch, &isnull));
	hint->position = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_cursors_position, &isnull));
}

static void
init_lane_keys(ScanKeyData *keys, int32 subscription, int32 lane)
{
	ScanKeyInit(&keys[0], Anum_es_cursors_subscription_id, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(subscription));
	ScanKeyInit(&keys[1], Anum_es_cursors_lane, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(lane));
}

/* The condition (epoch, position) >= (...), as the executor gives it to an index; the members are the caller's. */
static void
init_row_key(ScanKeyData *key, ScanKeyData members[2], const Hint *from)
{
	ScanKeyEntryInitialize(&members[0], SK_ROW_MEMBER, Anum_es_cursors_epoch, BTGreaterEqualStrategyNumber,
						   InvalidOid, InvalidOid, F_BTINT8CMP, Int64GetDatum(from->epoch));
	ScanKeyEntryInitialize(&members[1], SK_ROW_MEMBER | SK_ROW_END, Anum_es_cursors_position,
						   BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid, F_BTINT8CMP,
						   Int64GetDatum((int64) from->position));
	memset(key, 0, sizeof(*key));
	key->sk_flags = SK_ROW_HEADER;
	key->sk_attno = Anum_es_cursors_epoch;
	key->sk_strategy = BTGreaterEqualStrategyNumber;
	key->sk_argument = PointerGetDatum(members);
}

/* Bring a hint up to the lane's highest row; false when that is not to be found from there on. */
static bool
read_on(EsProbe *probe, Hint *hint, Snapshot snapshot)
{
	IndexScanDesc scan = es_index_beginscan(probe->rel, probe->index, snapshot, 3);
	ScanKeyData keys[3];
	ScanKeyData members[2];
	Hint		highest = *hint;
	bool		found = false;
	int			n;

	init_lane_keys(keys, hint->subscription, hint->lane);
	init_row_key(&keys[2], members, hint);
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	for (n = 0; n < READ_ON_MAX && index_getnext_tid(scan, ForwardScanDirection) != NULL; n++)
	{
		if (!index_fetch_heap(scan, probe->slot))
			continue;
		take_row(&highest, probe->slot);
		found = true;
	}
	index_endscan(scan);
	if (!found || n == READ_ON_MAX)
		return false;
	*hint = highest;
	return true;
}

/* Where a lane is; the probe is one of es_cursors by its key. */
EsPosition
EsCursorRead(EsProbe *probe, int32 subscription, int32 lane, Snapshot snapshot)
{
	Hint	   *hint = hint_of(subscription, lane);
	ScanKeyData keys[2];

	if (hint->epoch != 0 && hint->subscription == subscription && hint->lane == lane &&
		read_on(probe, hint, snapshot))
		return hint->position;
	init_lane_keys(keys, subscription, lane);
	if (!EsIndexProbe(probe->rel, probe->index, snapshot, keys, lengthof(keys), BackwardScanDirection, probe->slot))
		return 0;
	*hint = (Hint) {subscription, lane};
	take_row(hint, probe->slot);
	return hint->position;
}

/*
 * Where a lane is for one who has locked its lease; on request, whether this
 * transaction moved it there.
 */
EsPosition
EsCursorNow(int32 subscription, int32 lane, bool *mine)
{
	EsProbe		probe;
	EsPosition	cursor;

	EsProbeOpen(&probe, EsCatalogGet()->cursors, EsCatalogGet()->cursors_pkey);
	cursor = EsCursorRead(&probe, subscription, lane, SnapshotSelf);
	if (mine != NULL)
	{
		bool		isnull;

		*mine = !TTS_EMPTY(probe.slot) &&
			TransactionIdIsCurrentTransactionId(DatumGetTransactionId(slot_getsysattr(probe.slot, MinTransactionIdAttributeNumber, &isnull)));
	}
	EsProbeClose(&probe);
	return cursor;
}

/* Move a lane, whose lease the caller has locked, to a higher position. */
void
EsCursorMove(int32 subscription, int32 lane, int64 epoch, EsPosition position)
{
	Datum		values[Natts_es_cursors] = {
		Int32GetDatum(subscription),
		Int32GetDatum(lane),
		Int64GetDatum(epoch),
		Int64GetDatum((int64) position)
	};
	bool		nulls[Natts_es_cursors] = {false};

	EsInsertRow(EsCatalogGet()->cursors, Natts_es_cursors, values, nulls);
	EsPassedAtCommit();
}
