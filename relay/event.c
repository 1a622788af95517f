/*
 * event.c
 *		A message in a protocol that has headers and a body.
 *
 * Whatever needs no change is pointed to where it is, in the message; the rest
 * goes to event->text, which is made large enough before the first byte, so
 * that it does not move.
 *
 * The message's own headers come as PostgreSQL prints jsonb: valid JSON, each
 * name once.  So the scanner below trusts its form, and takes nothing from what
 * is no object.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cloudevents.h"
#include "event.h"

const char *const EventFormatValues[] = {"binary", "structured", "plain", NULL};

#define LITERAL(text)	((RelayText) {text, sizeof(text) - 1})
#define ATTRIBUTES_MAX	16		/* more than there are */
#define ATTRIBUTE_NAME_MAX 16

/* ---------------------------------------------------------------- headers */

/* Adds a header unless one of that name is among the first so many. */
static void
add_new_header(Event *event, int first, RelayText name, RelayText value)
{
	for (int i = 0; i < first; i++)
	{
		RelayText	other = event->headers[i].name;

		if (other.len == name.len && memcmp(other.data, name.data, name.len) == 0)
			return;
	}
	if (event->nheaders == event->headers_size)
	{
		event->headers_size = 2 * event->headers_size + 16;
		event->headers = MemRealloc(event->headers, event->headers_size * sizeof(EventHeader));
	}
	event->headers[event->nheaders++] = (EventHeader) {name, value};
}

static void
add_header(Event *event, RelayText name, RelayText value)
{
	add_new_header(event, event->nheaders, name, value);
}

static void
add_attribute(Event *event, const char *prefix, const char *name, RelayText value)
{
	RelayText	full = {event->text.data + event->text.len, strlen(prefix) + strlen(name)};

	if (value.len == 0)
		return;
	BufferAppendText(&event->text, prefix);
	BufferAppendText(&event->text, name);
	add_header(event, full, value);
}

static void
add_attributes(Event *event, const RelayMessage *message, const char *prefix)
{
	add_attribute(event, prefix, "specversion", LITERAL("1.0"));
	for (const CloudEventAttribute *attribute = CloudEventAttributes; attribute->name != NULL; attribute++)
		add_attribute(event, prefix, attribute->name,
					  *(const RelayText *) ((const char *) message + attribute->offset));
}

static void
add_if_any(Event *event, RelayText name, RelayText value)
{
	if (value.len > 0)
		add_header(event, name, value);
}

/* ---------------------------------------------------------------- JSON */

static const char *
skip_space(const char *c, const char *end)
{
	while (c < end && (*c == ' ' || *c == '\n' || *c == '\t' || *c == '\r'))
		c++;
	return c;
}

/* Behind the string that begins here. */
static const char *
skip_string(const char *c, const char *end)
{
	for (c++; c < end && *c != '"'; c++)
	{
		if (*c == '\\')
			c++;
	}
	return c < end ? c + 1 : end;
}

