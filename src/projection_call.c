/*
 * projection_call.c
 *		Administration of projections: who calls, and what it needs of C.
 *
 * What changes a projection may be called by its owner, and creates it as the
 * caller; but it is written in SQL and runs as the owner of es_pg's tables, where
 * the caller is not known any more.  So each such function calls the SQL function
 * of its own name with "_as" at its end, as that owner, with the caller and the
 * caller's search_path as two more arguments.  Those are nobody's but the owner's.
 */
#include "projection.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "catalog.h"

#define CALL_ARGS_MAX	32

PG_FUNCTION_INFO_V1(es_create_projection);
PG_FUNCTION_INFO_V1(es_drop_projection);
PG_FUNCTION_INFO_V1(es_pause_projection);
PG_FUNCTION_INFO_V1(es_resume_projection);
PG_FUNCTION_INFO_V1(es_rebuild_projection);
PG_FUNCTION_INFO_V1(es_cancel_rebuild);
PG_FUNCTION_INFO_V1(es_swap_projection);
PG_FUNCTION_INFO_V1(es_lock_projection);
PG_FUNCTION_INFO_V1(es_check_body);
PG_FUNCTION_INFO_V1(es_run_as_owner);

/* The schemas of the search_path that names resolve by now, but the temporary one, which is put last. */
static char *
caller_path(void)
{
	StringInfoData path;
	ListCell   *cell;

	initStringInfo(&path);
	foreach(cell, fetch_search_path(false))
	{
		char	   *name = get_namespace_name(lfirst_oid(cell));

		if (name != NULL && !isAnyTempNamespace(lfirst_oid(cell)))
			appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/* "SELECT schema.name_as($1, ...)", and the types of a function's arguments and of the two more. */
static char *
form_call(Oid function, int nargs, Oid *types)
{
	StringInfoData sql;
	Oid		   *declared;
	int			n;

	(void) get_func_signature(function, &declared, &n);
	if (n != nargs || n + 2 > CALL_ARGS_MAX)
		elog(ERROR, "unexpected number of arguments: %d", nargs);
	memcpy(types, declared, sizeof(Oid) * n);
	types[n] = OIDOID;
	types[n + 1] = TEXTOID;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s.%s_as(",
					 quote_identifier(get_namespace_name(EsCatalogGet()->schema)), get_func_name(function));
	for (int i = 1; i <= n + 2; i++)
		appendStringInfo(&sql, "%s$%d", i > 1 ? ", " : "", i);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* Any of the functions for the owners of projections. */
static Datum
call_as_owner(FunctionCallInfo fcinfo)
{
	Oid			types[CALL_ARGS_MAX];
	Datum		values[CALL_ARGS_MAX];
	char		nulls[CALL_ARGS_MAX];
	int			n = PG_NARGS();
	char	   *sql = form_call(fcinfo->flinfo->fn_oid, n, types);
	MemoryContext caller = CurrentMemoryContext;
	EsOwner		owner;
	Datum		result;
	bool		isnull;

	PreventCommandIfReadOnly(get_func_name(fcinfo->flinfo->fn_oid));
	EsRequirePrimary();
	for (int i = 0; i < n; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[n] = ObjectIdGetDatum(GetUserId());
	values[n + 1] = CStringGetTextDatum(caller_path());
	nulls[n] = nulls[n + 1] = ' ';

	SPI_connect();
	EsOwnerBegin(&owner);
	SetConfigOption("client_min_messages", "notice", PGC_USERSET, PGC_S_SESSION);
	if (SPI_execute_with_args(sql, n + 2, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	EsOwnerEnd(&owner);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull && get_func_rettype(fcinfo->flinfo->fn_oid) != VOIDOID)
	{
		int16		length;
		bool		by_value;
		MemoryContext old;

		get_typlenbyval(get_func_rettype(fcinfo->flinfo->fn_oid), &length, &by_value);
		old = MemoryContextSwitchTo(caller);
		result = datumCopy(result, by_value, length);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	if (isnull)
		PG_RETURN_NULL();
	return result;
}

Datum
es_create_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_drop_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_pause_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_resume_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_rebuild_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_cancel_rebuild(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

Datum
es_swap_projection(PG_FUNCTION_ARGS)
{
	return call_as_owner(fcinfo);
}

/* One version of a projection. */
static EsProjection *
get_projection(int32 id)
{
	ListCell   *cell;

	foreach(cell, EsProjectionsGet())
	{
		EsProjection *projection = lfirst(cell);

		if (projection->id == id)
			return projection;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no projection with number %d", id)));
}

/* es_lock_projection(projection_id) */
Datum
es_lock_projection(PG_FUNCTION_ARGS)
{
	(void) EsProjectionTryLock(PG_GETARG_INT32(0), true);
	PG_RETURN_VOID();
}

/* es_check_body(projection_id): one whose row this transaction has just written. */
Datum
es_check_body(PG_FUNCTION_ARGS)
{
	EsProjection *projection;
	ArrayBuildState *names = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	ListCell   *cell;

	CacheInvalidateRelcacheByRelid(EsCatalogGet()->projections);
	CommandCounterIncrement();
	projection = get_projection(PG_GETARG_INT32(0));
	EsProjectionsUse();
	PG_TRY();
	{
		foreach(cell, EsProjectionWrites(projection))
		{
			Oid			table = lfirst_oid(cell);
			char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
														  get_rel_name(table));

			names = accumArrayResult(names, CStringGetTextDatum(name), false, TEXTOID, CurrentMemoryContext);
		}
	}
	PG_FINALLY();
	{
		EsProjectionsRelease();
	}
	PG_END_TRY();
	PG_RETURN_DATUM(makeArrayResult(names, CurrentMemoryContext));
}

/* es_run_as_owner(role, statement): DDL of a rebuild, as the one who owns the projection. */
Datum
es_run_as_owner(PG_FUNCTION_ARGS)
{
	Oid			user;
	int			context;
	int			result;

	GetUserIdAndSecContext(&user, &context);
	SPI_connect();
	SetUserIdAndSecContext(PG_GETARG_OID(0), context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	result = SPI_execute(text_to_cstring(PG_GETARG_TEXT_PP(1)), false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement of a rebuild: %s", SPI_result_code_string(result));
	SetUserIdAndSecContext(user, context);
	SPI_finish();
	PG_RETURN_VOID();
}
