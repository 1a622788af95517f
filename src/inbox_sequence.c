/*
 * inbox_sequence.c
 *		es_inbox_accept_sequence: numbers of ordered sources, each accepted once.
 *
 * What a consumer has seen of one incarnation of a source is a set of numbers:
 * everything up to a watermark (a row of es_inbox_sequences), and stretches
 * beyond holes (rows of es_inbox_ranges, one a stretch).  Without holes it is
 * that one row, however many numbers came.
 *
 * The first accept of a transaction locks the row to the transaction's end, so
 * a concurrent caller waits and then sees what became of it.  From then on
 * what the transaction accepts is kept in memory, as ranges, and written
 * before it commits: one HOT update a transaction, not one a number, since row
 * versions of an open transaction cannot be pruned.  A subtransaction that ends in a
 * rollback takes its numbers out again; they are logged for that.  If it was
 * the one that locked the row, all that was learned under the lock goes, too.
 * Nothing else may change the row or its ranges in that transaction, for what was
 * learned of them would be false: es_inbox_is_pending() tells.
 *
 * A hole is as old as the first number seen above it; when it is older than
 * es_pg.inbox_hole_timeout it is given up, and recorded in es_inbox_lost, so
 * that a number of it that comes late is counted as what it is.  With a timeout
 * of 0 the source is said to come in order: there are no holes, and whatever is
 * below the highest number was seen.
 *
 * Under a snapshot that is held elsewhere nothing is pruned, and the index would
 * lead through every old version of the row.  So a backend remembers the place
 * of the version that it wrote last.  It is a hint: the version there counts if
 * it is visible and has the name, for then it is the newest; else the index is asked.
 *
 * Numbers of another incarnation are other numbers, so it has a row of its own.
 * That there is one is refused until somebody has said that it is right: it may
 * be a copy of the source, whose messages are the same under other numbers.
 */
#include "inbox.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "subscription.h"

PG_FUNCTION_INFO_V1(es_inbox_accept_sequence);
PG_FUNCTION_INFO_V1(es_inbox_add_incarnation);
PG_FUNCTION_INFO_V1(es_inbox_is_pending);

#define PLACES			64		/* remembered by a backend */
#define RANGES_MAX		100000	/* stretches beyond holes, of one source */
#define NEW_SOURCE		2		/* sub-id of the extension, for the lock of who adds one */

/* Columns of es_inbox_sequences. */
enum
{
	Anum_sequences_sequence_id = 1,
	Anum_sequences_consumer_id,
	Anum_sequences_watermark,
	Anum_sequences_highest,
	Anum_sequences_ranges,
	Anum_sequences_accepted,
	Anum_sequences_lost,
	Anum_sequences_late,
	Anum_sequences_created_at,
	Anum_sequences_changed_at,
	Anum_sequences_source,
	Anum_sequences_incarnation
};

typedef enum NewIncarnation
{
	INCARNATION_REFUSE,
	INCARNATION_ACCEPT
} NewIncarnation;

static const struct config_enum_entry new_incarnation_options[] = {
	{"refuse", INCARNATION_REFUSE, false},
	{"accept", INCARNATION_ACCEPT, false},
	{NULL, 0, false}
};

static int	hole_timeout = 86400;	/* seconds, -1: for ever */
static int	new_incarnation = INCARNATION_REFUSE;

typedef struct Range
{
	int64		low;
	int64		high;
} Range;

/* A source whose row this transaction has locked; in TopTransactionContext. */
typedef struct Source
{
	int64		consumer;
	text	   *name;
	text	   *incarnation;
	SubTransactionId locked_by;

	/* As the row has it. */
	ItemPointerData place;
	int32		id;
	int64		watermark;
	int64		highest;
	int32		ranges;
	bool		lost;			/* any numbers were given up */

	/* What this transaction adds: disjoint, not adjacent, rising. */
	int			nranges_new;
	int			room;
	Range	   *ranges_new;
	int64		late;
} Source;

/* A number that a subtransaction accepted. */
typedef struct Accepted
{
	SubTransactionId subtransaction;
	Source	   *source;
	int64		number;
} Accepted;

static List *sources = NIL;
static ItemPointerData places[PLACES];	/* by the hash of a source */
static Accepted *accepted = NULL;
static int	naccepted = 0;
static int	accepted_room = 0;

static EsStatement advance = {
	"UPDATE @.es_inbox_sequences SET watermark = $2, highest = GREATEST(highest, $2), accepted = accepted + $3,"
	" late = late + $4, changed_at = pg_catalog.clock_timestamp() WHERE sequence_id = $1 AND ctid = $5 RETURNING ctid",
	5, {INT4OID, INT8OID, INT8OID, INT8OID, TIDOID}
};

