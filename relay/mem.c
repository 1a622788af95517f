/*
 * mem.c
 *		Allocation that does not return on failure, and a buffer that grows.
 *
 * Out of memory ends the process: what the sink confirmed and the database was
 * not told will be delivered again, so nothing is lost by leaving at any point.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "relay.h"

static void *
check(void *ptr, size_t size)
{
	if (ptr == NULL)
	{
		Log(LOG_ERROR, "out of memory: could not allocate %zu bytes", size);
		exit(RELAY_EXIT_FAILURE);
	}
	return ptr;
}

void *
MemAlloc(size_t size)
{
	return check(calloc(1, size), size);
}

void *
MemRealloc(void *ptr, size_t size)
{
	return check(realloc(ptr, size), size);
}

char *
MemStrdup(const char *text)
{
	return check(strdup(text), strlen(text) + 1);
}

/* Makes room for so many bytes more, and for a terminator. */
void
BufferReserve(Buffer *buffer, size_t more)
{
	size_t		needed = buffer->len + more + 1;
	size_t		capacity = buffer->capacity > 0 ? buffer->capacity : 256;

	if (needed <= buffer->capacity)
		return;
	while (capacity < needed)
		capacity *= 2;
	buffer->data = MemRealloc(buffer->data, capacity);
	buffer->capacity = capacity;
}

void
BufferAppend(Buffer *buffer, const void *data, size_t len)
{
	BufferReserve(buffer, len);
	if (len > 0)
		memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
}

void
BufferAppendText(Buffer *buffer, const char *text)
{
	BufferAppend(buffer, text, strlen(text));
}

void
BufferAppendf(Buffer *buffer, const char *fmt,...)
{
	va_list		args;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);

	BufferReserve(buffer, len);
	va_start(args, fmt);
	vsnprintf(buffer->data + buffer->len, len + 1, fmt, args);
	va_end(args);
	buffer->len += len;
}

/* The contents with a terminator; they stay the buffer's. */
char *
BufferToText(Buffer *buffer)
{
	BufferReserve(buffer, 0);
	buffer->data[buffer->len] = '\0';
	return buffer->data;
}

void
BufferFree(Buffer *buffer)
{
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}
