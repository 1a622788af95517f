/*
 * stream_args.c
 *		The three forms of append: what they are called with becomes an EsBatch.
 *
 * Everything is checked here, before anything is locked: so a refused call has
 * cost nobody else anything.
 */
#include "stream.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "privilege.h"

PG_FUNCTION_INFO_V1(es_append);
PG_FUNCTION_INFO_V1(es_append_batch);
PG_FUNCTION_INFO_V1(es_append_json);

/* What every form takes: the stream, the expected version, the trace. */
static void
begin_batch(EsBatch *batch, FunctionCallInfo fcinfo, int expected_arg)
{
	memset(batch, 0, sizeof(*batch));
	batch->stream = EsArgName(fcinfo, 0, "stream name");
	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_APPEND, VARDATA_ANY(batch->stream), EsCategoryLength(batch->stream));
	batch->expected = PG_ARGISNULL(expected_arg) ? ES_ANY : PG_GETARG_INT64(expected_arg);
	EsColumnSetText(&batch->columns[Anum_es_events_traceparent], EsSettingTraceparent());
}

/* The row type that a function returns; the caller releases it. */
static TupleDesc
result_type(FmgrInfo *flinfo)
{
	Oid			type = get_fn_expr_rettype(flinfo);

	if (!OidIsValid(type))
		type = get_func_rettype(flinfo->fn_oid);
	return lookup_rowtype_tupdesc(type, -1);
}

/* Append, and make the row that the caller gets. */
static Datum
finish(EsBatch *batch, FunctionCallInfo fcinfo)
{
	TupleDesc	desc;
	HeapTuple	row;
	Datum		values[3];
	bool		nulls[3] = {false};
	int64		version;
	EsPosition	position;
	pg_uuid_t	id;

	EsAppend(batch, &version, &position, &id);
	values[0] = Int64GetDatum(version);
	values[1] = Int64GetDatum((int64) position);
	values[2] = UUIDPGetDatum(&id);
	desc = result_type(fcinfo->flinfo);
	row = heap_form_tuple(desc, values, nulls);
	ReleaseTupleDesc(desc);
	return HeapTupleGetDatum(row);
}

/* es_append(stream, type, data, expected_version, metadata, event_id,
 *			 schema_version, occurred_at, correlation_id, causation_id) */
Datum
es_append(PG_FUNCTION_ARGS)
{
	EsBatch		batch;

	begin_batch(&batch, fcinfo, 3);
	batch.n = 1;
	EsColumnSet(&batch.columns[Anum_es_events_type], PointerGetDatum(EsArgName(fcinfo, 1, "event type")));
	EsArgRequire(PG_ARGISNULL(2), "event data");
	EsColumnSet(&batch.columns[Anum_es_events_data], PG_GETARG_DATUM(2));
	if (!PG_ARGISNULL(4))
		EsColumnSet(&batch.columns[Anum_es_events_metadata], PG_GETARG_DATUM(4));
	if (!PG_ARGISNULL(5))
		EsColumnSet(&batch.columns[Anum_es_events_event_id], PG_GETARG_DATUM(5));
	if (!PG_ARGISNULL(6))
		EsColumnSet(&batch.columns[Anum_es_events_schema_version],
					 PointerGetDatum(EsArgName(fcinfo, 6, "schema version")));
	if (!PG_ARGISNULL(7))
		EsColumnSet(&batch.columns[Anum_es_events_occurred_at], PG_GETARG_DATUM(7));
	EsColumnSetId(&batch.columns[Anum_es_events_correlation_id], fcinfo, 8, EsSettingCorrelationId(), "correlation id");
	EsColumnSetId(&batch.columns[Anum_es_events_causation_id], fcinfo, 9, EsSettingCausationId(), "causation id");
	return finish(&batch, fcinfo);
}

/* An array argument becomes a column; the event types, the first, give the batch its length. */
static void
set_array(EsBatch *batch, AttrNumber column, FunctionCallInfo fcinfo, int arg,
		  bool required, const char *what)
{
	int			n = column == Anum_es_events_type ? -1 : (int) batch->n;

	batch->n = EsColumnSetArray(&batch->columns[column], n, fcinfo, arg, required, what);
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(DatumGetUUIDP(*(const Datum *) a), DatumGetUUIDP(*(const Datum *) b), UUID_LEN);
}

