/*
 * chunk_make.c
 *		Making chunks ahead of the positions that will need them; and, by the
 *		same worker, the incarnation that a log's first position needs.
 *
 * A chunk made inside a user's transaction would hold a lock on the parent to
 * its end, fail under an open cursor and need ownership.  So a background
 * worker makes it, in a transaction of its own, as the owner of the parent and
 * with settings of its own; it is started on demand and needs no preloading.
 *
 * An append that passes the middle of its chunk asks for the next ones and goes
 * on; one such worker at a time, so that they cannot take all the slots.  An
 * append that finds no chunk waits for the worker: one backend starts it and
 * waits for its end, the others wait for that backend.  Nobody waits with a lock
 * that the worker needs, unless the user took one by hand; then the worker gives
 * up after a while.  Where no worker can be had, or it could not do it, or the
 * extension was created in this very transaction, the chunk is made here and
 * now, which is the last resort: the lock on the parent then stays to the end of
 * the user's transaction, and whoever needs a chunk meanwhile waits for that.
 *
 * Two makers exclude each other by the SHARE UPDATE EXCLUSIVE lock on the
 * parent that ATTACH needs anyway, and look again once they have it.  Before
 * that a maker locks the extension, as DROP EXTENSION does, so that the two
 * cannot deadlock over its members.  One who needs a chunk holds locks that
 * DROP EXTENSION waits for, so he does not wait for it: he takes the
 * extension's lock at once or fails.  His worker goes without, for it would
 * queue behind a DROP EXTENSION that waits for him, where no deadlock detector
 * looks.
 */
#include "chunk.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "worker.h"

#define POSITIONS_END		((EsPosition) PG_INT64_MAX)	/* bounds are of type bigint */
#define AHEAD_MIN			2	/* chunks ahead at rest */
#define AHEAD_MAX			16	/* and when they fill fast */
#define AHEAD_SECONDS		60	/* so much time shall they last */
#define AHEAD_TIMEOUT		(60 * USECS_PER_SEC)	/* then another may be started */
#define FAILURES_MAX		2	/* of an awaited worker, then the chunk is made here */
#define SLOT_WAIT_MS		50	/* pause before asking for a worker's slot again */
#define SLOT_TRIES			100 /* and how often */
#define LOCK_TIMEOUT_WAIT	"5s"	/* when somebody waits for the worker */
#define LOCK_TIMEOUT_AHEAD	"60s"	/* when nobody does */

/* What the worker is told; must fit BGW_EXTRALEN. */
typedef struct Order
{
	Oid			database;
	EsChunkKind kind;
	EsPosition	first;			/* positions to be covered */
	EsPosition	last;
	EsPosition	size;
	int			ahead;			/* chunks after last */
	bool		awaited;
	bool		incarnation;	/* instead of chunks: see horizon_fork.c */
} Order;

StaticAssertDecl(sizeof(Order) <= BGW_EXTRALEN, "Order must fit into a worker's extra data");

PGDLLEXPORT void EsChunkWorkerMain(Datum arg);

PG_FUNCTION_INFO_V1(es_prepare_chunks);
PG_FUNCTION_INFO_V1(es_restore_chunks);

static const char *const parent_names[ES_CHUNK_KINDS] = {"es_events", "es_outbox", "es_inbox"};

static uint32
worker_wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsChunkWorker");
	return event;
}

/* A position as a bound of a partition. */
static const char *
bound(EsChunkKind kind, EsPosition position)
{
	if (kind == ES_CHUNK_INBOX)
		return pstrdup(timestamptz_to_str((TimestampTz) position));
	return psprintf(UINT64_FORMAT, position);
}

