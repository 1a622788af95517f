/*
 * projection_run.c
 *		Asynchronous projections: a batch of the subscription, applied and
 *		acknowledged in one transaction.
 *
 * Who runs a version holds a lock of its own number, to the end of his
 * transaction, and fetches after he has it; all of them fetch as one and the same
 * consumer.  So no event is applied twice, whoever runs it, and lanes never
 * change hands.
 *
 * The batch is applied in a subtransaction.  Where that fails, halves of it are
 * tried, down to the one event that fails; for that the projection's policy is
 * asked.  Errors that say nothing of the event (a deadlock, a cancel, a full
 * disk) are passed on: the transaction is over, and the batch comes again.
 *
 * Within a lane positions rise, so what was applied of it is acknowledged up to
 * the last of them; an event that failed was parked before that (es_nack) or is
 * where the projection stopped.
 */
#include "projection.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"

PG_FUNCTION_INFO_V1(es_run_projections);
PG_FUNCTION_INFO_V1(es_run_version);

#define CONSUMER		"es_pg projections"
#define BATCH_MAX		1000000
#define REBUILD_BATCH	10000	/* events a batch of one that is built, at least */

static EsStatement read_state = {
	"SELECT COALESCE(NULLIF(p.state, 'active'), NULLIF(s.state, 'active'), 'active'), p.error"
	" FROM @.es_projections AS p LEFT JOIN @.es_subscriptions AS s ON s.name = $2"
	" WHERE p.projection_id = $1", 2, {INT4OID, TEXTOID}
};

/* A wait so short that it is one look, but asks for no notification. */
static EsStatement fetch_quietly = {
	"SELECT * FROM @.es_fetch($1, $2, $3, '1 us')", 3, {TEXTOID, TEXTOID, INT4OID}
};
static EsStatement fetch = {
	"SELECT * FROM @.es_fetch($1, $2, $3)", 3, {TEXTOID, TEXTOID, INT4OID}
};
static EsStatement acknowledge = {
	"SELECT @.es_ack($1, $2, $3, $4)", 4, {TEXTOID, INT4OID, INT8OID, INT8OID}
};
static EsStatement refuse = {
	"SELECT * FROM @.es_nack($1, $2, $3, $4, $5, NULL, $6)",
	6, {TEXTOID, INT4OID, INT8OID, INT8OID, TEXTOID, BOOLOID}
};
static EsStatement note_error = {
	"UPDATE @.es_projections SET error = $2, error_sqlstate = $3, error_position = $4,"
	" failed_at = pg_catalog.clock_timestamp(), state = CASE WHEN $5 THEN 'stopped' ELSE state END"
	" WHERE projection_id = $1", 5, {INT4OID, TEXTOID, TEXTOID, INT8OID, BOOLOID}
};

typedef enum RowState
{
	ROW_WAITS,
	ROW_DONE,					/* applied, or refused */
	ROW_BEHIND					/* parked behind one that was refused */
} RowState;

/* A batch in progress. */
typedef struct Batch
{
	EsProjection *projection;
	uint64		n;
	EsDelivered *rows;
	RowState   *states;
	bool		moved;			/* something was applied */
	bool		stopped;
} Batch;

/*
 * Be the one who runs a version, to the end of the transaction; false: another
 * one is, and we do not wait.
 */
bool
EsProjectionTryLock(int32 id, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, EsCatalogGet()->projections, id, 0);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static Datum
value(const Batch *batch, uint64 i, int column)
{
	return batch->rows[i].values[column];
}

/* ---------------------------------------------------------------- errors */

/* Is an error about what was tried, and not about the circumstances? */
static bool
is_about_the_event(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
				error->sqlerrcode != ERRCODE_QUERY_CANCELED &&
				error->sqlerrcode != ERRCODE_IDLE_SESSION_TIMEOUT;
	}
}

