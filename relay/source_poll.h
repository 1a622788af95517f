/*
 * source_poll.h
 *		A subscription that is read by es_fetch: what its two files share.
 */
#ifndef SOURCE_POLL_H
#define SOURCE_POLL_H

#include "source.h"
#include "subscription.h"

/* Not for the caller: the state has changed, look again. */
#define SOURCE_AGAIN	((SourceStatus) -1)

typedef enum ReaderState
{
	READER_CONNECTING,			/* or waiting for the next attempt */
	READER_ROUND,				/* answers of a round, or of the start, are due */
	READER_READY,				/* to fetch, when the caller has room */
	READER_SLEEPING,			/* nothing to deliver */
	READER_DRAINED,				/* --once: nothing more will come */
	READER_FINISHING,			/* only answers are due */
	READER_DONE
} ReaderState;

/* The log at a moment; -1 before the first look. */
typedef struct Look
{
	int64_t		horizon;
	int64_t		last;
} Look;

typedef struct Reader
{
	Source		base;
	const PipelineConfig *config;	/* the caller's */
	bool		once;			/* drain what is there, then leave */
	Subscription subscription;
	ReaderState state;
	bool		was_connected;	/* ever */
	bool		existed;		/* the subscription, ever */
	bool		missing;		/* it does not exist: create it */
	bool		created;		/* or tried to */
	int			owed;			/* acknowledgements and failures without an answer */
	int			nround;			/* requests of the round without one */

	/* The present round, or the last. */
	bool		fetched;		/* it has an es_fetch */
	int			asked;			/* rows it may bring */
	int			rows;			/* those it brought */
	int			held;			/* lanes of which the caller had something */
	Look		before;			/* the newest look when it was sent */
	Look		look;			/* the newest */
	int64_t		lowest;			/* position that it brought */
	int64_t		covered;		/* fetched is everything up to here, at least */

	/* Sleeping. */
	int64_t		wake_at;
	int64_t		pause;			/* the next one; 0 until there is need for one */
	bool		wake_to_fetch;	/* not only to look */
	bool		deaf;			/* a notification is no reason to wake */
	bool		notified;		/* since the last round was sent */
	bool		more;			/* by our own fetch: it could only park, and there is more */

	/* Messages were parked, and may wait for the caller to have nothing of their lane. */
	bool		parked;
	bool		acked;			/* since the last round was sent */

	int64_t		fetched_at;
	int64_t		maintain_at;
	int64_t		once_until;		/* --once: how far to deliver, or -1 */

	int64_t    *behind;			/* of the last SOURCE_PARKED */
	int			behind_size;
	SourcePlace *lanes;			/* of the last SOURCE_LANES */
	int			lanes_size;
} Reader;

/* source_answer.c: what the database says. */

/* The next of what is there.  SOURCE_WAIT if that is nothing. */
extern SourceStatus PollReceive(Reader *reader, SourceEvent *event);

/* Drops the connection and plans the next, or ends the source. */
extern SourceStatus PollReconnect(Reader *reader, const char *why);

/* A request that belongs to the round. */
extern void PollSend(Reader *reader, RequestKind kind);

/* Whether the last fetch brought so much that there is more. */
extern bool PollIsFull(const Reader *reader);

#endif							/* SOURCE_POLL_H */