/* The leaf's definition: name, bounds and what each kind of chunk has. */
static char *
leaf_definition(EsChunkKind kind, const char *schema, EsPosition lower, EsPosition upper)
{
	const char *parent = parent_names[kind];
	char	   *parent_name = quote_qualified_identifier(schema, parent);
	char	   *leaf = psprintf("es_chunks.%s_" UINT64_FORMAT, parent, lower);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)"
					 " WITH (autovacuum_vacuum_insert_threshold = 100000,"
					 " autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_freeze_min_age = 0);"
					 "ALTER TABLE %s ADD PRIMARY KEY (%s);",
					 leaf, parent_name, leaf, kind == ES_CHUNK_INBOX ? "digest" : "position");
	if (kind == ES_CHUNK_EVENTS)
		appendStringInfo(&sql,
						 "ALTER TABLE %s ADD UNIQUE (stream_id, version);"
						 "CREATE INDEX ON %s (category_id, position);"
						 "CREATE INDEX ON %s (event_id);"
						 "CREATE TRIGGER es_immutable BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
						 " FOR EACH STATEMENT EXECUTE FUNCTION %s();"
						 "ALTER TABLE %s ENABLE ALWAYS TRIGGER es_immutable;",
						 leaf, leaf, leaf, leaf,
						 quote_qualified_identifier(schema, "es_refuse_change"), leaf);
	appendStringInfo(&sql,
					 "ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s');",
					 parent_name, leaf, bound(kind, lower), bound(kind, upper));
	return sql.data;
}

static void
run_as_owner(const char *sql)
{
	EsOwner		before;

	EsOwnerBegin(&before);
	SPI_connect();
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
	SPI_finish();
	EsOwnerEnd(&before);
}

/* Keep DROP EXTENSION away to the end of the transaction; false: it is at it. */
bool
EsExtensionTryLock(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, EsCatalogGet()->extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

static void
lock_extension(void)
{
	if (!EsExtensionTryLock())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot extend the event log because extension \"es_pg\" is being dropped"),
				 errhint("Try again.")));
}

/* Keep everybody else from making chunks. */
static void
lock_parent(EsChunkKind kind)
{
	LockRelationOid(EsChunkParent(kind), ShareUpdateExclusiveLock);
}

/* Make a chunk of this range; the parent is locked, and has none there. */
static void
make_range(EsChunkKind kind, EsPosition lower, EsPosition upper)
{
	Relation	rel = table_open(EsChunkParent(kind), NoLock);
	char	   *schema = get_namespace_name(RelationGetNamespace(rel));

	table_close(rel, NoLock);	/* DDL minds open references */
	run_as_owner(leaf_definition(kind, schema, lower, upper));
	CommandCounterIncrement();
}

/*
 * Make the chunk that holds a position, in the current transaction.  Its range
 * is aligned to its size, and clamped by its neighbours where the size setting
 * has changed since they were made.  False when it was there already.
 */
static bool
make_chunk(EsChunkKind kind, EsPosition position, EsPosition size)
{
	EsChunk		chunk;
	EsPosition	lower = position - position % size;
	EsPosition	upper = Min(lower + size, POSITIONS_END);

	lock_parent(kind);
	if (EsChunkFind(kind, position, &chunk))
	{
		UnlockRelationOid(EsChunkParent(kind), ShareUpdateExclusiveLock);
		return false;
	}
	if (EsChunkFindBefore(kind, position, &chunk))
		lower = Max(lower, chunk.upper);
	if (EsChunkFindNext(kind, position, &chunk))
		upper = Min(upper, chunk.lower);

	make_range(kind, lower, upper);
	return true;
}

/* Visit the ranges of an order in turn; the next position to be looked at. */
static bool
next_missing(const Order *order, EsPosition *position, int *beyond)
{
	EsChunk		chunk;

	while (EsChunkFind(order->kind, *position, &chunk))
	{
		if (chunk.upper > order->last && ++*beyond > order->ahead)
			return false;
		*position = chunk.upper;
	}
	return *position < POSITIONS_END && (*position <= order->last || *beyond <= order->ahead);
}

/* Is there anything left to do for an order? */
static bool
unfinished(EsLog *log, const Order *order)
{
	EsPosition	position = order->first;
	int			beyond = 0;

	if (order->incarnation)
		return !EsIncarnationInForce(log);
	return next_missing(order, &position, &beyond);
}

/* Make everything that an order asks for, in the current transaction. */
static void
make_here(const Order *order)
{
	EsPosition	position = order->first;
	int			beyond = 0;

	if (order->incarnation)
		EsIncarnationBegin();
	else
	{
		while (next_missing(order, &position, &beyond))
			make_chunk(order->kind, position, order->size);
	}
}

