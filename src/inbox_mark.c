/*
 * inbox_mark.c
 *		Marks: how something is done exactly once.
 *
 * A mark is a row of es_inbox with a digest that is unique: the first 128 bits of
 * the SHA-256 of the consumer's id, the kind of mark and the message's id.  Two ids
 * with one digest would make the second message look like a duplicate: among 10^10
 * messages in the window the odds of any such pair are below 2 in 10^19, and no
 * pair is known.  The id itself is not stored.
 *
 * Within a chunk the digest's unique index decides, as for INSERT ... ON CONFLICT
 * DO NOTHING: of two transactions with one digest the second waits for the
 * first's end.  No index spans the chunks, and the clock moves writers from one to
 * the next.  So who writes a mark
 *
 *	1. inserts it, speculatively: seen by everybody, and yet it can be withdrawn;
 *	2. looks into all other chunks, with a snapshot that shows what others have not
 *	   committed; a twin that is committed decides, one in progress is waited for;
 *	3. only then lets it stand.
 *
 * Two at once in two chunks: whoever looks last sees the other, since both insert
 * before they look.  If each sees the other, they must not wait for one another:
 * the one in the earlier chunk withdraws, then waits, then begins anew; the one in
 * the later chunk waits for the other's word.  So one of them gets it, whatever
 * the chunks, and no deadlock is made of it.
 *
 * To look into all chunks one must know them, and should not waste time on those
 * that are made ahead and empty.  So who comes to a chunk first notes it in shared
 * memory, the latest of them, before step 1; after step 1 the note is read.  Who
 * comes to a later chunk after that sees us.  Where the note names a chunk that
 * this backend has not heard of, it asks the catalog.  After a restart nothing is
 * noted: then the latest chunk that is not empty is.
 *
 * A row that is withdrawn is a dead row.  So who has found duplicates looks before
 * step 1, too, where they were: in the own chunk, or in the others, as when
 * a whole topic is read again.  Where one in LOOK_FIRST is a duplicate hardly any makes a dead
 * row, and who meets none need not look twice.
 *
 * Rows are read with a dirty snapshot and SnapshotSelf, so that marks are true
 * under every isolation level, in the own transaction and in the own statement.
 */
#include "inbox.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"

#define LOOK_FIRST		64		/* new messages after a duplicate, then it is inserted first */

/* Another chunk, to be looked into. */
typedef struct Other
{
	EsChunk		chunk;
	EsProbe		probe;
} Other;

/* A mark that somebody has not committed yet. */
typedef struct Twin
{
	TransactionId xid;
	uint32		token;			/* not 0: it may still be withdrawn */
	ItemPointerData tid;
} Twin;

typedef enum Sight
{
	NOT_SEEN,
	SEEN,
	TWIN_LATER					/* in progress in a later chunk, while we hold a mark */
} Sight;

/* An insertion that is not settled. */
typedef struct Attempt
{
	EsInboxWriter *writer;
	const EsInboxMark *mark;
	Sight		sight;
	Twin		twin;
} Attempt;

/* This backend's: so many more messages are looked for before they are inserted. */
static int	look_here = 0;
static int	look_elsewhere = 0;

/* A mark of something with this id. */
void
EsInboxMarkSet(EsInboxMark *mark, int64 consumer, EsInboxMarkKind kind, const text *id)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint8		prefix[sizeof(uint64) + 1];
	uint64		number = pg_hton64((uint64) consumer);
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);

	memcpy(prefix, &number, sizeof(number));
	prefix[sizeof(number)] = (uint8) kind;
	if (ctx == NULL || pg_cryptohash_init(ctx) < 0 ||
		pg_cryptohash_update(ctx, prefix, sizeof(prefix)) < 0 ||
		pg_cryptohash_update(ctx, (const uint8 *) VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id)) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a SHA-256 hash")));
	pg_cryptohash_free(ctx);

	memset(mark, 0, sizeof(*mark));
	mark->consumer = consumer;
	memcpy(mark->digest.data, digest, UUID_LEN);
}

