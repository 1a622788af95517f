/*
 * projection_worker.c
 *		The worker that runs a database's asynchronous projections.
 *
 * One a database: whoever writes his process id into the log's shared memory is
 * it.  It runs a batch of each version, each in a transaction of its own, and
 * when there was nothing left sleeps until the horizon rises.  An error that is
 * not the event's (a deadlock, a full disk) is reported, noted, and tried again
 * after a while; other projections go on meanwhile.  When it dies with an error or
 * in a crash of the server, the postmaster starts it again.
 *
 * It ends by itself when the extension is gone, or when somebody wants the
 * database for himself (DROP DATABASE, RENAME, a copy of it): it looks every
 * second whether a connection could be opened.  In that case it leaves a launcher
 * behind: a worker without a database, which waits for the lock and starts the
 * worker anew if the database is still there.  The same launcher, started with
 * the server where es_pg is preloaded, starts workers in all databases; those that
 * find no projection end at once.
 */
#include "projection.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "worker.h"

#define WORKER_NAME		"es_pg projection worker"
#define LAUNCHER_NAME	"es_pg projection launcher"
#define RESTART_SECONDS	5
#define LOOK_AGAIN		(1 * USECS_PER_SEC)	/* parked events may be due, the database be wanted */
#define BACKOFF_MIN		(1 * USECS_PER_SEC)
#define BACKOFF_MAX		(60 * USECS_PER_SEC)
#define SLOT_WAIT_MS	1000	/* between tries of the launcher to have a worker */
#define SLOT_TRIES		60

/* What worker and launcher are told; all databases where there is none. */
typedef struct Order
{
	Oid			database;
	bool		stays;			/* though there is no projection */
} Order;

/* A projection that is left alone for a while. */
typedef struct Backoff
{
	int32		id;
	int64		pause;
	TimestampTz until;
} Backoff;

/* What a round found. */
typedef struct Round
{
	EsLog	   *log;
	EsPosition	horizon;
	uint64		news;
	List	   *numbers;		/* of versions to run, in the worker's memory */
} Round;

PGDLLEXPORT void EsProjectionWorkerMain(Datum arg);
PGDLLEXPORT void EsProjectionLauncherMain(Datum arg);

PG_FUNCTION_INFO_V1(es_start_worker);
PG_FUNCTION_INFO_V1(es_stop_worker);
PG_FUNCTION_INFO_V1(es_worker_pid);

static bool start_worker = true;	/* setting */

static Order order;
static EsLog *mine = NULL;		/* whose worker this process is */
static List *backoffs = NIL;	/* of Backoff */
static bool database_gone = false;	/* there was none to connect to */

static EsStatement note_error = {
	"UPDATE @.es_projections SET error = $2, error_sqlstate = $3, error_position = NULL,"
	" failed_at = pg_catalog.clock_timestamp() WHERE projection_id = $1", 3, {INT4OID, TEXTOID, TEXTOID}
};

static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = EsWaitEvent("EsProjectionWorker");
	return event;
}

/* ---------------------------------------------------------------- being the worker */

/*
 * Also at exit, before shared memory goes: a sleep outside of a transaction is
 * ended by nobody else while what it sleeps on is still there.
 */
static void
leave(int code, Datum arg)
{
	uint32		me = MyProcPid;

	ConditionVariableCancelSleep();
	if (mine != NULL)
		pg_atomic_compare_exchange_u32(&mine->worker_pid, &me, 0);
	mine = NULL;
}

/* Be the worker of a log; false: another process is. */
static bool
enter(EsLog *log)
{
	uint32		nobody = 0;

	if (log == mine)
		return true;
	leave(0, (Datum) 0);
	if (!pg_atomic_compare_exchange_u32(&log->worker_pid, &nobody, MyProcPid))
		return false;
	pg_atomic_write_u32(&log->worker_stop, 0);
	mine = log;
	return true;
}

/* Does somebody want this database without anybody in it?  Then no connection could be opened. */
static bool
database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	return LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL;
}

static bool
start_launcher(void)
{
	BackgroundWorkerHandle *handle;

	return EsWorkerStartLasting("EsProjectionLauncherMain", LAUNCHER_NAME, &order, sizeof(order),
								BGW_NEVER_RESTART, false, &handle);
}

