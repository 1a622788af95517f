/*
 * sinks/line_file.c
 *		A file of whole lines that several processes may append to.
 *
 * Each append happens under flock(2), so relays that share the file do not mix
 * their lines, nor does one mend what another is writing.  Under the lock, and
 * before the first byte:
 *
 * - If the name leads to another file by now (logrotate, another relay's
 *   rotation, somebody's rm), that one is opened or made instead.
 * - A last line without its end was torn by a crash.  It was never confirmed, so
 *   it is cut off; its message comes again.
 *
 * What cannot be written in full is taken back with ftruncate, so a full disk
 * leaves no torn line either.  After a failed fsync the kernel may count as
 * clean what never reached the disk, so trying that again would prove nothing:
 * what was appended is taken back then too, and written anew.
 */
#define _GNU_SOURCE				/* statx, renameat2 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../mem.h"
#include "../waitset.h"
#include "file.h"

#define OPEN_TRIES	100			/* a file that moves on each time is no accident */
#define LOCK_PAUSE_NS	1000000

ssize_t		(*LineFileWrite) (int fd, const void *data, size_t len) = write;
int			(*LineFileSync) (int fd) = fdatasync;
int64_t		LineFilePatience = WAIT_S(10);

static bool
fail(const LineFile *file, LogError *error, const char *what)
{
	LogErrorSet(error, "could not %s \"%s\": %s", what, file->settings->path, strerror(errno));
	return false;
}

void
LineFileClose(LineFile *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

/* ---------------------------------------------------------------- opening */

/* Makes a name in a directory last, after a file was made or renamed. */
static bool
sync_directory(const LineFile *file, LogError *error)
{
	char	   *copy = MemStrdup(file->settings->path);
	int			fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool		synced = fd >= 0 && LineFileSync(fd) == 0;

	if (!synced)
		fail(file, error, "fsync the directory of");
	if (fd >= 0)
		close(fd);
	free(copy);
	return synced;
}

/* Whether the name still leads to what is open. */
static bool
is_current(const LineFile *file)
{
	struct stat open_one;
	struct stat named;

	return fstat(file->fd, &open_one) == 0 && stat(file->settings->path, &named) == 0 &&
		open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

static int64_t
birth(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) == 0 && (st.stx_mask & STATX_BTIME) != 0)
		return st.stx_btime.tv_sec;
	return time(NULL);
}

static bool
open_file(LineFile *file, LogError *error)
{
	struct stat st;
	bool		exists = stat(file->settings->path, &st) == 0;

	/* Opening a FIFO would wait for its reader. */
	if (exists && !S_ISREG(st.st_mode))
	{
		LogErrorSet(error, "\"%s\" is not a regular file", file->settings->path);
		return false;
	}
	file->fd = open(file->settings->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (file->fd < 0)
		return fail(file, error, "open");
	file->born = birth(file->fd);
	return exists || sync_directory(file, error);
}

/* Other relays have the lock for one append; who keeps it for longer must not keep us. */
static bool
take_lock(LineFile *file, LogError *error)
{
	struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	int64_t		until = WaitNow() + LineFilePatience;

	while (flock(file->fd, LOCK_EX | LOCK_NB) < 0)
	{
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(file, error, "lock");
		if (WaitNow() >= until)
		{
			LogErrorSet(error, "another process keeps \"%s\" locked", file->settings->path);
			return false;
		}
		nanosleep(&pause, NULL);
	}
	return true;
}

/* The file of that name, open and locked. */
static bool
lock_file(LineFile *file, LogError *error)
{
	for (int i = 0; i < OPEN_TRIES; i++)
	{
		if (file->fd < 0 && !open_file(file, error))
			return false;
		if (!take_lock(file, error))
			return false;
		if (is_current(file))
			return true;
		LineFileClose(file);
	}
	LogErrorSet(error, "\"%s\" is renamed or removed again and again", file->settings->path);
	return false;
}

/* ---------------------------------------------------------------- torn lines */

/* Where the last whole line ends; -1 if the file cannot be read. */
static off_t
end_of_lines(int fd, off_t size)
{
	char		block[8192];

	while (size > 0)
	{
		size_t		want = size < (off_t) sizeof(block) ? (size_t) size : sizeof(block);
		ssize_t		got = pread(fd, block, want, size - want);

		if (got != (ssize_t) want)
			return -1;
		while (got > 0 && block[got - 1] != '\n')
			got--;
		size -= want - got;
		if (got > 0)
			break;
	}
	return size;
}

static bool
mend(LineFile *file, LogError *error)
{
	struct stat st;
	off_t		end;

	if (fstat(file->fd, &st) < 0)
		return fail(file, error, "read");
	end = end_of_lines(file->fd, st.st_size);
	if (end < 0)
		return fail(file, error, "read");
	if (end != st.st_size)
	{
		Log(LOG_WARNING, "\"%s\" ended in a torn line of %lld bytes, which was cut off; its message comes again",
			file->settings->path, (long long) (st.st_size - end));
		if (ftruncate(file->fd, end) < 0)
			return fail(file, error, "truncate");
	}
	file->size = end;
	return true;
}

/* ---------------------------------------------------------------- rotation */

/* path.20261121T192300.123456Z; another if that is taken. */
static bool
rename_away(const LineFile *file)
{
	char		name[PATH_MAX];
	char		stamp[32];
	struct timespec now;
	struct tm	utc;

	do
	{
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &utc);
		strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%S", &utc);
		if (snprintf(name, sizeof(name), "%s.%s.%06ldZ", file->settings->path, stamp, now.tv_nsec / 1000) >= (int) sizeof(name))
		{
			errno = ENAMETOOLONG;
			return false;
		}
		if (renameat2(AT_FDCWD, file->settings->path, AT_FDCWD, name, RENAME_NOREPLACE) == 0)
			return true;
	} while (errno == EEXIST);
	return errno == EINVAL && rename(file->settings->path, name) == 0;	/* no such flag on this file system */
}

