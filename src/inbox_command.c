/*
 * inbox_command.c
 *		Commands that are carried out once, and answered as often as they are
 *		asked: es_command_begin and es_command_end.
 *
 * es_command_begin writes a mark as es_inbox_accept does, so a second one with the
 * same key waits for the end of the first's transaction.  es_command_end writes
 * another, which has the response; nothing is updated.  Whoever finds the first
 * mark finds the second too, for a transaction that began a command and has not
 * ended it may not commit: its effects would stay and its response would be lost.
 *
 * What a transaction has begun and ended is in a list in its memory, each entry with the
 * subtransactions that did so: a rollback to a savepoint takes back either.
 */
#include "inbox.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "columns.h"
#include "stream.h"

#define DEFAULT_CONSUMER	"commands"

PG_FUNCTION_INFO_V1(es_command_begin);
PG_FUNCTION_INFO_V1(es_command_end);

/* A command that this transaction has begun. */
typedef struct Command
{
	EsInboxMark mark;
	char	   *key;
	text	   *request;		/* or NULL */
	SubTransactionId begun;
	SubTransactionId ended;		/* InvalidSubTransactionId: not yet */
} Command;

static List *commands = NIL;	/* in TopTransactionContext */

static void
check_ended(void)
{
	ListCell   *cell;

	foreach(cell, commands)
	{
		const Command *command = lfirst(cell);

		if (command->ended == InvalidSubTransactionId)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
					 errmsg("command \"%s\" was begun and not ended", command->key),
					 errdetail("Its effects would be committed without its response."),
					 errhint("Call es_command_end in the transaction of es_command_begin.")));
	}
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			check_ended();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			commands = NIL;
			break;
		default:
			break;
	}
}

static void
at_subtransaction_event(SubXactEvent event, SubTransactionId sub, SubTransactionId parent, void *arg)
{
	SubTransactionId now = event == SUBXACT_EVENT_COMMIT_SUB ? parent : InvalidSubTransactionId;
	ListCell   *cell;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(cell, commands)
	{
		Command    *command = lfirst(cell);

		if (command->ended == sub)
			command->ended = now;
		if (command->begun == sub)
			command->begun = now;
		if (command->begun == InvalidSubTransactionId)
			commands = foreach_delete_current(commands, cell);
	}
}

void
EsCommandInit(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}

/* What this transaction knows of a command; NULL: it has not begun it. */
static Command *
find_command(const EsInboxMark *mark)
{
	ListCell   *cell;

	foreach(cell, commands)
	{
		Command    *command = lfirst(cell);

		if (memcmp(&command->mark.digest, &mark->digest, UUID_LEN) == 0)
			return command;
	}
	return NULL;
}

static void
note_begun(const EsInboxMark *mark, const text *key, const text *request)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Command    *command = palloc(sizeof(Command));

	command->mark = *mark;
	command->key = text_to_cstring(key);
	command->request = request ? cstring_to_text_with_len(VARDATA_ANY(request), VARSIZE_ANY_EXHDR(request)) : NULL;
	command->begun = GetCurrentSubTransactionId();
	command->ended = InvalidSubTransactionId;
	commands = lappend(commands, command);
	MemoryContextSwitchTo(old);
}

static bool
write_mark(const EsInboxMark *mark)
{
	EsInboxWriter writer;
	bool		written;

	EsInboxWriterBegin(&writer, false);
	written = EsInboxMarkWrite(&writer, mark);
	EsInboxWriterEnd(&writer);
	return written;
}

static bool
same_request(const text *one, const text *other)
{
	if (one == NULL || other == NULL)
		return one == other;
	return VARSIZE_ANY_EXHDR(one) == VARSIZE_ANY_EXHDR(other) &&
		memcmp(VARDATA_ANY(one), VARDATA_ANY(other), VARSIZE_ANY_EXHDR(one)) == 0;
}

/* The response of a command that has ended, to the same request; NULL: it has not. */
static const Jsonb *
read_response(int64 consumer, const text *key, const text *request)
{
	EsInboxMark mark;
	text	   *first;
	Jsonb	   *response;

	EsInboxMarkSet(&mark, consumer, ES_MARK_RESPONSE, key);
	if (!EsInboxMarkRead(&mark, &first, &response))
		return NULL;
	if (!same_request(first, request))
		ereport(ERROR,
				(errcode(ERRCODE_ES_IDEMPOTENCY_CONFLICT),
				 errmsg("idempotency key \"%s\" was used for another request", text_to_cstring(key)),
				 errdetail("The hash of that request is \"%s\", of this one \"%s\".",
						   first ? text_to_cstring(first) : "", request ? text_to_cstring(request) : ""),
				 errhint("A new command needs a new key.")));
	return response;
}

/* Begin a command, or wait for who has: then the response. */
static const Jsonb *
begin_command(int64 consumer, const text *key, const text *request)
{
	EsInboxMark mark;
	const Jsonb *response = read_response(consumer, key, request);

	if (response != NULL)
		return response;
	EsInboxMarkSet(&mark, consumer, ES_MARK_COMMAND, key);
	if (write_mark(&mark))
	{
		note_begun(&mark, key, request);
		return NULL;
	}
	response = read_response(consumer, key, request);
	if (response == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("command \"%s\" was begun already and not ended", text_to_cstring(key)),
				 errhint("Call es_command_end first.")));
	return response;
}

/* es_command_begin(idempotency_key, request_hash, consumer) */
Datum
es_command_begin(PG_FUNCTION_ARGS)
{
	text	   *consumer = EsArgInbox(fcinfo, 2, DEFAULT_CONSUMER, "es_command_begin()");
	text	   *key = EsArgName(fcinfo, 0, "idempotency key");
	text	   *request = PG_ARGISNULL(1) ? NULL : EsArgName(fcinfo, 1, "request hash");
	const Jsonb *response = begin_command(EsInboxConsumer(consumer), key, request);

	if (response == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(response);
}

/* es_command_end(idempotency_key, response, consumer) */
Datum
es_command_end(PG_FUNCTION_ARGS)
{
	text	   *consumer = EsArgInbox(fcinfo, 2, DEFAULT_CONSUMER, "es_command_end()");
	text	   *key = EsArgName(fcinfo, 0, "idempotency key");
	Command    *command = NULL;
	EsInboxMark mark;
	int64		id;

	EsArgRequire(PG_ARGISNULL(1), "response");
	if (EsInboxConsumerFind(consumer, &id))
	{
		EsInboxMarkSet(&mark, id, ES_MARK_COMMAND, key);
		command = find_command(&mark);
	}
	if (command == NULL || command->ended != InvalidSubTransactionId)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg(command ? "command \"%s\" was ended already" : "command \"%s\" was not begun in this transaction",
						text_to_cstring(key)),
				 errhint("Call es_command_begin first; where it returns a response there is nothing to do.")));
	EsInboxMarkSet(&mark, id, ES_MARK_RESPONSE, key);
	mark.request = command->request;
	mark.response = PG_GETARG_JSONB_P(1);
	if (!write_mark(&mark))
		elog(ERROR, "command \"%s\" has a response already", command->key);
	command->ended = GetCurrentSubTransactionId();
	PG_RETURN_VOID();
}
