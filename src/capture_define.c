/*
 * capture_define.c
 *		The arguments of a trigger on es_capture(), checked and kept.
 *
 * CREATE TRIGGER looks at no argument.  So the first firing in a backend checks
 * them all, against the table as it is, and refuses the statement if one is
 * wrong: a secret that is not excluded because of a misspelt name would be out.
 * What was found is kept by the trigger's OID until the relation cache says that
 * the table changed, or a table it is a partition of, whose name the messages
 * bear.  A renamed schema is news for all.
 *
 * One capture owns one memory context.  It may become invalid while a firing is
 * at it, and another firing of the same trigger, from within a cast to JSON, may
 * take its place: what is replaced lives on to the end of the transaction.
 */
#include "capture.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "catalog.h"
#include "outbox.h"
#include "stream.h"

typedef struct CaptureEntry
{
	Oid			trigger;
	EsCapture  *capture;
} CaptureEntry;

/* How an operation is called. */
static const struct
{
	const char *operation;
	const char *suffix;
}			operations[] = {
	[ES_CREATED] = {"INSERT", "created"},
	[ES_UPDATED] = {"UPDATE", "updated"},
	[ES_DELETED] = {"DELETE", "deleted"},
	[ES_TRUNCATED] = {"TRUNCATE", "truncated"},
};

StaticAssertDecl(lengthof(operations) == ES_CAPTURE_OPERATIONS, "operations must match EsCaptureOperation");

static HTAB *captures = NULL;
static uint64 news = 0;			/* how often anything was said to have changed */

/* InvalidOid is all relations. */
static void
invalidate(Oid relation)
{
	HASH_SEQ_STATUS scan;
	CaptureEntry *entry;

	news++;
	if (captures == NULL)
		return;
	hash_seq_init(&scan, captures);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		for (int i = 0; i < entry->capture->nrelations; i++)
		{
			if (relation == InvalidOid || entry->capture->relations[i] == relation)
				entry->capture->valid = false;
		}
	}
}

static void
invalidate_all(Datum arg, int cache, uint32 hash)
{
	invalidate(InvalidOid);
}

void
EsCaptureInit(void)
{
	EsCatalogOnInvalidation(invalidate);
	CacheRegisterSyscacheCallback(NAMESPACEOID, invalidate_all, (Datum) 0);
}

static void
check_relation(Relation rel)
{
	char		kind = rel->rd_rel->relkind;

	if (kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE || kind == RELKIND_FOREIGN_TABLE)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot capture changes of \"%s\"", RelationGetRelationName(rel)),
			 errdetail_relkind_not_supported(kind),
			 errhint("Attach the trigger to the tables that the rows are stored in.")));
}

/*
 * Statement triggers are of the table that the statement names: they miss what is
 * done to its partitions or its parent by name.  And a row that MERGE moves to
 * another partition is in none of the transition tables of the triggers that then fire.
 */
static void
check_level(const TriggerData *trigger)
{
	Relation	rel = trigger->tg_relation;

	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		return;
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE && !has_superclass(RelationGetRelid(rel)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot capture changes of \"%s\" FOR EACH STATEMENT", RelationGetRelationName(rel)),
			 errdetail("It has partitions, or is one, or inherits: such a trigger would miss changes."),
			 errhint("Create trigger \"%s\" FOR EACH ROW.", trigger->tg_trigger->tgname)));
}

static void
check_timing(const TriggerData *trigger)
{
	if (TRIGGER_FIRED_AFTER(trigger->tg_event))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger \"%s\" must be fired AFTER the change", trigger->tg_trigger->tgname),
			 errdetail("What a BEFORE trigger sees may still be changed, or not be done at all.")));
}

/* The attribute number of a column that rows have, by its name in a trigger's arguments. */
AttrNumber
EsTriggerColumn(Relation rel, const char *name, const char *function)
{
	AttrNumber	column = get_attnum(RelationGetRelid(rel), name);

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name, RelationGetRelationName(rel)),
				 errhint("It is named in the arguments of a trigger on %s().", function)));
	return column;
}

