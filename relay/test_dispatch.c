/*
 * test_dispatch.c
 *		The dispatcher between a source that follows a script and a sink that
 *		does as it is told: what is published, what is acknowledged, and when.
 */
#include "test_fake.h"

/*
 * The script's words: 7 is a message at that position of lane 0 (a7 of lane 1,
 * b7 of lane 0 in its next epoch, m7 one of 5 MB), and 7x has the key x; ~ is a
 * wait, ! a reset, # a failure, L the loss of lane 0, E the end, P7:8,9 the
 * answer to a nack of 7, with 8 and 9 parked behind, R the answer to a renewal:
 * lane 1 in its first epoch.  Behind its end the source
 * waits, or is done if it was told to finish.
 */
typedef struct FakeSource
{
	Source		base;
	const char *script;
	bool		finishing;
	int64_t		behind[10];
} FakeSource;

static int64_t
next_number(FakeSource *fake)
{
	char	   *end;
	int64_t		number = strtoll(fake->script, &end, 10);

	fake->script = end;
	return number;
}

static SourceStatus
next_message(FakeSource *fake, char kind, SourceEvent *event)
{
	int64_t		position = next_number(fake);
	char		key = *fake->script >= 'a' && *fake->script <= 'z' ? *fake->script++ : 0;

	event->message = make_message(kind == 'a', kind == 'b' ? 2 : 1, position, key,
								  kind == 'm' ? 5 * MEGABYTE : 100);
	return SOURCE_MESSAGE;
}

static SourceStatus
next_parked(FakeSource *fake, SourceEvent *event)
{
	event->epoch = 1;
	event->position = next_number(fake);
	event->behind = fake->behind;
	while (*fake->script == ':' || *fake->script == ',')
	{
		fake->script++;
		fake->behind[event->nbehind++] = next_number(fake);
	}
	return SOURCE_PARKED;
}

static const SourcePlace lane_one = {.lane = 1,.epoch = 1};

static SourceStatus
fake_next(Source *source, SourceEvent *event)
{
	FakeSource *fake = (FakeSource *) source;
	char		kind;

	while (*fake->script == ' ')
		fake->script++;
	kind = *fake->script;
	if (kind == '\0')
		return fake->finishing ? SOURCE_DONE : SOURCE_WAIT;
	if (kind < '0' || kind > '9')
		fake->script++;
	switch (kind)
	{
		case '~':
			return SOURCE_WAIT;
		case '!':
			return SOURCE_RESET;
		case 'E':
			return SOURCE_END;
		case 'L':
			event->epoch = 1;
			return SOURCE_LOST;
		case 'R':
			event->lanes = &lane_one;
			event->nlanes = 1;
			return SOURCE_LANES;
		case 'P':
			return next_parked(fake, event);
		case '#':
			LogErrorSet(&fake->base.error, "the source failed");
			return SOURCE_FAILED;
		default:
			return next_message(fake, kind, event);
	}
}

static void
fake_ack(Source *source, const SourcePlace *place)
{
	(void) source;
	BufferAppendf(&events, "ack:%d/%lld:%lld ", place->lane, (long long) place->epoch,
				  (long long) place->position);
}

static void
fake_nack(Source *source, const SourcePlace *place, const char *text, bool reject)
{
	(void) source;
	(void) text;
	BufferAppendf(&events, "%s:%lld ", reject ? "reject" : "nack", (long long) place->position);
}

static void
fake_renew(Source *source)
{
	(void) source;
	BufferAppendText(&events, "renew ");
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
	.release = free_message,
	.ack = fake_ack,
	.nack = fake_nack,
	.renew = fake_renew,
	.finish = fake_finish,
	.wait = fake_source_wait,
	.close = fake_source_close
};

/* ---------------------------------------------------------------- what the tests do */

static FakeSource source;

static void
begin(const char *script, const char *plan)
{
	source = (FakeSource) {.base.methods = &fake_source_methods,.script = script};
	begin_with(&source.base, plan);
}

