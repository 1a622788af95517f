/*
 * log.c
 *		One line a message to standard error: time, level, text.
 *
 * A line is one write(2), so the lines of several relays that share a file do
 * not mix, and it stays one line whatever the text: libpq's errors have
 * several.  Nothing is allocated, so an out-of-memory can be logged.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static const char *const level_names[] = {
	[LOG_ERROR] = "ERROR",
	[LOG_WARNING] = "WARNING",
	[LOG_INFO] = "INFO",
	[LOG_DEBUG] = "DEBUG"
};

static LogLevel threshold = LOG_INFO;

/* Makes each run of white space and control characters one space, in place. */
static size_t
join_lines(char *text)
{
	char	   *to = text;

	for (const char *from = text; *from != '\0'; from++)
	{
		if ((unsigned char) *from > ' ')
			*to++ = *from;
		else if (to > text && to[-1] != ' ')
			*to++ = ' ';
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
	return to - text;
}

void
LogSetLevel(LogLevel level)
{
	threshold = level;
}

void
Log(LogLevel level, const char *fmt,...)
{
	char		line[2048];
	struct timespec now;
	struct tm	utc;
	size_t		len;
	va_list		args;

	if (level > threshold)
		return;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	len = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
	len += snprintf(line + len, sizeof(line) - len, ".%03ldZ %s ",
					now.tv_nsec / 1000000, level_names[level]);

	va_start(args, fmt);
	vsnprintf(line + len, sizeof(line) - len - 1, fmt, args);
	va_end(args);

	len += join_lines(line + len);
	line[len++] = '\n';

	/* A log that cannot be written is no reason to stop. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

void
LogErrorSet(LogError *error, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(error->text, sizeof(error->text), fmt, args);
	va_end(args);
}
