/*
 * test_file.c
 *		The file sink: when a message is OK, torn lines, rotation, files that go
 *		away, disks that are full or fail.
 *
 * write(2) and fdatasync(2) are replaced by ones that can fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "sinks/file.h"
#include "test_sink.h"

static char directory[] = "/tmp/test_file.XXXXXX";
static char path[64];
static FileSettings settings;
static char story[8192];
static int	confirmed;

static int	room = -1;			/* bytes that the disk has left, -1: any */
static int	sync_error;			/* of the next sync, once */
static int	nsyncs;

/* Held by a test that wants the disk to be slow. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;

static ssize_t
fake_write(int fd, const void *data, size_t len)
{
	if (room >= 0 && len > (size_t) room)
		len = room;
	if (len == 0)
	{
		errno = ENOSPC;
		return -1;
	}
	if (room >= 0)
		room -= len;
	return write(fd, data, len);
}

static int
fake_sync(int fd)
{
	pthread_mutex_lock(&disk);
	nsyncs++;
	errno = sync_error;
	sync_error = 0;
	pthread_mutex_unlock(&disk);
	return errno == 0 ? fdatasync(fd) : -1;
}

static void
note(void *context, RelayMessage *message, SinkOutcome outcome, const char *reason)
{
	size_t		len = strlen(story);

	(void) context;
	snprintf(story + len, sizeof(story) - len, "%.*s %s%s\n", (int) message->message_id.len, message->message_id.data, outcome == SINK_OK ? "ok" : "down: ",
			 reason != NULL ? reason : "");
	reported++;
	confirmed += outcome == SINK_OK;
}

static void
begin(int64_t rotate_size)
{
	settings = (FileSettings) {.path = path,.rotate_size = rotate_size};
	story[0] = '\0';
	confirmed = 0;
	open_sink(&FileSink, &settings, note);
}

/* Message n with the least that makes a line, which has 54 bytes then. */
static RelayMessage *
least(int n)
{
	RelayMessage *full = message(n, NULL);

	*full = (RelayMessage) {
		.lane = n % 2,.epoch = 1,.message_id = full->message_id,.type = text("t"),.source = text("s")
	};
	return full;
}

static void
publish_one(int n)
{
	publish(least(n));
}

static const char *
publish_all(int from, int to)
{
	for (int n = from; n < to; n++)
		publish_one(n);
	settle();
	return story;
}

/* The ids in a file, in turn; "torn" for a line without its end. */
static const char *
ids_in(const char *name)
{
	static Buffer out;
	FILE	   *file = fopen(name, "r");
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;

	out.len = 0;
	if (file == NULL)
		return "(none)";
	while ((len = getline(&line, &size, file)) > 0)
	{
		char	   *id = strstr(line, "\"id\":\"");

		if (line[len - 1] != '\n')
			BufferAppendText(&out, "torn");
		else if (id != NULL)
			BufferAppendf(&out, "%d ", atoi(id + 6));
		else
			BufferAppendText(&out, "? ");
	}
	free(line);
	fclose(file);
	return BufferToText(&out);
}

