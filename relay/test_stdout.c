/*
 * test_stdout.c
 *		The stdout sink: when a message is OK, what is written at a time, and
 *		what it does when it cannot write.
 *
 * Descriptor 1 is a pipe or a file of the test's, and write(2) is replaced.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "sink.h"
#include "tap.h"

static Sink *sink;
static int	reader = -1;		/* the other end of a pipe */

static char log_text[4096];		/* what was reported, by id */
static size_t writes[4096];		/* how much was asked to be written, in turn */
static int	nwrites;
static size_t most;				/* that a write takes */
static int	error;				/* of the next write, once */

static ssize_t
fake_write(int fd, const void *data, size_t len)
{
	if (error != 0)
	{
		errno = error;
		error = 0;
		return -1;
	}
	writes[nwrites++] = len;
	return write(fd, data, len < most ? len : most);
}

static void
note(void *context, RelayMessage *message, SinkOutcome outcome, const char *text)
{
	(void) context;
	(void) text;
	if (outcome == SINK_OK)
		strncat(log_text, message->message_id.data, 100);
	else
		strcat(log_text, "?");
}

static void
begin_fd(int fd)
{
	LogError	reason;

	dup2(fd, STDOUT_FILENO);
	close(fd);
	log_text[0] = '\0';
	nwrites = 0;
	most = SIZE_MAX;
	error = 0;
	sink = StdoutSink.open(NULL, NULL, &reason);
	if (sink != NULL)
		sink->report = note;
}

static void
begin_pipe(void)
{
	int			fds[2];

	if (pipe(fds) < 0)
		exit(1);
	reader = fds[0];
	fcntl(reader, F_SETFL, O_NONBLOCK);
	begin_fd(fds[1]);
}

static void
end(void)
{
	StdoutSink.close(sink);
	close(reader);
}

/* A message whose line is that long; there is a shortest. */
static RelayMessage *
message_of(const char *id, size_t len)
{
	static RelayMessage messages[1000];
	static int	n = 0;
	RelayMessage *message = &messages[n++];
	size_t		frame = strlen("{'specversion':'1.0','id':'i','datacontenttype':'application/json','data':}\n");

	message->message_id = (RelayText) {id, strlen(id)};
	if (len > 0)
	{
		message->content_type = (RelayText) {"application/json", strlen("application/json")};
		message->payload.len = len - frame;
		message->payload.data = memset(malloc(len), '1', len);
	}
	return message;
}

/* Reads away what is in the pipe. */
static size_t
read_all(void)
{
	static char data[65536];
	size_t		total = 0;
	ssize_t		len;

	while ((len = read(reader, data, sizeof(data))) > 0)
		total += len;
	return total;
}

/* Whether the sink waits to write. */
static bool
waits(void)
{
	WaitSet		set = {0};
	bool		found;

	WaitSetClear(&set);
	StdoutSink.wait(sink, &set);
	found = set.nfds == 1 && set.fds[0].fd == STDOUT_FILENO && set.fds[0].events == POLLOUT;
	WaitSetFree(&set);
	return found;
}

static void
test_confirmation(void)
{
	begin_pipe();
	StdoutSink.publish(sink, message_of("a", 100));
	StdoutSink.publish(sink, message_of("b", 100));
	StdoutSink.publish(sink, message_of("c", 100));
	tap_is(log_text, "", "a message is not OK before its line is written");
	tap_ok(waits(), "the sink waits to write it");

	most = 150;
	error = EAGAIN;
	tap_ok(StdoutSink.flush(sink) == SINK_READY && waits(), "EAGAIN is for later");
	error = EINTR;
	tap_ok(StdoutSink.poll(sink) == SINK_READY, "EINTR is nothing");
	tap_is(log_text, "abc", "all are written");
	tap_ok(nwrites == 2 && writes[0] == 300 && writes[1] == 150, "a short write is gone on from");
	tap_ok(read_all() == 300, "each byte once");
	tap_ok(!waits(), "there is nothing to wait for");

	StdoutSink.publish(sink, message_of("d", 100));
	most = 99;
	error = 0;
	nwrites = 0;
	StdoutSink.flush(sink);
	tap_ok(nwrites == 2 && writes[1] == 1, "a torn line is completed by the next write");
	end();
}

