/*
 * test_dispatch.c
 *		The dispatcher between a source that follows a script and a sink that
 *		does as it is told: what is published, what is acknowledged, and when.
 *
 * Both write what they are asked to do into one log, and the tests compare
 * that.  The clock is the test's, and so nothing here waits.
 */
#include <stdlib.h>

#include "dispatch.h"
#include "mem.h"
#include "tap.h"

#define MEGABYTE	(1024 * 1024)

static int64_t now;
static Buffer events;			/* what happened, word by word */
static int	messages_out;		/* handed out and not released */

static int64_t
read_clock(void)
{
	return now;
}

/* What happened since the last look. */
static void
happened(const char *expected, const char *name)
{
	if (events.len > 0 && events.data[events.len - 1] == ' ')
		events.len--;
	tap_is(BufferToText(&events), expected, name);
	events.len = 0;
}

/* ---------------------------------------------------------------- the source */

/*
 * The script's words: 7 is a message at that position of lane 0 (a7 of lane 1,
 * b7 of lane 0 in its next epoch, m7 one of 5 MB); | ends a batch, ~ is a wait,
 * ! a reset, # a failure.  Behind its end the source waits, or is done if it
 * was told to finish.
 */
typedef struct FakeSource
{
	Source		base;
	const char *script;
	bool		batch_over;
	bool		finishing;
} FakeSource;

static RelayMessage *
make_message(int lane, int64_t epoch, int64_t position, size_t size)
{
	RelayMessage *message = MemAlloc(sizeof(RelayMessage));
	char	   *text = MemAlloc(32);

	snprintf(text, 32, "%lld", (long long) position);
	message->lane = lane;
	message->epoch = epoch;
	message->position = position;
	message->position_text = (RelayText) {text, strlen(text)};
	message->message_id = message->position_text;
	message->owner = text;
	message->size = size;
	messages_out++;
	return message;
}

static int64_t
next_number(FakeSource *fake)
{
	char	   *end;
	int64_t		number = strtoll(fake->script, &end, 10);

	fake->script = end;
	return number;
}

static SourceStatus
fake_next(Source *source, RelayMessage **message)
{
	FakeSource *fake = (FakeSource *) source;
	char		kind;

	if (fake->batch_over)
		tap_ok(false, "next() was called after the end of a batch");
	while (*fake->script == ' ')
		fake->script++;
	kind = *fake->script;
	if (kind == '\0')
		return fake->finishing ? SOURCE_DONE : SOURCE_WAIT;
	if (kind < '0' || kind > '9')
		fake->script++;
	switch (kind)
	{
		case '|':
			fake->batch_over = true;
			return SOURCE_BATCH_END;
		case '~':
			return SOURCE_WAIT;
		case '!':
			return SOURCE_RESET;
		case '#':
			LogErrorSet(&fake->base.error, "the source failed");
			return SOURCE_FAILED;
		default:
			*message = make_message(kind == 'a', kind == 'b' ? 2 : 1,
									next_number(fake),
									kind == 'm' ? 5 * MEGABYTE : 100);
			return SOURCE_MESSAGE;
	}
}

static void
fake_release(Source *source, RelayMessage *message)
{
	(void) source;
	messages_out--;
	free(message->owner);
	free(message);
}

static void
fake_ack(Source *source, int lane, int64_t epoch, int64_t position)
{
	(void) source;
	BufferAppendf(&events, "ack:%d/%lld:%lld ", lane, (long long) epoch, (long long) position);
}

static void
fake_fetch(Source *source)
{
	FakeSource *fake = (FakeSource *) source;

	fake->batch_over = false;
	if (fake->finishing)
		fake->script = "";
	BufferAppendText(&events, "fetch ");
}

static void
fake_finish(Source *source)
{
	((FakeSource *) source)->finishing = true;
	BufferAppendText(&events, "finish ");
}

static void
fake_source_wait(Source *source, WaitSet *set)
{
	(void) source;
	WaitForFd(set, 100, POLLIN);
}

static void
fake_source_close(Source *source)
{
	(void) source;
}

static const SourceMethods fake_source_methods = {
	.name = "fake",
	.next = fake_next,
	.release = fake_release,
	.ack = fake_ack,
	.fetch = fake_fetch,
	.finish = fake_finish,
	.wait = fake_source_wait,
	.close = fake_source_close
};

/* ---------------------------------------------------------------- the sink */