static EsStatement merge = {
	"SELECT @.es_inbox_merge($1, $2, $3, $4, $5)",
	5, {INT4OID, INT8ARRAYOID, INT8ARRAYOID, INT8OID, INT4OID}
};

static EsStatement add_source = {
	"INSERT INTO @.es_inbox_sequences (consumer_id, watermark, highest, ranges, accepted, lost, late, created_at, changed_at,"
	" source, incarnation) VALUES ($1, -1, -1, 0, 0, 0, 0, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(), $2, $3)",
	3, {INT8OID, TEXTOID, TEXTOID}
};

/* ---------------------------------------------------------------- what this transaction adds */

/* The first new range that ends at a number or above. */
static int
find_range(const Source *source, int64 number)
{
	int			low = 0;
	int			high = source->nranges_new;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (source->ranges_new[middle].high < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool
is_new_here(const Source *source, int64 number)
{
	int			i = find_range(source, number);

	return i < source->nranges_new && source->ranges_new[i].low <= number;
}

/* Make room for a range at a place, or close the gap that one leaves. */
static void
move_ranges(Source *source, int at, int by)
{
	if (source->nranges_new + by > source->room)
	{
		source->room = source->room * 2 + 8;
		source->ranges_new = source->ranges_new == NULL ?
			MemoryContextAlloc(TopTransactionContext, source->room * sizeof(Range)) :
			repalloc_huge(source->ranges_new, source->room * sizeof(Range));
	}
	memmove(&source->ranges_new[at + Max(by, 0)], &source->ranges_new[at - Min(by, 0)],
			(source->nranges_new - at + Min(by, 0)) * sizeof(Range));
	source->nranges_new += by;
}

static void
add_number(Source *source, int64 number)
{
	int			i = find_range(source, number);
	Range	   *below = i > 0 ? &source->ranges_new[i - 1] : NULL;
	Range	   *above = i < source->nranges_new ? &source->ranges_new[i] : NULL;
	bool		joins_above = above != NULL && above->low == number + 1;

	if (below != NULL && below->high == number - 1)
	{
		below->high = joins_above ? above->high : number;
		if (joins_above)
			move_ranges(source, i, -1);
	}
	else if (joins_above)
		above->low = number;
	else
	{
		move_ranges(source, i, 1);
		source->ranges_new[i] = (Range) {number, number};
	}
}

static void
remove_number(Source *source, int64 number)
{
	int			i = find_range(source, number);
	Range		whole = source->ranges_new[i];

	if (whole.low == whole.high)
		move_ranges(source, i, -1);
	else if (whole.low == number)
		source->ranges_new[i].low++;
	else if (whole.high == number)
		source->ranges_new[i].high--;
	else
	{
		move_ranges(source, i, 1);
		source->ranges_new[i] = (Range) {whole.low, number - 1};
		source->ranges_new[i + 1] = (Range) {number + 1, whole.high};
	}
}

/* ---------------------------------------------------------------- subtransactions */

static void
log_accepted(Source *source, int64 number)
{
	if (GetCurrentTransactionNestLevel() == 1)
		return;
	if (naccepted == accepted_room)
	{
		accepted_room = accepted_room * 2 + 64;
		accepted = accepted == NULL ?
			MemoryContextAlloc(TopTransactionContext, accepted_room * sizeof(Accepted)) :
			repalloc_huge(accepted, accepted_room * sizeof(Accepted));
	}
	accepted[naccepted++] = (Accepted) {GetCurrentSubTransactionId(), source, number};
}

/* What a subtransaction did is its parent's, or is undone; its entries are the last. */
static void
end_subtransaction(SubTransactionId ended, bool committed, SubTransactionId parent)
{
	ListCell   *cell;
	int			i;

	for (i = naccepted; i > 0 && accepted[i - 1].subtransaction == ended; i--)
	{
		if (committed)
			accepted[i - 1].subtransaction = parent;
		else
			remove_number(accepted[i - 1].source, accepted[i - 1].number);
	}
	if (!committed)
		naccepted = i;
	foreach(cell, sources)
	{
		Source	   *source = lfirst(cell);

		if (source->locked_by != ended)
			continue;
		source->locked_by = parent;
		if (!committed)
			sources = foreach_delete_current(sources, cell);
	}
}

static void
at_subtransaction_event(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (sources != NIL && (event == SUBXACT_EVENT_COMMIT_SUB || event == SUBXACT_EVENT_ABORT_SUB))
		end_subtransaction(mine, event == SUBXACT_EVENT_COMMIT_SUB, parent);
}

/* ---------------------------------------------------------------- before the commit */

static uint32
place_of(int64 consumer, const text *name, const text *incarnation)
{
	uint64		hash = EsHashBytes(VARDATA_ANY(incarnation), VARSIZE_ANY_EXHDR(incarnation), consumer);

	return EsHashBytes(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), hash) % PLACES;
}

static Datum
array_of_bounds(const Source *source, bool high)
{
	Datum	   *bounds = palloc_extended(sizeof(Datum) * source->nranges_new, MCXT_ALLOC_HUGE);

	for (int i = 0; i < source->nranges_new; i++)
		bounds[i] = Int64GetDatum(high ? source->ranges_new[i].high : source->ranges_new[i].low);
	return PointerGetDatum(construct_array(bounds, source->nranges_new, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static int64
count_new(const Source *source)
{
	int64		n = 0;

	for (int i = 0; i < source->nranges_new; i++)
		n += source->ranges_new[i].high - source->ranges_new[i].low + 1;
	return n;
}

/* Do the new numbers leave no hole, or none that counts? */
static bool
leaves_no_hole(const Source *source)
{
	return source->ranges == 0 &&
		(source->nranges_new == 0 || hole_timeout == 0 ||
		 (source->nranges_new == 1 && source->ranges_new[0].low == source->watermark + 1));
}

/* The usual case: the watermark moves, and that is all. */
static void
advance_source(const Source *source)
{
	Datum		args[] = {
		Int32GetDatum(source->id),
		Int64GetDatum(source->nranges_new == 0 ? source->watermark :
					  source->ranges_new[source->nranges_new - 1].high),
		Int64GetDatum(count_new(source)),
		Int64GetDatum(source->late),
		PointerGetDatum(&source->place)
	};
	bool		isnull;

	if (EsStatementRun(&advance, args, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to source \"%s\" due to concurrent update",
						text_to_cstring(source->name))));
	places[place_of(source->consumer, source->name, source->incarnation)] =
		*(ItemPointer) DatumGetPointer(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static void
merge_source(const Source *source)
{
	Datum		args[5] = {Int32GetDatum(source->id)};

	args[1] = array_of_bounds(source, false);
	args[2] = array_of_bounds(source, true);
	args[3] = Int64GetDatum(source->late);
	args[4] = Int32GetDatum(hole_timeout);
	EsStatementRun(&merge, args, NULL);
}

static void
write_sources(void)
{
	ListCell   *cell;

	if (sources == NIL)
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	foreach(cell, sources)
	{
		const Source *source = lfirst(cell);

		if (source->nranges_new == 0 && source->late == 0)
			continue;
		if (leaves_no_hole(source))
			advance_source(source);
		else
			merge_source(source);
	}
	SPI_finish();
	PopActiveSnapshot();
	sources = NIL;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			write_sources();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			sources = NIL;
			accepted = NULL;
			naccepted = accepted_room = 0;
			break;
		default:
			break;
	}
}

void
EsInboxSequenceInit(void)
{
	DefineCustomIntVariable("es_pg.inbox_hole_timeout",
							"Time after which es_inbox_accept_sequence gives up numbers that did not come.",
							"-1 waits for ever. 0 is for sources that come in order and have gaps: numbers below the highest are done.",
							&hole_timeout, 86400, -1, INT_MAX / 2,
							PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomEnumVariable("es_pg.inbox_new_incarnation",
							 "What es_inbox_accept_sequence does about a further incarnation of a source.",
							 NULL, &new_incarnation, INCARNATION_REFUSE, new_incarnation_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}

/* ---------------------------------------------------------------- the row */

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static bool
is_row_of(TupleTableSlot *slot, int64 consumer, const text *name, const text *incarnation)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, Anum_sequences_consumer_id, &isnull)) == consumer &&
		same_text(DatumGetTextPP(slot_getattr(slot, Anum_sequences_source, &isnull)), name) &&
		same_text(DatumGetTextPP(slot_getattr(slot, Anum_sequences_incarnation, &isnull)), incarnation);
}

/* Is the row where this backend wrote it last? */
static bool
look_at_place(EsProbe *probe, int64 consumer, const text *name, const text *incarnation)
{
	ItemPointer place = &places[place_of(consumer, name, incarnation)];

	return ItemPointerIsValid(place) &&
		ItemPointerGetBlockNumber(place) < RelationGetNumberOfBlocks(probe->rel) &&
		table_tuple_fetch_row_version(probe->rel, place, GetActiveSnapshot(), probe->slot) &&
		is_row_of(probe->slot, consumer, name, incarnation);
}

/* Find a source's row, or with no incarnation that of any. */
static bool
find_row(EsProbe *probe, int64 consumer, const text *name, const text *incarnation)
{
	ScanKeyData keys[3];
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(consumer));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(name));
	if (incarnation != NULL)
		ScanKeyEntryInitialize(&keys[2], 0, 3, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
							   F_TEXTEQ, PointerGetDatum(incarnation));
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	found = (incarnation != NULL && look_at_place(probe, consumer, name, incarnation)) ||
		EsIndexProbe(probe->rel, probe->index, GetActiveSnapshot(), keys, incarnation ? 3 : 2,
					 ForwardScanDirection, probe->slot);
	PopActiveSnapshot();
	return found;
}

static void
refuse_incarnation(TupleTableSlot *known, const text *name, const text *incarnation)
{
	bool		isnull;
	char	   *other = TextDatumGetCString(slot_getattr(known, Anum_sequences_incarnation, &isnull));

	ereport(ERROR,
			(errcode(ERRCODE_ES_LOG_FORKED),
			 errmsg("source \"%s\" comes in another incarnation", text_to_cstring(name)),
			 errdetail("It was known as \"%s\" and numbers now as \"%s\": it was failed over, restored or copied.",
					   other, text_to_cstring(incarnation)),
			 errhint("If that is right, call es_inbox_add_incarnation, or set es_pg.inbox_new_incarnation to accept.")));
}

/* Add a source's row.  One transaction adds to a source at a time, to see what incarnations it has. */
static void
add_row(EsProbe *probe, int64 consumer, text *name, text *incarnation, bool told)
{
	LOCKTAG		tag;
	Datum		args[] = {Int64GetDatum(consumer), PointerGetDatum(name), PointerGetDatum(incarnation)};

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId,
					   (uint32) EsHashBytes(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name), consumer), NEW_SOURCE);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	if (find_row(probe, consumer, name, incarnation))
		return;
	if (!told && new_incarnation == INCARNATION_REFUSE && find_row(probe, consumer, name, NULL))
		refuse_incarnation(probe->slot, name, incarnation);
	SPI_connect();
	EsStatementRun(&add_source, args, NULL);
	SPI_finish();
}

