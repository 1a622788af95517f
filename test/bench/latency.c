/*
 * latency.c
 *		Measures what no rate shows: how soon a waiting consumer has a message,
 *		and how soon a killed member's lane has another owner.
 *
 *		latency wake SAMPLES
 *		latency takeover KILLS SESSION_BOUND WAIT
 *
 * Connects as libpq's environment says, to a database with a subscription
 * "bench" to its outbox; of "takeover" there is one lane and a message in it
 * that nobody acknowledges.  Each measured time is a line of standard output:
 * what it is of, and milliseconds by the monotonic clock of this process, which
 * holds both ends.  What has to be there before a time begins, a backend that
 * sleeps or a member that has the lane, is asked for and not guessed.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS		60000	/* for anything at all */

#define PUBLISH			"SELECT es_publish('orders', 'OrderNoted', '{\"order\": 4711}', key => '42')"

/* An end of a connection that a query was sent on, or that listens. */
typedef struct End
{
	PGconn	   *conn;
	bool		listens;		/* it waits for a notification, not for an answer */
	bool		done;
	int			rows;			/* of the answer */
	double		at;				/* when it was there */
} End;

static _Noreturn void
die(const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	fputs("latency: ", stderr);
	vfprintf(stderr, format, args);
	va_end(args);
	exit(1);
}

static double
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static PGconn *
connect_or_die(void)
{
	PGconn	   *conn = PQconnectdb("");

	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	return conn;
}

static PGresult *
query(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);

	if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
		die("%s%s\n", PQerrorMessage(conn), sql);
	return result;
}

static void
run(PGconn *conn, const char *sql)
{
	PQclear(query(conn, sql));
}

