/*
 * snapshot_fold.c
 *		Folding events to a state, as an aggregate and for es_state.
 *
 * A fold takes the events of one stream in version order, each once and none
 * left out; anything else would be a state that never was, so it is refused.
 * Where it begins is the caller's business: a stream that was truncated begins
 * later, and so does a fold that goes on from a snapshot.
 *
 * A built-in's state is a tree (snapshot_tree.c) and costs no function call and
 * no new jsonb for an event.  A function's state is the jsonb it returned, copied
 * once and freed when the next one comes.
 *
 * Memory: the fold and its state live in the context where it began.  An event
 * is brought in in the current context, which the caller resets: the executor
 * does for the aggregate, es_state for itself.
 */
#include "snapshot.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(es_fold_step);
PG_FUNCTION_INFO_V1(es_fold_end);
PG_FUNCTION_INFO_V1(es_given);

/* What an aggregate keeps from row to row, for all of its groups. */
typedef struct FoldReducer
{
	text	   *given;
	EsReducer  *reducer;
} FoldReducer;

/* A fold that begins with a state and its version, or with null and -1; in the current memory context. */
EsFold *
EsFoldBegin(const EsReducer *reducer, const text *stream, const Jsonb *state, int64 version)
{
	EsFold	   *fold = palloc0(sizeof(EsFold));

	fold->reducer = reducer;
	fold->context = CurrentMemoryContext;
	fold->stream = DatumGetTextPCopy(PointerGetDatum(stream));
	fold->version = version;
	if (reducer->builtin == NULL)
		fold->state = state ? datumCopy(JsonbPGetDatum(state), false, -1) : (Datum) 0;
	else
	{
		fold->tree = EsNodeMake(CurrentMemoryContext);
		if (state != NULL)
			EsNodeSetJsonb(fold->tree, state);
		else if (version < 0)
			EsBuiltinBegin(reducer->builtin, fold->tree);
	}
	return fold;
}

/* Which event a reducer failed at. */
static void
tell_event(void *arg)
{
	const EsFold *fold = arg;

	errcontext("reducer \"%s\" at version " INT64_FORMAT " of stream \"%.*s\"", fold->reducer->name, fold->version,
			   (int) VARSIZE_ANY_EXHDR(fold->stream), VARDATA_ANY(fold->stream));
}

static void
call_function(EsFold *fold, Datum row)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;
	MemoryContext old;

	InitFunctionCallInfoData(*fcinfo, unconstify(FmgrInfo *, &fold->reducer->function), 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = fold->state;
	fcinfo->args[0].isnull = fold->state == (Datum) 0;
	fcinfo->args[1].value = row;
	fcinfo->args[1].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		result = (Datum) 0;
	if (DatumGetPointer(result) == DatumGetPointer(fold->state))
		return;
	old = MemoryContextSwitchTo(fold->context);
	if (result != (Datum) 0)
		result = datumCopy(PointerGetDatum(PG_DETOAST_DATUM(result)), false, -1);
	if (fold->state != (Datum) 0)
		pfree(DatumGetPointer(fold->state));
	fold->state = result;
	MemoryContextSwitchTo(old);
}

/* An event as a row of es_event. */
static Datum
make_row(EsFold *fold, EsEventRow *event)
{
	if (fold->desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(fold->context);

		fold->desc = lookup_rowtype_tupdesc_copy(EsEventType(), -1);
		MemoryContextSwitchTo(old);
	}
	if (fold->desc->natts != Natts_es_event)
		elog(ERROR, "type \"es_event\" has %d attributes, expected %d", fold->desc->natts, Natts_es_event);
	return HeapTupleGetDatum(heap_form_tuple(fold->desc, event->values, event->nulls));
}

