/*
 * subscription_ack.c
 *		es_ack: what was handed out is done.
 *
 * An acknowledgement belongs to the caller's transaction, so effects in this
 * database and their acknowledgement happen together or not at all: exactly
 * once.  It speaks for everything of the lane up to a position: the cursor
 * moves there, and parked messages that were handed out in this epoch, which are
 * at or below the cursor, are done.
 *
 * One of a position that the cursor has passed is for parked messages that were
 * handed out since, if it names one.  Otherwise it is said again, and speaks for
 * nothing: what was handed out meanwhile may be at work.
 *
 * A consumer's name may be in use twice: its process was started anew, and what
 * the old one had sent is still at work in the server.  Both have the same epoch.
 * So who fetches and acknowledges in one transaction finds, under the lane's lock,
 * the cursor where it was when he fetched, or moved by himself; or he fails.
 *
 * It moves the cursor further when all that was handed out is acknowledged: to
 * where the fetch had looked, for there is nothing of this lane in between.
 */
#include "subscription.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(es_ack);

static EsStatement resolve = {
	"SELECT @.es_resolve_parked($1, $2, $3, $4)",
	4, {INT4OID, INT4OID, INT8OID, INT8OID}
};

/* Fail where another transaction of this consumer's has moved the lane since. */
static void
check_start(const EsSubscription *subscription, int32 lane, int64 epoch, EsPosition cursor, bool mine)
{
	const EsLaneHere *here = EsLaneHereGet(epoch, false);

	if (here != NULL && here->fetched && cursor > here->cursor && !mine)
		ereport(ERROR,
				(errcode(ERRCODE_ES_FENCED),
				 errmsg("lane %d of subscription \"%s\" was acknowledged by another session meanwhile",
						lane, text_to_cstring(subscription->name)),
				 errdetail("It was at position " UINT64_FORMAT " when this transaction fetched, and is at " UINT64_FORMAT ".",
						   here->cursor, cursor),
				 errhint("Do not commit what was done with those messages; fetch again. Give each consumer a name of its own.")));
}

/* Parked messages that were handed out are done. */
static void
resolve_parked(int32 subscription, int32 lane, int64 epoch, EsPosition position)
{
	Datum		args[] = {
		Int32GetDatum(subscription), Int32GetDatum(lane),
		Int64GetDatum(epoch), Int64GetDatum((int64) position)
	};

	SPI_connect();
	EsStatementRun(&resolve, args, NULL);
	SPI_finish();
}

/* Move a locked lane's cursor, if that is news. */
static void
acknowledge(const EsSubscription *subscription, int32 lane, int64 epoch, EsPosition position)
{
	bool		mine;
	EsPosition	cursor = EsCursorNow(subscription->id, lane, &mine);
	EsLaneNote	note;
	bool		known = EsLaneNoteRead(subscription->id, lane, epoch, &note);
	EsPosition	highest = known ? note.handed : EsHorizonRead(EsLogGet());

	check_start(subscription, lane, epoch, cursor, mine);
	if (position > Max(highest, cursor))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot acknowledge position " UINT64_FORMAT, position),
				 errdetail("Lane %d of subscription \"%s\" was handed out up to position " UINT64_FORMAT ".",
						   lane, text_to_cstring(subscription->name), Max(highest, cursor))));
	if (position <= cursor && !EsIsParked(subscription->id, position, SnapshotSelf))
		return;
	if (EsParkedOut(subscription->id, lane, epoch, 0, position))
	{
		resolve_parked(subscription->id, lane, epoch, position);
		EsParkedRequireDone(subscription->id, lane, epoch, 0, position);
	}
	if (known && position >= note.handed)
		position = Max(position, note.looked);
	if (position > cursor)
		EsCursorMove(subscription->id, lane, epoch, position);
}

/* es_ack(subscription, lane, epoch, position) */
Datum
es_ack(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgSubscription(fcinfo);
	EsSubscription subscription;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lane, epoch and position must not be null")));
	PreventCommandIfReadOnly("es_ack()");
	EsRequirePrimary();
	EsForkCheck(EsLogGet());
	if (PG_GETARG_INT64(3) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot acknowledge position " INT64_FORMAT, PG_GETARG_INT64(3)),
				 errdetail("Positions begin at 1.")));
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(name, GetActiveSnapshot(), &subscription);
	PopActiveSnapshot();
	EsLeaseLockOrFail(&subscription, PG_GETARG_INT32(1), PG_GETARG_INT64(2));
	acknowledge(&subscription, PG_GETARG_INT32(1), PG_GETARG_INT64(2), (EsPosition) PG_GETARG_INT64(3));
	EsMaintainSlice();
	PG_RETURN_VOID();
}