/* A list of columns among the trigger's arguments; column names as in SQL. */
static List *
parse_columns(Relation rel, const char *argument)
{
	List	   *names;
	List	   *columns = NIL;
	ListCell   *lc;

	if (!SplitIdentifierString(pstrdup(argument), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list of columns \"%s\"", argument),
				 errdetail("Columns are separated by commas, and quoted where SQL has them quoted.")));
	foreach(lc, names)
		columns = lappend_int(columns, EsTriggerColumn(rel, lfirst(lc), "es_capture"));
	return columns;
}

/* The columns of the primary key, in its order. */
static List *
primary_key(Relation rel)
{
	List	   *columns = NIL;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", lfirst_oid(lc));
		index = (Form_pg_index) GETSTRUCT(tuple);
		for (int i = 0; index->indisprimary && i < index->indnkeyatts; i++)
			columns = lappend_int(columns, index->indkey.values[i]);
		ReleaseSysCache(tuple);
	}
	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no primary key to take the messages' key from", RelationGetRelationName(rel)),
				 errhint("Name the key columns in the second argument of es_capture(), or give '' for messages without a key.")));
	return columns;
}

/* What the arguments say, before it is looked at together. */
typedef struct Arguments
{
	List	   *keys;
	bool		keys_given;
	List	   *excluded;
	bool		excluded_given;
	bool		skip_unchanged;
	bool		skip_unchanged_given;
} Arguments;

static void
refuse_option(const char *argument, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s \"%s\" of es_capture()", what, argument),
			 errhint("Arguments are the topic, the key columns, then exclude=column,... and skip_unchanged=true or false, each once.")));
}

/* If the argument is "name=value", its value. */
static const char *
option_value(const char *argument, const char *name)
{
	size_t		length = strlen(name);

	return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

static bool
take_option(Arguments *arguments, Relation rel, const char *argument)
{
	const char *value;

	if ((value = option_value(argument, "exclude")) != NULL)
	{
		if (arguments->excluded_given)
			refuse_option(argument, "repeated argument");
		arguments->excluded = parse_columns(rel, value);
		return arguments->excluded_given = true;
	}
	if ((value = option_value(argument, "skip_unchanged")) != NULL)
	{
		if (arguments->skip_unchanged_given)
			refuse_option(argument, "repeated argument");
		if (!parse_bool(value, &arguments->skip_unchanged))
			refuse_option(argument, "invalid argument");
		return arguments->skip_unchanged_given = true;
	}
	return false;
}

/* Does an argument look like an option?  A column whose name has "=" is quoted. */
static bool
looks_like_option(const char *argument)
{
	return argument[strspn(argument, "abcdefghijklmnopqrstuvwxyz_")] == '=';
}

static void
parse_arguments(Arguments *arguments, Relation rel, const Trigger *trigger)
{
	memset(arguments, 0, sizeof(*arguments));
	for (int i = 1; i < trigger->tgnargs; i++)
	{
		const char *argument = trigger->tgargs[i];

		if (take_option(arguments, rel, argument))
			continue;
		if (i > 1 || looks_like_option(argument))
			refuse_option(argument, "unknown argument");
		arguments->keys = parse_columns(rel, argument);
		arguments->keys_given = true;
	}
}

static text *
parse_topic(const Trigger *trigger)
{
	text	   *topic;

	if (trigger->tgnargs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" names no topic", trigger->tgname),
				 errhint("Create it with EXECUTE FUNCTION es_capture('topic').")));
	topic = cstring_to_text(trigger->tgargs[0]);
	EsCheckTopic(topic);
	return topic;
}

/* Has a row in a trigger a value for this column?  Virtual generated columns have none. */
static bool
is_stored(Form_pg_attribute attribute)
{
	return !attribute->attisdropped &&
		(attribute->attgenerated == '\0' || attribute->attgenerated == ATTRIBUTE_GENERATED_STORED);
}

/*
 * Is a type's JSON the same under all settings?  Dates and timestamps are ISO
 * 8601 in JSON; numbers, strings and JSON itself know no setting.
 */