/* Leave word of an error in es_projections, and in the server's log. */
static void
note(const Batch *batch, const ErrorData *error, EsPosition position, bool stop)
{
	Datum		args[] = {
		Int32GetDatum(batch->projection->id), CStringGetTextDatum(error->message),
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)), Int64GetDatum((int64) position), BoolGetDatum(stop)
	};

	EsStatementRun(&note_error, args, position == 0 ? "   n " : NULL);
}

/* Rows of a batch failed together, and parts of them did not. */
static void
note_split(const Batch *batch, const ErrorData *error, uint64 n)
{
	note(batch, error, 0, false);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("projection \"%s\": " UINT64_FORMAT " events failed together and not one by one: %s",
					batch->projection->name, n, error->message),
			 errhint("Its body must not depend on how events are cut into batches.")));
}

/* Park an event, and what of its key comes behind it. */
static void
refuse_event(Batch *batch, uint64 i, const ErrorData *error)
{
	Datum		args[] = {
		CStringGetTextDatum(batch->projection->subscription), value(batch, i, DELIVERY_LANE),
		value(batch, i, DELIVERY_EPOCH), value(batch, i, DELIVERY_POSITION),
		CStringGetTextDatum(error->message), BoolGetDatum(batch->projection->on_error == 'k')
	};
	uint64		n = EsStatementRun(&refuse, args, NULL);

	for (uint64 j = 0; j < n; j++)
	{
		bool		isnull;
		Datum		behind = SPI_getbinval(SPI_tuptable->vals[j], SPI_tuptable->tupdesc, 1, &isnull);

		for (uint64 k = 0; k < batch->n; k++)
		{
			if (value(batch, k, DELIVERY_POSITION) == behind && batch->states[k] == ROW_WAITS)
				batch->states[k] = ROW_BEHIND;
		}
	}
	batch->states[i] = ROW_DONE;
}

/* Would every event fail like this, so that a policy for one that fails is not to be asked? */
static bool
fails_for_all(const EsProjection *projection, const ErrorData *error)
{
	return projection->statement == NULL ||
		error->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE;
}

/* One event failed by itself. */
static void
fail_event(Batch *batch, uint64 i, const ErrorData *error)
{
	static const char *const done[] = {['s'] = "stopped", ['p'] = "parked it", ['k'] = "skipped it"};
	EsPosition	position = (EsPosition) DatumGetInt64(value(batch, i, DELIVERY_POSITION));
	bool		stop = batch->projection->on_error == 's' || fails_for_all(batch->projection, error);

	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("projection \"%s\" failed at position " UINT64_FORMAT " and %s: %s", batch->projection->name,
					position, done[stop ? 's' : (int) batch->projection->on_error], error->message)));
	note(batch, error, position, stop);
	if (stop)
		batch->stopped = true;
	else
		refuse_event(batch, i, error);
}

/* ---------------------------------------------------------------- applying */

/* The rows from "from" to below "to" that wait, as a body sees them; how many. */
static Tuplestorestate *
rows_of(const Batch *batch, uint64 from, uint64 to, int64 *n)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	TupleDesc	shape = EsProjectionShape(batch->projection);

	*n = 0;
	for (uint64 i = from; i < to; i++)
	{
		Datum		values[Natts_es_delivery];
		bool		nulls[Natts_es_delivery];

		if (batch->states[i] != ROW_WAITS)
			continue;
		EsProjectionValues(batch->projection, batch->rows[i].values, batch->rows[i].nulls, values, nulls);
		tuplestore_putvalues(rows, shape, values, nulls);
		(*n)++;
	}
	return rows;
}

/* Apply rows in a subtransaction; NULL, or the error that undid it. */
static ErrorData *
try_apply(Batch *batch, uint64 from, uint64 to)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	int64		n;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		Tuplestorestate *rows = rows_of(batch, from, to, &n);

		if (n > 0)
			EsProjectionApply(batch->projection, rows, n);
		tuplestore_end(rows);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && !is_about_the_event(error))
		ReThrowError(error);
	return error;
}

