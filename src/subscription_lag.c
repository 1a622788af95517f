/*
 * subscription_lag.c
 *		What lies above a position: how many rows, and since when.
 *
 * Chunks are opened one by one, and their locks given back: es_maintain() asks
 * this and then has chunks dropped, in a worker's transaction.  A query of the
 * partitioned table would keep a lock on it, and nothing could be dropped.
 */
#include "subscription.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "columns.h"
#include "outbox.h"

PG_FUNCTION_INFO_V1(es_lag_messages);
PG_FUNCTION_INFO_V1(es_lag_since);

#define COUNT_DEFAULT	100000

/* Looking at what lies above a position. */
typedef struct Lag
{
	EsChunkKind source;
	int64		most;			/* rows to be counted */
	int64		n;
	TimestampTz since;			/* when the first of them was recorded */
} Lag;

static EsRowVerdict
visit(TupleTableSlot *slot, void *arg)
{
	Lag		   *lag = arg;
	bool		isnull;
	AttrNumber	time = lag->source == ES_CHUNK_EVENTS ? Anum_es_events_recorded_at : Anum_es_outbox_created_at;

	if (lag->n++ == 0)
		lag->since = DatumGetTimestampTz(slot_getattr(slot, time, &isnull));
	return lag->n < lag->most ? ES_ROW_PASSED : ES_ROW_ENOUGH;
}

/* Count from the position among the arguments on, no further than "most". */
static void
count(FunctionCallInfo fcinfo, Lag *lag, int64 most)
{
	EsOrderedRead read;
	char	   *source;

	EsArgRequire(PG_ARGISNULL(0), "source");
	EsArgRequire(PG_ARGISNULL(1), "position");
	source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (strcmp(source, "events") != 0 && strcmp(source, "outbox") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid source \"%s\"", source),
				 errhint("The source is 'events' or 'outbox'.")));
	memset(lag, 0, sizeof(*lag));
	lag->source = source[0] == 'e' ? ES_CHUNK_EVENTS : ES_CHUNK_OUTBOX;
	lag->most = most;
	EsOrderedReadBegin(&read, lag->source);
	if (most > 0)
		EsLogRows(lag->source, NULL, (EsPosition) Max(PG_GETARG_INT64(1), 0), PG_INT64_MAX, GetActiveSnapshot(),
				  visit, lag);
	EsOrderedReadEnd(&read);
}

/* es_lag_messages(source, position, at_most) */
Datum
es_lag_messages(PG_FUNCTION_ARGS)
{
	Lag			lag;

	count(fcinfo, &lag, PG_ARGISNULL(2) ? COUNT_DEFAULT : PG_GETARG_INT64(2));
	PG_RETURN_INT64(lag.n);
}

/* es_lag_since(source, position) */
Datum
es_lag_since(PG_FUNCTION_ARGS)
{
	Lag			lag;

	count(fcinfo, &lag, 1);
	if (lag.n == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(lag.since);
}
