/*
 * stream_place.c
 *		Finding a stream's row, by its name and by where it was last time.
 *
 * Whoever reads a stream, decides and appends, looks for one row three times, so
 * a backend remembers where in es_streams the rows are that it found.  A place
 * is only a hint, and nothing has to be forgotten for it to be right: the row
 * there is taken if the snapshot sees it and it has the name, and there is no
 * other such row, for names are unique.  Else the index is asked.
 *
 * A place is the head of the row's HOT chain, as the index has it.  It may lie
 * beyond the end of a table that has become shorter, so that is looked at first.
 * The table of places is direct-mapped, lives in TopMemoryContext, and grows
 * with the number of streams that a backend works on, up to 0.8 MB.
 *
 * Of the streams appended to last, it also remembers the version: a lower bound
 * of the head's if the transaction committed, and worth something where a few
 * streams get many events, so the table is small.
 */
#include "stream.h"

#include "access/tableam.h"
#include "common/hashfn.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"

#include "catalog.h"

#define PLACES_MIN		256		/* powers of two */
#define PLACES_MAX		65536

typedef struct Place
{
	uint32		hash;			/* of the name */
	ItemPointerData tid;		/* invalid: nothing here */
} Place;

#define VERSIONS		1024	/* a power of two */

/* What a stream was brought to by an append; of stream 0, which there is not, nothing. */
typedef struct Version
{
	int64		stream_id;
	int64		version;
} Version;

static Version versions[VERSIONS];

static Place *places = NULL;
static uint32 nplaces = 0;
static uint32 remembered = 0;	/* since the table has this size */

static uint32
hash_name(const text *name)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/* Make the table of places, or double it. */
static void
grow(void)
{
	uint32		size = places ? nplaces * 2 : PLACES_MIN;
	Place	   *larger = MemoryContextAllocZero(TopMemoryContext, size * sizeof(Place));

	for (uint32 i = 0; i < nplaces; i++)
		larger[places[i].hash & (size - 1)] = places[i];
	if (places)
		pfree(places);
	places = larger;
	nplaces = size;
	remembered = 0;
}

/* A row of this name is, or will be if the transaction commits, at this place. */
void
EsStreamRemember(const text *name, const ItemPointerData *tid)
{
	uint32		hash = hash_name(name);

	if (remembered++ >= nplaces && nplaces < PLACES_MAX)
		grow();
	places[hash & (nplaces - 1)] = (Place) {hash, *tid};
}

static bool
has_name(TupleTableSlot *slot, const text *name)
{
	bool		isnull;
	const text *other = DatumGetTextPP(slot_getattr(slot, Anum_es_streams_name, &isnull));

	return VARSIZE_ANY_EXHDR(other) == VARSIZE_ANY_EXHDR(name) &&
		memcmp(VARDATA_ANY(other), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) == 0;
}

/* Is the row where it was last time? */
static bool
look_at_place(Relation rel, const text *name, Snapshot snapshot, TupleTableSlot *slot)
{
	uint32		hash = hash_name(name);
	Place		place;
	IndexFetchTableData *fetch;
	bool		again = false;
	bool		found;

	if (nplaces == 0)
		return false;
	place = places[hash & (nplaces - 1)];
	if (place.hash != hash || !ItemPointerIsValid(&place.tid) ||
		ItemPointerGetBlockNumber(&place.tid) >= RelationGetNumberOfBlocks(rel))
		return false;
	fetch = table_index_fetch_begin(rel);
	found = table_index_fetch_tuple(fetch, &place.tid, snapshot, slot, &again, NULL);
	table_index_fetch_end(fetch);
	return found && has_name(slot, name);
}

/* The row of a stream, by name. */
bool
EsStreamProbe(Relation rel, const text *name, Snapshot snapshot, TupleTableSlot *slot)
{
	ItemPointerData tid;

	if (look_at_place(rel, name, snapshot, slot))
		return true;
	if (!EsNameProbe(rel, EsCatalogGet()->streams_name_key, name, snapshot, slot, &tid))
		return false;
	EsStreamRemember(name, &tid);
	return true;
}

static Version *
version_of(int64 stream_id)
{
	return &versions[murmurhash32((uint32) stream_id) & (VERSIONS - 1)];
}

void
EsStreamRememberVersion(int64 stream_id, int64 version)
{
	*version_of(stream_id) = (Version) {stream_id, version};
}

/* The version that this backend last brought a stream to, if it knows: a hint. -1: it does not. */
int64
EsStreamKnownVersion(int64 stream_id)
{
	const Version *known = version_of(stream_id);

	return known->stream_id == stream_id ? known->version : -1;
}
