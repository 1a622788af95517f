/*
 * sinks/file.c
 *		Appends CloudEvents to a file, a JSON object a line, and rotates it.
 *
 * A message is OK when its line is in the file and fsync has returned.  One
 * fsync serves all the lines that were gathered while the one before it went on
 * (or that flush sends), so the slower the disk, the larger the groups.
 *
 * Writing blocks, so a thread of this sink's own does it (line_file.c).  It and
 * the main thread take turns with a batch: the one that is in `writing` belongs
 * to the thread from start_batch until it has set `done`, and the eventfd says
 * so; everything else belongs to the main thread.
 *
 * Whatever fails is no message's fault, so it is DOWN: for the batch, and for
 * all that was taken meanwhile, since nothing may overtake what failed.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../cloudevents.h"
#include "../mem.h"
#include "../sink.h"
#include "file.h"

#define BATCH_WRITE		(64 * 1024) /* worth a write before flush */
#define BATCH_FULL		(1024 * 1024)	/* publish refuses more */

typedef struct Batch
{
	Buffer		lines;
	RelayMessage **messages;
	size_t		nmessages;
	size_t		messages_size;
} Batch;

typedef struct File
{
	Sink		base;
	int			wake;			/* an eventfd: the thread is done */

	Batch		filling;
	Batch		writing;
	bool		busy;			/* the thread has `writing` */
	bool		revoked;		/* `filling` has messages of a lane that is lost */

	pthread_t	thread;
	pthread_mutex_t lock;		/* of what follows */
	pthread_cond_t change;
	bool		started;		/* a batch is to be written, or is being written */
	bool		done;
	bool		quit;

	/* The thread's, while it is busy. */
	LineFile	file;
	bool		good;
	LogError	error;
} File;

#define FIELD(member)	offsetof(FileSettings, member)

static const ConfigOption options[] = {
	{"path", CONFIG_STRING, FIELD(path), NULL,
		.help = "The file to append to, made if it does not exist. Relays may share it."
	},
	{"rotate_size", CONFIG_SIZE, FIELD(rotate_size), "0",
		.help = "How large the file may get before it is renamed, with the time behind its name,\n"
		"and a new one begins. 0 is any size.",
		.min = 0, .max = INT64_MAX
	},
	{"rotate_age_s", CONFIG_INT, FIELD(rotate_age_s), "0",
		.help = "How many seconds old the file may get before the next line goes into a new one.\n"
		"0 is any age.",
		.min = 0, .max = INT32_MAX
	},
	{NULL}
};

/* ---------------------------------------------------------------- the thread */

static void *
run_thread(void *arg)
{
	static const uint64_t one = 1;
	File	   *file = arg;

	pthread_mutex_lock(&file->lock);
	for (;;)
	{
		while (!file->started && !file->quit)
			pthread_cond_wait(&file->change, &file->lock);
		if (!file->started)
			break;
		pthread_mutex_unlock(&file->lock);
		file->good = LineFileAppend(&file->file, file->writing.lines.data, file->writing.lines.len, &file->error);
		pthread_mutex_lock(&file->lock);
		file->started = false;
		file->done = true;
		if (write(file->wake, &one, sizeof(one)) < 0)
			continue;			/* full: then it is readable */
	}
	pthread_mutex_unlock(&file->lock);
	return NULL;
}

/* Signals are the main thread's. */
static bool
start_thread(File *file)
{
	sigset_t	all;
	sigset_t	before;
	int			error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&file->thread, NULL, run_thread, file);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return error == 0;
}

/* ---------------------------------------------------------------- batches */

static void
report_batch(File *file, Batch *batch, SinkOutcome outcome, const char *text)
{
	size_t		count = batch->nmessages;

	batch->nmessages = 0;
	batch->lines.len = 0;
	if (batch->lines.capacity > 2 * BATCH_FULL)
		BufferFree(&batch->lines);
	for (size_t i = 0; i < count; i++)
		file->base.report(file->base.context, batch->messages[i], outcome, text);
}

/* Hands what was gathered to the thread, unless that is busy or poll has to look at it first. */
static void
start_batch(File *file)
{
	Batch		empty = file->writing;

	if (file->busy || file->revoked || file->filling.nmessages == 0)
		return;
	file->writing = file->filling;
	file->filling = empty;
	file->busy = true;
	pthread_mutex_lock(&file->lock);
	file->started = true;
	pthread_cond_signal(&file->change);
	pthread_mutex_unlock(&file->lock);
}

