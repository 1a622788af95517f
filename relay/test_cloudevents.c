/*
 * test_cloudevents.c
 *		A message as CloudEvents JSON: what is there, what is left out, escaping.
 */
#include <stdlib.h>

#include "cloudevents.h"
#include "tap.h"

static RelayText
text(const char *data)
{
	return (RelayText) {data, data != NULL ? strlen(data) : 0};
}

static void
is_event(const RelayMessage *message, const char *expected, const char *name)
{
	Buffer		out = {0};

	CloudEventAppend(&out, message);
	tap_is(BufferToText(&out), expected, name);
	BufferFree(&out);
}

static void
is_string(const char *data, size_t len, const char *expected, const char *name)
{
	Buffer		out = {0};

	CloudEventAppendString(&out, (RelayText) {data, len});
	tap_is(BufferToText(&out), expected, name);
	BufferFree(&out);
}

static void
test_event(void)
{
	RelayMessage message = {
		.position = 9007199254740993,
		.position_text = text("9007199254740993"),
		.incarnation = text("4b6c1c5e-0000-4000-8000-000000000001"),
		.message_id = text("01890a5d-ac96-774b-bcce-b302099a8057"),
		.topic = text("order"),
		.type = text("OrderPlaced"),
		.source = text("/es_pg/shop")
	};

	is_event(&message,
			 "{\"specversion\":\"1.0\",\"id\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
			 "\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\","
			 "\"position\":\"9007199254740993\","
			 "\"incarnation\":\"4b6c1c5e-0000-4000-8000-000000000001\"}",
			 "what is null is left out, data too");

	message.key = text("order-42");
	message.version = text("3");
	message.schema_version = text("2");
	message.content_type = text("application/json");
	message.payload = text("{\"total\": 99.99, \"note\": \"caf\303\251\"}");
	message.headers = text("{\"not\": \"carried\"}");
	message.correlation_id = text("c\"1");
	message.causation_id = text("c2");
	message.traceparent = text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	message.occurred_at = text("2024-02-29T23:59:59.000001Z");
	is_event(&message,
			 "{\"specversion\":\"1.0\",\"id\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
			 "\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\",\"subject\":\"order-42\","
			 "\"time\":\"2024-02-29T23:59:59.000001Z\","
			 "\"position\":\"9007199254740993\","
			 "\"incarnation\":\"4b6c1c5e-0000-4000-8000-000000000001\","
			 "\"streamversion\":\"3\",\"correlationid\":\"c\\\"1\",\"causationid\":\"c2\","
			 "\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\","
			 "\"schemaversion\":\"2\",\"datacontenttype\":\"application/json\","
			 "\"data\":{\"total\": 99.99, \"note\": \"caf\303\251\"}}",
			 "all there is, in its place; data as it is");

	message.key = text("");
	message.occurred_at = text("");
	message.content_type = text("application/json");
	message.payload = text("null");
	message.version = message.schema_version = message.correlation_id =
		message.causation_id = message.traceparent = text(NULL);
	is_event(&message,
			 "{\"specversion\":\"1.0\",\"id\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
			 "\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\","
			 "\"position\":\"9007199254740993\","
			 "\"incarnation\":\"4b6c1c5e-0000-4000-8000-000000000001\","
			 "\"datacontenttype\":\"application/json\",\"data\":null}",
			 "an empty attribute is left out, JSON's null is data");
}

static void
test_strings(void)
{
	char		all[32];
	Buffer		expected = {0};

	is_string("", 0, "\"\"", "nothing");
	is_string("plain", 5, "\"plain\"", "plain text");
	is_string("\"\\/", 3, "\"\\\"\\\\/\"", "quote and backslash, not the slash");
	is_string("a\nb\tc\rd\be\ff", 11, "\"a\\nb\\tc\\rd\\be\\ff\"", "short escapes");
	is_string("\033[0m\177", 5, "\"\\u001b[0m\\u007f\"", "escape and delete");
	is_string("\342\202\254 \360\237\230\200", 8, "\"\342\202\254 \360\237\230\200\"", "UTF-8 passes");
	is_string("\\\\\"\"", 4, "\"\\\\\\\\\\\"\\\"\"", "escapes in a row");

	for (int c = 0; c < 32; c++)
		all[c] = c;
	BufferAppendText(&expected, "\"");
	for (int c = 0; c < 32; c++)
	{
		const char *short_escapes[32] = {['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n",
		['\f'] = "\\f", ['\r'] = "\\r"};

		if (short_escapes[c] != NULL)
			BufferAppendText(&expected, short_escapes[c]);
		else
			BufferAppendf(&expected, "\\u%04x", c);
	}
	BufferAppendText(&expected, "\"");
	is_string(all, sizeof(all), BufferToText(&expected), "every control character is escaped");
	BufferFree(&expected);
}

/* Growth is where a buffer goes wrong. */
static void
test_long(void)
{
	Buffer		out = {0};
	bool		same = true;
	size_t		len = 3 * 1024 * 1024;
	char	   *data = MemAlloc(len);

	memset(data, '"', len);
	CloudEventAppendString(&out, (RelayText) {data, len});
	tap_ok(out.len == 2 * len + 2, "three million quotes take six million bytes");
	for (size_t i = 0; i < len; i++)
		same = same && memcmp(out.data + 1 + 2 * i, "\\\"", 2) == 0;
	tap_ok(same && out.data[0] == '"' && out.data[out.len - 1] == '"', "each of them escaped");
	BufferFree(&out);
	BufferAppend(&out, data, 0);
	tap_ok(out.len == 0, "a freed buffer can be used again");
	BufferFree(&out);
	free(data);
}

int
main(void)
{
	test_event();
	test_strings();
	test_long();
	return tap_done();
}