static bool
is_same_under_settings(Oid type)
{
	switch (getBaseType(type))
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case UUIDOID:
		case JSONOID:
		case JSONBOID:
		case DATEOID:
		case TIMESTAMPOID:
			return true;
		default:
			return type_is_enum(getBaseType(type));
	}
}

/* The columns that messages show, and their row type. */
static void
define_image(EsCapture *capture, Relation rel, const List *excluded)
{
	TupleDesc	desc = RelationGetDescr(rel);

	capture->columns = palloc(Max(desc->natts, 1) * sizeof(AttrNumber));
	for (AttrNumber column = 1; column <= desc->natts; column++)
	{
		if (is_stored(TupleDescAttr(desc, column - 1)) && !list_member_int(excluded, column))
			capture->columns[capture->ncolumns++] = column;
	}
	capture->image = CreateTemplateTupleDesc(capture->ncolumns);
	for (int i = 0; i < capture->ncolumns; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, capture->columns[i] - 1);

		TupleDescInitEntry(capture->image, i + 1, NameStr(attribute->attname),
						   attribute->atttypid, attribute->atttypmod, attribute->attndims);
		if (!is_same_under_settings(attribute->atttypid))
			capture->settings_matter = true;
	}
	BlessTupleDesc(capture->image);
}

/* The payload is a row of two rows and an array, which to_jsonb makes JSON of. */
static void
define_payload(EsCapture *capture)
{
	Const	   *argument = makeNullConst(RECORDOID, -1, InvalidOid);

	capture->payload = CreateTemplateTupleDesc(3);
	TupleDescInitEntry(capture->payload, 1, "before", RECORDOID, capture->image->tdtypmod, 0);
	TupleDescInitEntry(capture->payload, 2, "after", RECORDOID, capture->image->tdtypmod, 0);
	TupleDescInitEntry(capture->payload, 3, "changed", TEXTARRAYOID, -1, 1);
	BlessTupleDesc(capture->payload);

	fmgr_info(F_TO_JSONB, &capture->to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &capture->to_jsonb);
}

/* An array of text, without nulls. */
static Datum
text_array(const char *const *items, int n)
{
	Datum	   *datums = palloc(n * sizeof(Datum));

	for (int i = 0; i < n; i++)
		datums[i] = CStringGetTextDatum(items[i]);
	return PointerGetDatum(construct_array(datums, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
check_key_column(Form_pg_attribute attribute, const List *excluded)
{
	const char *what = NULL;

	if (list_member_int(excluded, attribute->attnum))
		what = "is excluded";
	else if (!is_stored(attribute))
		what = "is generated and not stored";
	if (what)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key column \"%s\" %s", NameStr(attribute->attname), what),
				 errhint("Name other key columns in the second argument of es_capture(), or give '' for messages without a key.")));
}

static void
define_key(EsCapture *capture, Relation rel, const List *keys, const List *excluded)
{
	static const char *const images[] = {[ES_BEFORE] = "before", [ES_AFTER] = "after"};
	ListCell   *lc;

	for (int image = 0; image < lengthof(images); image++)
		capture->key_paths[image] = palloc(Max(list_length(keys), 1) * sizeof(Datum));
	foreach(lc, keys)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), lfirst_int(lc) - 1);

		check_key_column(attribute, excluded);
		for (int image = 0; image < lengthof(images); image++)
		{
			const char *path[] = {images[image], NameStr(attribute->attname)};

			capture->key_paths[image][capture->nkeys] = text_array(path, lengthof(path));
		}
		capture->nkeys++;
	}
}

/* Type and headers of the messages about one operation on a table. */
static void
define_operation(EsCapture *capture, EsCaptureOperation operation, Oid relation)
{
	const char *table = get_rel_name(relation);
	const char *headers[] = {
		"schema", get_namespace_name(get_rel_namespace(relation)),
		"table", table,
		"operation", operations[operation].operation
	};

	capture->types[operation] = cstring_to_text(psprintf("%s.%s", table, operations[operation].suffix));
	EsCheckName(capture->types[operation], "message type");
	capture->headers[operation] = DirectFunctionCall1(jsonb_object, text_array(headers, lengthof(headers)));
	capture->headers[operation] = JsonbPGetDatum(DatumGetJsonbPCopy(capture->headers[operation]));
}

