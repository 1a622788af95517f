/*
 * chunk_retire.c
 *		Chunks of the outbox and of the inbox that are over: closing them by age,
 *		dropping them.
 *
 * A chunk of the inbox is over when its end is es_pg.inbox_retention ago: its marks
 * are older then.  Up to where marks were dropped is noted with each drop.
 *
 * A chunk of the outbox is over when nobody can write to it (its positions are at or below the
 * horizon), every subscription that counts has acknowledged its last message, and
 * that message is older than es_pg.outbox_retention.  One that holds nothing is
 * over as soon as nobody can write to it.
 *
 * A quiet outbox would take years to fill a chunk.  So the chunk that is written
 * to is closed when its first message is older than es_pg.outbox_chunk_interval:
 * the counter moves to the chunk's end, and the next message goes into the next
 * chunk, which was made before.  See EsPositionsSkip for why nobody minds.
 *
 * Dropping a partition needs ACCESS EXCLUSIVE on it and on its parent.  Nobody
 * shall ever wait for that: both locks are only tried for, never queued for, again
 * and again for a while, and held for no more than the drop itself, in a
 * transaction of a background worker's own.  Only where no worker can be had is
 * it done here and now, and the locks stay to the end of the caller's transaction.
 * A plain DROP TABLE detaches and drops in one, so a crash leaves the chunk
 * whole or gone.
 *
 * With the locks held all of it is looked at again.  A reader of es_pg's opens
 * leaves by OID and takes one that is gone for gone: below its own cursor there
 * was nothing left in it.  Any other reader that holds a lock on the leaf or the
 * parent keeps the chunk until the next time.
 */
#include "chunk.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "inbox.h"
#include "outbox.h"

#define DROP_TRIES		20		/* of chunks in use, with a pause before the next */

static int	retention = 7 * SECS_PER_DAY;
static int	interval = SECS_PER_DAY;
static int	inbox_retention = 7 * SECS_PER_DAY;

