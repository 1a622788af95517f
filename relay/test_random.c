/*
 * test_random.c
 *		The dispatcher between a database and a sink that do as they like.
 *
 * The database is a small model of a subscription's lanes, with cursors, epochs
 * and parked messages, as the functions of es_pg keep them; requests are queued
 * and carried out later, in their order, and so are the answers.  It takes lanes
 * away, and its connection breaks.  The sink confirms, fails, is down, splits,
 * is full, slow, and in any order that its contract allows.
 *
 * What must hold: a position is acknowledged only when it is confirmed or
 * parked; the first confirmations of each key are in its order; every message
 * is confirmed, or rejected, in the end; the window keeps its bounds.
 */
#include "test_fake.h"

#define LENGTH		300
#define LANES		3
#define KEYS		5
#define WINDOW		40
#define BATCH		15
#define BYTES		(25 * 100)
#define RUNS		20000

/* ---------------------------------------------------------------- the database */

typedef struct Row
{
	char		key;			/* 0: none */
	bool		parked;
	bool		dead;
	int64_t		delivered;		/* parked, and handed out in this epoch */
	int64_t		due;			/* parked: not before; later ones of a key wait for the first */
	bool		confirmed;		/* by the sink, at least once */
} Row;

typedef struct Lane
{
	int64_t		cursor;
	int64_t		epoch;
	int64_t		handed;
} Lane;

typedef struct Ask
{
	enum {FETCH, ACK, NACK, RENEW} kind;
	SourcePlace place;
	bool		reject;
	int			room;
	SourcePlace held[LANES];
	int			nheld;
} Ask;

typedef struct Answer
{
	SourceStatus status;
	SourceEvent event;
	int64_t		behind[LENGTH];
	SourcePlace lanes[LANES];
} Answer;

typedef struct Database
{
	Source		base;
	Row			rows[LENGTH + 1];
	Lane		lanes[LANES];
	Ask			asks[2 * LENGTH];
	int			nasks;
	Answer		answers[LENGTH * 4];
	int			nanswers;
	int			nread;			/* of these, given away */
	bool		fetching;
	bool		broken;			/* the connection, and the caller does not know */
	bool		finishing;
	const char *wrong;			/* what must not have happened */
} Database;

static Database db;

static int
lane_of(int64_t position)
{
	char		key = db.rows[position].key;

	return key != 0 ? key % LANES : position % LANES;
}

static Answer *
add_answer(SourceStatus status, int lane, int64_t epoch)
{
	Answer	   *answer = &db.answers[db.nanswers++];

	*answer = (Answer) {.status = status};
	answer->event.lane = lane;
	answer->event.epoch = epoch;
	return answer;
}

static void
hand_out(int lane, int64_t position)
{
	Answer	   *answer = add_answer(SOURCE_MESSAGE, lane, 0);

	answer->event.position = position;
	answer->event.epoch = db.lanes[lane].epoch;
	if (position > db.lanes[lane].handed)
		db.lanes[lane].handed = position;
}

static bool
same_key(int64_t one, int64_t other)
{
	return db.rows[one].key != 0 && db.rows[one].key == db.rows[other].key;
}

/* Whether a parked message of its key stands before it. */
static bool
is_behind(int64_t position)
{
	for (int64_t i = 1; i < position; i++)
	{
		if (db.rows[i].parked && same_key(i, position))
			return true;
	}
	return false;
}

/* Whether a lane has something parked that is due. */
static bool
any_due(int lane)
{
	for (int64_t i = 1; i <= LENGTH; i++)
	{
		if (db.rows[i].parked && lane_of(i) == lane && !is_behind(i) && db.rows[i].due <= now)
			return true;
	}
	return false;
}

/* Hands it out, each key from its first on, and what is not loses its mark. */
static void
deliver_due(int lane, int *left)
{
	bool		out[LENGTH + 1] = {false};

	for (int64_t i = 1; i <= LENGTH; i++)
	{
		Row		   *row = &db.rows[i];

		if (!row->parked || lane_of(i) != lane)
			continue;
		out[i] = i <= db.lanes[lane].cursor && row->due <= now && !is_behind(i);
		for (int64_t j = 1; j < i && i <= db.lanes[lane].cursor; j++)
			out[i] |= out[j] && same_key(i, j);
		out[i] &= *left > 0;
		row->delivered = out[i] ? db.lanes[lane].epoch : 0;
		if (!out[i])
			continue;
		hand_out(lane, i);
		(*left)--;
	}
}

