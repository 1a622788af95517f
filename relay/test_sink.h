/*
 * test_sink.h
 *		For tests of sinks: messages, and a caller that keeps the contract of
 *		sink.h.
 */
#ifndef TEST_SINK_H
#define TEST_SINK_H

#include <stdlib.h>

#include "mem.h"
#include "sink.h"
#include "tap.h"

#define MOST		3000
#define PATIENCE	WAIT_S(60)	/* for anything at all */

static Sink *sink;				/* the one at hand */
static RelayMessage messages[MOST];
static char names[MOST][16];
static int	reported;			/* how many have an outcome: whoever notes them counts */
static int	published;

static inline RelayText
text(const char *data)
{
	return (RelayText) {data, data != NULL ? strlen(data) : 0};
}

/* Opens the sink at hand, whose outcomes go to note. */
static inline void
open_sink(const SinkMethods *methods, const void *settings,
		  void (*note) (void *context, RelayMessage *message, SinkOutcome outcome, const char *reason))
{
	LogError	error;

	reported = published = 0;
	sink = methods->open(settings, NULL, &error);
	if (sink == NULL)
	{
		tap_ok(false, "open: %s", error.text);
		exit(1);
	}
	sink->report = note;
}

static inline void
end(void)
{
	sink->methods->close(sink);
}

/* Message n of a key, or of none.  Like a message's own, its texts do not end in a zero byte. */
static inline RelayMessage *
message(int n, const char *key)
{
	RelayText	number = {names[n], snprintf(names[n], sizeof(names[n]), "%d", n)};

	names[n][number.len] = '~';
	messages[n] = (RelayMessage) {
		.lane = n % 4,
		.epoch = 1,
		.position = n,
		.position_text = number,
		.incarnation = text("i"),
		.message_id = number,
		.topic = text("order"),
		.type = text("OrderPlaced"),
		.source = text("/es_pg/shop"),
		.key = text(key),
		.content_type = text("application/json"),
		.payload = number
	};
	return &messages[n];
}

/* One turn of the main loop. */
static inline void
turn(void)
{
	static WaitSet set;

	WaitSetClear(&set);
	sink->methods->wait(sink, &set);
	WaitUntil(&set, WaitNow() + WAIT_MS(100));
	WaitSleep(&set);
	sink->methods->poll(sink);
}

static inline void
publish(RelayMessage *message)
{
	int64_t		until = WaitNow() + PATIENCE;

	while (sink->methods->publish(sink, message) == SINK_FULL && WaitNow() < until)
		turn();
	published++;
}

/* Whether all that was published has its outcome. */
static inline bool
settle(void)
{
	int64_t		until = WaitNow() + PATIENCE;

	sink->methods->flush(sink);
	while (reported < published && WaitNow() < until)
		turn();
	return reported == published;
}

#endif							/* TEST_SINK_H */
