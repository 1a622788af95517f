/*
 * dispatch_window.c
 *		What the dispatcher has: lanes, and the messages in them.
 *
 * A lane's items are in position order, and stay until all before them are
 * done; the messages themselves go as soon as nobody needs them.  So the window
 * is bounded twice: by the bytes of messages in memory, which is looked at
 * before one more is read from the source, and by the number of items, which is
 * looked at before more are asked for.
 *
 * One that failed keeps its key until the database has answered es_nack: what
 * was handed out behind it with that key is parked there, whether or not it has
 * arrived here, so it is done as soon as it is seen.  That nothing waits for
 * that answer matters: it comes behind the rows of a fetch, which are not read
 * while the window is full.
 *
 * A lost lane is another's affair.  What the sink has of it must still be
 * reported before it can be freed.
 */
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "mem.h"

#define HOLD_BASE		WAIT_MS(100)
#define HOLD_CAP		WAIT_S(30)
#define MEAN_WEIGHT		16		/* a message counts for a 16th of the mean */
#define MEAN_FIRST		1024

/* ---------------------------------------------------------------- keys */

/* FNV-1a; equal hashes are compared. */
static uint64_t
hash_key(RelayText key)
{
	uint64_t	hash = 14695981039346656037ULL;

	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (unsigned char) key.data[i]) * 1099511628211ULL;
	return hash;
}

/* Messages without a key have no order. */
bool
WindowSameKey(const DispatchItem *one, const DispatchItem *other)
{
	return one->key_hash == other->key_hash && one->key.data != NULL && other->key.data != NULL &&
		one->key.len == other->key.len && memcmp(one->key.data, other->key.data, one->key.len) == 0;
}

/* ---------------------------------------------------------------- lanes */

/* A lane that is not lost.  One that was may come back under its old epoch. */
DispatchLane *
WindowFind(Dispatch *dispatch, int lane, int64_t epoch)
{
	DispatchLane *found = dispatch->lanes;

	while (found != NULL && (found->lost || found->lane != lane || found->epoch != epoch))
		found = found->next;
	return found;
}

/* A new lane; one of that number under an earlier epoch is lost. */
static DispatchLane *
add_lane(Dispatch *dispatch, int lane, int64_t epoch)
{
	DispatchLane *added = MemAlloc(sizeof(DispatchLane));

	for (DispatchLane *other = dispatch->lanes, *next; other != NULL; other = next)
	{
		next = other->next;
		if (other->lane == lane)
			WindowLose(dispatch, other);
	}
	added->lane = lane;
	added->epoch = epoch;
	added->backoff = (Backoff) {.base = HOLD_BASE,.cap = HOLD_CAP};
	added->next = dispatch->lanes;
	dispatch->lanes = added;
	return added;
}

static void
remove_lane(Dispatch *dispatch, DispatchLane *lane)
{
	DispatchLane **at = &dispatch->lanes;

	while (*at != lane)
		at = &(*at)->next;
	*at = lane->next;
	free(lane);
}

/* ---------------------------------------------------------------- items */

/* The message is needed no more. */
static void
drop_message(Dispatch *dispatch, DispatchItem *item)
{
	if (item->message == NULL)
		return;
	dispatch->bytes -= item->message->size;
	dispatch->source->methods->release(dispatch->source, item->message);
	item->message = NULL;
	if (item->state != ITEM_FAILED)
		item->key = (RelayText) {NULL, 0};
}

static void
forget_key(DispatchItem *item)
{
	DispatchItem **at = &item->lane->failed;

	while (*at != item)
		at = &(*at)->next_failed;
	*at = item->next_failed;
	free((char *) item->key.data);
	item->key = (RelayText) {NULL, 0};
}

/* An item has come to its end, whatever its state was. */
void
WindowItemDone(Dispatch *dispatch, DispatchItem *item)
{
	if (item->state == ITEM_FAILED)
		forget_key(item);
	item->state = ITEM_DONE;
	PublishSuspect(dispatch, item, false);
	drop_message(dispatch, item);
	dispatch->progress = true;
}

/* Passes what is done at the beginning of a lane. */
void
WindowAdvance(Dispatch *dispatch, DispatchLane *lane)
{
	while (lane->head != NULL && lane->head->state == ITEM_DONE)
	{
		DispatchItem *item = lane->head;

		lane->confirmed = item->position;
		lane->dirty = true;
		lane->head = item->next;
		if (lane->unsent == item)
			lane->unsent = item->next;
		free(item);
		if (!lane->lost)
			dispatch->nitems--;
	}
	if (lane->head == NULL)
		lane->tail = NULL;
}

