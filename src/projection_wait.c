/*
 * projection_wait.c
 *		Waiting until a projection or subscription has passed a position, and
 *		telling those who watch a projection that it moved.
 *
 * A reader has passed a position when each of its lanes has: its cursor is there,
 * or all that it was handed is acknowledged and the last fetch has looked that far
 * and found nothing more for it.  Whoever moves a cursor or looks further
 * broadcasts a condition variable when his transaction has ended, if anyone waits.
 *
 * Watching is armed like the wake-up of readers (horizon_wake.c): a watcher sets
 * a bit, and the next commit that moves the projection takes it and notifies, so
 * that there is one notification however often it moves.  Projections whose
 * numbers are the same modulo 64 share a bit; so a watcher arms again after any
 * notification on the channel, and looks after arming.
 */
#include "projection.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(es_wait_for);
PG_FUNCTION_INFO_V1(es_watch_projection);

#define CHANNEL			"es_projection"
#define LOOK_AGAIN_MS	1000	/* a sleeper looks after so long at most */
#define TIMEOUT_DEFAULT	(5 * USECS_PER_SEC)

static EsStatement read_lanes = {
	"SELECT s.subscription_id, c.lane, c.epoch, c.\"position\", s.state = 'active' AND COALESCE(p.state, 'active') = 'active'"
	" FROM @.es_subscriptions AS s JOIN @.es_lane_cursors AS c USING (subscription_id)"
	" LEFT JOIN @.es_projections AS p ON p.name = s.name AND p.live WHERE s.name = $1", 1, {TEXTOID}
};

/* Where a reader is. */
typedef struct Progress
{
	bool		exists;
	bool		active;
	EsPosition	passed;			/* all of its lanes have passed this */
} Progress;

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsProjectionPassed");
	return event;
}

static bool
is_inline(const char *name)
{
	ListCell   *cell;

	foreach(cell, EsProjectionsGet())
	{
		const EsProjection *projection = lfirst(cell);

		if (projection->is_inline && strcmp(projection->name, name) == 0)
			return true;
	}
	return false;
}

static int64
number(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT8OID ? DatumGetInt64(value) : DatumGetInt32(value);
}

/* How far a lane is: its cursor, or where the last fetch looked if all before that is acknowledged. */
static EsPosition
lane_passed(uint64 row)
{
	EsPosition	cursor = (EsPosition) number(row, 4);
	EsLaneNote	note;

	if (EsLaneNoteRead((int32) number(row, 1), (int32) number(row, 2), number(row, 3), &note) && note.handed <= cursor)
		return Max(cursor, note.looked);
	return cursor;
}

static Progress
read_progress(const char *name)
{
	Progress	progress = {false, true, PG_INT64_MAX};
	Datum		args[] = {CStringGetTextDatum(name)};
	uint64		n;
	bool		isnull;

	SPI_connect();
	n = EsStatementRun(&read_lanes, args, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		progress.exists = true;
		progress.active &= DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 5, &isnull));
		progress.passed = Min(progress.passed, lane_passed(i));
	}
	SPI_finish();
	return progress;
}

/* Sleep until it may have passed, at most so long. */
static void
sleep_for(EsLog *log, bool on_horizon, EsPosition position, TimestampTz until)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	if (on_horizon)
		(void) EsWakeWait(log, position - 1, pg_atomic_read_u64(&log->lane_news), until, wait_event());
	else
		ConditionVariableTimedSleep(&log->passed, Min(left, LOOK_AGAIN_MS), wait_event());
	EsWakeCheckClient();
}

static bool
wait_until(const char *name, EsPosition position, TimestampTz until)
{
	EsLog	   *log = EsLogGet();
	bool		passed = false;

	ConditionVariablePrepareToSleep(&log->passed);
	while (!passed)
	{
		bool		on_horizon;
		Progress	progress;

		AcceptInvalidationMessages();
		on_horizon = is_inline(name);
		if (on_horizon)
			progress = (Progress) {true, true, EsHorizonRead(log)};
		else
			progress = read_progress(name);
		if (!progress.exists)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no projection or subscription \"%s\"", name)));
		passed = progress.passed >= position;
		if (passed || !progress.active || GetCurrentTimestamp() >= until)
			break;
		sleep_for(log, on_horizon, position, until);
	}
	ConditionVariableCancelSleep();
	return passed;
}

