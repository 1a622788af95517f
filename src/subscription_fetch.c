/*
 * subscription_fetch.c
 *		es_fetch: what comes next in the lanes of a member.
 *
 * A fetch is an ordered read from the cursors of its lanes to the horizon.  It
 * hands out again what is not acknowledged, but for what the consumer says it
 * still has (subscription_held.c).  Parked messages that are due come
 * first, then new ones; in each lane positions rise.
 *
 * Several lanes are read in one scan, in the order of the log, each row going to
 * the lane of its key; so what a lane gets does not depend on how many others
 * there are.  Lanes that lie far apart, and lanes whose last messages were
 * handed out and not acknowledged, are scanned by themselves, with their share
 * of the rows: a lane that is stuck, or far behind, delays no other.
 *
 * Mostly a fetch writes nothing.  It writes when lanes change hands, when it
 * parks messages or hands parked ones out, and when it has passed a long stretch
 * that holds nothing for a lane: then it moves that lane's cursor, so that no
 * later fetch looks through it again.  What it hands out it notes in shared
 * memory; see subscription_member.c for what that is good for.
 *
 * A fetch that waits sleeps without a transaction id, so whatever it wrote is
 * not held back from others: one that has written returns at once, though it
 * may have found nothing.
 */
#include "subscription.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "debug_point.h"

PG_FUNCTION_INFO_V1(es_fetch);

#define WAIT_MAX		INT64CONST(30000000)	/* microseconds */
#define WAIT_MARGIN_MS	100		/* before a statement_timeout */
#define SKIP_MIN		10000	/* positions without a match that move the cursor */
#define SKIP_USECS		(10 * USECS_PER_SEC)	/* or fewer, after so long */
#define GROUP_GAP		100000	/* positions between lanes that are scanned apart */
#define CONTESTED_USECS	(100 * 1000)	/* then a lane that could not be locked is tried again */

/* A fetch in progress. */
typedef struct Fetch
{
	text	   *name;
	text	   *consumer;
	bool		session_bound;
	EsHeld		held;
	ReturnSetInfo *result;
	int64		left;			/* rows still wanted */
	bool		parked;			/* something behind others of its key */
	MemoryContext context;		/* of one look */

	/* The present look. */
	EsSubscription subscription;
	EsOrderedRead read;
	uint64		news;			/* the log's, before it */
	TimestampTz look_at;		/* there may be something new for us then */
	EsPosition	upto;
	EsLives		lives;
	List	   *lanes;			/* of EsLane, mine */
	EsLane	  **by_number;		/* the same, NULL where not mine */

	/* The present scan. */
	int			group;
	int64		budget;			/* rows that it may still hand out or leave */
	int64		parkings;		/* messages that it may still park */
	EsPosition	scanned;		/* up to here it has come */
} Fetch;

/* ---------------------------------------------------------------- new messages */

static void
put(Fetch *fetch, EsLane *lane, EsDelivered *message)
{
	tuplestore_putvalues(fetch->result->setResult, fetch->result->setDesc,
						 message->values, message->nulls);
	lane->handed = Max(lane->handed, (EsPosition) DatumGetInt64(message->values[DELIVERY_POSITION]));
	fetch->left--;
}

/* Nothing of this lane from a position on is handed out in this fetch. */
static void
stop(EsLane *lane, EsPosition position)
{
	if (lane->stopped)
		return;
	lane->stopped = true;
	lane->looked = position - 1;
}

/*
 * May this fetch write for a lane?  Its lease is locked then, so what is parked
 * in it, and what the policy makes of that, stays as it is now; but the look's
 * snapshot is older.
 */
static bool
lock_lane(Fetch *fetch, EsLane *lane)
{
	EsSubscription now;

	if (lane->locked || XactReadOnly ||
		!EsLeaseLock(fetch->subscription.id, lane->number, lane->epoch, LockWaitSkip, NULL))
		return lane->locked;
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(fetch->name, GetActiveSnapshot(), &now);
	PopActiveSnapshot();
	fetch->subscription.skip_dead = now.skip_dead;
	lane->locked = true;
	return true;
}

/* A message that its lane stays at: handed out, or left for a later fetch. */
static void
leave(Fetch *fetch, EsLane *lane, EsPosition position)
{
	if (lane->left == 0)
		lane->left = position;
	fetch->budget--;
}

/* What is to be done with a message of a locked lane, as it is now. */
static EsParkedVerdict
look_again(Fetch *fetch, uint64 hash, const EsDelivered *message)
{
	EsParkedVerdict verdict;

	PushActiveSnapshot(GetLatestSnapshot());
	verdict = EsParkedLook(&fetch->subscription, hash, message, GetActiveSnapshot());
	PopActiveSnapshot();
	return verdict;
}

