/*
 * worker.h
 *		Background workers that do es_pg's own work in transactions of their own.
 */
#ifndef ES_WORKER_H
#define ES_WORKER_H

#include "es_pg.h"

#include "postmaster/bgworker.h"

extern void EsWorkerForm(BackgroundWorker *worker, const char *function, const char *name,
						 const void *order, Size size, int restart_seconds);
extern bool EsWorkerStartLasting(const char *function, const char *name, const void *order, Size size,
								 int restart_seconds, bool awaited, BackgroundWorkerHandle **handle);
extern bool EsWorkerStart(const char *function, const char *name, const void *order, Size size,
						  bool awaited, BackgroundWorkerHandle **handle);
extern void EsWorkerBegin(Oid database, const char *lock_timeout);
extern bool EsWorkerTransactionBegin(const char *activity, bool lock);
extern void EsWorkerTransactionEnd(void);

#endif							/* ES_WORKER_H */