/* Look for a digest in one chunk; true: there it is. */
static bool
look(Relation rel, Relation index, Snapshot snapshot, const EsInboxMark *mark, TupleTableSlot *slot)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(&mark->digest));
	return EsIndexProbe(rel, index, snapshot, &key, 1, ForwardScanDirection, slot);
}

/* The same, also for what is not committed; twin->xid then says whose it is. */
static bool
look_for_twin(Relation rel, Relation index, const EsInboxMark *mark, TupleTableSlot *slot, Twin *twin)
{
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	if (!look(rel, index, &dirty, mark, slot))
		return false;
	twin->xid = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
	twin->token = dirty.speculativeToken;
	twin->tid = slot->tts_tid;
	ExecClearTuple(slot);
	return true;
}

static void
await_twin(Relation rel, Twin *twin)
{
	if (twin->token != 0)
		SpeculativeInsertionWait(twin->xid, twin->token);
	else
		XactLockTableWait(twin->xid, rel, &twin->tid, XLTW_InsertIndex);
}

/* Is a mark in a chunk?  Waits for who has not committed it, unless "holding" says to go. */
static Sight
sight_in(Relation rel, Relation index, const EsInboxMark *mark, TupleTableSlot *slot, bool holding, Twin *twin)
{
	while (look_for_twin(rel, index, mark, slot, twin))
	{
		CHECK_FOR_INTERRUPTS();
		if (!TransactionIdIsValid(twin->xid))
			return SEEN;
		if (holding)
			return TWIN_LATER;
		await_twin(rel, twin);
	}
	return NOT_SEEN;
}

/* Open a chunk to look into it; false when it is gone. */
static bool
open_other(Other *other, const EsChunk *chunk)
{
	static const AttrNumber columns[] = {Anum_es_inbox_digest};

	other->chunk = *chunk;
	other->probe.rel = EsChunkOpen(ES_CHUNK_INBOX, chunk, AccessShareLock);
	if (other->probe.rel == NULL)
		return false;
	other->probe.index = EsLeafIndexOpen(other->probe.rel, columns, lengthof(columns), AccessShareLock);
	other->probe.slot = table_slot_create(other->probe.rel, NULL);
	return true;
}

/* The same for a writer, who may have it open already. */
static Other *
get_other(EsInboxWriter *writer, const EsChunk *chunk)
{
	Other	   *other;
	ListCell   *cell;

	foreach(cell, writer->others)
	{
		other = lfirst(cell);
		if (other->chunk.leaf == chunk->leaf)
			return other;
	}
	other = palloc(sizeof(Other));
	if (!open_other(other, chunk))
		return NULL;
	writer->others = lappend(writer->others, other);
	return other;
}

static void
close_others(EsInboxWriter *writer)
{
	ListCell   *cell;

	foreach(cell, writer->others)
		EsProbeClose(&((Other *) lfirst(cell))->probe);
	list_free_deep(writer->others);
	writer->others = NIL;
}

/* Is a mark in any chunk but the writer's own?  "holding": the writer has it in its own. */
static Sight
sight_elsewhere(EsInboxWriter *writer, const EsInboxMark *mark, bool holding, Twin *twin)
{
	EsPosition	position = 0;
	EsChunk		chunk;
	Sight		sight = NOT_SEEN;

	while (sight == NOT_SEEN && EsChunkFindNext(ES_CHUNK_INBOX, position, &chunk) && chunk.lower <= writer->latest)
	{
		Other	   *other;

		position = chunk.upper;
		if (chunk.leaf == writer->chunk.leaf ||
			(other = get_other(writer, &chunk)) == NULL)
			continue;
		sight = sight_in(other->probe.rel, other->probe.index, mark, other->probe.slot,
						 holding && chunk.lower > writer->chunk.lower, twin);
		if (!writer->many)
			close_others(writer);
	}
	return sight;
}

