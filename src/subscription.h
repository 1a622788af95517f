/*
 * subscription.h
 *		Subscriptions: what their parts share.
 *
 *		subscription.c			a subscription's row, statements as the owner
 *		subscription_cursor.c	where its lanes are: rows of es_cursors
 *		subscription_member.c	who is alive, and what a lane was handed (shared memory)
 *		subscription_lease.c	who has which lane: rows of es_leases, epochs, es_renew, es_release
 *		subscription_fetch.c	es_fetch
 *		subscription_held.c		fetching ahead of what is not acknowledged
 *		subscription_delivery.c	messages as rows of es_delivery
 *		subscription_ack.c		es_ack
 *		subscription_parked.c	parked keys: knowing them, parking behind them
 *		subscription_due.c		handing out parked messages that are due
 *		subscription_nack.c		es_nack
 *		subscription_here.c		what this transaction has done in lanes
 *		subscription_lag.c		how far behind
 */
#ifndef ES_SUBSCRIPTION_H
#define ES_SUBSCRIPTION_H

#include "es_pg.h"

#include "access/genam.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "utils/jsonpath.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "stream.h"

/* Columns of es_delivery, from 0. */
enum
{
	DELIVERY_LANE,
	DELIVERY_EPOCH,
	DELIVERY_INCARNATION,
	DELIVERY_POSITION,
	DELIVERY_TOPIC,
	DELIVERY_KEY,
	DELIVERY_VERSION,
	DELIVERY_MESSAGE_ID,
	DELIVERY_TYPE,
	DELIVERY_SCHEMA_VERSION,
	DELIVERY_SOURCE,
	DELIVERY_PAYLOAD,
	DELIVERY_HEADERS,
	DELIVERY_CORRELATION_ID,
	DELIVERY_CAUSATION_ID,
	DELIVERY_TRACEPARENT,
	DELIVERY_OCCURRED_AT,
	DELIVERY_RECORDED_AT,
	DELIVERY_PAYLOAD_BINARY,
	DELIVERY_CONTENT_TYPE,
	DELIVERY_ATTEMPT
};

#define Natts_es_delivery	(DELIVERY_ATTEMPT + 1)

/* Columns of es_parked; from incarnation to content_type they are es_delivery's. */
enum
{
	Anum_es_parked_subscription_id = 1,
	Anum_es_parked_position,
	Anum_es_parked_lane,
	Anum_es_parked_key_hash,
	Anum_es_parked_attempts,
	Anum_es_parked_next_attempt_at,
	Anum_es_parked_entered,
	Anum_es_parked_delivered_epoch,
	Anum_es_parked_dead,
	Anum_es_parked_parked_at,
	Anum_es_parked_failed_at,
	Anum_es_parked_error,
	Anum_es_parked_incarnation,
	Anum_es_parked_topic,
	Anum_es_parked_key,
	Anum_es_parked_version,
	Anum_es_parked_message_id,
	Anum_es_parked_type,
	Anum_es_parked_schema_version,
	Anum_es_parked_source,
	Anum_es_parked_payload,
	Anum_es_parked_headers,
	Anum_es_parked_correlation_id,
	Anum_es_parked_causation_id,
	Anum_es_parked_traceparent,
	Anum_es_parked_occurred_at,
	Anum_es_parked_recorded_at,
	Anum_es_parked_payload_binary,
	Anum_es_parked_content_type
};

#define Natts_es_parked		Anum_es_parked_content_type

/* A message, as a row of es_delivery. */
typedef struct EsDelivered
{
	Datum		values[Natts_es_delivery];
	bool		nulls[Natts_es_delivery];
} EsDelivered;

typedef enum EsSubscriptionState
{
	ES_SUBSCRIPTION_ACTIVE,
	ES_SUBSCRIPTION_PAUSED,
	ES_SUBSCRIPTION_SUSPENDED
} EsSubscriptionState;

