/*
 * snapshot.c
 *		The state of a stream at any moment, and snapshots of it.
 *
 * es_state is a fold over what es_read_stream would return, begun at the newest
 * snapshot that holds.  Where a stream's limits leave events out, the fold must
 * begin with a snapshot that covers what was left out: the state of the rest
 * alone would be a wrong one, so without such a snapshot it is refused.
 *
 * Who takes snapshots by themselves: es_state, when it has just folded as many
 * events as the category's policy says.  It has the state in its hands, so all
 * it costs is one row in so many events; and a stream that nobody asks about
 * needs no snapshot.  Appending has no part in it: it neither waits nor fails
 * for it.  It happens only where the state is nobody's invention: a built-in
 * computes the same whoever asks, but a function sees the caller's search_path
 * and rights.  So the state of a function is kept only if the caller might have
 * stored it by es_snapshot anyway, which is a right of those who append.
 *
 * It reads with the statement's snapshot, like es_read_stream.  Under REPEATABLE
 * READ that may have the transaction's own events without those before them:
 * the fold sees the gap, and says so (SE006).
 */
#include "snapshot.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "privilege.h"

PG_FUNCTION_INFO_V1(es_state);
PG_FUNCTION_INFO_V1(es_snapshot);
PG_FUNCTION_INFO_V1(es_set_snapshot_policy);

/* A stream that is asked about. */
typedef struct Question
{
	const text *name;
	EsReducer  *reducer;
	Snapshot	mvcc;
	bool		exists;
	EsStream	stream;
	int64		head;			/* -1: no events */
	int64		lowest;			/* version that reads do not leave out */
} Question;

/* The answer. */
typedef struct Answer
{
	Jsonb	   *state;
	int64		version;		/* -1: of no events */
	EsPosition	position;		/* of the event with that version */
	int64		snapshot;		/* that the fold began with; -1: none */
	int64		events;			/* folded since */
} Answer;

/* The events of a stream on their way into a fold. */
typedef struct Folding
{
	const Question *question;
	EsFold	   *fold;
	EsPosition	position;
	MemoryContext scratch;		/* of one event */
} Folding;

static bool
take_time(TupleTableSlot *slot, void *arg)
{
	bool		isnull;

	*(TimestampTz *) arg = DatumGetTimestampTz(slot_getattr(slot, Anum_es_events_recorded_at, &isnull));
	return false;
}

/* The first version that was recorded after a time; head + 1 if there is none. */
static int64
first_after(const Question *q, TimestampTz time)
{
	int64		low = 0;
	int64		high = q->head + 1;

	while (low < high)
	{
		int64		middle = low + (high - low) / 2;
		TimestampTz recorded_at = DT_NOBEGIN;

		CHECK_FOR_INTERRUPTS();
		EsStreamScan(&q->stream, middle, middle, false, q->mvcc, take_time, &recorded_at);
		if (recorded_at > time)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Find a stream, its head, and what its limits leave. */
static void
begin_question(Question *q, const text *name, EsReducer *reducer)
{
	TimestampTz oldest;

	*q = (Question) {name, reducer, GetActiveSnapshot(), false, {0}, -1, 0};
	AcceptInvalidationMessages();
	EsReducerIdentity(reducer, &reducer->identity);
	q->exists = EsStreamFind(name, q->mvcc, &q->stream);
	if (!q->exists)
		return;
	EsStreamCheckAlive(&q->stream, name);
	q->head = EsStreamHead(&q->stream, q->mvcc).version;
	q->lowest = EsStreamLowest(&q->stream, q->mvcc);
	oldest = EsStreamOldest(&q->stream);
	if (!TIMESTAMP_IS_NOBEGIN(oldest))
		q->lowest = Max(q->lowest, first_after(q, oldest - 1));
}

static void
check_version(const Question *q, int64 version)
{
	if (version < -1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version " INT64_FORMAT, version),
				 errhint("Use a version from 0 on, or -1 for the state before the first event.")));
	if (version > q->head)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no version " INT64_FORMAT " yet", text_to_cstring(q->name), version),
				 errdetail("It is at version " INT64_FORMAT ".", q->head)));
}