static void
test_chunks(void)
{
	begin_pipe();
	for (int i = 0; i < 5; i++)
		StdoutSink.publish(sink, message_of("s", 1500));
	StdoutSink.publish(sink, message_of("L", 10000));
	StdoutSink.publish(sink, message_of("s", 4096));
	StdoutSink.flush(sink);
	tap_ok(PIPE_BUF == 4096 && nwrites == 7 &&
		   writes[0] == 3000 && writes[1] == 3000 && writes[2] == 1500 &&
		   writes[3] == 4096 && writes[4] == 4096 && writes[5] == 10000 - 8192 &&
		   writes[6] == 4096,
		   "a pipe is given whole lines of up to PIPE_BUF; only a longer one goes in parts");
	tap_is(log_text, "sssssLs", "in order");
	end();
}

/* Two pipelines to one pipe: the second does not write into a line of the first. */
static void
test_two(void)
{
	LogError	reason;
	Sink	   *other;

	begin_pipe();
	other = StdoutSink.open(NULL, NULL, &reason);
	other->report = note;
	StdoutSink.publish(sink, message_of("L", 100000));
	StdoutSink.publish(other, message_of("o", 100));
	StdoutSink.flush(sink);
	StdoutSink.flush(other);
	tap_is(log_text, "", "a long line fills the pipe, and another sink waits for its end");
	while (read_all() > 0)
	{
		StdoutSink.poll(other);
		StdoutSink.poll(sink);
	}
	StdoutSink.poll(other);
	tap_is(log_text, "Lo", "then it writes, too");
	StdoutSink.close(other);
	end();
}

static void
test_full(void)
{
	int			taken = 0;

	begin_pipe();
	while (StdoutSink.publish(sink, message_of("m", 4000)) == SINK_READY && taken < 500)
		taken++;
	tap_ok(taken > 50 && taken < 100, "a pipe that nobody reads fills the sink: %d messages of 4,000 bytes", taken);
	tap_ok(waits() && strlen(log_text) > 0 && strlen(log_text) < 20, "what the pipe took is OK, the rest waits");
	tap_ok(StdoutSink.flush(sink) == SINK_READY, "flush does not block");
	while (read_all() > 0)
		StdoutSink.poll(sink);
	tap_ok((int) strlen(log_text) == taken && !waits(), "it goes on when it is read");
	end();
}

static void
test_errors(void)
{
	begin_pipe();
	StdoutSink.publish(sink, message_of("a", 100));
	error = ENOSPC;
	tap_ok(StdoutSink.flush(sink) == SINK_FAILED, "an error is the end");
	tap_is(sink->error.text, "could not write to standard output: No space left on device", "with its text");
	tap_is(log_text, "", "and no outcome");
	end();

	begin_pipe();
	close(reader);
	tap_ok(StdoutSink.poll(sink) == SINK_FAILED, "a reader that has gone is noticed with nothing to write");
	tap_is(sink->error.text, "could not write to standard output: Broken pipe", "with its text");
	end();

	begin_pipe();
	StdoutSink.publish(sink, message_of("a", 100));
	close(reader);
	tap_ok(StdoutSink.flush(sink) == SINK_FAILED, "or with something");
	end();

	begin_fd(open("/dev/null", O_RDONLY));
	tap_ok(sink == NULL, "an output that is not for writing is refused");
}

static void
test_file(void)
{
	char		path[] = "/tmp/test_stdout.XXXXXX";
	char		content[8192] = "";
	int			fd = mkstemp(path);

	if (write(fd, "whole\nto", 8) != 8)
		exit(1);
	close(fd);
	begin_fd(open(path, O_WRONLY | O_APPEND));
	nwrites = 0;
	for (int i = 0; i < 5; i++)
		StdoutSink.publish(sink, message_of("f", 1500));
	StdoutSink.flush(sink);
	tap_ok(nwrites == 1 && writes[0] == 7500, "a file is given all at once");
	tap_ok(!waits(), "and not waited for");
	fd = open(path, O_RDONLY);
	tap_ok(read(fd, content, sizeof(content) - 1) == 9 + 7500 &&
		   strncmp(content, "whole\nto\n{\"specversion\"", 23) == 0, "a torn line of a crash is ended first");
	close(fd);
	end();

	begin_fd(open(path, O_WRONLY | O_APPEND));
	tap_ok(nwrites == 0, "a whole one is not");
	end();
	unlink(path);
}

int
main(void)
{
	tap_to = fdopen(dup(STDOUT_FILENO), "w");
	signal(SIGPIPE, SIG_IGN);
	LogSetLevel(LOG_ERROR);
	StdoutWrite = fake_write;
	test_confirmation();
	test_chunks();
	test_two();
	test_full();
	test_errors();
	test_file();
	return tap_done();
}