/* The word on a mark that was inserted: may it stand? */
static bool
may_stand(void *arg)
{
	Attempt    *attempt = arg;
	EsChunk		chunk;

	ES_DEBUG_POINT(inbox_inserted);
	pg_memory_barrier();
	attempt->writer->latest = pg_atomic_read_u64(&EsLogGet()->inbox_latest);
	if (attempt->writer->latest > attempt->writer->chunk.lower)
		(void) EsChunkFindSurely(ES_CHUNK_INBOX, attempt->writer->latest, &chunk);
	attempt->sight = sight_elsewhere(attempt->writer, attempt->mark, true, &attempt->twin);
	return attempt->sight == NOT_SEEN;
}

void
EsInboxWriterBegin(EsInboxWriter *writer, bool many)
{
	memset(writer, 0, sizeof(*writer));
	writer->many = many;
}

static void
close_own(EsInboxWriter *writer)
{
	if (!writer->is_open)
		return;
	ExecDropSingleTupleTableSlot(writer->slot);
	EsTargetClose(&writer->target);
	table_close(writer->target.rel, NoLock);
	writer->is_open = false;
}

void
EsInboxWriterEnd(EsInboxWriter *writer)
{
	close_own(writer);
	close_others(writer);
}

/* The index to look into: of two that decide the one that is complete. */
static Relation
complete_index(const EsInboxWriter *writer)
{
	const ResultRelInfo *rri = writer->target.rri;

	for (int i = 0; i < rri->ri_NumIndices; i++)
	{
		Relation	index = rri->ri_IndexRelationDescs[i];

		if (index->rd_index->indisvalid && list_member_oid(writer->arbiters, RelationGetRelid(index)))
			return index;
	}
	EsLeafIndexRefuse(writer->target.rel);
}

/* The latest chunk that is not empty, by its lower bound. */
static EsPosition
latest_filled(void)
{
	EsChunk		chunk;
	EsPosition	position = PG_INT64_MAX;

	while (EsChunkFindBefore(ES_CHUNK_INBOX, position, &chunk))
	{
		Relation	rel = EsChunkOpen(ES_CHUNK_INBOX, &chunk, AccessShareLock);
		bool		filled = rel != NULL && RelationGetNumberOfBlocks(rel) > 0;

		if (rel != NULL)
			table_close(rel, AccessShareLock);
		if (filled)
			return chunk.lower;
		position = chunk.lower;
	}
	return 0;
}

/* Let everybody know that the writer's chunk is written to. */
static void
note_latest(EsInboxWriter *writer)
{
	pg_atomic_uint64 *latest = &EsLogGet()->inbox_latest;
	uint64		noted = pg_atomic_read_u64(latest);
	EsPosition	lower = writer->chunk.lower;

	if (noted == 0)
		lower = Max(lower, latest_filled());
	while (noted < lower && !pg_atomic_compare_exchange_u64(latest, &noted, lower))
		;
	writer->latest = Max(noted, lower);
}

/* Open the chunk that the writer is at; false when it is gone already. */
static bool
open_own(EsInboxWriter *writer)
{
	Relation	rel = EsChunkOpen(ES_CHUNK_INBOX, &writer->chunk, RowExclusiveLock);

	if (rel == NULL)
		return false;
	EsTargetOpen(&writer->target, rel, Natts_es_inbox, false);
	writer->arbiters = EsTargetArbiters(&writer->target, Anum_es_inbox_digest, InvalidOid);
	writer->index = complete_index(writer);
	writer->slot = table_slot_create(rel, NULL);
	writer->is_open = true;
	close_others(writer);
	note_latest(writer);
	return true;
}

/* Be at the chunk of the present time. */
static void
be_at_now(EsInboxWriter *writer)
{
	for (;;)
	{
		EsPosition	now = EsChunkNow(ES_CHUNK_INBOX);

		CHECK_FOR_INTERRUPTS();
		writer->now = (TimestampTz) now;
		if (writer->is_open && writer->chunk.lower <= now && now < writer->chunk.upper)
			return;
		close_own(writer);
		EsChunkEnsure(ES_CHUNK_INBOX, now, now);
		if (EsChunkFind(ES_CHUNK_INBOX, now, &writer->chunk) && open_own(writer))
		{
			EsChunkAhead(ES_CHUNK_INBOX, &writer->chunk, now);
			EsMaintainSlice();
		}
	}
}

