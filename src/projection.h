/*
 * projection.h
 *		Projections: what their parts share, and the hook that appends call.
 *
 *		projection.c			definitions, as this session knows them
 *		projection_call.c		administration: who calls; locks; what a body writes to
 *		projection_body.c		running a body over a batch, as its owner
 *		projection_inline.c		inline: batches of the append's or publish's own
 *		projection_run.c		async: a batch of the subscription, and what fails in it
 *		projection_wait.c		es_wait_for, and telling who watches
 *		projection_worker.c		the worker
 */
#ifndef ES_PROJECTION_H
#define ES_PROJECTION_H

#include "es_pg.h"

#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

#include "chunk.h"
#include "subscription.h"

/* One version of a projection; lives until definitions are read again. */
typedef struct EsProjection
{
	int32		id;
	char	   *name;
	bool		live;
	bool		is_inline;
	EsSubscription wants;		/* source and filter, no more of it */
	Oid			owner;
	const char *(*settings)[2]; /* of its body: name and value; the first is its search_path */
	int			nsettings;
	char	   *statement;		/* runs over es_batch; NULL: its handler is gone */
	char	   *handler;		/* or NULL */
	bool		events;			/* es_batch is of es_event, not of es_delivery */
	char		on_error;		/* 's'top, 'p'ark, s'k'ip */
	int32		batch_size;
	char	   *subscription;
	SPIPlanPtr	plan;			/* of the statement, once it was run */
} EsProjection;

/* projection.c */
extern List *EsProjectionsGet(void);	/* of EsProjection, by name, live ones first */
extern void EsProjectionsUse(void);
extern void EsProjectionsRelease(void);
extern bool EsProjectionsInUse(void);
extern bool EsProjectionsRebuilding(bool now);
extern void EsProjectionsCheckWrite(void);
extern void EsProjectionsLock(void);

/* projection_body.c */
extern TupleDesc EsProjectionShape(const EsProjection *projection);
extern void EsProjectionValues(const EsProjection *projection, const Datum *values, const bool *nulls,
							   Datum *out, bool *out_nulls);
extern void EsProjectionApply(EsProjection *projection, Tuplestorestate *rows, int64 n);
extern List *EsProjectionWrites(const EsProjection *projection);

/* projection_inline.c */
typedef struct EsInline EsInline;

extern EsInline *EsInlineBegin(EsChunkKind kind, const text *stream);
extern void EsInlineSee(TupleTableSlot *slot, void *arg);
extern void EsInlineRun(EsInline *inlines);

/* projection_run.c */
extern bool EsProjectionTryLock(int32 id, bool wait);
extern int64 EsProjectionRun(int32 id, int32 max_count, bool asked);
extern List *EsProjectionNumbers(const char *name);

/* projection_wait.c */
extern void EsProjectionMoved(const EsProjection *projection);
extern void EsProjectionWaitInit(void);

/* projection_worker.c */
extern void EsProjectionWorkerInit(void);

#endif							/* ES_PROJECTION_H */