/* One transaction of the worker: a chunk, or an incarnation; true: there may be more. */
static bool
work(const Order *order, EsPosition *position, int *beyond)
{
	if (order->incarnation)
	{
		EsIncarnationBegin();
		return false;
	}
	if (!order->awaited)		/* what was passed meanwhile needs no chunk */
		*position = Max(*position, EsChunkNow(order->kind));
	if (next_missing(order, position, beyond))
	{
		make_chunk(order->kind, *position, order->size);
		return true;
	}
	if (!order->awaited)
		pg_atomic_write_u64(&EsLogGet()->chunk_ahead_until[order->kind], 0);
	return false;
}

/* The worker: one transaction a chunk, then the end. */
void
EsChunkWorkerMain(Datum arg)
{
	Order		order;
	EsPosition	position;
	int			beyond = 0;
	bool		more;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	EsWorkerBegin(order.database, order.awaited ? LOCK_TIMEOUT_WAIT : LOCK_TIMEOUT_AHEAD);

	position = order.first;
	do
	{
		if (!EsWorkerTransactionBegin("es_pg: making chunks", !order.awaited))
			proc_exit(0);
		more = work(&order, &position, &beyond);
		EsWorkerTransactionEnd();
	} while (more);
	proc_exit(0);
}

/* Start a worker; false when none can be had. */
static bool
start_worker(const Order *order, BackgroundWorkerHandle **handle)
{
	return EsWorkerStart("EsChunkWorkerMain", "es_pg chunk worker", order, sizeof(*order),
						 order->awaited, handle);
}

static void
release_worker(int code, Datum arg)
{
	EsLog	   *log = (EsLog *) DatumGetPointer(arg);

	pg_atomic_write_u32(&log->chunk_worker, 0);
	ConditionVariableBroadcast(&log->chunk_worker_done);
}

/* What became of the wish for a worker. */
typedef enum WorkerResult
{
	WORKER_ENDED,				/* ours; whether it did its work is to be seen */
	WORKER_OF_OTHERS_ENDED,		/* its order may have been another one */
	NO_WORKER					/* no slot */
} WorkerResult;

