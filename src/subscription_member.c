/*
 * subscription_member.c
 *		Who is alive, and what each lane was handed: notes in shared memory.
 *
 * A member is a consumer's name in a subscription.  It is alive for the
 * subscription's lease time after each of its calls; one that is bound to its
 * session ends with that too.  Nothing here is needed for safety: that is what
 * epochs are for (subscription_lease.c).  A note that is lost, by a restart or
 * for want of room, costs a lane's progress or a repeated delivery, never a
 * message.  So there is one lock, held for a moment, and no disk.
 *
 * After a restart nobody is known.  Who holds a lane and has not called yet is
 * taken to be alive for one lease time, so that the first to come back does not
 * take everything.
 *
 * The number of entries is bounded, for without preloading there is little
 * memory.  An entry that has ended is taken again; when all are alive, a new
 * member is refused.  Notes of lanes replace each other, the one least needed
 * first: any of the same place in the table.
 */
#include "subscription.h"

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(es_forget_members);
PG_FUNCTION_INFO_V1(es_members);
PG_FUNCTION_INFO_V1(es_consumer_hash);

#define NOTE_WAYS	8			/* places where a lane's note may be */
#define PEERS_MORE	16			/* room for members that enter meanwhile */

/*
 * A member that this transaction brought in: gone again if that is rolled back.
 * Its entry may be another's by then, so its name is kept too.
 */
static EsMember *newcomer = NULL;
static uint64 newcomer_hash[2];

/* The log in which this backend has members that end with it. */
static EsLog *bound_log = NULL;

static inline void
lock_consumers(LWLockMode mode)
{
	LWLockAcquire(EsConsumersGet()->lock, mode);
}

static inline void
unlock_consumers(void)
{
	LWLockRelease(EsConsumersGet()->lock);
}

/* 128 bits of a name: no two names have the same in practice. */
void
EsMemberHash(const text *consumer, uint64 hash[2])
{
	hash[0] = EsHashBytes(VARDATA_ANY(consumer), VARSIZE_ANY_EXHDR(consumer), 0);
	hash[1] = EsHashBytes(VARDATA_ANY(consumer), VARSIZE_ANY_EXHDR(consumer), 1);
}

static inline bool
is_member_of(const EsMember *member, uint32 log, int32 subscription)
{
	return member->expires != 0 && member->log == log && member->subscription == subscription;
}

static inline bool
same_hash(const uint64 *a, const uint64 *b)
{
	return a[0] == b[0] && a[1] == b[1];
}

/* An entry for a member: its own, or else one that is free or over. */
static EsMember *
find_entry(uint32 log, int32 subscription, const uint64 *hash, TimestampTz now)
{
	const EsConsumers *consumers = EsConsumersGet();
	EsMember   *unused = NULL;

	for (uint32 i = 0; i < *consumers->nmembers_used; i++)
	{
		EsMember   *member = &consumers->members[i];

		if (is_member_of(member, log, subscription) && same_hash(member->hash, hash))
			return member;
		if (unused == NULL && member->expires <= now)
			unused = member;
	}
	if (unused == NULL && *consumers->nmembers_used < consumers->nmembers)
		unused = &consumers->members[(*consumers->nmembers_used)++];
	if (unused != NULL)
		unused->expires = 0;
	return unused;
}

static void
fill_entry(EsMember *member, uint32 log, int32 subscription, const text *consumer, const uint64 *hash)
{
	int			length = pg_mbcliplen(VARDATA_ANY(consumer), VARSIZE_ANY_EXHDR(consumer), ES_MEMBER_NAME - 1);

	memset(member, 0, sizeof(*member));
	memcpy(member->hash, hash, sizeof(member->hash));
	member->log = log;
	member->subscription = subscription;
	memcpy(member->name, VARDATA_ANY(consumer), length);
}

/* The live members of a subscription, in the order of their entries. */
static void
list_peers(uint32 log, int32 subscription, const EsMember *me, TimestampTz now, EsPeers *peers)
{
	const EsConsumers *consumers = EsConsumersGet();
	bool		listed = false;	/* me; there is always room for that */

	peers->n = 0;
	peers->next_end = DT_NOEND;
	for (uint32 i = 0; i < *consumers->nmembers_used && peers->n < peers->room; i++)
	{
		EsMember   *member = &consumers->members[i];

		if (!is_member_of(member, log, subscription) || member->expires <= now ||
			(peers->n == peers->room - 1 && !listed && member != me))
			continue;
		listed |= member == me;
		if (member == me)
			peers->me = peers->n;
		else
			peers->next_end = Min(peers->next_end, member->expires);
		memcpy(peers->peers[peers->n].hash, member->hash, sizeof(member->hash));
		peers->peers[peers->n].lanes = 0;
		peers->n++;
	}
}

typedef enum EnterResult
{
	ENTERED,
	ENTERED_ANEW,
	NO_ROOM,
	BOUND_ELSEWHERE
} EnterResult;

/*
 * Enter a member, or renew it and no more where session_bound is NULL.  With
 * "peers", tell who else is there.
 */
