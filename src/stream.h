/*
 * stream.h
 *		Streams and events: what append, read and subscriptions share.
 */
#ifndef ES_STREAM_H
#define ES_STREAM_H

#include "es_pg.h"

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

#include "chunk.h"
#include "columns.h"

/* Columns of es_events and of its chunks. */
enum
{
	Anum_es_events_position = 1,
	Anum_es_events_stream_id,
	Anum_es_events_version,
	Anum_es_events_recorded_at,
	Anum_es_events_category_id,
	Anum_es_events_event_id,
	Anum_es_events_type,
	Anum_es_events_data,
	Anum_es_events_metadata,
	Anum_es_events_schema_version,
	Anum_es_events_source,
	Anum_es_events_correlation_id,
	Anum_es_events_causation_id,
	Anum_es_events_traceparent,
	Anum_es_events_occurred_at
};

#define Natts_es_events		Anum_es_events_occurred_at

/* Columns of es_streams. */
enum
{
	Anum_es_streams_stream_id = 1,
	Anum_es_streams_created_at,
	Anum_es_streams_first_chunk,
	Anum_es_streams_category_id,
	Anum_es_streams_deleted,
	Anum_es_streams_name,
	Anum_es_streams_truncate_before,
	Anum_es_streams_max_count,
	Anum_es_streams_max_age
};

#define Natts_es_streams	Anum_es_streams_max_age

/* Columns of the type es_event. */
enum
{
	Anum_es_event_position = 1,
	Anum_es_event_stream,
	Anum_es_event_version,
	Anum_es_event_event_id,
	Anum_es_event_type,
	Anum_es_event_schema_version,
	Anum_es_event_source,
	Anum_es_event_data,
	Anum_es_event_metadata,
	Anum_es_event_correlation_id,
	Anum_es_event_causation_id,
	Anum_es_event_traceparent,
	Anum_es_event_occurred_at,
	Anum_es_event_recorded_at
};

#define Natts_es_event		Anum_es_event_recorded_at

#define ES_TRACEPARENT_EXAMPLE	"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

/* Expected versions that are not versions. */
#define ES_NO_STREAM		(-1)
#define ES_ANY				(-2)
#define ES_STREAM_EXISTS	(-4)

/* A row of es_streams. */
typedef struct EsStream
{
	int64		stream_id;		/* the position of its first event */
	int32		category_id;
	EsPosition	first_chunk;
	bool		deleted;
	bool		created;		/* by the call that returned this */
	int64		truncate_before;	/* 0: nothing */
	int64		max_count;		/* 0: no limit */
	Interval   *max_age;		/* NULL: no limit */
} EsStream;

/* Where a stream ends. */
typedef struct EsHead
{
	int64		version;		/* -1: no events */
	EsPosition	chunk;			/* lower bound of the chunk with the newest event */
} EsHead;

/* Events to be appended to one stream. */
typedef struct EsBatch
{
	text	   *stream;
	int64		expected;
	uint32		n;
	EsColumn	columns[Natts_es_events + 1];	/* by attribute number */
} EsBatch;

/* stream.c: names, ids, settings */
extern text *EsArgName(FunctionCallInfo fcinfo, int arg, const char *what);
extern void EsCheckName(const text *name, const char *what);
extern void EsCheckText(const text *value, const char *what);
extern int	EsCategoryLength(const text *stream);
extern int32 EsCategoryHash(const char *category, int length);
extern void EsUuidNext(pg_uuid_t *uuid);
extern Datum es_uuid(PG_FUNCTION_ARGS);
extern bool EsIsTraceparent(const char *value);
extern text *EsSettingCorrelationId(void);
extern text *EsSettingCausationId(void);
extern text *EsSettingTraceparent(void);

/* stream_place.c: finding a stream's row */
extern bool EsStreamProbe(Relation rel, const text *name, Snapshot snapshot, TupleTableSlot *slot);
extern void EsStreamRemember(const text *name, const ItemPointerData *tid);
extern void EsStreamRememberVersion(int64 stream_id, int64 version);
extern int64 EsStreamKnownVersion(int64 stream_id);