/* Find a source's row, adding it where there is none, and lock it. */
static void
lock_row(EsProbe *probe, int64 consumer, text *name, text *incarnation)
{
	while (!find_row(probe, consumer, name, incarnation) || !EsRowLock(probe->rel, probe->slot))
		add_row(probe, consumer, name, incarnation, false);
}

static text *
copy_text(const text *value)
{
	return cstring_to_text_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/* Lock a source and learn what was seen of it. */
static Source *
load_source(int64 consumer, text *name, text *incarnation)
{
	EsProbe		probe;
	Source	   *source;
	MemoryContext old;
	bool		isnull;

	EsProbeOpen(&probe, EsCatalogGet()->inbox_sequences, EsCatalogGet()->inbox_sequences_key);
	lock_row(&probe, consumer, name, incarnation);
	old = MemoryContextSwitchTo(TopTransactionContext);
	source = palloc0(sizeof(Source));
	source->consumer = consumer;
	source->name = copy_text(name);
	source->incarnation = copy_text(incarnation);
	source->locked_by = GetCurrentSubTransactionId();
	source->place = probe.slot->tts_tid;
	source->id = DatumGetInt32(slot_getattr(probe.slot, Anum_sequences_sequence_id, &isnull));
	source->watermark = DatumGetInt64(slot_getattr(probe.slot, Anum_sequences_watermark, &isnull));
	source->highest = DatumGetInt64(slot_getattr(probe.slot, Anum_sequences_highest, &isnull));
	source->ranges = DatumGetInt32(slot_getattr(probe.slot, Anum_sequences_ranges, &isnull));
	source->lost = DatumGetInt64(slot_getattr(probe.slot, Anum_sequences_lost, &isnull)) > 0;
	sources = lcons(source, sources);
	MemoryContextSwitchTo(old);
	EsProbeClose(&probe);
	return source;
}

static Source *
get_source(int64 consumer, text *name, text *incarnation)
{
	ListCell   *cell;

	foreach(cell, sources)
	{
		Source	   *source = lfirst(cell);

		if (source->consumer == consumer && same_text(source->name, name) &&
			same_text(source->incarnation, incarnation))
			return source;
	}
	return load_source(consumer, name, incarnation);
}

/* ---------------------------------------------------------------- one number */

/* Is a number in a range of a table whose columns begin with sequence_id, low, high? */
static bool
in_stored_range(Oid relation, Oid index, int32 id, int64 number)
{
	EsProbe		probe;
	ScanKeyData keys[2];
	bool		isnull;
	bool		found;

	EsProbeOpen(&probe, relation, index);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(id));
	ScanKeyInit(&keys[1], 2, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(number));
	found = EsIndexProbe(probe.rel, probe.index, SnapshotSelf, keys, 2, BackwardScanDirection, probe.slot) &&
		DatumGetInt64(slot_getattr(probe.slot, 3, &isnull)) >= number;
	EsProbeClose(&probe);
	return found;
}