/* No event id twice in one batch. */
static void
check_ids(const EsBatch *batch)
{
	const EsColumn *c = &batch->columns[Anum_es_events_event_id];
	Datum	   *sorted;

	if (c->values == NULL)
		return;
	sorted = palloc_extended(batch->n * sizeof(Datum), MCXT_ALLOC_HUGE);
	memcpy(sorted, c->values, batch->n * sizeof(Datum));
	qsort(sorted, batch->n, sizeof(Datum), compare_ids);
	for (uint32 i = 1; i < batch->n; i++)
	{
		if (compare_ids(&sorted[i - 1], &sorted[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event id %s is twice in one batch",
							DatumGetCString(DirectFunctionCall1(uuid_out, sorted[i])))));
	}
	pfree(sorted);
}

/* es_append_batch(stream, types[], data[], expected_version, metadata[], event_ids[],
 *				   schema_versions[], occurred_at[], correlation_id, causation_id) */
Datum
es_append_batch(PG_FUNCTION_ARGS)
{
	EsBatch		batch;

	begin_batch(&batch, fcinfo, 3);
	set_array(&batch, Anum_es_events_type, fcinfo, 1, true, "event types");
	set_array(&batch, Anum_es_events_data, fcinfo, 2, true, "event data");
	set_array(&batch, Anum_es_events_metadata, fcinfo, 4, false, "metadata");
	set_array(&batch, Anum_es_events_event_id, fcinfo, 5, false, "event ids");
	EsColumnRefuseNulls(&batch.columns[Anum_es_events_event_id], batch.n, "event ids");
	set_array(&batch, Anum_es_events_schema_version, fcinfo, 6, false, "schema versions");
	set_array(&batch, Anum_es_events_occurred_at, fcinfo, 7, false, "times of occurrence");
	EsColumnSetId(&batch.columns[Anum_es_events_correlation_id], fcinfo, 8, EsSettingCorrelationId(), "correlation id");
	EsColumnSetId(&batch.columns[Anum_es_events_causation_id], fcinfo, 9, EsSettingCausationId(), "causation id");
	EsColumnCheckNames(&batch.columns[Anum_es_events_type], batch.n, "event type");
	EsColumnCheckNames(&batch.columns[Anum_es_events_schema_version], batch.n, "schema version");
	check_ids(&batch);
	return finish(&batch, fcinfo);
}

/* The keys of an event in JSON, and where each goes. */
static const struct JsonKey
{
	const char *name;
	AttrNumber	column;
	Oid			type;
}			json_keys[] = {
	{"type", Anum_es_events_type, TEXTOID},
	{"data", Anum_es_events_data, JSONBOID},
	{"metadata", Anum_es_events_metadata, JSONBOID},
	{"id", Anum_es_events_event_id, UUIDOID},
	{"schema_version", Anum_es_events_schema_version, TEXTOID},
	{"source", Anum_es_events_source, TEXTOID},
	{"occurred_at", Anum_es_events_occurred_at, TIMESTAMPTZOID},
	{"correlation_id", Anum_es_events_correlation_id, TEXTOID},
	{"causation_id", Anum_es_events_causation_id, TEXTOID},
	{"traceparent", Anum_es_events_traceparent, TEXTOID},
};

static const struct JsonKey *
find_json_key(const JsonbValue *key)
{
	for (size_t i = 0; i < lengthof(json_keys); i++)
	{
		if ((size_t) key->val.string.len == strlen(json_keys[i].name) &&
			memcmp(key->val.string.val, json_keys[i].name, key->val.string.len) == 0)
			return &json_keys[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown key \"%.*s\" in an event", key->val.string.len, key->val.string.val),
			 errhint("Keys are type, data, metadata, id, schema_version, source, occurred_at, correlation_id, causation_id and traceparent.")));
	return NULL;				/* keep the compiler quiet */
}

