/*
 * privilege.h
 *		Limits of a privilege: which categories a role may append to, which
 *		topics it may publish to, which subscriptions it may consume, in which
 *		consumers' names it may use the inbox.
 */
#ifndef ES_PRIVILEGE_H
#define ES_PRIVILEGE_H

#include "es_pg.h"

/* The privileges that es_grant can limit; the others are EXECUTE and no more. */
typedef enum EsPrivilege
{
	ES_PRIVILEGE_APPEND,		/* to a category */
	ES_PRIVILEGE_PUBLISH,		/* to a topic */
	ES_PRIVILEGE_CONSUME,		/* a subscription */
	ES_PRIVILEGE_INBOX			/* in a consumer's name */
} EsPrivilege;

/*
 * To be called by each SQL function of such a privilege before it locks or
 * reads anything, with its own fcinfo: EXECUTE on that function is what a limit
 * belongs to.  Raises 42501 if the current user may not.
 */
extern void EsPrivilegeCheck(FunctionCallInfo fcinfo, EsPrivilege privilege, const char *scope, int length);

/* Would it let the current user call that function, with this scope? */
extern bool EsPrivilegeHeld(Oid function, EsPrivilege privilege, const char *scope, int length);

#endif							/* ES_PRIVILEGE_H */
