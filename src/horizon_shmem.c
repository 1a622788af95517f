/*
 * horizon_shmem.c
 *		The shared memory in which positions are drawn and writers registered.
 *
 * What is there: one EsLog for each log in use (a database and the OID of its
 * sequence, so that DROP and CREATE EXTENSION start anew), and one EsWriter for
 * each backend the server can have.
 *
 * How it is had, with nothing preloaded: on 15 and 16 out of the slack that the
 * server leaves in its main segment, so it must be small; from 17 on as a named
 * segment.  With shared_preload_libraries it is requested like everything else.
 * Every backend must come to the same memory, so the names are fixed for ever,
 * and a header of fixed size tells the layout: a backend that runs another
 * version of this library refuses to work and never makes a second registry.
 *
 * Locks: EsShared's lock guards the directory of logs (which slot is whose),
 * the consumers' lock the members and lanes of subscriptions.
 * The rest is atomics; see horizon.c for their protocol.
 *
 * A slot of the directory is taken again when its database has no backend left
 * and another log needs one: nothing is lost, for its counter goes on from the
 * sequence's bound, as after a restart.
 */
#include "horizon.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "compat.h"

#define HEADER_NAME		"es_pg"
#define REGISTRY_NAME	"es_pg registry"
#define HEADER_MAGIC	0x65735f70
#ifndef LAYOUT					/* a test builds a library with another one */
#define LAYOUT			7		/* grows with every change of EsShared */
#endif

#define LOGS_SMALL		32		/* logs in use at once, out of the slack */
#define LOGS_LARGE		256		/* and where memory was requested */
#define MEMBERS_SMALL	48		/* members of subscriptions, likewise */
#define MEMBERS_LARGE	4096
#define LANES_SMALL		96		/* lanes whose last fetch is remembered, likewise */
#define LANES_LARGE		8192
#define COUNTERS_SMALL	48		/* consumers of the inbox that are counted, likewise */
#define COUNTERS_LARGE	1024

/* Of fixed size for ever, so that any version can read it. */
typedef struct EsHeader
{
	uint32		magic;
	uint32		layout;
	uint64		size;			/* of the registry */
	uint32		stride;			/* bytes from one EsWriter to the next */
	uint32		nlogs;
	uint32		nwriters;
	uint32		nmembers;
	uint32		nlanes;
	uint32		ncounters;
	uint32		unused[6];
} EsHeader;

typedef struct EsShared
{
	LWLock		lock;
	LWLock		consumer_lock;
	uint32		nmembers_used;	/* entries of members that were ever in use */
	EsLog		logs[FLEXIBLE_ARRAY_MEMBER];	/* then the writers, members, lanes and counters */
} EsShared;

StaticAssertDecl(sizeof(EsHeader) == 64, "EsHeader must keep its size");

static bool preloaded = false;
static EsHeader *header = NULL;
static EsShared *shared = NULL;
static char *writers = NULL;
static EsConsumers consumers;

static EsLog *my_log = NULL;	/* this database's */

/* Where the writers begin in the registry. */
static Size
writers_offset(uint32 nlogs)
{
	return offsetof(EsShared, logs) + nlogs * sizeof(EsLog);
}

/* Where the members begin, behind the writers, and the lanes and counters behind those. */
static Size
members_offset(const EsHeader *plan)
{
	return TYPEALIGN(PG_CACHE_LINE_SIZE, writers_offset(plan->nlogs) + plan->nwriters * (Size) plan->stride);
}

static Size
lanes_offset(const EsHeader *plan)
{
	return members_offset(plan) + plan->nmembers * sizeof(EsMember);
}

static Size
counters_offset(const EsHeader *plan)
{
	return lanes_offset(plan) + plan->nlanes * sizeof(EsLaneNote);
}

/* What a registry of this server looks like. */
static void
plan_registry(EsHeader *plan)
{
#ifdef ES_HAVE_NAMED_DSM
	bool		large = true;
#else
	bool		large = preloaded;
#endif

	memset(plan, 0, sizeof(*plan));
	plan->magic = HEADER_MAGIC;
	plan->layout = LAYOUT;
	plan->stride = large ? PG_CACHE_LINE_SIZE : sizeof(EsWriter);
	plan->nlogs = large ? LOGS_LARGE : LOGS_SMALL;
	plan->nwriters = MaxBackends;
	plan->nmembers = large ? MEMBERS_LARGE : MEMBERS_SMALL;
	plan->nlanes = large ? LANES_LARGE : LANES_SMALL;
	plan->ncounters = large ? COUNTERS_LARGE : COUNTERS_SMALL;
	plan->size = PG_CACHE_LINE_SIZE + counters_offset(plan) + plan->ncounters * sizeof(EsInboxCounter);
}

static void
init_header(void *ptr)
{
	plan_registry(ptr);
}

