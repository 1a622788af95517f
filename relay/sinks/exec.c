/*
 * sinks/exec.c
 *		Gives messages to a child process, which answers each with a line.
 *
 * The child reads CloudEvents from its standard input, a JSON object a line,
 * and writes for each, in the same order, one line to its standard output:
 *
 *	  ok			it is done with, for good
 *	  retry TEXT	it failed and may succeed later
 *	  reject TEXT	it can never succeed
 *	  down TEXT		what the child needs cannot be reached: no message's fault
 *
 * The first word behind it may be id=ID, the message's id: then it must be that
 * of the message in turn.  So a child that can afford it proves that it has not
 * lost count.  Standard error goes to the relay's log, line by line.
 *
 * A child that breaks these rules, or takes longer than answer_timeout_s for an
 * answer, is killed with its whole process group, and a new one starts with the
 * next message.  What it had not answered is DOWN, and so given again: a child
 * has to expect a message more than once, with the same id.
 *
 * Order.  What was written into the pipe cannot be taken back when an earlier
 * message fails.  So no two messages of one key are on their way at a time; up
 * to in_flight of different keys are, to hide the way there and back.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cloudevents.h"
#include "../inflight.h"
#include "../mem.h"
#include "../sink.h"
#include "exec.h"

#define INPUT_FULL		(256 * 1024)	/* publish refuses more */
#define INPUT_KEEP		(1024 * 1024)	/* a larger buffer is freed when empty */
#define LINE_MOST		(64 * 1024)		/* of an answer, and of a line for the log */
#define READ_MOST		(64 * 1024)		/* at a time: what a pipe holds */
#define REAP_PAUSE		WAIT_MS(10) /* where there is no pidfd */
#define CLOSED_LIMIT	WAIT_S(1)	/* how long it may live without its pipes */

typedef struct Exec
{
	Sink		base;
	const ExecSettings *settings;
	char	  **arguments;

	Child		child;
	bool		dying;			/* it was killed, and is to be reaped */
	const char *closed;			/* which pipe it has closed that it needs, or NULL */
	bool		answers_ended;
	bool		complaints_ended;
	Buffer		input;			/* lines for it */
	size_t		written;		/* bytes of these that it has */
	uintptr_t	bytes_put;		/* into input, since it was started */
	uintptr_t	bytes_sent;		/* to it, since then */
	Buffer		answers;		/* what it wrote that is no whole line yet */
	Buffer		complaints;		/* likewise of its standard error */

	InFlightSet in_flight;		/* place is bytes_put at the end of the line */
	int64_t		turn_at;		/* since when the oldest one is waited for */
} Exec;

#define FIELD(member)	offsetof(ExecSettings, member)

static const ConfigOption options[] = {
	{"command", CONFIG_STRING, FIELD(command), NULL,
		.help = "The program to run, with its arguments. Blanks separate words; quotes, single or\n"
		"double, hold them together; a backslash takes the next character as it is."
	},
	{"shell", CONFIG_BOOL, FIELD(shell), "off",
		.help = "Have /bin/sh run the command, with all that a shell makes of it."
	},
	{"answer_timeout_s", CONFIG_INT, FIELD(answer_timeout_s), "60",
		.help = "How long the child may take for an answer, in seconds, before it is killed.",
		.min = 1, .max = 86400
	},
	{"in_flight", CONFIG_INT, FIELD(in_flight), "100",
		.help = "The most messages that the child is given before it has answered the first; no\n"
		"two of them have the same key.",
		.min = 1, .max = 10000
	},
	{"grace_s", CONFIG_INT, FIELD(grace_s), "5",
		.help = "When the relay leaves, the child gets the end of its input, after half of these\n"
		"seconds SIGTERM, and at their end SIGKILL.",
		.min = 0, .max = 3600
	},
	{NULL}
};

static bool
check(const void *settings, LogError *error)
{
	const ExecSettings *exec = settings;
	char	  **arguments;
	bool		found;

	if (exec->shell)
		return true;
	arguments = ChildArguments(exec->command, error);
	if (arguments == NULL)
		return false;
	found = ChildProgramExists(arguments[0]);
	if (!found)
		LogErrorSet(error, "there is no program \"%s\"", arguments[0]);
	ChildArgumentsFree(arguments);
	return found;
}

