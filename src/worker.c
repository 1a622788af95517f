/*
 * worker.c
 *		Background workers that do es_pg's own work in transactions of their own.
 *
 * They are started on demand and need no preloading.  What one is told lies in
 * its registration; it connects as the bootstrap superuser, does its work, and
 * ends.  A worker that finds the extension gone ends at once.
 */
#include "worker.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

/* The registration of a worker. */
void
EsWorkerForm(BackgroundWorker *worker, const char *function, const char *name,
			 const void *order, Size size, int restart_seconds)
{
	Assert(size <= BGW_EXTRALEN);
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = restart_seconds;
	snprintf(worker->bgw_library_name, BGW_MAXLEN, "es_pg");
	snprintf(worker->bgw_function_name, BGW_MAXLEN, "%s", function);
	snprintf(worker->bgw_name, BGW_MAXLEN, "%s", name);
	snprintf(worker->bgw_type, BGW_MAXLEN, "%s", name);
	memcpy(worker->bgw_extra, order, size);
}

/*
 * Start a worker that is started again when it has not ended by itself; false
 * when none can be had.  With "awaited" its start and end are told to this backend.
 */
bool
EsWorkerStartLasting(const char *function, const char *name, const void *order, Size size,
					 int restart_seconds, bool awaited, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;

	EsWorkerForm(&worker, function, name, order, size, restart_seconds);
	worker.bgw_notify_pid = awaited ? MyProcPid : 0;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* Start a worker for one piece of work. */
bool
EsWorkerStart(const char *function, const char *name, const void *order, Size size,
			  bool awaited, BackgroundWorkerHandle **handle)
{
	return EsWorkerStartLasting(function, name, order, size, BGW_NEVER_RESTART, awaited, handle);
}

/* What every worker does first. */
void
EsWorkerBegin(Oid database, const char *lock_timeout)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	SetConfigOption("lock_timeout", lock_timeout, PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
}

/* A worker that nobody waits for lets a DROP EXTENSION end first. */
static void
lock_installation(void)
{
	Oid			extension = get_extension_oid("es_pg", true);

	if (OidIsValid(extension))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
}

/*
 * Begin a transaction; false, and no transaction, when the extension is not
 * there.  With "lock" it stays there to the transaction's end; not for a worker
 * that somebody waits for, who may be waited for by DROP EXTENSION.
 */
bool
EsWorkerTransactionBegin(const char *activity, bool lock)
{
	CHECK_FOR_INTERRUPTS();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
	if (lock)
		lock_installation();
	if (OidIsValid(get_extension_oid("es_pg", true)))
		return true;
	EsWorkerTransactionEnd();
	return false;
}

void
EsWorkerTransactionEnd(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
}
