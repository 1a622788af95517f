/*
 * inbox_handler.c
 *		One message's handler, in a subtransaction.
 *
 * Whatever the handler does is kept or undone as a whole, and that it failed is
 * told by an error of any kind: its own, a deadlock, a lock_timeout, one of a
 * constraint.  So what it left to be checked at commit is checked here, while it
 * can still be undone for itself alone: SET CONSTRAINTS ALL IMMEDIATE.  The modes
 * that constraints had before cannot be asked for, so each gets its initial one
 * back; in a schema that the caller may not name, they stay deferred.  Where no
 * constraint of the database can be deferred, nothing is done.
 *
 * A handler has a limited time.  Its end is a query cancel that this file sends to
 * itself, and recognizes; every other cancel, statement_timeout's among them, is
 * the caller's and ends the caller's statement.
 */
#include "inbox_durable.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "catalog.h"
#include "compat.h"

static TimeoutId timer = MAX_TIMEOUTS;
static volatile sig_atomic_t time_is_over = false;

static void
at_timeout(void)
{
	time_is_over = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

/* ---------------------------------------------------------------- which function */

static Oid
message_type(void)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("es_inbox_message"),
									   ObjectIdGetDatum(EsCatalogGet()->schema));

	if (!OidIsValid(type))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"es_inbox_message\" of extension \"es_pg\" does not exist"),
				 errhint("Someone dropped or renamed it; restore it, or create the extension anew.")));
	return type;
}

/* The caller releases it. */
TupleDesc
EsInboxMessageDesc(void)
{
	return lookup_rowtype_tupdesc(message_type(), -1);
}

static void
check_signature(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	good = proc->prokind == PROKIND_FUNCTION && !proc->proretset && proc->prorettype == VOIDOID &&
		proc->pronargs == 1 && proc->proargtypes.values[0] == message_type();
	ReleaseSysCache(tuple);
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("%s cannot handle messages", format_procedure(function)),
				 errdetail("A handler is a function of one argument of type es_inbox_message that returns void.")));
	if (!EsMayExecute(function, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", get_func_name(function))));
}

static SPIPlanPtr
prepare(Oid function)
{
	Oid			types[] = {message_type()};
	char	   *name = quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
												  get_func_name(function));
	SPIPlanPtr	plan = SPI_prepare(psprintf("SELECT %s($1)", name), 1, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare a call of %s: %s", name, SPI_result_code_string(SPI_result));
	return plan;
}

/* ---------------------------------------------------------------- deferred constraints */

static void
execute(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(result));
}

/* Statements that give all constraints their initial modes; NULL when none can be deferred. */
static char *
initial_modes(void)
{
	StringInfoData sql;
	bool		any_immediate = false;

	execute("SELECT pg_catalog.format('%I.%I', n.nspname, c.conname),"
			" c.condeferred OR NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
			" FROM pg_catalog.pg_constraint AS c JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.connamespace"
			" WHERE c.condeferrable AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)");
	if (SPI_processed == 0)
		return NULL;
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SET CONSTRAINTS ALL DEFERRED");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;

		if (DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull)))
			continue;
		appendStringInfo(&sql, "%s %s", any_immediate ? "," : "; SET CONSTRAINTS",
						 SPI_getvalue(row, SPI_tuptable->tupdesc, 1));
		any_immediate = true;
	}
	if (any_immediate)
		appendStringInfoString(&sql, " IMMEDIATE");
	return sql.data;
}

/* Check now what was to be checked at commit. */
static void
check_deferred(const EsHandler *handler)
{
	if (handler->defer == NULL)
		return;
	execute("SET CONSTRAINTS ALL IMMEDIATE");
	execute(handler->defer);
}

/*
 * Check a function and get ready to call it.  The caller has connected to SPI
 * and stays so.  What the transaction has deferred so far is none of the messages' fault.
 */
void
EsHandlerBegin(EsHandler *handler, Oid function, int64 usecs)
{
	check_signature(function);
	if (timer == MAX_TIMEOUTS)
		timer = RegisterTimeout(USER_TIMEOUT, at_timeout);
	handler->plan = prepare(function);
	handler->usecs = usecs;
	handler->statement_end = get_timeout_active(STATEMENT_TIMEOUT) ?
		get_timeout_finish_time(STATEMENT_TIMEOUT) : DT_NOEND;
	handler->defer = initial_modes();
	check_deferred(handler);
}

/* ---------------------------------------------------------------- the call */

/* An error as it is kept with the message. */
static char *
describe(const ErrorData *error)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s: %s", unpack_sql_state(error->sqlerrcode), error->message);
	if (error->detail)
		appendStringInfo(&text, "\nDETAIL:  %s", error->detail);
	if (error->hint)
		appendStringInfo(&text, "\nHINT:  %s", error->hint);
	if (error->context)
		appendStringInfo(&text, "\nCONTEXT:  %s", error->context);
	return text.data;
}

/* Is this the end of the handler's time, and not one of the caller's? */
static bool
is_own_cancel(const EsHandler *handler)
{
	return time_is_over && GetCurrentTimestamp() < handler->statement_end;
}

static void
call(const EsHandler *handler, Datum message)
{
	int			result;

	time_is_over = false;
	enable_timeout_after(timer, (int) Max(handler->usecs / 1000, 1));
	result = SPI_execute_plan(handler->plan, &message, NULL, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not call a handler: %s", SPI_result_code_string(result));
	SPI_freetuptable(SPI_tuptable);
	check_deferred(handler);
	disable_timeout(timer, false);
	CHECK_FOR_INTERRUPTS();		/* it may have struck just now */
}

/* Have a message handled; NULL, or why it failed, and then all is as before. */
char *
EsHandlerCall(const EsHandler *handler, Datum message)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile failure = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		call(handler, message);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		disable_timeout(timer, false);
		if (time_is_over && error->sqlerrcode != ERRCODE_QUERY_CANCELED)
			QueryCancelPending = false; /* it struck after the handler had failed */
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		{
			if (!is_own_cancel(handler))
				ReThrowError(error);
			error->message = psprintf("handler took longer than " INT64_FORMAT " ms", handler->usecs / 1000);
		}
		failure = describe(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return failure;
}
