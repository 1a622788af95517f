/*
 * subscription_nack.c
 *		es_nack: one message failed.
 *
 * The message is parked, if it is not yet, and with it what its key was handed
 * out behind it: those positions are returned, for the consumer must not process
 * them now.  Which they are follows from the note of what the lane was handed
 * (subscription_member.c); without that note, all there is of the key may be
 * among them.  Then the attempt is counted and the next one planned, by
 * es_fail_parked.  All of it under the lock of the lane's lease, like an
 * acknowledgement.
 *
 * The cursor stays: whoever acknowledges a later position passes by what is
 * parked, and a fetch does it where nothing else is left before.
 */
#include "subscription.h"

#include "access/genam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(es_nack);

static EsStatement fail = {
	"SELECT * FROM @.es_fail_parked($1, $2, $3, $4, $5, $6, $7) AS f (behind) ORDER BY f.behind",
	7, {INT4OID, INT8OID, INT8OID, TEXTOID, INTERVALOID, BOOLOID, INT8OID}
};

static int32 forbidden = 0;		/* a subscription; 0: none */

/* Parking what a lane was handed from the failed message on. */
typedef struct Parking
{
	const EsSubscription *subscription;
	int32		lane;
	int64		epoch;
	EsPosition	failed;
	EsLives		lives;
	int64		entered;

	bool		found;			/* the failed one */
	bool		keyless;
	uint64		hash;
	text	   *key;
} Parking;

/* Park the failed message, and then what is of its key. */
static EsRowVerdict
park(TupleTableSlot *slot, void *arg)
{
	Parking    *parking = arg;
	uint64		hash = EsRowKeyHash(parking->subscription->source, slot);
	const text *stream;
	EsDelivered message;
	bool		isnull;
	EsPosition	position = (EsPosition) DatumGetInt64(slot_getattr(slot, 1, &isnull));

	if ((parking->found && hash != parking->hash) ||
		EsLaneOf(hash, parking->subscription->lanes) != parking->lane ||
		!EsSubscriptionWants(parking->subscription, slot, GetActiveSnapshot(), &stream))
		return parking->found ? ES_ROW_PASSED : ES_ROW_ENOUGH;
	EsDeliveryForm(parking->subscription, slot, stream, &message);
	if (!parking->found)
	{
		if (position != parking->failed)
			return ES_ROW_ENOUGH;
		parking->found = true;
		parking->hash = hash;
		parking->keyless = message.nulls[DELIVERY_KEY];
		parking->key = parking->keyless ? NULL : DatumGetTextPCopy(message.values[DELIVERY_KEY]);
	}
	else if (!DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, message.values[DELIVERY_KEY],
												   PointerGetDatum(parking->key))))
		return ES_ROW_PASSED;
	else if (EsIsParked(parking->subscription->id, position, GetActiveSnapshot()))
		return ES_ROW_PASSED;
	message.values[DELIVERY_LANE] = Int32GetDatum(parking->lane);
	message.nulls[DELIVERY_LANE] = false;
	message.values[DELIVERY_EPOCH] = Int64GetDatum(parking->epoch);
	message.nulls[DELIVERY_EPOCH] = false;
	EsDeliverySetLife(&message, &parking->lives);
	EsParkedInsert(parking->subscription->id, &message, hash, true,
				   position == parking->failed ? parking->entered : 0);
	return parking->keyless ? ES_ROW_LAST : ES_ROW_TAKEN;
}

/* Park a message that was handed out, and those of its key behind it. */
static void
park_new(const EsSubscription *subscription, int32 lane, int64 epoch, EsPosition position)
{
	Parking		parking = {subscription, lane, epoch, position};
	EsLaneNote	note;

	if (!EsLaneNoteRead(subscription->id, lane, epoch, &note))
		note.handed = EsHorizonRead(EsLogGet());
	parking.entered = EsParkedNumber(subscription->id, lane);
	parking.lives = EsLivesRead(GetActiveSnapshot());
	EsChunkCover(subscription->source, note.handed);
	if (position > EsCursorNow(subscription->id, lane, NULL) && position <= note.handed)
		EsLogRows(subscription->source, NULL, position - 1, note.handed, GetActiveSnapshot(), park, &parking);
	if (!parking.found)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " UINT64_FORMAT " was not handed out, or is acknowledged", position),
				 errdetail("Lane %d of subscription \"%s\" was handed out up to position " UINT64_FORMAT ".",
						   lane, text_to_cstring(subscription->name), note.handed)));
}

/* Count the attempt and return who is parked behind. */
static void
fail_parked(FunctionCallInfo fcinfo, const EsSubscription *subscription)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		args[] = {
		Int32GetDatum(subscription->id), PG_GETARG_DATUM(2), PG_GETARG_DATUM(3),
		PG_GETARG_DATUM(4), PG_GETARG_DATUM(5),
		BoolGetDatum(!PG_ARGISNULL(6) && PG_GETARG_BOOL(6)),
		Int64GetDatum(EsParkedNumber(subscription->id, PG_GETARG_INT32(1)))
	};
	char		nulls[] = "       ";
	uint64		n;

	nulls[3] = PG_ARGISNULL(4) ? 'n' : ' ';
	nulls[4] = PG_ARGISNULL(5) ? 'n' : ' ';
	SPI_connect();
	n = EsStatementRun(&fail, args, nulls);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		position = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		tuplestore_putvalues(result->setResult, result->setDesc, &position, &isnull);
	}
	SPI_finish();
}

static void
check_arguments(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("lane, epoch and position must not be null")));
	if (PG_GETARG_INT64(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position " INT64_FORMAT " was not handed out", PG_GETARG_INT64(3)),
				 errdetail("Positions begin at 1.")));
	if (!PG_ARGISNULL(5))
	{
		Interval   *after = PG_GETARG_INTERVAL_P(5);

		if (after->month < 0 || after->day < 0 || after->time < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("retry_after must not be negative")));
	}
}

/*
 * Forbid this session to refuse messages of a subscription; 0 ends that.  Who handles a
 * batch of them knows only of what it has parked itself.
 */
void
EsNackForbid(int32 subscription)
{
	forbidden = subscription;
}

static void
check_forbidden(const EsSubscription *subscription)
{
	if (subscription->id == forbidden)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("es_nack() cannot be called by a handler of the same inbox"),
				 errhint("To refuse a message, raise an error.")));
}

/* es_nack(subscription, lane, epoch, position, error, retry_after, reject) */
Datum
es_nack(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgSubscription(fcinfo);
	EsSubscription subscription;

	check_arguments(fcinfo);
	PreventCommandIfReadOnly("es_nack()");
	EsRequirePrimary();
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	PushActiveSnapshot(GetLatestSnapshot());
	EsSubscriptionRead(name, GetActiveSnapshot(), &subscription);
	PopActiveSnapshot();
	check_forbidden(&subscription);
	EsLeaseLockOrFail(&subscription, PG_GETARG_INT32(1), PG_GETARG_INT64(2));
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	if (!EsIsParked(subscription.id, (EsPosition) PG_GETARG_INT64(3), GetActiveSnapshot()))
		park_new(&subscription, PG_GETARG_INT32(1), PG_GETARG_INT64(2), (EsPosition) PG_GETARG_INT64(3));
	PopActiveSnapshot();
	CommandCounterIncrement();
	fail_parked(fcinfo, &subscription);
	EsParkedRequireDone(subscription.id, PG_GETARG_INT32(1), PG_GETARG_INT64(2),
						(EsPosition) PG_GETARG_INT64(3), (EsPosition) PG_GETARG_INT64(3));
	EsWakeAtCommit();
	return (Datum) 0;
}