/*
 * Park a message behind another one of its key, if that can be done.  What is
 * before it may be gone by the time the lane is locked, and then nothing would
 * ever call for the message: it is left for a later fetch.
 */
static void
park_behind(Fetch *fetch, EsLane *lane, uint64 hash, const EsDelivered *message, EsPosition position)
{
	stop(lane, position);
	switch (lock_lane(fetch, lane) ? look_again(fetch, hash, message) : ES_PARKED_FREE)
	{
		case ES_PARKED_BEHIND:
			EsParkedInsert(fetch->subscription.id, message, hash, false, 0);
			EsLaneHereGet(lane->epoch, true)->parked = true;
			fetch->parkings--;
			fetch->parked = true;
			lane->passing = true;
			break;
		case ES_PARKED_ITSELF:
			lane->passing = true;
			break;
		case ES_PARKED_FREE:
		case ES_PARKED_JUST_NOW:
			leave(fetch, lane, position);
			break;
	}
}

/* A row of the source that is for one of this group's lanes. */
static void
take_row(Fetch *fetch, EsLane *lane, TupleTableSlot *slot, const text *stream, uint64 hash, EsPosition position)
{
	EsParkedVerdict verdict = ES_PARKED_FREE;
	EsDelivered message;

	EsDeliveryForm(&fetch->subscription, slot, stream, &message);
	message.values[DELIVERY_LANE] = Int32GetDatum(lane->number);
	message.values[DELIVERY_EPOCH] = Int64GetDatum(lane->epoch);
	message.nulls[DELIVERY_LANE] = message.nulls[DELIVERY_EPOCH] = false;
	EsDeliverySetLife(&message, &fetch->lives);
	if (lane->parked && EsParkedMaybe(lane->epoch, hash))
		verdict = EsParkedLook(&fetch->subscription, hash, &message, GetActiveSnapshot());
	switch (verdict)
	{
		case ES_PARKED_FREE:
			leave(fetch, lane, position);
			if (!lane->stopped)
				put(fetch, lane, &message);
			break;
		case ES_PARKED_ITSELF:
			lane->passing = true;
			break;
		case ES_PARKED_JUST_NOW:
			stop(lane, position);
			break;
		case ES_PARKED_BEHIND:
			park_behind(fetch, lane, hash, &message, position);
			break;
	}
	if (message.values[DELIVERY_TOPIC] != 0 && stream != NULL)
		pfree(DatumGetPointer(message.values[DELIVERY_TOPIC]));
}

static EsRowVerdict
visit(TupleTableSlot *slot, void *arg)
{
	Fetch	   *fetch = arg;
	bool		isnull;
	EsPosition	position = (EsPosition) DatumGetInt64(slot_getattr(slot, 1, &isnull));
	uint64		hash = EsRowKeyHash(fetch->subscription.source, slot);
	EsLane	   *lane = fetch->by_number[EsLaneOf(hash, fetch->subscription.lanes)];
	const text *stream;

	if (lane == NULL || lane->group != fetch->group || position <= lane->from ||
		!EsSubscriptionWants(&fetch->subscription, slot, GetActiveSnapshot(), &stream))
		return ES_ROW_PASSED;
	take_row(fetch, lane, slot, stream, hash, position);
	fetch->scanned = position;
	return fetch->budget > 0 && fetch->parkings > 0 ? ES_ROW_TAKEN : ES_ROW_LAST;
}

/* The lanes of one group, in one scan. */
static void
scan_group(Fetch *fetch, int group, int groups_left, EsPosition from)
{
	ListCell   *cell;

	fetch->group = group;
	fetch->budget = (fetch->left + groups_left - 1) / groups_left;
	fetch->parkings = Max(fetch->left, ES_READ_DEFAULT);
	fetch->scanned = from;
	if (fetch->budget > 0 && from < fetch->upto)
	{
		EsLogRows(fetch->subscription.source, &fetch->subscription.filter, from, fetch->upto,
				  GetActiveSnapshot(), visit, fetch);
		if (fetch->budget > 0 && fetch->parkings > 0)
			fetch->scanned = fetch->upto;
	}
	foreach(cell, fetch->lanes)
	{
		EsLane	   *lane = lfirst(cell);

		if (lane->group != group)
			continue;
		lane->scanned = fetch->scanned;
		if (!lane->stopped)
			lane->looked = Max(lane->from, fetch->scanned);
	}
}

