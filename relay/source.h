/*
 * source.h
 *		Where messages come from.
 *
 * A source hands out messages in position order within each lane, and is told
 * up to where the sink has confirmed them, and which failed.  It never blocks:
 * what it has to wait for goes into the main loop's wait set.
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
	SOURCE_MESSAGE,				/* event->message is the caller's until it calls release */
	SOURCE_PARKED,				/* what nack() said is in the database: event has the
								 * message's place, and what was parked behind it */
	SOURCE_LANES,				/* the answer to renew(): event has the lanes that are
								 * the caller's; what it has of others is lost */
	SOURCE_LOST,				/* a lane's epoch is over: what the caller has of it is
								 * the affair of another */
	SOURCE_RESET,				/* so are all lanes: the connection is lost */
	SOURCE_WAIT,				/* nothing now: sleep on what wait() adds */
	SOURCE_END,					/* drained: finish() is due when all is confirmed */
	SOURCE_DONE,				/* finished, and all acknowledgements are in the database */
	SOURCE_FAILED				/* error says why; only close() may follow */
} SourceStatus;

/* A place in a lane. */
typedef struct SourcePlace
{
	int			lane;
	int64_t		epoch;
	int64_t		position;
} SourcePlace;

/* What next() has to say beside its status. */
typedef struct SourceEvent
{
	RelayMessage *message;
	int			lane;
	int64_t		epoch;
	int64_t		position;
	const int64_t *behind;		/* rising; valid until the next call */
	int			nbehind;
	const SourcePlace *lanes;	/* likewise; without positions */
	int			nlanes;
} SourceEvent;

/* A private struct embeds this first. */
typedef struct Source
{
	const struct SourceMethods *methods;

	/*
	 * Set by the caller after open(), and called from next().  How many
	 * messages it has room for, 0 for none now; and the lanes of which it has
	 * messages that are not acknowledged, with the highest position of each,
	 * valid until the next call: what comes is what comes behind those.
	 */
	int			(*demand) (void *context, const SourcePlace **held, int *nheld);
	void	   *context;

	LogError	error;			/* filled before SOURCE_FAILED */
} Source;

typedef struct SourceMethods
{
	const char *name;

	/* Makes the source, and connects to nothing yet.  Cannot fail. */
	Source	   *(*open) (const PipelineConfig *config, bool once);

	/* The next message, or why there is none.  Never blocks. */
	SourceStatus (*next) (Source *source, SourceEvent *event);

	/* Frees a message.  Cannot fail. */
	void		(*release) (Source *source, RelayMessage *message);

	/*
	 * Everything of a lane that was handed out up to a position is done with:
	 * sends that to the database.  Cannot fail: an epoch that is over and a
	 * connection that is lost show in next().
	 */
	void		(*ack) (Source *source, const SourcePlace *place);

	/*
	 * A message failed, for good if reject.  Cannot fail, as above; SOURCE_PARKED
	 * is the answer, and before that no later position of the lane may be
	 * acknowledged.
	 */
	void		(*nack) (Source *source, const SourcePlace *place, const char *text, bool reject);

	/*
	 * A sign of life, for a caller that neither fetches nor acknowledges.
	 * Cannot fail; SOURCE_LANES is the answer.
	 */
	void		(*renew) (Source *source);

	/*
	 * Nothing more is wanted.  What was sent is answered, the lanes are handed
	 * over, and next() returns SOURCE_DONE.  May be called at any time, once;
	 * what next() still yields is to be released.
	 */
	void		(*finish) (Source *source);

	/* Adds what next() waits for. */
	void		(*wait) (Source *source, WaitSet *set);

	/* Frees the source; messages that it handed out must be released before. */
	void		(*close) (Source *source);
} SourceMethods;

extern const SourceMethods PollSource;

#endif							/* SOURCE_H */
