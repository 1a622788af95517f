/*
 * snapshot_reducer.c
 *		A reducer's text becomes what folds.
 *
 * The text is a built-in's name, with its arguments as a JSON object behind it if
 * it has any, or else the name of a function (state jsonb, event es_event)
 * returns jsonb.  A built-in wins over a function of its name; qualify the
 * function.  Every reducer has one canonical text, with the schema of a function
 * and the JSON as jsonb writes it: es_reducer() returns it, and snapshots and
 * policies are kept under it.
 *
 * Names are looked up and EXECUTE is checked as the current user, once a fold.
 *
 * The identity says which snapshots are still true.  It has no OIDs in it, so a
 * dump and restore keeps it: of a built-in it is the canonical text and the
 * version of what it computes; of a function name, language, body, library, and
 * settings.  So CREATE OR REPLACE makes another reducer, and CREATE OR REPLACE
 * with what was there before makes the old one again.  What a function calls is
 * not looked at; the README says so.
 */
#include "snapshot.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(es_reducer);

#define BUILTINS	"Built-in reducers are merge_patch, last_value, last_write, count, sum, pn_counter and combine."

/* The type of the second argument of a reducer's function. */
Oid
EsEventType(void)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("es_event"),
									   ObjectIdGetDatum(EsCatalogGet()->schema));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"es_event\" of extension \"es_pg\" does not exist"),
				 errhint("Someone dropped or renamed it; restore it, or create the extension anew.")));
	return type;
}

static void
refuse_function(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
			 errmsg("function \"%s\" cannot be a reducer", name),
			 errdetail("%s", detail),
			 errhint("A reducer is a function (state jsonb, event es_event) RETURNS jsonb.")));
}

static void
check_function(Oid function, const char *name)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		refuse_function(name, "It is an aggregate, a window function or a procedure.");
	if (proc->prorettype != JSONBOID || proc->proretset)
		refuse_function(name, "It does not return one jsonb.");
	if (proc->proisstrict)
		refuse_function(name, "It is STRICT, but the state before the first event is null.");
	ReleaseSysCache(tuple);
	if (!EsMayExecute(function, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

static void
get_function(EsReducer *reducer, const char *name)
{
	Oid			argument_types[2] = {JSONBOID, EsEventType()};
	Oid			function = LookupFuncName(EsQualifiedName(name), 2, argument_types, true);

	if (!OidIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("reducer \"%s\" does not exist", name),
				 errdetail("There is no built-in of that name, and no function %s(jsonb, es_event).", name),
				 errhint(BUILTINS)));
	check_function(function, name);
	fmgr_info(function, &reducer->function);
	reducer->name = quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
											   get_func_name(function));
}

static void
get_builtin(EsReducer *reducer, const char *name, const char *arguments)
{
	Jsonb	   *jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(*arguments ? arguments : "{}")));

	reducer->builtin = EsBuiltinParse(name, jsonb);
	reducer->name = JB_ROOT_COUNT(jsonb) == 0 ? pstrdup(name) :
		psprintf("%s %s", name, JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
}

static void
check_length(const char *reducer)
{
	if (strlen(reducer) > ES_REDUCER_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reducer is too long"),
				 errdetail("It has %zu bytes; at most %d are allowed.", strlen(reducer), ES_REDUCER_MAX),
				 errhint("What needs so many words is better a function.")));
}

/* Find a reducer, or say why it is none; in the current memory context. */
EsReducer *
EsReducerGet(const text *reducer)
{
	EsReducer  *result = palloc0(sizeof(EsReducer));
	char	   *string = text_to_cstring(reducer);
	char	   *name = pnstrdup(string, strcspn(string, " {"));

	if (EsBuiltinKnown(name))
		get_builtin(result, name, string + strlen(name));
	else
		get_function(result, string);
	check_length(result->name);
	return result;
}

/* es_reducer(name, arguments) */
Datum
es_reducer(PG_FUNCTION_ARGS)
{
	char	   *name;

	EsArgRequire(PG_ARGISNULL(0), "reducer");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!PG_ARGISNULL(1))
	{
		Jsonb	   *arguments = PG_GETARG_JSONB_P(1);

		if (!EsBuiltinKnown(name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("reducer \"%s\" takes no arguments", name),
					 errdetail("Only built-in reducers do."),
					 errhint(BUILTINS)));
		name = psprintf("%s %s", name, JsonbToCString(NULL, &arguments->root, VARSIZE(arguments)));
	}
	PG_RETURN_TEXT_P(cstring_to_text(EsReducerGet(cstring_to_text(name))->name));
}

/* One part of an identity: with its length, so that no two lists of parts are one text. */
static void
append_part(StringInfo identity, const char *what, const char *part)
{
	appendStringInfo(identity, "%s:%zu:%s;", what, part ? strlen(part) : 0, part ? part : "");
}

/* A body in SQL's own syntax, as text that does not depend on the session. */
static char *
body_text(Oid function)
{
	static const char *const settings[][2] = {{"search_path", "pg_catalog, pg_temp"}};
	int			nest = EsSettingsBegin(settings, lengthof(settings));
	char	   *body = TextDatumGetCString(DirectFunctionCall1(pg_get_function_sqlbody, ObjectIdGetDatum(function)));

	AtEOXact_GUC(true, nest);
	return body;
}

static void
append_function(StringInfo identity, Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	HeapTuple	language;
	Form_pg_proc proc;
	Datum		datum;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	language = SearchSysCache1(LANGOID, ObjectIdGetDatum(proc->prolang));
	if (!HeapTupleIsValid(language))
		elog(ERROR, "cache lookup failed for language %u", proc->prolang);
	append_part(identity, "language", NameStr(((Form_pg_language) GETSTRUCT(language))->lanname));
	ReleaseSysCache(language);
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	append_part(identity, "source", isnull ? NULL : TextDatumGetCString(datum));
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &isnull);
	append_part(identity, "library", isnull ? NULL : TextDatumGetCString(datum));
	datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proconfig, &isnull);
	append_part(identity, "settings", isnull ? NULL : OidOutputFunctionCall(F_ARRAY_OUT, datum));
	(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	append_part(identity, "body", isnull ? NULL : body_text(function));
	append_part(identity, "definer", proc->prosecdef ? "yes" : "no");
	ReleaseSysCache(tuple);
}

/* What a snapshot must have been taken by to be this reducer's. */
void
EsReducerIdentity(const EsReducer *reducer, pg_uuid_t *identity)
{
	StringInfoData parts;

	initStringInfo(&parts);
	append_part(&parts, reducer->builtin ? "built-in" : "function", reducer->name);
	if (reducer->builtin)
		append_part(&parts, "version", psprintf("%u", EsBuiltinVersion(reducer->builtin)));
	else
		append_function(&parts, reducer->function.fn_oid);
	*identity = *DatumGetUUIDP(DirectFunctionCall2(es_uuid, CStringGetTextDatum("es_pg reducer"),
												   PointerGetDatum(cstring_to_text_with_len(parts.data, parts.len))));
	pfree(parts.data);
}