static void
run(DispatchStatus expected, const char *name)
{
	DispatchStatus status = DispatchRun(&dispatch);

	if (!tap_ok(status == expected, "%s", name))
		fprintf(stderr, "# status %d, error \"%s\"\n", status, dispatch.error.text);
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

/* What the source would be told now: `room lane/epoch:position...` */
static void
demands(const char *expected, const char *name)
{
	const SourcePlace *held;
	int			nheld;
	Buffer		text = {0};

	BufferAppendf(&text, "%d", source.base.demand(source.base.context, &held, &nheld));
	for (int i = 0; i < nheld; i++)
		BufferAppendf(&text, " %d/%lld:%lld", held[i].lane, (long long) held[i].epoch,
					  (long long) held[i].position);
	tap_is(BufferToText(&text), expected, name);
	BufferFree(&text);
}

/* ---------------------------------------------------------------- confirming */

static void
test_confirmation(void)
{
	begin("1 2 ~ 5", "");
	run(DISPATCH_WAIT, "the source has no more for now");
	happened("1 2 ack:0/1:2 5 ack:0/1:5", "what came is published at once, and acknowledged");
	tap_ok(dispatch.counts.delivered == 3, "three were delivered");
	end();

	begin("1 2 3", "lll");
	run(DISPATCH_WAIT, "the sink keeps all three");
	happened("1 2 3", "nothing is acknowledged before it is confirmed");
	tap_ok(waits_for(100, NULL) && waits_for(200, NULL), "we wait for both sides");
	answer(&sink, 3, 'o');
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "the later two are confirmed");
	happened("", "but the first is not: no acknowledgement");
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "now the first");
	happened("ack:0/1:3", "the prefix is whole");
	end();

	begin("1 2 3", "lll");
	run(DISPATCH_WAIT, "three are with the sink");
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "the first is confirmed");
	happened("1 2 3 ack:0/1:1", "it is acknowledged while the others are on their way");
	end();

	begin("1 a2 3 a4", "");
	run(DISPATCH_WAIT, "two lanes");
	happened("1 2 3 4 ack:1/1:4 ack:0/1:3", "each is acknowledged for itself");
	end();
}

static void
test_checkpoints(void)
{
	int64_t		deadline;

	begin("1 ~ 2 ~", "oll");
	config.ack_interval_ms = 100;
	run(DISPATCH_WAIT, "the first confirmation in a while");
	happened("1 ack:0/1:1 2", "is acknowledged at once");
	now += WAIT_MS(10);
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "another one soon after");
	happened("", "is not yet");
	waits_for(200, &deadline);
	tap_ok(deadline == now + WAIT_MS(90), "but when the interval is over");
	now = deadline;
	run(DISPATCH_WAIT, "it is over");
	happened("ack:0/1:2", "and it is");
	end();

	begin("7", "l");
	config.ack_interval_ms = 100;
	now += WAIT_S(10);
	run(DISPATCH_WAIT, "the sink never answers");
	events.len = 0;
	for (int i = 0; i < 3; i++)
	{
		waits_for(200, &deadline);
		tap_ok(deadline <= now + WAIT_S(3), "at least every three seconds");
		now = deadline;
		run(DISPATCH_WAIT, "the time comes");
		happened("renew", "there is a sign of life");
	}
	end();
}

/* ---------------------------------------------------------------- failures of messages */

static void
test_retry(void)
{
	begin("1x 2y 3x 4y", "llll");
	run(DISPATCH_WAIT, "four are with the sink");
	answer(&sink, 2, 'o');
	answer(&sink, 4, 'o');
	answer(&sink, 1, 'r');
	run(DISPATCH_WAIT, "the first fails");
	happened("1 2 3 4 nack:1", "the database is told; nothing is acknowledged before it has answered");
	answer(&sink, 3, 'd');
	source.script = "P1:3";
	run(DISPATCH_WAIT, "it answers; what the sink had of that key failed, too");
	happened("ack:0/1:4", "both are passed, and not given again");
	tap_ok(dispatch.counts.retried == 1 && dispatch.counts.delivered == 2, "one failed, two were delivered");
	end();

	begin("1x 2x 3y", "lll");
	run(DISPATCH_WAIT, "three are with the sink");
	answer(&sink, 1, 'x');
	answer(&sink, 2, 'o');
	answer(&sink, 3, 'o');
	source.script = "P1:2 4x 5x 6z";
	run(DISPATCH_WAIT, "one is rejected, and the sink confirms one of its key behind it");
	happened("1 2 3 reject:1 4 5 6 ack:0/1:6", "after the answer its key goes on");
	tap_ok(dispatch.counts.in_vain == 1, "what was confirmed in vain is counted");
	end();

	begin("1x 2 3", "rlo");
	run(DISPATCH_WAIT, "a message without a key");
	answer(&sink, 2, 'r');
	source.script = "P1 P2 4";
	run(DISPATCH_WAIT, "fails alone");
	happened("1 nack:1 2 3 nack:2 4 ack:0/1:4", "others without a key go on");
	end();

	begin("1x ~", "r");
	run(DISPATCH_WAIT, "a message failed");
	source.script = "2x 3y 4x";
	run(DISPATCH_WAIT, "more of its key comes, fetched before the database knew");
	happened("1 nack:1 3", "it is parked there, so it is not published");
	source.script = "P1:2,4 5x";
	run(DISPATCH_WAIT, "the answer");
	happened("5 ack:0/1:5", "and what comes behind it is new");
	end();

	begin("1x 2q 3y", "rll");
	run(DISPATCH_WAIT, "the database knows better which are of a key");
	answer(&sink, 3, 'o');
	source.script = "P1:2";
	run(DISPATCH_WAIT, "it parked one that we would not have");
	answer(&sink, 2, 'r');
	run(DISPATCH_WAIT, "which the sink has");
	happened("1 nack:1 2 3 ack:0/1:1 ack:0/1:3", "its failure is no second one");
	end();

	begin("1x 2x 3x", "lll");
	run(DISPATCH_WAIT, "three of a key are with the sink");
	answer(&sink, 2, 'r');
	answer(&sink, 1, 'r');
	answer(&sink, 3, 'r');
	source.script = "P2:3 P1:2,3";
	run(DISPATCH_WAIT, "a later one fails first, then the first");
	happened("1 2 3 nack:2 nack:1 ack:0/1:3", "both are told, the third is not");
	end();
}

