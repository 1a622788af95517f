/*
 * cloudevents.c
 *		A message as a CloudEvents 1.0 JSON object, in structured mode.
 *
 * The object is one line: PostgreSQL prints jsonb without line breaks, and
 * text is escaped here.  UTF-8 passes as it is, for the connection's encoding
 * is UTF-8 whatever the database's.
 *
 * CloudEvents' own integers have 32 bits, so positions and versions are
 * strings.  What is null is left out.
 */
#include "cloudevents.h"

/* JSON's short escapes; 'u' for the control characters that have none. */
static const char escapes[256] = {
	['"'] = '"', ['\\'] = '\\',
	['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't',
	[0x00] = 'u', [0x01] = 'u', [0x02] = 'u', [0x03] = 'u', [0x04] = 'u',
	[0x05] = 'u', [0x06] = 'u', [0x07] = 'u', [0x0b] = 'u', [0x0e] = 'u',
	[0x0f] = 'u', [0x10] = 'u', [0x11] = 'u', [0x12] = 'u', [0x13] = 'u',
	[0x14] = 'u', [0x15] = 'u', [0x16] = 'u', [0x17] = 'u', [0x18] = 'u',
	[0x19] = 'u', [0x1a] = 'u', [0x1b] = 'u', [0x1c] = 'u', [0x1d] = 'u',
	[0x1e] = 'u', [0x1f] = 'u', [0x7f] = 'u'
};

/* Text as a JSON string, quotes included. */
void
CloudEventAppendString(Buffer *out, RelayText text)
{
	size_t		done = 0;

	BufferAppend(out, "\"", 1);
	for (size_t i = 0; i < text.len; i++)
	{
		unsigned char c = text.data[i];

		if (escapes[c] == 0)
			continue;
		BufferAppend(out, text.data + done, i - done);
		if (escapes[c] == 'u')
			BufferAppendf(out, "\\u%04x", c);
		else
			BufferAppend(out, (char[]) {'\\', escapes[c]}, 2);
		done = i + 1;
	}
	BufferAppend(out, text.data + done, text.len - done);
	BufferAppend(out, "\"", 1);
}

/* `,"name":"value"`; nothing for a null, or for "", which CloudEvents forbids. */
static void
add_attribute(Buffer *out, const char *name, RelayText value)
{
	if (value.len == 0)
		return;
	BufferAppendText(out, ",\"");
	BufferAppendText(out, name);
	BufferAppendText(out, "\":");
	CloudEventAppendString(out, value);
}

void
CloudEventAppend(Buffer *out, const RelayMessage *message)
{
	BufferAppendText(out, "{\"specversion\":\"1.0\"");
	add_attribute(out, "id", message->message_id);
	add_attribute(out, "source", message->source);
	add_attribute(out, "type", message->type);
	add_attribute(out, "subject", message->key);
	add_attribute(out, "time", message->occurred_at);

	/* Extensions: lower-case letters and digits only. */
	add_attribute(out, "position", message->position_text);
	add_attribute(out, "incarnation", message->incarnation);
	add_attribute(out, "streamversion", message->version);
	add_attribute(out, "correlationid", message->correlation_id);
	add_attribute(out, "causationid", message->causation_id);
	add_attribute(out, "traceparent", message->traceparent);
	add_attribute(out, "schemaversion", message->schema_version);

	if (message->payload.data != NULL)
	{
		BufferAppendText(out, ",\"datacontenttype\":\"application/json\",\"data\":");
		BufferAppend(out, message->payload.data, message->payload.len);
	}
	BufferAppendText(out, "}");
}
