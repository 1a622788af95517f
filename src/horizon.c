/*
 * horizon.c
 *		Positions in one order, and the horizon below which nothing will ever
 *		appear any more.
 *
 * The trouble: positions are drawn in one order and become visible in another,
 * so a reader that remembers the last position it saw skips the event of a
 * slower transaction.  Here every writer registers a lower bound of its
 * positions before it draws, and a reader stops below the lowest bound.
 *
 *		A writer	(a) publishes the counter's present value + 1 as its bound,
 *					(b) full barrier, (c) draws, (d) raises the bound to what it
 *					drew.  At COMMIT and ABORT, both of which PostgreSQL calls
 *					after the effects are visible or gone, it clears the bound.
 *		A reader	(z) full barrier, (a) reads the counter, (b) full barrier,
 *					(c) scans the bounds;
 *					horizon = min(counter, lowest bound - 1); then, and not
 *					before, it takes its snapshot.
 *
 * Step (z) is for who looks after asking to be woken: the wish is to be seen by
 * whoever draws after (a).  No atomic operation is taken for a barrier here: on
 * aarch64 without LSE a store before a compare-and-exchange and a load after it
 * may change places.
 *
 * Whatever was drawn before the reader's (a) had its bound published before
 * that, so the scan meets the bound, or finds it cleared and the snapshot sees
 * the event.  There is no lock in it: nobody waits for a slow writer, and
 * nobody's DDL can deadlock with it.
 *
 * The counter is not a sequence: nextval would change the user's lastval() and
 * is a contended buffer.  A sequence holds the durable bound of the counter: a
 * block is reserved by moving the sequence ahead and flushing that WAL, before
 * any position of the block is drawn; after a crash the counter goes on from
 * the sequence.  So no position that anyone saw is ever drawn again.
 *
 * A bound can be lower than a horizon that was handed out: of a writer that read
 * the counter long before it published.  It draws above that horizon all the
 * same, and what was a horizon once remains one; so the highest is kept, and
 * readers never see it fall.
 *
 * Whoever needs a new block first locks the sequence as setval would, and only
 * then competes to be the one who reserves: so a writer never holds the latter
 * while it waits for somebody's ALTER SEQUENCE, which could wait for it in turn
 * where no deadlock detector looks.
 *
 * A transaction is in the registry for as long as something of it may become
 * visible.  So it leaves when the subtransaction that drew its first position is
 * rolled back: whatever was drawn later was drawn inside that one, and the rows
 * carry its xid or those of its children, all of which are marked aborted before
 * the callback is called.  This rests on one rule: who draws a position writes
 * its row in the same subtransaction.  The next draw registers anew.
 *
 * Only one kind of open transaction can hold readers back for long unnoticed:
 * one that has drawn and sits idle.  es_pg.idle_writer_timeout ends it by the
 * server's own means, as a SET LOCAL of idle_in_transaction_session_timeout
 * right before the first draw: so a rollback to a savepoint takes both back, the
 * entry and the limit, or neither.
 *
 * An event of an asynchronous commit is visible before it is durable.  The
 * writer leaves the end of its commit record in shared memory before it clears
 * its bound, and EsHorizonRead flushes up to there: what is handed to a
 * consumer cannot be taken back by a crash of this server.
 */
#include "horizon.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/sequence.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"

#define RESERVE_BLOCK	32768	/* positions reserved ahead by one flush */
#define POSITION_MAX	((EsPosition) PG_INT64_MAX - 1)	/* a chunk's upper bound lies above it */

PG_FUNCTION_INFO_V1(es_horizon);
PG_FUNCTION_INFO_V1(es_last_position);
PG_FUNCTION_INFO_V1(es_writers);

/* The log that this transaction has drawn from, and this backend's entry. */
static EsLog *writing = NULL;
static Oid	writing_sequence = InvalidOid;
static EsWriter *my_entry = NULL;

/* The subtransaction that the first draw belongs to: it, or a child now committed, made it. */
static SubTransactionId writing_since = InvalidSubTransactionId;

/* The log in which this process, a worker, lets nobody reserve. */
static EsLog *held = NULL;

static int	idle_writer_timeout = 0;

/* Wait event, looked up at its first use. */
static uint32
reserve_wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsPositionReserve");
	return event;
}

void
EsRequirePrimary(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot do this to the event log on a standby"),
				 errhint("Do it on the primary. Streams, and the log up to the newest mark of the primary, can be read here too.")));
}

