/*
 * snapshot_builtin.c
 *		The reducers that need no user code.
 *
 * Each is a row of the table below: the options it takes, what its state is
 * before the first event, and a function that brings one event into the state.
 * They all work on one tree (snapshot_tree.c), so that a part of a "combine" is
 * a reducer like any other, on a member of the tree.
 *
 * What they compute depends on the events and the arguments alone: not on
 * settings, not on who asks.  So a state that anybody's session has computed is
 * everybody's, and es_state may keep it as a snapshot.  Whoever changes what a
 * built-in computes raises its version below: snapshots of the older one are
 * then not used any more.
 *
 * Memory: what is parsed lives where EsBuiltinParse was called; an event is
 * handled in the caller's context, which is reset after it; the tree owns what
 * it keeps.
 */
#include "snapshot.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"

typedef struct Types
{
	int			n;
	JsonbValue *names;			/* strings */
} Types;

typedef struct Kind Kind;

struct EsBuiltin
{
	const Kind *kind;
	Types	   *types;			/* NULL: all */
	Types	   *minus;			/* NULL: none */
	EsOperand  *path;
	EsOperand  *by;
	EsOperand  *at;
	EsOperand  *node;
	EsOperand  *p;
	EsOperand  *n;
	int			nparts;			/* of "combine" */
	JsonbValue *names;
	EsBuiltin **parts;
};

typedef void (*Apply) (const EsBuiltin *builtin, EsNode *state, EsEventRow *event);

struct Kind
{
	const char *name;
	int			version;
	const char *options;		/* each between blanks */
	const char *required;		/* one of them, or NULL */
	void		(*begin) (const EsBuiltin *builtin, EsNode *state); /* NULL: nothing */
	Apply		apply;
};

static const struct
{
	const char *name;
	bool		types;			/* an array of types; else an operand */
	size_t		offset;
	const char *standard;
}			options[] = {
	{"types", true, offsetof(EsBuiltin, types)},
	{"minus", true, offsetof(EsBuiltin, minus)},
	{"path", false, offsetof(EsBuiltin, path), "$"},
	{"by", false, offsetof(EsBuiltin, by)},
	{"at", false, offsetof(EsBuiltin, at), "occurred_at"},
	{"node", false, offsetof(EsBuiltin, node), "$.node"},
	{"p", false, offsetof(EsBuiltin, p), "$.p"},
	{"n", false, offsetof(EsBuiltin, n), "$.n"},
};

/* ---------------------------------------------------------------- values */

static bool
is_listed(const Types *types, const text *type)
{
	for (int i = 0; types != NULL && i < types->n; i++)
	{
		if (types->names[i].val.string.len == VARSIZE_ANY_EXHDR(type) &&
			memcmp(types->names[i].val.string.val, VARDATA_ANY(type), VARSIZE_ANY_EXHDR(type)) == 0)
			return true;
	}
	return false;
}

static const text *
event_type(const EsEventRow *event)
{
	return DatumGetTextPP(event->values[Anum_es_event_type - 1]);
}

/* A value as the name of a member; NULL: there is none. */
static char *
as_key(JsonbValue *value, int *length)
{
	char	   *key;

	switch (value->type)
	{
		case jbvString:
			*length = value->val.string.len;
			return value->val.string.val;
		case jbvNumeric:
			key = DatumGetCString(DirectFunctionCall1(numeric_out,
													  DirectFunctionCall1(numeric_trim_scale,
																		  NumericGetDatum(value->val.numeric))));
			break;
		case jbvBool:
			key = pstrdup(value->val.boolean ? "true" : "false");
			break;
		case jbvNull:
			return NULL;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cannot group by a JSON array or object"),
					 errhint("Name a string, a number or a boolean.")));
	}
	*length = strlen(key);
	return key;
}

static Numeric
zero(void)
{
	return int64_to_numeric(0);
}

/* A state comes from the reducer itself, or from somebody who called es_snapshot with it. */
static void
check_state(bool good, const char *expected)
{
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the state is not one of this reducer"),
				 errdetail("%s was expected in it.", expected)));
}

/* A number in the state; nothing counts as 0. */
static Numeric
number_of(const EsNode *node)
{
	if (node->kind == ES_NODE_NOTHING)
		return zero();
	check_state(node->kind == ES_NODE_VALUE && node->value.type == jbvNumeric, "A number");
	return node->value.val.numeric;
}

/* A member of an object in the state; nothing counts as an empty one. */
static EsNode *
member_of(EsNode *node, const char *key, int length)
{
	check_state(node->kind == ES_NODE_NOTHING || EsNodeIsObject(node), "An object");
	return EsNodeMember(node, key, length);
}

static void
set_number(EsNode *node, Numeric number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = number;
	EsNodeSet(node, &value);
}

