/*
 * mem.h
 *		Allocation that does not return on failure, and a buffer that grows.
 */
#ifndef MEM_H
#define MEM_H

#include <stddef.h>

/* What these return is freed with free(). */
extern void *MemAlloc(size_t size); /* zeroed */
extern void *MemRealloc(void *ptr, size_t size);
extern char *MemStrdup(const char *text);

/* Bytes, not text: data is not terminated.  All zeroes is an empty buffer. */
typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		capacity;
} Buffer;

extern void BufferReserve(Buffer *buffer, size_t more);
extern void BufferAppend(Buffer *buffer, const void *data, size_t len);
extern void BufferAppendText(Buffer *buffer, const char *text);
extern void BufferAppendf(Buffer *buffer, const char *fmt,...) __attribute__((format(printf, 2, 3)));
extern char *BufferToText(Buffer *buffer);
extern void BufferFree(Buffer *buffer);

#endif							/* MEM_H */