/* Be the one that waits for the worker, or wait for the one that does. */
static WorkerResult
await_worker(EsLog *log, const Order *order)
{
	uint32		nobody = 0;
	BackgroundWorkerHandle *handle;
	bool		started = false;

	if (pg_atomic_compare_exchange_u32(&log->chunk_worker, &nobody, 1))
	{
		PG_ENSURE_ERROR_CLEANUP(release_worker, PointerGetDatum(log));
		{
			started = start_worker(order, &handle);
			if (started &&
				WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
				proc_exit(1);
		}
		PG_END_ENSURE_ERROR_CLEANUP(release_worker, PointerGetDatum(log));
		release_worker(0, PointerGetDatum(log));
		return started ? WORKER_ENDED : NO_WORKER;
	}

	ConditionVariablePrepareToSleep(&log->chunk_worker_done);
	while (pg_atomic_read_u32(&log->chunk_worker) != 0)
		ConditionVariableSleep(&log->chunk_worker_done, worker_wait_event());
	ConditionVariableCancelSleep();
	return WORKER_OF_OTHERS_ENDED;
}

/* A pause before the next try to get a slot. */
static void
wait_for_slot(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 SLOT_WAIT_MS, worker_wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Can no worker do it: because the parent was created by this very transaction
 * and no other sees it, or because this transaction has it locked?
 */
static bool
parent_is_mine(EsChunkKind kind)
{
	Relation	rel = table_open(EsChunkParent(kind), AccessShareLock);
	bool		mine = rel->rd_createSubid != InvalidSubTransactionId ||
		CheckRelationLockedByMe(rel, ShareUpdateExclusiveLock, true);

	table_close(rel, AccessShareLock);
	return mine;
}

/* Carry an order out and wait for it; the number of chunks made is not known. */
static void
carry_out(EsLog *log, Order *order)
{
	int			failures = 0;
	int			slot_tries = max_worker_processes > 0 ? SLOT_TRIES : 0;

	AcceptInvalidationMessages();
	if (!unfinished(log, order))
		return;
	lock_extension();
	while (failures < FAILURES_MAX)
	{
		AcceptInvalidationMessages();
		if (!unfinished(log, order))
			return;
		if (parent_is_mine(order->kind))
			break;
		switch (await_worker(log, order))
		{
			case WORKER_ENDED:
				failures++;
				break;
			case WORKER_OF_OTHERS_ENDED:
				break;
			case NO_WORKER:
				if (slot_tries-- <= 0)
					failures = FAILURES_MAX;
				else
					wait_for_slot();
				break;
		}
	}
	AcceptInvalidationMessages();
	make_here(order);
}

/* Make sure that there are chunks for all positions from first to last, and that they may be written to. */
void
EsChunkEnsure(EsChunkKind kind, EsPosition first, EsPosition last)
{
	Order		order = {MyDatabaseId, kind, first, last, EsChunkSize(kind), 0, true, false};
	EsPosition	position = first;
	int			beyond = 0;

	EsChunkCheckParent(kind);
	if (next_missing(&order, &position, &beyond))
		carry_out(EsLogGet(), &order);
}

/* Make sure that there is an incarnation that new positions belong to. */
void
EsIncarnationEnsure(EsLog *log)
{
	Order		order = {MyDatabaseId, ES_CHUNK_EVENTS, 0, 0, 0, 0, true, true};

	carry_out(log, &order);
}

/* How many chunks ahead, by the time since they were last asked for. */
static int
chunks_ahead(EsLog *log, EsChunkKind kind)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = (TimestampTz) pg_atomic_exchange_u64(&log->chunk_asked_at[kind], (uint64) now);
	int64		seconds = (now - last) / USECS_PER_SEC;

	if (last == 0 || seconds >= AHEAD_SECONDS / AHEAD_MIN)
		return AHEAD_MIN;
	return Min(AHEAD_MAX, (int) (AHEAD_SECONDS / Max(seconds, 1)));
}

/* May a worker be started to make chunks ahead?  Not while one is at it. */
static bool
claim_ahead(EsLog *log, EsChunkKind kind)
{
	uint64		now = (uint64) GetCurrentTimestamp();
	uint64		until = pg_atomic_read_u64(&log->chunk_ahead_until[kind]);

	return until < now &&
		pg_atomic_compare_exchange_u64(&log->chunk_ahead_until[kind], &until, now + AHEAD_TIMEOUT);
}

/* Ask for the chunks after a position, and have the mark moved from its value to the next. */
static bool
ask_ahead(EsLog *log, EsChunkKind kind, EsPosition position, uint64 mark, uint64 next)
{
	Order		order = {MyDatabaseId, kind, position, position, EsChunkSize(kind), 0, false, false};

	if (parent_is_mine(kind) ||
		!pg_atomic_compare_exchange_u64(&log->chunk_mark[kind], &mark, next))
		return false;
	order.ahead = chunks_ahead(log, kind);
	if (start_worker(&order, NULL))
		return true;
	pg_atomic_compare_exchange_u64(&log->chunk_mark[kind], &next, position);
	return false;
}

/*
 * A position of this chunk was drawn: once somebody is past its middle, ask for
 * the next chunks and do not wait.  The mark in shared memory sees to it that
 * one backend asks.  It moves only when a worker was started for it: while one
 * is still at an older order, or where none can be had, the next append asks
 * again.
 */
void
EsChunkAhead(EsChunkKind kind, const EsChunk *chunk, EsPosition position)
{
	EsLog	   *log = EsLogGet();
	uint64		mark = pg_atomic_read_u64(&log->chunk_mark[kind]);
	EsPosition	size = chunk->upper - chunk->lower;
	EsPosition	middle = chunk->lower + size / 2;

	if (position < mark)
		return;
	if (position < middle)
		pg_atomic_compare_exchange_u64(&log->chunk_mark[kind], &mark, middle);
	else if (claim_ahead(log, kind) &&
			 !ask_ahead(log, kind, position, mark, chunk->upper + size / 2))
		pg_atomic_write_u64(&log->chunk_ahead_until[kind], 0);
}

/* An inbox that nobody uses needs no chunks. */
static bool
is_in_use(EsChunkKind kind)
{
	return kind != ES_CHUNK_INBOX || EsChunkCount(kind) > 0;
}

/* Chunks for the next positions, on request. */
Datum
es_prepare_chunks(PG_FUNCTION_ARGS)
{
	int32		ahead = PG_ARGISNULL(0) ? AHEAD_MIN : PG_GETARG_INT32(0);
	int			made = 0;

	EsRequirePrimary();
	PreventCommandIfReadOnly("es_prepare_chunks()");
	if (ahead < 0 || ahead > 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of chunks ahead must be between 0 and 1000")));
	for (int kind = 0; kind < ES_CHUNK_KINDS; kind++)
	{
		EsPosition	next = EsChunkNow(kind) + 1;
		Order		order = {MyDatabaseId, kind, next, next, EsChunkSize(kind), ahead, true, false};

		if (!is_in_use(kind))
			continue;
		made -= EsChunkCount(kind);
		carry_out(EsLogGet(), &order);
		made += EsChunkCount(kind);
	}
	PG_RETURN_INT32(made);
}

/* A chunk by the name that it was made under. */
typedef struct ChunkName
{
	EsChunkKind kind;
	EsPosition	lower;
} ChunkName;

static ChunkName
parse_chunk_name(const char *name)
{
	const char *rest = strncmp(name, "es_chunks.", 10) == 0 ? name + 10 : name;

	for (int kind = 0; kind < ES_CHUNK_KINDS; kind++)
	{
		size_t		length = strlen(parent_names[kind]);
		const char *digits = rest + length + 1;

		if (strncmp(rest, parent_names[kind], length) == 0 && rest[length] == '_' &&
			strlen(digits) == strspn(digits, "0123456789") && strlen(digits) >= 1 && strlen(digits) <= 18)
			return (ChunkName) {kind, strtou64(digits, NULL, 10)};
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not the name of a chunk", name),
			 errdetail("A chunk is called \"es_events_\", \"es_outbox_\" or \"es_inbox_\" and its lowest position or time.")));
}

static int
higher_first(const void *a, const void *b)
{
	EsPosition	one = ((const ChunkName *) a)->lower;
	EsPosition	other = ((const ChunkName *) b)->lower;

	return one < other ? 1 : one > other ? -1 : 0;
}

/* The chunk names of an array argument, the highest first. */
static ChunkName *
take_chunk_names(ArrayType *array, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	ChunkName  *names;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	names = palloc(sizeof(ChunkName) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("chunk names must not contain nulls")));
		names[i] = parse_chunk_name(TextDatumGetCString(values[i]));
	}
	qsort(names, *n, sizeof(ChunkName), higher_first);
	return names;
}