/* Have the server end this session if it sits idle before its transaction has ended. */
static void
limit_idleness(void)
{
	char		limit[16];

	if (idle_writer_timeout == 0 ||
		(IdleInTransactionSessionTimeout > 0 && IdleInTransactionSessionTimeout <= idle_writer_timeout))
		return;
	snprintf(limit, sizeof(limit), "%d", idle_writer_timeout);
	(void) set_config_option("idle_in_transaction_session_timeout", limit, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Enter this transaction into the registry: steps (a) and (b). */
static void
register_writer(EsLog *log)
{
	if (writing == log && writing_sequence == log->sequence)
		return;
	if (writing != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot write to a new installation of es_pg in a transaction that wrote to the old one"),
				 errhint("Commit first.")));
	limit_idleness();

	my_entry = EsWriterAt(EsProcNumber());
	writing = log;
	writing_sequence = log->sequence;
	writing_since = GetCurrentSubTransactionId();
	pg_atomic_write_u32(&my_entry->log, EsLogNumber(log));
	pg_write_barrier();
	pg_atomic_write_u64(&my_entry->bound, pg_atomic_read_u64(&log->drawn) + 1);
	ES_DEBUG_BREAK(bound_after_draw, pg_atomic_write_u64(&my_entry->bound, 0));
	pg_memory_barrier();
}

/* Set the sequence as its owner, and make that durable. */
void
EsBoundMove(Oid sequence, EsPosition bound)
{
	Relation	rel = try_relation_open(sequence, RowExclusiveLock);
	Oid			owner;
	Oid			user;
	int			context;

	if (rel == NULL)
		EsRefuseDropped();
	owner = rel->rd_rel->relowner;
	if (EsRelationIsRewritten(rel))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot append after altering sequence \"%s\" in the same transaction",
						RelationGetRelationName(rel)),
				 errhint("Commit first.")));
	relation_close(rel, NoLock);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	DirectFunctionCall2(setval_oid, ObjectIdGetDatum(sequence), Int64GetDatum((int64) bound));
	SetUserIdAndSecContext(user, context);
	ES_DEBUG_BREAK(bound_not_flushed, return);
	XLogFlush(XactLastRecEnd);
}

/*
 * The counter goes on from a position that the sequence was set to.  The caller
 * is the one who reserves.  The counter goes first: were the bound first, others
 * would draw positions that the restored events have, or that the new incarnation
 * leaves out.
 */
static void
go_on_from(EsLog *log, EsPosition position)
{
	EsPosition	drawn = pg_atomic_read_u64(&log->drawn);

	pg_atomic_write_u32(&log->in_order, 0);
	while (drawn < position && !pg_atomic_compare_exchange_u64(&log->drawn, &drawn, position))
		;
	ES_DEBUG_POINT(adopting);
	pg_write_barrier();
	pg_atomic_write_u64(&log->reserved, position);
}

/* A sequence that is ahead of shared memory was set by a restore or by a new incarnation. */
static void
adopt_sequence(EsLog *log)
{
	EsPosition	stored = EsBoundRead(log->sequence);

	if (stored > pg_atomic_read_u64(&log->reserved))
		go_on_from(log, stored);
}

/* Reserve a block that has room for n more positions. */
static void
reserve_block(EsLog *log, uint32 n)
{
	EsPosition	bound = pg_atomic_read_u64(&log->reserved);

	if (bound >= POSITION_MAX)
		return;
	bound += Min((EsPosition) n + RESERVE_BLOCK, POSITION_MAX - bound);
	ES_DEBUG_BREAK(small_blocks, bound = pg_atomic_read_u64(&log->reserved) + n + 10);
	EsBoundMove(log->sequence, bound);
	pg_atomic_write_u64(&log->reserved, bound);
}

/* Is there no room for n more positions? */
static bool
exhausted(EsLog *log, uint32 n)
{
	return pg_atomic_read_u64(&log->drawn) + n > pg_atomic_read_u64(&log->reserved);
}

/* Let the next one reserve; also on error and at exit. */
static void
stop_reserving(int code, Datum arg)
{
	EsLog	   *log = (EsLog *) DatumGetPointer(arg);

	pg_memory_barrier();		/* the next one sees what this one did */
	pg_atomic_write_u32(&log->reserving, 0);
	ConditionVariableBroadcast(&log->reserved_moved);
}

/*
 * Be the one who reserves: take in what the sequence says, then see to it that
 * there is room for n more positions.  False: another one is at it.
 */
static bool
try_reserve(EsLog *log, uint32 n)
{
	uint32		nobody = 0;

	if (!pg_atomic_compare_exchange_u32(&log->reserving, &nobody, 1))
		return false;
	PG_ENSURE_ERROR_CLEANUP(stop_reserving, PointerGetDatum(log));
	{
		adopt_sequence(log);
		if (exhausted(log, n))
			reserve_block(log, n);
	}
	PG_END_ENSURE_ERROR_CLEANUP(stop_reserving, PointerGetDatum(log));
	stop_reserving(0, PointerGetDatum(log));
	return true;
}