static bool
is_true(PGconn *conn, const char *sql)
{
	PGresult   *result = query(conn, sql);
	bool		yes = PQntuples(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';

	PQclear(result);
	return yes;
}

static End
send_query(PGconn *conn, const char *sql)
{
	if (!PQsendQuery(conn, sql))
		die("%s", PQerrorMessage(conn));
	return (End) {.conn = conn};
}

/* Is there a notification? */
static bool
heard(PGconn *conn)
{
	PGnotify   *notify = PQnotifies(conn);
	bool		any = notify != NULL;

	PQfreemem(notify);
	return any;
}

/* Take what has come; is it all that this end waits for? */
static bool
receive(End *end)
{
	PGresult   *result;

	if (!PQconsumeInput(end->conn))
		die("%s", PQerrorMessage(end->conn));
	if (end->listens)
		return heard(end->conn);
	while (!PQisBusy(end->conn))
	{
		if ((result = PQgetResult(end->conn)) == NULL)
			return true;
		if (PQresultStatus(result) == PGRES_FATAL_ERROR)
			die("%s", PQresultErrorMessage(result));
		end->rows = PQntuples(result);
		PQclear(result);
	}
	return false;
}

/* Until each of two ends, or of one, has what it waits for. */
static void
await_ends(End *a, End *b)
{
	End		   *ends[] = {a, b};
	struct pollfd fds[2];
	bool		all;

	do
	{
		all = true;
		for (int i = 0; i < 2; i++)
		{
			if (ends[i] != NULL && !ends[i]->done && (ends[i]->done = receive(ends[i])))
				ends[i]->at = now_ms();
			fds[i].fd = ends[i] == NULL || ends[i]->done ? -1 : PQsocket(ends[i]->conn);
			fds[i].events = POLLIN;
			all &= fds[i].fd < 0;
		}
		if (!all && poll(fds, 2, PATIENCE_MS) == 0)
			die("waited %d s in vain\n", PATIENCE_MS / 1000);
	} while (!all);
}

/*
 * Send a waiting es_fetch and return when it sleeps.  One that comes back with
 * nothing, as it may when it took lanes or noted progress, is sent again.
 */
static End
sleep_in_fetch(PGconn *conn, const char *fetch, PGconn *monitor)
{
	double		patience = now_ms() + PATIENCE_MS;
	End			end = send_query(conn, fetch);
	char		asleep[200];

	snprintf(asleep, sizeof(asleep), "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = %d",
			 PQbackendPID(conn));
	while (!is_true(monitor, asleep))
	{
		if (now_ms() > patience)
			die("\"%s\" does not sleep\n", fetch);
		if (!receive(&end))
			continue;
		if (end.rows > 0)
			die("\"%s\" returned before its time\n", fetch);
		end = send_query(conn, fetch);
	}
	return end;
}

/* ---------------------------------------------------------------- wake */

/* A message is published while a consumer waits in es_fetch; until it has it. */
static void
measure_fetch(PGconn *consumer, PGconn *producer, PGconn *monitor)
{
	End			fetch = sleep_in_fetch(consumer, "SELECT * FROM es_fetch('bench', 'bench', 10, '20 s')", monitor);
	double		begin = now_ms();
	End			publish = send_query(producer, PUBLISH);

	await_ends(&fetch, &publish);
	if (fetch.rows != 1)
		die("es_fetch returned %d rows\n", fetch.rows);
	printf("fetch %.4f\npublish %.4f\n", fetch.at - begin, publish.at - begin);
	run(consumer, "SELECT es_ack('bench', lane, epoch, \"position\") FROM es_fetch('bench', 'bench', 10)");
}

/* A statement that notifies, until a listener has heard it. */
static void
measure_notify(const char *what, PGconn *listener, PGconn *sender, const char *sql)
{
	double		begin = now_ms();
	End			listening = {.conn = listener, .listens = true};
	End			sent = send_query(sender, sql);

	await_ends(&listening, &sent);
	printf("%s %.4f\n", what, listening.at - begin);
}

static void
wake(int samples)
{
	PGconn	   *consumer = connect_or_die();
	PGconn	   *listener = connect_or_die();
	PGconn	   *sender = connect_or_die();
	PGconn	   *monitor = connect_or_die();

	run(listener, "LISTEN bench");
	for (int i = 0; i < samples; i++)
	{
		measure_fetch(consumer, sender, monitor);
		measure_notify("notify", listener, sender, "NOTIFY bench");
		measure_notify("insert", listener, sender, "WITH n AS (INSERT INTO noted VALUES (1)) SELECT pg_notify('bench', '')");
	}
}

/* ---------------------------------------------------------------- takeover */

/* The member that is going to be killed: it says when it has the lane. */
static _Noreturn void
be_killed(const char *session_bound, int ready)
{
	PGconn	   *conn = connect_or_die();
	PGresult   *result;
	char		sql[200];

	snprintf(sql, sizeof(sql), "SELECT * FROM es_fetch('bench', 'victim', 10, '1 s', session_bound => %s)", session_bound);
	do
	{
		result = query(conn, sql);
	} while (PQntuples(result) == 0);
	if (write(ready, "", 1) != 1)
		die("the pipe is broken\n");
	for (;;)
		pause();
}

static pid_t
start_victim(const char *session_bound)
{
	int			ready[2];
	char		byte;
	pid_t		pid;

	if (pipe(ready) != 0 || (pid = fork()) < 0)
		die("could not start another process\n");
	if (pid == 0)
		be_killed(session_bound, ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die("the member that is to be killed failed\n");
	close(ready[0]);
	return pid;
}

/* Another member waits for the lane while its owner is killed. */
static void
measure_takeover(PGconn *heir, PGconn *monitor, const char *session_bound, const char *fetch)
{
	pid_t		victim = start_victim(session_bound);
	End			taken = sleep_in_fetch(heir, fetch, monitor);
	double		begin = now_ms();

	kill(victim, SIGKILL);
	for (await_ends(&taken, NULL); taken.rows == 0; await_ends(&taken, NULL))
		taken = send_query(heir, fetch);
	printf("takeover %.4f\n", taken.at - begin);
	waitpid(victim, NULL, 0);
	run(heir, "SELECT es_release('bench', 'heir')");
}

static void
takeover(int kills, const char *session_bound, const char *wait)
{
	PGconn	   *heir = connect_or_die();
	PGconn	   *monitor = connect_or_die();
	char		fetch[200];

	snprintf(fetch, sizeof(fetch), "SELECT * FROM es_fetch('bench', 'heir', 10, '%s')", wait);
	for (int i = 0; i < kills; i++)
		measure_takeover(heir, monitor, session_bound, fetch);
}

int
main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "wake") == 0)
		wake(atoi(argv[2]));
	else if (argc == 5 && strcmp(argv[1], "takeover") == 0)
		takeover(atoi(argv[2]), argv[3], argv[4]);
	else
		die("usage: latency wake SAMPLES | latency takeover KILLS SESSION_BOUND WAIT\n");
	return 0;
}