/* The cursor passes what is parked, when nothing is before that. */
static void
pass_parked(int lane)
{
	for (int64_t i = db.lanes[lane].cursor + 1; i <= LENGTH; i++)
	{
		if (lane_of(i) == lane && !db.rows[i].parked && !db.rows[i].dead)
			break;
		db.lanes[lane].cursor = i;
	}
}

static void
fetch_lane(const Ask *ask, int lane, int *left)
{
	Lane	   *at = &db.lanes[lane];
	int64_t		from = at->cursor;
	bool		held = false;

	for (int i = 0; i < ask->nheld; i++)
	{
		if (ask->held[i].lane != lane || ask->held[i].epoch != at->epoch)
			continue;
		held = true;
		from = ask->held[i].position > from ? ask->held[i].position : from;
		if (ask->held[i].position > at->handed)
			db.wrong = "more is held than was handed out";
	}
	if (any_due(lane))
	{
		if (held)
			return;
		deliver_due(lane, left);
	}
	for (int64_t i = from + 1; i <= LENGTH && *left > 0; i++)
	{
		if (lane_of(i) != lane || db.rows[i].parked || db.rows[i].dead)
			continue;
		if (is_behind(i))
			db.rows[i].parked = true;
		else
		{
			hand_out(lane, i);
			(*left)--;
		}
	}
	if (!held)
		pass_parked(lane);
}

static void
do_ack(const Ask *ask)
{
	Lane	   *at = &db.lanes[ask->place.lane];

	if (ask->place.position > at->handed && ask->place.position > at->cursor)
		db.wrong = "more was acknowledged than was handed out";
	for (int64_t i = 1; i <= ask->place.position; i++)
	{
		Row		   *row = &db.rows[i];

		if (lane_of(i) != ask->place.lane || row->dead)
			continue;
		if (row->parked && row->delivered == at->epoch)
			row->parked = false;
		else if (row->parked || i <= at->cursor)
			continue;
		if (!row->confirmed)
			db.wrong = "something was acknowledged that was not confirmed";
	}
	if (ask->place.position > at->cursor)
		at->cursor = ask->place.position;
}

static void
do_nack(const Ask *ask)
{
	Lane	   *at = &db.lanes[ask->place.lane];
	int64_t		failed = ask->place.position;
	Answer	   *answer = add_answer(SOURCE_PARKED, ask->place.lane, at->epoch);
	bool		was_parked = db.rows[failed].parked;

	if (!was_parked && failed <= at->cursor)
		db.wrong = "a failure of what was acknowledged";
	answer->event.position = failed;
	db.rows[failed].parked = true;
	db.rows[failed].delivered = 0;
	db.rows[failed].due = now + random() % WAIT_S(5);
	for (int64_t i = failed + 1; i <= at->handed; i++)
	{
		Row		   *row = &db.rows[i];

		if (!same_key(i, failed) || row->dead || (row->parked && row->delivered != at->epoch) ||
			(!row->parked && i <= at->cursor))
			continue;
		row->parked = true;
		row->delivered = 0;
		row->due = now;
		answer->behind[answer->event.nbehind++] = i;
	}
	if (ask->reject)
	{
		db.rows[failed].parked = false;
		db.rows[failed].dead = true;
	}
}