/*
 * A letter for each publish: o is OK at once, r RETRY, d DOWN, x REJECT; l
 * keeps it for later; f is full, F has failed.  Behind the end all is o.
 */
typedef struct FakeSink
{
	Sink		base;
	const char *plan;
	RelayMessage *held[2000];
	int			nheld;
	bool		fails;			/* the next poll does */
} FakeSink;

static void
fake_report(FakeSink *fake, RelayMessage *message, char outcome)
{
	fake->base.report(fake->base.context, message,
					  outcome == 'o' ? SINK_OK : outcome == 'r' ? SINK_RETRY :
					  outcome == 'd' ? SINK_DOWN : SINK_REJECT,
					  outcome == 'o' ? NULL : "told to");
}

static SinkStatus
fake_failure(FakeSink *fake)
{
	LogErrorSet(&fake->base.error, "the sink failed");
	return SINK_FAILED;
}

static SinkStatus
fake_publish(Sink *sink, RelayMessage *message)
{
	FakeSink   *fake = (FakeSink *) sink;
	char		outcome = *fake->plan != '\0' ? *fake->plan++ : 'o';

	if (outcome == 'f')
		return SINK_FULL;
	BufferAppendf(&events, "%lld ", (long long) message->position);
	if (outcome == 'F')
		return fake_failure(fake);
	if (outcome == 'l')
		fake->held[fake->nheld++] = message;
	else
		fake_report(fake, message, outcome);
	return SINK_READY;
}

/* The outcome of a message that was kept, as if the far side had answered. */
static void
answer(FakeSink *fake, int64_t position, char outcome)
{
	for (int i = 0; i < fake->nheld; i++)
	{
		RelayMessage *message = fake->held[i];

		if (message->position != position)
			continue;
		fake->held[i] = fake->held[--fake->nheld];
		fake_report(fake, message, outcome);
		return;
	}
	tap_ok(false, "the sink does not have %lld", (long long) position);
}

static SinkStatus
fake_poll(Sink *sink)
{
	FakeSink   *fake = (FakeSink *) sink;

	return fake->fails ? fake_failure(fake) : SINK_READY;
}

static SinkStatus
fake_flush(Sink *sink)
{
	(void) sink;
	return SINK_READY;
}

static void
fake_sink_wait(Sink *sink, WaitSet *set)
{
	(void) sink;
	WaitForFd(set, 200, POLLOUT);
}

static void
fake_sink_close(Sink *sink)
{
	(void) sink;
}

static const SinkMethods fake_sink_methods = {
	.name = "fake",
	.publish = fake_publish,
	.poll = fake_poll,
	.flush = fake_flush,
	.wait = fake_sink_wait,
	.close = fake_sink_close
};

/* ---------------------------------------------------------------- the tests */

static FakeSource source;
static FakeSink sink;
static Dispatch dispatch;

static void
begin(const char *script, const char *plan)
{
	source = (FakeSource) {.base.methods = &fake_source_methods,.script = script};
	memset(&sink, 0, sizeof(sink));
	sink.base.methods = &fake_sink_methods;
	sink.plan = plan;
	events.len = 0;
	DispatchInit(&dispatch, &source.base, &sink.base);
}

static void
run(DispatchStatus expected, const char *name)
{
	DispatchStatus status = DispatchRun(&dispatch);

	if (!tap_ok(status == expected, "%s", name))
		fprintf(stderr, "# status %d, error \"%s\"\n", status, dispatch.error.text);
}

static void
end(void)
{
	DispatchClose(&dispatch);
	if (messages_out != 0)
		tap_ok(false, "%d messages were not released", messages_out);
	messages_out = 0;
}

/* Whether the dispatcher sleeps on a descriptor; when it wants to wake. */
static bool
waits_for(int fd, int64_t *deadline)
{
	WaitSet		set = {0};
	bool		found = false;

	WaitSetClear(&set);
	DispatchWait(&dispatch, &set);
	for (int i = 0; i < set.nfds; i++)
		found |= set.fds[i].fd == fd;
	if (deadline != NULL)
		*deadline = set.deadline;
	WaitSetFree(&set);
	return found;
}

