/*
 * horizon_fork.c
 *		Incarnations: which life of the log a position belongs to, and whether
 *		this log may go on where it stands.
 *
 * The same positions may be drawn twice, for other events, where a log has two
 * lives: a recovery that ended early, a standby that was behind, a copied
 * cluster or database, a dump restored beside its original.  Whoever remembers
 * positions outside would then drop or mix events.  So es_incarnations holds,
 * for each life, a random id, where the life was begun, and the position after
 * which it begins; the newest row is in force.  What a row says of the place:
 *
 *		system, database	of another cluster, or another database of this one:
 *							a copy (TEMPLATE, pg_upgrade, pg_restore)
 *		log					OID of the sequence of positions, which a restored
 *							dump makes anew, even in the same database
 *		timeline			another one: a recovery ended here since
 *		directory			another one: the files were copied
 *
 * On another timeline of the same log the next append begins a new incarnation
 * by itself, SAFE_GAP positions further on: so even a consumer that minds
 * numbers only is not handed one twice, unless more than that many were lost.
 * In every other case, and where there are positions that were never drawn here
 * (a logical subscriber), nobody but an administrator can know whether the
 * original lives on: appends and fetches fail with SE008 until es_adopt().
 *
 * When it is looked at: by appends and fetches until the log was found in order
 * by what is committed, and again after the sequence was set from outside; by an
 * append also whenever a block of positions is reserved.
 *
 * A row of es_incarnations must be there for all before its positions can be, so
 * a transaction of a background worker writes it and not the user's own.  Writers
 * of rows exclude each other by a SHARE ROW EXCLUSIVE lock on the table and look
 * again once they have it.  An adoption moves the counter only when its row is
 * committed, and lets nobody reserve in between: whoever had a block reserved
 * before draws from it for the old life or not at all.
 *
 * Not to be seen from here: a snapshot of the whole volume that was rolled back
 * or cloned.  For that there is es_adopt('copied').
 */
#include "horizon.h"

#include <sys/stat.h>

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "catalog.h"
#include "chunk.h"
#include "compat.h"
#include "debug_point.h"
#include "worker.h"

#define SAFE_GAP		UINT64CONST(0x100000000)	/* positions between two lives */
#define LOCK_TIMEOUT	"30s"	/* of the worker that adopts */
#define DIRECTORY_FILE	"PG_VERSION"	/* made with the data directory, never written again */

PG_FUNCTION_INFO_V1(es_incarnation);
PG_FUNCTION_INFO_V1(es_adopt);

/* Columns of es_incarnations. */
enum
{
	Anum_es_incarnations_ordinal = 1,
	Anum_es_incarnations_incarnation,
	Anum_es_incarnations_system_identifier,
	Anum_es_incarnations_timeline,
	Anum_es_incarnations_database_oid,
	Anum_es_incarnations_log_oid,
	Anum_es_incarnations_directory,
	Anum_es_incarnations_after_position,
	Anum_es_incarnations_began_at
};

#define Natts_es_incarnations	Anum_es_incarnations_began_at

/* A place where a log lives. */
typedef struct Place
{
	uint64		system;
	TimeLineID	timeline;
	Oid			database;
	Oid			log;
	int64		directory;		/* 0: not known */
} Place;

/* A row of es_incarnations. */
typedef struct Incarnation
{
	int32		ordinal;
	pg_uuid_t	id;
	Place		place;
	EsPosition	after;
	bool		uncommitted;	/* this transaction's own */
} Incarnation;

/* What the worker that adopts is told. */
typedef struct Adoption
{
	Oid			database;
	bool		moved;
} Adoption;

PGDLLEXPORT void EsAdoptWorkerMain(Datum arg);

/* What became of a log since its newest incarnation began. */
typedef enum Verdict
{
	UNBORN,						/* no incarnation yet, and nothing in it */
	IN_ORDER,
	NEW_TIMELINE,
	FORKED
} Verdict;

/* The look of a moment. */
typedef struct Judgement
{
	Verdict		verdict;
	Place		here;
	Incarnation newest;
	EsPosition	bound;			/* as the sequence has it */
	EsPosition	stored;			/* the highest position in the tables */
	const char *reason;			/* of FORKED */
} Judgement;

/*
 * What a copy of the data directory does not have in common with it: the birth of
 * a file.  Not its inode's number, which a shrunk file system gives anew.  0
 * where the file system does not tell.
 */