static TimestampTz
argument_until(FunctionCallInfo fcinfo, int arg)
{
	Interval   *timeout = PG_ARGISNULL(arg) ? NULL : PG_GETARG_INTERVAL_P(arg);
	int64		usecs = timeout ? timeout->time + timeout->day * USECS_PER_DAY : TIMEOUT_DEFAULT;

	if (usecs < 0 || usecs > USECS_PER_DAY || (timeout && timeout->month != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be between 0 and 1 day")));
	return GetCurrentTimestamp() + usecs;
}

/* What it waits for could not come, or not be seen. */
static void
check_transaction(void)
{
	if (EsHorizonWriting())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a projection in a transaction that has appended"),
				 errdetail("Nobody sees its events before it commits."),
				 errhint("Commit first.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a projection in a transaction whose snapshot stays"),
				 errdetail("It would not see what the projection wrote."),
				 errhint("Use READ COMMITTED.")));
}

/* es_wait_for(name, position, timeout) */
Datum
es_wait_for(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "projection name");

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("position must not be null")));
	if (PG_GETARG_INT64(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid position " INT64_FORMAT, PG_GETARG_INT64(1))));
	EsRequirePrimary();
	check_transaction();
	PG_RETURN_BOOL(wait_until(text_to_cstring(name), (EsPosition) PG_GETARG_INT64(1), argument_until(fcinfo, 2)));
}

/* ---------------------------------------------------------------- watching */

static List *moved = NIL;		/* names of projections that this transaction moved, in its memory */
static uint64 moved_bits = 0;
static uint64 taken_bits = 0;

static uint64
bit_of(int32 id)
{
	return UINT64CONST(1) << (id % 64);
}

/* This transaction has moved a projection on; whoever watches it is told when it commits. */
void
EsProjectionMoved(const EsProjection *projection)
{
	MemoryContext old;
	ListCell   *cell;

	if (!projection->live)
		return;
	moved_bits |= bit_of(projection->id);
	foreach(cell, moved)
	{
		if (strcmp(lfirst(cell), projection->name) == 0)
			return;
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	moved = lappend(moved, pstrdup(projection->name));
	MemoryContextSwitchTo(old);
}

static void
notify_watchers(EsLog *log)
{
	ListCell   *cell;

	if ((pg_atomic_read_u64(&log->watched) & moved_bits) == 0)
		return;
	taken_bits = pg_atomic_fetch_and_u64(&log->watched, ~moved_bits) & moved_bits;
	foreach(cell, moved)
		Async_Notify(CHANNEL, lfirst(cell));
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (moved_bits == 0)
		return;
	if (event == XACT_EVENT_PRE_COMMIT)
	{
		notify_watchers(EsLogCurrent());
		return;
	}
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_ABORT && taken_bits != 0)
		pg_atomic_fetch_or_u64(&EsLogCurrent()->watched, taken_bits);
	moved = NIL;
	moved_bits = taken_bits = 0;
}

void
EsProjectionWaitInit(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
}

/* es_watch_projection(name) */
Datum
es_watch_projection(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(EsArgName(fcinfo, 0, "projection name"));
	ListCell   *cell;

	EsRequirePrimary();
	foreach(cell, EsProjectionsGet())
	{
		const EsProjection *projection = lfirst(cell);
		EsLog	   *log = EsLogGet();

		if (!projection->live || strcmp(projection->name, name) != 0)
			continue;
		pg_atomic_fetch_or_u64(&log->watched, bit_of(projection->id));
		pg_memory_barrier();
		PG_RETURN_INT64((int64) (projection->is_inline ? EsHorizonRead(log) : read_progress(name).passed));
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("projection \"%s\" does not exist", name)));
}
