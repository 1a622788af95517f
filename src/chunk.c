/*
 * chunk.c
 *		Finding the chunk that a position belongs to.
 *
 * A chunk is a partition of es_events or es_outbox: a range of positions; or of
 * es_inbox: a range of times, which here are positions like the others.  The
 * truth is the parent's partition descriptor; each backend keeps a sorted copy,
 * rebuilt when the relation cache says that the parent changed.  es_pg never
 * plans over the parent, and takes no lock on it but for a moment to rebuild
 * the copy: it opens exactly the leaves it needs, by OID, and after locking one
 * checks that it still is what the copy says.  So a chunk can be attached or
 * dropped while others work.
 */
#include "chunk.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"
#include "debug_point.h"

#define BUILD_TRIES		100		/* a bound for builds that discard caches all the time */

/* This backend's copy of one parent's partitions, sorted by position. */
typedef struct ChunkMap
{
	Oid			parent;
	bool		valid;
	uint64		news;			/* how often the parent was said to have changed */
	EsPosition	covered;		/* up to here every chunk with events is known */
	const char *obstacle;		/* what the parent has that inserts would pass by; or NULL */
	int			nchunks;
	EsChunk    *chunks;			/* in TopMemoryContext */
} ChunkMap;

static ChunkMap maps[ES_CHUNK_KINDS];

static int	event_chunk_size = 16000000;
static int	outbox_chunk_size = 1000000;
static int	inbox_chunk_interval = 7 * SECS_PER_DAY;

static void
invalidate(Oid relation)
{
	for (int kind = 0; kind < ES_CHUNK_KINDS; kind++)
	{
		if (relation == InvalidOid || relation == maps[kind].parent)
		{
			maps[kind].valid = false;
			maps[kind].news++;
		}
	}
}

