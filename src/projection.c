/*
 * projection.c
 *		Projections: their definitions, as this session knows them.
 *
 * They are rows of es_projections, read all at once and kept, with the plans of
 * their bodies, until that table is said to have changed: es_projections_changed()
 * has the relation cache say so.  While a body runs they are kept whatever is
 * said, for it is one of them that runs.
 *
 * Who appends or publishes locks the table ROW EXCLUSIVE, to the end of his
 * transaction, before he looks; who changes an inline projection locks it SHARE
 * ROW EXCLUSIVE.  So at the moment of the change no append is half done: what has
 * committed was under the old definition, all that comes is under the new one.
 * It is a table lock of the weak kind, which takes no shared lock table.
 *
 * A version that is being built goes through what others did long ago, so what
 * it appended or published would be said twice: it is refused.
 */
#include "projection.h"

#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(es_projections_changed);
PG_FUNCTION_INFO_V1(es_rebuilding);

/* Columns of es_projection_bodies as "read_all" has them. */
enum
{
	BODY_ID = 1,
	BODY_NAME,
	BODY_LIVE,
	BODY_INLINE,
	BODY_SOURCE,
	BODY_CATEGORIES,
	BODY_TYPES,
	BODY_TOPICS,
	BODY_WHERE,
	BODY_OWNER,
	BODY_PATH,
	BODY_SETTINGS,
	BODY_STATEMENT,
	BODY_HANDLER,
	BODY_EVENTS,
	BODY_ON_ERROR,
	BODY_BATCH_SIZE,
	BODY_SUBSCRIPTION
};

static EsStatement read_all = {
	"SELECT projection_id, name, live, inline, source, categories, types, topics, \"where\", owner, path, settings,"
	" statement, handler, events, on_error, batch_size, subscription"
	" FROM @.es_projection_bodies ORDER BY name, live DESC", .newest = true
};

static MemoryContext context = NULL;	/* what follows lives there */
static List *projections = NIL;
static Oid	projections_of = InvalidOid;	/* the table they came from; InvalidOid: read them again */
static int	running = 0;		/* bodies, one inside the other */
static bool rebuilding = false; /* the innermost is of a version that is being built */

/* Called for every relation that changed. */
static void
invalidate(Oid relation)
{
	if (relation == InvalidOid || relation == projections_of)
		projections_of = InvalidOid;
}

void
EsProjectionInit(void)
{
	EsCatalogOnInvalidation(invalidate);
	EsProjectionWaitInit();
	EsProjectionWorkerInit();
}

/* Bracket what uses a definition, on error too. */
void
EsProjectionsUse(void)
{
	running++;
}

void
EsProjectionsRelease(void)
{
	running--;
}

bool
EsProjectionsInUse(void)
{
	return running > 0;
}

/* Says whether the body that begins is of a version that is being built; and what was so before. */
bool
EsProjectionsRebuilding(bool now)
{
	bool		before = rebuilding;

	rebuilding = now;
	return before;
}

/* Called by whoever appends or publishes. */
void
EsProjectionsCheckWrite(void)
{
	if (rebuilding)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot append or publish in a projection that is being rebuilt"),
				 errdetail("What it did when it was live would be done again."),
				 errhint("Leave it out where es_rebuilding() is true.")));
}

/* Nothing changes in inline projections until this transaction ends. */
void
EsProjectionsLock(void)
{
	LockRelationOid(EsCatalogGet()->projections, RowExclusiveLock);
}

/* ---------------------------------------------------------------- reading them */

static Datum
column(HeapTuple tuple, int number, bool *isnull)
{
	return SPI_getbinval(tuple, SPI_tuptable->tupdesc, number, isnull);
}

static char *
string(HeapTuple tuple, int number)
{
	char	   *value = SPI_getvalue(tuple, SPI_tuptable->tupdesc, number);

	return value ? pstrdup(value) : NULL;
}

