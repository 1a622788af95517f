/*
 * test_exec.c
 *		The exec sink: what answers mean, order by key, and children that die,
 *		talk nonsense, or keep silent; how commands are split into words.
 *
 * The children are shell scripts.
 */
#define _GNU_SOURCE				/* F_SETPIPE_SZ */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sinks/exec.h"
#include "test_sink.h"

static ExecSettings settings;
static char story[65536];		/* what was reported, in turn */

static void
note(void *context, RelayMessage *message, SinkOutcome outcome, const char *reason)
{
	static const char *const outcome_names[] = {"ok", "retry", "reject", "down", "split"};
	size_t		len = strlen(story);

	(void) context;
	snprintf(story + len, sizeof(story) - len, "%.*s %s%s%s\n", (int) message->message_id.len, message->message_id.data, outcome_names[outcome],
			 reason != NULL ? ": " : "", reason != NULL ? reason : "");
	reported++;
}

static void
set_log_level(void)
{
	LogSetLevel(getenv("VERBOSE") != NULL ? LOG_DEBUG : LOG_ERROR);
}

/* A child that runs this script of /bin/sh. */
static void
begin(const char *script)
{
	settings = (ExecSettings) {
		.command = (char *) script,.shell = true,.answer_timeout_s = 20,.in_flight = 100,.grace_s = 2
	};
	story[0] = '\0';
	open_sink(&ExecSink, &settings, note);
}

/* What was reported, when everything was. */
static const char *
settled(void)
{
	settle();
	return story;
}

/* Publishes so many messages without a key. */
static const char *
publish_all(int count)
{
	for (int n = 0; n < count; n++)
		publish(message(n, NULL));
	return settled();
}

/* ---------------------------------------------------------------- answers */

static void
test_answers(void)
{
	begin("read a; echo ok; read a; echo retry not yet; read a; echo reject 'no, never'; read a; echo down away;"
		  "read a; echo retry; read a; echo 'ok  and so on'; read a; printf 'ok\\r\\n'; read a");
	tap_is(publish_all(7),
		   "0 ok\n1 retry: not yet\n2 reject: no, never\n3 down: away\n4 retry: the child gave no reason\n5 ok\n6 ok\n",
		   "the four words and their reasons");
	end();

	begin("read a; echo ok id=0; read a; echo retry id=1 later; read a; echo reject id=2; read a");
	tap_is(publish_all(3), "0 ok\n1 retry: later\n2 reject: the child gave no reason\n", "answers with the id");
	end();

	begin("while read -r line; do case $line in *'\"id\":\"0\"'*'\"data\":0}') echo ok;; *) echo \"reject $line\";; esac; done");
	tap_is(publish_all(1), "0 ok\n", "the child gets CloudEvents");
	end();

	begin("while read -r line; do echo ok; done");
	publish_all(300);
	tap_ok(reported == 300, "many messages");
	end();

	/* Answers that come in pieces, and several at a time. */
	begin("read a; printf o; printf 'k\\nok\\nok'; printf '\\n'; read b; read c; read d");
	settings.in_flight = 3;
	publish_all(3);
	tap_ok(reported == 3, "answers in pieces");
	end();
}

static void
test_key_order(void)
{
	begin("while read -r line; do echo ok; done");
	publish(message(0, "a"));
	tap_ok(sink->methods->publish(sink, message(1, "a")) == SINK_FULL, "a second message of a key waits");
	tap_ok(sink->methods->publish(sink, message(2, "b")) == SINK_READY, "one of another key does not");
	published++;
	publish(message(1, "a"));
	tap_is(settled(), "0 ok\n2 ok\n1 ok\n", "until the first is answered");
	end();

	begin("while read -r line; do echo ok; done");
	settings.in_flight = 2;
	tap_ok(sink->methods->publish(sink, message(0, NULL)) == SINK_READY &&
		   sink->methods->publish(sink, message(1, NULL)) == SINK_READY &&
		   sink->methods->publish(sink, message(2, NULL)) == SINK_FULL, "no more than in_flight at a time");
	end();
}

/* ---------------------------------------------------------------- bad children */

static void
nonsense(const char *script, int count, const char *expected, const char *name)
{
	begin(script);
	publish_all(count);
	tap_has(story, expected, name);
	end();
}

static void
test_bad_children(void)
{
	nonsense("read a; echo okay; read a; read b", 1,
			 "0 down: it answered \"okay\", which is none of ok, retry, reject and down\n", "an unknown word");
	nonsense("read a; echo; read a; read b", 1, "0 down: it answered \"\"", "an empty line");
	nonsense("read a; echo ok id=7; read a; read b", 1,
			 "0 down: it answered \"ok id=7\" when the message in turn was 0\n", "the id of another message");
	nonsense("read a; echo ok; echo ok; read a; sleep 60; exit", 2, "0 ok\n", "an answer too many");
	nonsense("read a; echo ok; exit 3", 3,
			 "0 ok\n1 down: the child ended with exit code 3\n2 down: the child ended with exit code 3\n",
			 "a child that ends: what it answered counts");
	nonsense("kill -9 $$", 1, "0 down: the child was ended by signal 9 (Killed)\n", "a child that is killed");
	nonsense("exec 1>&-; sleep 60", 1, "0 down: it closed its standard output\n", "without standard output");
	nonsense("exec 0<&-; sleep 60", 1, "0 down: it closed its standard input\n", "without standard input");
	nonsense("cat /dev/zero", 1, "0 down: it answered with a line that does not end\n", "a line without an end");

	begin("read a; sleep 60 & wait");
	settings.answer_timeout_s = 1;
	tap_is(publish_all(1), "0 down: it did not answer within 1 s to message 0\n", "no answer in time");
	end();

	begin("exec /no/such/program");
	tap_is(publish_all(1), "0 down: the child ended with exit code 127\n", "a program that is not there");
	end();
}

