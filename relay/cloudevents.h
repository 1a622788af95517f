/*
 * cloudevents.h
 *		A message as a CloudEvents 1.0 event: its attributes, and as a JSON object.
 */
#ifndef CLOUDEVENTS_H
#define CLOUDEVENTS_H

#include "mem.h"
#include "relay.h"

/* An attribute that is a text of the message; left out when that is null or "". */
typedef struct CloudEventAttribute
{
	const char *name;			/* NULL ends the table */
	size_t		offset;			/* of a RelayText in RelayMessage */
} CloudEventAttribute;

/* All but specversion, which is "1.0", and datacontenttype. */
extern const CloudEventAttribute CloudEventAttributes[];

/* Structured mode: the JSON object, on one line. */
extern void CloudEventAppend(Buffer *out, const RelayMessage *message);

/* Text as a JSON string, quotes included. */
extern void CloudEventAppendString(Buffer *out, RelayText text);

#endif							/* CLOUDEVENTS_H */