/*
 * Make the chunk of this name, up to where the next one begins; where there is
 * none, as far as its size says.  False when it is there.
 */
static bool
restore_chunk(ChunkName name)
{
	EsPosition	size = EsChunkSize(name.kind);
	EsPosition	upper = Min(name.lower - name.lower % size + size, POSITIONS_END);
	EsChunk		chunk;

	lock_parent(name.kind);
	if (EsChunkFindNext(name.kind, name.lower, &chunk))
	{
		if (chunk.lower == name.lower)
			return false;
		if (chunk.lower < name.lower)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is a chunk over the range of \"%s_" UINT64_FORMAT "\" already",
							parent_names[name.kind], name.lower),
					 errdetail("It begins at " UINT64_FORMAT ".", chunk.lower),
					 errhint("Restore data into an empty installation.")));
		upper = chunk.lower;
	}
	make_range(name.kind, name.lower, upper);
	return true;
}

/*
 * The chunks that a dump of data alone copies into, by their names.  The dump
 * brings the incarnation, so none begins here.
 */
Datum
es_restore_chunks(PG_FUNCTION_ARGS)
{
	ChunkName  *names;
	int			n;
	int			made = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("chunk names must not be null")));
	EsRequirePrimary();
	PreventCommandIfReadOnly("es_restore_chunks()");
	lock_extension();
	names = take_chunk_names(PG_GETARG_ARRAYTYPE_P(0), &n);
	for (int i = 0; i < n; i++)
	{
		if (restore_chunk(names[i]))
			made++;
	}
	PG_RETURN_INT32(made);
}