static void
add(EsNode *node, Numeric number, bool minus)
{
	Numeric		old = number_of(node);

	set_number(node, minus ? numeric_sub_opt_error(old, number, NULL) : numeric_add_opt_error(old, number, NULL));
}

static void
check_number(const JsonbValue *value)
{
	if (value->type != jbvNumeric)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot add a JSON value that is not a number")));
}

static bool
is_greater(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a), NumericGetDatum(b))) > 0;
}

/* ---------------------------------------------------------------- times */

/* Does a string begin like an ISO 8601 date and time, and end with a zone? */
static bool
looks_like_moment(const char *s)
{
	static const char form[] = "dddd-dd-ddTdd:dd";
	const char *zone;

	for (const char *f = form; *f; f++, s++)
	{
		if (*f == 'd' ? (*s < '0' || *s > '9') : *f == 'T' ? (*s != 'T' && *s != 't' && *s != ' ') : *s != *f)
			return false;
	}
	zone = s + strspn(s, "0123456789:.");
	if ((zone[0] == 'Z' || zone[0] == 'z') && zone[1] == '\0')
		return true;
	return (zone[0] == '+' || zone[0] == '-') && zone[1] != '\0' &&
		zone[1 + strspn(zone + 1, "0123456789:")] == '\0';
}

/* The moment that a string names, whatever the session's settings; false: none. */
static bool
parse_moment(const JsonbValue *value, TimestampTz *moment)
{
	int			length = value->val.string.len;
	char	   *string = pnstrdup(value->val.string.val, length);
	char		work[MAXDATELEN + MAXDATEFIELDS];
	char	   *fields[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	int			nfields;
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;

	if (!looks_like_moment(string))
		return false;
	if (string[length - 1] == 'Z' || string[length - 1] == 'z')	/* an abbreviation, which one may set */
		string = psprintf("%.*s+00", length - 1, string);
	return ParseDateTime(string, work, sizeof(work), fields, types, MAXDATEFIELDS, &nfields) == 0 &&
		EsDecodeDateTime(fields, types, nfields, &tm, &fsec, &tz) &&
		tm2timestamp(&tm, fsec, &tz, moment) == 0;
}

/* Is what a write says of its time at least as high as what the state has? */
static bool
is_not_before(JsonbValue *given, JsonbValue *known)
{
	TimestampTz a;
	TimestampTz b;
	int			shared;
	int			order;

	if (given->type == jbvNumeric && known->type == jbvNumeric)
		return !is_greater(known->val.numeric, given->val.numeric);
	if (given->type != jbvString || known->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot tell which write is the last"),
				 errdetail("Times of writes must be numbers, or must be strings.")));
	if (parse_moment(given, &a) && parse_moment(known, &b))
		return a >= b;
	shared = Min(given->val.string.len, known->val.string.len);
	order = memcmp(given->val.string.val, known->val.string.val, shared);
	return order > 0 || (order == 0 && given->val.string.len >= known->val.string.len);
}

/* ---------------------------------------------------------------- the reducers */

static void
apply_merge_patch(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	JsonbValue	patch;

	if (EsOperandFirst(builtin->path, event, &patch))
		EsNodeMergePatch(state, &patch);
}

static void
apply_last_value(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	JsonbValue	value;

	if (EsOperandFirst(builtin->path, event, &value))
		EsNodeSet(state, &value);
}

/* {"at", "value"} of the write with the highest "at"; of equal ones the later in the stream. */
static void
apply_last_write(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	JsonbValue	value;
	JsonbValue	at;
	EsNode	   *known;

	if (!EsOperandFirst(builtin->path, event, &value))
		return;
	if (!EsOperandFirst(builtin->at, event, &at) || (at.type != jbvNumeric && at.type != jbvString))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event has no time of its write"),
				 errdetail("Option \"at\" of the reducer must find a number or a string.")));
	known = member_of(state, "at", 2);
	if (known->kind != ES_NODE_NOTHING && !is_not_before(&at, &known->value))
		return;
	EsNodeSet(known, &at);
	EsNodeSet(member_of(state, "value", 5), &value);
}

static void
begin_number(const EsBuiltin *builtin, EsNode *state)
{
	set_number(state, zero());
}

static void
apply_count(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	add(state, int64_to_numeric(1), is_listed(builtin->minus, event_type(event)));
}

typedef struct Sum
{
	EsNode	   *state;
	bool		minus;
} Sum;

static void
add_found(const JsonbValue *value, void *arg)
{
	Sum		   *sum = arg;

	if (value->type == jbvNull)
		return;
	check_number(value);
	add(sum->state, value->val.numeric, sum->minus);
}

static void
apply_sum(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	Sum			sum = {state, is_listed(builtin->minus, event_type(event))};

	EsOperandEach(builtin->path, event, add_found, &sum);
}

