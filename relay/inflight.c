/*
 * inflight.c
 *		The messages that a sink has sent and owes an outcome for: by age, by key.
 *
 * A list by age, and chains by the key's hash.  A new entry goes to the head of
 * its chain, so a chain is by age too, newest first.
 */
#include <stdlib.h>
#include <string.h>

#include "inflight.h"
#include "mem.h"
#include "waitset.h"

/* FNV-1a, never 0 for a key. */
static uint64_t
hash_key(RelayText key)
{
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);

	if (key.data == NULL)
		return 0;
	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (unsigned char) key.data[i]) * UINT64_C(0x100000001b3);
	return hash | 1;
}

static bool
same_key(const InFlight *entry, uint64_t hash, const RelayMessage *message)
{
	return entry->hash == hash && entry->message->key.len == message->key.len &&
		memcmp(entry->message->key.data, message->key.data, message->key.len) == 0;
}

static InFlight **
bucket_of(const InFlightSet *set, uint64_t hash)
{
	return (InFlight **) &set->buckets[(hash >> 1) % INFLIGHT_BUCKETS];
}

InFlight *
InFlightAdd(InFlightSet *set, RelayMessage *message)
{
	InFlight   *entry = set->spare;
	InFlight  **bucket;

	if (entry != NULL)
		set->spare = entry->chain;
	else
		entry = MemAlloc(sizeof(InFlight));
	*entry = (InFlight) {.message = message, .since = WaitNow(), .hash = hash_key(message->key)};

	entry->older = set->newest;
	if (set->newest != NULL)
		set->newest->newer = entry;
	else
		set->oldest = entry;
	set->newest = entry;
	set->count++;

	if (entry->hash != 0)
	{
		bucket = bucket_of(set, entry->hash);
		entry->chain = *bucket;
		*bucket = entry;
	}
	return entry;
}

void
InFlightRemove(InFlightSet *set, InFlight *entry)
{
	if (entry->hash != 0)
	{
		InFlight  **link = bucket_of(set, entry->hash);

		while (*link != entry)
			link = &(*link)->chain;
		*link = entry->chain;
	}

	*(entry->older != NULL ? &entry->older->newer : &set->oldest) = entry->newer;
	*(entry->newer != NULL ? &entry->newer->older : &set->newest) = entry->older;
	set->count--;
	entry->chain = set->spare;
	set->spare = entry;
}

InFlight *
InFlightOfKey(const InFlightSet *set, const RelayMessage *message)
{
	uint64_t	hash = hash_key(message->key);
	InFlight   *entry = hash != 0 ? *bucket_of(set, hash) : NULL;

	while (entry != NULL && !same_key(entry, hash, message))
		entry = entry->chain;
	return entry;
}

void
InFlightFail(InFlightSet *set, const InFlight *entry)
{
	if (entry->hash == 0)
		return;
	for (InFlight *other = *bucket_of(set, entry->hash); other != entry; other = other->chain)
	{
		if (same_key(other, entry->hash, entry->message))
			other->overtook = true;
	}
}

void
InFlightFree(InFlightSet *set)
{
	while (set->oldest != NULL)
		InFlightRemove(set, set->oldest);
	while (set->spare != NULL)
	{
		InFlight   *entry = set->spare;

		set->spare = entry->chain;
		free(entry);
	}
}
