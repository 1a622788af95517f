/*
 * capture.c
 *		es_capture(): a trigger that publishes what happens to a table's rows.
 *
 * It fires after the change, so what it tells is what was done, and it publishes
 * in the same transaction, past the executor as es_publish() does: who may write
 * the table needs no right to publish.  That right is checked once, when CREATE
 * TRIGGER asks for EXECUTE on es_capture().
 *
 * A payload is made by the server's to_jsonb from a row {before, after,
 * changed}, so a value has the JSON it has everywhere.  Where its form depends
 * on settings (time zone, byte form, search path and so on), these are fixed
 * meanwhile: a row has the same payload and the same key whoever writes it.
 *
 * For each row, one message is published at a time.  For each statement, old and
 * new rows come from its transition tables, and go out in batches.  An UPDATE's
 * two tables pair by their order, for the server adds the old and the new row in
 * one step (AfterTriggerSaveEvent).  It does not where a row moves to another
 * partition, which is one reason why partitioned tables are refused (check_level).
 *
 * Memory: a row's values live in the memory of the trigger call, which the
 * server empties after each row; a batch has a context of its own.
 */
#include "capture.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "catalog.h"
#include "outbox.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_capture);

#define BATCH_ROWS	1000
#define BATCH_BYTES	(8 * 1024 * 1024)	/* a batch with more is published as it is */

/* Changes of one operation that wait to be published. */
typedef struct Changes
{
	const EsCapture *capture;
	EsCaptureOperation operation;
	uint32		n;
	Datum	   *payloads;
	Datum	   *keys;
	bool	   *key_nulls;
} Changes;

static EsCaptureOperation
operation_of(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return ES_CREATED;
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return ES_UPDATED;
	if (TRIGGER_FIRED_BY_DELETE(event))
		return ES_DELETED;
	return ES_TRUNCATED;
}

static void
begin_changes(Changes *changes, const EsCapture *capture, EsCaptureOperation operation, int room)
{
	changes->capture = capture;
	changes->operation = operation;
	changes->n = 0;
	changes->payloads = palloc(room * sizeof(Datum));
	changes->keys = palloc(room * sizeof(Datum));
	changes->key_nulls = palloc(room * sizeof(bool));
}

/* Publish what waits. */
static void
publish(Changes *changes)
{
	const EsCapture *capture = changes->capture;
	EsMessages	messages = {.n = changes->n};
	EsColumn   *columns = messages.columns;

	if (changes->n == 0)
		return;
	EsPublishCheck("es_capture()");
	EsColumnSetText(&columns[Anum_es_outbox_topic], capture->topic);
	EsColumnSetText(&columns[Anum_es_outbox_type], capture->types[changes->operation]);
	EsColumnSet(&columns[Anum_es_outbox_headers], capture->headers[changes->operation]);
	EsColumnSetText(&columns[Anum_es_outbox_correlation_id], EsSettingCorrelationId());
	EsColumnSetText(&columns[Anum_es_outbox_causation_id], EsSettingCausationId());
	EsColumnSetText(&columns[Anum_es_outbox_traceparent], EsSettingTraceparent());
	columns[Anum_es_outbox_payload].values = changes->payloads;
	columns[Anum_es_outbox_key] = (EsColumn) {changes->keys, changes->key_nulls, false};
	EsColumnCheckNames(&columns[Anum_es_outbox_key], changes->n, "message key");
	(void) EsPublish(&messages);
	changes->n = 0;
}

/* One value that was stored out of line once is the same in both rows, without a look at it. */
static bool
is_same_toast(Datum a, Datum b)
{
	struct varlena *x = (struct varlena *) DatumGetPointer(a);
	struct varlena *y = (struct varlena *) DatumGetPointer(b);

	return VARATT_IS_EXTERNAL_ONDISK(x) && VARATT_IS_EXTERNAL_ONDISK(y) &&
		memcmp(x, y, VARSIZE_EXTERNAL(x)) == 0;
}

/* Has a column the same bytes in both rows?  1.0 and 1.00 are equal, but not the same. */
static bool
is_same(Form_pg_attribute attribute, TupleTableSlot *before, TupleTableSlot *after, int i)
{
	Datum		a = before->tts_values[i];
	Datum		b = after->tts_values[i];

	if (before->tts_isnull[i] || after->tts_isnull[i])
		return before->tts_isnull[i] && after->tts_isnull[i];
	if (attribute->attlen == -1 && is_same_toast(a, b))
		return true;
	return datum_image_eq(a, b, attribute->attbyval, attribute->attlen);
}

