/*
 * subscription.c
 *		Handing events to named readers: fetch and acknowledge.
 *
 * A subscription never marks rows.  Its state is a cursor: the highest (epoch,
 * position) in es_cursors, found by one backward probe.  An acknowledgement
 * inserts a row and updates none, so a held snapshot elsewhere costs nothing;
 * es_maintain() deletes what newer rows replaced.
 *
 * A fetch is an ordered read from the cursor to the horizon.  It writes
 * nothing, but where a long stretch holds nothing that the filter wants: there
 * it moves the cursor itself, so that no later fetch looks through it again.
 *
 * In this first form a subscription has one lane, number 0, in epoch 0.
 */
#include "stream.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"
#include "privilege.h"

PG_FUNCTION_INFO_V1(es_fetch);
PG_FUNCTION_INFO_V1(es_ack);

#define LANE			0
#define EPOCH			0
#define WAIT_MAX		INT64CONST(30000000)	/* microseconds */
#define WAIT_MARGIN_MS	100		/* before a statement_timeout */
#define SKIP_MIN		10000	/* positions without a match that move the cursor */

/* Columns of es_subscriptions and es_cursors. */
enum
{
	Anum_es_subscriptions_id = 1,
	Anum_es_subscriptions_name,
	Anum_es_subscriptions_source,
	Anum_es_subscriptions_categories,
	Anum_es_subscriptions_types
};

enum
{
	Anum_es_cursors_subscription_id = 1,
	Anum_es_cursors_lane,
	Anum_es_cursors_epoch,
	Anum_es_cursors_position
};

#define Natts_es_cursors	Anum_es_cursors_position
#define Natts_es_delivery	18

typedef struct Subscription
{
	int32		id;
	EsFilter	filter;
	EsPosition	cursor;
} Subscription;

/* A fetch that collects rows for its caller. */
typedef struct Delivery
{
	ReturnSetInfo *result;
	EsLives		lives;
	EsPosition	cursor;			/* of the subscription at the last look */
	int64		left;
} Delivery;

/* Where a subscription's lane is. */
static EsPosition
read_cursor(int32 id, Snapshot snapshot)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->cursors, AccessShareLock);
	Relation	index = index_open(EsCatalogGet()->cursors_pkey, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ScanKeyData keys[2];
	EsPosition	position = 0;
	bool		isnull;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(LANE));
	if (EsIndexProbe(rel, index, snapshot, keys, 2, BackwardScanDirection, slot))
		position = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_cursors_position, &isnull));
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
	return position;
}