/* Lanes that are up to date before those that are stuck, then by where they begin. */
static int
compare_lanes(const ListCell *a, const ListCell *b)
{
	const EsLane *x = lfirst(a);
	const EsLane *y = lfirst(b);

	if (x->slow != y->slow)
		return x->slow ? 1 : -1;
	if (x->from != y->from)
		return x->from < y->from ? -1 : 1;
	return x->number - y->number;
}

/* Number the groups of the sorted lanes; how many there are. */
static int
form_groups(List *lanes)
{
	const EsLane *previous = NULL;
	int			groups = 0;
	ListCell   *cell;

	foreach(cell, lanes)
	{
		EsLane	   *lane = lfirst(cell);

		if (previous == NULL || lane->slow != previous->slow || lane->from - previous->from > GROUP_GAP)
			groups++;
		lane->group = groups;
		previous = lane;
	}
	return groups;
}

static void
scan_lanes(Fetch *fetch)
{
	int			groups;
	int			done = 0;
	ListCell   *cell;

	list_sort(fetch->lanes, compare_lanes);
	groups = form_groups(fetch->lanes);
	foreach(cell, fetch->lanes)
	{
		EsLane	   *lane = lfirst(cell);

		if (lane->group == done)
			continue;
		scan_group(fetch, lane->group, groups - done, lane->from);
		done = lane->group;
	}
}

/* ---------------------------------------------------------------- parked messages that are due */

static void
put_due(EsDelivered *message, void *arg)
{
	Fetch	   *fetch = arg;

	tuplestore_putvalues(fetch->result->setResult, fetch->result->setDesc, message->values, message->nulls);
	fetch->left--;
}

/* Those that have been due for longest come first. */
static int
compare_due(const ListCell *a, const ListCell *b)
{
	const EsLane *x = lfirst(a);
	const EsLane *y = lfirst(b);

	return x->due < y->due ? -1 : x->due > y->due ? 1 : x->number - y->number;
}

/* Was anything parked of a lane handed out that is not acknowledged? */
static bool
was_handed_out(const Fetch *fetch, const EsLane *lane)
{
	return EsParkedOut(fetch->subscription.id, lane->number, lane->epoch, 0, PG_INT64_MAX);
}

/* My lanes with parked messages that are due and may go out; else when to look again. */
static List *
due_lanes(Fetch *fetch)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *due = NIL;
	ListCell   *cell;

	foreach(cell, fetch->lanes)
	{
		EsLane	   *lane = lfirst(cell);

		if (!lane->parked || !EsParkedDue(fetch->subscription.id, lane->number, GetActiveSnapshot(), &lane->due))
			continue;
		if (lane->due > now)
			fetch->look_at = Min(fetch->look_at, lane->due);
		else if (!EsDueAny(&fetch->subscription, lane) && (lane->held || !was_handed_out(fetch, lane)))
			continue;
		else if (lane->held)
			EsLaneExhaust(lane, fetch->upto);
		else
			due = lappend(due, lane);
	}
	list_sort(due, compare_due);
	return due;
}

/*
 * Parked messages of my lanes that are due, half of the rows wanted at most, so
 * that new messages are not kept waiting; each lane has its share of that.
 */
static void
deliver_due(Fetch *fetch)
{
	List	   *due = due_lanes(fetch);
	int			lanes_left = list_length(due);
	int			room = (int) ((fetch->left + 1) / 2);
	ListCell   *cell;

	foreach(cell, due)
	{
		EsLane	   *lane = lfirst(cell);
		int			share = (room + lanes_left - 1) / lanes_left;

		lanes_left--;
		if (!lock_lane(fetch, lane))
		{
			/* An acknowledgement of what goes out now would speak for what does not go out again. */
			if (was_handed_out(fetch, lane))
				EsLaneExhaust(lane, fetch->upto);
			fetch->look_at = Min(fetch->look_at, GetCurrentTimestamp() + CONTESTED_USECS);
			continue;
		}
		PushActiveSnapshot(GetLatestSnapshot());
		room -= EsDueHandOut(&fetch->subscription, lane, share, put_due, fetch);
		PopActiveSnapshot();
	}
}

/* ---------------------------------------------------------------- progress */

/* Whoever acknowledges this in the same transaction shall find the lane as it is. */
static void
note_fetch(const EsLane *lane)
{
	EsLaneHere *here = EsLaneHereGet(lane->epoch, true);

	if (here->fetched)
		return;
	here->fetched = true;
	here->cursor = lane->cursor;
}

/*
 * Note what a lane was handed, and move its cursor where that is worth a row: a
 * long stretch, or a long time, held nothing for it, else an idle lane would
 * hold chunks and seem to be far behind; or parked messages were passed, which
 * are handed out again only when the cursor is behind them.
 */