/* Carries out the oldest request. */
static void
serve(void)
{
	Ask			ask = db.asks[0];
	int			left = ask.room;

	memmove(db.asks, db.asks + 1, --db.nasks * sizeof(Ask));
	if (ask.kind == FETCH)
	{
		for (int lane = 0; lane < LANES; lane++)
			fetch_lane(&ask, lane, &left);
		add_answer(SOURCE_WAIT, 0, 0);
	}
	else if (ask.kind == RENEW)
	{
		Answer	   *answer = add_answer(SOURCE_LANES, 0, 0);

		for (int lane = 0; lane < LANES; lane++)
			answer->lanes[lane] = (SourcePlace) {.lane = lane,.epoch = db.lanes[lane].epoch};
		answer->event.nlanes = LANES;
	}
	else if (ask.place.epoch != db.lanes[ask.place.lane].epoch)
		add_answer(SOURCE_LOST, ask.place.lane, ask.place.epoch);
	else if (ask.kind == ACK)
		do_ack(&ask);
	else
		do_nack(&ask);
}

/* Another member has a lane for a while, and does nothing. */
static void
take_away(int lane)
{
	db.lanes[lane].epoch++;
	db.lanes[lane].handed = db.lanes[lane].cursor;
}

/* ---------------------------------------------------------------- the source */

static void
ask_more(void)
{
	const SourcePlace *held;
	Ask			ask = {.kind = FETCH};

	ask.room = db.base.demand(db.base.context, &held, &ask.nheld);
	if (ask.room == 0)
		return;
	if (ask.nheld > 0)
		memcpy(ask.held, held, ask.nheld * sizeof(SourcePlace));
	db.asks[db.nasks++] = ask;
	db.fetching = true;
}

static SourceStatus
random_next(Source *source, SourceEvent *event)
{
	Answer	   *answer;

	(void) source;
	if (db.broken)
	{
		db.broken = db.fetching = false;
		db.nasks = db.nanswers = db.nread = 0;
		return SOURCE_RESET;
	}
	if (!db.fetching && !db.finishing)
		ask_more();
	while (db.nasks > 0 && random() % 3 > 0)
		serve();
	if (db.nread == db.nanswers)
	{
		db.nread = db.nanswers = 0;
		return db.finishing && db.nasks == 0 ? SOURCE_DONE : SOURCE_WAIT;
	}
	if (random() % 10 == 0)
		return SOURCE_WAIT;
	answer = &db.answers[db.nread++];
	*event = answer->event;
	event->behind = answer->behind;
	event->lanes = answer->lanes;
	if (answer->status == SOURCE_WAIT)
		db.fetching = false;
	if (answer->status == SOURCE_MESSAGE)
		event->message = make_message(event->lane, event->epoch, event->position,
									  db.rows[event->position].key, 100);
	return answer->status;
}

static void
random_ack(Source *source, const SourcePlace *place)
{
	(void) source;
	db.asks[db.nasks++] = (Ask) {.kind = ACK,.place = *place};
}

static void
random_nack(Source *source, const SourcePlace *place, const char *text, bool reject)
{
	(void) source;
	(void) text;
	db.asks[db.nasks++] = (Ask) {.kind = NACK,.place = *place,.reject = reject};
}

static void
random_renew(Source *source)
{
	(void) source;
	db.asks[db.nasks++] = (Ask) {.kind = RENEW};
}

static void
random_finish(Source *source)
{
	(void) source;
	db.finishing = true;
}

static void
no_wait(Source *source, WaitSet *set)
{
	(void) source;
	(void) set;
}

static void
no_close(Source *source)
{
	(void) source;
}

static const SourceMethods random_source = {
	.name = "random",
	.next = random_next,
	.release = free_message,
	.ack = random_ack,
	.nack = random_nack,
	.renew = random_renew,
	.finish = random_finish,
	.wait = no_wait,
	.close = no_close
};

/* ---------------------------------------------------------------- the sink */

static void
note_confirmed(int64_t position)
{
	for (int64_t i = 1; i < position && !db.rows[position].confirmed; i++)
	{
		if (same_key(i, position) && !db.rows[i].confirmed && !db.rows[i].dead)
			db.wrong = "one of a key was confirmed before an earlier one";
	}
	db.rows[position].confirmed = true;
}

/* Whether the sink has an earlier one of the key. */
static bool
has_earlier(int n)
{
	for (int i = 0; i < n; i++)
	{
		if (same_key(sink.held[i]->position, sink.held[n]->position))
			return true;
	}
	return false;
}

