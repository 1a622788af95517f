/*
 * inbox_resequence.c
 *		Messages of a durable inbox that wait for earlier ones of their key.
 *
 * A numbered message is published when it is its turn; before that it lies in
 * es_inbox_held.  So what the log has is in order already, and nothing that reads
 * it has to know of numbers.  Whose turn it is stands in es_inbox_keys, a row a
 * key, which is locked from a put to the end of its transaction: messages of one
 * key are put in one transaction after the other.
 *
 * Who runs the inbox first looks for keys that have waited long enough.
 */
#include "inbox_durable.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "subscription.h"

/* Columns of es_inbox_held: these, then those of es_outbox from message_id on. */
enum
{
	Anum_es_inbox_held_consumer_id = 1,
	Anum_es_inbox_held_sequence,
	Anum_es_inbox_held_held_at,
	Anum_es_inbox_held_message_id
};

#define Natts_es_inbox_held	(Natts_es_outbox - Anum_es_outbox_message_id + Anum_es_inbox_held_message_id)

/* What es_inbox_turn says. */
enum
{
	TURN_OVER = -1,
	TURN_NOW = 0,
	TURN_LATER = 1,
	TURN_NOW_AND_MORE = 2
};

static EsStatement turn = {
	"SELECT @.es_inbox_turn($1, $2, $3)", 3, {INT8OID, TEXTOID, INT8OID}
};

static EsStatement find_held = {
	"SELECT FROM @.es_inbox_held WHERE consumer_id = $1 AND key = $2 AND \"sequence\" = $3",
	3, {INT8OID, TEXTOID, INT8OID}
};

static EsStatement take_held = {
	"SELECT * FROM @.es_inbox_take_held($1, $2)", 2, {INT8OID, TEXTOID}
};

static EsStatement take_overdue = {
	"SELECT * FROM @.es_inbox_take_overdue($1)", 1, {INT8OID}
};

static int
take_turn(Datum *args)
{
	bool		isnull;

	EsStatementRun(&turn, args, NULL);
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Publish what a statement takes out of es_inbox_held; false when that is nothing. */
static bool
publish_taken(EsStatement *statement, Datum *args)
{
	EsMessages	messages;

	if (EsStatementRun(statement, args, NULL) == 0)
		return false;
	EsMessagesTaken(&messages, Anum_es_inbox_held_message_id - 1);
	(void) EsPublish(&messages);
	return true;
}

/* Keep a message until its turn comes. */
static void
hold(const EsInbox *inbox, const EsMessages *message, int64 sequence, Datum *args)
{
	Datum		values[Natts_es_inbox_held];
	bool		nulls[Natts_es_inbox_held] = {false};

	if (EsStatementRun(&find_held, args, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_IDEMPOTENCY_CONFLICT),
				 errmsg("another message has sequence " INT64_FORMAT " of key \"%s\"",
						sequence, TextDatumGetCString(args[1])),
				 errdetail("It has another message id and waits for its turn.")));
	values[Anum_es_inbox_held_consumer_id - 1] = Int64GetDatum(inbox->consumer);
	values[Anum_es_inbox_held_sequence - 1] = Int64GetDatum(sequence);
	values[Anum_es_inbox_held_held_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	EsMessageValues(message, 0, values + Anum_es_inbox_held_message_id - 1, nulls + Anum_es_inbox_held_message_id - 1);
	EsInsertRow(EsCatalogGet()->inbox_held, Natts_es_inbox_held, values, nulls);
}

/* Publish a numbered message, or keep it for later; false when its turn is over. */
bool
EsResequence(const EsInbox *inbox, const EsMessages *message, int64 sequence)
{
	Datum		args[] = {
		Int64GetDatum(inbox->consumer),
		message->columns[Anum_es_outbox_key].values[0],
		Int64GetDatum(sequence)
	};
	int			verdict;

	SPI_connect();
	verdict = take_turn(args);
	if (verdict == TURN_LATER)
		hold(inbox, message, sequence, args);
	else if (verdict != TURN_OVER)
		(void) EsPublish(message);
	if (verdict == TURN_NOW_AND_MORE)
		(void) publish_taken(&take_held, args);
	SPI_finish();
	return verdict != TURN_OVER;
}

/* Publish what has waited too long for what is missing; it is fetched when that is committed. */
bool
EsResequenceOverdue(const EsInbox *inbox)
{
	Datum		args[] = {Int64GetDatum(inbox->consumer)};
	bool		any;

	if (!inbox->resequences)
		return false;
	SPI_connect();
	any = publish_taken(&take_overdue, args);
	SPI_finish();
	return any;
}