/* ---------------------------------------------------------------- DOWN */

static void
test_down(void)
{
	int64_t		deadline;
	int64_t		longest = 0;

	begin("1x 2y 3x", "lll");
	run(DISPATCH_WAIT, "three are with the sink");
	answer(&sink, 2, 'd');
	answer(&sink, 1, 'o');
	now += WAIT_S(2);
	run(DISPATCH_WAIT, "one is down; the sink owes an answer");
	happened("1 2 3 ack:0/1:1", "it is not given again before that");
	answer(&sink, 3, 'd');
	run(DISPATCH_WAIT, "the last answer");
	happened("", "nor before the pause is over");
	waits_for(200, &deadline);
	tap_ok(deadline >= now && deadline <= now + WAIT_MS(200), "the first pause is short");
	now = deadline;
	sink.plan = "l";
	run(DISPATCH_WAIT, "the pause is over");
	happened("2", "one is given, to see");
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "it is confirmed");
	happened("3 ack:0/1:3", "the others follow");
	tap_ok(dispatch.counts.downs == 2 && dispatch.counts.retried == 0, "nothing was parked");
	end();

	begin("1 2", "lD");
	run(DISPATCH_WAIT, "down while one is given");
	waits_for(200, &deadline);
	tap_ok(deadline <= now + WAIT_MS(200), "the pause begins then, too");
	now = deadline;
	run(DISPATCH_WAIT, "the pause is over");
	happened("1 1 2 ack:0/1:2", "both are given, in order");
	end();

	begin("1 2", "dddddddddddd");
	for (int i = 0; i < 12; i++)
	{
		run(DISPATCH_WAIT, "the sink is down");
		for (;;)				/* signs of life apart */
		{
			waits_for(200, &deadline);
			if (deadline >= dispatch.lanes->hold_until)
				break;
			now = deadline;
			DispatchRun(&dispatch);
		}
		longest = dispatch.lanes->hold_until - now > longest ? dispatch.lanes->hold_until - now : longest;
		tap_ok(dispatch.lanes->hold_until - now <= WAIT_S(30), "the pause is at most 30 s");
		now = dispatch.lanes->hold_until;
		if (i == 0)
			events.len = 0;
	}
	tap_ok(longest > WAIT_MS(200), "the pauses grow");
	end();

	begin("1 a2 3 a4", "dlll");
	run(DISPATCH_WAIT, "one lane is down");
	happened("1 2 4", "the other goes on");
	tap_ok(!dispatch.lanes->holding || !dispatch.lanes->next->holding, "without a pause");
	end();
}

/* ---------------------------------------------------------------- SPLIT */

