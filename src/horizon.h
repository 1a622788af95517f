/*
 * horizon.h
 *		Positions, the horizon and the wake-up of readers: what the other
 *		capabilities may ask of them.
 */
#ifndef ES_HORIZON_H
#define ES_HORIZON_H

#include "es_pg.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "utils/snapshot.h"
#include "utils/uuid.h"

/*
 * The partitioned tables.  Positions lead into the first two; the inbox is
 * partitioned by time, and in what concerns chunks a time (a TimestampTz)
 * stands for a position there.
 */
typedef enum EsChunkKind
{
	ES_CHUNK_EVENTS,
	ES_CHUNK_OUTBOX,
	ES_CHUNK_INBOX
} EsChunkKind;

#define ES_POSITION_KINDS	2
#define ES_CHUNK_KINDS		3

#define ES_MAINTAIN_INTERVAL	(60 * USECS_PER_SEC)	/* between slices of maintenance */

/*
 * The shared state of one log: of one sequence in one database.  Lives in
 * shared memory; database and sequence are written under EsShared's lock.
 */
typedef struct EsLog
{
	Oid			database;
	Oid			sequence;
	pg_atomic_uint64 maintain_at;	/* then a slice of maintenance is due, a TimestampTz */
	pg_atomic_uint64 delayed_next;	/* no delayed message is due before, a TimestampTz; 0: not known */

	/* Written by every append, so on a cache line of its own. */
	pg_atomic_uint64 drawn pg_attribute_aligned(PG_CACHE_LINE_SIZE);	/* last position drawn */

	pg_atomic_uint64 reserved pg_attribute_aligned(PG_CACHE_LINE_SIZE); /* durable bound of drawn */
	pg_atomic_uint64 horizon;	/* the highest ever handed out */
	pg_atomic_uint64 unflushed; /* end of the last asynchronous commit, an LSN */
	pg_atomic_uint64 chunk_mark[ES_CHUNK_KINDS];	/* at this position ask for chunks */
	pg_atomic_uint64 chunk_asked_at[ES_CHUNK_KINDS];	/* when that was last done, a TimestampTz */
	pg_atomic_uint64 chunk_ahead_until[ES_CHUNK_KINDS]; /* until then a worker is at it, or 0 */
	pg_atomic_uint64 inbox_latest;	/* lower bound of the latest chunk of the inbox that was written to; 0: not known */
	pg_atomic_uint32 armed;		/* 1: the next commit shall notify */
	pg_atomic_uint32 reserving; /* 1: a backend is moving reserved ahead */
	pg_atomic_uint32 chunk_worker;	/* 1: a backend waits for the chunk worker */
	pg_atomic_uint32 in_order;	/* 1: this is the life that its newest incarnation began */
	pg_atomic_uint64 lane_news; /* grows when waiting consumers have a reason to look */
	pg_atomic_uint64 parkings;	/* the last number given to a parked key */
	TimestampTz known_since;	/* members are known from then on */
	pg_atomic_uint64 watched;	/* a bit for each number, modulo 64, of projections that are watched */
	pg_atomic_uint32 worker_pid;	/* of the projections' worker, or 0 */
	pg_atomic_uint32 worker_stop;	/* 1: it shall end */
	ConditionVariable moved;	/* the horizon may have risen */
	ConditionVariable passed;	/* a subscription may have */
	ConditionVariable reserved_moved;
	ConditionVariable chunk_worker_done;
} EsLog;

/* The one state of a backend that others read. */
typedef struct EsWriter
{
	pg_atomic_uint64 bound;		/* no position of this transaction is lower; 0: none */
	pg_atomic_uint32 log;		/* index into EsShared's logs, from 1 */
	uint32		unused;
} EsWriter;

#define ES_MEMBER_NAME	32

