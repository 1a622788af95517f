/*
 * chunk_write.c
 *		Writing rows into chunks, past the executor.
 *
 * A writer has drawn its positions before it comes here, so it is in the
 * registry and the horizon is below them: the chunks that hold them are there
 * (EsChunkEnsure) and cannot be dropped.  A leaf stays open between the rows of
 * one call, and its lock is kept to the end of the transaction.
 *
 * One row takes the way of a single insert; more go in by slots of a thousand,
 * with memory of their own that is emptied after each.
 */
#include "chunk.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define WRITE_SLOTS		1000	/* rows written at once */

/* Be at the chunk that holds a position; false when there is none. */
bool
EsLeafOpen(EsLeaf *leaf, EsPosition position)
{
	Relation	rel;

	if (leaf->is_open && leaf->chunk.lower <= position && position < leaf->chunk.upper)
		return true;
	EsLeafClose(leaf);
	if (!EsChunkFind(leaf->kind, position, &leaf->chunk) ||
		(rel = EsChunkOpen(leaf->kind, &leaf->chunk, RowExclusiveLock)) == NULL)
		return false;
	EsTargetOpen(&leaf->target, rel, leaf->natts, false);
	leaf->slot = table_slot_create(rel, NULL);
	leaf->is_open = true;
	return true;
}

void
EsLeafClose(EsLeaf *leaf)
{
	if (!leaf->is_open)
		return;
	ExecDropSingleTupleTableSlot(leaf->slot);
	EsTargetClose(&leaf->target);
	table_close(leaf->target.rel, NoLock);
	leaf->is_open = false;
}

static void
fill_slot(const EsLeaf *leaf, TupleTableSlot *slot, uint32 i, EsRowFiller fill, void *arg)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	fill(slot, i, arg);
	ExecStoreVirtualTuple(slot);
	if (leaf->witness != NULL)
		leaf->witness(slot, leaf->witness_arg);
}

/* Write n rows, slot-array by slot-array. */
static void
write_many(EsLeaf *leaf, uint32 first, uint32 n, EsRowFiller fill, void *arg)
{
	EsTarget   *target = &leaf->target;
	uint32		nslots = Min(n, WRITE_SLOTS);
	TupleTableSlot **slots = palloc(nslots * sizeof(TupleTableSlot *));
	BulkInsertState bulk = GetBulkInsertState();
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(target->rel));	/* not counted by the resource owner */
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "es_pg rows", ALLOCSET_DEFAULT_SIZES);
	uint32		done = 0;

	for (uint32 i = 0; i < nslots; i++)
		slots[i] = MakeSingleTupleTableSlot(desc, table_slot_callbacks(target->rel));

	while (done < n)
	{
		uint32		some = Min(nslots, n - done);
		MemoryContext old = MemoryContextSwitchTo(work);

		CHECK_FOR_INTERRUPTS();
		for (uint32 i = 0; i < some; i++)
			fill_slot(leaf, slots[i], first + done + i, fill, arg);
		EsTargetInsertMany(target, slots, some, bulk);
		done += some;
		MemoryContextSwitchTo(old);
		MemoryContextReset(work);
	}

	for (uint32 i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	FreeBulkInsertState(bulk);
	MemoryContextDelete(work);
	pfree(slots);
}

/*
 * Write rows from "first" on, below "end", the first of them at "position", into
 * the chunk that holds it; as many as fit there.  Returns how many.
 */
uint32
EsLeafWrite(EsLeaf *leaf, EsPosition position, uint32 first, uint32 end, EsRowFiller fill, void *arg)
{
	uint32		n;

	if (!EsLeafOpen(leaf, position))
		elog(ERROR, "no chunk for position " UINT64_FORMAT, position);
	n = Min(end - first, leaf->chunk.upper - position);
	if (n == 1)
	{
		fill_slot(leaf, leaf->slot, first, fill, arg);
		EsTargetInsert(&leaf->target, leaf->slot);
	}
	else
		write_many(leaf, first, n, fill, arg);
	return n;
}
