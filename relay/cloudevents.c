/*
 * cloudevents.c
 *		A message as a CloudEvents 1.0 event: its attributes, and as a JSON object.
 *
 * The object is one line: PostgreSQL prints jsonb without line breaks, and
 * text is escaped here.  UTF-8 passes as it is, for the connection's encoding
 * is UTF-8 whatever the database's.
 *
 * CloudEvents' own integers have 32 bits, so positions and versions are
 * strings.  What is null is left out.
 */
#include <stdint.h>

#include "cloudevents.h"

/* Behind time come extensions: their names are lower-case letters and digits only. */
const CloudEventAttribute CloudEventAttributes[] = {
	{"id", offsetof(RelayMessage, message_id)},
	{"source", offsetof(RelayMessage, source)},
	{"type", offsetof(RelayMessage, type)},
	{"subject", offsetof(RelayMessage, key)},
	{"time", offsetof(RelayMessage, occurred_at)},
	{"position", offsetof(RelayMessage, position_text)},
	{"incarnation", offsetof(RelayMessage, incarnation)},
	{"streamversion", offsetof(RelayMessage, version)},
	{"correlationid", offsetof(RelayMessage, correlation_id)},
	{"causationid", offsetof(RelayMessage, causation_id)},
	{"traceparent", offsetof(RelayMessage, traceparent)},
	{"schemaversion", offsetof(RelayMessage, schema_version)},
	{NULL, 0}
};

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

/* Bytes as base64, for data_base64. */
static void
add_base64(Buffer *out, RelayText bytes)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *data = (const unsigned char *) bytes.data;

	BufferReserve(out, bytes.len / 3 * 4 + 4);
	for (size_t i = 0; i < bytes.len; i += 3)
	{
		size_t		left = bytes.len - i;
		uint32_t	group = data[i] << 16 | (left > 1 ? data[i + 1] << 8 : 0) | (left > 2 ? data[i + 2] : 0);
		char		four[4] = {
			digits[group >> 18], digits[group >> 12 & 63],
			left > 1 ? digits[group >> 6 & 63] : '=', left > 2 ? digits[group & 63] : '='
		};

		BufferAppend(out, four, sizeof(four));
	}
}

void
CloudEventAppend(Buffer *out, const RelayMessage *message)
{
	BufferAppendText(out, "{\"specversion\":\"1.0\"");
	for (const CloudEventAttribute *attribute = CloudEventAttributes; attribute->name != NULL; attribute++)
		add_attribute(out, attribute->name,
					  *(const RelayText *) ((const char *) message + attribute->offset));
	add_attribute(out, "datacontenttype", message->content_type);

	if (message->payload.data != NULL)
	{
		BufferAppendText(out, ",\"data\":");
		BufferAppend(out, message->payload.data, message->payload.len);
	}
	else if (message->payload_binary.data != NULL)
	{
		BufferAppendText(out, ",\"data_base64\":\"");
		add_base64(out, message->payload_binary);
		BufferAppendText(out, "\"");
	}
	BufferAppendText(out, "}");
}
