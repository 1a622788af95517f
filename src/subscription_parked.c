/*
 * subscription_parked.c
 *		Messages in trouble, and those that wait behind them.
 *
 * A row of es_parked is a copy of a message, so that its chunk may be dropped.
 * Of each key the one with the lowest position is at its head: it failed, and
 * is due again at next_attempt_at; the others wait behind it, and are due only
 * when it is gone.  A dead letter is due never; it blocks its key or not, as the
 * policy says.  A message without a key is alone.
 *
 * Parking behind: a fetch that meets a message of such a key parks it instead
 * of handing it out, and there the lane's delivery ends for this time: if this
 * transaction were rolled back and the consumer acknowledged what comes after
 * all the same, the message would be lost.  So nothing of its lane is handed out
 * any more in a transaction that has parked one, though the cursor has passed it
 * there.  Committed, it is passed by.
 *
 * Only messages up to the cursor are handed out from here: those after it are
 * met by the scan, which passes them by.  So in each lane the positions of one
 * fetch rise, and one cumulative acknowledgement speaks for both kinds.
 *
 * Knowing the parked keys without looking each message up: a backend keeps a
 * set of their hashes for each epoch of a lane.  Rows at the head have a number,
 * "entered", which rises within the lane, because it is drawn under the lock of
 * the lane's lease; a fetch looks for the lane's highest number, and reads what
 * is above the one it knows.  A hash in the set is a reason to look, not a proof,
 * so nothing has to be taken out in time.
 */
#include "subscription.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "debug_point.h"

#define KEYS_MAX	1000000		/* hashes kept in a backend */

/* A parked key of a lane, by the lane's epoch, which no other lane has. */
typedef struct KeyEntry
{
	int64		epoch;
	uint64		hash;
} KeyEntry;

/* How far a lane's keys are known. */
typedef struct LaneEntry
{
	int64		epoch;			/* key */
	int64		entered;		/* the highest number read */
} LaneEntry;

static MemoryContext context = NULL;
static HTAB *keys = NULL;
static HTAB *lanes = NULL;

/* Two empty sets, with nothing in them that a fetch still goes by. */
static void
reset_sets(void)
{
	HASHCTL		info;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "es_pg parked keys", ALLOCSET_DEFAULT_SIZES);
	keys = NULL;
	MemoryContextReset(context);
	info.hcxt = context;
	info.keysize = sizeof(int64);
	info.entrysize = sizeof(LaneEntry);
	lanes = hash_create("es_pg parked lanes", 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	info.keysize = sizeof(KeyEntry);
	info.entrysize = sizeof(KeyEntry);
	keys = hash_create("es_pg parked keys", 1024, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* ---------------------------------------------------------------- look-ups */

static void
lane_keys(ScanKeyData *scan_keys, int32 subscription, int32 lane)
{
	ScanKeyInit(&scan_keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&scan_keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(lane));
}

/* Has a subscription parked anything at all? */
bool
EsParkedAny(int32 subscription, Snapshot snapshot)
{
	EsProbe		probe;
	ScanKeyData key;
	bool		any;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_pkey);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	any = EsIndexProbe(probe.rel, probe.index, snapshot, &key, 1, ForwardScanDirection, probe.slot);
	EsProbeClose(&probe);
	return any;
}

/* A lane's highest number; 0: none. */
static int64
last_entered(EsProbe *probe, int32 subscription, int32 lane, Snapshot snapshot)
{
	ScanKeyData scan_keys[2];
	bool		isnull;

	lane_keys(scan_keys, subscription, lane);
	if (!EsIndexProbe(probe->rel, probe->index, snapshot, scan_keys, 2, BackwardScanDirection, probe->slot))
		return 0;
	return DatumGetInt64(slot_getattr(probe->slot, Anum_es_parked_entered, &isnull));
}

/* Add the keys above a number to the set. */
static void
read_keys(EsProbe *probe, int32 subscription, int32 lane, int64 epoch, int64 above, Snapshot snapshot)
{
	ScanKeyData scan_keys[3];
	IndexScanDesc scan;

	lane_keys(scan_keys, subscription, lane);
	ScanKeyInit(&scan_keys[2], 3, BTGreaterStrategyNumber, F_INT8GT, Int64GetDatum(above));
	scan = es_index_beginscan(probe->rel, probe->index, snapshot, 3);
	index_rescan(scan, scan_keys, 3, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, probe->slot))
	{
		bool		isnull;
		KeyEntry	key = {
			epoch, (uint64) DatumGetInt64(slot_getattr(probe->slot, Anum_es_parked_key_hash, &isnull))
		};

		(void) hash_search(keys, &key, HASH_ENTER, NULL);
	}
	index_endscan(scan);
}

