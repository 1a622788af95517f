/*
 * chunk.h
 *		Chunks: the partitions of events and outbox, found by position, and of
 *		the inbox, found by time.
 */
#ifndef ES_CHUNK_H
#define ES_CHUNK_H

#include "es_pg.h"

#include "storage/lockdefs.h"
#include "utils/rel.h"

#include "catalog.h"
#include "horizon.h"

/* One chunk: positions, or in the inbox times, from lower to below upper. */
typedef struct EsChunk
{
	EsPosition	lower;
	EsPosition	upper;
	Oid			leaf;
} EsChunk;

/* chunk.c: finding and opening */
extern bool EsChunkFind(EsChunkKind kind, EsPosition position, EsChunk *chunk);
extern bool EsChunkFindSurely(EsChunkKind kind, EsPosition position, EsChunk *chunk);
extern void EsChunkCheckParent(EsChunkKind kind);
extern void EsChunkCover(EsChunkKind kind, EsPosition horizon);
extern bool EsChunkFindNext(EsChunkKind kind, EsPosition position, EsChunk *chunk);
extern bool EsChunkFindBefore(EsChunkKind kind, EsPosition position, EsChunk *chunk);
extern Relation EsChunkOpen(EsChunkKind kind, const EsChunk *chunk, LOCKMODE lockmode);
extern Relation EsLeafIndexOpen(Relation leaf, const AttrNumber *columns, int ncolumns, LOCKMODE lockmode);
ES_NORETURN extern void EsLeafIndexRefuse(Relation leaf);
extern bool EsIndexBeginsWith(Relation index, const AttrNumber *columns, int ncolumns);
extern Oid	EsChunkParent(EsChunkKind kind);
extern EsPosition EsChunkSize(EsChunkKind kind);
extern EsPosition EsChunkNow(EsChunkKind kind);
extern int	EsChunkCount(EsChunkKind kind);

/* chunk_make.c: making */
extern bool EsExtensionTryLock(void);
extern void EsChunkEnsure(EsChunkKind kind, EsPosition first, EsPosition last);
extern void EsChunkAhead(EsChunkKind kind, const EsChunk *chunk, EsPosition position);

/* Sees each row that is about to be written. */
typedef void (*EsRowWitness) (TupleTableSlot *slot, void *arg);

/* The chunk that a writer is at, open for inserts; begins as {kind, natts, witness, arg}. */
typedef struct EsLeaf
{
	EsChunkKind kind;
	int			natts;			/* columns that the writer knows */
	EsRowWitness witness;		/* or NULL */
	void	   *witness_arg;
	bool		is_open;
	EsChunk		chunk;
	EsTarget	target;
	TupleTableSlot *slot;
} EsLeaf;

/* Gives the columns of row i; those it leaves alone are null. */
typedef void (*EsRowFiller) (TupleTableSlot *slot, uint32 i, void *arg);

/* chunk_write.c: writing */
extern bool EsLeafOpen(EsLeaf *leaf, EsPosition position);
extern uint32 EsLeafWrite(EsLeaf *leaf, EsPosition position, uint32 first, uint32 end, EsRowFiller fill, void *arg);
extern void EsLeafClose(EsLeaf *leaf);

/* By what chunks are retired: the settings of a session, for its worker. */
typedef struct EsRetireSettings
{
	int			retention;		/* seconds, -1: for ever */
	int			interval;		/* seconds, -1: never */
	int			chunk_size;
	int			inbox_retention;	/* seconds, -1: for ever */
	int			inbox_interval; /* seconds */
} EsRetireSettings;

/* How far one run of retiring is, kind by kind. */
typedef struct EsRetirement
{
	bool		begun;
	EsChunkKind kind;
	EsPosition	end;			/* of what was closed when it came to this kind */
	EsPosition	position;		/* where to go on */
	int			tries;			/* left of chunks in use */
} EsRetirement;

typedef enum EsRetireResult
{
	ES_RETIRE_DONE,
	ES_RETIRE_MORE,
	ES_RETIRE_PAUSE				/* then go on */
} EsRetireResult;

/* chunk_retire.c: closing and dropping */
extern void EsChunkRetireInit(void);
extern void EsChunkRetireSettings(EsRetireSettings *settings);
extern void EsChunkRetireSet(const EsRetireSettings *settings);
extern void EsChunkCloseByAge(void);
extern void EsChunkRetireBegin(EsRetirement *retirement);
extern EsRetireResult EsChunkRetireStep(EsRetirement *retirement);
extern int	EsChunkCountClosed(void);

/* chunk_maintain.c: the worker that does so */
extern TimestampTz EsMaintainNext(void);
extern void EsMaintainSlice(void);

#endif							/* ES_CHUNK_H */
