/*
 * sinks/file.h
 *		A file of whole lines that several processes may append to.
 */
#ifndef SINKS_FILE_H
#define SINKS_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../log.h"

typedef struct FileSettings
{
	char	   *path;
	int64_t		rotate_size;	/* bytes, 0: never */
	int			rotate_age_s;	/* 0: never */
} FileSettings;

typedef struct LineFile
{
	const FileSettings *settings;
	int			fd;				/* -1: to be opened */
	off_t		size;
	int64_t		born;			/* seconds since 1970 */
} LineFile;

/*
 * Appends whole lines, and has them on disk when it returns true.  If it
 * returns false, with the reason, the file has none of the bytes of this call
 * that had not been rotated away; the next call tries everything anew.  Blocks.
 */
extern bool LineFileAppend(LineFile *file, const char *lines, size_t len, LogError *error);
extern void LineFileClose(LineFile *file);

/* For tests. */
extern ssize_t (*LineFileWrite) (int fd, const void *data, size_t len);
extern int	(*LineFileSync) (int fd);
extern int64_t LineFilePatience;	/* with others who have the lock */

#endif							/* SINKS_FILE_H */
