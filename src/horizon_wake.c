/*
 * horizon_wake.c
 *		Waking readers without NOTIFY's lock in every commit.
 *
 * NOTIFY takes one cluster-wide lock at commit.  So a reader that found nothing
 * ARMS a flag of its log; the next writer that sees the flag before its commit
 * takes it and issues the one NOTIFY.  Under load nobody is ever notified; at
 * rest the first commit wakes the reader.
 *
 * No wake-up is lost: the reader looks once more after arming.  A writer that
 * had looked at the flag before that has published its bound before it looked,
 * so the reader finds it gone and its event visible, or finds it in flight.  In
 * flight it may be over by the time the reader asks whether anybody is; so one
 * who reads by SQL polls until it sees nobody in flight, reads once more, and
 * sleeps if that finds nothing.
 *
 * Backends that wait inside es_fetch sleep on a condition variable, which every
 * end of a writing transaction broadcasts after leaving the registry: an abort
 * raises the horizon too.
 */
#include "horizon.h"

#include "access/xact.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "storage/proclist.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "debug_point.h"

#define NOTIFY_CHANNEL		"es_pg"
#define QUEUE_USAGE_MAX		0.5 /* beyond it a NOTIFY could fail the user's commit */
#define LOOK_AGAIN_MS		1000	/* a sleeper looks after so long at most */

/* This transaction has taken the flag. */
static bool took_flag = false;

/* What it says of one who sleeps in es_fetch. */
uint32
EsWakeEvent(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsHorizonWait");
	return event;
}

/* Have this commit notify those who listen. */
void
EsWakeListeners(void)
{
	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) <= QUEUE_USAGE_MAX)
		Async_Notify(NOTIFY_CHANNEL, NULL);
}

/* Take the flag if it is armed, and notify with this commit. */
void
EsWakeBeforeCommit(EsLog *log)
{
	uint32		armed = 1;

	if (pg_atomic_read_u32(&log->armed) == 0 ||
		!pg_atomic_compare_exchange_u32(&log->armed, &armed, 0))
		return;
	took_flag = true;
	EsWakeListeners();
}

/* After the entry was cleared: put back a flag that an abort took, wake sleepers. */
void
EsWakeAfterEnd(EsLog *log, bool committed)
{
	if (took_flag && !committed)
		pg_atomic_write_u32(&log->armed, 1);
	took_flag = false;

	pg_memory_barrier();
	if (!proclist_is_empty(&log->moved.wakeup))
		ConditionVariableBroadcast(&log->moved);
}

/* Ask the next commit for a notification.  Look once more after this. */
void
EsWakeArm(EsLog *log)
{
	ES_DEBUG_POINT(before_arming);
	pg_atomic_exchange_u32(&log->armed, 1);
}

/* Lanes changed hands, or a subscription changed: whoever waits in es_fetch or es_wait_for shall look. */
void
EsWakeConsumers(EsLog *log)
{
	pg_atomic_fetch_add_u64(&log->lane_news, 1);
	ConditionVariableBroadcast(&log->moved);
	ConditionVariableBroadcast(&log->passed);
}

/* A subscription moved on: whoever waits for that shall look.  Called after the end of the transaction. */
void
EsWakePassed(EsLog *log)
{
	pg_memory_barrier();
	if (!proclist_is_empty(&log->passed.wakeup))
		ConditionVariableBroadcast(&log->passed);
}

/* A client that is gone is noticed here, not when somebody has an answer for it. */
void
EsWakeCheckClient(void)
{
	if (MyProcPort != NULL && !pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/*
 * Sleep until the horizon is above "seen", or there is more than "news" for
 * consumers, at the latest until "until".  False when the time is over.
 */
bool
EsWakeWait(EsLog *log, EsPosition seen, uint64 news, TimestampTz until, uint32 event)
{
	bool		moved = false;

	ConditionVariablePrepareToSleep(&log->moved);
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		moved = pg_atomic_read_u64(&log->lane_news) != news || EsHorizonRead(log) > seen;
		if (moved)
			break;
		ConditionVariableTimedSleep(&log->moved, Min(left, LOOK_AGAIN_MS), event);
		EsWakeCheckClient();
	}
	ConditionVariableCancelSleep();
	return moved;
}