/* Wait until nobody reserves. */
static void
await_reserver(EsLog *log)
{
	ConditionVariablePrepareToSleep(&log->reserved_moved);
	while (pg_atomic_read_u32(&log->reserving) != 0)
		ConditionVariableSleep(&log->reserved_moved, reserve_wait_event());
	ConditionVariableCancelSleep();
}

/* Wait until the bound has moved, or move it; the log must be fit for more. */
static void
reserve(EsLog *log, uint32 n)
{
	EsIncarnationEnsure(log);
	LockRelationOid(log->sequence, RowExclusiveLock);
	if (!try_reserve(log, n))
		await_reserver(log);
}

/*
 * Before anything is reserved, look whether a restore has set the sequence since
 * this log was first used: readers and head probes go by the counter.  Nobody
 * waits here for one who alters the sequence.
 */
void
EsHorizonCatchUp(EsLog *log)
{
	if (pg_atomic_read_u64(&log->drawn) < pg_atomic_read_u64(&log->reserved) ||
		!ConditionalLockRelationOid(log->sequence, AccessShareLock))
		return;
	(void) try_reserve(log, 0);
	UnlockRelationOid(log->sequence, AccessShareLock);
}

/* For a worker: let nobody reserve until EsReservingEnd, or its end. */
void
EsReservingBegin(EsLog *log)
{
	uint32		nobody = 0;

	while (!pg_atomic_compare_exchange_u32(&log->reserving, &nobody, 1))
	{
		await_reserver(log);
		nobody = 0;
	}
	held = log;
	before_shmem_exit(stop_reserving, PointerGetDatum(log));
}

/* And go on from a position that the sequence was moved to; 0: from where it was. */
void
EsReservingEnd(EsPosition position)
{
	if (position > 0)
		go_on_from(held, position);
	cancel_before_shmem_exit(stop_reserving, PointerGetDatum(held));
	stop_reserving(0, PointerGetDatum(held));
	held = NULL;
}

/* Draw n consecutive positions and return the first; step (c). */
static EsPosition
draw(EsLog *log, uint32 n)
{
	EsPosition	drawn;

	for (;;)
	{
		drawn = pg_atomic_read_u64(&log->drawn);
		if (drawn > POSITION_MAX - n)
			ereport(ERROR,
					(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
					 errmsg("the event log has no positions left")));
		if (drawn + n > pg_atomic_read_u64(&log->reserved))
			reserve(log, n);
		else if (pg_atomic_compare_exchange_u64(&log->drawn, &drawn, drawn + n))
			break;
	}
	return drawn + 1;
}

/*
 * Draw n consecutive positions and return the first.  The transaction is in
 * the registry from here to its end.
 */
EsPosition
EsPositionsDraw(uint32 n)
{
	EsLog	   *log = EsLogGet();
	bool		first = writing == NULL;
	EsPosition	position;

	if (first && pg_atomic_read_u32(&log->in_order) == 0)
		EsIncarnationEnsure(log);
	register_writer(log);
	position = draw(log, n);
	ES_DEBUG_POINT(position_drawn);
	if (first)
		pg_atomic_write_u64(&my_entry->bound, position);
	return position;
}

/*
 * Take a position that nothing will ever be written at: a number that no crash
 * and no rollback gives to anyone else.  Nobody waits for it, so the registry
 * need not know.
 */
EsPosition
EsPositionTake(void)
{
	EsLog	   *log = EsLogGet();

	if (pg_atomic_read_u32(&log->in_order) == 0)
		EsIncarnationEnsure(log);
	return draw(log, 1);
}

/*
 * Let nobody draw a position up to "last" any more.  Whoever draws at the same
 * time either was first, or draws above.  What is left out never had a row and
 * never will have one, so readers may pass it at once: the mover need not be in
 * the registry.  It is reserved like any position, so a crash does not go back.
 */
void
EsPositionsSkip(EsPosition last)
{
	EsLog	   *log = EsLogGet();
	EsPosition	drawn;

	if (pg_atomic_read_u32(&log->in_order) == 0)
		EsIncarnationEnsure(log);
	drawn = pg_atomic_read_u64(&log->drawn);
	while (drawn < last)
	{
		if (last > pg_atomic_read_u64(&log->reserved))
		{
			reserve(log, last - drawn);
			drawn = pg_atomic_read_u64(&log->drawn);
		}
		else if (pg_atomic_compare_exchange_u64(&log->drawn, &drawn, last))
			break;
	}
}