void
EsChunkRetireInit(void)
{
	DefineCustomIntVariable("es_pg.outbox_retention",
							"How long messages stay in the outbox at least.",
							"They stay longer while a subscription needs them. -1 is for ever.",
							&retention, 7 * SECS_PER_DAY, -1, PG_INT32_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("es_pg.outbox_chunk_interval",
							"Age of its first message at which a chunk of the outbox is closed.",
							"-1 leaves chunks open until they are full.",
							&interval, SECS_PER_DAY, -1, PG_INT32_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("es_pg.inbox_retention",
							"How long the inbox knows a message at least.",
							"-1 is for ever.",
							&inbox_retention, 7 * SECS_PER_DAY, -1, PG_INT32_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/* What a worker shall go by in this session's place. */
void
EsChunkRetireSettings(EsRetireSettings *settings)
{
	settings->retention = retention;
	settings->interval = interval;
	settings->chunk_size = (int) EsChunkSize(ES_CHUNK_OUTBOX);
	settings->inbox_retention = inbox_retention;
	settings->inbox_interval = (int) (EsChunkSize(ES_CHUNK_INBOX) / USECS_PER_SEC);
}

static void
set(const char *name, int value)
{
	SetConfigOption(name, psprintf("%d", value), PGC_SUSET, PGC_S_OVERRIDE);
}

/* And that worker takes it over. */
void
EsChunkRetireSet(const EsRetireSettings *settings)
{
	set("es_pg.outbox_retention", settings->retention);
	set("es_pg.outbox_chunk_interval", settings->interval);
	set("es_pg.outbox_chunk_size", settings->chunk_size);
	set("es_pg.inbox_retention", settings->inbox_retention);
	set("es_pg.inbox_chunk_interval", settings->inbox_interval);
}

static bool
older_than(TimestampTz time, int seconds)
{
	return seconds >= 0 &&
		GetCurrentTimestamp() - time >= (int64) seconds * USECS_PER_SEC;
}

/* The first or last message of a chunk that is committed; false when there is none. */
static bool
find_edge(const EsChunk *chunk, ScanDirection direction, EsPosition *position, TimestampTz *created_at)
{
	static const AttrNumber columns[] = {Anum_es_outbox_position};
	Relation	leaf = EsChunkOpen(ES_CHUNK_OUTBOX, chunk, AccessShareLock);
	Relation	index;
	TupleTableSlot *slot;
	bool		isnull;
	bool		found;

	if (leaf == NULL)
		return false;
	index = EsLeafIndexOpen(leaf, columns, lengthof(columns), AccessShareLock);
	slot = table_slot_create(leaf, NULL);
	PushActiveSnapshot(GetLatestSnapshot());
	found = EsIndexProbe(leaf, index, GetActiveSnapshot(), NULL, 0, direction, slot);
	if (found)
	{
		*position = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_outbox_position, &isnull));
		*created_at = DatumGetTimestampTz(slot_getattr(slot, Anum_es_outbox_created_at, &isnull));
	}
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(leaf, AccessShareLock);
	return found;
}

/* Close the chunk that the next message would go into, if it is old enough. */
void
EsChunkCloseByAge(void)
{
	EsChunk		chunk;
	EsPosition	position;
	TimestampTz created_at;

	AcceptInvalidationMessages();
	if (!EsChunkFind(ES_CHUNK_OUTBOX, EsPositionLast() + 1, &chunk) ||
		!find_edge(&chunk, ForwardScanDirection, &position, &created_at) ||
		!older_than(created_at, interval))
		return;
	EsChunkEnsure(ES_CHUNK_OUTBOX, chunk.upper, chunk.upper);
	EsPositionsSkip(chunk.upper - 1);
}

/* Up to where nobody can write any more; in the inbox, up to where nobody needs to know. */
static EsPosition
closed_end(EsChunkKind kind)
{
	if (kind == ES_CHUNK_OUTBOX)
		return EsHorizonRead(EsLogGet());
	if (inbox_retention < 0)
		return 0;
	return (EsPosition) Max(GetCurrentTimestamp() - inbox_retention * USECS_PER_SEC, 0);
}

static bool
is_closed(const EsChunk *chunk, EsPosition end)
{
	return chunk->upper - 1 <= end;
}

/* May a closed chunk be dropped?  All of it is visible. */
static bool
is_over(EsChunkKind kind, const EsChunk *chunk)
{
	EsPosition	last;
	EsPosition	lowest;
	TimestampTz created_at;

	if (kind == ES_CHUNK_INBOX)
		return true;
	if (!find_edge(chunk, BackwardScanDirection, &last, &created_at))
		return true;
	return older_than(created_at, retention) &&
		(!EsCursorLowest(&lowest) || last <= lowest);
}

/* The first chunk from a position on that is over. */
static bool
find_over(const EsRetirement *retirement, EsChunk *chunk)
{
	EsPosition	position = retirement->position;

	AcceptInvalidationMessages();
	while (EsChunkFindNext(retirement->kind, position, chunk) && is_closed(chunk, retirement->end))
	{
		if (is_over(retirement->kind, chunk))
			return true;
		position = chunk->upper;
	}
	return false;
}

/* The locks that a drop needs, if they are to be had at once. */
static bool
try_lock(EsChunkKind kind, const EsChunk *chunk)
{
	Oid			parent = EsChunkParent(kind);

	if (!ConditionalLockRelationOid(chunk->leaf, AccessExclusiveLock))
		return false;
	if (ConditionalLockRelationOid(parent, AccessExclusiveLock))
		return true;
	UnlockRelationOid(chunk->leaf, AccessExclusiveLock);
	return false;
}

/* Drop a chunk in the current transaction; false when somebody uses it. */
static bool
try_drop(EsChunkKind kind, const EsChunk *chunk)
{
	ObjectAddress address = {RelationRelationId, chunk->leaf, 0};
	EsChunk		now;

	if (!EsExtensionTryLock() || !try_lock(kind, chunk))
		return false;
	if (EsChunkFind(kind, chunk->lower, &now) && now.leaf == chunk->leaf &&
		is_closed(&now, closed_end(kind)) && is_over(kind, &now))
	{
		if (kind == ES_CHUNK_INBOX)
			EsInboxForget((TimestampTz) now.upper);
		performDeletion(&address, DROP_RESTRICT, 0);
		CommandCounterIncrement();
	}
	return true;
}

static void
begin_kind(EsRetirement *retirement, EsChunkKind kind)
{
	retirement->kind = kind;
	retirement->end = closed_end(kind);
	retirement->position = 0;
}

void
EsChunkRetireBegin(EsRetirement *retirement)
{
	retirement->begun = true;
	retirement->tries = DROP_TRIES;
	begin_kind(retirement, ES_CHUNK_OUTBOX);
}

/*
 * One step of retiring: drop the first chunk from retirement->position on that is
 * over, or say that it is in use and shall be tried again after a pause.  What is
 * still in use when there were enough pauses is left for the next time.
 */
EsRetireResult
EsChunkRetireStep(EsRetirement *retirement)
{
	EsChunk		chunk;

	if (!find_over(retirement, &chunk))
	{
		if (retirement->kind == ES_CHUNK_INBOX)
			return ES_RETIRE_DONE;
		begin_kind(retirement, ES_CHUNK_INBOX);
		return ES_RETIRE_MORE;
	}
	retirement->position = chunk.upper; /* also if it fails */
	if (try_drop(retirement->kind, &chunk) || --retirement->tries < 0)
		return ES_RETIRE_MORE;
	retirement->position = chunk.lower;
	return ES_RETIRE_PAUSE;
}

static int
count_closed(EsChunkKind kind)
{
	EsPosition	end = closed_end(kind);
	EsPosition	position = 0;
	EsChunk		chunk;
	int			n = 0;

	AcceptInvalidationMessages();
	while (EsChunkFindNext(kind, position, &chunk) && is_closed(&chunk, end))
	{
		position = chunk.upper;
		n++;
	}
	return n;
}

/* How many chunks may be over: it is known of them that nobody writes to them. */
int
EsChunkCountClosed(void)
{
	return count_closed(ES_CHUNK_OUTBOX) + count_closed(ES_CHUNK_INBOX);
}
