/*
 * catalog.h
 *		Where es_pg's own relations are: resolved through the extension's
 *		schema, never through search_path.
 */
#ifndef ES_CATALOG_H
#define ES_CATALOG_H

#include "es_pg.h"
#include "compat.h"

#include "access/heapam.h"
#include "access/sdir.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/lockoptions.h"
#include "storage/lockdefs.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

/* Columns of es_cursors, whose newest rows are marks for standbys, too. */
enum
{
	Anum_es_cursors_subscription_id = 1,
	Anum_es_cursors_lane,
	Anum_es_cursors_epoch,
	Anum_es_cursors_position
};

#define Natts_es_cursors	Anum_es_cursors_position

typedef struct EsCatalog
{
	Oid			extension;
	Oid			schema;
	Oid			position_bound; /* sequence */
	Oid			incarnations;
	Oid			incarnations_pkey;
	Oid			marks;
	Oid			marks_pkey;
	Oid			streams;
	Oid			streams_pkey;
	Oid			streams_name_key;
	Oid			stream_chunks;
	Oid			stream_chunks_pkey;
	Oid			events;			/* partitioned */
	Oid			outbox;			/* partitioned */
	Oid			inbox;			/* partitioned */
	Oid			inbox_consumers;
	Oid			inbox_consumers_name_key;
	Oid			inbox_forgotten;
	Oid			inbox_forgotten_pkey;
	Oid			delayed;
	Oid			delayed_due_idx;
	Oid			subscriptions;
	Oid			subscriptions_name_key;
	Oid			cursors;
	Oid			cursors_pkey;
	Oid			grants;
	Oid			grants_pkey;
	Oid			leases;
	Oid			leases_pkey;
	Oid			parked;
	Oid			parked_pkey;
	Oid			parked_key;
	Oid			parked_due;
	Oid			parked_entered;
	Oid			parked_out;
	Oid			snapshots;
	Oid			snapshots_pkey;
	Oid			snapshot_policies;
	Oid			snapshot_policies_pkey;
	Oid			inbox_sequences;
	Oid			inbox_sequences_key;
	Oid			inbox_ranges;
	Oid			inbox_ranges_pkey;
	Oid			inbox_lost;
	Oid			inbox_lost_pkey;
	Oid			inboxes;
	Oid			inboxes_pkey;
	Oid			inbox_held;
	Oid			projections;
	Oid			projections_pkey;
} EsCatalog;

/* Valid until the next invalidation message is accepted: do not keep it. */
extern const EsCatalog *EsCatalogGet(void);

ES_NORETURN extern void EsRefuseDropped(void);
extern Relation EsTableOpen(Oid table, LOCKMODE lockmode);

/* Called with the OID of each relation that changed; InvalidOid is all. */
typedef void (*EsInvalidation) (Oid relation);
extern void EsCatalogOnInvalidation(EsInvalidation callback);

/* A table opened for inserts that bypass the executor. */
typedef struct EsTarget
{
	Relation	rel;
	ResultRelInfo *rri;
	EState	   *estate;			/* NULL: the executor is not needed */
} EsTarget;

extern const char *EsInsertObstacle(Relation rel);
ES_NORETURN extern void EsInsertRefuse(const char *table, const char *obstacle);
extern void EsTargetOpen(EsTarget *target, Relation rel, int natts, bool speculative);
extern void EsTargetInsert(EsTarget *target, TupleTableSlot *slot);
extern void EsTargetInsertMany(EsTarget *target, TupleTableSlot **slots, int n,
							   BulkInsertState bulk);
extern List *EsTargetArbiters(const EsTarget *target, AttrNumber column, Oid collation);
typedef bool (*EsKeeper) (void *arg);
extern bool EsTargetInsertUnless(EsTarget *target, TupleTableSlot *slot, List *arbiters,
								 EsKeeper keep, void *arg);
extern void EsTargetClose(EsTarget *target);
extern void EsInsertRow(Oid relation, int natts, const Datum *values, const bool *nulls);

/* Finds one row by the leading columns of an index; false when there is none. */
extern bool EsIndexProbe(Relation rel, Relation index, Snapshot snapshot,
						 struct ScanKeyData *keys, int nkeys,
						 ScanDirection direction, TupleTableSlot *slot);

/* Finds one row by the unique index of its name, and if asked the place that the index has for it. */
extern bool EsNameProbe(Relation rel, Oid name_key, const text *name, Snapshot snapshot,
						TupleTableSlot *slot, ItemPointer place);

/* Locks a row FOR NO KEY UPDATE to the end of the transaction; false: it is gone. */
extern bool EsRowLock(Relation rel, TupleTableSlot *slot);
extern TM_Result EsRowLockAs(Relation rel, TupleTableSlot *slot, LockTupleMode mode, LockWaitPolicy policy);

/* Several look-ups by one index. */
typedef struct EsProbe
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;		/* what was found */
} EsProbe;

extern void EsProbeOpen(EsProbe *probe, Oid relation, Oid index);
extern void EsProbeClose(EsProbe *probe);

extern int	EsSettingsBegin(const char *const (*settings)[2], int n);

/* Acting as the owner of es_pg's relations, with settings that nobody chose. */
typedef struct EsOwner
{
	Oid			user;			/* as it was before */
	int			context;
	int			nest;
} EsOwner;

extern void EsOwnerBegin(EsOwner *before);
extern void EsOwnerEnd(const EsOwner *before);

#endif							/* ES_CATALOG_H */
