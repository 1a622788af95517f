/*
 * catalog.c
 *		es_pg's own relations: where they are, and how rows get into them
 *		without the executor.
 *
 * OIDs are resolved once a backend, by name in the extension's schema, and
 * forgotten when the relation cache says that one of them changed: so DROP and
 * CREATE EXTENSION in one session, or under other sessions, are noticed.
 *
 * Direct inserts skip whatever the executor would have done.  What users rely
 * on is done here (indexes, NOT NULL through the callers' checks, statistics);
 * what is not done is refused: triggers on INSERT, row security, generated
 * columns, CHECK and exclusion constraints, rules, and further columns that a
 * null does not satisfy.
 */
#include "catalog.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_trigger.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"

#define MAX_CALLBACKS	8
#define RESOLVE_TRIES	100		/* a bound for builds that discard caches all the time */

static EsCatalog catalog;
static bool catalog_valid = false;
static uint64 news = 0;			/* how often anything was said to have changed */
static EsInvalidation callbacks[MAX_CALLBACKS];
static int	ncallbacks = 0;

/* The names, in the order of EsCatalog's fields from position_bound on. */
static const char *const relation_names[] = {
	"es_position_bound",
	"es_incarnations",
	"es_incarnations_pkey",
	"es_marks",
	"es_marks_pkey",
	"es_streams",
	"es_streams_pkey",
	"es_streams_name_key",
	"es_stream_chunks",
	"es_stream_chunks_pkey",
	"es_events",
	"es_outbox",
	"es_inbox",
	"es_inbox_consumers",
	"es_inbox_consumers_name_key",
	"es_inbox_forgotten",
	"es_inbox_forgotten_pkey",
	"es_delayed",
	"es_delayed_due_idx",
	"es_subscriptions",
	"es_subscriptions_name_key",
	"es_cursors",
	"es_cursors_pkey",
	"es_grants",
	"es_grants_pkey",
	"es_leases",
	"es_leases_pkey",
	"es_parked",
	"es_parked_pkey",
	"es_parked_key",
	"es_parked_due",
	"es_parked_entered",
	"es_parked_out",
	"es_snapshots",
	"es_snapshots_pkey",
	"es_snapshot_policies",
	"es_snapshot_policies_pkey",
	"es_inbox_sequences",
	"es_inbox_sequences_key",
	"es_inbox_ranges",
	"es_inbox_ranges_pkey",
	"es_inbox_lost",
	"es_inbox_lost_pkey",
	"es_inboxes",
	"es_inboxes_pkey",
	"es_inbox_held",
	"es_projections",
	"es_projections_pkey",
};

StaticAssertDecl(offsetof(EsCatalog, position_bound) + sizeof(Oid) * lengthof(relation_names) == sizeof(EsCatalog),
				 "relation_names must match EsCatalog");

/* Forget what the relation cache says has changed. */
static void
invalidate(Datum arg, Oid relation)
{
	const Oid  *oids = &catalog.position_bound;

	news++;
	for (int i = 0; i < ncallbacks; i++)
		callbacks[i] (relation);

	if (!catalog_valid)
		return;
	for (size_t i = 0; i < lengthof(relation_names); i++)
	{
		if (relation == InvalidOid || oids[i] == relation)
		{
			catalog_valid = false;
			return;
		}
	}
}

void
EsCatalogInit(void)
{
	CacheRegisterRelcacheCallback(invalidate, (Datum) 0);
}

void
EsCatalogOnInvalidation(EsInvalidation callback)
{
	Assert(ncallbacks < MAX_CALLBACKS);
	callbacks[ncallbacks++] = callback;
}

/* The schema of the extension, as pg_extension has it. */
static Oid
extension_schema(Oid extension)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	Oid			schema = InvalidOid;

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/* Look every relation up by name. */
static void
look_up(EsCatalog *found)
{
	Oid		   *oids = &found->position_bound;

	found->extension = get_extension_oid("es_pg", true);
	found->schema = OidIsValid(found->extension) ? extension_schema(found->extension) : InvalidOid;
	if (!OidIsValid(found->schema))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"es_pg\" is not installed in this database"),
				 errhint("Use CREATE EXTENSION es_pg.")));
	for (size_t i = 0; i < lengthof(relation_names); i++)
	{
		oids[i] = get_relname_relid(relation_names[i], found->schema);
		if (!OidIsValid(oids[i]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("relation \"%s\" of extension \"es_pg\" does not exist",
							relation_names[i]),
					 errhint("Someone dropped or renamed it; restore it, or create the extension anew.")));
	}
}

/* Fill the cache, again if anything changed meanwhile; invalid if it fails. */
static void
resolve(void)
{
	uint64		before;
	int			tries = 0;

	do
	{
		before = news;
		look_up(&catalog);
	} while (before != news && ++tries < RESOLVE_TRIES);
	catalog_valid = true;
}

