/*
 * snapshot_path.c
 *		What a built-in reducer looks at in an event.
 *
 * An operand is written like a jsonpath and means the same as far as it goes:
 *
 *		$					the event's data
 *		$.items[*].amount	members, elements ([0] is the first), all elements
 *		$."a b"				a member whose name is no identifier
 *		metadata.user		the same in the event's metadata
 *		type, occurred_at	another column of es_event
 *
 * It is taken apart once a fold.  Walking it allocates nothing of note: members
 * are found in the flat JSON.
 */
#include "snapshot.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

typedef enum StepKind
{
	STEP_MEMBER,
	STEP_ELEMENT,
	STEP_ALL					/* elements */
} StepKind;

typedef struct Step
{
	StepKind	kind;
	char	   *key;
	int			length;
	uint32		index;
} Step;

struct EsOperand
{
	int			column;			/* of es_event, from 0 */
	int			nsteps;
	Step	   *steps;
};

/* The columns of es_event that are no JSON. */
static const struct
{
	const char *name;
	int			column;
	Oid			type;
}			columns[] = {
	{"position", Anum_es_event_position - 1, INT8OID},
	{"stream", Anum_es_event_stream - 1, TEXTOID},
	{"version", Anum_es_event_version - 1, INT8OID},
	{"type", Anum_es_event_type - 1, TEXTOID},
	{"schema_version", Anum_es_event_schema_version - 1, TEXTOID},
	{"source", Anum_es_event_source - 1, TEXTOID},
	{"correlation_id", Anum_es_event_correlation_id - 1, TEXTOID},
	{"causation_id", Anum_es_event_causation_id - 1, TEXTOID},
	{"occurred_at", Anum_es_event_occurred_at - 1, TIMESTAMPTZOID},
	{"recorded_at", Anum_es_event_recorded_at - 1, TIMESTAMPTZOID},
};

static void
refuse(const char *string, const char *option)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value \"%s\" for option \"%s\" of a reducer", string, option),
			 errdetail("It is a path into the event's data like $.items[*].amount, one into its metadata like metadata.user, or one of position, stream, version, type, schema_version, source, correlation_id, causation_id, occurred_at, recorded_at.")));
}