/* ---------------------------------------------------------------- outcomes */

/* Once, for a message that is in flight. */
static void
report(Exec *exec, InFlight *entry, SinkOutcome outcome, const char *text)
{
	RelayMessage *message = entry->message;

	InFlightRemove(&exec->in_flight, entry);
	exec->turn_at = WaitNow();
	exec->base.report(exec->base.context, message, outcome, text);
}

static void
report_down(Exec *exec, const char *text)
{
	while (exec->in_flight.oldest != NULL)
		report(exec, exec->in_flight.oldest, SINK_DOWN, text);
	exec->input.len = 0;
	exec->written = 0;
	exec->answers.len = 0;
}

/* Nothing of the child is believed any more. */
static void
kill_child(Exec *exec, const char *why)
{
	Log(LOG_WARNING, "exec: the child is killed: %s", why);
	ChildKill(&exec->child, SIGKILL);
	exec->dying = true;
	report_down(exec, why);
}

/* ---------------------------------------------------------------- answers */

static const struct
{
	const char *word;
	SinkOutcome outcome;
}			words[] = {
	{"ok", SINK_OK},
	{"retry", SINK_RETRY},
	{"reject", SINK_REJECT},
	{"down", SINK_DOWN},
	{NULL, SINK_DOWN}
};

/* The number of the first word in that table; of its last line if it is none of them. */
static int
find_word(const char *line, size_t len)
{
	int			i = 0;

	while (words[i].word != NULL &&
		   (strlen(words[i].word) != len || strncmp(words[i].word, line, len) != 0))
		i++;
	return i;
}

/* Whether what follows the first word speaks of this message; goes past the id if there is one. */
static bool
is_about(const RelayMessage *message, char **rest)
{
	size_t		len;

	*rest += strspn(*rest, " ");
	if (strncmp(*rest, "id=", 3) != 0)
		return true;
	*rest += 3;
	len = strcspn(*rest, " ");
	if (len != message->message_id.len || memcmp(*rest, message->message_id.data, len) != 0)
		return false;
	*rest += len;
	*rest += strspn(*rest, " ");
	return true;
}

/* One line of the child's standard output; false if it makes no sense. */
static bool
take_answer(Exec *exec, char *line)
{
	InFlight   *entry = exec->in_flight.oldest;
	size_t		len = strcspn(line, " ");
	int			word = find_word(line, len);
	char	   *rest = line + len;
	LogError	error;

	if (words[word].word == NULL)
		LogErrorSet(&error, "it answered \"%.200s\", which is none of ok, retry, reject and down", line);
	else if (entry == NULL || exec->bytes_sent < (uintptr_t) entry->place)
		LogErrorSet(&error, "it answered \"%.200s\" without a message", line);
	else if (!is_about(entry->message, &rest))
		LogErrorSet(&error, "it answered \"%.200s\" when the message in turn was %.*s", line,
					(int) entry->message->message_id.len, entry->message->message_id.data);
	else
	{
		report(exec, entry, words[word].outcome,
			   words[word].outcome == SINK_OK ? NULL : *rest != '\0' ? rest : "the child gave no reason");
		return true;
	}
	kill_child(exec, error.text);
	return false;
}

/* ---------------------------------------------------------------- pipes */

/*
 * Reads what there is, and cuts whole lines off, each ended by a zero byte.
 * The buffer keeps the last, unfinished one.  False at the end of the file.
 * From one who writes without end no more is taken than a pipe holds, so that
 * others have their turn; the rest wakes the loop again.
 */
static bool
read_lines(int fd, Buffer *buffer, bool (*take) (Exec *exec, char *line), Exec *exec)
{
	char		block[8192];
	ssize_t		len;
	size_t		done = 0;
	size_t		total = 0;
	char	   *end;

	while (total < READ_MOST)
	{
		len = read(fd, block, sizeof(block));
		if (len <= 0)
			return len != 0;
		total += len;
		BufferAppend(buffer, block, len);
		while ((end = memchr(buffer->data + done, '\n', buffer->len - done)) != NULL)
		{
			*end = '\0';
			if (end > buffer->data + done && end[-1] == '\r')
				end[-1] = '\0';
			if (!take(exec, buffer->data + done))
				return true;
			done = end + 1 - buffer->data;
		}
		memmove(buffer->data, buffer->data + done, buffer->len - done);
		buffer->len -= done;
		done = 0;
		if (buffer->len > LINE_MOST)
			break;
	}
	return true;
}