const EsCatalog *
EsCatalogGet(void)
{
	if (!catalog_valid)
		resolve();
	return &catalog;
}

/* The answer to a relation that is gone. */
void
EsRefuseDropped(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"es_pg\" was dropped meanwhile")));
}

/*
 * Open a table of the extension's by its OID.  It may be dropped while one
 * waits for the lock.
 */
Relation
EsTableOpen(Oid table, LOCKMODE lockmode)
{
	Relation	rel = try_table_open(table, lockmode);

	if (rel == NULL)
		EsRefuseDropped();
	return rel;
}

/*
 * Has a table columns after the first n that a null does not satisfy?  Those
 * that somebody added and nobody minds, or that were dropped, are left null.
 */
static bool
minds_nulls(TupleDesc desc, int n)
{
	for (int i = n; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped && (attribute->attnotnull || attribute->atthasdef))
			return true;
	}
	return false;
}

/* Has somebody put triggers on INSERT?  es_pg's own refuses what others insert. */
static bool
has_insert_triggers(const TriggerDesc *triggers)
{
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		if (TRIGGER_FOR_INSERT(triggers->triggers[i].tgtype) &&
			strcmp(triggers->triggers[i].tgname, "es_immutable") != 0)
			return true;
	}
	return false;
}

/* What of a table a direct insert into it, or into its partitions, would pass by; or NULL. */
const char *
EsInsertObstacle(Relation rel)
{
	if (has_insert_triggers(rel->trigdesc))
		return "triggers on INSERT";
	if (rel->rd_rel->relrowsecurity)
		return "row security";
	if (rel->rd_rules != NULL)
		return "rules";
	return NULL;
}

void
EsInsertRefuse(const char *table, const char *obstacle)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot write to \"%s\" because it has %s", table, obstacle),
			 errdetail("es_pg writes its tables directly and would pass them by."),
			 errhint("Remove them from the table; react to events with a subscription.")));
}

/* The same of constraints, which partitions have of their own. */
static const char *
constraint_obstacle(const ResultRelInfo *rri, int natts)
{
	TupleDesc	desc = RelationGetDescr(rri->ri_RelationDesc);

	if (desc->constr && desc->constr->has_generated_stored)
		return "generated columns";
	if (desc->constr && desc->constr->num_check > 0)
		return "CHECK constraints";
	if (minds_nulls(desc, natts))
		return "further columns with a default or NOT NULL";
	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		if (rri->ri_IndexRelationInfo[i]->ii_ExclusionOps)
			return "exclusion constraints";
	}
	return NULL;
}

/* Refuse a table that needs more than a direct insert gives. */
static void
check_insertable(const ResultRelInfo *rri, int natts)
{
	const char *obstacle = EsInsertObstacle(rri->ri_RelationDesc);

	if (obstacle == NULL)
		obstacle = constraint_obstacle(rri, natts);
	if (obstacle != NULL)
		EsInsertRefuse(RelationGetRelationName(rri->ri_RelationDesc), obstacle);
}

/* Is an index of plain columns, of all rows, and checked at once? */
static bool
is_plain_index(Relation index, IndexInfo *info)
{
	return info->ii_Expressions == NIL && info->ii_Predicate == NIL &&
		info->ii_ExclusionOps == NULL && info->ii_ReadyForInserts &&
		index->rd_index->indimmediate;
}

/*
 * Make an open, locked table ready for direct inserts of rows with natts
 * columns.  The caller closes the relation; everything else lives in the
 * caller's memory.
 */
void
EsTargetOpen(EsTarget *target, Relation rel, int natts, bool speculative)
{
	ResultRelInfo *rri = makeNode(ResultRelInfo);

	if (RelationGetNumberOfAttributes(rel) < natts)
		elog(ERROR, "\"%s\" has %d columns, expected %d", RelationGetRelationName(rel),
			 RelationGetNumberOfAttributes(rel), natts);

	InitResultRelInfo(rri, rel, 0, NULL, 0);
	ExecOpenIndices(rri, speculative);
	check_insertable(rri, natts);
	target->rel = rel;
	target->rri = rri;
	target->estate = NULL;
	for (int i = 0; i < rri->ri_NumIndices && !speculative; i++)
		speculative = !is_plain_index(rri->ri_IndexRelationDescs[i], rri->ri_IndexRelationInfo[i]);
	if (speculative)
		target->estate = CreateExecutorState();
}