static EnterResult
enter(const EsSubscription *subscription, const text *consumer, const bool *session_bound,
	  EsPeers *peers, int *other_pid)
{
	uint32		log = EsLogNumber(EsLogGet());
	TimestampTz now = GetCurrentTimestamp();
	EnterResult result = ENTERED;
	uint64		hash[2];
	EsMember   *member;

	EsMemberHash(consumer, hash);
	lock_consumers(LW_EXCLUSIVE);
	member = find_entry(log, subscription->id, hash, now);
	if (member == NULL)
		result = NO_ROOM;
	else if (session_bound != NULL && member->expires > now && member->session_pid != 0 &&
			 member->session_pid != MyProcPid)
	{
		result = BOUND_ELSEWHERE;
		*other_pid = member->session_pid;
	}
	else
	{
		if (member->expires <= now)
		{
			result = ENTERED_ANEW;
			if (session_bound != NULL)
			{
				newcomer = member;
				memcpy(newcomer_hash, hash, sizeof(newcomer_hash));
			}
		}
		if (member->expires == 0)
			fill_entry(member, log, subscription->id, consumer, hash);
		member->expires = now + subscription->lease_usecs;
		if (session_bound != NULL)
			member->session_pid = *session_bound ? MyProcPid : 0;
		if (peers != NULL)
			list_peers(log, subscription->id, member, now, peers);
	}
	unlock_consumers();
	return result;
}

/* Those that are bound to this session end with it. */
static void
leave_at_exit(int code, Datum arg)
{
	const EsConsumers *consumers = EsConsumersGet();
	bool		any = false;

	lock_consumers(LW_EXCLUSIVE);
	for (uint32 i = 0; i < *consumers->nmembers_used; i++)
	{
		EsMember   *member = &consumers->members[i];

		if (member->expires != 0 && member->session_pid == MyProcPid)
		{
			member->expires = 0;
			any = true;
		}
	}
	unlock_consumers();
	if (any)
		EsWakeConsumers(bound_log);
}

/* From 17 on the registry is gone after before_shmem_exit. */
static void
bind_here(void)
{
	if (bound_log == NULL)
		before_shmem_exit(leave_at_exit, (Datum) 0);
	bound_log = EsLogGet();
}

void
EsMemberEnter(const EsSubscription *subscription, const text *consumer, bool session_bound,
			  EsPeers *peers)
{
	int			pid = 0;

	if (session_bound)
		bind_here();
	peers->room = *(volatile uint32 *) EsConsumersGet()->nmembers_used + PEERS_MORE;
	peers->peers = palloc(sizeof(EsPeer) * peers->room);
	peers->known_after = EsLogGet()->known_since + subscription->lease_usecs;
	switch (enter(subscription, consumer, &session_bound, peers, &pid))
	{
		case ENTERED:
			break;
		case ENTERED_ANEW:
			EsWakeConsumers(EsLogGet());	/* they may have lanes for it */
			break;
		case NO_ROOM:
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("too many consumers at once"),
					 errdetail("There is shared memory for %u in this server, and all are alive.",
							   EsConsumersGet()->nmembers),
					 errhint("Let consumers call es_release when they leave, or add es_pg to shared_preload_libraries and restart the server.")));
			break;
		case BOUND_ELSEWHERE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("consumer \"%s\" of subscription \"%s\" is bound to another session",
							text_to_cstring(consumer), text_to_cstring(subscription->name)),
					 errdetail("It is the one of process %d.", pid),
					 errhint("Give each consumer a name of its own.")));
			break;
	}
}

/*
 * A fetch that is rolled back has taken no lanes, and who came with it would
 * only keep others from them.  True if there was one.
 */
bool
EsMemberAtEnd(bool committed)
{
	EsMember   *member = newcomer;

	newcomer = NULL;
	if (member == NULL || committed)
		return false;
	lock_consumers(LW_EXCLUSIVE);
	if (same_hash(member->hash, newcomer_hash))
		member->expires = 0;
	unlock_consumers();
	return true;
}

/* A sign of life; if there is no room for it, it is not seen. */
void
EsMemberRenew(const EsSubscription *subscription, const text *consumer)
{
	(void) enter(subscription, consumer, NULL, NULL, NULL);
}

/* Forget the member with this hash, or all where it is NULL. */
static void
forget(int32 subscription, const uint64 *hash)
{
	const EsConsumers *consumers = EsConsumersGet();
	uint32		log = EsLogNumber(EsLogGet());

	lock_consumers(LW_EXCLUSIVE);
	for (uint32 i = 0; i < *consumers->nmembers_used; i++)
	{
		EsMember   *member = &consumers->members[i];

		if (is_member_of(member, log, subscription) && (hash == NULL || same_hash(member->hash, hash)))
			member->expires = 0;
	}
	unlock_consumers();
}

/* A member has gone. */
void
EsMemberLeave(const EsSubscription *subscription, const text *consumer)
{
	uint64		hash[2];

	EsMemberHash(consumer, hash);
	forget(subscription->id, hash);
}