static bool
log_line(Exec *exec, char *line)
{
	(void) exec;
	Log(LOG_INFO, "exec: %s", line);
	return true;
}

/* Most likely it is about to end, and that will say more. */
static void
note_closed(Exec *exec, const char *what)
{
	if (exec->closed != NULL)
		return;
	exec->closed = what;
	exec->turn_at = WaitNow();
}

static bool
has_reader(int fd)
{
	struct pollfd pipe = {.fd = fd};

	return poll(&pipe, 1, 0) == 0;
}

static void
read_complaints(Exec *exec)
{
	exec->complaints_ended = !read_lines(exec->child.err, &exec->complaints, log_line, exec);
	if (exec->complaints.len > LINE_MOST)
	{
		log_line(exec, BufferToText(&exec->complaints));
		exec->complaints.len = 0;
	}
}

static void
read_answers(Exec *exec)
{
	bool		open = read_lines(exec->child.out, &exec->answers, take_answer, exec);

	if (exec->dying)
		return;
	if (exec->answers.len > LINE_MOST)
		kill_child(exec, "it answered with a line that does not end");
	else if (!open)
	{
		exec->answers_ended = true;
		note_closed(exec, "it closed its standard output");
	}
}

static void
write_input(Exec *exec)
{
	ssize_t		len;

	if (exec->input.len == 0)
		return;
	while (exec->written < exec->input.len)
	{
		len = write(exec->child.in, exec->input.data + exec->written, exec->input.len - exec->written);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0 && errno == EPIPE)
			note_closed(exec, "it closed its standard input");
		if (len <= 0)
			break;
		exec->written += len;
		exec->bytes_sent += len;
	}
	memmove(exec->input.data, exec->input.data + exec->written, exec->input.len - exec->written);
	exec->input.len -= exec->written;
	exec->written = 0;
	if (exec->input.len == 0 && exec->input.capacity > INPUT_KEEP)
		BufferFree(&exec->input);
}

/* ---------------------------------------------------------------- the child's life */

static bool
start_child(Exec *exec, LogError *error)
{
	exec->dying = exec->answers_ended = exec->complaints_ended = false;
	exec->closed = NULL;
	exec->bytes_put = exec->bytes_sent = 0;
	exec->complaints.len = 0;
	return ChildStart(&exec->child, exec->arguments, error);
}

/* Takes what it has written; its end, however it came, gives the rest back. */
static void
listen_to_child(Exec *exec)
{
	bool		ended = ChildHasEnded(&exec->child);
	LogError	how;

	read_complaints(exec);
	if (!exec->dying && !exec->answers_ended)
		read_answers(exec);
	if (!exec->dying && !has_reader(exec->child.in))
		note_closed(exec, "it closed its standard input");
	if (!ended)
		return;
	ChildReap(&exec->child, &how);
	if (exec->dying)
		return;
	Log(LOG_WARNING, "exec: %s", how.text);
	report_down(exec, how.text);
}

static int64_t
answer_deadline(const Exec *exec)
{
	return exec->turn_at + (exec->closed != NULL ? CLOSED_LIMIT : WAIT_S(exec->settings->answer_timeout_s));
}

static void
check_time(Exec *exec)
{
	LogError	error;

	if (exec->child.pid == 0 || exec->dying || WaitNow() < answer_deadline(exec))
		return;
	if (exec->closed != NULL)
		kill_child(exec, exec->closed);
	else if (exec->in_flight.oldest != NULL)
	{
		RelayText	id = exec->in_flight.oldest->message->message_id;

		LogErrorSet(&error, "it did not answer within %d s to message %.*s", exec->settings->answer_timeout_s,
					(int) id.len, id.data);
		kill_child(exec, error.text);
	}
}

/* ---------------------------------------------------------------- callbacks */

