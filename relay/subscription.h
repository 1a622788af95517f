/*
 * subscription.h
 *		es_pg's side of a subscription: the statements that the relay sends, and
 *		the messages that come back.
 */
#ifndef SUBSCRIPTION_H
#define SUBSCRIPTION_H

#include "pg.h"
#include "relay.h"

typedef enum RequestKind
{
	REQUEST_SCHEMA,				/* which schema is es_pg in? */
	REQUEST_LISTEN,
	REQUEST_CREATE,
	REQUEST_ACK,
	REQUEST_FETCH,
	REQUEST_LOOK,				/* horizon and last position */
	REQUEST_MAINTAIN,
	REQUEST_KINDS
} RequestKind;

typedef struct Subscription
{
	const PipelineConfig *config;	/* the caller's */
	PgLink		link;

	/* Of the present connection: the statements, the events' default source. */
	char	   *sql[REQUEST_KINDS];
	char	   *source_name;

	/* What was sent and is not answered in full, oldest first. */
	RequestKind *requests;
	int			nrequests;
	int			requests_size;
} Subscription;

extern void SubscriptionInit(Subscription *subscription, const PipelineConfig *config);
extern void SubscriptionFree(Subscription *subscription);

/* Before this, only REQUEST_SCHEMA can be sent.  false if libpq failed. */
extern bool SubscriptionUseSchema(Subscription *subscription, const char *schema);

extern void SubscriptionSend(Subscription *subscription, RequestKind kind);
extern void SubscriptionSendAck(Subscription *subscription, int lane,
								int64_t epoch, int64_t position);

/* As PgReceive; kind says whose answer it is.  A request must be outstanding. */
extern PgStatus SubscriptionReceive(Subscription *subscription, RequestKind *kind,
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
