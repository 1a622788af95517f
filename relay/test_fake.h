/*
 * test_fake.h
 *		For tests of the dispatcher: a clock, and a sink that does as it is told.
 *
 * All of it writes what it is asked to do into one log, and the tests compare
 * that.  The clock is the test's, and so nothing waits.
 */
#ifndef TEST_FAKE_H
#define TEST_FAKE_H

#include <stdlib.h>

#include "dispatch.h"
#include "mem.h"
#include "tap.h"

#define MEGABYTE	(1024 * 1024)

static int64_t now = WAIT_S(1000);
static Buffer events;			/* what happened, word by word */
static int	messages_out;		/* handed out and not released */

static int64_t
read_clock(void)
{
	return now;
}

/* What happened since the last look. */
static inline void
happened(const char *expected, const char *name)
{
	if (events.len > 0 && events.data[events.len - 1] == ' ')
		events.len--;
	tap_is(BufferToText(&events), expected, name);
	events.len = 0;
}

/* A message of a fake source; a key of 0 is none. */
static inline RelayMessage *
make_message(int lane, int64_t epoch, int64_t position, char key, size_t size)
{
	RelayMessage *message = MemAlloc(sizeof(RelayMessage) + 34);
	char	   *text = (char *) (message + 1);

	snprintf(text, 32, "%lld", (long long) position);
	text[32] = key;
	message->lane = lane;
	message->epoch = epoch;
	message->position = position;
	message->position_text = (RelayText) {text, strlen(text)};
	message->message_id = message->position_text;
	if (key != 0)
		message->key = (RelayText) {text + 32, 1};
	message->size = size;
	messages_out++;
	return message;
}

static inline void
free_message(Source *source, RelayMessage *message)
{
	(void) source;
	messages_out--;
	free(message);
}

/*
 * The sink's plan, a letter for each publish: o is OK at once, r RETRY, d DOWN,
 * x REJECT, s SPLIT; l keeps it for later; f is full, D too and all it had kept
 * is DOWN, F has failed.  Behind the end all is o.
 *
 * With units, it keeps what it is given until flush, and then all is OK, but a
 * unit with a message whose position is a multiple of poison is refused: as a
 * whole, or if it is alone for good.
 */
typedef struct FakeSink
{
	Sink		base;
	const char *plan;
	RelayMessage *held[2000];
	int			nheld;
	bool		fails;			/* the next poll does */
	int			poison;			/* 0: no units */
	int			flushes;		/* of units with something in them */
} FakeSink;

static inline void
fake_report(FakeSink *fake, RelayMessage *message, char letter)
{
	static const char letters[] = "orxds";	/* in the order of SinkOutcome */
	SinkOutcome outcome = strchr(letters, letter) - letters;

	fake->base.report(fake->base.context, message, outcome, letter == 'o' ? NULL : "told to");
}

static inline SinkStatus
fake_failure(FakeSink *fake)
{
	LogErrorSet(&fake->base.error, "the sink failed");
	return SINK_FAILED;
}

static inline SinkStatus
fake_publish(Sink *sink, RelayMessage *message)
{
	FakeSink   *fake = (FakeSink *) sink;
	char		letter = fake->poison > 0 ? 'l' : *fake->plan != '\0' ? *fake->plan++ : 'o';

	while (letter == 'D' && fake->nheld > 0)
		fake_report(fake, fake->held[--fake->nheld], 'd');
	if (letter == 'f' || letter == 'D')
		return SINK_FULL;
	BufferAppendf(&events, "%lld ", (long long) message->position);
	if (letter == 'F')
		return fake_failure(fake);
	if (letter == 'l')
		fake->held[fake->nheld++] = message;
	else
		fake_report(fake, message, letter);
	return SINK_READY;
}

/* The outcome of a message that was kept, as if the far side had answered. */
static inline void
answer(FakeSink *fake, int64_t position, char letter)
{
	for (int i = 0; i < fake->nheld; i++)
	{
		RelayMessage *message = fake->held[i];

		if (message->position != position)
			continue;
		fake->nheld--;
		memmove(&fake->held[i], &fake->held[i + 1], (fake->nheld - i) * sizeof(fake->held[0]));
		fake_report(fake, message, letter);
		return;
	}
	tap_ok(false, "the sink does not have %lld", (long long) position);
}

static inline SinkStatus
fake_poll(Sink *sink)
{
	FakeSink   *fake = (FakeSink *) sink;

	return fake->fails ? fake_failure(fake) : SINK_READY;
}

static inline SinkStatus
fake_flush(Sink *sink)
{
	FakeSink   *fake = (FakeSink *) sink;
	int			nheld = fake->nheld;
	bool		refused = false;

	if (fake->poison == 0 || nheld == 0)
		return SINK_READY;
	BufferAppendText(&events, "| ");
	fake->flushes++;
	for (int i = 0; i < nheld; i++)
		refused |= fake->held[i]->position % fake->poison == 0;
	fake->nheld = 0;
	for (int i = 0; i < nheld; i++)
		fake_report(fake, fake->held[i], !refused ? 'o' : nheld > 1 ? 's' : 'x');
	return SINK_READY;
}

static inline void
fake_revoke(Sink *sink, int lane, int64_t epoch)
{
	(void) sink;
	BufferAppendf(&events, "revoke:%d/%lld ", lane, (long long) epoch);
}

static inline void
fake_sink_wait(Sink *sink, WaitSet *set)
{
	(void) sink;
	WaitForFd(set, 200, POLLOUT);
}

static inline void
fake_sink_close(Sink *sink)
{
	(void) sink;
}

static const SinkMethods fake_sink_methods = {
	.name = "fake",
	.publish = fake_publish,
	.poll = fake_poll,
	.flush = fake_flush,
	.revoke = fake_revoke,
	.wait = fake_sink_wait,
	.close = fake_sink_close
};

static FakeSink sink;
static Dispatch dispatch;
static PipelineConfig config;

/* A dispatcher between a source and the sink with a plan. */
static inline void
begin_with(Source *source, const char *plan)
{
	memset(&sink, 0, sizeof(sink));
	sink.base.methods = &fake_sink_methods;
	sink.plan = plan;
	events.len = 0;
	DispatchInit(&dispatch, &config, source, &sink.base);
}

static inline void
set_config(void)
{
	config = (PipelineConfig)
	{
		.batch_size = 1000,.window_messages = 10000,.window_bytes = 8 * MEGABYTE,
			.ack_interval_ms = 0,.drain_limit_s = 20
	};
}

static inline void
end(void)
{
	DispatchClose(&dispatch);
	if (messages_out != 0)
		tap_ok(false, "%d messages were not released", messages_out);
	messages_out = 0;
	set_config();
}

#endif							/* TEST_FAKE_H */