static void
test_confirmation(void)
{
	begin("1 2 ~ 5 | 6 |", "");
	run(DISPATCH_WAIT, "the source has no more for now");
	happened("1 2", "what has come is published at once, and not acknowledged yet");
	run(DISPATCH_WAIT, "the rest comes");
	happened("5 ack:0/1:5 fetch 6 ack:0/1:6 fetch", "each batch is acknowledged as a whole");
	tap_ok(dispatch.delivered == 4, "four were delivered");
	end();

	begin("1 2 3 | 4 |", "lll");
	run(DISPATCH_WAIT, "the sink keeps all three");
	happened("1 2 3", "nothing is acknowledged before it is confirmed");
	tap_ok(!waits_for(100, NULL) && waits_for(200, NULL), "it is the sink that we wait for");
	answer(&sink, 3, 'o');
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "the later two are confirmed");
	happened("", "but the first is not: no acknowledgement");
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "now the first");
	happened("ack:0/1:3 fetch 4 ack:0/1:4 fetch", "the prefix is whole");
	end();

	begin("1 a2 3 a4 b5 |", "");
	run(DISPATCH_WAIT, "two lanes, and a new epoch of one");
	happened("1 2 3 4 5 ack:0/1:3 ack:1/1:4 ack:0/2:5 fetch", "each is acknowledged for itself");
	end();
}

static void
test_retry(void)
{
	int64_t		deadline;
	int64_t		longest = 0;

	begin("1 2 3 4 |", "olll");
	run(DISPATCH_WAIT, "2, 3 and 4 are with the sink");
	answer(&sink, 2, 'r');
	run(DISPATCH_WAIT, "2 failed");
	happened("1 2 3 4", "it is not published while the sink owes answers for 3 and 4");
	now += WAIT_S(60);
	answer(&sink, 3, 'r');
	answer(&sink, 4, 'r');
	run(DISPATCH_WAIT, "they failed too");
	happened("", "it is not published before the pause is over");
	waits_for(200, &deadline);
	tap_ok(deadline >= now && deadline <= now + WAIT_MS(100), "the first pause is up to 100 ms");
	now = deadline;
	run(DISPATCH_WAIT, "the pause is over");
	happened("2 3 4 ack:0/1:4 fetch", "what was not confirmed is published again, in order");
	end();

	begin("1 2 3 |", "llll");
	run(DISPATCH_WAIT, "three are with the sink");
	answer(&sink, 2, 'o');
	answer(&sink, 1, 'r');
	answer(&sink, 3, 'r');
	now += WAIT_S(60);
	run(DISPATCH_WAIT, "the second, of another key, was confirmed, the others failed");
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "now the first is too");
	happened("1 2 3 1 3 ack:0/1:3 fetch", "what was confirmed is not published again");
	end();

	begin("1 2 |", "dddddddddddd");
	for (int i = 0; i < 12; i++)
	{
		run(DISPATCH_WAIT, "the sink is down");
		waits_for(200, &deadline);
		if (deadline - now > longest)
			longest = deadline - now;
		tap_ok(deadline - now <= WAIT_S(30), "the pause is at most 30 s");
		now = deadline;
	}
	tap_ok(longest > WAIT_MS(200), "the pauses grow");
	run(DISPATCH_WAIT, "the sink is back");
	happened("1 1 1 1 1 1 1 1 1 1 1 1 1 2 ack:0/1:2 fetch", "the first is tried alone until then");
	tap_ok(dispatch.backoff.attempts == 0, "and the pauses start anew");
	end();
}

static void
test_failure(void)
{
	begin("1 2 3 | 4 |", "ox");
	run(DISPATCH_FAILED, "a rejected message ends it");
	happened("1 2 finish ack:0/1:1 fetch", "what was confirmed before it is acknowledged, nothing after it published");
	tap_is(dispatch.error.text, "the sink rejected message 2 at position 2: told to", "the error names it");
	end();

	begin("1 2 3 | 4 |", "offx");
	run(DISPATCH_WAIT, "the sink is full, two wait");
	run(DISPATCH_FAILED, "and rejects the first of them");
	happened("1 2 finish ack:0/1:1 fetch", "the other is not published any more");
	end();

	begin("1 2 3 | 4 |", "oF");
	run(DISPATCH_FAILED, "a sink that fails ends it");
	happened("1 2 finish ack:0/1:1 fetch", "what was confirmed before is acknowledged");
	tap_is(dispatch.error.text, "the sink failed", "the sink says why");
	end();

	begin("1 2 | ", "ll");
	run(DISPATCH_WAIT, "two are with the sink");
	sink.fails = true;
	run(DISPATCH_FAILED, "which fails between batches");
	happened("1 2 finish fetch", "nothing was confirmed, nothing is acknowledged");
	end();

	begin("1 2 # ", "");
	run(DISPATCH_FAILED, "a source that fails ends it");
	happened("1 2 finish", "without an acknowledgement");
	tap_is(dispatch.error.text, "the source failed", "the source says why");
	end();
}