/* For a subscription that is dropped; if that is rolled back, members come back with their next call. */
Datum
es_forget_members(PG_FUNCTION_ARGS)
{
	(void) EsLogGet();
	if (!PG_ARGISNULL(0))
		forget(PG_GETARG_INT32(0), NULL);
	PG_RETURN_VOID();
}

/* The live members of this log, copied. */
static EsMember *
copy_members(int *n)
{
	const EsConsumers *consumers = EsConsumersGet();
	uint32		log = EsLogNumber(EsLogGet());
	EsMember   *copies = palloc(sizeof(EsMember) * consumers->nmembers);
	TimestampTz now = GetCurrentTimestamp();

	*n = 0;
	lock_consumers(LW_SHARED);
	for (uint32 i = 0; i < *consumers->nmembers_used; i++)
	{
		if (consumers->members[i].log == log && consumers->members[i].expires > now)
			copies[(*n)++] = consumers->members[i];
	}
	unlock_consumers();
	return copies;
}

Datum
es_members(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	EsMember   *members;
	int			n;

	EsRequirePrimary();
	InitMaterializedSRF(fcinfo, 0);
	members = copy_members(&n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[5] = {
			Int32GetDatum(members[i].subscription),
			CStringGetTextDatum(members[i].name),
			Int64GetDatum((int64) members[i].hash[0]),
			Int32GetDatum(members[i].session_pid),
			TimestampTzGetDatum(members[i].expires)
		};
		bool		nulls[5] = {false, false, false, members[i].session_pid == 0, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
es_consumer_hash(PG_FUNCTION_ARGS)
{
	uint64		hash[2];

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	EsMemberHash(PG_GETARG_TEXT_PP(0), hash);
	PG_RETURN_INT64((int64) hash[0]);
}

/* ---------------------------------------------------------------- what lanes were handed */

/* The places where a lane's note may be: NOTE_WAYS from here on. */
static EsLaneNote *
note_places(uint32 log, int32 subscription, int32 lane)
{
	const EsConsumers *consumers = EsConsumersGet();
	uint64		hash = EsHashNumber(((uint64) log << 48) ^ ((uint64) (uint32) subscription << 16) ^ (uint32) lane);

	return &consumers->lanes[(hash % (consumers->nlanes / NOTE_WAYS)) * NOTE_WAYS];
}

static EsLaneNote *
find_note(uint32 log, int32 subscription, int32 lane)
{
	EsLaneNote *notes = note_places(log, subscription, lane);

	for (int i = 0; i < NOTE_WAYS; i++)
	{
		if (notes[i].log == log && notes[i].subscription == subscription && notes[i].lane == lane)
			return &notes[i];
	}
	return NULL;
}

static uint32
note_time(void)
{
	return (uint32) (GetCurrentTimestamp() / 1000);
}

/* A place for a new note: a free one, or that of the oldest. */
static EsLaneNote *
take_note(uint32 log, int32 subscription, int32 lane)
{
	EsLaneNote *notes = note_places(log, subscription, lane);
	EsLaneNote *taken = &notes[0];
	uint32		now = note_time();

	for (int i = 0; i < NOTE_WAYS; i++)
	{
		if (notes[i].log == 0)
			return &notes[i];
		if (now - notes[i].noted > now - taken->noted)
			taken = &notes[i];
	}
	return taken;
}

/*
 * Note what a fetch handed out of a lane.  One that got less far than an earlier
 * one of the same epoch, which may still be at work, changes nothing; but where a
 * filter was widened meanwhile, what the earlier one had passed is handed out now.
 */
void
EsLaneNoteWrite(const EsSubscription *subscription, const EsLane *lane)
{
	uint32		log = EsLogNumber(EsLogGet());
	EsPosition	handed = Max(lane->handed, lane->cursor);
	EsPosition	looked = Max(lane->looked, handed);
	EsLaneNote *note;

	lock_consumers(LW_EXCLUSIVE);
	note = find_note(log, subscription->id, lane->number);
	if (note == NULL || note->epoch != lane->epoch)
	{
		if (note == NULL)
			note = take_note(log, subscription->id, lane->number);
		*note = (EsLaneNote) {log, subscription->id, lane->number, 0, lane->epoch, handed, looked, lane->moved};
	}
	else if (looked >= note->looked || handed > note->handed)
	{
		note->handed = Max(note->handed, handed);
		note->looked = looked;
		note->moved = lane->moved;
	}
	note->noted = note_time();
	unlock_consumers();
	EsPassedAtCommit();
}

/* What a lane was handed in this epoch; false when that is not known. */
bool
EsLaneNoteRead(int32 subscription, int32 lane, int64 epoch, EsLaneNote *copy)
{
	uint32		log = EsLogNumber(EsLogGet());
	EsLaneNote *note;
	bool		known;

	lock_consumers(LW_SHARED);
	note = find_note(log, subscription, lane);
	known = note != NULL && note->epoch == epoch;
	if (known)
		*copy = *note;
	unlock_consumers();
	return known;
}