/* The names of the columns in which two rows differ. */
static ArrayType *
changed_columns(const EsCapture *capture, TupleTableSlot *before, TupleTableSlot *after)
{
	Datum	   *names = palloc(Max(capture->ncolumns, 1) * sizeof(Datum));
	int			n = 0;

	for (int i = 0; i < capture->ncolumns; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(capture->image, i);

		if (!is_same(attribute, before, after, capture->columns[i] - 1))
			names[n++] = CStringGetTextDatum(NameStr(attribute->attname));
	}
	return construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT);
}

/* A row without its excluded columns; values stored out of line come in. */
static Datum
image(const EsCapture *capture, TupleTableSlot *slot)
{
	Datum	   *values = palloc(Max(capture->ncolumns, 1) * sizeof(Datum));
	bool	   *nulls = palloc(Max(capture->ncolumns, 1) * sizeof(bool));

	for (int i = 0; i < capture->ncolumns; i++)
	{
		values[i] = slot->tts_values[capture->columns[i] - 1];
		nulls[i] = slot->tts_isnull[capture->columns[i] - 1];
	}
	return HeapTupleGetDatum(heap_form_tuple(capture->image, values, nulls));
}

/* to_jsonb, under settings that nobody chose. */
static Datum
make_json(const EsCapture *capture, Datum row)
{
	static const char *const settings[][2] = {
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, MDY"},
		{"IntervalStyle", "iso_8601"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
		{"lc_monetary", "C"},
		{"search_path", "pg_catalog, pg_temp"},
	};
	FmgrInfo   *to_jsonb = unconstify(FmgrInfo *, &capture->to_jsonb);
	Datum		json;
	int			nest;

	if (!capture->settings_matter)
		return FunctionCall1(to_jsonb, row);
	nest = EsSettingsBegin(settings, lengthof(settings));
	json = FunctionCall1(to_jsonb, row);
	AtEOXact_GUC(true, nest);
	return json;
}

/* {"before": row or null, "after": row or null, "changed": columns or null} */
static Datum
make_payload(const EsCapture *capture, TupleTableSlot *before, TupleTableSlot *after, ArrayType *changed)
{
	Datum		values[3];
	bool		nulls[3] = {before == NULL, after == NULL, changed == NULL};

	values[0] = before ? image(capture, before) : (Datum) 0;
	values[1] = after ? image(capture, after) : (Datum) 0;
	values[2] = PointerGetDatum(changed);
	return make_json(capture, HeapTupleGetDatum(heap_form_tuple(capture->payload, values, nulls)));
}

/* A value in a payload as text, as the operator #>> has it. */
static Datum
text_at(Datum payload, Datum path, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = payload;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = path;
	fcinfo->args[1].isnull = false;
	result = jsonb_extract_path_text(fcinfo);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * The key of a message: the text of its one column, or a JSON array of the texts
 * of several, which cannot be mistaken for one another.
 */
static Datum
make_key(const EsCapture *capture, Datum payload, EsCaptureImage of, bool *isnull)
{
	Datum	   *texts;
	bool	   *nulls;
	int			lower = 1;

	*isnull = true;
	if (capture->nkeys == 0)
		return (Datum) 0;
	if (capture->nkeys == 1)
		return text_at(payload, capture->key_paths[of][0], isnull);

	texts = palloc(capture->nkeys * sizeof(Datum));
	nulls = palloc(capture->nkeys * sizeof(bool));
	for (int i = 0; i < capture->nkeys; i++)
		texts[i] = text_at(payload, capture->key_paths[of][i], &nulls[i]);
	*isnull = false;
	return DirectFunctionCall1(array_to_json,
							   PointerGetDatum(construct_md_array(texts, nulls, 1, unconstify(int *, &capture->nkeys), &lower,
																  TEXTOID, -1, false, TYPALIGN_INT)));
}

/* One row's change, whose message then waits; a row that is not there is NULL. */
static void
add_change(Changes *changes, TupleTableSlot *before, TupleTableSlot *after)
{
	const EsCapture *capture = changes->capture;
	ArrayType  *changed = NULL;
	uint32		i = changes->n;

	if (before != NULL)
		slot_getallattrs(before);
	if (after != NULL)
		slot_getallattrs(after);
	if (before != NULL && after != NULL)
	{
		changed = changed_columns(capture, before, after);
		if (capture->skip_unchanged && ARR_NDIM(changed) == 0)
			return;
	}
	changes->payloads[i] = make_payload(capture, before, after, changed);
	changes->keys[i] = make_key(capture, changes->payloads[i], after != NULL ? ES_AFTER : ES_BEFORE,
								&changes->key_nulls[i]);
	changes->n++;
}

static void
capture_row(const TriggerData *trigger, const EsCapture *capture)
{
	EsCaptureOperation operation = operation_of(trigger->tg_event);
	Changes		changes;

	begin_changes(&changes, capture, operation, 1);
	switch (operation)
	{
		case ES_CREATED:
			add_change(&changes, NULL, trigger->tg_trigslot);
			break;
		case ES_UPDATED:
			add_change(&changes, trigger->tg_trigslot, trigger->tg_newslot);
			break;
		default:
			add_change(&changes, trigger->tg_trigslot, NULL);
	}
	publish(&changes);
}

/* Read a transition table from its begin; another trigger's reading goes on where it was. */
static int
begin_reading(Tuplestorestate *table)
{
	int			pointer;

	if (table == NULL)
		return -1;
	pointer = tuplestore_alloc_read_pointer(table, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(table, pointer);
	tuplestore_rescan(table);
	return pointer;
}

/* The next row of a transition table; true if there is no such table. */
static bool
read_row(Tuplestorestate *table, int pointer, TupleTableSlot *slot)
{
	if (table == NULL)
		return true;
	tuplestore_select_read_pointer(table, pointer);
	return tuplestore_gettupleslot(table, true, false, slot);
}

/* A statement's changes are in its transition tables. */
static void
check_tables(const TriggerData *trigger, EsCaptureOperation operation)
{
	if ((operation == ES_CREATED || trigger->tg_oldtable != NULL) &&
		(operation == ES_DELETED || trigger->tg_newtable != NULL))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger \"%s\" has no transition tables", trigger->tg_trigger->tgname),
			 errhint("Create it FOR EACH ROW, or with REFERENCING: NEW TABLE for INSERT, OLD TABLE for DELETE, both for UPDATE.")));
}

