/*
 * subscription_lease.c
 *		Who has which lane.
 *
 * A row of es_leases a lane: its owner and its epoch.  It is written when the
 * lane changes hands and at no other time.
 *
 * Taking a lane: its row is locked FOR UPDATE, so whoever is about to
 * acknowledge in it has committed or will find the new epoch; if that lock
 * cannot be had at once, the lane is left alone and looked at again (an open
 * acknowledgement may still commit, and its cursor counts).  Then the row is
 * looked at again under the lock, and gets an epoch.  Epochs are positions, which
 * no crash and no rollback gives out twice: else a claim that was rolled back and
 * the next one would have the same epoch, and its zombie could acknowledge.
 *
 * Writing for a lane: its row is locked FOR NO KEY UPDATE, then the epoch is
 * checked.  KEY SHARE would keep a takeover out as well; this also makes the
 * lane's cursor move in one transaction at a time.
 *
 * Sharing: of N lanes and M live members each has N / M, and as many as there
 * are lanes left have one more: those who hold most already, so that nothing
 * moves without need.  A member that has too many gives lanes up in its next
 * fetch; one that has too few takes those that nobody has.  All this commits with
 * the fetch, and then wakes the others.
 */
#include "subscription.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(es_renew);
PG_FUNCTION_INFO_V1(es_release);

/* Columns of es_leases. */
enum
{
	Anum_es_leases_subscription_id = 1,
	Anum_es_leases_lane,
	Anum_es_leases_epoch,
	Anum_es_leases_owner
};

/* A lease as this fetch found it. */
typedef struct Lease
{
	int32		lane;
	int64		epoch;
	int			owner;			/* index of a peer, or one of the following */
} Lease;

#define NOBODY		(-1)
#define UNKNOWN		(-2)		/* not among the living */

static EsStatement take = {
	"UPDATE @.es_leases SET owner = $3, epoch = $4, since = pg_catalog.clock_timestamp()"
	" WHERE subscription_id = $1 AND lane = $2",
	4, {INT4OID, INT4OID, TEXTOID, INT8OID}
};

static EsStatement give_all = {
	"UPDATE @.es_leases SET owner = NULL, since = pg_catalog.clock_timestamp()"
	" WHERE subscription_id = $1 AND owner = $2",
	2, {INT4OID, TEXTOID}
};

/* ---------------------------------------------------------------- one lane */

/* Find a lane's lease with the newest snapshot and lock it. */
static TM_Result
lock_lease(EsProbe *probe, int32 subscription, int32 lane, LockTupleMode mode, LockWaitPolicy policy)
{
	ScanKeyData keys[2];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(lane));
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	found = EsIndexProbe(probe->rel, probe->index, GetActiveSnapshot(), keys, 2, ForwardScanDirection, probe->slot);
	PopActiveSnapshot();
	return found ? EsRowLockAs(probe->rel, probe->slot, mode, policy) : TM_Deleted;
}

static void
open_leases(EsProbe *probe)
{
	EsProbeOpen(probe, EsCatalogGet()->leases, EsCatalogGet()->leases_pkey);
}

/*
 * Lock a lane's lease to the end of the transaction, to write for that lane.
 * False when it is in another epoch, has no owner, or is somebody's and the
 * policy is not to wait.
 */
bool
EsLeaseLock(int32 subscription, int32 lane, int64 epoch, LockWaitPolicy policy, text **owner)
{
	EsProbe		probe;
	bool		mine = false;

	open_leases(&probe);
	if (lock_lease(&probe, subscription, lane, LockTupleNoKeyExclusive, policy) == TM_Ok)
	{
		bool		isnull;
		Datum		name = slot_getattr(probe.slot, Anum_es_leases_owner, &isnull);
		bool		nobody = isnull;

		mine = !nobody && DatumGetInt64(slot_getattr(probe.slot, Anum_es_leases_epoch, &isnull)) == epoch;
		if (mine && owner)
			*owner = DatumGetTextPCopy(name);
	}
	EsProbeClose(&probe);
	return mine;
}