static bool
is_key_char(unsigned char c)
{
	return IS_HIGHBIT_SET(c) || c == '_' || (c >= '0' && c <= '9') ||
		((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* A member's name, quoted or not; returns what follows, or NULL. */
static const char *
parse_key(const char *at, Step *step)
{
	bool		quoted = *at == '"';

	step->kind = STEP_MEMBER;
	step->key = palloc(strlen(at) + 1);
	step->length = 0;
	if (quoted)
		at++;
	while (quoted ? *at != '"' && *at != '\0' : is_key_char(*at))
	{
		if (quoted && *at == '\\' && (at[1] == '"' || at[1] == '\\'))
			at++;
		step->key[step->length++] = *at++;
	}
	if (quoted)
		return *at == '"' ? at + 1 : NULL;
	return step->length > 0 ? at : NULL;
}

/* An element's number, or "*"; returns what follows, or NULL. */
static const char *
parse_element(const char *at, Step *step)
{
	char	   *end;
	unsigned long index;

	step->kind = STEP_ALL;
	if (*at == '*')
		return at[1] == ']' ? at + 2 : NULL;
	if (*at < '0' || *at > '9')
		return NULL;
	step->kind = STEP_ELEMENT;
	errno = 0;
	index = strtoul(at, &end, 10);
	if (errno != 0 || index > PG_INT32_MAX || *end != ']')
		return NULL;
	step->index = (uint32) index;
	return end + 1;
}

/* The steps of a path; false if it is none. */
static bool
parse_steps(EsOperand *operand, const char *at)
{
	operand->steps = palloc0((strlen(at) + 1) * sizeof(Step));
	while (at != NULL && *at != '\0')
	{
		Step	   *step = &operand->steps[operand->nsteps++];

		if (*at == '.')
			at = parse_key(at + 1, step);
		else if (*at == '[')
			at = parse_element(at + 1, step);
		else
			at = NULL;
	}
	return at != NULL;
}

/* In the current memory context. */
EsOperand *
EsOperandParse(const char *string, const char *option)
{
	static const char metadata[] = "metadata";
	EsOperand  *operand = palloc0(sizeof(EsOperand));

	for (size_t i = 0; i < lengthof(columns); i++)
	{
		operand->column = columns[i].column;
		if (strcmp(string, columns[i].name) == 0)
			return operand;
	}
	operand->column = *string == '$' ? Anum_es_event_data - 1 : Anum_es_event_metadata - 1;
	if (*string == '$' ? !parse_steps(operand, string + 1) :
		strncmp(string, metadata, strlen(metadata)) != 0 || !parse_steps(operand, string + strlen(metadata)))
		refuse(string, option);
	return operand;
}

/* A column that is no JSON, as JSON. */
static void
column_value(int column, const EsEventRow *event, JsonbValue *value)
{
	Datum		datum = event->values[column];
	size_t		i = 0;

	while (columns[i].column != column)
		i++;
	switch (columns[i].type)
	{
		case INT8OID:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(DatumGetInt64(datum));
			break;
		case TIMESTAMPTZOID:
			{
				int			utc = 0;

				value->type = jbvString;
				value->val.string.val = JsonEncodeDateTime(NULL, datum, TIMESTAMPTZOID, &utc);
				value->val.string.len = strlen(value->val.string.val);
				break;
			}
		default:
			{
				text	   *string = DatumGetTextPP(datum);

				value->type = jbvString;
				value->val.string.val = VARDATA_ANY(string);
				value->val.string.len = VARSIZE_ANY_EXHDR(string);
			}
	}
}

/* Visit what the rest of a path finds from here; false when told to stop. */
static bool
walk(const Step *step, int nsteps, const JsonbValue *value, bool first_only, EsOperandVisitor visit, void *arg)
{
	JsonbContainer *container = value->type == jbvBinary ? value->val.binary.data : NULL;
	JsonbValue *found = NULL;

	if (nsteps == 0)
	{
		visit(value, arg);
		return !first_only;
	}
	if (container == NULL)
		return true;
	if (step->kind == STEP_MEMBER)
	{
		if (JsonContainerIsObject(container))
			found = getKeyJsonValueFromContainer(container, step->key, step->length, NULL);
		return found == NULL || walk(step + 1, nsteps - 1, found, first_only, visit, arg);
	}
	if (!JsonContainerIsArray(container))
		return true;
	for (uint32 i = step->kind == STEP_ALL ? 0 : step->index; i < JsonContainerSize(container); i++)
	{
		found = getIthJsonbValueFromContainer(container, i);
		if (!walk(step + 1, nsteps - 1, found, first_only, visit, arg))
			return false;
		if (step->kind == STEP_ELEMENT)
			break;
	}
	return true;
}

static void
visit_operand(const EsOperand *operand, EsEventRow *event, bool first_only, EsOperandVisitor visit, void *arg)
{
	int			column = operand->column;
	JsonbValue	value;

	if (event->nulls[column])
		return;
	if (column == Anum_es_event_data - 1 || column == Anum_es_event_metadata - 1)
	{
		Jsonb	   *jsonb = DatumGetJsonbP(event->values[column]);

		event->values[column] = JsonbPGetDatum(jsonb);	/* detoasted once an event */
		EsJsonbValueSet(&value, jsonb);
	}
	else
		column_value(column, event, &value);
	walk(operand->steps, operand->nsteps, &value, first_only, visit, arg);
}

/* Visit all that an operand finds. */
void
EsOperandEach(const EsOperand *operand, EsEventRow *event, EsOperandVisitor visit, void *arg)
{
	visit_operand(operand, event, false, visit, arg);
}

typedef struct First
{
	JsonbValue *value;
	bool		found;
} First;

static void
take_first(const JsonbValue *value, void *arg)
{
	First	   *first = arg;

	*first->value = *value;
	first->found = true;
}

/* The first thing that an operand finds; false: nothing. */
bool
EsOperandFirst(const EsOperand *operand, EsEventRow *event, JsonbValue *value)
{
	First		first = {value, false};

	visit_operand(operand, event, true, take_first, &first);
	return first.found;
}
