/*
 * tap.h
 *		What the unit tests (test_*.c) print: TAP, for prove and its like.
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int	tap_run = 0;
static int	tap_failed = 0;
static FILE *tap_to = NULL;		/* standard output, unless the test needs that */

static inline bool __attribute__((format(printf, 2, 3)))
tap_ok(bool passed, const char *fmt,...)
{
	FILE	   *to = tap_to != NULL ? tap_to : stdout;
	va_list		args;

	fprintf(to, "%sok %d - ", passed ? "" : "not ", ++tap_run);
	va_start(args, fmt);
	vfprintf(to, fmt, args);
	va_end(args);
	fprintf(to, "\n");
	if (!passed)
		tap_failed++;
	return passed;
}

/* Compares texts; shows both when they differ. */
static inline void
tap_is(const char *got, const char *expected, const char *name)
{
	if (!tap_ok(strcmp(got, expected) == 0, "%s", name))
		fprintf(stderr, "# got:      %s\n# expected: %s\n", got, expected);
}

/* Whether one text contains the other. */
static inline void
tap_has(const char *got, const char *part, const char *name)
{
	if (!tap_ok(strstr(got, part) != NULL, "%s", name))
		fprintf(stderr, "# got:      %s\n# lacks:    %s\n", got, part);
}

/* The plan, and what main returns. */
static inline int
tap_done(void)
{
	fprintf(tap_to != NULL ? tap_to : stdout, "1..%d\n", tap_run);
	return tap_failed > 0;
}

#endif							/* TAP_H */