static void
test_backpressure(void)
{
	begin("1 2 3 |", "off");
	run(DISPATCH_WAIT, "the sink is full");
	happened("1", "the second waits");
	run(DISPATCH_WAIT, "poll made room");
	happened("2 3 ack:0/1:3 fetch", "it is offered again, in order");
	end();

	begin("m1 m2 m3 m4 |", "llll");
	run(DISPATCH_WAIT, "messages of 5 MB");
	happened("1 2", "no more are read once 8 MB are in the window");
	tap_ok(!waits_for(100, NULL), "nor waited for");
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "the second is confirmed");
	happened("", "it stays in the window behind the first");
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "the first is confirmed");
	happened("3 4", "there is room again");
	answer(&sink, 3, 'o');
	answer(&sink, 4, 'o');
	run(DISPATCH_WAIT, "all are confirmed");
	happened("ack:0/1:4 fetch", "and acknowledged");
	end();
}

static void
test_reset(void)
{
	begin("1 2 3 ! 1 2 3 4 |", "oll");
	run(DISPATCH_WAIT, "the connection is lost while the sink has two");
	happened("1 2 3", "its answers are waited for");
	answer(&sink, 2, 'o');
	answer(&sink, 3, 'r');
	run(DISPATCH_WAIT, "whatever they are");
	happened("1 2 3 4 ack:0/1:4 fetch", "all comes again, and only then is acknowledged");
	end();

	begin("1 2 3 ! 1 2 3 |", "olf");
	run(DISPATCH_WAIT, "the sink has one of three when the connection is lost");
	run(DISPATCH_WAIT, "and gets room");
	happened("1 2", "what will come again is not published any more");
	answer(&sink, 2, 'd');
	run(DISPATCH_WAIT, "now it has none");
	happened("1 2 3 ack:0/1:3 fetch", "all comes again");
	end();

	begin("1 2 3 ! ! 7 |", "off");
	run(DISPATCH_WAIT, "a reset with messages that the sink does not have");
	happened("1 7 ack:0/1:7 fetch", "they are forgotten");
	end();
}

static void
test_stop(void)
{
	begin("1 2 ~ 3 |", "");
	run(DISPATCH_WAIT, "in the middle of a batch");
	DispatchStop(&dispatch);
	DispatchStop(&dispatch);
	run(DISPATCH_DONE, "a stop ends it");
	happened("1 2 finish 3 ack:0/1:3 fetch", "after the batch in hand");
	end();

	begin("1 2 |", "ll");
	run(DISPATCH_WAIT, "the sink owes answers");
	DispatchStop(&dispatch);
	answer(&sink, 1, 'o');
	now += WAIT_S(19);
	run(DISPATCH_WAIT, "a stop waits for them");
	now += WAIT_S(1);
	run(DISPATCH_FAILED, "but not for ever");
	tap_has(dispatch.error.text, "could not finish in time", "and says so");
	happened("1 2 finish", "nothing was acknowledged: the batch was not read to its end");
	end();

	begin("", "");
	run(DISPATCH_WAIT, "nothing to do");
	DispatchStop(&dispatch);
	run(DISPATCH_DONE, "a stop ends it at once");
	end();
}

/* ---------------------------------------------------------------- at random */

/*
 * A log of LOG_LENGTH messages in two lanes, read from cursors as the database
 * would, by a source whose connection is lost now and then.
 */
#define LOG_LENGTH	300

typedef struct RandomSource
{
	Source		base;
	int64_t		cursor[2];		/* of each lane, what the database knows */
	int64_t		acked[2];		/* told, and not sent */
	int			at;				/* next position to look at */
	int			left;			/* of this batch */
	bool		handed_out;		/* anything of this batch */
	bool		confirmed[LOG_LENGTH + 1];	/* at least once, whatever we forgot */
	bool		lost_one;		/* an acknowledgement went too far */
} RandomSource;

