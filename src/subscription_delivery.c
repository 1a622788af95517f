/*
 * subscription_delivery.c
 *		Which rows of a source a subscription wants, and what it hands out.
 *
 * An event and a message of the outbox come out in one shape, es_delivery.  Of
 * an event the topic is its category, the key its stream, the headers are its
 * metadata.  A parked message is a copy of that shape.
 *
 * The filter's path sees a document with the keys data, payload (the same) and
 * headers.  A path that is a predicate must be true; any other must find
 * something.  Errors inside it, as with jsonb's @@ and @?, are no match.
 */
#include "subscription.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "outbox.h"

/*
 * The hash of a row's key, which its lane follows from.  Of an event that is
 * its stream's number, so that other lanes' events need not be named.  Without a
 * key there is no order, and each message goes where its position says.
 */
uint64
EsRowKeyHash(EsChunkKind source, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		value;
	text	   *key;

	if (source == ES_CHUNK_EVENTS)
		return EsHashNumber((uint64) DatumGetInt64(slot_getattr(slot, Anum_es_events_stream_id, &isnull)));
	value = slot_getattr(slot, Anum_es_outbox_key, &isnull);
	if (isnull)
		return EsHashNumber((uint64) DatumGetInt64(slot_getattr(slot, Anum_es_outbox_position, &isnull)));
	key = DatumGetTextPP(value);
	return EsHashBytes(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), 0);
}

static bool
one_of(text *const *names, int n, Datum value)
{
	text	   *name = DatumGetTextPP(value);

	for (int i = 0; i < n; i++)
	{
		if (VARSIZE_ANY_EXHDR(names[i]) == VARSIZE_ANY_EXHDR(name) &&
			memcmp(VARDATA_ANY(names[i]), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) == 0)
			return true;
	}
	return n == 0;
}

/* Who names no topics wants those of users; others begin with "$". */
static bool
wants_topic(const EsSubscription *subscription, Datum topic)
{
	if (subscription->ntopics == 0)
		return VARDATA_ANY(DatumGetTextPP(topic))[0] != '$';
	return one_of(subscription->topics, subscription->ntopics, topic);
}

/* ---------------------------------------------------------------- the path */

static void
push_member(JsonbParseState **state, const char *key, Jsonb *value)
{
	JsonbValue	name;
	JsonbValue	content;

	name.type = jbvString;
	name.val.string.val = unconstify(char *, key);
	name.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &name);
	if (value == NULL)
		content.type = jbvNull;
	else if (JB_ROOT_IS_SCALAR(value))
		JsonbExtractScalar(&value->root, &content);
	else
	{
		content.type = jbvBinary;
		content.val.binary.data = &value->root;
		content.val.binary.len = VARSIZE_ANY_EXHDR(value);
	}
	pushJsonbValue(state, WJB_VALUE, &content);
}

static Jsonb *
document(Jsonb *payload, Jsonb *headers)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_member(&state, "data", payload);
	push_member(&state, "payload", payload);
	push_member(&state, "headers", headers);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static bool
is_predicate(JsonPath *path)
{
	JsonPathItem item;

	jspInit(&item, path);
	switch (item.type)
	{
		case jpiAnd:
		case jpiOr:
		case jpiNot:
		case jpiIsUnknown:
		case jpiEqual:
		case jpiNotEqual:
		case jpiLess:
		case jpiGreater:
		case jpiLessOrEqual:
		case jpiGreaterOrEqual:
		case jpiExists:
		case jpiStartsWith:
		case jpiLikeRegex:
			return !jspHasNext(&item);
		default:
			return false;
	}
}

static bool
path_matches(JsonPath *path, Jsonb *payload, Jsonb *headers)
{
	LOCAL_FCINFO(fcinfo, 2);
	PGFunction	function = is_predicate(path) ? jsonb_path_match_opr : jsonb_path_exists_opr;
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(document(payload, headers));
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = PointerGetDatum(path);
	fcinfo->args[1].isnull = false;
	result = function(fcinfo);
	return !fcinfo->isnull && DatumGetBool(result);
}

static Jsonb *
json_or_null(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : DatumGetJsonbP(value);
}

/* Its garbage goes with a context of its own, for a scan passes many rows. */
static bool
where_matches(const EsSubscription *subscription, TupleTableSlot *slot)
{
	bool		events = subscription->source == ES_CHUNK_EVENTS;
	MemoryContext context;
	MemoryContext old;
	bool		matches;

	if (subscription->where == NULL)
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext, "es_pg filter", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	matches = path_matches(subscription->where,
						   json_or_null(slot, events ? Anum_es_events_data : Anum_es_outbox_payload),
						   json_or_null(slot, events ? Anum_es_events_metadata : Anum_es_outbox_headers));
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return matches;
}

/* Does the subscription want this row for what it says, whatever an event's category is? */
bool
EsSubscriptionWantsContent(const EsSubscription *subscription, TupleTableSlot *slot)
{
	bool		events = subscription->source == ES_CHUNK_EVENTS;
	bool		isnull;

	return one_of(subscription->filter.types, subscription->filter.ntypes,
				  slot_getattr(slot, events ? Anum_es_events_type : Anum_es_outbox_type, &isnull)) &&
		(events || wants_topic(subscription, slot_getattr(slot, Anum_es_outbox_topic, &isnull))) &&
		where_matches(subscription, slot);
}

