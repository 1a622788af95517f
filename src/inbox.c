/*
 * inbox.c
 *		es_inbox_accept and its batch: what they are called with, in what order
 *		ids are taken, and what is too old to be known.
 *
 * A batch takes its ids in the order of their digests, so two batches with the
 * same ids meet in one order and no deadlock is made of them.
 *
 * How far back the inbox knows: chunks are dropped, and up to where is noted by
 * who drops, in the same transaction.  A message whose sender made it after that
 * cannot have been accepted before it.  The note is looked at after the marks: who
 * found a chunk gone finds the note.
 */
#include "inbox.h"

#include "access/genam.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "columns.h"
#include "stream.h"

PG_FUNCTION_INFO_V1(es_inbox_accept);
PG_FUNCTION_INFO_V1(es_inbox_accept_batch);

typedef enum TooOld
{
	TOO_OLD_REJECT,
	TOO_OLD_ACCEPT
} TooOld;

static const struct config_enum_entry too_old_options[] = {
	{"reject", TOO_OLD_REJECT, false},
	{"accept", TOO_OLD_ACCEPT, false},
	{NULL, 0, false}
};

static int	too_old = TOO_OLD_REJECT;

/* A message of a batch. */
typedef struct Entry
{
	EsInboxMark		mark;
	uint32		index;			/* in the arguments, from 0 */
} Entry;

void
EsInboxInit(void)
{
	DefineCustomEnumVariable("es_pg.inbox_too_old",
							 "What becomes of a message that was made before the time from which the inbox knows messages.",
							 NULL, &too_old, TOO_OLD_REJECT, too_old_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	EsInboxConsumerInit();
	EsCommandInit();
}

/* Up to when marks were dropped; DT_NOBEGIN: none were. */
TimestampTz
EsInboxForgotten(void)
{
	EsProbe		probe;
	TimestampTz upto = DT_NOBEGIN;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->inbox_forgotten, EsCatalogGet()->inbox_forgotten_pkey);
	if (EsIndexProbe(probe.rel, probe.index, SnapshotSelf, NULL, 0, BackwardScanDirection, probe.slot))
		upto = DatumGetTimestampTz(slot_getattr(probe.slot, 1, &isnull));
	EsProbeClose(&probe);
	return upto;
}

/* Note that marks up to a time are about to be dropped.  Who drops has the parent locked. */
void
EsInboxForget(TimestampTz upto)
{
	Datum		values[] = {TimestampTzGetDatum(upto)};
	bool		nulls[] = {false};

	if (EsInboxForgotten() < upto)
		EsInsertRow(EsCatalogGet()->inbox_forgotten, 1, values, nulls);
}

/*
 * Refuse a message without a mark, if its mark may have been dropped.  DT_NOEND
 * where its sender does not say when it was made.
 */
void
EsInboxCheckAge(TimestampTz made_at)
{
	TimestampTz forgotten;

	if (made_at == DT_NOEND || too_old == TOO_OLD_ACCEPT)
		return;
	forgotten = EsInboxForgotten();
	if (made_at >= forgotten)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_ES_MESSAGE_TOO_OLD),
			 errmsg("message of %s is too old for the inbox", timestamptz_to_str(made_at)),
			 errdetail("What was accepted before %s is not known any more.",
					   pstrdup(timestamptz_to_str(forgotten))),
			 errhint("Decide otherwise whether it was handled. To take it as new, SET es_pg.inbox_too_old = 'accept'.")));
}

/* Is this message new to the consumer?  From now on it is not, if the transaction commits. */
bool
EsInboxAccept(int64 consumer, const text *message_id, TimestampTz made_at)
{
	EsInboxWriter writer;
	EsInboxMark		mark;
	bool		accepted;

	EsInboxMarkSet(&mark, consumer, ES_MARK_MESSAGE, message_id);
	EsInboxWriterBegin(&writer, false);
	accepted = EsInboxMarkWrite(&writer, &mark);
	EsInboxWriterEnd(&writer);
	EsInboxCount(consumer, accepted ? 1 : 0, accepted ? 0 : 1);
	if (accepted)
		EsInboxCheckAge(made_at);
	return accepted;
}

