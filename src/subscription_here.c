/*
 * subscription_here.c
 *		What the current transaction has done in lanes, by their epochs.
 *
 * Kept to the end of the transaction, also where a part of it is rolled back:
 * that a lane was fetched from, or that messages of it were parked, makes later
 * calls more careful and never less.
 */
#include "subscription.h"

#include "utils/memutils.h"

/* In the memory of the transaction. */
static List *lanes = NIL;

/* A lane in this epoch; made if it is not there and the caller wants it. */
EsLaneHere *
EsLaneHereGet(int64 epoch, bool make)
{
	MemoryContext old;
	EsLaneHere *here;
	ListCell   *cell;

	foreach(cell, lanes)
	{
		here = lfirst(cell);
		if (here->epoch == epoch)
			return here;
	}
	if (!make)
		return NULL;
	old = MemoryContextSwitchTo(TopTransactionContext);
	here = palloc0(sizeof(EsLaneHere));
	here->epoch = epoch;
	lanes = lappend(lanes, here);
	MemoryContextSwitchTo(old);
	return here;
}

/* The transaction is over. */
void
EsLaneHereForget(void)
{
	lanes = NIL;
}
