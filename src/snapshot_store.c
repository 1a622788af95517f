/*
 * snapshot_store.c
 *		Snapshots in their table: found, stored, replaced; and the policies.
 *
 * A snapshot is what a fold would come to, kept so that the next fold is
 * shorter.  It is found by its stream and by the reducer's identity, so one that
 * an older form of the reducer took is as if it were not there; storing one
 * removes those of the same reducer with another identity.  And it counts only
 * while the event it ends with is the one it ended with then: a log that was
 * wound back under its snapshots (a restore of some tables, a copy that went
 * its own way) does not get a state of another history.
 *
 * A snapshot that nobody asked for must not hurt: it is stored in a
 * subtransaction, whose failure is a WARNING, and under a lock on the stream's
 * snapshots that is not waited for.  So no reader waits for another one's open
 * transaction, and none finds its key taken by one.  Who asks for a snapshot
 * waits for that lock.
 *
 * Rows are written as the owner of es_pg's tables; who may have them written is
 * for the caller to check.
 */
#include "snapshot.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "catalog.h"
#include "compat.h"

/* Columns of es_snapshots, and of its key. */
enum
{
	Anum_es_snapshots_stream_id = 1,
	Anum_es_snapshots_identity,
	Anum_es_snapshots_version,
	Anum_es_snapshots_position,
	Anum_es_snapshots_taken_at,
	Anum_es_snapshots_reducer,
	Anum_es_snapshots_state
};

/* Columns of es_snapshot_policies; the first two are its key. */
enum
{
	Anum_es_snapshot_policies_category = 1,
	Anum_es_snapshot_policies_reducer,
	Anum_es_snapshot_policies_every,
	Anum_es_snapshot_policies_keep
};

/*
 * Is the event that a snapshot ends with still the one?  Of one that has gone
 * with its chunk nobody knows, and then the snapshot is all there is.
 */
static bool
is_of_this_log(const EsStream *stream, const EsSnapshot *snapshot, Snapshot mvcc)
{
	EsPosition	position = EsStreamPosition(stream, snapshot->version, mvcc);

	return position == snapshot->position || position == 0;
}

static void
take_snapshot(TupleTableSlot *slot, EsSnapshot *found)
{
	bool		isnull;
	Datum		state = slot_getattr(slot, Anum_es_snapshots_state, &isnull);

	found->state = isnull ? NULL : DatumGetJsonbPCopy(state);
	found->version = DatumGetInt64(slot_getattr(slot, Anum_es_snapshots_version, &isnull));
	found->position = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_snapshots_position, &isnull));
}

/* The newest snapshot of a stream that holds, of the versions lowest to highest. */
bool
EsSnapshotFind(const EsStream *stream, const EsReducer *reducer, int64 lowest, int64 highest,
			   Snapshot mvcc, EsSnapshot *found)
{
	ScanKeyData keys[4];
	EsProbe		probe;
	bool		got = false;

	EsProbeOpen(&probe, EsCatalogGet()->snapshots, EsCatalogGet()->snapshots_pkey);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(stream->stream_id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&reducer->identity));
	ScanKeyInit(&keys[2], 3, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(lowest));
	while (!got && highest >= lowest)
	{
		ScanKeyInit(&keys[3], 3, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(highest));
		if (!EsIndexProbe(probe.rel, probe.index, mvcc, keys, lengthof(keys), BackwardScanDirection, probe.slot))
			break;
		take_snapshot(probe.slot, found);
		got = is_of_this_log(stream, found, mvcc);
		highest = found->version - 1;
	}
	EsProbeClose(&probe);
	return got;
}

/* Does es_state take snapshots of a category's streams with this reducer, and when? */
bool
EsSnapshotPolicyFind(const text *category, const EsReducer *reducer, Snapshot mvcc, EsSnapshotPolicy *policy)
{
	ScanKeyData keys[2];
	EsProbe		probe;
	bool		found;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->snapshot_policies, EsCatalogGet()->snapshot_policies_pkey);
	ScanKeyEntryInitialize(&keys[0], 0, Anum_es_snapshot_policies_category, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(category));
	ScanKeyEntryInitialize(&keys[1], 0, Anum_es_snapshot_policies_reducer, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(reducer->name));
	found = EsIndexProbe(probe.rel, probe.index, mvcc, keys, lengthof(keys), ForwardScanDirection, probe.slot);
	if (found)
	{
		policy->every = DatumGetInt64(slot_getattr(probe.slot, Anum_es_snapshot_policies_every, &isnull));
		policy->keep = DatumGetInt64(slot_getattr(probe.slot, Anum_es_snapshot_policies_keep, &isnull));
	}
	EsProbeClose(&probe);
	return found;
}

