/*
 * inbox_status.c
 *		How often each consumer was told that a message is new, or is not.
 *
 * The counts are in shared memory, for a table's rows would cost each message
 * more than its mark: an entry a consumer, found once by a backend, then added
 * to without a lock.  They count answers, those of transactions that were rolled
 * back too, since the server's start; where there is no room for a consumer's
 * entry, it is not counted.
 */
#include "inbox.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "horizon.h"
#include "subscription.h"

PG_FUNCTION_INFO_V1(es_inbox_counts);
PG_FUNCTION_INFO_V1(es_key_lane);

#define CACHED			16		/* consumers whose entries a backend remembers */

static struct
{
	uint32		log;
	int64		consumer;
	EsInboxCounter *counter;	/* or NULL: there was no room */
}			cache[CACHED];

/* A consumer's entry, or a new one; NULL: there is no room. */
static EsInboxCounter *
find_counter(uint32 log, int64 consumer)
{
	const EsConsumers *consumers = EsConsumersGet();
	EsInboxCounter *unused = NULL;
	EsInboxCounter *found = NULL;

	LWLockAcquire(consumers->lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < consumers->ncounters && found == NULL; i++)
	{
		EsInboxCounter *counter = &consumers->counters[i];

		if (counter->log == log && counter->consumer == consumer)
			found = counter;
		else if (counter->log == 0 && unused == NULL)
			unused = counter;
	}
	if (found == NULL && unused != NULL)
	{
		found = unused;
		found->consumer = consumer;
		found->since = GetCurrentTimestamp();
		pg_atomic_init_u64(&found->accepted, 0);
		pg_atomic_init_u64(&found->duplicates, 0);
		found->log = log;
	}
	LWLockRelease(consumers->lock);
	return found;
}

/* A consumer was told so often that a message is new, and so often that it is not. */
void
EsInboxCount(int64 consumer, uint32 accepted, uint32 duplicates)
{
	uint32		log = EsLogNumber(EsLogGet());
	int			at = (int) ((uint64) consumer % CACHED);

	if (cache[at].log != log || cache[at].consumer != consumer)
	{
		cache[at].counter = find_counter(log, consumer);
		cache[at].consumer = consumer;
		cache[at].log = log;
	}
	if (cache[at].counter == NULL)
		return;
	if (accepted > 0)
		pg_atomic_fetch_add_u64(&cache[at].counter->accepted, accepted);
	if (duplicates > 0)
		pg_atomic_fetch_add_u64(&cache[at].counter->duplicates, duplicates);
}

Datum
es_inbox_counts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	uint32		log;
	const EsConsumers *consumers;

	EsRequirePrimary();
	InitMaterializedSRF(fcinfo, 0);
	log = EsLogNumber(EsLogGet());
	consumers = EsConsumersGet();
	for (uint32 i = 0; i < consumers->ncounters; i++)
	{
		EsInboxCounter *counter = &consumers->counters[i];
		Datum		values[4];
		bool		nulls[4] = {false};

		if (counter->log != log)
			continue;
		values[0] = Int64GetDatum(counter->consumer);
		values[1] = Int64GetDatum((int64) pg_atomic_read_u64(&counter->accepted));
		values[2] = Int64GetDatum((int64) pg_atomic_read_u64(&counter->duplicates));
		values[3] = TimestampTzGetDatum(counter->since);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* es_key_lane(key, position, lanes): see EsRowKeyHash */
Datum
es_key_lane(PG_FUNCTION_ARGS)
{
	uint64		hash;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_GETARG_INT32(2) < 1)
		PG_RETURN_NULL();
	if (PG_ARGISNULL(0))
		hash = EsHashNumber((uint64) PG_GETARG_INT64(1));
	else
	{
		text	   *key = PG_GETARG_TEXT_PP(0);

		hash = EsHashBytes(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), 0);
	}
	PG_RETURN_INT32(EsLaneOf(hash, PG_GETARG_INT32(2)));
}