/* See what there is to do; false when this worker shall end. */
static bool
begin_round(Round *round)
{
	MemoryContext old;
	bool		wanted;

	if (!EsWorkerTransactionBegin("es_pg: projections", true))
		return false;
	round->log = EsLogGet();
	round->news = pg_atomic_read_u64(&round->log->lane_news);
	pg_read_barrier();
	round->horizon = EsHorizonRead(round->log);
	wanted = database_is_wanted();
	AcceptInvalidationMessages();
	old = MemoryContextSwitchTo(TopMemoryContext);
	list_free(round->numbers);
	round->numbers = list_copy(EsProjectionNumbers(NULL));
	MemoryContextSwitchTo(old);
	EsWorkerTransactionEnd();
	if (wanted)
		(void) start_launcher();
	return !wanted && enter(round->log) && pg_atomic_read_u32(&round->log->worker_stop) == 0 &&
		(order.stays || round->numbers != NIL);
}

/* ---------------------------------------------------------------- errors that are not the event's */

static Backoff *
find_backoff(int32 id)
{
	ListCell   *cell;

	foreach(cell, backoffs)
	{
		Backoff    *backoff = lfirst(cell);

		if (backoff->id == id)
			return backoff;
	}
	return NULL;
}

static void
back_off(int32 id)
{
	Backoff    *backoff = find_backoff(id);
	MemoryContext old;

	if (backoff == NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		backoff = palloc0(sizeof(Backoff));
		backoff->id = id;
		backoffs = lappend(backoffs, backoff);
		MemoryContextSwitchTo(old);
	}
	backoff->pause = Min(Max(backoff->pause * 2, BACKOFF_MIN), BACKOFF_MAX);
	backoff->until = GetCurrentTimestamp() + backoff->pause;
}

static void
go_on(int32 id)
{
	Backoff    *backoff = find_backoff(id);

	if (backoff == NULL)
		return;
	backoffs = list_delete_ptr(backoffs, backoff);
	pfree(backoff);
}

/* Report an error, and leave the transaction; a copy of it. */
static ErrorData *
abandon(void)
{
	ErrorData  *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(TopMemoryContext);
	error = CopyErrorData();
	EmitErrorReport();
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	return error;
}

/* Leave word of it in es_projections, if that can be done. */
static void
note(int32 id, const ErrorData *error)
{
	PG_TRY();
	{
		if (EsWorkerTransactionBegin("es_pg: noting an error", true))
		{
			Datum		args[] = {
				Int32GetDatum(id), CStringGetTextDatum(error->message),
				CStringGetTextDatum(unpack_sql_state(error->sqlerrcode))
			};

			SPI_connect();
			EsStatementRun(&note_error, args, NULL);
			SPI_finish();
			EsWorkerTransactionEnd();
		}
	}
	PG_CATCH();
	{
		FreeErrorData(abandon());
	}
	PG_END_TRY();
}

/* A batch of one version in a transaction of its own; true: there was something. */
static bool
run(int32 id)
{
	const Backoff *backoff = find_backoff(id);
	ErrorData  *volatile error = NULL;
	volatile bool some = false;

	if (backoff != NULL && backoff->until > GetCurrentTimestamp())
		return false;
	PG_TRY();
	{
		if (EsWorkerTransactionBegin("es_pg: running a projection", true))
		{
			some = EsProjectionRun(id, 0, false) > 0;
			EsWorkerTransactionEnd();
		}
		go_on(id);
	}
	PG_CATCH();
	{
		error = abandon();
	}
	PG_END_TRY();
	if (error != NULL)
	{
		back_off(id);
		note(id, error);
		FreeErrorData(error);
	}
	return some;
}

/* ---------------------------------------------------------------- the worker */

/* Called for the error of a worker that cannot connect. */
static void
note_database_gone(void *arg)
{
	if (geterrcode() == ERRCODE_UNDEFINED_DATABASE)
		database_gone = true;
}

/* DROP DATABASE ... WITH (FORCE) ends the worker by a signal; the postmaster shall not start it again for ever. */
static void
end_for_good(int code, Datum arg)
{
	if (database_gone && code != 0)
		proc_exit(0);
}

