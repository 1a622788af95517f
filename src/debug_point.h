/*
 * debug_point.h
 *		Named places at which a test can hold a backend still, or break the
 *		code in a known way to see whether its checks notice.
 *
 * They exist in a build with ES_DEBUG_POINTS only.  In any other the macros are
 * nothing: not a branch, not a symbol, not a setting.
 */
#ifndef ES_DEBUG_POINT_H
#define ES_DEBUG_POINT_H

#ifdef ES_DEBUG_POINTS

#include "es_pg.h"

/* Every name, as es_pg.debug_points takes it. */
#define ES_DEBUG_NAMES(X) \
	/* places to hold a backend at */ \
	X(position_drawn)			/* its first one, whose bound is not yet raised */ \
	X(before_stream_lock) \
	X(before_commit)			/* it has looked at the armed flag */ \
	X(committed)				/* visible, and out of the registry; invalidations not yet sent */ \
	X(adopting)					/* a restored sequence is half taken over */ \
	X(before_arming)			/* an ordered read found nothing */ \
	X(judging)					/* what is stored is known, what incarnation there is not yet */ \
	X(fetch_snapshot)			/* a fetch has its snapshot, and has locked no lane */ \
	X(inbox_inserted)			/* a mark that is not looked for in other chunks yet */ \
	/* breakages */ \
	X(horizon_after_snapshot) \
	X(bound_after_draw) \
	X(entry_cleared_early)		/* before the commit, and so before its effects are visible */ \
	X(position_before_lock)		/* of the stream */ \
	X(no_look_after_arming) \
	X(bound_not_flushed)		/* before positions up to it are drawn */ \
	X(commit_not_flushed)		/* an asynchronous one, before it is handed to a reader */ \
	X(chunk_not_covered)		/* readers trust the news of the relation cache */ \
	/* and to make rare things frequent */ \
	X(small_blocks)				/* few positions are reserved at once */ \
	X(small_key_sets)			/* few parked keys are kept from one fetch to the next */

typedef enum EsDebugName
{
#define ES_DEBUG_ENUM(name) ES_DEBUG_##name,
	ES_DEBUG_NAMES(ES_DEBUG_ENUM)
#undef ES_DEBUG_ENUM
	ES_DEBUG_COUNT
} EsDebugName;

extern EsPosition EsDebugKept;	/* what a breakage takes from one place to another */

extern void EsDebugInit(void);
extern bool EsDebugOn(EsDebugName name);
extern void EsDebugPause(EsDebugName name);

#define ES_DEBUG_INIT()			EsDebugInit()
#define ES_DEBUG_POINT(name)	EsDebugPause(ES_DEBUG_##name)

/* The statement may be a return or a break, of the function or the loop around it. */
#define ES_DEBUG_BREAK(name, statement) \
	if (EsDebugOn(ES_DEBUG_##name)) \
	{ \
		EsDebugPause(ES_DEBUG_##name); \
		statement; \
	} \
	else \
		((void) 0)

#else

#define ES_DEBUG_INIT()						((void) 0)
#define ES_DEBUG_POINT(name)				((void) 0)
#define ES_DEBUG_BREAK(name, statement)		((void) 0)

#endif							/* ES_DEBUG_POINTS */

#endif							/* ES_DEBUG_POINT_H */