/* Whether the message is parked already, behind one of its key that failed. */
static bool
is_behind_failed(const DispatchLane *lane, const DispatchItem *item)
{
	for (const DispatchItem *failed = lane->failed; failed != NULL; failed = failed->next_failed)
	{
		if (WindowSameKey(failed, item))
			return true;
	}
	return false;
}

static void
note_size(Dispatch *dispatch, size_t size)
{
	size_t		mean = dispatch->mean_size > 0 ? dispatch->mean_size : MEAN_FIRST;

	dispatch->mean_size = mean - mean / MEAN_WEIGHT + size / MEAN_WEIGHT;
}

/* Puts a message from the source at the end of its lane. */
void
WindowTake(Dispatch *dispatch, RelayMessage *message)
{
	DispatchLane *lane = WindowFind(dispatch, message->lane, message->epoch);
	DispatchItem *item;

	dispatch->progress = true;
	note_size(dispatch, message->size);
	if (lane == NULL)
		lane = add_lane(dispatch, message->lane, message->epoch);

	/* An acknowledgement of what is before would speak for it, too. */
	if (lane->head != NULL && message->position <= lane->newest)
	{
		DispatchFail(dispatch, "the database handed out a message before others that are not acknowledged");
		dispatch->source->methods->release(dispatch->source, message);
		return;
	}
	item = MemAlloc(sizeof(DispatchItem));
	item->lane = lane;
	item->message = message;
	item->position = message->position;
	item->key = message->key;
	item->key_hash = hash_key(message->key);
	message->item = item;
	if (lane->tail == NULL)
		lane->head = item;
	else
		lane->tail->next = item;
	lane->tail = item;
	if (lane->unsent == NULL)
		lane->unsent = item;
	lane->newest = item->position;
	if (dispatch->nitems == 0)
		dispatch->alive_at = WaitNow();
	dispatch->nitems++;
	dispatch->bytes += message->size;

	if (is_behind_failed(lane, item))
		WindowItemDone(dispatch, item);
}

/* ---------------------------------------------------------------- failures */

/* A message failed; those of its key behind it are parked with it. */
static void
doom(Dispatch *dispatch, DispatchItem *failed)
{
	for (DispatchItem *item = failed->next; item != NULL; item = item->next)
	{
		if (!WindowSameKey(failed, item))
			continue;
		if (item->state == ITEM_WAITING)
			WindowItemDone(dispatch, item);
		else if (item->state == ITEM_WITH_SINK)
			item->doomed = true;
	}
}

/* Parts with a message that failed, and has to be parked in the database. */
void
WindowItemForget(Dispatch *dispatch, DispatchItem *item)
{
	DispatchLane *lane = item->lane;
	char	   *key = item->key.data != NULL ? MemAlloc(item->key.len + 1) : NULL;

	if (key != NULL)
		memcpy(key, item->key.data, item->key.len);
	item->state = ITEM_FAILED;
	item->key.data = key;
	item->next_failed = lane->failed;
	lane->failed = item;
	PublishSuspect(dispatch, item, false);
	drop_message(dispatch, item);
	doom(dispatch, item);
}

/* The database has parked one that failed, and, by its own reckoning, others behind it. */
void
WindowParked(Dispatch *dispatch, const SourceEvent *event)
{
	DispatchLane *lane = WindowFind(dispatch, event->lane, event->epoch);
	int			n = 0;

	if (lane == NULL)
		return;
	for (DispatchItem *item = lane->head; item != NULL; item = item->next)
	{
		while (n < event->nbehind && event->behind[n] < item->position)
			n++;
		if (item->position == event->position && item->state == ITEM_FAILED)
			WindowItemDone(dispatch, item);
		else if (n == event->nbehind || event->behind[n] != item->position)
			continue;
		else if (item->state == ITEM_WAITING)
			WindowItemDone(dispatch, item);
		else if (item->state == ITEM_WITH_SINK)
			item->doomed = true;
	}
	WindowAdvance(dispatch, lane);
}

/* ---------------------------------------------------------------- losing lanes */

/* Frees what the sink does not have of a lost lane; and the lane, if that is all. */
static void
clear_lost(Dispatch *dispatch, DispatchLane *lane)
{
	DispatchItem *item = lane->head;

	lane->head = lane->tail = lane->unsent = NULL;
	while (item != NULL)
	{
		DispatchItem *next = item->next;

		item->next = NULL;
		if (item->state == ITEM_WITH_SINK)
		{
			if (lane->tail == NULL)
				lane->head = item;
			else
				lane->tail->next = item;
			lane->tail = item;
		}
		else
		{
			WindowItemDone(dispatch, item);
			free(item);
		}
		item = next;
	}
	if (lane->with_sink == 0)
		remove_lane(dispatch, lane);
}