/* es_inbox_accept(consumer, message_id, message_time) */
Datum
es_inbox_accept(PG_FUNCTION_ARGS)
{
	text	   *consumer = EsArgInbox(fcinfo, 0, NULL, "es_inbox_accept()");
	text	   *message_id = EsArgName(fcinfo, 1, "message id");
	TimestampTz made_at = PG_ARGISNULL(2) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(2);

	PG_RETURN_BOOL(EsInboxAccept(EsInboxConsumer(consumer), message_id, made_at));
}

static int
by_digest(const void *a, const void *b)
{
	const Entry *one = a;
	const Entry *other = b;
	int			order = memcmp(one->mark.digest.data, other->mark.digest.data, UUID_LEN);

	if (order != 0)
		return order;
	return one->index < other->index ? -1 : 1;
}

/* The marks of a batch, in the order in which they are taken. */
static Entry *
sort_batch(int64 consumer, const EsColumn *ids, uint32 n)
{
	Entry	   *entries = palloc_extended(n * sizeof(Entry), MCXT_ALLOC_HUGE);

	for (uint32 i = 0; i < n; i++)
	{
		EsInboxMarkSet(&entries[i].mark, consumer, ES_MARK_MESSAGE, (const text *) DatumGetPointer(ids->values[i]));
		entries[i].index = i;
	}
	qsort(entries, n, sizeof(Entry), by_digest);
	return entries;
}

static TimestampTz
time_of(const EsColumn *times, uint32 i)
{
	bool		isnull;
	Datum		value = EsColumnValue(times, i, &isnull);

	return isnull ? DT_NOEND : DatumGetTimestampTz(value);
}

/* Take the marks of a batch; accepted[i] says of each message whether it is new. */
static void
accept_batch(const Entry *entries, uint32 n, const EsColumn *times, bool *accepted)
{
	EsInboxWriter writer;
	TimestampTz oldest = DT_NOEND;

	EsInboxWriterBegin(&writer, true);
	for (uint32 i = 0; i < n; i++)
	{
		if (i > 0 && memcmp(&entries[i].mark.digest, &entries[i - 1].mark.digest, UUID_LEN) == 0)
			continue;
		if (!EsInboxMarkWrite(&writer, &entries[i].mark))
			continue;
		accepted[entries[i].index] = true;
		oldest = Min(oldest, time_of(times, entries[i].index));
	}
	EsInboxWriterEnd(&writer);
	EsInboxCheckAge(oldest);
}

/* Which of several messages are new to a consumer. */
void
EsInboxAcceptMany(int64 consumer, const EsColumn *ids, uint32 n, const EsColumn *times, bool *accepted)
{
	uint32		count = 0;

	accept_batch(sort_batch(consumer, ids, n), n, times, accepted);
	for (uint32 i = 0; i < n; i++)
		count += accepted[i] ? 1 : 0;
	EsInboxCount(consumer, count, n - count);
}

/* The places of those that were accepted, from 1. */
ArrayType *
EsInboxIndexes(const bool *accepted, uint32 n)
{
	Datum	   *indexes = palloc_extended(n * sizeof(Datum), MCXT_ALLOC_HUGE);
	uint32		count = 0;

	for (uint32 i = 0; i < n; i++)
	{
		if (accepted[i])
			indexes[count++] = Int32GetDatum((int32) i + 1);
	}
	return construct_array(indexes, count, INT4OID, sizeof(int32), true, TYPALIGN_INT);
}

/* es_inbox_accept_batch(consumer, message_ids, message_times) */
Datum
es_inbox_accept_batch(PG_FUNCTION_ARGS)
{
	EsColumn	ids = {NULL};
	EsColumn	times = {NULL};
	text	   *consumer = EsArgInbox(fcinfo, 0, NULL, "es_inbox_accept_batch()");
	uint32		n = EsColumnSetArray(&ids, -1, fcinfo, 1, true, "message ids");
	bool	   *accepted;

	EsBatchCheckSize(n, "message");
	EsColumnCheckNames(&ids, n, "message id");
	(void) EsColumnSetArray(&times, n, fcinfo, 2, false, "message times");

	accepted = palloc0(n * sizeof(bool));
	EsInboxAcceptMany(EsInboxConsumer(consumer), &ids, n, &times, accepted);
	PG_RETURN_ARRAYTYPE_P(EsInboxIndexes(accepted, n));
}
