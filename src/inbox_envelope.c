/*
 * inbox_envelope.c
 *		What a message of a durable inbox has beyond one of the outbox: the
 *		sender's id, which is text, the topic that it came by, and its sequence.
 *
 * They travel among its headers, under keys that begin with "$"; its own headers
 * have no such keys.  So the log, parked messages and dead letters carry them
 * without knowing of them.
 */
#include "inbox_durable.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#define KEY_ID			"$id"
#define KEY_TOPIC		"$topic"
#define KEY_SEQUENCE	"$sequence"
#define KEY_MISSING		"$missing"

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue	name;

	name.type = jbvString;
	name.val.string.val = unconstify(char *, key);
	name.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &name);
}

static void
push_text(JsonbParseState **state, const char *key, const text *value)
{
	JsonbValue	content;

	push_key(state, key);
	content.type = jbvString;
	content.val.string.val = VARDATA_ANY(value);
	content.val.string.len = VARSIZE_ANY_EXHDR(value);
	pushJsonbValue(state, WJB_VALUE, &content);
}

static bool
is_reserved(const JsonbValue *key)
{
	return key->val.string.len > 0 && key->val.string.val[0] == '$';
}

/* Copy headers but for es_pg's own; how many there were. */
static int
push_headers(JsonbParseState **state, Jsonb *headers)
{
	JsonbIterator *it = JsonbIteratorInit(&headers->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	bool		passing = false;
	int			n = 0;

	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			passing = is_reserved(&value);
		if ((token != WJB_KEY && token != WJB_VALUE) || passing)
			continue;
		pushJsonbValue(state, token, &value);
		n++;
	}
	return n;
}

/* Refuse headers that have keys of es_pg's own, or are none. */
void
EsEnvelopeCheck(const EsMessages *messages)
{
	const EsColumn *column = &messages->columns[Anum_es_outbox_headers];

	EsMessagesCheckHeaders(messages);
	for (uint32 i = 0; column->values != NULL && i < (column->constant ? 1 : messages->n); i++)
	{
		bool		isnull;
		Datum		headers = EsColumnValue(column, i, &isnull);
		JsonbIterator *it;
		JsonbValue	value;
		JsonbIteratorToken token;

		if (isnull)
			continue;
		it = JsonbIteratorInit(&DatumGetJsonbP(headers)->root);
		while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
		{
			if (token == WJB_KEY && is_reserved(&value))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("header \"%.*s\" is reserved", value.val.string.len, value.val.string.val),
						 errdetail("Headers that begin with \"$\" are es_pg's own.")));
		}
	}
}

/* The headers under which a message is stored. */
Jsonb *
EsEnvelopeSeal(const EsEnvelope *envelope)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_text(&state, KEY_ID, envelope->message_id);
	push_text(&state, KEY_TOPIC, envelope->topic);
	if (envelope->numbered)
	{
		JsonbValue	number;

		push_key(&state, KEY_SEQUENCE);
		number.type = jbvNumeric;
		number.val.numeric = int64_to_numeric(envelope->sequence);
		pushJsonbValue(&state, WJB_VALUE, &number);
	}
	if (envelope->headers != NULL)
		push_headers(&state, envelope->headers);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static bool
get(Jsonb *headers, const char *key, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(&headers->root, key, strlen(key), value) != NULL;
}

static text *
get_text(Jsonb *headers, const char *key)
{
	JsonbValue	value;

	if (!get(headers, key, &value) || value.type != jbvString)
		elog(ERROR, "message of an inbox without \"%s\"", key);
	return cstring_to_text_with_len(value.val.string.val, value.val.string.len);
}

void
EsEnvelopeOpen(Jsonb *headers, EsEnvelope *envelope)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;
	bool		any;

	envelope->message_id = get_text(headers, KEY_ID);
	envelope->topic = get_text(headers, KEY_TOPIC);
	envelope->numbered = get(headers, KEY_SEQUENCE, &value) && value.type == jbvNumeric;
	if (envelope->numbered)
		envelope->sequence = DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(value.val.numeric)));
	envelope->missing = get(headers, KEY_MISSING, &value) ? text_to_cstring(get_text(headers, KEY_MISSING)) : NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	any = push_headers(&state, headers) > 0;
	envelope->headers = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	if (!any)
		envelope->headers = NULL;
}