/* A node's own total, if it is news, goes into the state and its growth into the value. */
static void
raise_total(const EsOperand *operand, EsEventRow *event, EsNode *total, EsNode *value, bool minus)
{
	JsonbValue	given;

	if (!EsOperandFirst(operand, event, &given) || given.type == jbvNull)
		return;
	check_number(&given);
	if (is_greater(zero(), given.val.numeric))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a total of a PN-counter must not be negative")));
	if (!is_greater(given.val.numeric, number_of(total)))
		return;
	add(value, numeric_sub_opt_error(given.val.numeric, number_of(total), NULL), minus);
	set_number(total, given.val.numeric);
}

static void
begin_pn_counter(const EsBuiltin *builtin, EsNode *state)
{
	EsNodeMakeObject(member_of(state, "p", 1));
	EsNodeMakeObject(member_of(state, "n", 1));
	set_number(member_of(state, "value", 5), zero());
}

/* {"p": {node: total}, "n": {node: total}, "value": all p less all n} */
static void
apply_pn_counter(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	EsNode	   *value = member_of(state, "value", 5);
	JsonbValue	node;
	char	   *key;
	int			length;

	if (!EsOperandFirst(builtin->node, event, &node) || (key = as_key(&node, &length)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event does not say which node counted"),
				 errdetail("Option \"node\" of the reducer must find a string, a number or a boolean.")));
	raise_total(builtin->p, event, member_of(member_of(state, "p", 1), key, length), value, false);
	raise_total(builtin->n, event, member_of(member_of(state, "n", 1), key, length), value, true);
}

static EsNode *
part_state(const EsBuiltin *builtin, EsNode *state, int i)
{
	return member_of(state, builtin->names[i].val.string.val, builtin->names[i].val.string.len);
}

static void
begin_combine(const EsBuiltin *builtin, EsNode *state)
{
	EsNodeMakeObject(state);
	for (int i = 0; i < builtin->nparts; i++)
		EsBuiltinBegin(builtin->parts[i], part_state(builtin, state, i));
}

static void
apply_combine(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	for (int i = 0; i < builtin->nparts; i++)
		EsBuiltinApply(builtin->parts[i], part_state(builtin, state, i), event);
}

static const Kind kinds[] = {
	{"merge_patch", 1, " types by path ", NULL, NULL, apply_merge_patch},
	{"last_value", 1, " types by path ", NULL, NULL, apply_last_value},
	{"last_write", 1, " types by path at ", NULL, NULL, apply_last_write},
	{"count", 1, " types by minus ", NULL, begin_number, apply_count},
	{"sum", 1, " types by path minus ", "path", begin_number, apply_sum},
	{"pn_counter", 1, " types by node p n ", NULL, begin_pn_counter, apply_pn_counter},
	{"combine", 1, NULL, NULL, begin_combine, apply_combine},
};

/* ---------------------------------------------------------------- arguments */

static const Kind *
find_kind(const char *name)
{
	for (size_t i = 0; i < lengthof(kinds); i++)
	{
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	}
	return NULL;
}

bool
EsBuiltinKnown(const char *name)
{
	return find_kind(name) != NULL;
}

/* It and its parts, whatever they are: which snapshots are theirs. */
uint32
EsBuiltinVersion(const EsBuiltin *builtin)
{
	uint32		version = builtin->kind->version;

	for (int i = 0; i < builtin->nparts; i++)
		version = version * 31 + EsBuiltinVersion(builtin->parts[i]);
	return version;
}

static Types *
parse_types(const char *option, const JsonbValue *value)
{
	Types	   *types = palloc(sizeof(Types));

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" of a reducer must be an array of event types", option)));
	types->n = JsonContainerSize(value->val.binary.data);
	types->names = palloc(Max(types->n, 1) * sizeof(JsonbValue));
	for (int i = 0; i < types->n; i++)
	{
		types->names[i] = *getIthJsonbValueFromContainer(value->val.binary.data, i);
		if (types->names[i].type != jbvString)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" of a reducer must be an array of event types", option)));
	}
	return types;
}

static void
set_option(EsBuiltin *builtin, const char *name, const JsonbValue *value)
{
	const char *blanked = psprintf(" %s ", name);

	for (size_t i = 0; i < lengthof(options); i++)
	{
		void	  **field = (void **) ((char *) builtin + options[i].offset);

		if (strcmp(options[i].name, name) != 0 || strstr(builtin->kind->options, blanked) == NULL)
			continue;
		if (options[i].types)
			*field = parse_types(name, value);
		else if (value->type == jbvString)
			*field = EsOperandParse(pnstrdup(value->val.string.val, value->val.string.len), name);
		else
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("option \"%s\" of a reducer must be a string", name)));
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("reducer \"%s\" has no option \"%s\"", builtin->kind->name, name),
			 errhint("Its options are:%s.", builtin->kind->options)));
}

