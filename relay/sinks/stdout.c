/*
 * sinks/stdout.c
 *		Writes CloudEvents to standard output, a JSON object a line.
 *
 * A message is OK when write(2) has taken the last byte of its line; that is
 * what standard output can promise, and no more.
 *
 * Lines are never torn by our own doing.  What is written to a pipe at a time
 * is whole lines of together at most PIPE_BUF bytes, which a pipe takes at once
 * or not at all, whatever kills us; only a line that is longer goes out in
 * parts.  A file that ends in the middle of a line, after a crash, gets a line
 * end first, so that what follows can be read.
 *
 * Standard output is shared with whoever started us, so it is not made
 * non-blocking.  Instead poll(2) is asked before each write, and a write that
 * may block has at most PIPE_BUF bytes.
 *
 * Any error but "not now" is the end: a reader that has gone does not come
 * back, and a disk that is full is better met by a supervisor's restart.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cloudevents.h"
#include "../mem.h"
#include "../sink.h"

#define BUFFER_WRITE	(64 * 1024) /* worth a write */
#define BUFFER_FULL		(256 * 1024)	/* publish refuses more */
#define BUFFER_KEEP		(1024 * 1024)	/* a larger one is freed when empty */

ssize_t		(*StdoutWrite) (int fd, const void *data, size_t len) = write;

/* Several pipelines may write here: the one that has a part of a line out goes on first. */
static const void *in_mid_line = NULL;

/* A message whose line is not written in full. */
typedef struct Line
{
	RelayMessage *message;
	size_t		len;
} Line;

typedef struct Stdout
{
	Sink		base;
	int			fd;
	bool		regular;		/* a file: never blocks, and takes any amount */

	Buffer		buffer;			/* the lines */
	size_t		written;		/* bytes of it that are out */

	Line	   *lines;			/* those in the buffer, oldest first */
	size_t		first;			/* the first that is not out in full */
	size_t		nlines;
	size_t		lines_size;
	size_t		line_written;	/* bytes of the first line that are out */
} Stdout;

static const ConfigOption no_options[] = {{NULL}};

/* ---------------------------------------------------------------- opening */