/* A member of a subscription, alive until "expires"; see subscription_members.c. */
typedef struct EsMember
{
	uint64		hash[2];		/* of its name */
	TimestampTz expires;		/* 0: this entry is free */
	uint32		log;			/* which one's, by number */
	int32		subscription;
	int32		session_pid;	/* of the backend it ends with, or 0 */
	char		name[ES_MEMBER_NAME];	/* the beginning of it, for people */
} EsMember;

/* What the last fetch of a lane handed out; a note, which may get lost. */
typedef struct EsLaneNote
{
	uint32		log;			/* 0: this entry is free */
	int32		subscription;
	int32		lane;
	uint32		noted;			/* in milliseconds, modulo 2^32; the oldest of a place gives way */
	int64		epoch;
	EsPosition	handed;			/* the highest position handed out */
	EsPosition	looked;			/* nothing for this lane lies between that and here */
	TimestampTz moved;			/* when the cursor was last moved for want of messages */
} EsLaneNote;

/* What a consumer of the inbox was told so far. */
typedef struct EsInboxCounter
{
	uint32		log;			/* 0: this entry is free */
	int64		consumer;
	TimestampTz since;
	pg_atomic_uint64 accepted;
	pg_atomic_uint64 duplicates;
} EsInboxCounter;

typedef struct EsConsumers
{
	struct LWLock *lock;
	uint32		nmembers;
	uint32	   *nmembers_used;	/* so many of them were ever in use */
	EsMember   *members;
	uint32		nlanes;
	EsLaneNote *lanes;
	uint32		ncounters;
	EsInboxCounter *counters;
} EsConsumers;

/* horizon_shmem.c */
extern void EsShmemInit(void);
extern EsLog *EsLogGet(void);
extern EsLog *EsLogCurrent(void);
extern EsPosition EsBoundRead(Oid sequence);
extern uint32 EsLogNumber(const EsLog *log);
extern const EsConsumers *EsConsumersGet(void);
extern uint32 EsWriterCount(void);
extern EsWriter *EsWriterAt(uint32 i);

/* horizon.c */
extern void EsRequirePrimary(void);
extern void EsHorizonCatchUp(EsLog *log);
extern EsPosition EsPositionsDraw(uint32 n);
extern EsPosition EsPositionTake(void);
extern void EsPositionsSkip(EsPosition last);
extern EsPosition EsPositionLast(void);
extern EsPosition EsHorizonRead(EsLog *log);
extern bool EsHorizonWriting(void);
extern void EsBoundMove(Oid sequence, EsPosition bound);
extern void EsReservingBegin(EsLog *log);
extern void EsReservingEnd(EsPosition position);

/* A life of the log: an incarnation and the position after which it begins. */
typedef struct EsLife
{
	pg_uuid_t	id;
	EsPosition	after;
} EsLife;

typedef struct EsLives
{
	int			n;
	EsLife	   *lives;			/* oldest first */
} EsLives;

/* horizon_fork.c */
extern void EsForkCheck(EsLog *log);
extern bool EsIncarnationInForce(EsLog *log);
extern void EsIncarnationBegin(void);
extern EsLives EsLivesRead(Snapshot snapshot);
extern pg_uuid_t *EsLifeOf(const EsLives *lives, EsPosition position);

/* horizon_mark.c */
extern EsPosition EsMarkRead(Snapshot snapshot);

/* chunk_make.c */
extern void EsIncarnationEnsure(EsLog *log);

/* horizon_wake.c */
extern void EsWakeListeners(void);
extern void EsWakeBeforeCommit(EsLog *log);
extern void EsWakeAfterEnd(EsLog *log, bool committed);
extern void EsWakeArm(EsLog *log);
extern void EsWakeConsumers(EsLog *log);
extern void EsWakePassed(EsLog *log);
extern void EsWakeCheckClient(void);
extern bool EsWakeWait(EsLog *log, EsPosition seen, uint64 news, TimestampTz until, uint32 event);
extern uint32 EsWakeEvent(void);

#endif							/* ES_HORIZON_H */