/* The same for an acknowledgement: wait, and renew the owner, or fail. */
void
EsLeaseLockOrFail(const EsSubscription *subscription, int32 lane, int64 epoch)
{
	text	   *owner;

	if (lane < 0 || lane >= subscription->lanes)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("subscription \"%s\" has no lane %d", text_to_cstring(subscription->name), lane),
				 errdetail("Its lanes are 0 to %d.", subscription->lanes - 1)));
	if (!EsLeaseLock(subscription->id, lane, epoch, LockWaitBlock, &owner))
		ereport(ERROR,
				(errcode(ERRCODE_ES_FENCED),
				 errmsg("lane %d of subscription \"%s\" is not in epoch " INT64_FORMAT,
						lane, text_to_cstring(subscription->name), epoch),
				 errdetail("It has changed hands since, or the fetch that took it was rolled back."),
				 errhint("Do not commit what was done with those messages; fetch again.")));
	EsMemberRenew(subscription, owner);
}

/* Give a locked lane an owner, or none. */
static void
write_lease(int32 subscription, int32 lane, const text *owner, int64 epoch)
{
	Datum		args[] = {
		Int32GetDatum(subscription), Int32GetDatum(lane),
		PointerGetDatum(owner), Int64GetDatum(epoch)
	};

	SPI_connect();
	EsStatementRun(&take, args, owner ? NULL : "  n ");
	SPI_finish();
	EsWakeAtCommit();
}

/*
 * Take a lane or give it up, if it is still as it was found.  False when
 * somebody is at work in it.
 */
static bool
change_hands(const EsSubscription *subscription, const text *owner, Lease *lease)
{
	EsProbe		probe;
	TM_Result	result;
	bool		isnull;

	open_leases(&probe);
	result = lock_lease(&probe, subscription->id, lease->lane, LockTupleExclusive, LockWaitSkip);
	if (result == TM_Ok &&
		DatumGetInt64(slot_getattr(probe.slot, Anum_es_leases_epoch, &isnull)) != lease->epoch)
		result = TM_Updated;
	EsProbeClose(&probe);
	if (result != TM_Ok)
		return false;
	if (owner != NULL)
		lease->epoch = (int64) EsPositionTake();
	write_lease(subscription->id, lease->lane, owner, lease->epoch);
	return true;
}

/* ---------------------------------------------------------------- sharing */

static int
find_peer(const EsPeers *peers, const text *owner)
{
	uint64		hash[2];

	EsMemberHash(owner, hash);
	for (int i = 0; i < peers->n; i++)
	{
		if (peers->peers[i].hash[0] == hash[0] && peers->peers[i].hash[1] == hash[1])
			return i;
	}
	return UNKNOWN;
}

/* All leases of a subscription, in the order of their lanes. */
static Lease *
read_leases(const EsSubscription *subscription, EsPeers *peers, int *n)
{
	Lease	   *leases = palloc(sizeof(Lease) * (subscription->lanes + 1));
	EsProbe		probe;
	IndexScanDesc scan;
	ScanKeyData key;

	open_leases(&probe);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(subscription->id));
	scan = es_index_beginscan(probe.rel, probe.index, GetActiveSnapshot(), 1);
	index_rescan(scan, &key, 1, NULL, 0);
	*n = 0;
	while (*n < subscription->lanes && index_getnext_slot(scan, ForwardScanDirection, probe.slot))
	{
		Lease	   *lease = &leases[(*n)++];
		bool		isnull;
		Datum		owner = slot_getattr(probe.slot, Anum_es_leases_owner, &isnull);

		lease->owner = isnull ? NOBODY : find_peer(peers, DatumGetTextPP(owner));
		if (lease->owner >= 0)
			peers->peers[lease->owner].lanes++;
		lease->lane = DatumGetInt32(slot_getattr(probe.slot, Anum_es_leases_lane, &isnull));
		lease->epoch = DatumGetInt64(slot_getattr(probe.slot, Anum_es_leases_epoch, &isnull));
	}
	index_endscan(scan);
	EsProbeClose(&probe);
	return leases;
}

/* How many lanes are this member's due. */
static int
fair_share(const EsSubscription *subscription, const EsPeers *peers)
{
	const EsPeer *me = &peers->peers[peers->me];
	int			before_me = 0;

	for (int i = 0; i < peers->n; i++)
	{
		if (peers->peers[i].lanes > me->lanes || (peers->peers[i].lanes == me->lanes && i < peers->me))
			before_me++;
	}
	return subscription->lanes / peers->n + (before_me < subscription->lanes % peers->n ? 1 : 0);
}