static void
init_registry(void *ptr)
{
	EsShared   *s = (EsShared *) TYPEALIGN(PG_CACHE_LINE_SIZE, ptr);

	memset(ptr, 0, header->size);
	LWLockInitialize(&s->lock, LWLockNewTrancheId());
	LWLockInitialize(&s->consumer_lock, s->lock.tranche);
	for (uint32 i = 0; i < header->nlogs; i++)
	{
		ConditionVariableInit(&s->logs[i].moved);
		ConditionVariableInit(&s->logs[i].passed);
		ConditionVariableInit(&s->logs[i].reserved_moved);
		ConditionVariableInit(&s->logs[i].chunk_worker_done);
	}
}

/* Shared memory of this name, made ready by whoever comes first. */
static void *
named_memory(const char *name, Size size, void (*init) (void *))
{
	void	   *ptr;
	bool		found;

#ifdef ES_HAVE_NAMED_DSM
	ptr = GetNamedDSMSegment(name, size, init, &found);
#else
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ptr = ShmemInitStruct(name, size, &found);
	if (!found)
		init(ptr);
	LWLockRelease(AddinShmemInitLock);
#endif
	return ptr;
}

/* Find or make the registry; sets the statics above only when all is well. */
static void
attach(void)
{
	void	   *ptr;

	header = named_memory(HEADER_NAME, sizeof(EsHeader), init_header);
	if (header->magic != HEADER_MAGIC || header->layout != LAYOUT)
	{
		uint32		layout = header->layout;

		header = NULL;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("another version of the es_pg library is in use in this server"),
				 errdetail("Its shared memory has layout %u, this library needs layout %u.", layout, LAYOUT),
				 errhint("Restart the server.")));
	}

	PG_TRY();
	{
		ptr = named_memory(REGISTRY_NAME, header->size, init_registry);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(TopTransactionContext ? TopTransactionContext : TopMemoryContext);
		error = CopyErrorData();
		FlushErrorState();
		LWLockReleaseAll();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not get shared memory for es_pg"),
				 errdetail("%llu bytes are needed: %s.", (unsigned long long) header->size, error->message),
				 errhint("Add es_pg to shared_preload_libraries and restart the server.")));
	}
	PG_END_TRY();

	shared = (EsShared *) TYPEALIGN(PG_CACHE_LINE_SIZE, ptr);
	writers = (char *) shared + writers_offset(header->nlogs);
	consumers.lock = &shared->consumer_lock;
	consumers.nmembers = header->nmembers;
	consumers.nmembers_used = &shared->nmembers_used;
	consumers.members = (EsMember *) ((char *) shared + members_offset(header));
	consumers.nlanes = header->nlanes;
	consumers.lanes = (EsLaneNote *) ((char *) shared + lanes_offset(header));
	consumers.ncounters = header->ncounters;
	consumers.counters = (EsInboxCounter *) ((char *) shared + counters_offset(header));
	LWLockRegisterTranche(shared->lock.tranche, "es_pg");
}

/*
 * The same where it may fail: a library whose _PG_init did would be loaded, and
 * registered, once more.  Whoever needs the registry is told then.
 */
static void
try_attach(void)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		attach();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
		LWLockReleaseAll();
	}
	PG_END_TRY();
}

#ifndef ES_HAVE_NAMED_DSM
static shmem_request_hook_type previous_shmem_request = NULL;

static void
request_shmem(void)
{
	EsHeader	plan;

	if (previous_shmem_request)
		previous_shmem_request();
	plan_registry(&plan);
	RequestAddinShmemSpace(add_size(sizeof(EsHeader) + PG_CACHE_LINE_SIZE, plan.size));
}
#endif

void
EsShmemInit(void)
{
	preloaded = process_shared_preload_libraries_in_progress;
#ifndef ES_HAVE_NAMED_DSM
	if (preloaded)
	{
		previous_shmem_request = shmem_request_hook;
		shmem_request_hook = request_shmem;
	}
#endif

	/* Before the many locks of CREATE EXTENSION take their memory out of the same slack. */
	if (creating_extension)
		try_attach();
}

/* The durable bound, as the sequence has it. */
EsPosition
EsBoundRead(Oid sequence)
{
	Relation	rel = try_relation_open(sequence, AccessShareLock);
	Buffer		buffer;
	Page		page;
	HeapTupleHeader tuple;
	EsPosition	bound;

	if (rel == NULL)
		EsRefuseDropped();
	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	bound = ((Form_pg_sequence_data) ((char *) tuple + tuple->t_hoff))->last_value;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return bound;
}

/*
 * May this slot be given to another log?  A database has one installation of
 * the extension, so another sequence of this one's is dropped, or is being
 * dropped by this transaction: nobody writes or reads through it then, for its
 * tables are locked.
 */
static bool
recyclable(const EsLog *log)
{
	return log->database == MyDatabaseId || CountDBBackends(log->database) == 0;
}