/* A row of es_subscriptions, in the caller's memory. */
typedef struct EsSubscription
{
	int32		id;
	text	   *name;
	EsChunkKind source;
	EsFilter	filter;
	int			ntopics;
	text	  **topics;
	JsonPath   *where;			/* NULL: everything */
	int			lanes;
	bool		draining;		/* fetch nothing after drain_to */
	EsPosition	drain_to;
	EsSubscriptionState state;
	char	   *reason;			/* of a suspension, or NULL */
	int64		lease_usecs;
	int			max_attempts;
	int64		retry_base_usecs;
	int64		retry_max_usecs;
	bool		skip_dead;		/* a dead letter does not block its key */
} EsSubscription;

/* A lane that this fetch serves. */
typedef struct EsLane
{
	int32		number;
	int64		epoch;
	EsPosition	cursor;
	EsPosition	from;			/* the scan begins behind this: nothing is left before */
	bool		locked;			/* its lease, by this transaction, and the epoch is right */
	bool		slow;			/* what it was handed is not acknowledged */
	bool		parked;			/* some of its keys are parked */
	TimestampTz due;			/* when the first of those was or will be due */
	bool		held;			/* the consumer still has messages of it */
	bool		exhausted;		/* and gets no more of it in this fetch */
	TimestampTz moved;			/* when its cursor was last moved for want of messages */

	/* This fetch's own. */
	int			group;			/* lanes that are scanned together */
	bool		stopped;		/* nothing more of it can be handed out now */
	bool		passing;		/* parked messages of it were passed */
	EsPosition	handed;			/* the highest position handed out; 0: none */
	EsPosition	looked;			/* up to here all was looked at and may be acknowledged */
	EsPosition	scanned;		/* and so far was looked, to park what is to be parked */
	EsPosition	left;			/* the first position handed out or left for later; 0: none */
} EsLane;

/* What a consumer says it still has: n lanes, and the highest position of each. */
typedef struct EsHeld
{
	int			n;
	const int32 *lanes;
	const int64 *epochs;
	const int64 *positions;
} EsHeld;

/* A live member, as a fetch sees it. */
typedef struct EsPeer
{
	uint64		hash[2];
	int			lanes;			/* that it holds */
} EsPeer;

typedef struct EsPeers
{
	int			n;
	int			room;
	int			me;				/* index */
	EsPeer	   *peers;
	TimestampTz next_end;		/* when the first of the others ends */
	TimestampTz known_after;	/* until then who is not known may be alive */
} EsPeers;

/* subscription.c */
extern text *EsArgSubscription(FunctionCallInfo fcinfo);
extern void EsSubscriptionRead(const text *name, Snapshot snapshot, EsSubscription *subscription);
extern uint64 EsHashBytes(const char *data, int length, uint64 seed);
extern uint64 EsHashNumber(uint64 number);
extern int	EsLaneOf(uint64 hash, int lanes);
extern void EsWakeAtCommit(void);
extern void EsPassedAtCommit(void);

/* A statement of the owner's, with @ for the schema; its plan is kept. */
typedef struct EsStatement
{
	const char *sql;
	int			nargs;
	Oid			types[8];
	bool		newest;			/* it only reads, by the newest snapshot, whatever the isolation level */
	SPIPlanPtr	plan;
	Oid			schema;
} EsStatement;

extern uint64 EsStatementRun(EsStatement *statement, Datum *args, const char *nulls);

/* subscription_cursor.c */
extern EsPosition EsCursorRead(EsProbe *probe, int32 subscription, int32 lane, Snapshot snapshot);
extern EsPosition EsCursorNow(int32 subscription, int32 lane, bool *mine);
extern void EsCursorMove(int32 subscription, int32 lane, int64 epoch, EsPosition position);

/* subscription_member.c */
extern void EsMemberEnter(const EsSubscription *subscription, const text *consumer,
						  bool session_bound, EsPeers *peers);
extern bool EsMemberAtEnd(bool committed);
extern void EsMemberRenew(const EsSubscription *subscription, const text *consumer);
extern void EsMemberLeave(const EsSubscription *subscription, const text *consumer);
extern void EsMemberHash(const text *consumer, uint64 hash[2]);
extern void EsLaneNoteWrite(const EsSubscription *subscription, const EsLane *lane);
extern bool EsLaneNoteRead(int32 subscription, int32 lane, int64 epoch, EsLaneNote *copy);

