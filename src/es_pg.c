/*
 * es_pg.c
 *		Module magic and start-up.  Each capability owns its settings and
 *		callbacks; this file only calls them.
 */
#include "es_pg.h"

#include "utils/guc.h"

#include "debug_point.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	ES_DEBUG_INIT();
	EsCatalogInit();
	EsHorizonInit();
	EsChunkInit();
	EsStreamInit();
	EsOutboxInit();
	EsCaptureInit();
	EsPrivilegeInit();
	EsSubscriptionInit();
	EsInboxInit();
	EsInboxSequenceInit();
	EsProjectionInit();
	MarkGUCPrefixReserved("es_pg");
}
