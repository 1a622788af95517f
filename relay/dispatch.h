/*
 * dispatch.h
 *		Between a source and a sink: who has which message, and what is confirmed.
 *
 * dispatch.c				the main loop's side: one round, stopping, waiting
 * dispatch_window.c		lanes and what is in them, losing lanes
 * dispatch_publish.c		giving messages to the sink: pauses, splitting
 * dispatch_outcome.c		what the sink reports
 * dispatch_checkpoint.c	acknowledging
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "log.h"
#include "relay.h"
#include "sink.h"
#include "source.h"
#include "waitset.h"

typedef enum ItemState
{
	ITEM_WAITING,				/* the sink does not have it */
	ITEM_WITH_SINK,				/* the sink has it and owes an outcome */
	ITEM_FAILED,				/* the database is told, and has not answered */
	ITEM_DONE					/* confirmed, or parked in the database */
} ItemState;

/* A message's place in its lane.  It stays until all before it are done, too. */
typedef struct DispatchItem
{
	struct DispatchItem *next;	/* of its lane */
	struct DispatchItem *next_failed;	/* of its lane's, in no order */
	struct DispatchLane *lane;
	RelayMessage *message;		/* NULL once it is needed no more */
	int64_t		position;
	ItemState	state;
	bool		doomed;			/* with the sink, and parked behind one that failed */
	bool		suspect;		/* refused in a unit, and not alone */
	RelayText	key;			/* the message's; a copy once FAILED */
	uint64_t	key_hash;
} DispatchItem;

/* One lane under one epoch, in position order. */
typedef struct DispatchLane
{
	struct DispatchLane *next;	/* of the dispatch */
	int			lane;
	int64_t		epoch;
	bool		lost;			/* only what the sink has is left, and nobody's concern */

	DispatchItem *head;
	DispatchItem *tail;
	DispatchItem *unsent;		/* the first that may have to be given to the sink */
	DispatchItem *failed;
	int			with_sink;		/* how many the sink owes an outcome */
	bool		again;			/* when that is none: some have to be given again */

	int64_t		newest;			/* highest position that came */
	int64_t		confirmed;		/* everything that was handed out up to here is done */
	bool		dirty;			/* the source was not told of that */

	/*
	 * After SINK_DOWN: nothing is published until then, and after that a single
	 * message until one is confirmed.
	 */
	bool		down;
	bool		holding;
	int64_t		hold_until;		/* known once the sink owes nothing of the lane */
	Backoff		backoff;
} DispatchLane;

typedef enum DispatchStatus
{
	DISPATCH_WAIT,				/* sleep on what DispatchWait adds */
	DISPATCH_DONE,				/* all that was confirmed is acknowledged */
	DISPATCH_FAILED				/* error says why */
} DispatchStatus;

/* What became of messages. */
typedef struct DispatchCounts
{
	uint64_t	delivered;		/* confirmed by the sink */
	uint64_t	retried;		/* RETRY, REJECT: es_nack */
	uint64_t	rejected;
	uint64_t	downs;			/* DOWN: given again */
	uint64_t	in_vain;		/* confirmed, but of a lost lane or parked: will come again */
} DispatchCounts;

typedef struct Dispatch
{
	const PipelineConfig *config;	/* all three the caller's */
	Source	   *source;
	Sink	   *sink;

	DispatchLane *lanes;		/* in no order that matters */
	SourcePlace *places;		/* room for one a lane */
	int			places_size;

	/* The window. */
	size_t		bytes;			/* of messages that are in memory */
	int			nitems;			/* of lanes that are not lost */
	int			with_sink;		/* how many the sink owes an outcome, lost lanes too */
	size_t		mean_size;		/* of a message, lately */

	bool		progress;		/* something happened since this was last cleared */
	bool		sink_full;		/* it refused one; poll may change that */
	bool		sink_failed;	/* only close() is left */

	/* Finding the poison of a unit. */
	int			nsuspects;
	int			unit;			/* how many to give between flushes */
	int			unit_left;		/* of the present one */
	bool		unit_given;		/* ... some were given */
	int			unit_refused;	/* SPLIT since the last unit was begun */

	int			turn;			/* the number of the lane to begin with */
	int			ndown;			/* lanes whose last outcome was DOWN */
	int64_t		acked_at;		/* the last checkpoint */
	int64_t		alive_at;		/* that, or the first message of a window */
	bool		down_logged;	/* and not that it is back */
	int64_t		down_at;		/* when that was logged last */
	int64_t		logged_at;		/* the last failure that was logged */
	uint64_t	unlogged;		/* failures since */

	bool		hurry;			/* there is more to do at once */
	bool		ended;			/* the source has no more */
	bool		stopping;
	bool		failing;		/* stopping because of error */
	bool		finishing;		/* the source was told */
	int64_t		stop_by;

	DispatchCounts counts;
	LogError	error;
} Dispatch;

extern void DispatchInit(Dispatch *dispatch, const PipelineConfig *config, Source *source, Sink *sink);
extern DispatchStatus DispatchRun(Dispatch *dispatch);
extern void DispatchWait(Dispatch *dispatch, WaitSet *set);
extern void DispatchStop(Dispatch *dispatch);

/* Closes the source and the sink too. */
extern void DispatchClose(Dispatch *dispatch);

/* ------------------------------------------------ between the files of the dispatcher */

/* dispatch.c */
extern void DispatchFail(Dispatch *dispatch, const char *text);

/* dispatch_window.c */
extern void WindowTake(Dispatch *dispatch, RelayMessage *message);
extern DispatchLane *WindowFind(Dispatch *dispatch, int lane, int64_t epoch);
extern void WindowItemDone(Dispatch *dispatch, DispatchItem *item);
extern void WindowItemForget(Dispatch *dispatch, DispatchItem *item);
extern void WindowAdvance(Dispatch *dispatch, DispatchLane *lane);
extern void WindowParked(Dispatch *dispatch, const SourceEvent *event);
extern void WindowReported(Dispatch *dispatch, DispatchItem *item);
extern bool WindowSameKey(const DispatchItem *one, const DispatchItem *other);
extern void WindowLose(Dispatch *dispatch, DispatchLane *lane);
extern void WindowLoseAll(Dispatch *dispatch);
extern void WindowKeep(Dispatch *dispatch, const SourceEvent *event);
extern void WindowFree(Dispatch *dispatch);
extern int	WindowDemand(void *context, const SourcePlace **held, int *nheld);

/* dispatch_publish.c */
extern void PublishAll(Dispatch *dispatch);
extern void PublishFlush(Dispatch *dispatch);
extern void PublishDrive(Dispatch *dispatch, SinkStatus (*call) (Sink *sink));
extern void PublishDown(Dispatch *dispatch, DispatchLane *lane);
extern void PublishUp(Dispatch *dispatch, DispatchLane *lane);
extern void PublishSettled(DispatchLane *lane);
extern void PublishSuspect(Dispatch *dispatch, DispatchItem *item, bool suspect);
extern void PublishWait(const Dispatch *dispatch, WaitSet *set);

/* dispatch_outcome.c */
extern void OutcomeReport(void *context, RelayMessage *message, SinkOutcome outcome, const char *text);
extern void OutcomeLog(Dispatch *dispatch, const RelayMessage *message, const char *what, const char *text);

/* dispatch_checkpoint.c */
extern void CheckpointRun(Dispatch *dispatch, bool now);
extern void CheckpointWait(const Dispatch *dispatch, WaitSet *set);
extern bool CheckpointPending(const Dispatch *dispatch);

#endif							/* DISPATCH_H */
