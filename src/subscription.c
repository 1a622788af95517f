/*
 * subscription.c
 *		A subscription's row, and what its parts do as the owner.
 *
 * A subscription never marks rows.  It has so many lanes; a key always falls
 * into the same one, by a hash that must never change.  The state of a lane is
 *
 *		its lease	a row of es_leases: who has it, in which epoch; written only
 *					when the lane changes hands (subscription_lease.c);
 *		its cursor	the highest (epoch, position) in es_cursors
 *					(subscription_cursor.c);
 *		its parked	messages, rows of es_parked, each a copy (subscription_parked.c).
 *
 * Whoever writes any of it has locked the lane's lease and seen that the epoch
 * is his own: FOR NO KEY UPDATE, so that one transaction at a time moves a lane
 * on.  A takeover locks it FOR UPDATE and gives it another epoch.  That is all
 * there is to safety; liveness is in shared memory (subscription_member.c).
 *
 * Administration (subscription_admin.sql) locks the subscription's row and then
 * its leases, and gives new epochs where what was handed out must not count any
 * more: seek, and change of lanes.
 */
#include "subscription.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "privilege.h"

PG_FUNCTION_INFO_V1(es_next_epoch);
PG_FUNCTION_INFO_V1(es_wake_consumers);

/* Columns of es_subscriptions. */
enum
{
	Anum_es_subscriptions_id = 1,
	Anum_es_subscriptions_name,
	Anum_es_subscriptions_source,
	Anum_es_subscriptions_categories,
	Anum_es_subscriptions_types,
	Anum_es_subscriptions_topics,
	Anum_es_subscriptions_where,
	Anum_es_subscriptions_lanes,
	Anum_es_subscriptions_lanes_next,
	Anum_es_subscriptions_drain_to,
	Anum_es_subscriptions_state,
	Anum_es_subscriptions_reason,
	Anum_es_subscriptions_lease_time,
	Anum_es_subscriptions_max_attempts,
	Anum_es_subscriptions_retry_base,
	Anum_es_subscriptions_retry_max,
	Anum_es_subscriptions_on_dead
};

/* This transaction did something that waiting consumers want to see. */
static bool wake_at_commit = false;

/* It moved a lane on, or looked further. */
static bool passed_at_commit = false;

/* ---------------------------------------------------------------- lanes */

/* The last steps of MurmurHash3: every bit of the input moves every bit of the result. */
uint64
EsHashNumber(uint64 number)
{
	number ^= number >> 33;
	number *= UINT64CONST(0xff51afd7ed558ccd);
	number ^= number >> 33;
	number *= UINT64CONST(0xc4ceb9fe1a85ec53);
	return number ^ (number >> 33);
}

/* FNV-1a.  Never change this: cursors of lanes and parked keys depend on it. */
uint64
EsHashBytes(const char *data, int length, uint64 seed)
{
	uint64		hash = UINT64CONST(0xcbf29ce484222325) ^ seed;

	for (int i = 0; i < length; i++)
	{
		hash ^= (unsigned char) data[i];
		hash *= UINT64CONST(0x100000001b3);
	}
	return EsHashNumber(hash);
}

/* The lane of a key's hash; es_switch_lanes says the same in SQL. */
int
EsLaneOf(uint64 hash, int lanes)
{
	return (int) ((hash & PG_INT64_MAX) % lanes);
}

/* ---------------------------------------------------------------- rows */

static ArrayType *
array_or_null(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : DatumGetArrayTypePCopy(value);
}