/*
 * Called before the keys of a fetch's lanes are loaded: there is room for them.
 * Never in between: what is forgotten of one lane while another is loaded would
 * be taken for not parked.
 */
void
EsParkedMakeRoom(void)
{
	int			most = KEYS_MAX;

	ES_DEBUG_BREAK(small_key_sets, most = 10);
	if (keys == NULL || hash_get_num_entries(keys) > most)
		reset_sets();
}

/* See to it that a lane's parked keys are known; false when it has none. */
bool
EsParkedLoad(int32 subscription, int32 lane, int64 epoch, Snapshot snapshot)
{
	EsProbe		probe;
	int64		last;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_entered);
	last = last_entered(&probe, subscription, lane, snapshot);
	if (last != 0)
	{
		LaneEntry  *known;
		bool		found;

		known = hash_search(lanes, &epoch, HASH_ENTER, &found);
		if (!found)
			known->entered = 0;
		if (known->entered < last)
			read_keys(&probe, subscription, lane, epoch, known->entered, snapshot);
		known->entered = last;
	}
	EsProbeClose(&probe);
	return last != 0;
}

/* May a key be parked?  No means no. */
bool
EsParkedMaybe(int64 epoch, uint64 hash)
{
	KeyEntry	key = {epoch, hash};

	return hash_search(keys, &key, HASH_FIND, NULL) != NULL;
}

/* Is the message itself parked? */
static bool
find_itself(int32 subscription, Datum position, Snapshot snapshot, EsParkedVerdict *verdict)
{
	EsProbe		probe;
	ScanKeyData scan_keys[2];
	bool		found;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_pkey);
	ScanKeyInit(&scan_keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&scan_keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, position);
	found = EsIndexProbe(probe.rel, probe.index, snapshot, scan_keys, 2, ForwardScanDirection, probe.slot);
	if (found)
	{
		bool		isnull;
		Datum		xmin = slot_getsysattr(probe.slot, MinTransactionIdAttributeNumber, &isnull);

		*verdict = TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin)) ?
			ES_PARKED_JUST_NOW : ES_PARKED_ITSELF;
	}
	EsProbeClose(&probe);
	return found;
}

/* The parked messages with a key's hash, below a position, in order; others may have the hash too. */
IndexScanDesc
EsParkedKeyScan(EsProbe *probe, int32 subscription, uint64 hash, bool dead, int64 below)
{
	ScanKeyData scan_keys[4];
	IndexScanDesc scan = es_index_beginscan(probe->rel, probe->index, GetActiveSnapshot(), 4);

	ScanKeyInit(&scan_keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&scan_keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) hash));
	ScanKeyInit(&scan_keys[2], 3, BTEqualStrategyNumber, F_BOOLEQ, BoolGetDatum(dead));
	ScanKeyInit(&scan_keys[3], 4, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(below));
	index_rescan(scan, scan_keys, 4, NULL, 0);
	return scan;
}