static void
record_progress(Fetch *fetch, EsLane *lane)
{
	EsPosition	clear = lane->left != 0 ? lane->left - 1 : Max(lane->from, lane->scanned);
	bool		drained = fetch->subscription.draining && clear >= fetch->subscription.drain_to;
	TimestampTz now = GetCurrentTimestamp();
	bool		move = clear > lane->cursor && !lane->held &&
		(lane->passing || lane->slow || drained || clear - lane->cursor > SKIP_MIN ||
		 now - lane->moved > SKIP_USECS) &&
		lock_lane(fetch, lane);

	if (lane->exhausted)
		return;
	if (move)
		lane->moved = now;
	EsLaneNoteWrite(&fetch->subscription, lane);
	if (lane->handed != 0)
		note_fetch(lane);
	if (move && clear > EsCursorNow(fetch->subscription.id, lane->number, NULL))	/* it may have moved meanwhile */
	{
		EsCursorMove(fetch->subscription.id, lane->number, lane->epoch, clear);
		lane->cursor = clear;
	}
}

static EsStatement switch_lanes = {
	"SELECT @.es_switch_lanes($1)", 1, {INT4OID}
};

/* Are all lanes, mine and others', where they drain to? */
static bool
all_drained(const EsSubscription *subscription)
{
	EsProbe		probe;
	bool		drained = true;

	EsProbeOpen(&probe, EsCatalogGet()->cursors, EsCatalogGet()->cursors_pkey);
	for (int32 lane = 0; lane < subscription->lanes && drained; lane++)
		drained = EsCursorRead(&probe, subscription->id, lane, SnapshotSelf) >= subscription->drain_to;
	EsProbeClose(&probe);
	return drained;
}

/*
 * If all lanes are drained, try to change over to the new number of lanes.  Not
 * before: a try locks, and one who has locked must not wait.  True when it is
 * done: the lanes of this look are no more.
 */
static bool
try_switch(Fetch *fetch)
{
	Datum		args[] = {Int32GetDatum(fetch->subscription.id)};
	bool		done;
	bool		isnull;

	if (!fetch->subscription.draining || fetch->lanes == NIL || XactReadOnly ||
		!all_drained(&fetch->subscription))
		return false;
	SPI_connect();
	EsStatementRun(&switch_lanes, args, NULL);
	done = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	fetch->look_at = Min(fetch->look_at, GetCurrentTimestamp() + CONTESTED_USECS);
	return done;
}

/* ---------------------------------------------------------------- one look */

/* Where my lanes are, and what their keys are. */
static void
read_lanes(Fetch *fetch)
{
	EsProbe		probe;
	bool		any_parked = EsParkedAny(fetch->subscription.id, GetActiveSnapshot());
	ListCell   *cell;

	EsParkedMakeRoom();
	fetch->by_number = palloc0(sizeof(EsLane *) * fetch->subscription.lanes);
	EsProbeOpen(&probe, EsCatalogGet()->cursors, EsCatalogGet()->cursors_pkey);
	foreach(cell, fetch->lanes)
	{
		EsLane	   *lane = lfirst(cell);
		EsLaneNote	note;
		EsLaneHere *here;
		bool		known;

		fetch->by_number[lane->number] = lane;
		lane->cursor = EsCursorRead(&probe, fetch->subscription.id, lane->number, GetActiveSnapshot());
		lane->from = lane->cursor;
		lane->moved = GetCurrentTimestamp();
		known = EsLaneNoteRead(fetch->subscription.id, lane->number, lane->epoch, &note);
		if (known)
		{
			lane->slow = note.handed > lane->cursor;
			lane->moved = note.moved;
			if (!lane->slow)
				lane->from = Max(lane->cursor, note.looked);
		}
		EsLaneHold(lane, &fetch->held, known ? &note : NULL, fetch->upto);
		here = EsLaneHereGet(lane->epoch, false);
		if (here != NULL && here->parked)
			stop(lane, lane->from + 1);
		lane->parked = any_parked &&
			EsParkedLoad(fetch->subscription.id, lane->number, lane->epoch, GetActiveSnapshot());
	}
	EsProbeClose(&probe);
}

static void
deliver(Fetch *fetch)
{
	ListCell   *cell;

	fetch->upto = fetch->read.horizon;
	if (fetch->subscription.draining)
		fetch->upto = Min(fetch->upto, fetch->subscription.drain_to);
	if (try_switch(fetch))
		return;
	fetch->lives = EsLivesRead(GetActiveSnapshot());
	read_lanes(fetch);
	deliver_due(fetch);
	scan_lanes(fetch);
	foreach(cell, fetch->lanes)
		record_progress(fetch, lfirst(cell));
}