/* The slot of this log, or NULL; needs the lock. */
static EsLog *
find_log(Oid sequence)
{
	for (uint32 i = 0; i < header->nlogs; i++)
	{
		EsLog	   *log = &shared->logs[i];

		if (log->database == MyDatabaseId && log->sequence == sequence)
			return log;
	}
	return NULL;
}

/*
 * Take a slot for a log that has none; needs the lock exclusively.  The bound
 * was read before the lock was taken: no slot means that nobody could have
 * moved it since, for this backend keeps its database's slots from recycling.
 */
static EsLog *
take_log(Oid sequence, EsPosition bound)
{
	EsLog	   *log = NULL;

	for (uint32 i = 0; i < header->nlogs && log == NULL; i++)
	{
		if (!OidIsValid(shared->logs[i].database))
			log = &shared->logs[i];
	}
	for (uint32 i = 0; i < header->nlogs && log == NULL; i++)
	{
		if (recyclable(&shared->logs[i]))
			log = &shared->logs[i];
	}
	if (log == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases of this server use es_pg at once"),
				 errdetail("There is shared memory for %u.", header->nlogs),
				 errhint("Add es_pg to shared_preload_libraries and restart the server.")));

	for (uint32 i = 0; i < header->nmembers; i++)
	{
		if (consumers.members[i].log == EsLogNumber(log))
			consumers.members[i].expires = 0;
	}
	for (uint32 i = 0; i < header->nlanes; i++)
	{
		if (consumers.lanes[i].log == EsLogNumber(log))
			consumers.lanes[i].log = 0;
	}
	for (uint32 i = 0; i < header->ncounters; i++)
	{
		if (consumers.counters[i].log == EsLogNumber(log))
			consumers.counters[i].log = 0;
	}
	log->database = MyDatabaseId;
	log->sequence = sequence;
	log->known_since = GetCurrentTimestamp();
	pg_atomic_write_u64(&log->parkings, (uint64) log->known_since);
	pg_atomic_write_u64(&log->reserved, bound);
	pg_atomic_write_u64(&log->horizon, 0);
	pg_atomic_write_u64(&log->unflushed, 0);
	for (int kind = 0; kind < ES_CHUNK_KINDS; kind++)
	{
		pg_atomic_write_u64(&log->chunk_mark[kind], 0);
		pg_atomic_write_u64(&log->chunk_asked_at[kind], 0);
		pg_atomic_write_u64(&log->chunk_ahead_until[kind], 0);
	}
	pg_atomic_write_u64(&log->maintain_at, (uint64) GetCurrentTimestamp() + ES_MAINTAIN_INTERVAL);
	pg_atomic_write_u64(&log->delayed_next, 0);
	pg_atomic_write_u64(&log->inbox_latest, 0);
	pg_atomic_write_u32(&log->armed, 0);
	pg_atomic_write_u64(&log->watched, 0);
	pg_atomic_write_u32(&log->worker_pid, 0);
	pg_atomic_write_u32(&log->worker_stop, 0);
	pg_atomic_write_u32(&log->reserving, 0);
	pg_atomic_fetch_add_u64(&log->lane_news, 1);
	pg_atomic_write_u32(&log->chunk_worker, 0);
	pg_atomic_write_u32(&log->in_order, 0);
	pg_atomic_write_u64(&log->drawn, bound);
	return log;
}

PG_FUNCTION_INFO_V1(es_shared_memory);

/*
 * Called while the extension is created: before the locks of all its objects
 * take what is left of the slack.
 */
Datum
es_shared_memory(PG_FUNCTION_ARGS)
{
	if (shared == NULL)
		attach();
	PG_RETURN_INT64((int64) header->size);
}

/* The slot of this database's log, found or taken. */
static EsLog *
get_log(Oid sequence)
{
	EsPosition	bound;
	EsLog	   *log;

	if (shared == NULL)
		attach();
	bound = EsBoundRead(sequence);

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	log = find_log(sequence);
	if (log == NULL)
		log = take_log(sequence, bound);
	LWLockRelease(&shared->lock);
	return log;
}

/* The shared state of this database's log. */
EsLog *
EsLogGet(void)
{
	Oid			sequence = EsCatalogGet()->position_bound;

	if (my_log == NULL || my_log->sequence != sequence || my_log->database != MyDatabaseId)
		my_log = get_log(sequence);
	EsHorizonCatchUp(my_log);
	return my_log;
}

/* The one that EsLogGet returned last; needs no catalog. */
EsLog *
EsLogCurrent(void)
{
	return my_log;
}

/* A log's number in the registry, from 1. */
uint32
EsLogNumber(const EsLog *log)
{
	return (uint32) (log - shared->logs) + 1;
}

/* Members and lanes of all logs; the caller has got a log before. */
const EsConsumers *
EsConsumersGet(void)
{
	return &consumers;
}

uint32
EsWriterCount(void)
{
	return header->nwriters;
}

EsWriter *
EsWriterAt(uint32 i)
{
	return (EsWriter *) (writers + i * (Size) header->stride);
}