static void
mark_applied(Batch *batch, uint64 from, uint64 to)
{
	for (uint64 i = from; i < to; i++)
	{
		if (batch->states[i] != ROW_WAITS)
			continue;
		batch->states[i] = ROW_DONE;
	}
	batch->moved = true;
}

/* Rows from "from" to below "to" that wait. */
static uint64
count_waiting(const Batch *batch, uint64 from, uint64 to, uint64 *first)
{
	uint64		n = 0;

	for (uint64 i = from; i < to; i++)
	{
		if (batch->states[i] != ROW_WAITS)
			continue;
		if (n++ == 0)
			*first = i;
	}
	return n;
}

/* Apply rows, all or in parts; true when an event was found that fails by itself. */
static bool
apply(Batch *batch, uint64 from, uint64 to)
{
	uint64		middle = from + (to - from) / 2;
	uint64		first = from;
	uint64		n = count_waiting(batch, from, to, &first);
	ErrorData  *error;
	bool		failed;

	CHECK_FOR_INTERRUPTS();
	if (batch->stopped || n == 0)
		return false;
	error = try_apply(batch, from, to);
	if (error == NULL)
	{
		mark_applied(batch, from, to);
		return false;
	}
	if (n == 1)
	{
		fail_event(batch, first, error);
		return true;
	}
	failed = apply(batch, from, middle);
	failed |= apply(batch, middle, to);
	if (!failed && to - from == batch->n)
		note_split(batch, error, n);
	return failed;
}

/* ---------------------------------------------------------------- a batch */

static void
fetch_batch(Batch *batch, int32 max_count)
{
	bool		quiet = !EsHorizonWriting() && !TransactionIdIsValid(GetTopTransactionIdIfAny());
	Datum		args[] = {
		CStringGetTextDatum(batch->projection->subscription), CStringGetTextDatum(CONSUMER), Int32GetDatum(max_count)
	};

	batch->n = EsStatementRun(quiet ? &fetch_quietly : &fetch, args, NULL);
	batch->rows = palloc_extended(sizeof(EsDelivered) * (batch->n + 1), MCXT_ALLOC_HUGE);
	batch->states = palloc0(sizeof(RowState) * (batch->n + 1));
	for (uint64 i = 0; i < batch->n; i++)
		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, batch->rows[i].values, batch->rows[i].nulls);
}

/* Acknowledge each lane up to the last of its rows that is done; those before it are, too. */
static void
acknowledge_lanes(const Batch *batch)
{
	for (uint64 i = batch->n; i-- > 0;)
	{
		bool		later = false;

		if (batch->states[i] == ROW_WAITS)
			continue;
		for (uint64 j = i + 1; j < batch->n && !later; j++)
			later = batch->states[j] != ROW_WAITS &&
				value(batch, j, DELIVERY_LANE) == value(batch, i, DELIVERY_LANE);
		if (!later)
		{
			Datum		args[] = {
				CStringGetTextDatum(batch->projection->subscription), value(batch, i, DELIVERY_LANE),
				value(batch, i, DELIVERY_EPOCH), value(batch, i, DELIVERY_POSITION)
			};

			EsStatementRun(&acknowledge, args, NULL);
		}
	}
}

/* Run a batch of a projection that this transaction has the lock of; how many rows are done with. */
static int64
run_batch(EsProjection *projection, int32 max_count, bool *empty)
{
	Batch		batch = {projection};
	uint64		first;
	int64		done;

	SPI_connect();
	EsProjectionsUse();
	PG_TRY();
	{
		fetch_batch(&batch, max_count);
		(void) apply(&batch, 0, batch.n);
		acknowledge_lanes(&batch);
		if (batch.moved)
			EsProjectionMoved(projection);
	}
	PG_FINALLY();
	{
		EsProjectionsRelease();
	}
	PG_END_TRY();
	done = (int64) (batch.n - count_waiting(&batch, 0, batch.n, &first));
	*empty = batch.n == 0;
	SPI_finish();
	return done;
}

/* ---------------------------------------------------------------- one projection */