/* Takes the batch back if the thread is done with it, and hands it what was gathered meanwhile. */
static void
finish_batch(File *file)
{
	bool		done;

	pthread_mutex_lock(&file->lock);
	done = file->done;
	file->done = false;
	pthread_mutex_unlock(&file->lock);
	if (!done)
		return;
	file->busy = false;
	if (file->good)
		report_batch(file, &file->writing, SINK_OK, NULL);
	else
	{
		report_batch(file, &file->writing, SINK_DOWN, file->error.text);
		report_batch(file, &file->filling, SINK_DOWN, file->error.text);
	}
	start_batch(file);
}

/* ---------------------------------------------------------------- callbacks */

static void
close_file(Sink *sink)
{
	File	   *file = (File *) sink;

	pthread_mutex_lock(&file->lock);
	file->quit = true;
	pthread_cond_signal(&file->change);
	pthread_mutex_unlock(&file->lock);
	pthread_join(file->thread, NULL);
	pthread_mutex_destroy(&file->lock);
	pthread_cond_destroy(&file->change);
	LineFileClose(&file->file);
	close(file->wake);
	BufferFree(&file->filling.lines);
	BufferFree(&file->writing.lines);
	free(file->filling.messages);
	free(file->writing.messages);
	free(file);
}

static Sink *
open_file(const void *settings, const PipelineConfig *pipeline, LogError *error)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	File	   *file = MemAlloc(sizeof(File));

	(void) pipeline;
	file->base.methods = &FileSink;
	file->file = (LineFile) {.settings = settings, .fd = -1};
	file->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&file->lock, NULL);
	pthread_cond_init(&file->change, NULL);

	/* A limit on the size of files is an error of write(2), not our end. */
	sigaction(SIGXFSZ, &ignore, NULL);
	if (file->wake >= 0 && start_thread(file))
		return &file->base;

	LogErrorSet(error, "could not start the thread that writes to \"%s\": %s",
				((const FileSettings *) settings)->path, strerror(errno));
	if (file->wake >= 0)
		close(file->wake);
	free(file);
	return NULL;
}

static SinkStatus
publish(Sink *sink, RelayMessage *message)
{
	File	   *file = (File *) sink;
	Batch	   *batch = &file->filling;

	if (batch->lines.len >= BATCH_FULL)
		return SINK_FULL;
	CloudEventAppend(&batch->lines, message);
	BufferAppend(&batch->lines, "\n", 1);
	if (batch->nmessages == batch->messages_size)
	{
		batch->messages_size = 2 * batch->messages_size + 64;
		batch->messages = MemRealloc(batch->messages, batch->messages_size * sizeof(RelayMessage *));
	}
	batch->messages[batch->nmessages++] = message;
	if (batch->lines.len >= BATCH_WRITE)
		start_batch(file);
	return SINK_READY;
}

static SinkStatus
poll_file(Sink *sink)
{
	File	   *file = (File *) sink;
	uint64_t	count;

	if (read(file->wake, &count, sizeof(count)) > 0)
		finish_batch(file);
	if (file->revoked)
	{
		file->revoked = false;
		report_batch(file, &file->filling, SINK_DOWN, "a lane was lost before its lines were written");
	}
	return SINK_READY;
}

static SinkStatus
flush(Sink *sink)
{
	start_batch((File *) sink);
	return SINK_READY;
}

/* What the thread has is as good as written. */
static void
revoke_lane(Sink *sink, int lane, int64_t epoch)
{
	File	   *file = (File *) sink;
	Batch	   *batch = &file->filling;

	for (size_t i = 0; i < batch->nmessages; i++)
		file->revoked |= batch->messages[i]->lane == lane && batch->messages[i]->epoch == epoch;
}

static void
wait_for(Sink *sink, WaitSet *set)
{
	File	   *file = (File *) sink;

	WaitForFd(set, file->wake, POLLIN);
	if (file->revoked)
		WaitUntil(set, WaitNow());
}

const SinkMethods FileSink = {
	.name = "file",
	.options = options,
	.settings_size = sizeof(FileSettings),
	.open = open_file,
	.publish = publish,
	.poll = poll_file,
	.flush = flush,
	.revoke = revoke_lane,
	.wait = wait_for,
	.close = close_file
};
