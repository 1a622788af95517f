/*
 * sink.h
 *		Where messages go.
 *
 * To add a sink: write sinks/<name>.c with a SinkMethods, declare that below,
 * and add it to the table in sink.c.  A file's private struct embeds Sink
 * first; its settings are a struct of its own (config.h has the table's types).
 * What a sink sends is made with template.h (names of topics and the like),
 * event.h (body and headers) and cloudevents.h.
 */
#ifndef SINK_H
#define SINK_H

#include <sys/types.h>

#include "config.h"
#include "log.h"
#include "relay.h"
#include "waitset.h"

/* What became of one message.  Each way to fail has its remedy. */
typedef enum SinkOutcome
{
	SINK_OK,					/* the far side has confirmed it */
	SINK_RETRY,					/* this message failed, and may succeed later: an
								 * attempt is counted, its key waits, others go on */
	SINK_REJECT,				/* this message can never succeed: a dead letter */
	SINK_DOWN,					/* the far side cannot be reached, no message's fault:
								 * the lane waits, and gives it again */
	SINK_SPLIT					/* it was refused together with others, and whose fault
								 * it is is not known: they are given again, in
								 * smaller units; never for a unit of one */
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
	 * message that publish took; text says why unless the outcome is SINK_OK,
	 * and need not outlive the call.  The message is not the sink's any more
	 * when it returns.
	 */
	void		(*report) (void *context, RelayMessage *message,
						   SinkOutcome outcome, const char *text);
	void	   *context;

	LogError	error;			/* filled before SINK_FAILED */
} Sink;

/*
 * The contract.
 *
 * One outcome.  Each message that publish took gets exactly one, reported from
 * within publish, poll or flush (not from revoke), sooner or later: only
 * close() may come before.  A far side that never answers is the sink's own
 * time limit, and then DOWN.
 *
 * Order.  Messages of one key are handed over in their order.  When one of them
 * fails (any outcome but OK), none of that key that was handed over after it
 * may be confirmed before it was given again: those that the sink has must fail
 * too, with DOWN if there is nothing else to say of them.  A sink whose far
 * side can confirm a later one nevertheless has at most one message of a key
 * on its way at a time.  Messages without a key have no order.  The outcomes of
 * different keys may be reported in any order.
 *
 * Units.  A sink that sends several messages as one unit, which the far side
 * takes or refuses as a whole, closes the unit at flush at the latest, so that
 * the dispatcher can bound its size.  When a unit is refused for what is in it,
 * all its messages are reported as SPLIT; the dispatcher gives them again, with
 * a flush after every half as many and a wait for their outcomes, and so finds
 * the one that is to blame in a logarithm of tries.  A unit of one that is
 * refused is RETRY or REJECT.
 *
 * Several sinks of one type may be open at a time, one a pipeline, all in one
 * thread.
 */
typedef struct SinkMethods
{
	/* As `type` in `[sink]` says it. */
	const char *name;

	/*
	 * The sink's own settings, keys of its `[sink]` section beside `type`;
	 * their fields are offsets in a struct of the sink's own, settings_size
	 * large, which belongs to the configuration and outlives the sink.
	 */
	const ConfigOption *options;
	size_t		settings_size;

	/* Optional: what the table cannot say about the settings; false with the reason. */
	bool		(*check) (const void *settings, LogError *error);

	/*
	 * Makes the sink.  NULL if that is impossible, with the reason in error.
	 * A far side that cannot be reached is no reason: that is SINK_DOWN, later.
	 */
	Sink	   *(*open) (const void *settings, const PipelineConfig *pipeline, LogError *error);

	/*
	 * Takes a message, which stays valid until its outcome is reported.  May
	 * hold it back for a better unit until flush.  Never blocks.
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

	/*
	 * Optional.  A lane was lost under this epoch: what the sink has of it and
	 * has not sent is better not sent.  Each message still gets its outcome, in
	 * the next poll or later: DOWN for what was not sent.  Cannot fail.
	 */
	void		(*revoke) (Sink *sink, int lane, int64_t epoch);

	/* Adds what poll waits for.  Cannot fail. */
	void		(*wait) (Sink *sink, WaitSet *set);

	/* Frees the sink.  Messages that it still has get no outcome. */
	void		(*close) (Sink *sink);
} SinkMethods;

extern const SinkMethods ExecSink;
extern const SinkMethods FileSink;
extern const SinkMethods KafkaSink;
extern const SinkMethods StdoutSink;
extern ssize_t (*StdoutWrite) (int fd, const void *data, size_t len);	/* for tests */

extern const SinkMethods *SinkAt(int n);
extern const SinkMethods *SinkFind(const char *name);

#endif							/* SINK_H */