/* Bring the next event in; row is the same as a row of es_event, or 0. */
void
EsFoldEvent(EsFold *fold, EsEventRow *event, Datum row)
{
	ErrorContextCallback context = {error_context_stack, tell_event, fold};

	fold->version = DatumGetInt64(event->values[Anum_es_event_version - 1]);
	fold->events++;
	error_context_stack = &context;
	if (fold->reducer->builtin != NULL)
		EsBuiltinApply(fold->reducer->builtin, fold->tree, event);
	else
		call_function(fold, row != (Datum) 0 ? row : make_row(fold, event));
	error_context_stack = context.previous;
}

/* The state, which is the caller's, in the current memory context; NULL is null. */
Jsonb *
EsFoldState(const EsFold *fold)
{
	if (fold->tree != NULL)
		return EsNodeToJsonb(fold->tree);
	return fold->state == (Datum) 0 ? NULL : DatumGetJsonbPCopy(fold->state);
}

/* ---------------------------------------------------------------- the aggregate */

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* The reducer of an aggregate, found at the first row. */
static EsReducer *
get_reducer(FunctionCallInfo fcinfo, text *given)
{
	FoldReducer *known = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (known != NULL && same_text(known->given, given))
		return known->reducer;
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	known = palloc(sizeof(FoldReducer));
	known->given = DatumGetTextPCopy(PointerGetDatum(given));
	known->reducer = EsReducerGet(given);
	fcinfo->flinfo->fn_extra = known;
	MemoryContextSwitchTo(old);
	return known->reducer;
}

/* Take an event's row apart. */
static void
deform(Datum row, EsEventRow *event)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(row);
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(header), .t_data = header};

	if (desc->natts != Natts_es_event)
		elog(ERROR, "an event has %d attributes, expected %d", desc->natts, Natts_es_event);
	heap_deform_tuple(&tuple, desc, event->values, event->nulls);
	ReleaseTupleDesc(desc);
	EsArgRequire(event->nulls[Anum_es_event_stream - 1] || event->nulls[Anum_es_event_version - 1] ||
				 event->nulls[Anum_es_event_type - 1], "stream, version and type of an event");
}

/* The events of a fold are those of one stream, in order, without gaps. */
static void
check_next(const EsFold *fold, const EsReducer *reducer, const EsEventRow *event)
{
	const text *stream = DatumGetTextPP(event->values[Anum_es_event_stream - 1]);
	int64		version = DatumGetInt64(event->values[Anum_es_event_version - 1]);

	if (!same_text(stream, fold->stream))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot fold events of several streams to one state"),
				 errdetail("There are events of \"%s\" and of \"%s\".", text_to_cstring(fold->stream), text_to_cstring(stream)),
				 errhint("Use GROUP BY stream.")));
	if (reducer != fold->reducer)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the reducer must be the same for all events of a fold")));
	if (version <= fold->version)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events of stream \"%s\" are not in version order", text_to_cstring(stream)),
				 errdetail("Version " INT64_FORMAT " comes after version " INT64_FORMAT ".", version, fold->version),
				 errhint("Use es_fold(event, reducer ORDER BY version).")));
	if (version > fold->version + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("version " INT64_FORMAT " of stream \"%s\" is missing", fold->version + 1, text_to_cstring(stream)),
				 errdetail("Version " INT64_FORMAT " comes after version " INT64_FORMAT ".", version, fold->version),
				 errhint("Fold all events of a stream; a built-in reducer's option \"types\" passes over those it does not want.")));
}

/* es_fold_step(state, event, reducer): the aggregate's transition. */
Datum
es_fold_step(PG_FUNCTION_ARGS)
{
	EsFold	   *fold = PG_ARGISNULL(0) ? NULL : (EsFold *) PG_GETARG_POINTER(0);
	EsReducer  *reducer;
	EsEventRow	event;
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "es_fold_step called in non-aggregate context");
	EsArgRequire(PG_ARGISNULL(1), "event");
	EsArgRequire(PG_ARGISNULL(2), "reducer");
	reducer = get_reducer(fcinfo, PG_GETARG_TEXT_PP(2));
	deform(PG_GETARG_DATUM(1), &event);
	if (fold != NULL)
		check_next(fold, reducer, &event);
	else
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		fold = EsFoldBegin(reducer, DatumGetTextPP(event.values[Anum_es_event_stream - 1]), NULL, -1);
		MemoryContextSwitchTo(old);
	}
	EsFoldEvent(fold, &event, PG_GETARG_DATUM(1));
	PG_RETURN_POINTER(fold);
}