static int64
data_directory(void)
{
#ifdef STATX_BTIME
	struct statx s;

	if (statx(AT_FDCWD, DIRECTORY_FILE, 0, STATX_BTIME, &s) == 0 && (s.stx_mask & STATX_BTIME))
		return s.stx_btime.tv_sec * INT64CONST(1000000000) + s.stx_btime.tv_nsec;
#endif
	return 0;
}

static void
find_place(Place *place)
{
	place->system = GetSystemIdentifier();
	place->timeline = GetWALInsertionTimeLine();
	place->database = MyDatabaseId;
	place->log = EsCatalogGet()->position_bound;
	place->directory = data_directory();
}

/* A row of es_incarnations out of its slot. */
static void
read_row(TupleTableSlot *slot, Incarnation *row)
{
	bool		isnull;
	TransactionId xmin;

	slot_getallattrs(slot);
#define COLUMN(name)	slot->tts_values[Anum_es_incarnations_##name - 1]
	row->ordinal = DatumGetInt32(COLUMN(ordinal));
	row->id = *DatumGetUUIDP(COLUMN(incarnation));
	row->place.system = (uint64) DatumGetInt64(COLUMN(system_identifier));
	row->place.timeline = (TimeLineID) DatumGetInt64(COLUMN(timeline));
	row->place.database = DatumGetObjectId(COLUMN(database_oid));
	row->place.log = DatumGetObjectId(COLUMN(log_oid));
	row->place.directory = DatumGetInt64(COLUMN(directory));
	row->after = (EsPosition) DatumGetInt64(COLUMN(after_position));
#undef COLUMN
	xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));
	row->uncommitted = TransactionIdIsCurrentTransactionId(xmin);
}

/* The newest incarnation, committed or of this transaction. */
static bool
newest_incarnation(Incarnation *row)
{
	EsProbe		probe;
	bool		found;

	EsProbeOpen(&probe, EsCatalogGet()->incarnations, EsCatalogGet()->incarnations_pkey);
	found = EsIndexProbe(probe.rel, probe.index, SnapshotSelf, NULL, 0, BackwardScanDirection, probe.slot);
	if (found)
		read_row(probe.slot, row);
	EsProbeClose(&probe);
	return found;
}

/* The highest position in one chunk; 0: none. */
static EsPosition
highest_in_chunk(EsChunkKind kind, const EsChunk *chunk)
{
	static const AttrNumber columns[] = {1};	/* position, in both tables */
	Relation	leaf = EsChunkOpen(kind, chunk, AccessShareLock);
	Relation	index;
	TupleTableSlot *slot;
	EsPosition	highest = 0;
	bool		isnull;

	if (leaf == NULL)
		return 0;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	if (EsIndexProbe(leaf, index, SnapshotSelf, NULL, 0, BackwardScanDirection, slot))
		highest = (EsPosition) DatumGetInt64(slot_getattr(slot, 1, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(leaf, AccessShareLock);
	return highest;
}

/* The highest position that the tables hold; the last chunks may be empty. */
static EsPosition
highest_stored(void)
{
	EsPosition	highest = 0;

	for (int kind = 0; kind < ES_POSITION_KINDS; kind++)
	{
		EsPosition	before = PG_INT64_MAX;
		EsPosition	found = 0;
		EsChunk		chunk;

		while (found == 0 && EsChunkFindBefore(kind, before, &chunk))
		{
			found = highest_in_chunk(kind, &chunk);
			before = chunk.lower;
		}
		highest = Max(highest, found);
	}
	return highest;
}

/* What has changed between two places, in words; NULL: nothing that matters. */
static const char *
difference(const Place *then, const Place *here)
{
	if (then->system != here->system)
		return "Its newest incarnation began on a server with another system identifier.";
	if (then->database != here->database)
		return "Its newest incarnation began in another database of this server.";
	if (then->log != here->log)
		return "It was restored from a dump.";
	if (then->timeline == here->timeline && then->directory != 0 && here->directory != 0 &&
		then->directory != here->directory)
		return "The data directory was copied since its newest incarnation began.";
	return NULL;
}

/*
 * Look at the log as it is now.  What is stored is looked at first, for others
 * write meanwhile: their first incarnation is committed before any position, and
 * whatever they store they have drawn.
 */
static void
judge(Judgement *judgement)
{
	bool		born;

	memset(judgement, 0, sizeof(*judgement));
	judgement->stored = highest_stored();
	ES_DEBUG_POINT(judging);
	born = newest_incarnation(&judgement->newest);
	find_place(&judgement->here);
	judgement->bound = EsBoundRead(judgement->here.log);

	if (born)
		judgement->reason = difference(&judgement->newest.place, &judgement->here);
	else if (judgement->stored > 0)
		judgement->reason = "It has events or messages, but its incarnations did not come along.";
	if (judgement->reason == NULL && judgement->stored > EsPositionLast())
		judgement->reason = "It has positions that were never drawn here.";

	if (judgement->reason != NULL)
		judgement->verdict = FORKED;
	else if (!born)
		judgement->verdict = UNBORN;
	else if (judgement->newest.place.timeline != judgement->here.timeline)
		judgement->verdict = NEW_TIMELINE;
	else
		judgement->verdict = IN_ORDER;
}

static void
refuse_fork(const Judgement *judgement)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_LOG_FORKED),
			 errmsg("this event log may be a copy, an import or an older self of another"),
			 errdetail("%s", judgement->reason),
			 errhint("If the original is gone for good, run SELECT es_adopt('moved'); if it lives on, run SELECT es_adopt('copied').")));
}