/* Behind the value that begins here. */
static const char *
skip_value(const char *c, const char *end)
{
	int			depth = 0;

	while (c < end)
	{
		if (*c == '"')
		{
			c = skip_string(c, end);
			if (depth == 0)
				return c;
			continue;
		}
		if (depth == 0 && (*c == ',' || *c == '}' || *c == ']'))
			return c;
		depth += (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
		c++;
	}
	return end;
}

static uint32_t
four_digits(const char *c)
{
	char		digits[5] = {c[0], c[1], c[2], c[3], '\0'};

	return strtoul(digits, NULL, 16);
}

static void
add_utf8(Buffer *out, uint32_t c)
{
	char		bytes[4] = {c};
	int			len = 1;

	if (c >= 0x10000)
	{
		bytes[0] = 0xf0 | c >> 18;
		bytes[1] = 0x80 | (c >> 12 & 0x3f);
		bytes[2] = 0x80 | (c >> 6 & 0x3f);
		bytes[3] = 0x80 | (c & 0x3f);
		len = 4;
	}
	else if (c >= 0x800)
	{
		bytes[0] = 0xe0 | c >> 12;
		bytes[1] = 0x80 | (c >> 6 & 0x3f);
		bytes[2] = 0x80 | (c & 0x3f);
		len = 3;
	}
	else if (c >= 0x80)
	{
		bytes[0] = 0xc0 | c >> 6;
		bytes[1] = 0x80 | (c & 0x3f);
		len = 2;
	}
	BufferAppend(out, bytes, len);
}

/* What an escape stands for; the character behind it. */
static const char *
add_escaped(Buffer *out, const char *c, const char *end)
{
	static const char from[] = "bfnrt";
	static const char to[] = "\b\f\n\r\t";
	const char *known = strchr(from, *c);
	uint32_t	code;

	if (*c != 'u')
	{
		BufferAppend(out, known != NULL ? &to[known - from] : c, 1);
		return c + 1;
	}
	if (end - c < 5)
		return end;
	code = four_digits(c + 1);
	c += 5;
	if (code >= 0xd800 && code < 0xdc00 && end - c >= 6 && c[0] == '\\' && c[1] == 'u')
	{
		code = 0x10000 + ((code - 0xd800) << 10) + (four_digits(c + 2) - 0xdc00);
		c += 6;
	}
	add_utf8(out, code);
	return c;
}

/* The text of a JSON string, in event->text if it has escapes. */
static RelayText
string_text(Event *event, const char *c, const char *end)
{
	Buffer	   *out = &event->text;
	RelayText	text = {c + 1, end - c - 2};

	if (memchr(text.data, '\\', text.len) == NULL)
		return text;
	text.data = out->data + out->len;
	for (c++, end--; c < end;)
	{
		if (*c == '\\')
			c = add_escaped(out, c + 1, end);
		else
			BufferAppend(out, c++, 1);
	}
	text.len = out->data + out->len - text.data;
	return text;
}

/* The members of a JSON object; they may be many, and each has a name of its own. */
static void
add_members(Event *event, RelayText json)
{
	const char *end = json.data + json.len;
	const char *c = json.len > 0 ? skip_space(json.data, end) : end;
	int			ours = event->nheaders;

	if (c == end || *c != '{')
		return;
	c = skip_space(c + 1, end);
	while (c < end && *c == '"')
	{
		const char *name_end = skip_string(c, end);
		RelayText	name = string_text(event, c, name_end);
		const char *value = skip_space(name_end, end);
		const char *value_end;

		value = skip_space(value + 1, end); /* behind the colon */
		value_end = skip_value(value, end);
		if (*value == '"')
			add_new_header(event, ours, name, string_text(event, value, value_end));
		else if (*value != 'n')
			add_new_header(event, ours, name, (RelayText) {value, value_end - value});
		c = skip_space(value_end, end);
		if (c < end && *c == ',')
			c = skip_space(c + 1, end);
	}
}

/* ---------------------------------------------------------------- the caller's */

static void
set_body(Event *event, const RelayMessage *message, EventFormat format)
{
	if (format == EVENT_STRUCTURED)
	{
		event->object.len = 0;
		CloudEventAppend(&event->object, message);
		event->body = (RelayText) {event->object.data, event->object.len};
		event->content_type = LITERAL("application/cloudevents+json");
		return;
	}
	event->body = message->payload.data != NULL ? message->payload : message->payload_binary;
	event->content_type = message->content_type;
}

void
EventMake(Event *event, const RelayMessage *message, EventFormat format, const char *prefix)
{
	event->nheaders = 0;
	event->text.len = 0;
	BufferReserve(&event->text, ATTRIBUTES_MAX * (strlen(prefix) + ATTRIBUTE_NAME_MAX) +
				  message->headers.len);

	if (format == EVENT_BINARY)
		add_attributes(event, message, prefix);
	else if (format == EVENT_PLAIN)
	{
		add_header(event, LITERAL("message-id"), message->message_id);
		add_header(event, LITERAL("message-type"), message->type);
		add_if_any(event, LITERAL("correlation-id"), message->correlation_id);
		add_if_any(event, LITERAL("causation-id"), message->causation_id);
	}
	add_if_any(event, LITERAL("traceparent"), message->traceparent);
	add_members(event, message->headers);
	set_body(event, message, format);
}

void
EventFree(Event *event)
{
	free(event->headers);
	BufferFree(&event->text);
	BufferFree(&event->object);
	memset(event, 0, sizeof(*event));
}