/* An entry for a row in one plain index; false: its value is there already, and "check" lets that pass. */
static bool
index_row(EsTarget *target, int i, TupleTableSlot *slot, IndexUniqueCheck check)
{
	Relation	index = target->rri->ri_IndexRelationDescs[i];
	IndexInfo  *info = target->rri->ri_IndexRelationInfo[i];
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	FormIndexDatum(info, slot, NULL, values, nulls);
	if (!index->rd_index->indisunique)
		check = UNIQUE_CHECK_NO;
	return index_insert(index, values, nulls, &slot->tts_tid, target->rel, check, false, info) ||
		check != UNIQUE_CHECK_PARTIAL;
}

/*
 * Index entries for rows already in the table.  One index after the other keeps
 * each one's pages in the processor's cache.  The executor is called where it
 * is needed: for expressions, predicates and deferred checks.
 */
static void
index_rows(EsTarget *target, TupleTableSlot **slots, int n)
{
	if (target->estate != NULL)
	{
		for (int j = 0; j < n; j++)
			EsExecInsertIndexTuples(target->rri, slots[j], target->estate, false, NULL, NIL);
		ResetPerTupleExprContext(target->estate);
		return;
	}
	for (int i = 0; i < target->rri->ri_NumIndices; i++)
	{
		for (int j = 0; j < n; j++)
			(void) index_row(target, i, slots[j], UNIQUE_CHECK_YES);
	}
}

/* Insert a row and its index entries. */
void
EsTargetInsert(EsTarget *target, TupleTableSlot *slot)
{
	table_tuple_insert(target->rel, slot, GetCurrentCommandId(true), 0, NULL);
	index_rows(target, &slot, 1);
}

/* The same for many rows. */
void
EsTargetInsertMany(EsTarget *target, TupleTableSlot **slots, int n, BulkInsertState bulk)
{
	table_multi_insert(target->rel, slots, n, GetCurrentCommandId(true), 0, bulk);
	index_rows(target, slots, n);
}

/*
 * The unique indexes of one column.  While REINDEX CONCURRENTLY builds one anew there are two; a
 * conflict in either is one.
 */
List *
EsTargetArbiters(const EsTarget *target, AttrNumber column, Oid collation)
{
	const ResultRelInfo *rri = target->rri;
	List	   *indexes = NIL;

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		Relation	index = rri->ri_IndexRelationDescs[i];
		const IndexInfo *info = rri->ri_IndexRelationInfo[i];

		if (info->ii_Unique && info->ii_ReadyForInserts && info->ii_Predicate == NIL &&
			info->ii_NumIndexKeyAttrs == 1 && info->ii_IndexAttrNumbers[0] == column &&
			index->rd_indcollation[0] == collation && index->rd_index->indimmediate)
			indexes = lappend_oid(indexes, RelationGetRelid(index));
	}
	return indexes;
}

/* Index entries for a row, unless one of these indexes has its value. */
static bool
index_row_unless(EsTarget *target, TupleTableSlot *slot, List *arbiters)
{
	bool		conflict = false;

	if (target->estate != NULL)
	{
		EsExecInsertIndexTuples(target->rri, slot, target->estate, true, &conflict, arbiters);
		ResetPerTupleExprContext(target->estate);
		return !conflict;
	}
	for (int i = 0; i < target->rri->ri_NumIndices; i++)
	{
		Oid			index = RelationGetRelid(target->rri->ri_IndexRelationDescs[i]);
		bool		decides = list_member_oid(arbiters, index);

		if (!index_row(target, i, slot, decides ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_YES))
			return false;
	}
	return true;
}

/*
 * Insert a row unless one of these indexes has its value, as INSERT ... ON
 * CONFLICT DO NOTHING does.  Until this returns the row can be taken back without
 * a trace: so "keep", if given, may still say no, and others wait for its word.
 */
bool
EsTargetInsertUnless(EsTarget *target, TupleTableSlot *slot, List *arbiters, EsKeeper keep, void *arg)
{
	uint32		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	bool		kept;

	table_tuple_insert_speculative(target->rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	kept = index_row_unless(target, slot, arbiters) && (keep == NULL || keep(arg));
	table_tuple_complete_speculative(target->rel, slot, token, kept);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	return kept;
}

/*
 * The locks on the indexes are given back at once, as the executor does.  To keep
 * them to the end of the transaction would make an append 0.9 % cheaper and take
 * four of the 16 locks that a backend has without the shared lock table, up to
 * 17 at least; the rest of the user's transaction needs them more.
 */
void
EsTargetClose(EsTarget *target)
{
	ResultRelInfo *rri = target->rri;

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		EsIndexInsertCleanup(rri->ri_IndexRelationDescs[i], rri->ri_IndexRelationInfo[i]);
		index_close(rri->ri_IndexRelationDescs[i], RowExclusiveLock);
	}
	if (target->estate != NULL)
		FreeExecutorState(target->estate);
}