static void
test_split(void)
{
	begin("1 2 3 4 5 6 7 8", "");
	sink.poison = 6;
	run(DISPATCH_WAIT, "a unit of eight has a poisoned one");
	source.script = "P6 9 ";
	run(DISPATCH_WAIT, "and its answer");
	happened("1 2 3 4 5 6 7 8 | 1 2 3 4 | ack:0/1:4 5 6 7 8 | 5 6 | 5 | ack:0/1:5 "
			 "6 7 | 6 | reject:6 7 8 | 9 | ack:0/1:9",
			 "halves, until it is found; then larger units again");
	tap_ok(dispatch.counts.rejected == 1 && dispatch.counts.delivered == 8, "all others are delivered");
	tap_ok(dispatch.nsuspects == 0, "and nobody is suspected any more");
	end();

	begin("1 2 3 4", "llllffffflloolloo");
	run(DISPATCH_WAIT, "a unit of four");
	for (int n = 1; n <= 4; n++)
		answer(&sink, n, 's');
	for (int n = 0; n < 5; n++)
		run(DISPATCH_WAIT, "is refused by a sink that then has no room");
	happened("1 2 3 4 1 2", "a unit for which there was no room has not passed: it is given as it was");
	end();

	begin("1", "ss");
	run(DISPATCH_WAIT, "a unit of one that is refused without an outcome of its own");
	happened("1 1 nack:1", "has failed when it was alone");
	end();
}

/* ---------------------------------------------------------------- failures of the sides */

static void
test_failure(void)
{
	begin("1 2 3 4", "oF");
	run(DISPATCH_FAILED, "a sink that fails ends it");
	happened("1 2 ack:0/1:1 finish", "what was confirmed before is acknowledged");
	tap_is(dispatch.error.text, "the sink failed", "the sink says why");
	end();

	begin("1 2", "ll");
	run(DISPATCH_WAIT, "two are with the sink");
	sink.fails = true;
	run(DISPATCH_FAILED, "which fails later");
	happened("1 2 finish", "nothing was confirmed, nothing is acknowledged");
	end();

	begin("1 2 # ", "");
	run(DISPATCH_FAILED, "a source that fails ends it");
	happened("1 2", "without an acknowledgement");
	tap_is(dispatch.error.text, "the source failed", "the source says why");
	end();
}

static void
test_backpressure(void)
{
	begin("1 2 3", "off");
	run(DISPATCH_WAIT, "the sink is full, and after flush again");
	happened("1 ack:0/1:1 2 3 ack:0/1:3", "it is offered again, in order");
	end();

	begin("m1 m2 m3 m4", "llll");
	run(DISPATCH_WAIT, "messages of 5 MB");
	happened("1 2", "no more are read once 8 MB are in the window");
	tap_ok(!waits_for(100, NULL), "nor waited for");
	demands("0", "nor asked for");
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "the second is confirmed");
	happened("3", "its bytes are free, though it stands behind the first");
	answer(&sink, 1, 'r');
	run(DISPATCH_WAIT, "the first fails");
	happened("nack:1 4", "its bytes are free before the database has answered");
	end();

	begin("1 2 3 4 5 6 7 8 ~", "llllllll");
	config.window_messages = 10;
	config.batch_size = 4;
	run(DISPATCH_WAIT, "the window has room for two more");
	demands("2 0/1:8", "they are asked for, behind what we have");
	source.script = "9 a10";
	sink.plan = "ll";
	run(DISPATCH_WAIT, "they come");
	demands("0", "now it is full");
	for (int i = 1; i <= 9; i++)
		answer(&sink, i, 'o');
	demands("4 1/1:10 0/1:9", "a lane that is not acknowledged is held");
	run(DISPATCH_WAIT, "it is acknowledged");
	demands("4 1/1:10", "and not held any more");
	end();

	begin("m1 m2 ~", "oo");
	for (int i = 0; i < 40; i++)
	{
		source.script = "m1 m2";
		DispatchRun(&dispatch);
	}
	demands("2", "of large messages few are asked for");
	end();
}

/* ---------------------------------------------------------------- lanes that are lost */