/* Is a message of this key parked at a lower position, dead or not? */
bool
EsParkedBefore(int32 subscription, uint64 hash, const EsDelivered *message, bool dead)
{
	EsProbe		probe;
	IndexScanDesc scan;
	bool		found = false;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_key);
	scan = EsParkedKeyScan(&probe, subscription, hash, dead, DatumGetInt64(message->values[DELIVERY_POSITION]));
	while (!found && index_getnext_slot(scan, ForwardScanDirection, probe.slot))
	{
		bool		isnull;
		Datum		key = slot_getattr(probe.slot, Anum_es_parked_key, &isnull);

		found = !isnull && DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, key,
																message->values[DELIVERY_KEY]));
	}
	index_endscan(scan);
	EsProbeClose(&probe);
	return found;
}

/* What is to be done with a message that may be parked. */
EsParkedVerdict
EsParkedLook(const EsSubscription *subscription, uint64 hash, const EsDelivered *message, Snapshot snapshot)
{
	EsParkedVerdict verdict = ES_PARKED_FREE;

	if (find_itself(subscription->id, message->values[DELIVERY_POSITION], snapshot, &verdict))
		return verdict;
	if (message->nulls[DELIVERY_KEY])
		return ES_PARKED_FREE;
	if (EsParkedBefore(subscription->id, hash, message, false) ||
		(!subscription->skip_dead && EsParkedBefore(subscription->id, hash, message, true)))
		return ES_PARKED_BEHIND;
	return ES_PARKED_FREE;
}

/* When the next parked message of a lane is due; false: none is. */
bool
EsParkedDue(int32 subscription, int32 lane, Snapshot snapshot, TimestampTz *due)
{
	EsProbe		probe;
	ScanKeyData scan_keys[2];
	bool		found;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_due);
	lane_keys(scan_keys, subscription, lane);
	found = EsIndexProbe(probe.rel, probe.index, snapshot, scan_keys, 2, ForwardScanDirection, probe.slot);
	if (found)
		*due = DatumGetTimestampTz(slot_getattr(probe.slot, Anum_es_parked_next_attempt_at, &isnull));
	EsProbeClose(&probe);
	return found;
}

/* Is this message parked? */
bool
EsIsParked(int32 subscription, EsPosition position, Snapshot snapshot)
{
	EsProbe		probe;
	ScanKeyData keys[2];
	bool		found;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_pkey);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) position));
	found = EsIndexProbe(probe.rel, probe.index, snapshot, keys, 2, ForwardScanDirection, probe.slot);
	EsProbeClose(&probe);
	return found;
}

/* Is a parked message of a lane, from one position to another, handed out in an epoch? */
bool
EsParkedOut(int32 subscription, int32 lane, int64 epoch, EsPosition from, EsPosition upto)
{
	EsProbe		probe;
	ScanKeyData scan_keys[4];
	IndexScanDesc scan;
	bool		found = false;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_out);
	lane_keys(scan_keys, subscription, lane);
	ScanKeyInit(&scan_keys[2], 3, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum((int64) from));
	ScanKeyInit(&scan_keys[3], 3, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum((int64) upto));
	scan = es_index_beginscan(probe.rel, probe.index, SnapshotSelf, lengthof(scan_keys));
	index_rescan(scan, scan_keys, lengthof(scan_keys), NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, probe.slot))
	{
		bool		isnull;

		found = DatumGetInt64(slot_getattr(probe.slot, Anum_es_parked_delivered_epoch, &isnull)) == epoch;
	}
	index_endscan(scan);
	EsProbeClose(&probe);
	return found;
}

/*
 * Statements of a transaction that is REPEATABLE READ go by its snapshot: what
 * was handed out after that they did not find, though the caller knows of it.
 */
void
EsParkedRequireDone(int32 subscription, int32 lane, int64 epoch, EsPosition from, EsPosition upto)
{
	if (EsParkedOut(subscription, lane, epoch, from, upto))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to parked messages of lane %d", lane),
				 errdetail("They were handed out after this transaction's snapshot was taken."),
				 errhint("Retry the transaction.")));
}

/* ---------------------------------------------------------------- parking */