/* Look, and tell others when all is well and will stay so for all. */
static Verdict
look(EsLog *log)
{
	Judgement	judgement;

	judge(&judgement);
	if (judgement.verdict == FORKED)
		refuse_fork(&judgement);
	if (judgement.verdict == IN_ORDER && !judgement.newest.uncommitted)
		pg_atomic_write_u32(&log->in_order, 1);
	return judgement.verdict;
}

/* Refuse to hand out what may be somebody else's. */
void
EsForkCheck(EsLog *log)
{
	if (pg_atomic_read_u32(&log->in_order) == 0)
		(void) look(log);
}

/* Is there an incarnation that new positions can belong to? */
bool
EsIncarnationInForce(EsLog *log)
{
	return look(log) == IN_ORDER;
}

static void
insert_incarnation(int32 ordinal, Datum id, const Place *place, EsPosition after)
{
	Datum		values[Natts_es_incarnations] = {
		Int32GetDatum(ordinal),
		id,
		Int64GetDatum((int64) place->system),
		Int64GetDatum((int64) place->timeline),
		ObjectIdGetDatum(place->database),
		ObjectIdGetDatum(place->log),
		Int64GetDatum(place->directory),
		Int64GetDatum((int64) after),
		TimestampTzGetDatum(GetCurrentTimestamp())
	};
	bool		nulls[Natts_es_incarnations] = {false};

	EsInsertRow(EsCatalogGet()->incarnations, Natts_es_incarnations, values, nulls);
	CommandCounterIncrement();
}

/* An id in the caller's memory. */
static Datum
copy_id(const pg_uuid_t *id)
{
	pg_uuid_t  *copy = palloc(sizeof(pg_uuid_t));

	*copy = *id;
	return UUIDPGetDatum(copy);
}

static Datum
random_id(void)
{
	return DirectFunctionCall1(gen_random_uuid, (Datum) 0);
}

/*
 * Begin another life behind a gap, after the position that is returned; its id is
 * new, or the old one's.
 */
static EsPosition
begin_behind_gap(const Judgement *judgement, bool keep_id)
{
	EsPosition	after = Max(judgement->bound, judgement->stored);
	Datum		id = keep_id ? copy_id(&judgement->newest.id) : random_id();

	if (after > PG_INT64_MAX - SAFE_GAP)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("the event log has no positions left for another incarnation")));
	after += SAFE_GAP;
	EsBoundMove(judgement->here.log, after);
	insert_incarnation(judgement->newest.ordinal + 1, id, &judgement->here, after);
	ereport(LOG,
			(errmsg("event log goes on after position " UINT64_FORMAT " in %s incarnation",
					after, keep_id ? "the same" : "a new")));
	return after;
}

/*
 * Begin the first incarnation, or the one of a new timeline, if that is what
 * the log needs.  The lock stays to the end of the transaction; chunk_make.c
 * keeps DROP EXTENSION away.
 */
void
EsIncarnationBegin(void)
{
	Judgement	judgement;

	LockRelationOid(EsCatalogGet()->incarnations, ShareRowExclusiveLock);
	judge(&judgement);
	if (judgement.verdict == UNBORN)
		insert_incarnation(1, random_id(), &judgement.here, 0);
	else if (judgement.verdict == NEW_TIMELINE)
		(void) begin_behind_gap(&judgement, false);
}

