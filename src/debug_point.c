/*
 * debug_point.c
 *		Holding and breaking the code on purpose, for tests.
 *
 * Not part of a release: the Makefile leaves this file out unless it is called
 * with ES_DEBUG_POINTS=1.
 *
 * The setting es_pg.debug_points lists the names that are on, in this session or
 * in the whole server.  A backend that comes to a place that is on waits there
 * for as long as a file es_debug.NAME is in the data directory, and shows as
 * waiting for an Extension meanwhile; without the file it pauses now and then for
 * a random moment, so that races that need luck need less of it.  A breakage that
 * is on pauses in the same way and then does the wrong thing.
 *
 * It is a file, and neither a lock nor shared memory, because backends are held
 * inside of commits, where a lock must not be waited for, and are left behind
 * when a test kills the postmaster, which they notice.
 */
#include "debug_point.h"

#include <unistd.h>

#include "access/xact.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"

#include "compat.h"

#define PAUSE_ONE_IN	4		/* most pass at once, so that they overtake who does not */
#define PAUSE_MAX_US	20000
#define HOLD_LOOK_US	1000

static const char *const debug_names[] = {
#define ES_DEBUG_STRING(name) #name,
	ES_DEBUG_NAMES(ES_DEBUG_STRING)
#undef ES_DEBUG_STRING
};

EsPosition	EsDebugKept = 0;

static char *setting = NULL;
static uint64 points_on = 0;	/* bit n: number n of the names */

StaticAssertDecl(ES_DEBUG_COUNT <= 64, "points_on must have a bit for each name");

/* Turn a list of names into their bits; false where one is not known. */
static bool
parse(const char *list, uint64 *bits)
{
	*bits = 0;
	for (list += strspn(list, ", "); *list != '\0'; list += strspn(list, ", "))
	{
		size_t		length = strcspn(list, ", ");
		int			i = 0;

		while (i < ES_DEBUG_COUNT &&
			   (strlen(debug_names[i]) != length || strncmp(debug_names[i], list, length) != 0))
			i++;
		if (i == ES_DEBUG_COUNT)
			return false;
		*bits |= UINT64CONST(1) << i;
		list += length;
	}
	return true;
}

static bool
check_points(char **value, void **extra, GucSource source)
{
	uint64		bits;

	return parse(*value, &bits);
}

static void
assign_points(const char *value, void *extra)
{
	(void) parse(value, &points_on);
}

bool
EsDebugOn(EsDebugName name)
{
	return (points_on & (UINT64CONST(1) << name)) != 0;
}

/* Wait here, if the name is on. */
void
EsDebugPause(EsDebugName name)
{
	char		file[64];

	if (!EsDebugOn(name))
		return;
	snprintf(file, sizeof(file), "es_debug.%s", debug_names[name]);
	if (access(file, F_OK) != 0)
	{
		if (pg_prng_uint64_range(&pg_global_prng_state, 1, PAUSE_ONE_IN) == 1)
			pg_usleep((long) pg_prng_uint64_range(&pg_global_prng_state, 0, PAUSE_MAX_US));
		return;
	}
	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	while (access(file, F_OK) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (!PostmasterIsAlive())
			_exit(1);
		pg_usleep(HOLD_LOOK_US);
	}
	pgstat_report_wait_end();
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		EsDebugPause(ES_DEBUG_committed);
}

/* To be called first: what is registered first is told last of a commit. */
void
EsDebugInit(void)
{
	DefineCustomStringVariable("es_pg.debug_points",
							   "Debug points that are on.",
							   NULL, &setting, "", PGC_SUSET, 0,
							   check_points, assign_points, NULL);
	RegisterXactCallback(at_transaction_event, NULL);
}