/* Says something of some message, and what follows from that by the contract. */
static void
say_something(void)
{
	static const char failures[] = "rrrddx";
	int			n = random() % sink.nheld;
	int64_t		position = sink.held[n]->position;

	if (random() % 8 > 0)
	{
		if (has_earlier(n))
			return;
		note_confirmed(position);
		answer(&sink, position, 'o');
		return;
	}
	answer(&sink, position, failures[random() % strlen(failures)]);
	for (int i = n; i < sink.nheld;)
	{
		if (same_key(sink.held[i]->position, position))
			answer(&sink, sink.held[i]->position, random() % 2 ? 'd' : 'r');
		else
			i++;
	}
}

/* All that the sink has was one unit, which is refused; or alone, rejected. */
static void
refuse_all(void)
{
	bool		alone = sink.nheld == 1;

	while (sink.nheld > 0)
		answer(&sink, sink.held[0]->position, alone ? 'x' : 's');
}

static void
use_sink(void)
{
	for (int i = random() % 12; i > 0 && sink.nheld > 0; i--)
		say_something();
	if (sink.nheld > 0 && random() % 50 == 0)
		refuse_all();
}

/* ---------------------------------------------------------------- the run */

static void
make_log(void)
{
	memset(&db, 0, sizeof(db));
	db.base.methods = &random_source;
	for (int i = 0; i < LANES; i++)
		db.lanes[i].epoch = 1;
	for (int i = 1; i <= LENGTH; i++)
		db.rows[i].key = random() % 6 == 0 ? 0 : 'a' + random() % KEYS;
}

/* How many are neither confirmed nor dead, or parked still. */
static int
count_open(void)
{
	int			count = 0;

	for (int i = 1; i <= LENGTH; i++)
		count += (!db.rows[i].confirmed && !db.rows[i].dead) || db.rows[i].parked ||
			db.lanes[lane_of(i)].cursor < i;
	return count;
}

static void
disturb(void)
{
	if (random() % 60 == 0)
		take_away(random() % LANES);
	if (random() % 100 == 0)
	{
		db.broken = true;
		for (int i = random() % 3; i > 0 && db.nasks > 0; i--)
			serve();
		for (int i = 0; i < LANES && random() % 2 == 0; i++)
			take_away(i);
	}
}

static void
check_bounds(void)
{
	if (dispatch.nitems > WINDOW)
		db.wrong = "the window has too many messages";
	if (dispatch.bytes > BYTES + 100)
		db.wrong = "the window has too many bytes";
}

static void
test_random(unsigned seed)
{
	static char plan[4096];
	DispatchStatus status = DISPATCH_WAIT;
	int			runs = 0;

	srandom(seed);
	make_log();
	begin_with(&db.base, plan);
	config.window_messages = WINDOW;
	config.batch_size = BATCH;
	config.window_bytes = BYTES;
	config.ack_interval_ms = random() % 3 * 300;
	while (status == DISPATCH_WAIT && ++runs < RUNS && db.wrong == NULL)
	{
		memset(plan, 'l', sizeof(plan) - 1);
		if (random() % 3 == 0)
			plan[random() % 20] = 'f';
		sink.plan = plan;
		now += random() % (random() % 20 == 0 ? WAIT_S(5) : WAIT_MS(500));
		disturb();
		status = DispatchRun(&dispatch);
		use_sink();
		check_bounds();
		events.len = 0;
		if (count_open() == 0)
			DispatchStop(&dispatch);
	}
	tap_ok((status == DISPATCH_DONE || status == DISPATCH_FAILED) && count_open() == 0 && db.wrong == NULL,
		   "seed %u: %d runs, %d open%s%s", seed, runs, count_open(),
		   db.wrong != NULL ? ", " : "", db.wrong != NULL ? db.wrong : "");
	end();
}

int
main(int argc, char **argv)
{
	WaitClock = read_clock;
	LogSetLevel(LOG_ERROR);
	set_config();
	if (argc > 1)
		test_random(atoi(argv[1]));
	for (unsigned seed = 1; argc == 1 && seed <= 100; seed++)
		test_random(seed);
	BufferFree(&events);
	return tap_done();
}