/* What was not given has its standard value, or was needed. */
static void
settle_options(EsBuiltin *builtin)
{
	const Kind *kind = builtin->kind;

	for (size_t i = 0; i < lengthof(options); i++)
	{
		void	  **field = (void **) ((char *) builtin + options[i].offset);

		if (*field != NULL || strstr(kind->options, psprintf(" %s ", options[i].name)) == NULL)
			continue;
		if (kind->required != NULL && strcmp(kind->required, options[i].name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("reducer \"%s\" needs option \"%s\"", kind->name, options[i].name)));
		if (options[i].standard != NULL)
			*field = EsOperandParse(options[i].standard, options[i].name);
	}
}

/* A subtraction of what is left out anyway is a mistake. */
static void
check_minus(const EsBuiltin *builtin)
{
	for (int i = 0; builtin->types != NULL && builtin->minus != NULL && i < builtin->minus->n; i++)
	{
		const JsonbValue *name = &builtin->minus->names[i];

		if (!is_listed(builtin->types, cstring_to_text_with_len(name->val.string.val, name->val.string.len)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("type \"%.*s\" in option \"minus\" is not in option \"types\"",
							name->val.string.len, name->val.string.val)));
	}
}

/* A part of "combine": an object with the reducer's name among its options. */
static EsBuiltin *
parse_part(const JsonbValue *name, const JsonbValue *value)
{
	JsonbValue *reducer = NULL;
	char	   *reducer_name;
	Datum		rest;

	if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		reducer = getKeyJsonValueFromContainer(value->val.binary.data, "reducer", strlen("reducer"), NULL);
	if (reducer == NULL || reducer->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("part \"%.*s\" of reducer \"combine\" names no reducer", name->val.string.len, name->val.string.val),
				 errhint("A part looks like {\"reducer\": \"sum\", \"path\": \"$.amount\"}.")));
	reducer_name = pnstrdup(reducer->val.string.val, reducer->val.string.len);
	if (!EsBuiltinKnown(reducer_name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a built-in reducer", reducer_name)));
	rest = DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(JsonbValueToJsonb(unconstify(JsonbValue *, value))),
							   CStringGetTextDatum("reducer"));
	return EsBuiltinParse(reducer_name, DatumGetJsonbP(rest));
}

static void
parse_arguments(EsBuiltin *builtin, Jsonb *arguments)
{
	bool		combine = builtin->kind->options == NULL;
	JsonbIterator *iterator = JsonbIteratorInit(&arguments->root);
	JsonbIteratorToken token;
	JsonbValue	key = {0};
	JsonbValue	item;

	builtin->names = palloc((JB_ROOT_COUNT(arguments) + 1) * sizeof(JsonbValue));
	builtin->parts = palloc((JB_ROOT_COUNT(arguments) + 1) * sizeof(EsBuiltin *));
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = item;
		else if (token == WJB_VALUE && combine)
		{
			builtin->names[builtin->nparts] = key;
			builtin->parts[builtin->nparts++] = parse_part(&key, &item);
		}
		else if (token == WJB_VALUE)
			set_option(builtin, pnstrdup(key.val.string.val, key.val.string.len), &item);
	}
}

/* Lives, as do the arguments, in the current memory context. */
EsBuiltin *
EsBuiltinParse(const char *name, Jsonb *arguments)
{
	EsBuiltin  *builtin = palloc0(sizeof(EsBuiltin));

	check_stack_depth();
	builtin->kind = find_kind(name);
	if (!JB_ROOT_IS_OBJECT(arguments))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("arguments of reducer \"%s\" must be a JSON object", name)));
	parse_arguments(builtin, arguments);
	if (builtin->kind->options != NULL)
	{
		settle_options(builtin);
		check_minus(builtin);
	}
	else if (builtin->nparts == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reducer \"combine\" needs parts"),
				 errhint("A part looks like \"total\": {\"reducer\": \"sum\", \"path\": \"$.amount\"}.")));
	return builtin;
}

/* ---------------------------------------------------------------- folding */

/* The state before the first event. */
void
EsBuiltinBegin(const EsBuiltin *builtin, EsNode *state)
{
	if (builtin->by != NULL)
		EsNodeMakeObject(state);
	else if (builtin->kind->begin != NULL)
		builtin->kind->begin(builtin, state);
}

/* Bring an event into the state. */
void
EsBuiltinApply(const EsBuiltin *builtin, EsNode *state, EsEventRow *event)
{
	if (builtin->types != NULL && !is_listed(builtin->types, event_type(event)))
		return;
	if (builtin->by != NULL)
	{
		JsonbValue	value;
		char	   *key;
		int			length;

		if (!EsOperandFirst(builtin->by, event, &value) || (key = as_key(&value, &length)) == NULL)
			return;
		state = member_of(state, key, length);
	}
	builtin->kind->apply(builtin, state, event);
}