/* All incarnations, oldest first, in the current memory context. */
EsLives
EsLivesRead(Snapshot snapshot)
{
	EsProbe		probe;
	IndexScanDesc scan;
	EsLives		lives = {0, NULL};
	int			size = 8;

	EsProbeOpen(&probe, EsCatalogGet()->incarnations, EsCatalogGet()->incarnations_pkey);
	scan = es_index_beginscan(probe.rel, probe.index, snapshot, 0);
	lives.lives = palloc(size * sizeof(EsLife));
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, probe.slot))
	{
		Incarnation row;

		read_row(probe.slot, &row);
		if (lives.n == size)
			lives.lives = repalloc(lives.lives, (size *= 2) * sizeof(EsLife));
		lives.lives[lives.n].id = row.id;
		lives.lives[lives.n++].after = row.after;
	}
	index_endscan(scan);
	EsProbeClose(&probe);
	return lives;
}

/* The incarnation that a position belongs to; NULL: there is none. */
pg_uuid_t *
EsLifeOf(const EsLives *lives, EsPosition position)
{
	int			i = lives->n - 1;

	while (i > 0 && lives->lives[i].after >= position)
		i--;
	return i < 0 ? NULL : &lives->lives[i].id;
}

/* es_incarnation() */
Datum
es_incarnation(PG_FUNCTION_ARGS)
{
	Incarnation newest;

	if (!newest_incarnation(&newest))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(copy_id(&newest.id));
}

/* Was this log moved?  The other answer is that it was copied. */
static bool
argument_moved(FunctionCallInfo fcinfo)
{
	char	   *how;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("what became of the log must not be null")));
	how = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strcmp(how, "moved") != 0 && strcmp(how, "copied") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized answer \"%s\"", how),
				 errhint("Use 'moved' if the original is gone for good, 'copied' if it lives on.")));
	return strcmp(how, "moved") == 0;
}

/* The worker's transaction; the position after which the log goes on, 0: nothing to do. */
static EsPosition
adopt(bool moved)
{
	Judgement	judgement;

	LockRelationOid(EsCatalogGet()->incarnations, ShareRowExclusiveLock);
	LockRelationOid(EsCatalogGet()->position_bound, RowExclusiveLock);
	EsReservingBegin(EsLogGet());
	judge(&judgement);
	if (moved && judgement.verdict != FORKED)
		return 0;
	return begin_behind_gap(&judgement, moved);
}

/*
 * The worker that adopts.  Whether it succeeded is seen by its row.  Should it
 * die after that, the counter is moved by the next one who reserves.
 */
void
EsAdoptWorkerMain(Datum arg)
{
	Adoption	order;
	EsPosition	after;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	EsWorkerBegin(order.database, LOCK_TIMEOUT);
	if (!EsWorkerTransactionBegin("es_pg: adopting the event log", false))
		proc_exit(0);
	after = adopt(order.moved);
	EsWorkerTransactionEnd();
	EsReservingEnd(after);
	proc_exit(0);
}

/* Have a worker adopt the log, and wait for its end. */
static void
run_adoption(bool moved)
{
	Adoption	order = {MyDatabaseId, moved};
	BackgroundWorkerHandle *handle;

	if (!EsWorkerStart("EsAdoptWorkerMain", "es_pg adoption worker", &order, sizeof(order), true, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a background worker to adopt the event log"),
				 errhint("You might need to increase max_worker_processes.")));
	if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	AcceptInvalidationMessages();
}

/* es_adopt(how) */
Datum
es_adopt(PG_FUNCTION_ARGS)
{
	bool		moved = argument_moved(fcinfo);
	Judgement	before;
	Incarnation newest;

	EsRequirePrimary();
	PreventCommandIfReadOnly("es_adopt()");
	judge(&before);
	if (moved && before.verdict != FORKED)
	{
		ereport(NOTICE,
				(errmsg("nothing to adopt, the event log is where it began")));
		EsIncarnationEnsure(EsLogGet());
		return es_incarnation(fcinfo);
	}
	if (moved && before.newest.ordinal == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot keep the incarnation of an event log that has none"),
				 errhint("Use SELECT es_adopt('copied').")));

	run_adoption(moved);
	if (!newest_incarnation(&newest) || newest.ordinal <= before.newest.ordinal)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not adopt the event log"),
				 errhint("The server's log says why; or the extension was created in this very transaction.")));
	PG_RETURN_DATUM(copy_id(&newest.id));
}