static bool
rotate(LineFile *file, LogError *error)
{
	if (!rename_away(file))
		return fail(file, error, "rename");
	LineFileClose(file);
	return lock_file(file, error) && mend(file, error);
}

static bool
is_old(const LineFile *file)
{
	return file->settings->rotate_age_s > 0 && file->size > 0 &&
		time(NULL) - file->born >= file->settings->rotate_age_s;
}

/* How many of the bytes go into the file before it is rotated: whole lines, 0 for none. */
static size_t
fitting(const LineFile *file, const char *lines, size_t len)
{
	int64_t		room = file->settings->rotate_size - file->size;
	const char *end;

	if (file->settings->rotate_size == 0 || (int64_t) len <= room)
		return len;
	end = room > 0 ? memrchr(lines, '\n', room) : NULL;
	if (end == NULL && file->size == 0)
		end = memchr(lines, '\n', len);
	return end != NULL ? (size_t) (end + 1 - lines) : 0;
}

/* ---------------------------------------------------------------- appending */

static bool
write_all(LineFile *file, const char *data, size_t len, LogError *error)
{
	while (len > 0)
	{
		ssize_t		written = LineFileWrite(file->fd, data, len);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			errno = written < 0 ? errno : ENOSPC;
			return fail(file, error, "write to");
		}
		data += written;
		len -= written;
	}
	return LineFileSync(file->fd) == 0 || fail(file, error, "fsync");
}

/* Appends what belongs into one file. */
static bool
append(LineFile *file, const char *lines, size_t len, LogError *error)
{
	LogError	ignored;

	if (write_all(file, lines, len, error))
	{
		file->size += len;
		return true;
	}
	if (ftruncate(file->fd, file->size) < 0)
		fail(file, &ignored, "truncate");	/* then the next call finds a torn line, or whole ones that come again */
	return false;
}

bool
LineFileAppend(LineFile *file, const char *lines, size_t len, LogError *error)
{
	bool		good = lock_file(file, error) && mend(file, error);

	if (good && is_old(file))
		good = rotate(file, error);
	while (good && len > 0)
	{
		size_t		part = fitting(file, lines, len);

		if (part == 0)
			good = rotate(file, error);
		else
			good = append(file, lines, part, error);
		lines += part;
		len -= part;
	}
	if (!good)
		LineFileClose(file);
	else
		flock(file->fd, LOCK_UN);
	return good;
}
