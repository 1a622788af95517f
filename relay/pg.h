/*
 * pg.h
 *		One connection to PostgreSQL that never blocks and comes back.
 *
 * Requests are pipelined: each is a statement with its own Sync behind it, so
 * each is its own transaction and fails alone, and several cost one round
 * trip.  Answers come in the order of the requests.
 */
#ifndef PG_H
#define PG_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "log.h"
#include "waitset.h"

typedef enum PgStatus
{
	PG_WAIT,					/* nothing yet: sleep on what PgWait adds */
	PG_READY,					/* PgConnect: the connection is there */
	PG_RESULT,					/* PgReceive: *result is the caller's, for PgFree */
	PG_END,						/* PgReceive: the request is answered in full */
	PG_LOST						/* the connection is gone, error says why: PgDrop is due */
} PgStatus;

typedef struct PgLink
{
	const char *conninfo;		/* the caller's */
	PGconn	   *conn;			/* NULL between attempts */
	bool		ready;			/* connected, and in pipeline mode */
	int			outstanding;	/* requests that are not answered in full */
	bool		unsent;			/* libpq refused one: the connection is of no use */
	bool		fresh;			/* nothing of the oldest one's answer was looked at */
	short		events;			/* what libpq waits for while connecting */
	const char *host;			/* libpq's pointer to the host it tries now */
	int64_t		patience;		/* how long a host may take to answer */
	int64_t		host_until;		/* when the present one's time is over */
	int64_t		retry_at;		/* not before this is the next attempt */
	Backoff		backoff;		/* to be reset by the caller when all is well */
	LogError	error;
} PgLink;

extern bool PgCheckConninfo(const char *conninfo, LogError *error);

extern void PgInit(PgLink *link, const char *conninfo);
extern PgStatus PgConnect(PgLink *link);
extern void PgSend(PgLink *link, const char *sql, int nparams, const char *const *params);
extern PgStatus PgReceive(PgLink *link, bool row_by_row, PGresult **result);
extern PgStatus PgNotified(PgLink *link, bool *notified, bool *by_us);
extern void PgWait(PgLink *link, WaitSet *set);
extern int64_t PgDrop(PgLink *link);
extern void PgClose(PgLink *link);

extern void PgFree(PGresult *result);

#endif							/* PG_H */