/* A number for a key that enters; the caller has locked the lane's lease. */
int64
EsParkedNumber(int32 subscription, int32 lane)
{
	EsLog	   *log = EsLogGet();
	EsProbe		probe;
	uint64		number = pg_atomic_add_fetch_u64(&log->parkings, 1);
	uint64		last;

	EsProbeOpen(&probe, EsCatalogGet()->parked, EsCatalogGet()->parked_entered);
	last = (uint64) last_entered(&probe, subscription, lane, SnapshotSelf);
	EsProbeClose(&probe);
	if (number > last)
		return (int64) number;

	/* The clock that the counter began with went back. */
	pg_atomic_fetch_add_u64(&log->parkings, last - number + 1);
	return (int64) last + 1;
}

/* The column of es_parked that holds one of es_delivery. */
AttrNumber
EsParkedColumn(int column)
{
	static const AttrNumber columns[Natts_es_delivery] = {
		[DELIVERY_LANE] = Anum_es_parked_lane,
		[DELIVERY_EPOCH] = Anum_es_parked_delivered_epoch,
		[DELIVERY_INCARNATION] = Anum_es_parked_incarnation,
		[DELIVERY_POSITION] = Anum_es_parked_position,
		[DELIVERY_TOPIC] = Anum_es_parked_topic,
		[DELIVERY_KEY] = Anum_es_parked_key,
		[DELIVERY_VERSION] = Anum_es_parked_version,
		[DELIVERY_MESSAGE_ID] = Anum_es_parked_message_id,
		[DELIVERY_TYPE] = Anum_es_parked_type,
		[DELIVERY_SCHEMA_VERSION] = Anum_es_parked_schema_version,
		[DELIVERY_SOURCE] = Anum_es_parked_source,
		[DELIVERY_PAYLOAD] = Anum_es_parked_payload,
		[DELIVERY_HEADERS] = Anum_es_parked_headers,
		[DELIVERY_CORRELATION_ID] = Anum_es_parked_correlation_id,
		[DELIVERY_CAUSATION_ID] = Anum_es_parked_causation_id,
		[DELIVERY_TRACEPARENT] = Anum_es_parked_traceparent,
		[DELIVERY_OCCURRED_AT] = Anum_es_parked_occurred_at,
		[DELIVERY_RECORDED_AT] = Anum_es_parked_recorded_at,
		[DELIVERY_PAYLOAD_BINARY] = Anum_es_parked_payload_binary,
		[DELIVERY_CONTENT_TYPE] = Anum_es_parked_content_type,
		[DELIVERY_ATTEMPT] = Anum_es_parked_attempts
	};

	return columns[column];
}

/*
 * Park a copy of a message: as one that was handed out and is about to fail, or
 * that waits behind another of its key.  "entered" is 0 for the latter.  The
 * caller has locked the lane's lease.
 */
void
EsParkedInsert(int32 subscription, const EsDelivered *message, uint64 hash, bool delivered, int64 entered)
{
	Datum		values[Natts_es_parked] = {0};
	bool		nulls[Natts_es_parked] = {false};

	for (int i = 0; i < Natts_es_delivery; i++)
	{
		values[EsParkedColumn(i) - 1] = message->values[i];
		nulls[EsParkedColumn(i) - 1] = message->nulls[i];
	}
	values[Anum_es_parked_subscription_id - 1] = Int32GetDatum(subscription);
	values[Anum_es_parked_key_hash - 1] = Int64GetDatum((int64) hash);
	nulls[Anum_es_parked_next_attempt_at - 1] = true;
	values[Anum_es_parked_entered - 1] = Int64GetDatum(entered);
	nulls[Anum_es_parked_entered - 1] = entered == 0;
	nulls[Anum_es_parked_delivered_epoch - 1] = !delivered;
	values[Anum_es_parked_dead - 1] = BoolGetDatum(false);
	values[Anum_es_parked_parked_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	nulls[Anum_es_parked_failed_at - 1] = true;
	nulls[Anum_es_parked_error - 1] = true;
	EsInsertRow(EsCatalogGet()->parked, Natts_es_parked, values, nulls);
}