static void
check_state(const EsSubscription *subscription)
{
	if (subscription->state == ES_SUBSCRIPTION_SUSPENDED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("subscription \"%s\" is suspended", text_to_cstring(subscription->name)),
				 errdetail("%s", subscription->reason ? subscription->reason : "It was suspended."),
				 errhint("Messages may be gone. Use es_resume_subscription to go on from its cursor, or es_seek_subscription.")));
}

/* Read the subscription, show a sign of life, and get my lanes. */
static void
serve(Fetch *fetch)
{
	EsPeers		peers = {0};
	bool		contested;

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(fetch->name, GetActiveSnapshot(), &fetch->subscription);
	check_state(&fetch->subscription);
	EsMemberEnter(&fetch->subscription, fetch->consumer, fetch->session_bound, &peers);
	fetch->lanes = EsLeasesServe(&fetch->subscription, fetch->consumer, &peers, &contested);
	PopActiveSnapshot();
	if (fetch->lanes == NIL)
		PreventCommandIfReadOnly("es_fetch() by a consumer without a lane");
	fetch->look_at = Min(peers.next_end, GetCurrentTimestamp() + fetch->subscription.lease_usecs / 3);
	if (contested)
		fetch->look_at = Min(fetch->look_at, GetCurrentTimestamp() + CONTESTED_USECS);
}

/* One look: from the cursors to the horizon.  True when something was found. */
static bool
look(Fetch *fetch)
{
	MemoryContext old;
	int64		before = fetch->left;

	MemoryContextReset(fetch->context);
	old = MemoryContextSwitchTo(fetch->context);
	fetch->news = pg_atomic_read_u64(&EsLogGet()->lane_news);
	pg_read_barrier();
	serve(fetch);
	CommandCounterIncrement();
	EsOrderedReadBegin(&fetch->read, fetch->subscription.source);
	EsForkCheck(fetch->read.log);
	ES_DEBUG_POINT(fetch_snapshot);
	if (fetch->subscription.state == ES_SUBSCRIPTION_ACTIVE)
		deliver(fetch);
	EsOrderedReadEnd(&fetch->read);
	MemoryContextSwitchTo(old);
	return fetch->left < before;
}

/* ---------------------------------------------------------------- the call */

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

static int64
argument_count(FunctionCallInfo fcinfo, int arg)
{
	int32		count = PG_ARGISNULL(arg) ? ES_READ_DEFAULT : PG_GETARG_INT32(arg);

	if (count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be positive")));
	return count;
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
 * Look until something is found or written, or the time is over.  Between looks
 * sleep until the horizon moves, lanes change hands, or something falls due, a
 * delayed message that has to be published first among it.
 */
static void
look_and_wait(Fetch *fetch, TimestampTz until)
{
	while (!look(fetch) && !TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		TimestampTz look_at = Min(fetch->look_at, EsMaintainNext());

		if (!EsWakeWait(fetch->read.log, fetch->read.horizon, fetch->news, Min(until, look_at), EsWakeEvent()) &&
			GetCurrentTimestamp() >= until)
			break;
		EsMaintainSlice();
	}
}

/* es_fetch(subscription, consumer, max_count, wait, session_bound, held_lanes, held_epochs, held_positions) */
Datum
es_fetch(PG_FUNCTION_ARGS)
{
	Fetch		fetch = {0};
	int64		wait;

	fetch.name = EsArgSubscription(fcinfo);
	fetch.consumer = EsArgName(fcinfo, 1, "consumer name");
	fetch.left = argument_count(fcinfo, 2);
	EsRequirePrimary();
	EsOrderedReadCheck();
	wait = argument_wait(fcinfo, 3);
	fetch.session_bound = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	fetch.held = EsArgHeld(fcinfo, 5);
	InitMaterializedSRF(fcinfo, 0);
	fetch.result = (ReturnSetInfo *) fcinfo->resultinfo;
	fetch.context = AllocSetContextCreate(CurrentMemoryContext, "es_fetch", ALLOCSET_DEFAULT_SIZES);

	EsMaintainSlice();

	/* One who does not wait is told by the next commit; what came meanwhile is looked at. */
	if (wait > 0)
		look_and_wait(&fetch, wait_until(wait));
	else if (!look(&fetch))
	{
		EsWakeArm(fetch.read.log);
		ES_DEBUG_BREAK(no_look_after_arming, return (Datum) 0);
		if (!look(&fetch) && fetch.parked)
			EsWakeListeners();	/* there may be more, but not in this transaction */
	}
	MemoryContextDelete(fetch.context);
	return (Datum) 0;
}
