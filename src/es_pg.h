/*
 * es_pg.h
 *		What several capabilities of es_pg share: their start-up, the
 *		SQLSTATEs, and limits.  What one capability offers another stands in
 *		that capability's own header.
 */
#ifndef ES_PG_H
#define ES_PG_H

#include "postgres.h"

#include "fmgr.h"

/* SQLSTATEs of es_pg's own; everything else uses PostgreSQL's. */
#define ERRCODE_ES_WRONG_EXPECTED_VERSION	MAKE_SQLSTATE('S', 'E', '0', '0', '1')
#define ERRCODE_ES_STREAM_DELETED			MAKE_SQLSTATE('S', 'E', '0', '0', '2')
#define ERRCODE_ES_IMMUTABLE				MAKE_SQLSTATE('S', 'E', '0', '0', '3')
#define ERRCODE_ES_IDEMPOTENCY_CONFLICT		MAKE_SQLSTATE('S', 'E', '0', '0', '4')
#define ERRCODE_ES_NOT_ORDERED				MAKE_SQLSTATE('S', 'E', '0', '0', '6')
#define ERRCODE_ES_FENCED					MAKE_SQLSTATE('S', 'E', '0', '0', '7')
#define ERRCODE_ES_LOG_FORKED				MAKE_SQLSTATE('S', 'E', '0', '0', '8')
#define ERRCODE_ES_MESSAGE_TOO_OLD			MAKE_SQLSTATE('S', 'E', '0', '0', '9')

/* Limits that the reference states. */
#define ES_NAME_MAX			1024	/* bytes of a name, type or id */
#define ES_BATCH_MAX		1000000 /* events or messages in one call */
#define ES_READ_DEFAULT		1000	/* rows of a read with no max_count */

/* A place in the one log order of the database, from 1; 0 is before all. */
typedef uint64 EsPosition;

/* One start-up a capability, called by _PG_init. */
extern void EsCatalogInit(void);
extern void EsHorizonInit(void);
extern void EsChunkInit(void);
extern void EsStreamInit(void);
extern void EsOutboxInit(void);
extern void EsCaptureInit(void);
extern void EsPrivilegeInit(void);
extern void EsSubscriptionInit(void);
extern void EsInboxInit(void);
extern void EsInboxSequenceInit(void);
extern void EsProjectionInit(void);

#endif							/* ES_PG_H */
