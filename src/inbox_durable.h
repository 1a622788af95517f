/*
 * inbox_durable.h
 *		Durable inboxes: messages that are stored first and handled later.
 *
 *		inbox_put.c			es_inbox_put and its batch
 *		inbox_envelope.c	a message's own id, topic and sequence, among its headers
 *		inbox_resequence.c	messages that wait for earlier ones of their key
 *		inbox_run.c			es_inbox_run
 *		inbox_handler.c		one message's handler, in a subtransaction
 */
#ifndef ES_INBOX_DURABLE_H
#define ES_INBOX_DURABLE_H

#include "es_pg.h"

#include "executor/spi.h"
#include "utils/jsonb.h"

#include "inbox.h"
#include "outbox.h"

/* A row of es_inboxes, in the caller's memory. */
typedef struct EsInbox
{
	int64		consumer;
	text	   *name;			/* of its topic and of its subscription */
	int64		handler_usecs;
	bool		resequences;	/* waits for a limited time for what is missing */
} EsInbox;

/* What of a message travels among its headers. */
typedef struct EsEnvelope
{
	const text *message_id;
	const text *topic;
	bool		numbered;
	int64		sequence;
	char	   *missing;		/* earlier sequences, passed over: it is to become a dead letter; or NULL */
	Jsonb	   *headers;		/* its own; NULL: none */
} EsEnvelope;

/* inbox_put.c */
extern void EsInboxFind(const text *consumer, EsInbox *inbox);

/* inbox_envelope.c */
extern void EsEnvelopeCheck(const EsMessages *messages);
extern Jsonb *EsEnvelopeSeal(const EsEnvelope *envelope);
extern void EsEnvelopeOpen(Jsonb *headers, EsEnvelope *envelope);

/* inbox_resequence.c */
extern bool EsResequence(const EsInbox *inbox, const EsMessages *message, int64 sequence);
extern bool EsResequenceOverdue(const EsInbox *inbox);

/* A handler, ready to be called. */
typedef struct EsHandler
{
	SPIPlanPtr	plan;			/* SELECT handler($1) */
	int64		usecs;			/* that it may take */
	TimestampTz statement_end;	/* when statement_timeout strikes */
	char	   *defer;			/* statements that give constraints their initial modes; NULL: none can be deferred */
} EsHandler;

/* inbox_handler.c */
extern void EsHandlerBegin(EsHandler *handler, Oid function, int64 usecs);
extern char *EsHandlerCall(const EsHandler *handler, Datum message);
extern TupleDesc EsInboxMessageDesc(void);

#endif							/* ES_INBOX_DURABLE_H */
