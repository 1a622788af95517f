/*
 * compat.h
 *		Every difference between the supported versions of PostgreSQL, and the
 *		only file that names PG_VERSION_NUM.
 */
#ifndef ES_COMPAT_H
#define ES_COMPAT_H

#include "access/genam.h"
#include "executor/executor.h"
#include "storage/proc.h"

#if PG_VERSION_NUM < 150000
#error "es_pg needs PostgreSQL 15 or later"
#endif

/* 16: indexes that only summarize can be left out. */
#if PG_VERSION_NUM >= 160000
#define EsExecInsertIndexTuples(rri, slot, estate, no_dup_err, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, no_dup_err, conflict, arbiters, false)
#else
#define EsExecInsertIndexTuples(rri, slot, estate, no_dup_err, conflict, arbiters) \
	ExecInsertIndexTuples(rri, slot, estate, false, no_dup_err, conflict, arbiters)
#endif

/* 18: what never returns says so in front. */
#if PG_VERSION_NUM >= 180000
#define ES_NORETURN			pg_noreturn
#else
#define ES_NORETURN			pg_attribute_noreturn()
#endif

/* 18: the row to leave out of the check is an argument. */
#if PG_VERSION_NUM >= 180000
#define EsExecCheckIndexConstraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, NULL, arbiters)
#else
#define EsExecCheckIndexConstraints(rri, slot, estate, tid, arbiters) \
	ExecCheckIndexConstraints(rri, slot, estate, tid, arbiters)
#endif

/* 18: scans can be instrumented. */
#if PG_VERSION_NUM >= 180000
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define es_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* A backend's number, from 0 to below MaxBackends, for as long as it lives. */
#if PG_VERSION_NUM >= 170000
#define EsProcNumber()		MyProcNumber
#else
#define EsProcNumber()		(MyProc->pgprocno)
#endif

/* Has this transaction given a relation a new file?  16 renamed the field. */
#if PG_VERSION_NUM >= 160000
#define EsRelationIsRewritten(rel) \
	((rel)->rd_createSubid == InvalidSubTransactionId && (rel)->rd_newRelfilelocatorSubid != InvalidSubTransactionId)
#else
#define EsRelationIsRewritten(rel) \
	((rel)->rd_createSubid == InvalidSubTransactionId && (rel)->rd_newRelfilenodeSubid != InvalidSubTransactionId)
#endif

/* 17: an index may keep something between insertions. */
#if PG_VERSION_NUM >= 170000
#define EsIndexInsertCleanup(index, info)	index_insert_cleanup(index, info)
#else
#define EsIndexInsertCleanup(index, info)	((void) 0)
#endif

/* 17: shared memory by name, without preloading and of any size. */
#if PG_VERSION_NUM >= 170000
#include "storage/dsm_registry.h"
#define ES_HAVE_NAMED_DSM	1
#endif

/* 17: an extension names its own wait events. */
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 170000
#define EsWaitEvent(name)	WaitEventExtensionNew(name)
#else
#define EsWaitEvent(name)	PG_WAIT_EXTENSION
#endif

/* 16: a name that is none can be an answer. */
#if PG_VERSION_NUM >= 160000
#define EsQualifiedName(string)	stringToQualifiedNameList(string, NULL)
#else
#define EsQualifiedName(string)	stringToQualifiedNameList(string)
#endif

/* 16: one function for the ACLs of all catalogs. */
#include "catalog/pg_proc.h"
#include "utils/acl.h"
#if PG_VERSION_NUM >= 160000
#define EsMayExecute(function, user) \
	(object_aclcheck(ProcedureRelationId, function, user, ACL_EXECUTE) == ACLCHECK_OK)
#else
#define EsMayExecute(function, user) \
	(pg_proc_aclcheck(function, user, ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* 16: decoding a date says more of what is wrong.  True if it was one, with a time and a zone. */
#include "utils/datetime.h"
static inline bool
EsDecodeDateTime(char **fields, int *types, int n, struct pg_tm *tm, fsec_t *fsec, int *zone)
{
	int			kind;
#if PG_VERSION_NUM >= 160000
	DateTimeErrorExtra extra;

	return DecodeDateTime(fields, types, n, &kind, tm, fsec, zone, &extra) == 0 && kind == DTK_DATE;
#else
	return DecodeDateTime(fields, types, n, &kind, tm, fsec, zone) == 0 && kind == DTK_DATE;
#endif
}

/* The header that declares it wants Kerberos' headers, if the server was built with them. */
extern bool pq_check_connection(void);

#endif							/* ES_COMPAT_H */