/* Publish the rows of a statement, batch by batch. */
static void
capture_tables(const EsCapture *capture, EsCaptureOperation operation, TupleDesc desc,
			   Tuplestorestate *old, Tuplestorestate *new)
{
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "es_pg captured rows", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *before = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	TupleTableSlot *after = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	int			old_pointer = begin_reading(old);
	int			new_pointer = begin_reading(new);
	Changes		changes;

	begin_changes(&changes, capture, operation, BATCH_ROWS);
	while (read_row(old, old_pointer, before) && read_row(new, new_pointer, after))
	{
		MemoryContext caller = MemoryContextSwitchTo(work);

		CHECK_FOR_INTERRUPTS();
		add_change(&changes, old ? before : NULL, new ? after : NULL);
		if (changes.n == BATCH_ROWS || MemoryContextMemAllocated(work, true) > BATCH_BYTES)
		{
			publish(&changes);
			MemoryContextReset(work);
		}
		MemoryContextSwitchTo(caller);
	}
	publish(&changes);
	ExecDropSingleTupleTableSlot(before);
	ExecDropSingleTupleTableSlot(after);
	MemoryContextDelete(work);
}

static void
capture_statement(const TriggerData *trigger, const EsCapture *capture)
{
	EsCaptureOperation operation = operation_of(trigger->tg_event);
	Tuplestorestate *old = operation == ES_CREATED ? NULL : trigger->tg_oldtable;
	Tuplestorestate *new = operation == ES_DELETED ? NULL : trigger->tg_newtable;

	check_tables(trigger, operation);
	if (old && new && tuplestore_tuple_count(old) != tuplestore_tuple_count(new))
		elog(ERROR, "transition tables of \"%s\" differ in length", RelationGetRelationName(trigger->tg_relation));
	capture_tables(capture, operation, RelationGetDescr(trigger->tg_relation), old, new);
}

/* A TRUNCATE is told as one message without rows, and so without a key. */
static void
capture_truncate(const EsCapture *capture)
{
	Changes		changes;

	begin_changes(&changes, capture, ES_TRUNCATED, 1);
	changes.payloads[0] = make_payload(capture, NULL, NULL, NULL);
	changes.key_nulls[0] = true;
	changes.n = 1;
	publish(&changes);
}

/* es_capture(topic, key columns, option, ...), as a trigger */
Datum
es_capture(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const EsCapture *capture;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"es_capture\" was not called by trigger manager")));
	capture = EsCaptureGet(trigger);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		capture_truncate(capture);
	else if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		capture_row(trigger, capture);
	else
		capture_statement(trigger, capture);
	return PointerGetDatum(NULL);
}