/* subscription_lease.c */
extern List *EsLeasesServe(const EsSubscription *subscription, const text *consumer,
						   EsPeers *peers, bool *contested);
extern bool EsLeaseLock(int32 subscription, int32 lane, int64 epoch, LockWaitPolicy policy, text **owner);
extern void EsLeaseLockOrFail(const EsSubscription *subscription, int32 lane, int64 epoch);

/* subscription_here.c */

/* What this transaction has done in a lane. */
typedef struct EsLaneHere
{
	int64		epoch;
	bool		fetched;
	EsPosition	cursor;			/* when it first fetched from it */
	bool		parked;			/* messages behind others of their keys */
} EsLaneHere;

extern EsLaneHere *EsLaneHereGet(int64 epoch, bool make);
extern void EsLaneHereForget(void);

/* subscription_held.c */
extern EsHeld EsArgHeld(FunctionCallInfo fcinfo, int arg);
extern void EsLaneHold(EsLane *lane, const EsHeld *held, const EsLaneNote *note, EsPosition upto);
extern void EsLaneExhaust(EsLane *lane, EsPosition upto);

/* subscription_delivery.c */
extern uint64 EsRowKeyHash(EsChunkKind source, TupleTableSlot *slot);
extern bool EsSubscriptionWants(const EsSubscription *subscription, TupleTableSlot *slot,
								Snapshot snapshot, const text **stream);
extern bool EsSubscriptionWantsContent(const EsSubscription *subscription, TupleTableSlot *slot);
extern void EsDeliveryForm(const EsSubscription *subscription, TupleTableSlot *slot,
						   const text *stream, EsDelivered *delivered);

extern void EsDeliverySetLife(EsDelivered *delivered, const EsLives *lives);

/* subscription_parked.c */
typedef enum EsParkedVerdict
{
	ES_PARKED_FREE,				/* not held up by anything */
	ES_PARKED_ITSELF,			/* it is parked already */
	ES_PARKED_JUST_NOW,			/* by this very transaction */
	ES_PARKED_BEHIND			/* one of its key is parked, so it must be */
} EsParkedVerdict;

extern bool EsParkedAny(int32 subscription, Snapshot snapshot);
extern void EsParkedMakeRoom(void);
extern bool EsParkedLoad(int32 subscription, int32 lane, int64 epoch, Snapshot snapshot);
extern bool EsParkedMaybe(int64 epoch, uint64 hash);
extern EsParkedVerdict EsParkedLook(const EsSubscription *subscription, uint64 hash,
									const EsDelivered *message, Snapshot snapshot);
extern AttrNumber EsParkedColumn(int column);
extern bool EsParkedBefore(int32 subscription, uint64 hash, const EsDelivered *message, bool dead);
extern IndexScanDesc EsParkedKeyScan(EsProbe *probe, int32 subscription, uint64 hash, bool dead, int64 below);
extern void EsParkedInsert(int32 subscription, const EsDelivered *message, uint64 hash,
						   bool delivered, int64 entered);
extern int64 EsParkedNumber(int32 subscription, int32 lane);
extern bool EsParkedDue(int32 subscription, int32 lane, Snapshot snapshot, TimestampTz *due);
extern void EsNackForbid(int32 subscription);
extern bool EsIsParked(int32 subscription, EsPosition position, Snapshot snapshot);
extern bool EsParkedOut(int32 subscription, int32 lane, int64 epoch, EsPosition from, EsPosition upto);
extern void EsParkedRequireDone(int32 subscription, int32 lane, int64 epoch, EsPosition from, EsPosition upto);

/* subscription_due.c */
typedef void (*EsDeliverer) (EsDelivered *message, void *arg);
extern bool EsDueAny(const EsSubscription *subscription, EsLane *lane);
extern int	EsDueHandOut(const EsSubscription *subscription, EsLane *lane, int room,
						 EsDeliverer deliver, void *arg);

#endif							/* ES_SUBSCRIPTION_H */