/* The source comes in order: is a number below the highest? */
static bool
is_overtaken(const Source *source, int64 number)
{
	int64		highest = source->highest;

	if (source->nranges_new > 0)
		highest = Max(highest, source->ranges_new[source->nranges_new - 1].high);
	return hole_timeout == 0 && number <= highest;
}

static void
check_ranges(const Source *source)
{
	if (source->ranges + source->nranges_new > RANGES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("source \"%s\" has more than %d holes", text_to_cstring(source->name), RANGES_MAX),
				 errdetail("Every number up to " INT64_FORMAT " was seen; the highest is " INT64_FORMAT ".",
						   source->watermark, source->highest),
				 errhint("If it comes in order and has gaps, set es_pg.inbox_hole_timeout to 0; or use es_inbox_close_holes.")));
}

static bool
accept(Source *source, int64 number)
{
	if (number <= source->watermark)
	{
		if (source->lost &&
			in_stored_range(EsCatalogGet()->inbox_lost, EsCatalogGet()->inbox_lost_pkey, source->id, number))
			source->late++;
		return false;
	}
	if (is_overtaken(source, number) || is_new_here(source, number) ||
		(source->ranges > 0 &&
		 in_stored_range(EsCatalogGet()->inbox_ranges, EsCatalogGet()->inbox_ranges_pkey, source->id, number)))
		return false;
	check_ranges(source);
	add_number(source, number);
	log_accepted(source, number);
	return true;
}