/* stream_lock.c: finding and locking a stream, finding its head */
extern bool EsStreamFind(const text *name, Snapshot snapshot, EsStream *stream);
extern bool EsStreamLock(const text *name, uint32 n, EsStream *stream);
extern EsHead EsStreamHead(const EsStream *stream, Snapshot snapshot);
extern EsHead EsStreamHeadByChunks(const EsStream *stream, Snapshot snapshot);
extern void EsStreamCheckAlive(const EsStream *stream, const text *name);

/* stream_scan.c: events of a stream in version order, across its chunks */
typedef bool (*EsEventVisitor) (TupleTableSlot *slot, void *arg);	/* false: stop */
extern void EsStreamScan(const EsStream *stream, int64 from, int64 to, bool backward,
						 Snapshot snapshot, EsEventVisitor visit, void *arg);
extern EsPosition EsStreamPosition(const EsStream *stream, int64 version, Snapshot snapshot);
extern void EsStreamChunkNote(const EsStream *stream, EsPosition chunk, int64 first_version);
extern bool EsStreamChunkNewest(const EsStream *stream, Snapshot snapshot, EsPosition before, EsPosition *chunk);

/* stream_read.c: the reads, and what of a stream they leave out */
extern void EsEventOf(TupleTableSlot *slot, const text *stream, Datum *values, bool *nulls);
extern int64 EsStreamLowest(const EsStream *stream, Snapshot snapshot);
extern TimestampTz EsStreamOldest(const EsStream *stream);

/* stream_args.c */
extern void EsBatchFromJson(EsBatch *batch, Jsonb *events);

/* stream_append.c */
extern void EsAppend(EsBatch *batch, int64 *version, EsPosition *position, pg_uuid_t *id);

/* Which events of the log a reader wants; no names: all. */
typedef struct EsFilter
{
	int			ncategories;
	text	  **categories;
	int32	   *category_ids;
	int			ntypes;
	text	  **types;
} EsFilter;

/* An ordered read in progress. */
typedef struct EsOrderedRead
{
	EsLog	   *log;			/* NULL on a standby */
	EsPosition	horizon;		/* taken before the snapshot; a mark on a standby */
} EsOrderedRead;

/* stream_log.c: events of the whole log in position order */
typedef bool (*EsLogVisitor) (TupleTableSlot *slot, const text *stream, void *arg); /* false: stop */
typedef enum EsRowVerdict
{
	ES_ROW_PASSED,				/* its values are not in use any more */
	ES_ROW_ENOUGH,				/* likewise, and no more are wanted */
	ES_ROW_TAKEN,				/* its values may be in use until the transaction ends */
	ES_ROW_LAST					/* likewise, and no more are wanted */
} EsRowVerdict;

typedef EsRowVerdict (*EsRowVisitor) (TupleTableSlot *slot, void *arg);
extern void EsFilterSet(EsFilter *filter, ArrayType *categories, ArrayType *types);
extern void EsOrderedReadCheck(void);
extern void EsOrderedReadBegin(EsOrderedRead *read, EsChunkKind kind);
extern void EsOrderedReadEnd(EsOrderedRead *read);
extern void EsLogScan(const EsFilter *filter, EsPosition after, EsPosition upto,
					  Snapshot snapshot, EsLogVisitor visit, void *arg);
extern void EsLogRows(EsChunkKind kind, const EsFilter *filter, EsPosition after, EsPosition upto,
					  Snapshot snapshot, EsRowVisitor visit, void *arg);
extern bool EsFilterWantsStream(const EsFilter *filter, const text *stream);
extern bool EsFilterWants(const EsFilter *filter, TupleTableSlot *slot, Snapshot snapshot,
						  const text **stream);
extern void EsEventValues(TupleTableSlot *slot, const AttrNumber *columns, int n,
						  Datum *values, bool *nulls);
extern const text *EsStreamName(int64 stream_id, Snapshot snapshot);
extern void EsStreamNamesInvalidate(Oid relation);

#endif							/* ES_STREAM_H */