static bool
fold_event(TupleTableSlot *slot, void *arg)
{
	Folding    *folding = arg;
	int64		expected = folding->fold->version + 1;
	EsEventRow	event;
	MemoryContext old = MemoryContextSwitchTo(folding->scratch);

	EsEventOf(slot, folding->question->name, event.values, event.nulls);
	if (DatumGetInt64(event.values[Anum_es_event_version - 1]) != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ES_NOT_ORDERED),
				 errmsg("version " INT64_FORMAT " of stream \"%s\" is not there", expected,
						text_to_cstring(folding->question->name)),
				 errdetail("What this transaction appended follows events that its snapshot does not see, or events were removed."),
				 errhint("Use READ COMMITTED.")));
	folding->position = (EsPosition) DatumGetInt64(event.values[Anum_es_event_position - 1]);
	EsFoldEvent(folding->fold, &event, (Datum) 0);
	MemoryContextSwitchTo(old);
	MemoryContextReset(folding->scratch);
	return true;
}

/* Without a snapshot a fold must begin with the stream's first event. */
static void
check_beginning(const Question *q, int64 version)
{
	if (q->lowest == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the state of stream \"%s\" at version " INT64_FORMAT " cannot be computed",
					text_to_cstring(q->name), version),
			 errdetail("Its truncate_before, max_count or max_age leaves out versions below " INT64_FORMAT ", and no snapshot by reducer \"%s\" stands for them.",
					   q->lowest, q->reducer->name),
			 errhint("Take a snapshot with es_snapshot before events are left out. To fold what is left, use es_fold over es_read_stream.")));
}

/* The state at a version, which the stream has, with the help of snapshots up to some version. */
static Answer
answer(const Question *q, int64 version, int64 highest)
{
	Folding		folding = {q};
	EsSnapshot	begin = {-1, 0, NULL};
	Answer		result = {NULL, version, 0, -1, 0};

	if (version < 0)
		return result;
	if (EsSnapshotFind(&q->stream, q->reducer, Max(q->lowest - 1, 0), highest, q->mvcc, &begin))
		result.snapshot = begin.version;
	else
	{
		begin = (EsSnapshot) {-1, 0, NULL};
		check_beginning(q, version);
	}
	folding.position = begin.position;
	folding.fold = EsFoldBegin(q->reducer, q->name, begin.state, begin.version);
	folding.scratch = AllocSetContextCreate(CurrentMemoryContext, "es_pg fold", ALLOCSET_DEFAULT_SIZES);
	EsStreamScan(&q->stream, begin.version + 1, version, false, q->mvcc, fold_event, &folding);
	MemoryContextDelete(folding.scratch);
	result.state = EsFoldState(folding.fold);
	result.position = folding.position;
	result.events = folding.fold->events;
	return result;
}

/* May the current user say what a state in this category is?  That right is es_snapshot's. */
static bool
may_say(const text *category)
{
	Oid			types[] = {TEXTOID, TEXTOID, INT8OID, JSONBOID};
	Oid			function = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum("es_snapshot"),
										   PointerGetDatum(buildoidvector(types, lengthof(types))),
										   ObjectIdGetDatum(EsCatalogGet()->schema));

	return OidIsValid(function) &&
		EsPrivilegeHeld(function, ES_PRIVILEGE_APPEND, VARDATA_ANY(category), VARSIZE_ANY_EXHDR(category));
}

/* Take the snapshot that the policy says is due. */
static void
take_if_due(const Question *q, const Answer *a)
{
	text	   *category = cstring_to_text_with_len(VARDATA_ANY(q->name), EsCategoryLength(q->name));
	EsSnapshotPolicy policy;

	if (a->events == 0 || RecoveryInProgress() || XactReadOnly || IsolationUsesXactSnapshot() || IsInParallelMode())
		return;
	if (!EsSnapshotPolicyFind(category, q->reducer, q->mvcc, &policy) || a->events < policy.every)
		return;
	if (a->version < q->head && policy.keep > 0)
		return;					/* it would be the first to go */
	if (q->reducer->builtin == NULL && !may_say(category))
		return;
	(void) EsSnapshotTryStore(&q->stream, q->reducer, &(EsSnapshot) {a->version, a->position, a->state}, policy.keep);
}

