/*
 * inbox_guard.c
 *		es_inbox_guard(), the trigger that keeps duplicates out of a user's table.
 *
 * A BEFORE INSERT trigger FOR EACH ROW: a row whose message the consumer has seen
 * is left out, or with the option "reject" an error.  The mark is the one that
 * es_inbox_accept writes.
 *
 * The message's id is the column's text, which must be the same whatever the
 * session's settings: so only columns of some types will do.
 *
 * An UPDATE that moves a row to another partition deletes it here and inserts it
 * there, past all triggers FOR UPDATE.  Left out as a duplicate there, the row would be
 * gone.  So on a partition the trigger is BEFORE DELETE too: a row that the same
 * statement has just deleted is let in again.  A statement is known by its memory.
 *
 * The arguments are checked and kept at a statement's first row, in the
 * memory of the trigger's FmgrInfo.
 */
#include "inbox.h"

#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

#include "capture.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_inbox_guard);

/* What the arguments say. */
typedef struct Guard
{
	int64		consumer;
	AttrNumber	column;
	FmgrInfo	output;
	bool		reject;
} Guard;

/* The message of the row that a statement deleted last; in that statement's memory. */
typedef struct Deleted
{
	MemoryContext statement;
	EsInboxMark mark;
	bool		is_moving;		/* it was not inserted again yet */
	MemoryContextCallback forget;
	struct Deleted *next;
} Deleted;

static Deleted *deleted = NULL; /* of all statements in progress */

static void
check_trigger(FunctionCallInfo fcinfo)
{
	const TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"es_inbox_guard\" was not called by trigger manager")));
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!(TRIGGER_FIRED_BY_INSERT(trigger->tg_event) || TRIGGER_FIRED_BY_DELETE(trigger->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired BEFORE INSERT FOR EACH ROW", trigger->tg_trigger->tgname)));
	if (trigger->tg_relation->rd_rel->relispartition && !TRIGGER_FOR_DELETE(trigger->tg_trigger->tgtype))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on a partition must be fired BEFORE INSERT OR DELETE FOR EACH ROW",
						trigger->tg_trigger->tgname),
				 errdetail("A row that an UPDATE moves to another partition would be taken for a duplicate.")));
}

ES_NORETURN static void
refuse_arguments(const Trigger *trigger)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid arguments of trigger \"%s\" on es_inbox_guard()", trigger->tgname),
			 errhint("Arguments are the consumer, the column with the message id, then \"skip\", which is the default, or \"reject\".")));
}

/* The column that the second argument names as SQL does. */
static AttrNumber
parse_column(Relation rel, const Trigger *trigger)
{
	List	   *names;

	if (!SplitIdentifierString(pstrdup(trigger->tgargs[1]), ',', &names) || list_length(names) != 1)
		refuse_arguments(trigger);
	return EsTriggerColumn(rel, linitial(names), "es_inbox_guard");
}

/* Is the text of a type the same under all settings? */
static bool
is_same_under_settings(Oid type)
{
	switch (getBaseType(type))
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case UUIDOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
			return true;
		default:
			return false;
	}
}

static void
set_output(Guard *guard, Relation rel, MemoryContext context)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), guard->column - 1);
	Oid			function;
	bool		is_varlena;

	if (!is_same_under_settings(attribute->atttypid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" cannot be a message id",
						NameStr(attribute->attname), RelationGetRelationName(rel)),
				 errdetail("It is of type %s.", format_type_be(attribute->atttypid)),
				 errhint("A message id is of type text, uuid, integer, bigint or numeric.")));
	getTypeOutputInfo(attribute->atttypid, &function, &is_varlena);
	fmgr_info_cxt(function, &guard->output, context);
}