static void
start_batch(RandomSource *from)
{
	for (int lane = 0; lane < 2; lane++)
		from->acked[lane] = from->cursor[lane];
	from->at = 1;
	from->left = 1 + random() % 40;
	from->handed_out = false;
}

static SourceStatus
random_next(Source *base, RelayMessage **message)
{
	RandomSource *from = (RandomSource *) base;

	if (random() % 10 == 0)
		return SOURCE_WAIT;
	if (random() % 100 == 0)
	{
		start_batch(from);
		return SOURCE_RESET;
	}
	for (; from->left > 0 && from->at <= LOG_LENGTH; from->at++)
	{
		int			lane = from->at % 2;

		if (from->at <= from->cursor[lane])
			continue;
		from->left--;
		from->handed_out = true;
		*message = make_message(lane, 1, from->at++, 100);
		return SOURCE_MESSAGE;
	}
	return from->handed_out ? SOURCE_BATCH_END : SOURCE_DONE;
}

static void
random_ack(Source *base, int lane, int64_t epoch, int64_t position)
{
	RandomSource *from = (RandomSource *) base;

	(void) epoch;
	for (int64_t i = 1; i <= position; i++)
		from->lost_one |= i % 2 == lane && !from->confirmed[i];
	from->acked[lane] = position;
}

static void
random_fetch(Source *base)
{
	RandomSource *from = (RandomSource *) base;

	for (int lane = 0; lane < 2; lane++)
		from->cursor[lane] = from->acked[lane];
	start_batch(from);
}

static const SourceMethods random_source_methods = {
	.name = "random",
	.next = random_next,
	.release = fake_release,
	.ack = random_ack,
	.fetch = random_fetch,
	.finish = fake_finish,
	.wait = fake_source_wait,
	.close = fake_source_close
};

/* Answers for the oldest so many, in order; after a failure only failures. */
static void
answer_some(RandomSource *from, int count, int64_t *newest)
{
	bool		failed = false;

	for (int i = 0; i < count; i++)
	{
		RelayMessage *message = sink.held[i];
		int64_t		position = message->position;

		failed = failed || random() % 10 == 0;
		if (!failed)
		{
			if (!from->confirmed[position] && position < newest[position % 2])
				tap_ok(false, "%lld was confirmed for the first time after a later one of its lane", (long long) position);
			from->confirmed[position] = true;
			if (position > newest[position % 2])
				newest[position % 2] = position;
		}
		fake_report(&sink, message, !failed ? 'o' : random() % 2 ? 'r' : 'd');
	}
	sink.nheld -= count;
	memmove(sink.held, sink.held + count, sink.nheld * sizeof(sink.held[0]));

	/* The sink's contract: what was handed over behind a failure fails too. */
	for (int i = 0; failed && i < sink.nheld; i++)
		fake_report(&sink, sink.held[i], 'r');
	if (failed)
		sink.nheld = 0;
}

static void
test_random(unsigned seed)
{
	static char plan[4096];
	RandomSource from = {.base.methods = &random_source_methods};
	int64_t		newest[2] = {0, 0};
	DispatchStatus status = DISPATCH_WAIT;
	int			missing = 0;
	int			runs = 0;

	srandom(seed);
	begin("", plan);
	start_batch(&from);
	DispatchInit(&dispatch, &from.base, &sink.base);
	while (status == DISPATCH_WAIT && ++runs < 100000)
	{
		memset(plan, 'l', sizeof(plan) - 1);
		if (random() % 3 == 0)
			plan[random() % 20] = 'f';
		sink.plan = plan;
		now += WAIT_S(1);
		status = DispatchRun(&dispatch);
		if (sink.nheld > 0)
			answer_some(&from, random() % (sink.nheld + 1), newest);
	}
	for (int i = 1; i <= LOG_LENGTH; i++)
		missing += !from.confirmed[i];
	tap_ok(status == DISPATCH_DONE && missing == 0 && !from.lost_one,
		   "seed %u: %d runs, %d missing%s", seed, runs, missing,
		   from.lost_one ? ", acknowledged too far" : "");
	events.len = 0;
	end();
}

int
main(void)
{
	WaitClock = read_clock;
	LogSetLevel(LOG_ERROR);
	srandom(1);
	test_confirmation();
	test_retry();
	test_failure();
	test_backpressure();
	test_reset();
	test_stop();
	for (unsigned seed = 1; seed <= 50; seed++)
		test_random(seed);
	BufferFree(&events);
	return tap_done();
}