/* It dies at each second message; the file has what it is to do next. */
static void
test_restart(void)
{
	begin("read a; echo ok; read b; exit 1");
	tap_is(publish_all(2), "0 ok\n1 down: the child ended with exit code 1\n", "dies");
	publish(&messages[1]);
	tap_has(settled(), "\n1 ok\n", "a new child takes what is given again");
	end();
}

static bool
is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

/* The child's standard error holds more than is read at a time. */
static void
test_flood(void)
{
	char		path[] = "/tmp/test_exec.XXXXXX";
	char		script[512];
	int			log = mkstemp(path);
	int			stderr_copy = dup(STDERR_FILENO);
	struct stat st;

	snprintf(script, sizeof(script),
			 "perl -e 'fcntl(STDERR, %d, 1 << 20) or exit 1; print STDERR \"x\" x 999, \"\\n\" for 1..500; unlink \"%s\"';"
			 "read a; echo ok; read b", F_SETPIPE_SZ, path);
	dup2(log, STDERR_FILENO);
	LogSetLevel(LOG_INFO);
	begin(script);
	for (int i = 0; i < 6000 && is_there(path); i++)
		usleep(10000);
	sink->methods->poll(sink);
	tap_ok(!is_there(path) && fstat(log, &st) == 0 && st.st_size < 200 * 1000,
		   "of a child that complains without end so much is read at a time");
	tap_is(publish_all(1), "0 ok\n", "... and it can answer");
	end();
	set_log_level();
	dup2(stderr_copy, STDERR_FILENO);
	close(stderr_copy);
	close(log);
}

/* The child's own child ends with it; the descriptors of the relay are not its. */
static void
test_hygiene(void)
{
	char		path[] = "/tmp/test_exec.XXXXXX";
	char		script[512];
	int			fd = mkstemp(path);		/* without close-on-exec */
	int			pid = 0;
	FILE	   *file;

	snprintf(script, sizeof(script),
			 "sleep 60 & echo $! >%s; read a; test -e /proc/self/fd/%d && echo reject leaked || echo ok; read a", path, fd);
	begin(script);
	tap_is(publish_all(1), "0 ok\n", "no descriptor of ours gets to the child");
	end();
	file = fopen(path, "r");
	if (fscanf(file, "%d", &pid) != 1)
		pid = 0;
	fclose(file);
	for (int i = 0; i < 1000 && kill(pid, 0) == 0; i++)
		usleep(10000);
	tap_ok(pid > 0 && kill(pid, 0) < 0, "what the child started ends with it");
	close(fd);
	unlink(path);

	snprintf(script, sizeof(script), "while read a; do echo ok; done; touch %s", path);
	begin(script);
	publish_all(1);
	end();
	tap_ok(is_there(path), "at the end the child gets the end of its input, and time");
	unlink(path);

	snprintf(script, sizeof(script), "trap 'touch %s; exit' TERM; while :; do sleep 0.1; done", path);
	begin(script);
	turn();
	end();
	tap_ok(is_there(path), "... then SIGTERM");
	unlink(path);

	begin("trap '' TERM; while :; do sleep 1; done");
	turn();
	end();
	tap_ok(true, "... then SIGKILL");
}

/* ---------------------------------------------------------------- commands */

static void
splits(const char *command, const char *expected)
{
	LogError	error;
	Buffer		out = {0};
	char	  **arguments = ChildArguments(command, &error);

	if (arguments == NULL)
		BufferAppendText(&out, error.text);
	for (char **word = arguments; word != NULL && *word != NULL; word++)
		BufferAppendf(&out, "[%s]", *word);
	tap_is(BufferToText(&out), expected, command);
	BufferFree(&out);
	ChildArgumentsFree(arguments);
}

static void
test_commands(void)
{
	LogError	error = {.text = ""};

	splits("a", "[a]");
	splits("  a \t b  ", "[a][b]");
	splits("a 'b  c' \"d e\"f", "[a][b  c][d ef]");
	splits("a '' \"\"", "[a][][]");
	splits("a\\ b '\\' \"\\\"\"", "[a b][\\][\"]");
	splits("a 'b", "the command has a quote without its partner");
	splits(" ", "the command is empty");
	splits("", "the command is empty");
	splits("echo $HOME | cat *", "[echo][$HOME][|][cat][*]");

	settings = (ExecSettings) {.command = "no_such_program -x"};
	tap_ok(!ExecSink.check(&settings, &error), "a program that is not there is a mistake in the settings");
	tap_is(error.text, "there is no program \"no_such_program\"", "... which is named");
	settings.command = "sh -c true";
	tap_ok(ExecSink.check(&settings, &error), "one that is there is none");
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	set_log_level();
	test_answers();
	test_key_order();
	test_bad_children();
	test_restart();
	test_flood();
	test_hygiene();
	test_commands();
	return tap_done();
}