/* Does the subscription want this row?  If it is an event, find its stream's name. */
bool
EsSubscriptionWants(const EsSubscription *subscription, TupleTableSlot *slot, Snapshot snapshot,
					const text **stream)
{
	*stream = NULL;
	if (subscription->source == ES_CHUNK_EVENTS)
		return EsFilterWants(&subscription->filter, slot, snapshot, stream) &&
			where_matches(subscription, slot);
	return EsSubscriptionWantsContent(subscription, slot);
}

/* ---------------------------------------------------------------- the shape */

/* Columns of es_events for those of es_delivery; 0 is something else. */
static const AttrNumber event_columns[Natts_es_delivery] = {
	[DELIVERY_POSITION] = Anum_es_events_position,
	[DELIVERY_VERSION] = Anum_es_events_version,
	[DELIVERY_MESSAGE_ID] = Anum_es_events_event_id,
	[DELIVERY_TYPE] = Anum_es_events_type,
	[DELIVERY_SCHEMA_VERSION] = Anum_es_events_schema_version,
	[DELIVERY_SOURCE] = Anum_es_events_source,
	[DELIVERY_PAYLOAD] = Anum_es_events_data,
	[DELIVERY_HEADERS] = Anum_es_events_metadata,
	[DELIVERY_CORRELATION_ID] = Anum_es_events_correlation_id,
	[DELIVERY_CAUSATION_ID] = Anum_es_events_causation_id,
	[DELIVERY_TRACEPARENT] = Anum_es_events_traceparent,
	[DELIVERY_OCCURRED_AT] = Anum_es_events_occurred_at,
	[DELIVERY_RECORDED_AT] = Anum_es_events_recorded_at
};

/* The same of es_outbox. */
static const AttrNumber message_columns[Natts_es_delivery] = {
	[DELIVERY_POSITION] = Anum_es_outbox_position,
	[DELIVERY_TOPIC] = Anum_es_outbox_topic,
	[DELIVERY_KEY] = Anum_es_outbox_key,
	[DELIVERY_MESSAGE_ID] = Anum_es_outbox_message_id,
	[DELIVERY_TYPE] = Anum_es_outbox_type,
	[DELIVERY_PAYLOAD] = Anum_es_outbox_payload,
	[DELIVERY_HEADERS] = Anum_es_outbox_headers,
	[DELIVERY_CORRELATION_ID] = Anum_es_outbox_correlation_id,
	[DELIVERY_CAUSATION_ID] = Anum_es_outbox_causation_id,
	[DELIVERY_TRACEPARENT] = Anum_es_outbox_traceparent,
	[DELIVERY_OCCURRED_AT] = Anum_es_outbox_created_at,
	[DELIVERY_RECORDED_AT] = Anum_es_outbox_created_at,
	[DELIVERY_PAYLOAD_BINARY] = Anum_es_outbox_payload_binary,
	[DELIVERY_CONTENT_TYPE] = Anum_es_outbox_content_type
};

static void
form_message(TupleTableSlot *slot, EsDelivered *delivered)
{
	slot_getallattrs(slot);
	memset(delivered->nulls, true, sizeof(delivered->nulls));
	for (int i = 0; i < Natts_es_delivery; i++)
	{
		if (message_columns[i] == 0)
			continue;
		delivered->values[i] = slot->tts_values[message_columns[i] - 1];
		delivered->nulls[i] = slot->tts_isnull[message_columns[i] - 1];
	}
}

static void
form_event(TupleTableSlot *slot, const text *stream, EsDelivered *delivered)
{
	EsEventValues(slot, event_columns, Natts_es_delivery, delivered->values, delivered->nulls);
	delivered->values[DELIVERY_TOPIC] =
		PointerGetDatum(cstring_to_text_with_len(VARDATA_ANY(stream), EsCategoryLength(stream)));
	delivered->values[DELIVERY_KEY] = PointerGetDatum(stream);
	delivered->nulls[DELIVERY_PAYLOAD_BINARY] = true;
	delivered->nulls[DELIVERY_CONTENT_TYPE] = true;
}

/* A row of the source in es_delivery's shape, but for lane, epoch and incarnation. */
void
EsDeliveryForm(const EsSubscription *subscription, TupleTableSlot *slot, const text *stream,
			   EsDelivered *delivered)
{
	if (subscription->source == ES_CHUNK_EVENTS)
		form_event(slot, stream, delivered);
	else
		form_message(slot, delivered);
	delivered->values[DELIVERY_ATTEMPT] = Int32GetDatum(0);
	delivered->nulls[DELIVERY_ATTEMPT] = false;
}

/* And the incarnation that its position belongs to. */
void
EsDeliverySetLife(EsDelivered *delivered, const EsLives *lives)
{
	pg_uuid_t  *life = EsLifeOf(lives, (EsPosition) DatumGetInt64(delivered->values[DELIVERY_POSITION]));

	delivered->values[DELIVERY_INCARNATION] = UUIDPGetDatum(life);
	delivered->nulls[DELIVERY_INCARNATION] = life == NULL;
}
