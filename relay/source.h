/*
 * source.h
 *		Where messages come from.
 *
 * A source hands out messages in position order within each lane, and is told
 * up to where the sink has confirmed them.  It never blocks: what it has to
 * wait for goes into the main loop's wait set.
 *
 * The database's cursor is the only truth about progress.  A source that loses
 * its connection forgets what it was told and did not pass on, and starts again
 * from the cursor: messages may come again, with the same ids, but none is
 * skipped.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include "log.h"
#include "relay.h"
#include "waitset.h"

typedef enum SourceStatus
{
	SOURCE_MESSAGE,				/* *message is the caller's until it calls release */
	SOURCE_WAIT,				/* nothing now: sleep on what wait() adds */
	SOURCE_BATCH_END,			/* nothing more before the next fetch() */
	SOURCE_RESET,				/* what is not acknowledged will come again; the caller
								 * releases all it has before the next call */
	SOURCE_DONE,				/* finished, and all acknowledgements are in the database */
	SOURCE_FAILED				/* error says why; only close() may follow */
} SourceStatus;

/* A private struct embeds this first. */
typedef struct Source
{
	const struct SourceMethods *methods;
	LogError	error;			/* filled before SOURCE_FAILED */
} Source;

typedef struct SourceMethods
{
	const char *name;

	/* Makes the source, and connects to nothing yet.  Cannot fail. */
	Source	   *(*open) (const PipelineConfig *config, bool once);

	/* The next message, or why there is none.  Never blocks. */
	SourceStatus (*next) (Source *source, RelayMessage **message);

	/* Frees a message.  Cannot fail. */
	void		(*release) (Source *source, RelayMessage *message);

	/*
	 * Notes that everything of a lane up to a position was confirmed.  It goes
	 * to the database with the next fetch().  Cannot fail: an epoch that is
	 * over is the new owner's affair and only logged, and a lost connection
	 * shows in next().
	 */
	void		(*ack) (Source *source, int lane, int64_t epoch, int64_t position);

	/*
	 * After SOURCE_BATCH_END: sends the acknowledgements, and asks for the
	 * next batch.  Cannot fail, as above.
	 */
	void		(*fetch) (Source *source);

	/*
	 * No further batch is wanted.  The one that is being handed out goes on to
	 * its end; after its acknowledgement, or at once if there is none, next()
	 * returns SOURCE_DONE.  May be called at any time, and again.
	 */
	void		(*finish) (Source *source);

	/* Adds what next() waits for. */
	void		(*wait) (Source *source, WaitSet *set);

	/* Frees the source; messages that it handed out must be released before. */
	void		(*close) (Source *source);
} SourceMethods;

extern const SourceMethods PollSource;

#endif							/* SOURCE_H */