/* Whether the last line of a file is a torn one. */
static bool
ends_torn(int fd, off_t size)
{
	char		path[64];
	char		last = '\n';
	int			own;

	/* Ours may be open for writing only. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0)
		return false;
	if (pread(own, &last, 1, size - 1) != 1)
		last = '\n';
	close(own);
	return last != '\n';
}

static Sink *
open_stdout(const void *settings, const PipelineConfig *pipeline, LogError *error)
{
	Stdout	   *out;
	struct stat st;

	(void) settings;
	(void) pipeline;
	if ((fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY || fstat(STDOUT_FILENO, &st) < 0)
	{
		LogErrorSet(error, "standard output is not open for writing");
		return NULL;
	}
	if (S_ISREG(st.st_mode) && st.st_size > 0 && ends_torn(STDOUT_FILENO, st.st_size))
	{
		Log(LOG_WARNING, "standard output ends in a torn line; its message will be delivered again");
		if (StdoutWrite(STDOUT_FILENO, "\n", 1) != 1)
		{
			LogErrorSet(error, "could not write to standard output: %s", strerror(errno));
			return NULL;
		}
	}

	out = MemAlloc(sizeof(Stdout));
	out->base.methods = &StdoutSink;
	out->fd = STDOUT_FILENO;
	out->regular = S_ISREG(st.st_mode);
	return &out->base;
}

/* ---------------------------------------------------------------- writing */

static SinkStatus
fail(Stdout *out, int error)
{
	LogErrorSet(&out->base.error, "could not write to standard output: %s", strerror(error));
	return SINK_FAILED;
}

/* What the descriptor is ready for, of these events; errors always count. */
static short
ready_for(const Stdout *out, short events)
{
	struct pollfd fd = {.fd = out->fd, .events = events};

	poll(&fd, 1, 0);
	return fd.revents;
}

/* How many of the unwritten bytes to write at a time. */
static size_t
next_write(const Stdout *out)
{
	size_t		len = out->lines[out->first].len - out->line_written;

	if (out->regular)
		return out->buffer.len - out->written;
	if (len > PIPE_BUF)
		return PIPE_BUF;
	for (size_t i = out->first + 1; i < out->nlines && len + out->lines[i].len <= PIPE_BUF; i++)
		len += out->lines[i].len;
	return len;
}

/* So many bytes more are out: reports the messages whose lines are. */
static void
advance(Stdout *out, size_t len)
{
	out->written += len;
	out->line_written += len;
	while (out->first < out->nlines && out->line_written >= out->lines[out->first].len)
	{
		Line	   *line = &out->lines[out->first++];

		out->line_written -= line->len;
		out->base.report(out->base.context, line->message, SINK_OK, NULL);
	}
}

/* Gives back the room of what is written. */
static void
reclaim(Stdout *out)
{
	if (out->first == out->nlines && out->buffer.capacity > BUFFER_KEEP)
		BufferFree(&out->buffer);
	else
	{
		memmove(out->buffer.data, out->buffer.data + out->written, out->buffer.len - out->written);
		out->buffer.len -= out->written;
	}
	memmove(out->lines, out->lines + out->first, (out->nlines - out->first) * sizeof(Line));
	out->nlines -= out->first;
	out->first = 0;
	out->written = 0;
}

/* Writes what can be written without waiting. */
static SinkStatus
write_out(Stdout *out)
{
	if (out->nlines == 0 || (in_mid_line != NULL && in_mid_line != out))
		return SINK_READY;

	while (out->first < out->nlines)
	{
		ssize_t		len;

		if (!out->regular && !ready_for(out, POLLOUT))
			break;
		len = StdoutWrite(out->fd, out->buffer.data + out->written, next_write(out));
		if (len >= 0)
			advance(out, len);
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			return fail(out, errno);
	}
	in_mid_line = out->line_written > 0 ? out : NULL;
	reclaim(out);
	return SINK_READY;
}

/* ---------------------------------------------------------------- callbacks */

static SinkStatus
publish(Sink *sink, RelayMessage *message)
{
	Stdout	   *out = (Stdout *) sink;
	size_t		before;

	if (out->buffer.len >= BUFFER_WRITE && write_out(out) == SINK_FAILED)
		return SINK_FAILED;
	if (out->buffer.len >= BUFFER_FULL)
		return SINK_FULL;

	before = out->buffer.len;
	CloudEventAppend(&out->buffer, message);
	BufferAppend(&out->buffer, "\n", 1);

	if (out->nlines == out->lines_size)
	{
		out->lines_size = 2 * out->lines_size + 64;
		out->lines = MemRealloc(out->lines, out->lines_size * sizeof(Line));
	}
	out->lines[out->nlines++] = (Line) {message, out->buffer.len - before};
	return SINK_READY;
}

/* Also notices a reader that has gone while there is nothing to write. */
static SinkStatus
poll_stdout(Sink *sink)
{
	Stdout	   *out = (Stdout *) sink;

	if (!out->regular && (ready_for(out, 0) & POLLERR))
		return fail(out, EPIPE);
	return write_out(out);
}

static SinkStatus
flush(Sink *sink)
{
	return write_out((Stdout *) sink);
}

static void
wait_for(Sink *sink, WaitSet *set)
{
	Stdout	   *out = (Stdout *) sink;

	if (!out->regular)
		WaitForFd(set, out->fd, out->nlines > 0 ? POLLOUT : 0);
}

static void
close_stdout(Sink *sink)
{
	Stdout	   *out = (Stdout *) sink;

	if (in_mid_line == out)
		in_mid_line = NULL;
	BufferFree(&out->buffer);
	free(out->lines);
	free(out);
}

const SinkMethods StdoutSink = {
	.name = "stdout",
	.options = no_options,
	.open = open_stdout,
	.publish = publish,
	.poll = poll_stdout,
	.flush = flush,
	.wait = wait_for,
	.close = close_stdout
};
