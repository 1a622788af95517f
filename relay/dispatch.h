/*
 * dispatch.h
 *		Between a source and a sink: who has which message, and what is confirmed.
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "log.h"
#include "relay.h"
#include "sink.h"
#include "source.h"
#include "waitset.h"

/*
 * One lane under one epoch: the messages that are not confirmed, and those
 * that are but stand behind one that is not, in position order.
 */
typedef struct DispatchLane
{
	int			lane;
	int64_t		epoch;
	RelayMessage *head;
	RelayMessage *tail;
	RelayMessage *unsent;		/* the first that the sink was not given, or NULL */
	int64_t		confirmed;		/* everything up to here is, or 0 */
} DispatchLane;

typedef enum DispatchStatus
{
	DISPATCH_WAIT,				/* sleep on what DispatchWait adds */
	DISPATCH_DONE,				/* all that was delivered is acknowledged */
	DISPATCH_FAILED				/* error says why */
} DispatchStatus;

typedef struct Dispatch
{
	Source	   *source;			/* both the caller's */
	Sink	   *sink;

	DispatchLane *lanes;		/* of the present batch */
	int			nlanes;
	int			lanes_size;

	/* The window: messages taken from the source and not confirmed. */
	size_t		window_bytes;
	int			window_messages;
	int			with_sink;		/* of these, how many the sink owes an outcome */

	bool		batch_ended;	/* the source waits for fetch() */
	bool		resetting;		/* the source will send everything again */
	bool		sink_full;		/* it refused one; poll may change that */
	bool		sink_failed;	/* only close() is left */

	/* After SINK_RETRY or SINK_DOWN: nothing is published until then. */
	bool		holding;
	int64_t		hold_until;		/* known once the sink owes nothing any more */
	Backoff		backoff;

	bool		stopping;
	bool		failing;		/* stopping because of error */
	int64_t		stop_by;

	uint64_t	delivered;		/* messages that the sink confirmed */
	LogError	error;
} Dispatch;

extern void DispatchInit(Dispatch *dispatch, Source *source, Sink *sink);
extern DispatchStatus DispatchRun(Dispatch *dispatch);
extern void DispatchWait(Dispatch *dispatch, WaitSet *set);
extern void DispatchStop(Dispatch *dispatch);

/* Closes the source and the sink too. */
extern void DispatchClose(Dispatch *dispatch);

#endif							/* DISPATCH_H */