void
EsChunkInit(void)
{
	DefineCustomIntVariable("es_pg.event_chunk_size",
							"Positions in a new chunk of es_events.",
							"Existing chunks keep their size.",
							&event_chunk_size, 16000000, 100, PG_INT32_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("es_pg.outbox_chunk_size",
							"Positions in a new chunk of es_outbox.",
							"Existing chunks keep their size.",
							&outbox_chunk_size, 1000000, 100, PG_INT32_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("es_pg.inbox_chunk_interval",
							"How long a new chunk of es_inbox is written to.",
							"Existing chunks keep their bounds.",
							&inbox_chunk_interval, 7 * SECS_PER_DAY, 1, PG_INT32_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	EsChunkRetireInit();
	EsCatalogOnInvalidation(invalidate);
}

EsPosition
EsChunkSize(EsChunkKind kind)
{
	if (kind == ES_CHUNK_INBOX)
		return inbox_chunk_interval * USECS_PER_SEC;
	return kind == ES_CHUNK_EVENTS ? event_chunk_size : outbox_chunk_size;
}

/* Where those who write are now. */
EsPosition
EsChunkNow(EsChunkKind kind)
{
	return kind == ES_CHUNK_INBOX ? (EsPosition) GetCurrentTimestamp() : EsPositionLast();
}

Oid
EsChunkParent(EsChunkKind kind)
{
	const EsCatalog *catalog = EsCatalogGet();

	switch (kind)
	{
		case ES_CHUNK_EVENTS:
			return catalog->events;
		case ES_CHUNK_OUTBOX:
			return catalog->outbox;
		case ES_CHUNK_INBOX:
			return catalog->inbox;
	}
	return InvalidOid;			/* keep the compiler quiet */
}

/*
 * The parent's partition descriptor, as new as this backend's news of it.  The
 * relation cache may hold an older one: news that come in while it builds a
 * descriptor are taken as dealt with.  A chunk missing from the map would be
 * passed over by readers, so the cache's is thrown away, and built again until
 * no news come in between.
 */
static PartitionDesc
fresh_descriptor(ChunkMap *map, Relation rel)
{
	PartitionDesc desc;
	uint64		before;
	int			tries = 0;

	do
	{
		InvalidateCatalogSnapshot();
		RelationCacheInvalidateEntry(RelationGetRelid(rel));
		before = map->news;
		desc = RelationGetPartitionDesc(rel, true);
	} while (before != map->news && ++tries < BUILD_TRIES);
	return desc;
}

/* Copy the descriptor, which has the bounds in order. */
static void
build_map(ChunkMap *map, Oid parent)
{
	Relation	rel;
	PartitionDesc desc;
	PartitionBoundInfo bounds;
	EsChunk    *chunks;
	int			n = 0;

	map->valid = false;
	if (map->parent != parent)
		map->covered = 0;
	map->parent = parent;		/* whose news count from here on */
	rel = table_open(parent, AccessShareLock);
	desc = fresh_descriptor(map, rel);
	bounds = desc->boundinfo;
	chunks = MemoryContextAlloc(TopMemoryContext, sizeof(EsChunk) * (desc->nparts + 1));
	for (int i = 1; bounds != NULL && i < bounds->ndatums; i++)
	{
		if (bounds->indexes[i] < 0 ||
			bounds->kind[i - 1][0] != PARTITION_RANGE_DATUM_VALUE ||
			bounds->kind[i][0] != PARTITION_RANGE_DATUM_VALUE)
			continue;
		chunks[n].lower = (EsPosition) DatumGetInt64(bounds->datums[i - 1][0]);
		chunks[n].upper = (EsPosition) DatumGetInt64(bounds->datums[i][0]);
		chunks[n].leaf = desc->oids[bounds->indexes[i]];
		n++;
	}
	if (map->chunks)
		pfree(map->chunks);
	map->chunks = chunks;
	map->nchunks = n;
	map->obstacle = EsInsertObstacle(rel);
	map->valid = true;
	table_close(rel, AccessShareLock);
}

static ChunkMap *
get_map(EsChunkKind kind)
{
	ChunkMap   *map = &maps[kind];
	Oid			parent = EsChunkParent(kind);

	if (!map->valid || map->parent != parent)
		build_map(map, parent);
	return map;
}

int
EsChunkCount(EsChunkKind kind)
{
	return get_map(kind)->nchunks;
}

/* Refuse to write into chunks whose parent has what that would pass by. */
void
EsChunkCheckParent(EsChunkKind kind)
{
	const ChunkMap *map = get_map(kind);

	if (map->obstacle != NULL)
		EsInsertRefuse(get_rel_name(map->parent), map->obstacle);
}

/* The first chunk that ends after a position, or the number of chunks. */
static int
search(const ChunkMap *map, EsPosition position)
{
	int			low = 0;
	int			high = map->nchunks;

	while (low < high)
	{
		int			mid = low + (high - low) / 2;

		if (map->chunks[mid].upper > position)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* The chunk that holds a position, if it is there. */
bool
EsChunkFind(EsChunkKind kind, EsPosition position, EsChunk *chunk)
{
	return EsChunkFindNext(kind, position, chunk) && chunk->lower <= position;
}

/* The chunk that holds a position, or the first after it. */
bool
EsChunkFindNext(EsChunkKind kind, EsPosition position, EsChunk *chunk)
{
	const ChunkMap *map = get_map(kind);
	int			i = search(map, position);

	if (i == map->nchunks)
		return false;
	*chunk = map->chunks[i];
	return true;
}

/* The last chunk that ends at or before a position. */
bool
EsChunkFindBefore(EsChunkKind kind, EsPosition position, EsChunk *chunk)
{
	const ChunkMap *map = get_map(kind);
	int			i = search(map, position);

	if (i == 0)
		return false;
	*chunk = map->chunks[i - 1];
	return true;
}

/* Is there a chunk for every position from "from" to "upto"? */
static bool
gapless(const ChunkMap *map, EsPosition from, EsPosition upto)
{
	for (int i = search(map, from); from <= upto; i++)
	{
		if (i == map->nchunks || map->chunks[i].lower > from)
			return false;
		from = map->chunks[i].upper;
	}
	return true;
}

/*
 * Know every chunk that holds events up to a horizon.  A committed chunk is
 * visible before the news of it are sent, so no news is no proof: where the map
 * has no chunk for a position, the catalog is asked once.  A gap that remains
 * (positions that a crash left out) is looked into no more, since nobody can
 * write below the horizon.
 */
void
EsChunkCover(EsChunkKind kind, EsPosition horizon)
{
	ChunkMap   *map;

	AcceptInvalidationMessages();
	map = get_map(kind);
	if (horizon <= map->covered)
		return;
	ES_DEBUG_BREAK(chunk_not_covered, return);
	if (!gapless(map, map->covered + 1, horizon))
		build_map(map, map->parent);
	map->covered = horizon;
}

/* The chunk that holds a position at which there are events: ask the catalog too. */
bool
EsChunkFindSurely(EsChunkKind kind, EsPosition position, EsChunk *chunk)
{
	if (EsChunkFind(kind, position, chunk))
		return true;
	build_map(&maps[kind], EsChunkParent(kind));
	return EsChunkFind(kind, position, chunk);
}

/*
 * Lock and open a chunk.  NULL when it is gone, which only retention can make
 * it: what it held is not there any more.
 */
Relation
EsChunkOpen(EsChunkKind kind, const EsChunk *chunk, LOCKMODE lockmode)
{
	EsChunk		now = *chunk;

	for (;;)
	{
		Oid			leaf = now.leaf;
		Relation	rel = try_table_open(leaf, lockmode);

		if (EsChunkFind(kind, chunk->lower, &now) && now.leaf == leaf && rel != NULL)
			return rel;
		if (rel != NULL)
			table_close(rel, lockmode);
		if (!EsChunkFind(kind, chunk->lower, &now))
			return NULL;
	}
}

/* Are these the leading columns of a usable btree index? */
bool
EsIndexBeginsWith(Relation index, const AttrNumber *columns, int ncolumns)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisvalid || index->rd_rel->relam != BTREE_AM_OID || form->indnkeyatts < ncolumns ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < ncolumns; i++)
	{
		if (form->indkey.values[i] != columns[i])
			return false;
	}
	return true;
}

/* The answer to a leaf without an index that it was made with. */
void
EsLeafIndexRefuse(Relation leaf)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("chunk \"%s\" lacks an index that es_pg needs", RelationGetRelationName(leaf)),
			 errhint("Create the index again; another chunk shows its definition.")));
}

/* Open the index of a leaf that begins with these columns. */
Relation
EsLeafIndexOpen(Relation leaf, const AttrNumber *columns, int ncolumns, LOCKMODE lockmode)
{
	List	   *indexes = RelationGetIndexList(leaf);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), lockmode);

		if (EsIndexBeginsWith(index, columns, ncolumns))
		{
			list_free(indexes);
			return index;
		}
		index_close(index, lockmode);
	}
	EsLeafIndexRefuse(leaf);
}