static char *
string_or_null(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static int64
usecs_of(TupleTableSlot *slot, AttrNumber column)
{
	bool		isnull;
	Interval   *interval = DatumGetIntervalP(slot_getattr(slot, column, &isnull));

	return interval->time + (interval->day + INT64CONST(30) * interval->month) * USECS_PER_DAY;
}

static EsSubscriptionState
state_of(const char *state)
{
	switch (state[0])
	{
		case 'a':
			return ES_SUBSCRIPTION_ACTIVE;
		case 'p':
			return ES_SUBSCRIPTION_PAUSED;
		default:
			return ES_SUBSCRIPTION_SUSPENDED;
	}
}

static void
read_filter(TupleTableSlot *slot, EsSubscription *subscription)
{
	EsFilter	topics;
	bool		isnull;
	Datum		where = slot_getattr(slot, Anum_es_subscriptions_where, &isnull);

	subscription->where = isnull ? NULL : DatumGetJsonPathPCopy(where);
	EsFilterSet(&subscription->filter,
				array_or_null(slot, Anum_es_subscriptions_categories),
				array_or_null(slot, Anum_es_subscriptions_types));
	EsFilterSet(&topics, NULL, array_or_null(slot, Anum_es_subscriptions_topics));
	subscription->ntopics = topics.ntypes;
	subscription->topics = topics.types;
}

static void
read_row(TupleTableSlot *slot, EsSubscription *subscription)
{
	bool		isnull;

	subscription->id = DatumGetInt32(slot_getattr(slot, Anum_es_subscriptions_id, &isnull));
	subscription->source = string_or_null(slot, Anum_es_subscriptions_source)[0] == 'e' ?
		ES_CHUNK_EVENTS : ES_CHUNK_OUTBOX;
	read_filter(slot, subscription);
	subscription->lanes = DatumGetInt32(slot_getattr(slot, Anum_es_subscriptions_lanes, &isnull));
	subscription->drain_to = (EsPosition) DatumGetInt64(slot_getattr(slot, Anum_es_subscriptions_drain_to, &isnull));
	subscription->draining = !isnull;
	subscription->state = state_of(string_or_null(slot, Anum_es_subscriptions_state));
	subscription->reason = string_or_null(slot, Anum_es_subscriptions_reason);
	subscription->lease_usecs = usecs_of(slot, Anum_es_subscriptions_lease_time);
	subscription->max_attempts = DatumGetInt32(slot_getattr(slot, Anum_es_subscriptions_max_attempts, &isnull));
	subscription->retry_base_usecs = usecs_of(slot, Anum_es_subscriptions_retry_base);
	subscription->retry_max_usecs = usecs_of(slot, Anum_es_subscriptions_retry_max);
	subscription->skip_dead = string_or_null(slot, Anum_es_subscriptions_on_dead)[0] == 's';
}

/* The subscription among a function's arguments, which the current user may consume. */
text *
EsArgSubscription(FunctionCallInfo fcinfo)
{
	text	   *name = EsArgName(fcinfo, 0, "subscription name");

	EsPrivilegeCheck(fcinfo, ES_PRIVILEGE_CONSUME, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	return name;
}

/* A subscription by name. */
void
EsSubscriptionRead(const text *name, Snapshot snapshot, EsSubscription *subscription)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->subscriptions, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	if (!EsNameProbe(rel, EsCatalogGet()->subscriptions_name_key, name, snapshot, slot, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 errhint("Use es_create_subscription.")));
	subscription->name = (text *) name;
	read_row(slot, subscription);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* ---------------------------------------------------------------- as the owner */

/* A statement with the schema's name where it has an @. */
static char *
with_schema(const char *sql)
{
	StringInfoData result;
	const char *schema = quote_identifier(get_namespace_name(EsCatalogGet()->schema));

	initStringInfo(&result);
	for (; *sql; sql++)
	{
		if (*sql == '@')
			appendStringInfoString(&result, schema);
		else
			appendStringInfoChar(&result, *sql);
	}
	return result.data;
}

static void
prepare(EsStatement *statement)
{
	Oid			schema = EsCatalogGet()->schema;
	SPIPlanPtr	plan;

	if (statement->plan != NULL && statement->schema == schema)
		return;
	if (statement->plan != NULL)
		SPI_freeplan(statement->plan);
	statement->plan = NULL;
	plan = SPI_prepare(with_schema(statement->sql), statement->nargs, statement->types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", statement->sql);
	statement->plan = plan;
	statement->schema = schema;
}

/*
 * Run a statement as the owner of es_pg's tables; how many rows it had.  The
 * caller has connected to SPI and finds the rows there.  Plans are kept, so they
 * must not come from a time when the tables were empty.
 */
uint64
EsStatementRun(EsStatement *statement, Datum *args, const char *nulls)
{
	EsOwner		owner;
	int			result;

	EsOwnerBegin(&owner);
	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	prepare(statement);
	if (statement->newest)
		PushActiveSnapshot(GetLatestSnapshot());
	result = SPI_execute_plan(statement->plan, args, nulls, statement->newest, 0);
	if (statement->newest)
		PopActiveSnapshot();
	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->sql, SPI_result_code_string(result));
	EsOwnerEnd(&owner);
	return SPI_processed;
}

/* ---------------------------------------------------------------- waking those who wait */

/* Have the consumers that wait look again when this transaction has committed. */
void
EsWakeAtCommit(void)
{
	(void) EsLogGet();
	wake_at_commit = true;
}

/* The same for those who wait until a subscription has passed a position. */
void
EsPassedAtCommit(void)
{
	(void) EsLogGet();
	passed_at_commit = true;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	bool		wake = wake_at_commit;
	bool		passed = passed_at_commit;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	wake_at_commit = false;
	EsLaneHereForget();
	passed_at_commit = false;
	if (event == XACT_EVENT_ABORT)
		wake = EsMemberAtEnd(false);
	else
		(void) EsMemberAtEnd(true);
	if (wake && event != XACT_EVENT_PREPARE)
		EsWakeConsumers(EsLogCurrent());
	if (passed && event == XACT_EVENT_COMMIT)
		EsWakePassed(EsLogCurrent());
}

void
EsSubscriptionInit(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
}

Datum
es_wake_consumers(PG_FUNCTION_ARGS)
{
	EsWakeAtCommit();
	PG_RETURN_VOID();
}

Datum
es_next_epoch(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) EsPositionTake());
}