/* Lock a stream's snapshots against others that store some, to the end of the transaction. */
static bool
lock_snapshots(const EsStream *stream, bool wait)
{
	Oid			classid = EsCatalogGet()->snapshots;
	Oid			objid = (Oid) hash_bytes((const unsigned char *) &stream->stream_id, sizeof(stream->stream_id));

	if (!wait)
		return ConditionalLockDatabaseObject(classid, objid, 0, ExclusiveLock);
	LockDatabaseObject(classid, objid, 0, ExclusiveLock);
	return true;
}

static void
execute(const char *sql, int n, Oid *types, Datum *values, const char *nulls)
{
	if (SPI_execute_with_args(sql, n, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not execute: %s", sql);
}

/*
 * A function that was replaced during the fold may have computed some of the
 * state in its old form and some in its new one.
 */
static void
check_identity(const EsReducer *reducer)
{
	pg_uuid_t	now;

	EsReducerIdentity(reducer, &now);
	if (memcmp(&now, &reducer->identity, sizeof(now)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("reducer \"%s\" was changed while the state was computed", reducer->name),
				 errhint("Try again.")));
}

/* Insert a snapshot, or put it in place of the one of that version, and remove what it makes needless. */
static void
write_snapshot(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken, int64 keep)
{
	const char *schema = quote_identifier(get_namespace_name(EsCatalogGet()->schema));
	Oid			types[] = {INT8OID, UUIDOID, INT8OID, INT8OID, TEXTOID, JSONBOID};
	Datum		values[lengthof(types)];
	char		nulls[] = "      ";
	EsOwner		before;

	check_identity(reducer);
	values[0] = Int64GetDatum(stream->stream_id);
	values[1] = UUIDPGetDatum(&reducer->identity);
	values[2] = Int64GetDatum(taken->version);
	values[3] = Int64GetDatum((int64) taken->position);
	values[4] = CStringGetTextDatum(reducer->name);
	values[5] = JsonbPGetDatum(taken->state);
	if (taken->state == NULL)
		nulls[5] = 'n';

	EsOwnerBegin(&before);
	SPI_connect();
	execute(psprintf("INSERT INTO %s.es_snapshots (stream_id, identity, version, position, taken_at, reducer, state)"
					 " VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp(), $5, $6)"
					 " ON CONFLICT (stream_id, identity, version) DO UPDATE"
					 " SET position = excluded.position, taken_at = excluded.taken_at, state = excluded.state",
					 schema), lengthof(types), types, values, nulls);
	execute(psprintf("DELETE FROM %s.es_snapshots AS s WHERE s.stream_id = $1 AND s.reducer = $3 AND s.identity <> $2",
					 schema), 3, (Oid[]) {INT8OID, UUIDOID, TEXTOID}, (Datum[]) {values[0], values[1], values[4]}, NULL);
	if (keep > 0)
	{
		types[2] = INT8OID;
		values[2] = Int64GetDatum(keep);
		execute(psprintf("DELETE FROM %s.es_snapshots AS s WHERE s.ctid = ANY (ARRAY(SELECT o.ctid"
						 " FROM %s.es_snapshots AS o WHERE o.stream_id = $1 AND o.identity = $2"
						 " ORDER BY o.version DESC OFFSET $3 FOR UPDATE SKIP LOCKED))",
						 schema, schema), 3, types, values, NULL);
	}
	SPI_finish();
	EsOwnerEnd(&before);
}

/* Store a snapshot that somebody asked for. */
void
EsSnapshotStore(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken)
{
	(void) lock_snapshots(stream, true);
	write_snapshot(stream, reducer, taken, -1);
}

/* What went wrong becomes a WARNING, unless somebody wants this statement to end; what was in the way is no news. */
static void
warn(ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || error->sqlerrcode == ERRCODE_ASSERT_FAILURE)
		ReThrowError(error);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return;
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not store a snapshot: %s", error->message),
			 errdetail("The state that was asked for is not affected.")));
}

/* Store it if nobody else is about to; what somebody has locked is not waited for. */
static bool
write_if_free(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken, int64 keep)
{
	static const char *const settings[][2] = {{"lock_timeout", "1ms"}};
	int			nest;

	if (!lock_snapshots(stream, false))
		return false;
	nest = EsSettingsBegin(settings, lengthof(settings));
	write_snapshot(stream, reducer, taken, keep);
	AtEOXact_GUC(true, nest);
	return true;
}

/* Store a snapshot that nobody asked for, if nothing is in the way; false if something is. */
bool
EsSnapshotTryStore(const EsStream *stream, const EsReducer *reducer, const EsSnapshot *taken, int64 keep)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool stored = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		stored = write_if_free(stream, reducer, taken, keep);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		stored = false;
		warn(error);
	}
	PG_END_TRY();
	return stored;
}