/*
 * A row's messages bear the name of the partitioned table at the root, wherever
 * the row lies.  TRUNCATE is of what it was said of.
 */
static void
define_names(EsCapture *capture, Relation rel)
{
	List	   *relations = list_make1_oid(RelationGetRelid(rel));
	ListCell   *lc;

	if (rel->rd_rel->relispartition)
		relations = list_concat(relations, get_partition_ancestors(RelationGetRelid(rel)));
	capture->relations = palloc(list_length(relations) * sizeof(Oid));
	foreach(lc, relations)
		capture->relations[capture->nrelations++] = lfirst_oid(lc);

	for (int operation = 0; operation < ES_TRUNCATED; operation++)
		define_operation(capture, operation, llast_oid(relations));
	define_operation(capture, ES_TRUNCATED, linitial_oid(relations));
}

static EsCapture *
define(const TriggerData *trigger)
{
	Relation	rel = trigger->tg_relation;
	EsCapture  *capture = palloc0(sizeof(EsCapture));
	Arguments	arguments;

	capture->trigger = trigger->tg_trigger->tgoid;
	capture->context = CurrentMemoryContext;
	check_relation(rel);
	check_timing(trigger);
	check_level(trigger);
	capture->topic = parse_topic(trigger->tg_trigger);
	parse_arguments(&arguments, rel, trigger->tg_trigger);
	capture->skip_unchanged = arguments.skip_unchanged;
	if (!arguments.keys_given && !TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		arguments.keys = primary_key(rel);
	define_image(capture, rel, arguments.excluded);
	define_payload(capture);
	define_key(capture, rel, arguments.keys, arguments.excluded);
	define_names(capture, rel);
	return capture;
}

/* Somebody may still be at it: it goes with the transaction. */
static void
forget_invalid(void)
{
	HASH_SEQ_STATUS scan;
	CaptureEntry *entry;

	hash_seq_init(&scan, captures);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (entry->capture->valid)
			continue;
		MemoryContextSetParent(entry->capture->context, TopTransactionContext);
		hash_search(captures, &entry->trigger, HASH_REMOVE, NULL);
	}
}

static void
make_cache(void)
{
	HASHCTL		control = {
		.keysize = sizeof(Oid),
		.entrysize = sizeof(CaptureEntry),
		.hcxt = CacheMemoryContext
	};

	captures = hash_create("es_pg captures", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Keep a capture; nothing else may fail once it is known. */
static void
keep(EsCapture *capture)
{
	CaptureEntry *entry;
	bool		found;

	forget_invalid();
	entry = hash_search(captures, &capture->trigger, HASH_ENTER, &found);
	if (found)
		MemoryContextSetParent(entry->capture->context, TopTransactionContext);
	entry->capture = capture;
	MemoryContextSetParent(capture->context, CacheMemoryContext);
}

/*
 * What the trigger that fires was defined with.  It is right for this firing,
 * even if something changes meanwhile that is not locked, such as the name of a
 * table that this one is a partition of.
 */
const EsCapture *
EsCaptureGet(const TriggerData *trigger)
{
	Oid			oid = trigger->tg_trigger->tgoid;
	CaptureEntry *entry;
	EsCapture  *capture;
	MemoryContext context;
	MemoryContext old;
	uint64		before = news;

	if (captures == NULL)
		make_cache();
	entry = hash_search(captures, &oid, HASH_FIND, NULL);
	if (entry != NULL && entry->capture->valid)
		return entry->capture;

	context = AllocSetContextCreate(CurrentMemoryContext, "es_pg capture", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	capture = define(trigger);
	MemoryContextSwitchTo(old);
	capture->valid = before == news;
	keep(capture);
	return capture;
}