static void
connect_worker(void)
{
	ErrorContextCallback callback = {error_context_stack, note_database_gone, NULL};

	on_proc_exit(end_for_good, (Datum) 0);
	error_context_stack = &callback;
	EsWorkerBegin(order.database, "0");
	error_context_stack = callback.previous;
}

void
EsProjectionWorkerMain(Datum arg)
{
	Round		round = {0};

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	connect_worker();
	before_shmem_exit(leave, (Datum) 0);
	while (begin_round(&round))
	{
		bool		some = false;
		ListCell   *cell;

		foreach(cell, round.numbers)
		{
			CHECK_FOR_INTERRUPTS();
			some |= run(lfirst_int(cell));
		}
		(void) pgstat_report_stat(!some);
		if (!some)
			(void) EsWakeWait(round.log, round.horizon, round.news, GetCurrentTimestamp() + LOOK_AGAIN, wait_event());
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	proc_exit(0);
}

/* ---------------------------------------------------------------- the launcher */

/* The databases that it was told of and that take connections; waits for one that somebody wants for himself. */
static List *
find_databases(const Order *wanted)
{
	List	   *found = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext context = CurrentMemoryContext;

	StartTransactionCommand();
	if (OidIsValid(wanted->database))
		LockSharedObject(DatabaseRelationId, wanted->database, 0, RowExclusiveLock);
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(context);

		if (database->datallowconn && (!OidIsValid(wanted->database) || database->oid == wanted->database))
			found = lappend_oid(found, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return found;
}

static bool
start_in(Oid database, bool stays, bool awaited, BackgroundWorkerHandle **handle)
{
	Order		one = {database, stays};

	return EsWorkerStartLasting("EsProjectionWorkerMain", WORKER_NAME, &one, sizeof(one),
								RESTART_SECONDS, awaited, handle);
}

void
EsProjectionLauncherMain(Datum arg)
{
	Order		wanted;
	BackgroundWorkerHandle *handle;
	ListCell   *cell;

	memcpy(&wanted, MyBgworkerEntry->bgw_extra, sizeof(wanted));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(InvalidOid, InvalidOid, 0);
	foreach(cell, find_databases(&wanted))
	{
		int			tries = SLOT_TRIES;

		while (!start_in(lfirst_oid(cell), wanted.stays, false, &handle) && tries-- > 0)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, SLOT_WAIT_MS, wait_event());
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	proc_exit(0);
}

void
EsProjectionWorkerInit(void)
{
	BackgroundWorker worker;
	Order		all = {InvalidOid, false};

	if (!process_shared_preload_libraries_in_progress)
		return;
	DefineCustomBoolVariable("es_pg.start_worker",
							 "Starts the worker of projections in each database that has some, when the server starts.",
							 NULL, &start_worker, true, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	if (!start_worker)
		return;
	EsWorkerForm(&worker, "EsProjectionLauncherMain", LAUNCHER_NAME, &all, sizeof(all), BGW_NEVER_RESTART);
	RegisterBackgroundWorker(&worker);
}

/* ---------------------------------------------------------------- from SQL */

/* es_start_worker() */
Datum
es_start_worker(PG_FUNCTION_ARGS)
{
	EsLog	   *log = EsLogGet();
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	EsRequirePrimary();
	if (pg_atomic_read_u32(&log->worker_pid) != 0)
		PG_RETURN_BOOL(false);
	if (!start_in(MyDatabaseId, true, true, &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a worker for projections"),
				 errhint("You may need to raise max_worker_processes.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	PG_RETURN_BOOL(true);
}

/* es_stop_worker() */
Datum
es_stop_worker(PG_FUNCTION_ARGS)
{
	EsLog	   *log = EsLogGet();

	if (pg_atomic_read_u32(&log->worker_pid) == 0)
		PG_RETURN_BOOL(false);
	pg_atomic_write_u32(&log->worker_stop, 1);
	EsWakeConsumers(log);
	PG_RETURN_BOOL(true);
}

/* es_worker_pid() */
Datum
es_worker_pid(PG_FUNCTION_ARGS)
{
	uint32		pid = pg_atomic_read_u32(&EsLogGet()->worker_pid);

	if (pid == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32((int32) pid);
}
