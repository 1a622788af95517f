/*
 * inbox_consumer.c
 *		Consumers: the names under which the inbox tells messages apart.
 *
 * A consumer's id is a position of its own, which no message has and no rollback
 * or crash gives back: so the marks of one that was dropped are never those of
 * another, not even of one with the same name.
 *
 * A backend remembers the ids of names, those that are committed, until the
 * relation cache has news of the table: es_drop_consumer sees to it that it has.
 */
#include "inbox.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "privilege.h"
#include "stream.h"
#include "subscription.h"

#define REMEMBERED		64		/* names */

PG_FUNCTION_INFO_V1(es_create_consumer);
PG_FUNCTION_INFO_V1(es_drop_consumer);

#define Anum_consumer_id	1		/* of es_inbox_consumers */

typedef struct Known
{
	text	   *name;			/* NULL: nothing here */
	int64		id;
} Known;

static bool create_consumers = true;
static Known known[REMEMBERED]; /* names in TopMemoryContext */
static Oid	known_of = InvalidOid;	/* the table, where anything is known */

static void
invalidate(Oid relation)
{
	if (relation == InvalidOid || relation == known_of)
		known_of = InvalidOid;
}

void
EsInboxConsumerInit(void)
{
	DefineCustomBoolVariable("es_pg.inbox_create_consumers",
							 "Whether the inbox creates consumers that it does not know.",
							 "If off, es_create_consumer does, and other names are refused.",
							 &create_consumers, true, PGC_SUSET, 0, NULL, NULL, NULL);
	EsCatalogOnInvalidation(invalidate);
}

static bool
same_name(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Where a name is remembered. */
static Known *
place_of(const text *name)
{
	return &known[hash_bytes((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) % REMEMBERED];
}

static void
forget_all(void)
{
	for (int i = 0; i < REMEMBERED; i++)
	{
		if (known[i].name != NULL)
			pfree(known[i].name);
		known[i].name = NULL;
	}
}

static void
remember(Oid table, const text *name, int64 id)
{
	Known	   *place = place_of(name);

	if (known_of != table)
		forget_all();
	if (place->name != NULL)
		pfree(place->name);
	place->name = NULL;
	place->name = (text *) MemoryContextAlloc(TopMemoryContext, VARHDRSZ + VARSIZE_ANY_EXHDR(name));
	SET_VARSIZE(place->name, VARHDRSZ + VARSIZE_ANY_EXHDR(name));
	memcpy(VARDATA(place->name), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	place->id = id;
	known_of = table;
}

/* The id of a consumer by the table, as it is now and in this transaction. */
static bool
read_id(const text *name, int64 *id)
{
	Oid			table = EsCatalogGet()->inbox_consumers;
	Relation	rel = EsTableOpen(table, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found;
	bool		isnull;

	found = EsNameProbe(rel, EsCatalogGet()->inbox_consumers_name_key, name, SnapshotSelf, slot, NULL);
	if (found)
	{
		TransactionId xmin = DatumGetTransactionId(slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));

		*id = DatumGetInt64(slot_getattr(slot, Anum_consumer_id, &isnull));
		if (!TransactionIdIsCurrentTransactionId(xmin))
			remember(table, name, *id);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return found;
}

/* The id of a consumer; false: there is none. */
bool
EsInboxConsumerFind(const text *name, int64 *id)
{
	const Known *place = place_of(name);

	if (OidIsValid(known_of) && known_of == EsCatalogGet()->inbox_consumers &&
		place->name != NULL && same_name(place->name, name))
	{
		*id = place->id;
		return true;
	}
	return read_id(name, id);
}

/* Insert a consumer, unless somebody has; waits for who is about to. */
static bool
create(const text *name)
{
	static EsStatement insert = {
		"INSERT INTO @.es_inbox_consumers (consumer_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
		2, {INT8OID, TEXTOID}
	};
	Datum		args[] = {Int64GetDatum((int64) EsPositionTake()), PointerGetDatum(name)};
	bool		created;

	SPI_connect();
	created = EsStatementRun(&insert, args, NULL) > 0;
	SPI_finish();
	return created;
}

ES_NORETURN static void
refuse_unknown(const text *name, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("consumer \"%s\" does not exist", text_to_cstring(name)),
			 hint ? errhint("%s", hint) : 0));
}

/* The id of a consumer, which is created where that is allowed. */
int64
EsInboxConsumer(const text *name)
{
	int64		id;

	while (!EsInboxConsumerFind(name, &id))
	{
		CHECK_FOR_INTERRUPTS();
		if (!create_consumers)
			refuse_unknown(name, "Create it with es_create_consumer.");
		(void) create(name);
	}
	return id;
}

/*
 * What every function of the inbox begins with: the consumer among its arguments,
 * or else this one, in whose name the user may act, and a transaction that may write.
 */
text *
EsArgInbox(FunctionCallInfo fcinfo, int arg, const char *otherwise, const char *command)
{
	text	   *consumer = otherwise != NULL && PG_ARGISNULL(arg) ?
		cstring_to_text(otherwise) : EsArgName(fcinfo, arg, "consumer");

	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_INBOX, VARDATA_ANY(consumer), VARSIZE_ANY_EXHDR(consumer));
	PreventCommandIfReadOnly(command);
	return consumer;
}

/* es_create_consumer(consumer) */
Datum
es_create_consumer(PG_FUNCTION_ARGS)
{
	text	   *name = EsArgName(fcinfo, 0, "consumer");

	PreventCommandIfReadOnly("es_create_consumer()");
	if (!create(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" already exists", text_to_cstring(name))));
	PG_RETURN_VOID();
}

/* es_drop_consumer(consumer) */
Datum
es_drop_consumer(PG_FUNCTION_ARGS)
{
	static EsStatement delete = {
		"DELETE FROM @.es_inbox_consumers WHERE name = $1", 1, {TEXTOID}
	};
	text	   *name = EsArgName(fcinfo, 0, "consumer");
	Datum		args[] = {PointerGetDatum(name)};

	PreventCommandIfReadOnly("es_drop_consumer()");
	SPI_connect();
	if (EsStatementRun(&delete, args, NULL) == 0)
		refuse_unknown(name, NULL);
	SPI_finish();
	CacheInvalidateRelcacheByRelid(EsCatalogGet()->inbox_consumers);
	PG_RETURN_VOID();
}
