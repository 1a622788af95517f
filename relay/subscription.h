/*
 * subscription.h
 *		es_pg's side of a subscription: the statements that the relay sends, and
 *		the messages that come back.
 */
#ifndef SUBSCRIPTION_H
#define SUBSCRIPTION_H

#include "pg.h"
#include "relay.h"
#include "source.h"

typedef enum RequestKind
{
	REQUEST_SCHEMA,				/* which schema is es_pg in? */
	REQUEST_PROTOCOL,			/* is it an es_pg that we understand? */
	REQUEST_LISTEN,
	REQUEST_CREATE,
	REQUEST_ACK,
	REQUEST_NACK,
	REQUEST_FETCH,
	REQUEST_LOOK,				/* horizon and last position */
	REQUEST_RENEW,
	REQUEST_MAINTAIN,
	REQUEST_RELEASE,
	REQUEST_KINDS
} RequestKind;

typedef struct Request
{
	RequestKind kind;
	SourcePlace place;			/* of ACK and NACK */
} Request;

typedef struct Subscription
{
	const PipelineConfig *config;	/* the caller's */
	PgLink		link;

	char	   *sql[REQUEST_KINDS]; /* of the present connection */
	char	   *source_name;	/* of events that have none of their own */

	/* What was sent and is not answered in full, oldest first. */
	Request    *requests;
	int			nrequests;
	int			requests_size;
} Subscription;

extern void SubscriptionInit(Subscription *subscription, const PipelineConfig *config);
extern void SubscriptionFree(Subscription *subscription);

/* Before this, only REQUEST_SCHEMA can be sent.  false if libpq failed. */
extern bool SubscriptionUseSchema(Subscription *subscription, const char *schema);

/* Any request but ACK, NACK and FETCH, which have arguments of their own. */
extern void SubscriptionSend(Subscription *subscription, RequestKind kind);
extern void SubscriptionSendAck(Subscription *subscription, const SourcePlace *place);
/* A text of whatever bytes, for the database; the caller frees it. */
extern char *SubscriptionCleanText(const char *text, bool utf8);

extern void SubscriptionSendNack(Subscription *subscription, const SourcePlace *place,
								 const char *text, bool reject);
extern void SubscriptionSendFetch(Subscription *subscription, int max_count,
								  const SourcePlace *held, int nheld);

/* As PgReceive; request says whose answer it is.  One must be outstanding. */
extern PgStatus SubscriptionReceive(Subscription *subscription, Request *request,
									PGresult **result);

/* Closes a lost connection, and returns how long it will stay closed. */
extern int64_t SubscriptionDrop(Subscription *subscription);

/* A message of a row of REQUEST_FETCH, which it takes over. */
extern RelayMessage *SubscriptionMessage(Subscription *subscription, PGresult *row);
extern void SubscriptionFreeMessage(RelayMessage *message);

/* What an error says: its code ("" if the server gave none), and all for people. */
extern const char *SubscriptionSqlstate(const PGresult *result);
extern bool SubscriptionIsPermanent(const char *sqlstate);
extern void SubscriptionDescribe(const PGresult *result, LogError *error);

#endif							/* SUBSCRIPTION_H */