static EsStatement try_swap = {
	"SELECT @.es_try_swap($1)", 1, {INT4OID}
};

static EsProjection *
find_projection(int32 id)
{
	ListCell   *cell;

	AcceptInvalidationMessages();
	foreach(cell, EsProjectionsGet())
	{
		EsProjection *projection = lfirst(cell);

		if (projection->id == id)
			return projection;
	}
	return NULL;
}

/* May it run?  If somebody asked for this one, an error says why not. */
static bool
is_active(const EsProjection *projection, bool asked)
{
	Datum		args[] = {Int32GetDatum(projection->id), CStringGetTextDatum(projection->subscription)};
	char	   *state = NULL;
	char	   *error = NULL;

	SPI_connect();
	if (EsStatementRun(&read_state, args, NULL) > 0)
	{
		state = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		error = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	}
	if (asked && state != NULL && strcmp(state, "active") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" is %s", projection->name, state),
				 error ? errdetail("%s", error) : 0,
				 errhint("Use es_resume_projection.")));
	state = state != NULL && strcmp(state, "active") == 0 ? state : NULL;
	SPI_finish();
	return state != NULL;
}

/*
 * Run a batch of one version, if nobody else does and it is active; how many
 * events there were.  One that is built, has nothing left and is to be swapped in
 * is: that is something, too.
 */
int64
EsProjectionRun(int32 id, int32 max_count, bool asked)
{
	EsProjection *projection;
	Datum		args[] = {Int32GetDatum(id)};
	bool		empty;
	int64		n;

	EsProjectionsLock();
	if (!EsProjectionTryLock(id, false))
		return 0;
	projection = find_projection(id);
	if (projection == NULL || projection->is_inline || !is_active(projection, asked && projection->live))
		return 0;
	if (max_count == 0)
		max_count = projection->live ? projection->batch_size : Max(projection->batch_size, REBUILD_BATCH);
	n = run_batch(projection, max_count, &empty);
	if (empty && !projection->live && !EsHorizonWriting())
	{
		SPI_connect();
		EsStatementRun(&try_swap, args, NULL);
		SPI_finish();
	}
	return n;
}

/* The numbers of the versions that are run, of one projection if there is a name; by name, live ones first. */
List *
EsProjectionNumbers(const char *name)
{
	List	   *numbers = NIL;
	bool		found = name == NULL;
	ListCell   *cell;

	foreach(cell, EsProjectionsGet())
	{
		const EsProjection *projection = lfirst(cell);

		if (name != NULL && strcmp(projection->name, name) != 0)
			continue;
		found = true;
		if (!projection->is_inline)
			numbers = lappend_int(numbers, projection->id);
	}
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", name),
				 errhint("Use es_create_projection.")));
	return numbers;
}

/* es_run_projections(name, max_count) */
Datum
es_run_projections(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	int32		max_count = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	int64		n = 0;
	ListCell   *cell;

	if (!PG_ARGISNULL(1) && (max_count < 1 || max_count > BATCH_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be between 1 and 1,000,000")));
	PreventCommandIfReadOnly("es_run_projections()");
	EsRequirePrimary();
	EsOrderedReadCheck();
	if (EsProjectionsInUse())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot run projections inside the body of a projection")));
	EsProjectionsLock();
	foreach(cell, EsProjectionNumbers(name))
		n += EsProjectionRun(lfirst_int(cell), max_count, name != NULL);
	PG_RETURN_INT64(n);
}

/* es_run_version(projection_id): a batch of one that this transaction has the lock of. */
Datum
es_run_version(PG_FUNCTION_ARGS)
{
	EsProjection *projection = find_projection(PG_GETARG_INT32(0));
	bool		empty;

	if (EsHorizonWriting())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot swap a projection in a transaction that has appended"),
				 errdetail("Its events would be missing."),
				 errhint("Commit first.")));
	PG_RETURN_INT64(projection ? run_batch(projection, Max(projection->batch_size, REBUILD_BATCH), &empty) : 0);
}
