/*
 * privilege.c
 *		Limits of the privileges to append, to publish, to consume, and to use the
 *		inbox.
 *
 * EXECUTE on a function is the right to call it, and PostgreSQL sees to that.
 * Here is what EXECUTE cannot say: to which categories, topics,
 * subscriptions, consumers.
 *
 * A role is limited in a privilege if the privilege's mark, a domain, has it in
 * its ACL; it then may do what its rows in es_grants say.  Why not by its rows
 * alone: what becomes of a table's rows and what becomes of an ACL are two
 * things.  After a dump without data, a restore whose COPY failed for a role
 * that is not there, a DELETE, the rows are gone and EXECUTE is not; so "no
 * rows" must not mean "no limits".  The mark goes where EXECUTE goes: both are
 * dumped, and both end with DROP OWNED.  A type's ACL it is because GRANT and
 * REVOKE ... ON ALL ... IN SCHEMA do not touch it.
 *
 * Rights add up, as PostgreSQL's do, over all roles that the current user has
 * the privileges of: one that may execute the function and is not limited is
 * enough.  Whoever holds EXECUTE by no role at all (PostgreSQL checks the
 * functions of an aggregate against the aggregate's owner) gets nothing.
 *
 * Remembered, until an ACL, a role or a membership changes anywhere: whether
 * anybody is limited at all; and by which roles a user is limited in a function.
 * The rows are read at each call, so a limit holds as soon as it is committed.
 */
#include "privilege.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"

#define MAX_VERDICTS	8

/* Columns of es_grants, and of its key. */
enum
{
	Anum_es_grants_role = 1,
	Anum_es_grants_privilege,
	Anum_es_grants_scope
};

static const struct
{
	const char *name;
	const char *mark;			/* the domain */
	const char *scope;			/* what it is limited to */
}			privileges[] = {
	[ES_PRIVILEGE_APPEND] = {"append", "es_append_limit", "category"},
	[ES_PRIVILEGE_PUBLISH] = {"publish", "es_publish_limit", "topic"},
	[ES_PRIVILEGE_CONSUME] = {"consume", "es_consume_limit", "subscription"},
	[ES_PRIVILEGE_INBOX] = {"inbox", "es_inbox_limit", "consumer"},
};

/* What was found out about a user. */
typedef struct Verdict
{
	Oid			user;
	Oid			function;
	bool		unlimited;
	List	   *roles;			/* else: those whose limits count */
} Verdict;

static bool fresh = false;		/* what follows holds */
static bool limited[lengthof(privileges)];	/* is anybody? */
static Verdict verdicts[MAX_VERDICTS];
static int	nverdicts = 0;
static MemoryContext verdict_context = NULL;	/* their lists */

static void
forget(Datum arg, int cache, uint32 hash)
{
	fresh = false;
}

void
EsPrivilegeInit(void)
{
	/* The database, because its owner is a member of pg_database_owner. */
	static const int caches[] = {TYPEOID, PROCOID, AUTHOID, AUTHMEMROLEMEM, DATABASEOID};

	for (size_t i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], forget, (Datum) 0);
}

/* The ACL of a privilege's mark; NULL where nobody ever touched it. */
static Acl *
mark_acl(EsPrivilege privilege)
{
	HeapTuple	tuple = SearchSysCache2(TYPENAMENSP, CStringGetDatum(privileges[privilege].mark),
										ObjectIdGetDatum(EsCatalogGet()->schema));
	Datum		acl;
	bool		isnull;
	Acl		   *result;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("type \"%s\" of extension \"es_pg\" does not exist", privileges[privilege].mark),
				 errhint("Someone dropped or renamed it; restore it, or create the extension anew.")));
	acl = SysCacheGetAttr(TYPENAMENSP, tuple, Anum_pg_type_typacl, &isnull);
	result = isnull ? NULL : DatumGetAclPCopy(acl);
	ReleaseSysCache(tuple);
	return result;
}

/* Is a role named in an ACL?  InvalidOid: is any but who granted it? */
static bool
acl_names(const Acl *acl, Oid role)
{
	for (int i = 0; acl != NULL && i < ACL_NUM(acl); i++)
	{
		const AclItem *item = &ACL_DAT(acl)[i];

		if (OidIsValid(role) ? item->ai_grantee == role :
			item->ai_grantee != ACL_ID_PUBLIC && item->ai_grantee != item->ai_grantor)
			return true;
	}
	return false;
}

static void
forget_verdicts(void)
{
	nverdicts = 0;
	if (verdict_context == NULL)
		verdict_context = AllocSetContextCreate(TopMemoryContext, "es_pg privileges", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(verdict_context);
}

/* Forget it all and see whether anybody is limited. */
static void
refresh(void)
{
	forget_verdicts();
	for (size_t i = 0; i < lengthof(privileges); i++)
		limited[i] = true;		/* should the next lines fail */

	fresh = true;				/* unless news comes while we look */
	for (size_t i = 0; i < lengthof(privileges); i++)
		limited[i] = acl_names(mark_acl(i), InvalidOid);
}

/* Who may execute a function; sets its owner. */
static Acl *
function_acl(Oid function, Oid *owner)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Datum		acl;
	bool		isnull;
	Acl		   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	*owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	acl = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_proacl, &isnull);
	result = isnull ? acldefault(OBJECT_FUNCTION, *owner) : DatumGetAclPCopy(acl);
	ReleaseSysCache(tuple);
	return result;
}