static ArrayType *
array(HeapTuple tuple, int number)
{
	bool		isnull;
	Datum		value = column(tuple, number, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

static bool
boolean(HeapTuple tuple, int number)
{
	bool		isnull;

	return DatumGetBool(column(tuple, number, &isnull));
}

static void
read_filter(HeapTuple tuple, EsSubscription *wants)
{
	EsFilter	topics;
	bool		isnull;
	Datum		where = column(tuple, BODY_WHERE, &isnull);

	wants->source = string(tuple, BODY_SOURCE)[0] == 'e' ? ES_CHUNK_EVENTS : ES_CHUNK_OUTBOX;
	wants->where = isnull ? NULL : DatumGetJsonPathPCopy(where);
	EsFilterSet(&wants->filter, array(tuple, BODY_CATEGORIES), array(tuple, BODY_TYPES));
	EsFilterSet(&topics, NULL, array(tuple, BODY_TOPICS));
	wants->ntopics = topics.ntypes;
	wants->topics = topics.types;
}

/* Each is name=value. */
static void
read_settings(HeapTuple tuple, EsProjection *projection)
{
	ArrayType  *given = array(tuple, BODY_SETTINGS);
	Datum	   *values = NULL;
	int			n = 0;

	if (given != NULL)
		deconstruct_array(given, TEXTOID, -1, false, TYPALIGN_INT, &values, NULL, &n);
	projection->settings = palloc((n + 1) * sizeof(*projection->settings));
	projection->settings[0][0] = "search_path";
	projection->settings[0][1] = string(tuple, BODY_PATH);
	projection->nsettings = 1;
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(values[i]);
		char	   *equals = strchr(name, '=');

		if (equals == NULL)
			continue;
		*equals = '\0';
		projection->settings[projection->nsettings][0] = name;
		projection->settings[projection->nsettings++][1] = equals + 1;
	}
}

static EsProjection *
read_one(HeapTuple tuple)
{
	EsProjection *projection = palloc0(sizeof(EsProjection));
	const char *on_error = string(tuple, BODY_ON_ERROR);
	bool		isnull;

	projection->id = DatumGetInt32(column(tuple, BODY_ID, &isnull));
	projection->name = string(tuple, BODY_NAME);
	projection->live = boolean(tuple, BODY_LIVE);
	projection->is_inline = boolean(tuple, BODY_INLINE);
	read_filter(tuple, &projection->wants);
	projection->owner = DatumGetObjectId(column(tuple, BODY_OWNER, &isnull));
	read_settings(tuple, projection);
	projection->statement = string(tuple, BODY_STATEMENT);
	projection->handler = string(tuple, BODY_HANDLER);
	projection->events = boolean(tuple, BODY_EVENTS);
	projection->on_error = on_error[1] == 'k' ? 'k' : on_error[0];
	projection->batch_size = DatumGetInt32(column(tuple, BODY_BATCH_SIZE, &isnull));
	projection->subscription = string(tuple, BODY_SUBSCRIPTION);
	return projection;
}

/* Forget them all, and their plans. */
static void
forget(void)
{
	ListCell   *cell;

	foreach(cell, projections)
	{
		EsProjection *projection = lfirst(cell);

		if (projection->plan != NULL)
			SPI_freeplan(projection->plan);
		projection->plan = NULL;
	}
	projections = NIL;
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "es_pg projections", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(context);
}

/* Are there any?  Most have none, and need not plan a query to learn it. */
static bool
any_projection(void)
{
	EsProbe		probe;
	bool		any;

	PushActiveSnapshot(GetLatestSnapshot());
	EsProbeOpen(&probe, EsCatalogGet()->projections, EsCatalogGet()->projections_pkey);
	any = EsIndexProbe(probe.rel, probe.index, GetActiveSnapshot(), NULL, 0, ForwardScanDirection, probe.slot);
	EsProbeClose(&probe);
	PopActiveSnapshot();
	return any;
}

static void
read_projections(void)
{
	uint64		n;

	forget();
	if (!any_projection())
		return;
	SPI_connect();
	n = EsStatementRun(&read_all, NULL, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		projections = lappend(projections, read_one(SPI_tuptable->vals[i]));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
}

/* The definitions of now.  News while they are read has them read once more by the next call. */
List *
EsProjectionsGet(void)
{
	Oid			table = EsCatalogGet()->projections;

	if (projections_of == table || running > 0)
		return projections;
	projections_of = table;
	PG_TRY();
	{
		read_projections();
	}
	PG_CATCH();
	{
		projections_of = InvalidOid;
		PG_RE_THROW();
	}
	PG_END_TRY();
	return projections;
}

/* es_projections_changed() */
Datum
es_projections_changed(PG_FUNCTION_ARGS)
{
	if (running > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot change projections inside the body of a projection")));
	CacheInvalidateRelcacheByRelid(EsCatalogGet()->projections);
	PG_RETURN_VOID();
}

/* es_rebuilding() */
Datum
es_rebuilding(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(rebuilding);
}