/* es_fold_end(state): the aggregate's result. */
Datum
es_fold_end(PG_FUNCTION_ARGS)
{
	Jsonb	   *state;

	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "es_fold_end called in non-aggregate context");
	state = PG_ARGISNULL(0) ? NULL : EsFoldState((EsFold *) PG_GETARG_POINTER(0));
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(state);
}

/* ---------------------------------------------------------------- tests of reducers and handlers */

/* One given event; what it leaves open follows from its version. */
static void
put_given(ReturnSetInfo *result, const EsBatch *batch, uint32 i, int64 version)
{
	static const AttrNumber columns[Natts_es_event] = {
		0, 0, 0, Anum_es_events_event_id, Anum_es_events_type, Anum_es_events_schema_version,
		Anum_es_events_source, Anum_es_events_data, Anum_es_events_metadata, Anum_es_events_correlation_id,
		Anum_es_events_causation_id, Anum_es_events_traceparent, Anum_es_events_occurred_at, 0
	};
	TimestampTz recorded_at = version * USECS_PER_SEC;	/* from 2000-01-01 00:00:00 UTC on */
	EsEventRow	event;

	for (int c = 0; c < Natts_es_event; c++)
		event.values[c] = EsColumnValue(&batch->columns[columns[c]], i, &event.nulls[c]);
	event.nulls[Anum_es_event_position - 1] = event.nulls[Anum_es_event_stream - 1] =
		event.nulls[Anum_es_event_version - 1] = event.nulls[Anum_es_event_recorded_at - 1] = false;
	event.values[Anum_es_event_position - 1] = Int64GetDatum(version + 1);
	event.values[Anum_es_event_stream - 1] = PointerGetDatum(batch->stream);
	event.values[Anum_es_event_version - 1] = Int64GetDatum(version);
	event.values[Anum_es_event_recorded_at - 1] = TimestampTzGetDatum(recorded_at);
	if (event.nulls[Anum_es_event_event_id - 1])
	{
		event.nulls[Anum_es_event_event_id - 1] = false;
		event.values[Anum_es_event_event_id - 1] =
			DirectFunctionCall2(es_uuid, PointerGetDatum(batch->stream),
								CStringGetTextDatum(psprintf(INT64_FORMAT, version)));
	}
	if (event.nulls[Anum_es_event_occurred_at - 1])
	{
		event.nulls[Anum_es_event_occurred_at - 1] = false;
		event.values[Anum_es_event_occurred_at - 1] = TimestampTzGetDatum(recorded_at);
	}
	tuplestore_putvalues(result->setResult, result->setDesc, event.values, event.nulls);
}

/* es_given(events, stream, from_version) */
Datum
es_given(PG_FUNCTION_ARGS)
{
	int64		from = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	EsBatch		batch = {0};

	EsArgRequire(PG_ARGISNULL(0), "events");
	batch.stream = PG_ARGISNULL(1) ? cstring_to_text("given-1") : EsArgName(fcinfo, 1, "stream name");
	(void) EsCategoryLength(batch.stream);
	if (from < 0 || from > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version " INT64_FORMAT, from)));
	InitMaterializedSRF(fcinfo, 0);
	EsBatchFromJson(&batch, PG_GETARG_JSONB_P(0));
	for (uint32 i = 0; i < batch.n; i++)
		put_given((ReturnSetInfo *) fcinfo->resultinfo, &batch, i, from + i);
	return (Datum) 0;
}