/* Give up the last lanes of those that are too many. */
static void
give_up(const EsSubscription *subscription, EsPeers *peers, Lease *leases, int n, int too_many)
{
	for (int i = n - 1; i >= 0 && too_many > 0; i--)
	{
		if (leases[i].owner != peers->me || !change_hands(subscription, NULL, &leases[i]))
			continue;
		leases[i].owner = NOBODY;
		too_many--;
	}
}

/* Take lanes that nobody has; true if one could not be had now. */
static bool
take_free(const EsSubscription *subscription, const text *consumer, EsPeers *peers,
		  Lease *leases, int n, int wanted)
{
	bool		patient = GetCurrentTimestamp() < peers->known_after;
	bool		contested = false;

	for (int i = 0; i < n && wanted > 0; i++)
	{
		if (leases[i].owner >= 0)
			continue;
		if (leases[i].owner == UNKNOWN && patient)
		{
			peers->next_end = Min(peers->next_end, peers->known_after);
			continue;
		}
		if (!change_hands(subscription, consumer, &leases[i]))
		{
			contested = true;
			continue;
		}
		leases[i].owner = peers->me;
		wanted--;
	}
	return contested;
}

/*
 * The lanes that a member has, after it has given up or taken what fairness
 * says.  A read-only transaction changes nothing.
 */
List *
EsLeasesServe(const EsSubscription *subscription, const text *consumer, EsPeers *peers, bool *contested)
{
	List	   *lanes = NIL;
	int			n;
	Lease	   *leases = read_leases(subscription, peers, &n);
	int			due = fair_share(subscription, peers);
	int			held = peers->peers[peers->me].lanes;

	*contested = false;
	if (!XactReadOnly && held > due)
		give_up(subscription, peers, leases, n, held - due);
	else if (!XactReadOnly && held < due)
		*contested = take_free(subscription, consumer, peers, leases, n, due - held);

	for (int i = 0; i < n; i++)
	{
		EsLane	   *lane;

		if (leases[i].owner != peers->me)
			continue;
		lane = palloc0(sizeof(EsLane));
		lane->number = leases[i].lane;
		lane->epoch = leases[i].epoch;
		lanes = lappend(lanes, lane);
	}
	return lanes;
}

/* The lanes that a consumer has, as rows; how many there are. */
static int
put_lanes(const EsSubscription *subscription, const text *consumer, ReturnSetInfo *result)
{
	EsPeer		me;
	EsPeers		peers = {.n = 1, .peers = &me};
	int			n;
	Lease	   *leases;
	bool		nulls[2] = {false, false};

	me.lanes = 0;
	EsMemberHash(consumer, me.hash);
	leases = read_leases(subscription, &peers, &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[2] = {Int32GetDatum(leases[i].lane), Int64GetDatum(leases[i].epoch)};

		if (leases[i].owner == 0)
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return me.lanes;
}

/*
 * es_renew(subscription, consumer).  One who has lost all lanes is not made a
 * member again, for others would make room for it; that takes a fetch.
 */
Datum
es_renew(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgSubscription(fcinfo);
	text	   *consumer = EsArgName(fcinfo, 1, "consumer name");
	EsSubscription subscription;

	EsRequirePrimary();
	InitMaterializedSRF(fcinfo, 0);
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(name, GetActiveSnapshot(), &subscription);
	if (put_lanes(&subscription, consumer, (ReturnSetInfo *) fcinfo->resultinfo) > 0)
		EsMemberRenew(&subscription, consumer);
	PopActiveSnapshot();
	return (Datum) 0;
}

/* es_release(subscription, consumer) */
Datum
es_release(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgSubscription(fcinfo);
	text	   *consumer = EsArgName(fcinfo, 1, "consumer name");
	EsSubscription subscription;
	Datum		args[2];
	uint64		released;

	PreventCommandIfReadOnly("es_release()");
	EsRequirePrimary();
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(name, GetActiveSnapshot(), &subscription);
	PopActiveSnapshot();
	args[0] = Int32GetDatum(subscription.id);
	args[1] = PointerGetDatum(consumer);
	SPI_connect();
	released = EsStatementRun(&give_all, args, NULL);
	SPI_finish();
	EsMemberLeave(&subscription, consumer);
	EsWakeAtCommit();
	PG_RETURN_INT32((int32) released);
}