static Datum
make_answer(FunctionCallInfo fcinfo, const Answer *a)
{
	Datum		values[4];
	bool		nulls[4] = {a->state == NULL, false, a->snapshot < 0, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != lengthof(values))
		elog(ERROR, "unexpected result type of es_state");
	values[0] = JsonbPGetDatum(a->state);
	values[1] = Int64GetDatum(a->version);
	values[2] = Int64GetDatum(a->snapshot);
	values[3] = Int64GetDatum(a->events);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

static EsReducer *
argument_reducer(FunctionCallInfo fcinfo, int arg)
{
	EsArgRequire(PG_ARGISNULL(arg), "reducer");
	return EsReducerGet(PG_GETARG_TEXT_PP(arg));
}

/* es_state(stream, reducer, at_version, at_time) */
Datum
es_state(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "stream name");
	EsReducer  *reducer = argument_reducer(fcinfo, 1);
	Question	q;
	Answer		a;
	int64		version;

	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at_version and at_time must not both be given")));
	begin_question(&q, name, reducer);
	version = q.head;
	if (!PG_ARGISNULL(2))
	{
		version = PG_GETARG_INT64(2);
		check_version(&q, version);
	}
	else if (!PG_ARGISNULL(3))
		version = first_after(&q, PG_GETARG_TIMESTAMPTZ(3)) - 1;
	a = answer(&q, version, version);
	take_if_due(&q, &a);
	return make_answer(fcinfo, &a);
}

/* es_snapshot(stream, reducer, version, state) */
Datum
es_snapshot(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "stream name");
	Question	q;
	Answer		a = {0};

	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_APPEND, VARDATA_ANY(name), EsCategoryLength(name));
	PreventCommandIfReadOnly("es_snapshot()");
	begin_question(&q, name, argument_reducer(fcinfo, 1));
	if (PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("version must not be null where a state is given"),
				 errhint("It is the version that es_state returned, or that of the newest event in the state.")));
	a.version = PG_ARGISNULL(2) ? q.head : PG_GETARG_INT64(2);
	check_version(&q, a.version);
	if (a.version < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no events at version " INT64_FORMAT, text_to_cstring(name), a.version)));
	/* One of that very version may be what is to be mended, unless it is all there is. */
	if (PG_ARGISNULL(3))
		a = answer(&q, a.version, q.lowest > a.version ? a.version : a.version - 1);
	else
	{
		a.position = EsStreamPosition(&q.stream, a.version, q.mvcc);
		a.state = PG_GETARG_JSONB_P(3);
	}
	EsSnapshotStore(&q.stream, q.reducer, &(EsSnapshot) {a.version, a.position, a.state});
	PG_RETURN_INT64(a.version);
}

/* How many events, or snapshots. */
static int64
argument_number(FunctionCallInfo fcinfo, int arg, int64 standard, const char *what, bool or_all)
{
	int64		value = PG_ARGISNULL(arg) ? standard : PG_GETARG_INT64(arg);

	if (value < 1 && !(or_all && value == -1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least 1%s", what, or_all ? ", or -1 for all" : "")));
	return value;
}

/*
 * es_set_snapshot_policy(category, reducer, every, keep).  In C because the
 * reducer's name is looked up as the caller, and the row is written as the owner.
 */
Datum
es_set_snapshot_policy(PG_FUNCTION_ARGS)
{
	text	   *category = EsArgName(fcinfo, 0, "category");
	EsReducer  *reducer = argument_reducer(fcinfo, 1);
	Datum		values[] = {
		PointerGetDatum(category),
		CStringGetTextDatum(reducer->name),
		Int64GetDatum(argument_number(fcinfo, 2, 100, "every", false)),
		Int64GetDatum(argument_number(fcinfo, 3, 2, "keep", true))
	};
	EsOwner		before;

	if (memchr(VARDATA_ANY(category), '-', VARSIZE_ANY_EXHDR(category)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid category \"%s\"", text_to_cstring(category)),
				 errdetail("A category is what stands before the first \"-\" of a stream's name.")));
	PreventCommandIfReadOnly("es_set_snapshot_policy()");
	EsOwnerBegin(&before);
	SPI_connect();
	if (SPI_execute_with_args(psprintf("INSERT INTO %s.es_snapshot_policies AS p VALUES ($1, $2, $3, $4)"
									   " ON CONFLICT (category, reducer) DO UPDATE SET every = excluded.every, keep = excluded.keep",
									   quote_identifier(get_namespace_name(EsCatalogGet()->schema))),
							  lengthof(values), (Oid[]) {TEXTOID, TEXTOID, INT8OID, INT8OID}, values,
							  NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write es_snapshot_policies");
	SPI_finish();
	EsOwnerEnd(&before);
	PG_RETURN_VOID();
}