static int
count_items(const DispatchLane *lane)
{
	int			count = 0;

	for (const DispatchItem *item = lane->head; item != NULL; item = item->next)
		count++;
	return count;
}

void
WindowLose(Dispatch *dispatch, DispatchLane *lane)
{
	const SinkMethods *sink = dispatch->sink->methods;

	if (lane->lost)
		return;
	dispatch->progress = true;
	dispatch->nitems -= count_items(lane);
	lane->lost = true;
	PublishUp(dispatch, lane);
	lane->holding = false;
	if (lane->with_sink > 0 && sink->revoke != NULL && !dispatch->sink_failed)
		sink->revoke(dispatch->sink, lane->lane, lane->epoch);
	clear_lost(dispatch, lane);
}

void
WindowLoseAll(Dispatch *dispatch)
{
	for (DispatchLane *lane = dispatch->lanes, *next; lane != NULL; lane = next)
	{
		next = lane->next;
		WindowLose(dispatch, lane);
	}
}

/* Loses the lanes that are not among those that the source says are ours. */
void
WindowKeep(Dispatch *dispatch, const SourceEvent *event)
{
	for (DispatchLane *lane = dispatch->lanes, *next; lane != NULL; lane = next)
	{
		int			i = 0;

		next = lane->next;
		while (i < event->nlanes && (event->lanes[i].lane != lane->lane ||
									 event->lanes[i].epoch != lane->epoch))
			i++;
		if (i == event->nlanes && lane->head != NULL && !lane->lost)
		{
			Log(LOG_WARNING, "lane %d is another's now, who delivers again what was not acknowledged", lane->lane);
			WindowLose(dispatch, lane);
		}
	}
}

/* The sink has said its word on a message: it is not the sink's any more. */
void
WindowReported(Dispatch *dispatch, DispatchItem *item)
{
	dispatch->with_sink--;
	item->lane->with_sink--;
	item->state = ITEM_WAITING;
	dispatch->progress = true;
	if (item->lane->lost)
		clear_lost(dispatch, item->lane);
}

/* Everything goes, when the sink is closed. */
void
WindowFree(Dispatch *dispatch)
{
	for (DispatchLane *lane = dispatch->lanes, *next; lane != NULL; lane = next)
	{
		next = lane->next;
		lane->with_sink = 0;
		for (DispatchItem *item = lane->head; item != NULL; item = item->next)
		{
			if (item->state == ITEM_WITH_SINK)
				item->state = ITEM_WAITING;
		}
		clear_lost(dispatch, lane);
	}
	free(dispatch->places);
	dispatch->places = NULL;
}

/* ---------------------------------------------------------------- room */

/* How many more messages there is room for: 0 until that is worth a fetch. */
static int
room(const Dispatch *dispatch)
{
	const PipelineConfig *config = dispatch->config;
	int			most = config->batch_size < config->window_messages ? config->batch_size : config->window_messages;
	int64_t		count = config->window_messages - dispatch->nitems;
	int64_t		bytes = config->window_bytes - (int64_t) dispatch->bytes;
	int64_t		mean = dispatch->mean_size > 0 ? dispatch->mean_size : MEAN_FIRST;
	int64_t		fit = bytes > 0 ? bytes / mean + 1 : 0;

	if (most > config->window_bytes / mean + 1)
		most = config->window_bytes / mean + 1;
	if (count > fit)
		count = fit;
	if (count > most)
		count = most;
	return count >= (most + 3) / 4 ? count : 0;
}

/* What the source asks before it fetches: see source.h. */
int
WindowDemand(void *context, const SourcePlace **held, int *nheld)
{
	Dispatch   *dispatch = context;
	int			n = 0;

	*nheld = 0;
	if (dispatch->stopping || room(dispatch) == 0)
		return 0;
	for (DispatchLane *lane = dispatch->lanes; lane != NULL; lane = lane->next)
	{
		if (lane->lost || (lane->head == NULL && !lane->dirty))
			continue;
		if (n == dispatch->places_size)
		{
			dispatch->places_size = 2 * dispatch->places_size + 8;
			dispatch->places = MemRealloc(dispatch->places, dispatch->places_size * sizeof(SourcePlace));
		}
		dispatch->places[n++] = (SourcePlace) {lane->lane, lane->epoch, lane->newest};
	}
	*held = dispatch->places;
	*nheld = n;
	return room(dispatch);
}