static void
fill_slot(const EsInboxWriter *writer, const EsInboxMark *mark)
{
	TupleTableSlot *slot = writer->slot;
	Datum	   *values = slot->tts_values - 1;
	bool	   *nulls = slot->tts_isnull - 1;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, Anum_es_inbox_digest * sizeof(bool));
	values[Anum_es_inbox_accepted_at] = TimestampTzGetDatum(writer->now);
	values[Anum_es_inbox_consumer_id] = Int64GetDatum(mark->consumer);
	values[Anum_es_inbox_digest] = UUIDPGetDatum(&mark->digest);
	values[Anum_es_inbox_request] = PointerGetDatum(mark->request);
	nulls[Anum_es_inbox_request] = mark->request == NULL;
	values[Anum_es_inbox_response] = PointerGetDatum(mark->response);
	nulls[Anum_es_inbox_response] = mark->response == NULL;
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(writer->target.rel);
}

/* Is a mark there, where duplicates were found lately? */
static bool
is_expected(EsInboxWriter *writer, const EsInboxMark *mark)
{
	Twin		twin;

	if (look_here > 0 &&
		sight_in(writer->target.rel, writer->index, mark, writer->slot, false, &twin) == SEEN)
	{
		look_here = LOOK_FIRST;
		return true;
	}
	if (look_elsewhere > 0 && sight_elsewhere(writer, mark, false, &twin) == SEEN)
	{
		look_elsewhere = LOOK_FIRST;
		return true;
	}
	return false;
}

static void
note_new(void)
{
	look_here = Max(look_here - 1, 0);
	look_elsewhere = Max(look_elsewhere - 1, 0);
}

/*
 * Write a mark in the current transaction; false: it is there already, of a
 * transaction that has committed or of this one.
 */
bool
EsInboxMarkWrite(EsInboxWriter *writer, const EsInboxMark *mark)
{
	for (;;)
	{
		Attempt		attempt = {writer, mark, NOT_SEEN};

		be_at_now(writer);
		if (is_expected(writer, mark))
			return false;
		fill_slot(writer, mark);
		if (EsTargetInsertUnless(&writer->target, writer->slot, writer->arbiters, may_stand, &attempt))
		{
			note_new();
			return true;
		}
		switch (attempt.sight)
		{
			case NOT_SEEN:		/* the own chunk has it, or somebody is about to */
				look_here = LOOK_FIRST;
				break;
			case SEEN:
				look_elsewhere = LOOK_FIRST;
				return false;
			case TWIN_LATER:
				await_twin(NULL, &attempt.twin);
				break;
		}
	}
}

/* The request and the response of a mark that this transaction sees now; false: there is none. */
bool
EsInboxMarkRead(const EsInboxMark *mark, text **request, Jsonb **response)
{
	EsPosition	position = 0;
	EsChunk		chunk;
	bool		found = false;

	AcceptInvalidationMessages();
	(void) EsChunkFindSurely(ES_CHUNK_INBOX, EsChunkNow(ES_CHUNK_INBOX), &chunk);
	while (!found && EsChunkFindNext(ES_CHUNK_INBOX, position, &chunk))
	{
		Other		other;
		TupleTableSlot *slot;

		position = chunk.upper;
		if (!open_other(&other, &chunk))
			continue;
		slot = other.probe.slot;
		found = look(other.probe.rel, other.probe.index, SnapshotSelf, mark, slot);
		if (found)
		{
			bool		isnull;
			Datum		value = slot_getattr(slot, Anum_es_inbox_request, &isnull);

			*request = isnull ? NULL : DatumGetTextPCopy(value);
			value = slot_getattr(slot, Anum_es_inbox_response, &isnull);
			*response = isnull ? NULL : DatumGetJsonbPCopy(value);
		}
		EsProbeClose(&other.probe);
	}
	return found;
}