static void
test_loss(void)
{
	begin("1 2 3 ! 1 2 3", "oll");
	run(DISPATCH_WAIT, "the connection is lost while the sink has two");
	happened("1 2 3 revoke:0/1", "they are revoked; what comes again waits for them") ;
	tap_ok(dispatch.with_sink == 2, "for their outcomes are due");
	answer(&sink, 2, 'o');
	answer(&sink, 3, 'd');
	run(DISPATCH_WAIT, "whatever they are");
	happened("1 2 3 ack:0/1:3", "all comes again, and only then is acknowledged");
	tap_ok(dispatch.counts.in_vain == 1, "one was delivered in vain");
	end();

	begin("1 a2 3 a4 L 5", "llll");
	run(DISPATCH_WAIT, "a lane is lost");
	happened("1 2 3 4 revoke:0/1", "what is there of it is revoked, the rest of it dropped");
	answer(&sink, 2, 'o');
	answer(&sink, 4, 'o');
	run(DISPATCH_WAIT, "the other lane");
	happened("ack:1/1:4", "goes on");
	source.script = "b1 b3";
	run(DISPATCH_WAIT, "it comes back in another epoch");
	happened("", "and waits for what the sink has of the old one");
	answer(&sink, 3, 'd');
	answer(&sink, 1, 'd');
	run(DISPATCH_WAIT, "which it reports");
	happened("1 3 ack:0/2:3", "then it is given again");
	end();

	begin("1 a2 R", "ll");
	run(DISPATCH_WAIT, "a sign of life is answered with one of two lanes");
	happened("1 2 revoke:0/1", "the other is lost");
	answer(&sink, 2, 'o');
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "the one that is kept");
	happened("ack:1/1:2", "goes on");
	end();

	begin("1x ! P1 2", "r");
	run(DISPATCH_WAIT, "a failure that the database may not know of");
	happened("1 nack:1 2 ack:0/1:2", "is forgotten with its lane");
	end();
}

/* ---------------------------------------------------------------- leaving */

static void
test_stop(void)
{
	int64_t		deadline;

	begin("1 2 3", "of");
	config.window_bytes = 250;
	run(DISPATCH_WAIT, "under way");
	DispatchStop(&dispatch);
	DispatchStop(&dispatch);
	source.script = "4 5";
	run(DISPATCH_DONE, "a stop ends it");
	happened("1 2 3 ack:0/1:3 finish", "what comes meanwhile is not published");
	end();

	begin("1 2 3", "lll");
	run(DISPATCH_WAIT, "the sink owes answers");
	DispatchStop(&dispatch);
	answer(&sink, 1, 'o');
	run(DISPATCH_WAIT, "a stop waits for them");
	happened("1 2 3 ack:0/1:1", "and acknowledges meanwhile");
	answer(&sink, 2, 'd');
	now += WAIT_S(19);
	run(DISPATCH_WAIT, "down or not, nothing is given again");
	happened("renew", "there is but a sign of life");
	waits_for(200, &deadline);
	now += WAIT_S(1);
	tap_ok(deadline <= now, "but it does not wait for ever");
	run(DISPATCH_FAILED, "the limit is reached");
	tap_has(dispatch.error.text, "could not finish in time", "and says so");
	happened("finish", "the lanes are handed over all the same");
	end();

	begin("1x", "r");
	run(DISPATCH_WAIT, "a failure, of which the database knows nothing yet");
	DispatchStop(&dispatch);
	run(DISPATCH_WAIT, "a stop waits for the database, too");
	source.script = "P1";
	run(DISPATCH_DONE, "which answers");
	happened("1 nack:1 ack:0/1:1 finish", "then the lanes are handed over");
	end();

	begin("1", "l");
	run(DISPATCH_WAIT, "one is with the sink");
	DispatchStop(&dispatch);
	source.script = "!";
	run(DISPATCH_WAIT, "and the connection is lost");
	answer(&sink, 1, 'o');
	run(DISPATCH_FAILED, "who wants to stop does not connect again");
	tap_has(dispatch.error.text, "connection to the database was lost", "and says so");
	end();

	begin("1 2 E E E E E E E E E E E E", "ol");
	run(DISPATCH_WAIT, "the source is drained, the sink not");
	answer(&sink, 2, 'o');
	run(DISPATCH_WAIT, "now it is");
	source.script = "";
	run(DISPATCH_DONE, "so it is done");
	happened("1 2 ack:0/1:1 ack:0/1:2 finish", "all is acknowledged");
	end();

	begin("", "");
	run(DISPATCH_WAIT, "nothing to do");
	DispatchStop(&dispatch);
	run(DISPATCH_DONE, "a stop ends it at once");
	end();
}

int
main(void)
{
	WaitClock = read_clock;
	LogSetLevel(LOG_ERROR);
	srandom(1);
	set_config();
	test_confirmation();
	test_checkpoints();
	test_retry();
	test_down();
	test_split();
	test_failure();
	test_backpressure();
	test_loss();
	test_stop();
	BufferFree(&events);
	return tap_done();
}
