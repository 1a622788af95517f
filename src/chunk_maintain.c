/*
 * chunk_maintain.c
 *		The worker that maintains: on request, or because a reader came by.
 *
 * es_retire_chunks(), which es_maintain() calls, starts a worker and waits for its
 * end: it drops chunks, in transactions of its own (chunk_retire.c says why).
 *
 * Who has neither cron nor relay needs nothing else: a fetch, an acknowledgement or
 * a message accepted by the inbox that finds maintenance due, by the time in shared memory or because a delayed message is,
 * starts the same worker to call es_maintain(), and goes on.  Taking
 * the time is the try-lock that lets one do it.  Nothing of it is done in the reader's own
 * transaction, which may be long and may roll back.
 *
 * Several workers may be at it at once: what they do is guarded where it is done.
 */
#include "chunk.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "outbox.h"
#include "worker.h"

#define RETRY_PAUSE_MS	50		/* before another try to drop what somebody uses */
#define DUE_INTERVAL	USECS_PER_SEC	/* between workers for delayed messages */
#define LOCK_TIMEOUT	"1s"	/* nobody shall wait for one that waits */
#define MAINTAINER		"es_pg maintenance worker"

/* What the worker is told. */
typedef struct Order
{
	Oid			database;
	bool		all;			/* call es_maintain() first */
	EsRetireSettings settings;
} Order;

StaticAssertDecl(sizeof(Order) <= BGW_EXTRALEN, "Order must fit into a worker's extra data");

PGDLLEXPORT void EsMaintainWorkerMain(Datum arg);

PG_FUNCTION_INFO_V1(es_retire_chunks);

/* This process retires chunks itself, in transactions of their own. */
static bool am_worker = false;

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsMaintain");
	return event;
}

/* Everything that es_maintain() does, but retiring. */
static void
call_maintain(void)
{
	char	   *sql = psprintf("SELECT %s.es_maintain()",
							   quote_identifier(get_namespace_name(EsCatalogGet()->schema)));

	SPI_connect();
	if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	SPI_finish();
}

/* One step in a transaction of its own; a chunk that makes it fail is reported and left. */
static EsRetireResult
step(EsRetirement *retirement)
{
	EsPosition	from = retirement->position;
	volatile EsRetireResult result = ES_RETIRE_DONE;

	PG_TRY();
	{
		if (EsWorkerTransactionBegin("es_pg: retiring chunks", false))
		{
			if (!retirement->begun)
				EsChunkRetireBegin(retirement);
			result = EsChunkRetireStep(retirement);
			EsWorkerTransactionEnd();
		}
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		result = retirement->position > from ? ES_RETIRE_MORE : ES_RETIRE_DONE;
	}
	PG_END_TRY();
	return result;
}

/* A pause for whoever uses the chunk. */
static void
pause_before_retry(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 RETRY_PAUSE_MS, wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

void
EsMaintainWorkerMain(Datum arg)
{
	Order		order;
	EsRetirement retirement = {0};
	EsRetireResult result;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	am_worker = true;
	EsWorkerBegin(order.database, LOCK_TIMEOUT);
	EsChunkRetireSet(&order.settings);
	if (order.all)
	{
		if (!EsWorkerTransactionBegin("es_pg: maintaining", true))
			proc_exit(0);
		call_maintain();
		EsWorkerTransactionEnd();
	}
	while ((result = step(&retirement)) != ES_RETIRE_DONE)
	{
		if (result == ES_RETIRE_PAUSE)
			pause_before_retry();
	}
	proc_exit(0);
}

/* Retire in the caller's transaction: the last resort. */
static void
retire_here(void)
{
	EsRetirement retirement;

	EsChunkRetireBegin(&retirement);
	retirement.tries = 0;
	while (EsChunkRetireStep(&retirement) != ES_RETIRE_DONE)
		;
}

/* es_retire_chunks() */
Datum
es_retire_chunks(PG_FUNCTION_ARGS)
{
	Order		order = {MyDatabaseId, false};
	BackgroundWorkerHandle *handle;
	int			before;

	EsRequirePrimary();
	PreventCommandIfReadOnly("es_retire_chunks()");
	PreventCommandIfParallelMode("es_retire_chunks()");
	pg_atomic_write_u64(&EsLogGet()->maintain_at, (uint64) GetCurrentTimestamp() + ES_MAINTAIN_INTERVAL);
	EsChunkCloseByAge();
	if (am_worker)
		PG_RETURN_INT32(0);

	before = EsChunkCountClosed();
	if (before == 0)
		PG_RETURN_INT32(0);
	EsChunkRetireSettings(&order.settings);
	if (!EsWorkerStart("EsMaintainWorkerMain", MAINTAINER, &order, sizeof(order), true, &handle))
		retire_here();
	else if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	PG_RETURN_INT32(Max(before - EsChunkCountClosed(), 0));
}

/* Take a time in shared memory that has come, so that one does what is due. */
static bool
claim(pg_atomic_uint64 *time, uint64 now, uint64 next)
{
	uint64		due = pg_atomic_read_u64(time);

	return due <= now && pg_atomic_compare_exchange_u64(time, &due, next);
}

/* When a reader should come by again: a delayed message is due then, or DT_NOEND. */
TimestampTz
EsMaintainNext(void)
{
	return EsDelayedNext(EsLogGet());
}

/*
 * Called by readers and by who uses the inbox: has a worker do what is due, if anything is, and does not
 * wait for it.
 */
void
EsMaintainSlice(void)
{
	EsLog	   *log;
	uint64		now;
	bool		due;
	Order		order = {MyDatabaseId, true};
	BackgroundWorkerHandle *handle;

	if (RecoveryInProgress())
		return;
	log = EsLogGet();
	now = (uint64) GetCurrentTimestamp();
	(void) EsDelayedNext(log);
	due = claim(&log->maintain_at, now, now + ES_MAINTAIN_INTERVAL);
	due |= claim(&log->delayed_next, now, now + DUE_INTERVAL);
	if (!due)
		return;
	EsChunkRetireSettings(&order.settings);
	(void) EsWorkerStart("EsMaintainWorkerMain", MAINTAINER, &order, sizeof(order), false, &handle);
}