/* Find out by which roles a user may execute a function, and whether all of them are limited. */
static void
judge(Verdict *verdict, EsPrivilege privilege)
{
	Oid			owner;
	Acl		   *may_execute = function_acl(verdict->function, &owner);
	Acl		   *mark = mark_acl(privilege);
	MemoryContext old;

	verdict->roles = NIL;
	verdict->unlimited = has_privs_of_role(verdict->user, owner);	/* superusers, too */
	for (int i = 0; i < ACL_NUM(may_execute) && !verdict->unlimited; i++)
	{
		const AclItem *item = &ACL_DAT(may_execute)[i];
		bool		everybody = item->ai_grantee == ACL_ID_PUBLIC;

		if ((ACLITEM_GET_PRIVS(*item) & ACL_EXECUTE) == 0 ||
			!(everybody || has_privs_of_role(verdict->user, item->ai_grantee)))
			continue;
		verdict->unlimited = everybody || !acl_names(mark, item->ai_grantee);
		old = MemoryContextSwitchTo(verdict_context);
		verdict->roles = list_append_unique_oid(verdict->roles, item->ai_grantee);
		MemoryContextSwitchTo(old);
	}
}

static const Verdict *
get_verdict(Oid user, Oid function, EsPrivilege privilege)
{
	Verdict		verdict = {user, function};

	for (int i = 0; i < nverdicts; i++)
	{
		if (verdicts[i].user == user && verdicts[i].function == function)
			return &verdicts[i];
	}
	if (nverdicts == MAX_VERDICTS)
		forget_verdicts();
	judge(&verdict, privilege);
	verdicts[nverdicts] = verdict;
	return &verdicts[nverdicts++];
}

/* A scope is a name, or with "*" at its end what begins like that. */
static bool
matches(const text *scope, const char *name, int length)
{
	const char *data = VARDATA_ANY(scope);
	int			n = VARSIZE_ANY_EXHDR(scope);

	if (n > 0 && data[n - 1] == '*')
		return length >= n - 1 && memcmp(data, name, n - 1) == 0;
	return length == n && memcmp(data, name, n) == 0;
}

/* Has a role a row that allows it? */
static bool
allows(Relation rel, Relation index, Oid role, EsPrivilege privilege, const char *name, int length)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = es_index_beginscan(rel, index, SnapshotSelf, 2);
	ScanKeyData keys[2];
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_es_grants_role, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(role));
	ScanKeyEntryInitialize(&keys[1], 0, Anum_es_grants_privilege, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, CStringGetTextDatum(privileges[privilege].name));
	index_rescan(scan, keys, 2, NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		scope = slot_getattr(slot, Anum_es_grants_scope, &isnull);

		found = matches(DatumGetTextPP(scope), name, length);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

static bool
any_allows(List *roles, EsPrivilege privilege, const char *name, int length)
{
	Relation	rel = EsTableOpen(EsCatalogGet()->grants, AccessShareLock);
	Relation	index = index_open(EsCatalogGet()->grants_pkey, AccessShareLock);
	bool		found = false;
	ListCell   *cell;

	foreach(cell, roles)
	{
		found = allows(rel, index, lfirst_oid(cell), privilege, name, length);
		if (found)
			break;
	}
	index_close(index, NoLock);
	table_close(rel, NoLock);
	return found;
}

/* May the current user, who may execute the function, do so with this scope? */
static bool
is_within(Oid function, EsPrivilege privilege, const char *scope, int length)
{
	const Verdict *verdict;

	if (!fresh)
		refresh();
	if (!limited[privilege])
		return true;
	verdict = get_verdict(GetUserId(), function, privilege);
	return verdict->unlimited || any_allows(verdict->roles, privilege, scope, length);
}

bool
EsPrivilegeHeld(Oid function, EsPrivilege privilege, const char *scope, int length)
{
	return EsMayExecute(function, GetUserId()) && is_within(function, privilege, scope, length);
}

void
EsPrivilegeCheck(FunctionCallInfo fcinfo, EsPrivilege privilege, const char *scope, int length)
{
	if (is_within(fcinfo->flinfo->fn_oid, privilege, scope, length))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s \"%.*s\"", privileges[privilege].scope, length, scope),
			 errdetail("Role \"%s\" has the privilege \"%s\" with limits.",
					   GetUserNameFromId(GetUserId(), false), privileges[privilege].name),
			 errhint("An administrator of es_pg can widen them with es_grant.")));
}