/* A JSON value as a value of the column that its key names. */
static Datum
json_datum(const struct JsonKey *key, JsonbValue *value)
{
	char	   *string;

	if (key->type == JSONBOID)
		return JsonbPGetDatum(JsonbValueToJsonb(value));
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key \"%s\" of an event must be a string", key->name)));
	string = pnstrdup(value->val.string.val, value->val.string.len);
	if (key->column == Anum_es_events_traceparent && !EsIsTraceparent(string))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid traceparent \"%s\"", string),
				 errdetail("A traceparent looks like \"%s\".", ES_TRACEPARENT_EXAMPLE)));
	switch (key->type)
	{
		case UUIDOID:
			return DirectFunctionCall1(uuid_in, CStringGetDatum(string));
		case TIMESTAMPTZOID:
			return DirectFunctionCall3(timestamptz_in, CStringGetDatum(string),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		default:
			EsCheckName(cstring_to_text(string), key->name);
			return CStringGetTextDatum(string);
	}
}

/* Take one element of the array of events. */
static void
take_json_event(EsBatch *batch, uint32 i, JsonbValue *event)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	item;
	const struct JsonKey *key = NULL;

	if (event->type != jbvBinary || !JsonContainerIsObject(event->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("each event must be a JSON object")));

	iterator = JsonbIteratorInit(event->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = find_json_key(&item);
		else if (token == WJB_VALUE && item.type != jbvNull)
		{
			batch->columns[key->column].values[i] = json_datum(key, &item);
			batch->columns[key->column].nulls[i] = false;
		}
	}
	EsArgRequire(batch->columns[Anum_es_events_type].nulls[i], "event type");
	EsArgRequire(batch->columns[Anum_es_events_data].nulls[i], "event data");
}

/* Event ids are for all events or for none: half a retry could not be told. */
static void
settle_json_ids(EsBatch *batch)
{
	EsColumn   *ids = &batch->columns[Anum_es_events_event_id];
	uint32		given = 0;

	for (uint32 i = 0; i < batch->n; i++)
		given += !ids->nulls[i];
	if (given == 0)
		ids->values = NULL;
	else if (given < batch->n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("either all events of a batch have an id, or none")));
}

/* Where an event has no id of its own in this column, the setting's. */
static void
fill_from_setting(EsBatch *batch, AttrNumber column, text *setting)
{
	EsColumn   *c = &batch->columns[column];

	for (uint32 i = 0; setting != NULL && i < batch->n; i++)
	{
		if (c->nulls[i])
		{
			c->values[i] = PointerGetDatum(setting);
			c->nulls[i] = false;
		}
	}
}

/* The events of a JSON array become the columns of a batch. */
void
EsBatchFromJson(EsBatch *batch, Jsonb *events)
{
	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array of objects")));
	batch->n = JB_ROOT_COUNT(events);

	for (size_t k = 0; k < lengthof(json_keys); k++)
	{
		EsColumn   *c = &batch->columns[json_keys[k].column];

		c->values = palloc_extended(batch->n * sizeof(Datum), MCXT_ALLOC_HUGE);
		c->nulls = palloc(batch->n * sizeof(bool));
		c->constant = false;
		memset(c->nulls, true, batch->n * sizeof(bool));
	}
	for (uint32 i = 0; i < batch->n; i++)
		take_json_event(batch, i, getIthJsonbValueFromContainer(&events->root, i));
	settle_json_ids(batch);
	check_ids(batch);
}

/* es_append_json(stream, events, expected_version) */
Datum
es_append_json(PG_FUNCTION_ARGS)
{
	EsBatch		batch;

	begin_batch(&batch, fcinfo, 2);
	EsArgRequire(PG_ARGISNULL(1), "events");
	EsBatchFromJson(&batch, PG_GETARG_JSONB_P(1));
	fill_from_setting(&batch, Anum_es_events_correlation_id, EsSettingCorrelationId());
	fill_from_setting(&batch, Anum_es_events_causation_id, EsSettingCausationId());
	fill_from_setting(&batch, Anum_es_events_traceparent, EsSettingTraceparent());
	return finish(&batch, fcinfo);
}