static ArrayType *
array_or_null(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

/*
 * A subscription by name, and where it is.  With "lock", its row is locked to
 * the end of the transaction, so that its cursor moves in one transaction at a
 * time.
 */
static void
read_subscription(const text *name, Snapshot snapshot, bool lock, Subscription *subscription)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->subscriptions, lock ? RowExclusiveLock : AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		isnull;

	if (!EsNameProbe(rel, EsCatalogGet()->subscriptions_name_key, name, snapshot, slot, NULL) ||
		(lock && !EsRowLock(rel, slot)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Use es_create_subscription.")));
	subscription->id = DatumGetInt32(slot_getattr(slot, Anum_es_subscriptions_id, &isnull));
	EsFilterSet(&subscription->filter,
				array_or_null(slot, Anum_es_subscriptions_categories),
				array_or_null(slot, Anum_es_subscriptions_types));
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	subscription->cursor = read_cursor(subscription->id, snapshot);
}

/* Move a locked subscription's lane; a place that it has reached already is no news. */
static void
move_cursor(const Subscription *subscription, EsPosition position)
{
	Datum		values[Natts_es_cursors] = {
		Int32GetDatum(subscription->id),
		Int32GetDatum(LANE),
		Int64GetDatum(EPOCH),
		Int64GetDatum((int64) position)
	};
	bool		nulls[Natts_es_cursors] = {false};

	if (position > subscription->cursor)
		EsInsertRow(EsCatalogGet()->cursors, Natts_es_cursors, values, nulls);
}

/* An event's row of es_delivery. */
static bool
deliver(TupleTableSlot *slot, const text *stream, void *arg)
{
	/* es_delivery's columns as columns of es_events; 0 is something else */
	static const AttrNumber columns[Natts_es_delivery] = {
		0, 0, 0, Anum_es_events_position, 0, 0,
		Anum_es_events_version, Anum_es_events_event_id, Anum_es_events_type,
		Anum_es_events_schema_version, Anum_es_events_source, Anum_es_events_data,
		Anum_es_events_metadata, Anum_es_events_correlation_id,
		Anum_es_events_causation_id, Anum_es_events_traceparent,
		Anum_es_events_occurred_at, Anum_es_events_recorded_at
	};
	Delivery   *delivery = arg;
	Datum		values[Natts_es_delivery];
	bool		nulls[Natts_es_delivery];
	text	   *category = cstring_to_text_with_len(VARDATA_ANY(stream), EsCategoryLength(stream));
	pg_uuid_t  *incarnation;

	EsEventValues(slot, columns, Natts_es_delivery, values, nulls);
	values[0] = Int32GetDatum(LANE);
	values[1] = Int64GetDatum(EPOCH);
	incarnation = EsLifeOf(&delivery->lives, (EsPosition) DatumGetInt64(values[3]));
	values[2] = UUIDPGetDatum(incarnation);
	nulls[2] = incarnation == NULL;
	values[4] = PointerGetDatum(category);
	values[5] = PointerGetDatum(stream);
	tuplestore_putvalues(delivery->result->setResult, delivery->result->setDesc, values, nulls);
	pfree(category);
	return --delivery->left > 0;
}

/* One look: from the cursor to the horizon.  True when something was found. */
static bool
look(const text *name, Delivery *delivery, EsOrderedRead *read)
{
	Subscription subscription;
	int64		before = delivery->left;

	EsOrderedReadBegin(read);
	EsForkCheck(read->log);
	delivery->lives = EsLivesRead(GetActiveSnapshot());
	read_subscription(name, GetActiveSnapshot(), false, &subscription);
	EsLogScan(&subscription.filter, subscription.cursor, read->horizon,
			  GetActiveSnapshot(), deliver, delivery);
	EsOrderedReadEnd(read);
	delivery->cursor = subscription.cursor;
	return delivery->left < before;
}

/* The wait that a fetch was given, in microseconds; at most 30 s. */
static int64
argument_wait(FunctionCallInfo fcinfo, int arg)
{
	Interval   *wait;
	int64		usecs;

	if (PG_ARGISNULL(arg))
		return 0;
	wait = PG_GETARG_INTERVAL_P(arg);
	usecs = wait->time + wait->day * USECS_PER_DAY;
	if (wait->month != 0 || usecs < 0 || usecs > WAIT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait must be between 0 and 30 seconds")));
	if (usecs > 0 && (EsHorizonWriting() || TransactionIdIsValid(GetTopTransactionIdIfAny())))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for events in a transaction that has written"),
				 errhint("Commit first, or fetch without a wait.")));
	return usecs;
}

/* When a wait is over: not so late that a statement_timeout would end it. */
static TimestampTz
wait_until(int64 usecs)
{
	TimestampTz until = GetCurrentTimestamp() + usecs;

	if (get_timeout_active(STATEMENT_TIMEOUT))
		until = Min(until, get_timeout_finish_time(STATEMENT_TIMEOUT) - WAIT_MARGIN_MS * 1000);
	return until;
}

/*
 * Collect what there is, or wait for it.  One who waits sleeps until the horizon
 * moves.  One who does not is told by the next commit's notification; what came
 * meanwhile is looked at.  True when something was found.
 */
static bool
fetch(const text *name, int64 wait, Delivery *delivery, EsOrderedRead *read)
{
	TimestampTz until = wait_until(wait);

	if (look(name, delivery, read))
		return true;
	if (wait == 0)
	{
		EsWakeArm(read->log);
		ES_DEBUG_BREAK(no_look_after_arming, return false);
		return look(name, delivery, read);
	}
	while (EsWakeWait(read->log, read->horizon, until))
	{
		if (look(name, delivery, read))
			return true;
	}
	return false;
}

/* The subscription among the arguments, which the current user may consume. */
static text *
argument_subscription(FunctionCallInfo fcinfo)
{
	text	   *name = EsArgName(fcinfo, 0, "subscription name");

	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_CONSUME, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	return name;
}

/* es_fetch(subscription, consumer, max_count, wait) */
Datum
es_fetch(PG_FUNCTION_ARGS)
{
	text	   *name = argument_subscription(fcinfo);
	int32		count = PG_ARGISNULL(2) ? ES_READ_DEFAULT : PG_GETARG_INT32(2);
	int64		wait;
	Delivery	delivery;
	EsOrderedRead read;

	(void) EsArgName(fcinfo, 1, "consumer name");
	if (count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be positive")));
	EsRequirePrimary();
	EsOrderedReadCheck();
	wait = argument_wait(fcinfo, 3);
	InitMaterializedSRF(fcinfo, 0);
	delivery.result = (ReturnSetInfo *) fcinfo->resultinfo;
	delivery.left = count;

	if (!fetch(name, wait, &delivery, &read) &&
		read.horizon > delivery.cursor + SKIP_MIN && !XactReadOnly)
	{
		Subscription subscription;

		read_subscription(name, SnapshotSelf, true, &subscription);
		move_cursor(&subscription, read.horizon);
	}
	return (Datum) 0;
}

/* es_ack(subscription, lane, epoch, position) */
Datum
es_ack(PG_FUNCTION_ARGS)
{
	text	   *name = argument_subscription(fcinfo);
	Subscription subscription;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lane, epoch and position must not be null")));
	PreventCommandIfReadOnly("es_ack()");
	EsRequirePrimary();
	read_subscription(name, SnapshotSelf, true, &subscription);
	if (PG_GETARG_INT32(1) != LANE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("subscription \"%s\" has no lane %d", text_to_cstring(name), PG_GETARG_INT32(1))));
	if (PG_GETARG_INT64(2) != EPOCH)
		ereport(ERROR,
				(errcode(ERRCODE_ES_FENCED),
				 errmsg("lane %d of subscription \"%s\" is not in epoch " INT64_FORMAT,
						LANE, text_to_cstring(name), PG_GETARG_INT64(2)),
				 errdetail("It is in epoch %d.", EPOCH),
				 errhint("Another consumer has it now; fetch again.")));
	if (PG_GETARG_INT64(3) < 0 || (EsPosition) PG_GETARG_INT64(3) > EsHorizonRead(EsLogGet()))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot acknowledge position " INT64_FORMAT, PG_GETARG_INT64(3)),
				 errdetail("It is above the horizon.")));
	move_cursor(&subscription, (EsPosition) PG_GETARG_INT64(3));
	EsMaintainSlice();
	PG_RETURN_VOID();
}