/* Insert one row into one of es_pg's plain tables. */
void
EsInsertRow(Oid relation, int natts, const Datum *values, const bool *nulls)
{
	Relation	rel = EsTableOpen(relation, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	EsTarget	target;

	EsTargetOpen(&target, rel, natts, false);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	memcpy(slot->tts_values, values, natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	EsTargetInsert(&target, slot);
	EsTargetClose(&target);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* The first row of an index scan, and the place that the index has for it. */
static bool
probe(Relation rel, Relation index, Snapshot snapshot, ScanKey keys, int nkeys,
	  ScanDirection direction, TupleTableSlot *slot, ItemPointer place)
{
	IndexScanDesc scan = es_index_beginscan(rel, index, snapshot, nkeys);
	ItemPointer tid;
	bool		found = false;

	index_rescan(scan, keys, nkeys, NULL, 0);
	while (!found && (tid = index_getnext_tid(scan, direction)) != NULL)
	{
		*place = *tid;
		found = index_fetch_heap(scan, slot);
	}
	index_endscan(scan);
	return found;
}

bool
EsIndexProbe(Relation rel, Relation index, Snapshot snapshot,
			 struct ScanKeyData *keys, int nkeys,
			 ScanDirection direction, TupleTableSlot *slot)
{
	ItemPointerData place;

	return probe(rel, index, snapshot, keys, nkeys, direction, slot, &place);
}

bool
EsNameProbe(Relation rel, Oid name_key, const text *name, Snapshot snapshot,
			TupleTableSlot *slot, ItemPointer place)
{
	Relation	index = index_open(name_key, AccessShareLock);
	ScanKeyData key;
	ItemPointerData ignored;
	bool		found;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, PointerGetDatum(name));
	found = probe(rel, index, snapshot, &key, 1, ForwardScanDirection, slot,
				  place ? place : &ignored);
	index_close(index, NoLock);
	return found;
}

void
EsProbeOpen(EsProbe *probe, Oid relation, Oid index)
{
	probe->rel = EsTableOpen(relation, AccessShareLock);
	probe->index = index_open(index, AccessShareLock);
	probe->slot = table_slot_create(probe->rel, NULL);
}

void
EsProbeClose(EsProbe *probe)
{
	ExecDropSingleTupleTableSlot(probe->slot);
	index_close(probe->index, AccessShareLock);
	table_close(probe->rel, AccessShareLock);
}

/*
 * Lock the row in a slot.  The slot then holds its newest version.  TM_Ok,
 * TM_Deleted, or TM_WouldBlock where the policy is not to wait.
 */
TM_Result
EsRowLockAs(Relation rel, TupleTableSlot *slot, LockTupleMode mode, LockWaitPolicy policy)
{
	TransactionId xmin;
	bool		isnull;
	TM_FailureData failure;
	TM_Result	result;

	/*
	 * A row of this transaction's own is as good as locked, and one of this
	 * very command could not be.
	 */
	xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));
	if (TransactionIdIsCurrentTransactionId(xmin))
		return TM_Ok;

	result = table_tuple_lock(rel, &slot->tts_tid, SnapshotSelf, slot,
							  GetCurrentCommandId(false), mode, policy,
							  TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &failure);
	if (result != TM_Ok && result != TM_Deleted && result != TM_WouldBlock)
		elog(ERROR, "unexpected result of locking a row of \"%s\": %d",
			 RelationGetRelationName(rel), (int) result);
	return result;
}

/* The same for one who is going to write it, and waits for whoever has it. */
bool
EsRowLock(Relation rel, TupleTableSlot *slot)
{
	return EsRowLockAs(rel, slot, LockTupleNoKeyExclusive, LockWaitBlock) == TM_Ok;
}


/* Who created the extension owns its relations. */
static Oid
relation_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Have settings, pairs of name and value, whatever the session chose.  What was
 * set before comes back with AtEOXact_GUC and the returned level, or with an abort.
 */
int
EsSettingsBegin(const char *const (*settings)[2], int n)
{
	int			nest = NewGUCNestLevel();

	for (int i = 0; i < n; i++)
	{
		const char *now = GetConfigOption(settings[i][0], false, false);

		if (now == NULL || strcmp(now, settings[i][1]) != 0)
			(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_SAVE, true, 0, false);
	}
	return nest;
}

/* What was set before comes back with EsOwnerEnd, or with an abort. */
void
EsOwnerBegin(EsOwner *before)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_tablespace", ""},
		{"default_table_access_method", "heap"},
		{"client_min_messages", "warning"},
	};
	Oid			owner = relation_owner(EsCatalogGet()->outbox);

	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(owner, before->context | SECURITY_LOCAL_USERID_CHANGE);
	before->nest = EsSettingsBegin(settings, lengthof(settings));
}

void
EsOwnerEnd(const EsOwner *before)
{
	AtEOXact_GUC(true, before->nest);
	SetUserIdAndSecContext(before->user, before->context);
}
