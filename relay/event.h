/*
 * event.h
 *		A message in a protocol that has headers and a body.
 */
#ifndef EVENT_H
#define EVENT_H

#include "mem.h"
#include "relay.h"

/* How a message is laid out; EventFormatValues has the words for a setting. */
typedef enum EventFormat
{
	EVENT_BINARY,				/* CloudEvents binary mode: attributes are headers, the
								 * body is the payload */
	EVENT_STRUCTURED,			/* CloudEvents structured mode: the body is a JSON object
								 * with attributes and payload */
	EVENT_PLAIN					/* no CloudEvents: the body is the payload */
} EventFormat;

extern const char *const EventFormatValues[];	/* binary, structured, plain, NULL */

#define EVENT_FORMAT_HELP \
	"binary is CloudEvents with its attributes in headers and the payload as it is,\n" \
	"structured is one JSON object with attributes and payload, plain is the payload\n" \
	"with the message's own headers and no CloudEvents."

/* Neither is ended by a zero byte.  A value is UTF-8, and any bytes that are. */
typedef struct EventHeader
{
	RelayText	name;
	RelayText	value;
} EventHeader;

/* All zeroes is an empty one.  Keep it from message to message. */
typedef struct Event
{
	EventHeader *headers;
	int			nheaders;
	int			headers_size;
	RelayText	content_type;	/* of the body; null if there is none */
	RelayText	body;			/* null: the message has no payload */

	/* What of it is not the message's. */
	Buffer		text;			/* names and values */
	Buffer		object;			/* the body, in structured mode */
} Event;

/*
 * Lays a message out.  What event points to is valid until the next call, and
 * no longer than the message.
 *
 * Headers, in this order: in binary mode the attributes of CloudEvents, with
 * the prefix before each name ("ce_" for Kafka, "ce-" for HTTP); in plain mode
 * message-id, message-type and, where they are not null, correlation-id and
 * causation-id; in every mode traceparent where it is not null, and the
 * message's own: the members of its JSON object (of an event, its metadata),
 * text as it is and anything else as JSON, null left out.  Of two with one name
 * the first stays.  The content type is no header here, for each protocol has
 * its own place for it.
 */
extern void EventMake(Event *event, const RelayMessage *message, EventFormat format,
					  const char *prefix);
extern void EventFree(Event *event);

#endif							/* EVENT_H */
