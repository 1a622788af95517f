/*
 * sink.h
 *		Where messages go.
 *
 * To add a sink: write sinks/<name>.c with a SinkMethods, declare that below,
 * and add it to the table in sink.c.  A file's private struct embeds Sink
 * first; its settings are fields of RelayConfig, in a member of its own.
 */
#ifndef SINK_H
#define SINK_H

#include <sys/types.h>

#include "config.h"
#include "log.h"
#include "relay.h"
#include "waitset.h"

/* What became of one message.  Three ways to fail, for three remedies. */
typedef enum SinkOutcome
{
	SINK_OK,					/* the far side has confirmed it */
	SINK_RETRY,					/* this message failed, and may succeed later */
	SINK_REJECT,				/* this message can never succeed */
	SINK_DOWN					/* the far side cannot be reached: no message's fault */
} SinkOutcome;

/* What became of a call. */
typedef enum SinkStatus
{
	SINK_READY,					/* done */
	SINK_FULL,					/* publish only: not taken, and wait() has something to
								 * wait for before it is worth another try */
	SINK_FAILED					/* this sink can do nothing more in this process: error
								 * says why, no further outcome will be reported, and
								 * only close() may follow */
} SinkStatus;

/* A private struct embeds this first. */
typedef struct Sink
{
	const struct SinkMethods *methods;

	/*
	 * Set by the caller after open().  The sink calls it exactly once for each
	 * message that publish took, from within publish, poll or flush; text says
	 * why unless the outcome is SINK_OK.  The message is not the sink's any
	 * more when it returns.
	 */
	void		(*report) (void *context, RelayMessage *message,
						   SinkOutcome outcome, const char *text);
	void	   *context;

	LogError	error;			/* filled before SINK_FAILED */
} Sink;

/*
 * Order is the sink's to keep: messages of one key are handed over in their
 * order, and when one of them fails, none that was handed over after it may be
 * confirmed.
 */
typedef struct SinkMethods
{
	/* As `[sink] type` says it; the section of the sink's own settings. */
	const char *name;

	/* The sink's own settings, ended by a NULL section. */
	const ConfigOption *options;

	/* Makes the sink.  NULL if that is impossible, with the reason in error. */
	Sink	   *(*open) (const RelayConfig *config, LogError *error);

	/*
	 * Takes a message, which stays valid until its outcome is reported.  May
	 * hold it back for a better batch until flush.  Never blocks.
	 */
	SinkStatus	(*publish) (Sink *sink, RelayMessage *message);

	/*
	 * Called whenever the main loop wakes: sends on what can be sent, reports
	 * what is known.  Never blocks.
	 */
	SinkStatus	(*poll) (Sink *sink);

	/*
	 * Nothing more will come for now: sends what was held back, as far as that
	 * is possible without blocking; poll does the rest.
	 */
	SinkStatus	(*flush) (Sink *sink);

	/* Adds what poll waits for.  Cannot fail. */
	void		(*wait) (Sink *sink, WaitSet *set);

	/* Frees the sink.  Messages that it still has get no outcome. */
	void		(*close) (Sink *sink);
} SinkMethods;

extern const SinkMethods StdoutSink;
extern ssize_t (*StdoutWrite) (int fd, const void *data, size_t len);	/* for tests */

extern const SinkMethods *SinkAt(int n);
extern const SinkMethods *SinkFind(const char *name);

#endif							/* SINK_H */