/* The last position drawn by anyone. */
EsPosition
EsPositionLast(void)
{
	return pg_atomic_read_u64(&EsLogGet()->drawn);
}

/* Has this transaction drawn positions? */
bool
EsHorizonWriting(void)
{
	return writing != NULL;
}

/*
 * The horizon.  The caller takes its snapshot after this, never before: the
 * other order loses events.
 */
EsPosition
EsHorizonRead(EsLog *log)
{
	uint32		number = EsLogNumber(log);
	uint32		n = EsWriterCount();
	EsPosition	horizon;
	EsPosition	highest;
	XLogRecPtr	unflushed;

	pg_memory_barrier();
	horizon = pg_atomic_read_u64(&log->drawn);
	pg_memory_barrier();
	for (uint32 i = 0; i < n; i++)
	{
		EsWriter   *writer = EsWriterAt(i);
		EsPosition	bound = pg_atomic_read_u64(&writer->bound);

		if (bound == 0 || bound > horizon)
			continue;
		pg_read_barrier();
		if (pg_atomic_read_u32(&writer->log) == number)
			horizon = bound - 1;
	}

	pg_read_barrier();
	unflushed = pg_atomic_read_u64(&log->unflushed);
	ES_DEBUG_BREAK(commit_not_flushed, unflushed = InvalidXLogRecPtr);
	if (unflushed != InvalidXLogRecPtr)
		XLogFlush(unflushed);

	highest = pg_atomic_read_u64(&log->horizon);
	while (highest < horizon &&
		   !pg_atomic_compare_exchange_u64(&log->horizon, &highest, horizon))
		;
	return Max(highest, horizon);
}

/* Tell readers how far WAL must be flushed before they hand this commit out. */
static void
note_asynchronous_commit(EsLog *log)
{
	uint64		noted = pg_atomic_read_u64(&log->unflushed);

	while (noted < XactLastCommitEnd &&
		   !pg_atomic_compare_exchange_u64(&log->unflushed, &noted, XactLastCommitEnd))
		;
}

/* Leave the registry, and wake who waits for that. */
static void
end_writing(bool committed)
{
	EsLog	   *log = writing;

	if (committed && synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
		note_asynchronous_commit(log);
	pg_memory_barrier();
	pg_atomic_write_u64(&my_entry->bound, 0);
	writing = NULL;
	EsWakeAfterEnd(log, committed);
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (writing == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			EsWakeBeforeCommit(writing);
			ES_DEBUG_BREAK(entry_cleared_early, pg_atomic_write_u64(&my_entry->bound, 0));
			ES_DEBUG_POINT(before_commit);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has written to the event log"),
					 errdetail("A prepared transaction could hold all ordered readers back, for ever and unseen.")));
			break;
		case XACT_EVENT_COMMIT:
			end_writing(true);
			break;
		case XACT_EVENT_ABORT:
			end_writing(false);
			break;
		default:
			break;
	}
}

/* The first draw becomes the parent's, or is taken back and with it all later ones. */
static void
at_subtransaction_event(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	if (writing == NULL || subid != writing_since)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		writing_since = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		end_writing(false);
}

void
EsHorizonInit(void)
{
	DefineCustomIntVariable("es_pg.idle_writer_timeout",
							"Ends a session that sits idle for so long in a transaction in which it has appended.",
							"At a transaction's first append this becomes its idle_in_transaction_session_timeout, "
							"if that is longer or off. 0 turns it off.",
							&idle_writer_timeout, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	EsShmemInit();
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}

Datum
es_horizon(PG_FUNCTION_ARGS)
{
	if (RecoveryInProgress())
		PG_RETURN_INT64((int64) EsMarkRead(GetActiveSnapshot()));
	PG_RETURN_INT64((int64) EsHorizonRead(EsLogGet()));
}

Datum
es_last_position(PG_FUNCTION_ARGS)
{
	EsRequirePrimary();
	PG_RETURN_INT64((int64) EsPositionLast());
}

Datum
es_writers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint32		number;

	EsRequirePrimary();
	number = EsLogNumber(EsLogGet());
	InitMaterializedSRF(fcinfo, 0);
	for (uint32 i = 0; i < EsWriterCount(); i++)
	{
		EsWriter   *writer = EsWriterAt(i);
		EsPosition	bound = pg_atomic_read_u64(&writer->bound);
		Datum		values[2];
		bool		nulls[2] = {false};

		if (bound == 0 || pg_atomic_read_u32(&writer->log) != number)
			continue;
		values[0] = Int32GetDatum(ProcGlobal->allProcs[i].pid);
		values[1] = Int64GetDatum((int64) bound);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