static void
close_exec(Sink *sink)
{
	Exec	   *exec = (Exec *) sink;

	if (exec->dying)
		ChildStop(&exec->child, 0);
	else
		ChildStop(&exec->child, exec->settings->grace_s);
	InFlightFree(&exec->in_flight);
	BufferFree(&exec->input);
	BufferFree(&exec->answers);
	BufferFree(&exec->complaints);
	ChildArgumentsFree(exec->arguments);
	free(exec);
}

static char **
shell_arguments(const char *command)
{
	char	  **arguments = MemAlloc(4 * sizeof(char *));

	arguments[0] = MemStrdup("/bin/sh");
	arguments[1] = MemStrdup("-c");
	arguments[2] = MemStrdup(command);
	return arguments;
}

static Sink *
open_exec(const void *settings, const PipelineConfig *pipeline, LogError *error)
{
	Exec	   *exec = MemAlloc(sizeof(Exec));

	(void) pipeline;
	exec->base.methods = &ExecSink;
	exec->settings = settings;
	if (exec->settings->shell)
		exec->arguments = shell_arguments(exec->settings->command);
	else
		exec->arguments = ChildArguments(exec->settings->command, error);
	if (exec->arguments != NULL && start_child(exec, error))
		return &exec->base;
	close_exec(&exec->base);
	return NULL;
}

static SinkStatus
publish(Sink *sink, RelayMessage *message)
{
	Exec	   *exec = (Exec *) sink;
	InFlight   *entry;
	size_t		before = exec->input.len;
	LogError	error;

	if (exec->dying && exec->child.pid != 0)
		return SINK_FULL;
	if (exec->child.pid == 0 && !start_child(exec, &error))
	{
		exec->base.report(exec->base.context, message, SINK_DOWN, error.text);
		return SINK_READY;
	}
	if (exec->closed != NULL || exec->in_flight.count >= exec->settings->in_flight ||
		exec->input.len >= INPUT_FULL || InFlightOfKey(&exec->in_flight, message) != NULL)
	{
		write_input(exec);
		return SINK_FULL;
	}

	CloudEventAppend(&exec->input, message);
	BufferAppend(&exec->input, "\n", 1);
	exec->bytes_put += exec->input.len - before;
	if (exec->in_flight.count == 0)
		exec->turn_at = WaitNow();
	entry = InFlightAdd(&exec->in_flight, message);
	entry->place = (void *) exec->bytes_put;
	return SINK_READY;
}

static SinkStatus
poll_exec(Sink *sink)
{
	Exec	   *exec = (Exec *) sink;

	if (exec->child.pid == 0)
		return SINK_READY;
	listen_to_child(exec);
	check_time(exec);
	if (exec->child.pid != 0 && !exec->dying)
		write_input(exec);
	return SINK_READY;
}

static SinkStatus
flush(Sink *sink)
{
	Exec	   *exec = (Exec *) sink;

	if (exec->child.pid != 0 && !exec->dying)
		write_input(exec);
	return SINK_READY;
}

static void
wait_for(Sink *sink, WaitSet *set)
{
	Exec	   *exec = (Exec *) sink;

	if (exec->child.pid == 0)
		return;
	if (exec->child.pidfd >= 0)
		WaitForFd(set, exec->child.pidfd, POLLIN);
	else
		WaitUntil(set, WaitNow() + REAP_PAUSE);
	if (exec->dying)
		return;

	/* At their ends they would wake us again and again. */
	if (!exec->complaints_ended)
		WaitForFd(set, exec->child.err, POLLIN);
	if (!exec->answers_ended)
		WaitForFd(set, exec->child.out, POLLIN);
	if (exec->closed == NULL)
		WaitForFd(set, exec->child.in, exec->input.len > 0 ? POLLOUT : 0);
	if (exec->in_flight.oldest != NULL || exec->closed != NULL)
		WaitUntil(set, answer_deadline(exec));
}

const SinkMethods ExecSink = {
	.name = "exec",
	.options = options,
	.settings_size = sizeof(ExecSettings),
	.check = check,
	.open = open_exec,
	.publish = publish,
	.poll = poll_exec,
	.flush = flush,
	.wait = wait_for,
	.close = close_exec
};
