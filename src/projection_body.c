/*
 * projection_body.c
 *		Running a projection's body over a batch.
 *
 * The batch is a tuplestore, and the body sees it as the relation es_batch: an
 * ephemeral named relation, as the transition tables of triggers are.  A handler
 * is called by such a body too, once a row in the order of the batch.
 *
 * Whoever's session it is, the body runs as the projection's owner, with the
 * search_path that was in force when it was created, pg_temp last, so that
 * nobody's temporary table is taken for one of its tables, and with the settings
 * of then that change what times and numbers are as text; and as a
 * security-restricted operation, as an index's functions do: it cannot
 * change the role or leave anything behind in the session.  All of it comes
 * back at the end of the body, and on error with the (sub)transaction.
 */
#include "projection.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "catalog.h"

#define BATCH_NAME		"es_batch"

/* ---------------------------------------------------------------- the shape of a batch */

/* Columns of es_delivery, in the order of es_event's. */
static const int event_columns[] = {
	DELIVERY_POSITION, DELIVERY_KEY, DELIVERY_VERSION, DELIVERY_MESSAGE_ID, DELIVERY_TYPE,
	DELIVERY_SCHEMA_VERSION, DELIVERY_SOURCE, DELIVERY_PAYLOAD, DELIVERY_HEADERS,
	DELIVERY_CORRELATION_ID, DELIVERY_CAUSATION_ID, DELIVERY_TRACEPARENT,
	DELIVERY_OCCURRED_AT, DELIVERY_RECORDED_AT
};

/* What es_batch looks like, in the caller's memory. */
TupleDesc
EsProjectionShape(const EsProjection *projection)
{
	const char *name = projection->events ? "es_event" : "es_delivery";
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(name),
									   ObjectIdGetDatum(EsCatalogGet()->schema));

	if (!OidIsValid(type))
		elog(ERROR, "type \"%s\" of extension \"es_pg\" does not exist", name);
	return lookup_rowtype_tupdesc_copy(type, -1);
}

/* A row of es_delivery in that shape. */
void
EsProjectionValues(const EsProjection *projection, const Datum *values, const bool *nulls,
				   Datum *out, bool *out_nulls)
{
	int			n = projection->events ? lengthof(event_columns) : Natts_es_delivery;

	for (int i = 0; i < n; i++)
	{
		int			from = projection->events ? event_columns[i] : i;

		out[i] = values[from];
		out_nulls[i] = nulls[from];
	}
}

static EphemeralNamedRelation
batch_relation(TupleDesc shape, Tuplestorestate *rows, int64 n)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(BATCH_NAME);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = shape;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = n;
	relation->reldata = rows;
	return relation;
}

/* ---------------------------------------------------------------- as its owner */

static void
begin_as_owner(const EsProjection *projection, EsOwner *before)
{
	GetUserIdAndSecContext(&before->user, &before->context);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(projection->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of projection \"%s\" does not exist", projection->name),
				 errhint("Drop it, and create it anew as another role.")));
	if (projection->statement == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s does not exist", projection->handler),
				 errdetail("It is the handler of projection \"%s\".", projection->name)));
	SetUserIdAndSecContext(projection->owner,
						   before->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	before->nest = EsSettingsBegin((const char *const (*)[2]) projection->settings, projection->nsettings);
}

/* Settings that the body changed come back, too. */
static void
end_as_owner(const EsOwner *before)
{
	AtEOXact_GUC(false, before->nest);
	SetUserIdAndSecContext(before->user, before->context);
}

static void
prepare(EsProjection *projection)
{
	SPIPlanPtr	plan;

	if (projection->plan != NULL)
		return;
	plan = SPI_prepare(projection->statement, 0, NULL);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare the body of projection \"%s\": %s",
			 projection->name, SPI_result_code_string(SPI_result));
	projection->plan = plan;
}

static void
execute(EsProjection *projection, Tuplestorestate *rows, int64 n)
{
	SPIExecuteOptions options = {.dest = None_Receiver};
	int			result;

	SPI_connect();
	if (SPI_register_relation(batch_relation(EsProjectionShape(projection), rows, n)) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not make the relation \"%s\"", BATCH_NAME);
	prepare(projection);
	result = SPI_execute_plan_extended(projection->plan, &options);
	if (result < 0)
		elog(ERROR, "could not run the body of projection \"%s\": %s",
			 projection->name, SPI_result_code_string(result));
	SPI_finish();
}

static void
tell_projection(void *arg)
{
	const EsProjection *projection = arg;

	errcontext("projection \"%s\"", projection->name);
}

/* Run a body over n rows in its batch's shape, in the present transaction. */
void
EsProjectionApply(EsProjection *projection, Tuplestorestate *rows, int64 n)
{
	ErrorContextCallback callback = {error_context_stack, tell_projection, projection};
	bool		rebuilding = EsProjectionsRebuilding(!projection->live);
	EsOwner		before;

	error_context_stack = &callback;
	EsProjectionsUse();
	PG_TRY();
	{
		begin_as_owner(projection, &before);
		CommandCounterIncrement();
		execute(projection, rows, n);
		CommandCounterIncrement();
		end_as_owner(&before);
	}
	PG_FINALLY();
	{
		EsProjectionsRelease();
		(void) EsProjectionsRebuilding(rebuilding);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/* ---------------------------------------------------------------- what a body writes to */

typedef struct Finding
{
	List	   *targets;		/* of OIDs */
	bool		reads_batch;
} Finding;

static bool
find_in(Node *node, void *arg)
{
	Finding    *finding = arg;

	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		finding->reads_batch |= ((RangeTblEntry *) node)->rtekind == RTE_NAMEDTUPLESTORE;
		return false;
	}
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType == CMD_UTILITY)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the body of a projection may not contain this command"),
					 errhint("It consists of INSERT, UPDATE, DELETE, MERGE and SELECT.")));
		if (query->resultRelation > 0)
			finding->targets = list_append_unique_oid(finding->targets,
													  rt_fetch(query->resultRelation, query->rtable)->relid);
		return query_tree_walker(query, find_in, finding, QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, find_in, finding);
}

/* An error's place is in the body, not in the statement that the user sent. */
static void
point_into_body(void *arg)
{
	int			place = geterrposition();

	if (place > 0)
	{
		errposition(0);
		internalerrposition(place);
		internalerrquery(arg);
	}
}

static List *
find_targets(const EsProjection *projection)
{
	ErrorContextCallback callback = {error_context_stack, point_into_body, projection->statement};
	Finding		finding = {NIL, false};
	QueryEnvironment *environment = create_queryEnv();
	ListCell   *cell;

	register_ENR(environment, batch_relation(EsProjectionShape(projection), NULL, 0));
	error_context_stack = &callback;
	foreach(cell, pg_parse_query(projection->statement))
		find_in((Node *) parse_analyze_fixedparams(lfirst_node(RawStmt, cell), projection->statement,
												   NULL, 0, environment), &finding);
	error_context_stack = callback.previous;
	if (!finding.reads_batch)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the body of projection \"%s\" does not read %s", projection->name, BATCH_NAME),
				 errhint("%s is the relation of the batch's events.", BATCH_NAME)));
	return finding.targets;
}

/* Parse a body as its owner; the tables that it writes to. */
List *
EsProjectionWrites(const EsProjection *projection)
{
	EsOwner		before;
	List	   *targets;

	begin_as_owner(projection, &before);
	targets = find_targets(projection);
	end_as_owner(&before);
	return targets;
}