/* The same of all files that were rotated away, oldest first; how many. */
static int
rotated(Buffer *ids)
{
	char		pattern[80];
	glob_t		found;
	int			count;

	snprintf(pattern, sizeof(pattern), "%s.2*", path);
	if (glob(pattern, 0, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++)
	{
		if (ids != NULL)
			BufferAppendText(ids, ids_in(found.gl_pathv[i]));
		unlink(found.gl_pathv[i]);
	}
	count = found.gl_pathc;
	globfree(&found);
	return count;
}

static void
put(const char *content)
{
	FILE	   *file = fopen(path, "w");

	fputs(content, file);
	fclose(file);
}

/* ---------------------------------------------------------------- tests */

static void
test_plain(void)
{
	begin(0);
	tap_is(publish_all(0, 3), "0 ok\n1 ok\n2 ok\n", "written, and then OK");
	tap_is(ids_in(path), "0 1 2 ", "in their order");
	end();
	begin(0);
	publish_all(3, 5);
	tap_is(ids_in(path), "0 1 2 3 4 ", "a file that is there is appended to");
	end();
	unlink(path);
}

static void
test_groups(void)
{
	static char padding[100000];
	int			before;

	begin(0);
	pthread_mutex_lock(&disk);
	publish_one(0);
	sink->methods->flush(sink);
	for (int n = 1; n < 100; n++)
	{
		publish_one(n);
		sink->methods->flush(sink);
	}
	sink->methods->poll(sink);
	tap_ok(reported == 0, "nothing is OK before fsync has returned");
	before = nsyncs;
	pthread_mutex_unlock(&disk);
	settle();
	tap_ok(confirmed == 100 && nsyncs - before <= 3, "one fsync serves all that was gathered meanwhile");
	end();
	unlink(path);

	begin(0);
	memset(padding, 'x', sizeof(padding) - 1);
	pthread_mutex_lock(&disk);
	for (int n = 0; n < 100; n++)
	{
		least(n)->type = text(padding);
		if (sink->methods->publish(sink, &messages[n]) == SINK_FULL)
			break;
		published++;
	}
	tap_ok(published < 100, "what waits for the disk is bounded");
	pthread_mutex_unlock(&disk);
	settle();
	tap_ok(confirmed == published, "... and all of it is written");
	end();
	unlink(path);
}

static void
test_torn(void)
{
	put("{\"id\":\"7\"}\n{\"id\":\"8\",\"ty");
	begin(0);
	publish_all(0, 1);
	tap_is(ids_in(path), "7 0 ", "a torn last line is cut off");
	end();
	put("{\"id\":");
	begin(0);
	publish_all(0, 1);
	tap_is(ids_in(path), "0 ", "also when it is the only one");
	end();
	unlink(path);
}

static void
test_full(void)
{
	begin(0);
	publish_all(0, 2);
	story[0] = '\0';
	room = 70;
	pthread_mutex_lock(&disk);
	publish_one(2);
	publish_one(3);
	sink->methods->flush(sink);
	publish_one(4);
	pthread_mutex_unlock(&disk);
	settle();
	tap_has(story, "2 down: could not write to \"/tmp/test_file.", "a full disk is down");
	tap_has(story, "No space left on device\n3 down", "... and says why");
	tap_has(story, "4 down", "... for what was taken meanwhile too");
	tap_is(ids_in(path), "0 1 ", "what was written of it is taken back");
	room = 0;
	publish_all(2, 3);
	tap_is(ids_in(path), "0 1 ", "also if it was nothing");
	room = -1;
	publish_all(2, 5);
	tap_is(ids_in(path), "0 1 2 3 4 ", "with room again it goes on");

	story[0] = '\0';
	sync_error = EIO;
	publish_all(5, 6);
	tap_has(story, "5 down: could not fsync", "a disk that fails is down");
	tap_is(ids_in(path), "0 1 2 3 4 ", "... and what it may not have is taken back");
	publish_all(5, 6);
	tap_is(ids_in(path), "0 1 2 3 4 5 ", "... and written anew");
	end();
	unlink(path);
}

static void
test_limit(void)
{
	struct rlimit before;
	struct rlimit limit;

	LineFileWrite = write;
	getrlimit(RLIMIT_FSIZE, &before);
	limit = before;
	limit.rlim_cur = 150;
	begin(0);
	publish_all(0, 2);
	setrlimit(RLIMIT_FSIZE, &limit);
	story[0] = '\0';
	publish_all(2, 5);
	setrlimit(RLIMIT_FSIZE, &before);
	tap_has(story, "2 down: ", "a limit on the size of files is no end of the process");
	tap_is(ids_in(path), "0 1 ", "... and leaves whole lines");
	end();
	LineFileWrite = fake_write;
	unlink(path);
}

static void
test_rotation(void)
{
	Buffer		ids = {0};
	struct stat st;
	int			count;

	begin(200);
	publish_all(0, 20);
	tap_ok(stat(path, &st) == 0 && st.st_size <= 200, "by size: the file stays below it");
	count = rotated(&ids);
	BufferAppendText(&ids, ids_in(path));
	tap_ok(count >= 5, "... the others are named by the time");
	tap_is(BufferToText(&ids), "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 ", "... and nothing is lost");
	end();
	unlink(path);

	begin(10);
	publish_all(0, 3);
	tap_ok(confirmed == 3 && rotated(NULL) == 2, "a line that is larger has a file of its own");
	end();
	unlink(path);

	begin(0);
	settings.rotate_age_s = 1;
	publish_all(0, 1);
	for (int i = 0; i < 100 && rotated(NULL) == 0; i++)
	{
		usleep(100000);
		publish_all(0, 1);
	}
	tap_is(ids_in(path), "0 ", "by age: what comes later goes into a new one");
	end();
	unlink(path);
	BufferFree(&ids);
}

static void
test_moved(void)
{
	char		moved[80];

	snprintf(moved, sizeof(moved), "%s.1", path);
	begin(0);
	publish_all(0, 1);
	rename(path, moved);
	publish_all(1, 2);
	tap_is(ids_in(moved), "0 ", "renamed by somebody: it stays as it is");
	tap_is(ids_in(path), "1 ", "... and a new one begins");
	unlink(path);
	publish_all(2, 3);
	tap_is(ids_in(path), "2 ", "removed: likewise");
	put("");
	publish_all(3, 4);
	tap_is(ids_in(path), "3 ", "emptied: it goes on at its beginning");
	end();
	unlink(path);
	unlink(moved);
}

static void
test_two_writers(void)
{
	Sink	   *other;

	begin(0);
	other = sink;
	open_sink(&FileSink, &settings, note);
	for (int n = 0; n < 100; n += 2)
	{
		publish_all(n, n + 1);
		Sink	   *swap = other;

		other = sink;
		sink = swap;
		publish_all(n + 1, n + 2);
	}
	tap_ok(confirmed == 100 && strstr(ids_in(path), "0 1 2 3 4 ") == ids_in(path), "two can share a file");
	FileSink.close(other);
	end();
	unlink(path);
}

/* Somebody keeps the lock: that is down, and no reason to hang. */
static void
test_locked(void)
{
	int			other = open(path, O_RDWR | O_CREAT, 0600);

	alarm(60);
	flock(other, LOCK_EX);
	LineFilePatience = WAIT_MS(20);
	begin(0);
	tap_has(publish_all(0, 1), "0 down: another process keeps \"", "a file that stays locked is down");
	close(other);
	LineFilePatience = PATIENCE;
	tap_has(publish_all(0, 1), "0 ok\n", "... and is written to when it is not");
	end();
	alarm(0);
	unlink(path);
}

static void
test_bad_path(void)
{
	snprintf(path, sizeof(path), "%s/no/such", directory);
	begin(0);
	tap_has(publish_all(0, 1), "0 down: could not open \"", "no such directory is down");
	tap_has(story, "No such file or directory", "... and says so");
	end();

	snprintf(path, sizeof(path), "%s/fifo", directory);
	mkfifo(path, 0600);
	begin(0);
	tap_has(publish_all(0, 1), "is not a regular file", "a FIFO is refused, not waited for");
	end();
	unlink(path);
}

static void
test_revoke(void)
{
	begin(0);
	pthread_mutex_lock(&disk);
	publish_one(0);
	sink->methods->flush(sink);
	publish_one(1);
	publish_one(2);
	sink->methods->revoke(sink, 0, 2);
	sink->methods->revoke(sink, 1, 1);
	pthread_mutex_unlock(&disk);
	settle();
	tap_has(story, "1 down: a lane was lost", "a lane that was lost: what was not written is down");
	tap_has(story, "0 ok\n", "... and what was is OK");
	tap_is(ids_in(path), "0 ", "... and it is not written");
	end();
	unlink(path);
}

int
main(void)
{
	LogSetLevel(getenv("VERBOSE") != NULL ? LOG_DEBUG : LOG_ERROR);
	if (mkdtemp(directory) == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/out", directory);
	LineFileWrite = fake_write;
	LineFileSync = fake_sync;

	test_plain();
	test_groups();
	test_torn();
	test_full();
	test_limit();
	test_rotation();
	test_moved();
	test_two_writers();
	test_revoke();
	test_locked();
	test_bad_path();
	rmdir(directory);
	return tap_done();
}