static Guard *
parse_arguments(const TriggerData *data, MemoryContext context)
{
	const Trigger *trigger = data->tg_trigger;
	Guard	   *guard = MemoryContextAllocZero(context, sizeof(Guard));
	text	   *consumer;

	if (trigger->tgnargs < 2 || trigger->tgnargs > 3)
		refuse_arguments(trigger);
	guard->reject = trigger->tgnargs == 3 && strcmp(trigger->tgargs[2], "reject") == 0;
	if (trigger->tgnargs == 3 && !guard->reject && strcmp(trigger->tgargs[2], "skip") != 0)
		refuse_arguments(trigger);
	consumer = cstring_to_text(trigger->tgargs[0]);
	EsCheckName(consumer, "consumer");
	guard->column = parse_column(data->tg_relation, trigger);
	set_output(guard, data->tg_relation, context);
	guard->consumer = EsInboxConsumer(consumer);
	return guard;
}

/* The message id of a row, unchecked; NULL: it has none. */
static text *
row_text(const TriggerData *data, Guard *guard)
{
	bool		isnull;
	Datum		value = heap_getattr(data->tg_trigtuple, guard->column, RelationGetDescr(data->tg_relation), &isnull);

	return isnull ? NULL : cstring_to_text(OutputFunctionCall(&guard->output, value));
}

/* The message id of a row that is inserted. */
static text *
row_id(const TriggerData *data, Guard *guard)
{
	text	   *id = row_text(data, guard);

	if (id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of relation \"%s\" must not be null",
						NameStr(TupleDescAttr(RelationGetDescr(data->tg_relation), guard->column - 1)->attname),
						RelationGetRelationName(data->tg_relation)),
				 errdetail("It has the message id for es_inbox_guard().")));
	EsCheckName(id, "message id");
	return id;
}

/* ---------------------------------------------------------------- rows that move */

static Deleted *
find_deleted(MemoryContext statement)
{
	Deleted    *note = deleted;

	while (note != NULL && note->statement != statement)
		note = note->next;
	return note;
}

/* The end of a statement. */
static void
forget_deleted(void *arg)
{
	Deleted   **link = &deleted;

	while (*link != arg)
		link = &(*link)->next;
	*link = (*link)->next;
}

static void
note_deleted(MemoryContext statement, int64 consumer, const text *id)
{
	Deleted    *note = find_deleted(statement);

	if (note == NULL)
	{
		note = MemoryContextAllocZero(statement, sizeof(Deleted));
		note->statement = statement;
		note->forget.func = forget_deleted;
		note->forget.arg = note;
		note->next = deleted;
		deleted = note;
		MemoryContextRegisterResetCallback(statement, &note->forget);
	}
	EsInboxMarkSet(&note->mark, consumer, ES_MARK_MESSAGE, id);
	note->is_moving = true;
}

/* Has this statement just deleted the row with this message?  Then it moves, once. */
static bool
is_moving(MemoryContext statement, int64 consumer, const text *id)
{
	Deleted    *note = find_deleted(statement);
	EsInboxMark mark;

	if (note == NULL || !note->is_moving)
		return false;
	EsInboxMarkSet(&mark, consumer, ES_MARK_MESSAGE, id);
	if (memcmp(&note->mark.digest, &mark.digest, UUID_LEN) != 0)
		return false;
	note->is_moving = false;
	return true;
}

/* ---------------------------------------------------------------- the trigger */

/* es_inbox_guard(), a trigger with the arguments consumer, column[, skip | reject] */
Datum
es_inbox_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Guard	   *guard;
	text	   *id;

	check_trigger(fcinfo);
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = parse_arguments(data, fcinfo->flinfo->fn_mcxt);
	guard = fcinfo->flinfo->fn_extra;
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		id = row_text(data, guard);
		if (id != NULL)
			note_deleted(fcinfo->flinfo->fn_mcxt, guard->consumer, id);
		return PointerGetDatum(data->tg_trigtuple);
	}
	id = row_id(data, guard);
	if (is_moving(fcinfo->flinfo->fn_mcxt, guard->consumer, id) || EsInboxAccept(guard->consumer, id, DT_NOEND))
		return PointerGetDatum(data->tg_trigtuple);
	if (guard->reject)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("message \"%s\" was seen before", text_to_cstring(id)),
				 errdetail("Trigger \"%s\" of \"%s\" lets each in once.",
						   data->tg_trigger->tgname, RelationGetRelationName(data->tg_relation)),
				 errtable(data->tg_relation)));
	return PointerGetDatum(NULL);
}