/* The incarnation among a function's arguments; '' stands for none. */
static text *
argument_incarnation(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? cstring_to_text("") : EsArgName(fcinfo, arg, "incarnation");
}

void
EsCheckSequence(int64 sequence)
{
	if (sequence < 0 || sequence == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid sequence " INT64_FORMAT, sequence),
				 errdetail("A sequence is 0 or more, and less than " INT64_FORMAT ".", PG_INT64_MAX)));
}

/* es_inbox_accept_sequence(consumer, source, sequence, incarnation) */
Datum
es_inbox_accept_sequence(PG_FUNCTION_ARGS)
{
	text	   *consumer_name = EsArgInbox(fcinfo, 0, NULL, "es_inbox_accept_sequence()");
	text	   *name = EsArgName(fcinfo, 1, "source name");
	text	   *incarnation = argument_incarnation(fcinfo, 3);
	int64		consumer;
	bool		is_new;

	EsArgRequire(PG_ARGISNULL(2), "sequence");
	EsCheckSequence(PG_GETARG_INT64(2));
	consumer = EsInboxConsumer(consumer_name);
	is_new = accept(get_source(consumer, name, incarnation), PG_GETARG_INT64(2));
	EsInboxCount(consumer, is_new ? 1 : 0, is_new ? 0 : 1);
	PG_RETURN_BOOL(is_new);
}

/* es_inbox_add_incarnation(consumer, source, incarnation) */
Datum
es_inbox_add_incarnation(PG_FUNCTION_ARGS)
{
	text	   *consumer_name = EsArgInbox(fcinfo, 0, NULL, "es_inbox_add_incarnation()");
	text	   *name = EsArgName(fcinfo, 1, "source name");
	text	   *incarnation = EsArgName(fcinfo, 2, "incarnation");
	int64		consumer = EsInboxConsumer(consumer_name);
	EsProbe		probe;

	EsProbeOpen(&probe, EsCatalogGet()->inbox_sequences, EsCatalogGet()->inbox_sequences_key);
	if (!find_row(&probe, consumer, name, incarnation))
		add_row(&probe, consumer, name, incarnation, true);
	EsProbeClose(&probe);
	PG_RETURN_VOID();
}

/* es_inbox_is_pending(sequence_id): has this transaction accepted from a source? */
Datum
es_inbox_is_pending(PG_FUNCTION_ARGS)
{
	ListCell   *cell;

	foreach(cell, sources)
	{
		if (!PG_ARGISNULL(0) && ((const Source *) lfirst(cell))->id == PG_GETARG_INT32(0))
			PG_RETURN_BOOL(true);
	}
	PG_RETURN_BOOL(false);
}
