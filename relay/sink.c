/*
 * sink.c
 *		The sinks there are.
 */
#include <string.h>

#include "sink.h"

static const SinkMethods *const sinks[] = {
	&StdoutSink,
	&FileSink,
	&ExecSink,
	&KafkaSink,
	NULL
};

/* The n-th sink, NULL after the last. */
const SinkMethods *
SinkAt(int n)
{
	return sinks[n];
}

/* The sink of that name, or NULL. */
const SinkMethods *
SinkFind(const char *name)
{
	for (int i = 0; sinks[i] != NULL; i++)
	{
		if (strcmp(sinks[i]->name, name) == 0)
			return sinks[i];
	}
	return NULL;
}
