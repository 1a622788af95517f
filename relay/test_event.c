/*
 * test_event.c
 *		Names made of a message, its headers and its body, in each layout.
 */
#include <stdlib.h>
#include <unistd.h>

#include "event.h"
#include "tap.h"
#include "template.h"

static RelayText
text(const char *data)
{
	return (RelayText) {data, data != NULL ? strlen(data) : 0};
}

static RelayMessage
order(void)
{
	return (RelayMessage)
	{
		.lane = 3,
			.position_text = text("42"),
			.incarnation = text("i"),
			.message_id = text("m-1"),
			.topic = text("order"),
			.type = text("OrderPlaced"),
			.source = text("/es_pg/shop"),
			.key = text("order-7"),
			.content_type = text("application/json"),
			.payload = text("{\"total\": 1}")
	};
}

/* ---------------------------------------------------------------- templates */

static void
expands(const char *from, const char *expected, const char *name)
{
	RelayMessage message = order();
	LogError	error;
	Template   *template = TemplateParse(from, &error);
	Buffer		out = {0};

	if (template == NULL)
		BufferAppendText(&out, error.text);
	else
		TemplateExpand(template, &message, &out);
	tap_is(BufferToText(&out), expected, name);
	BufferFree(&out);
	TemplateFree(template);
}

static void
test_templates(void)
{
	Template   *template;
	LogError	error;

	expands("", "", "nothing");
	expands("orders", "orders", "no field");
	expands("{topic}", "order", "a field alone");
	expands("shop.{category}.{type}-{lane}!", "shop.order.OrderPlaced-3!", "fields in text");
	expands("{stream}{key}{id}{position}", "order-7order-7m-142", "fields next to each other");
	expands("a{correlation_id}b", "ab", "what is null is empty");
	expands("{{{topic}}}", "{order}", "braces themselves");
	expands("a{topics}", "\"a{topics}\" has an unknown field {topics}", "an unknown field");
	expands("a{}", "\"a{}\" has an unknown field {}", "a field without a name");
	expands("a{topic", "\"a{topic\" has a brace without its partner", "no closing brace");
	expands("topic}", "\"topic}\" has a brace without its partner", "no opening brace");

	template = TemplateParse("a{{b", &error);
	tap_ok(TemplateIsFixed(template), "a text is fixed");
	TemplateFree(template);
	template = TemplateParse("{lane}", &error);
	tap_ok(!TemplateIsFixed(template), "a field is not");
	TemplateFree(template);
}

/* ---------------------------------------------------------------- events */

static Event event;

/* `name=value;` for each header, then the content type and the body. */
static void
is_event(const RelayMessage *message, EventFormat format, const char *expected, const char *name)
{
	Buffer		out = {0};

	EventMake(&event, message, format, "ce_");
	for (int i = 0; i < event.nheaders; i++)
	{
		BufferAppend(&out, event.headers[i].name.data, event.headers[i].name.len);
		BufferAppendText(&out, "=");
		BufferAppend(&out, event.headers[i].value.data, event.headers[i].value.len);
		BufferAppendText(&out, ";");
	}
	BufferAppendText(&out, " ");
	BufferAppend(&out, event.content_type.data, event.content_type.len);
	BufferAppendText(&out, " ");
	BufferAppend(&out, event.body.data, event.body.len);
	tap_is(BufferToText(&out), expected, name);
	BufferFree(&out);
}

static void
test_formats(void)
{
	RelayMessage message = order();

	is_event(&message, EVENT_BINARY,
			 "ce_specversion=1.0;ce_id=m-1;ce_source=/es_pg/shop;ce_type=OrderPlaced;"
			 "ce_subject=order-7;ce_position=42;ce_incarnation=i; application/json {\"total\": 1}",
			 "binary: attributes are headers");
	is_event(&message, EVENT_PLAIN,
			 "message-id=m-1;message-type=OrderPlaced; application/json {\"total\": 1}",
			 "plain: no CloudEvents");
	is_event(&message, EVENT_STRUCTURED,
			 " application/cloudevents+json {\"specversion\":\"1.0\",\"id\":\"m-1\","
			 "\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\",\"subject\":\"order-7\","
			 "\"position\":\"42\",\"incarnation\":\"i\","
			 "\"datacontenttype\":\"application/json\",\"data\":{\"total\": 1}}",
			 "structured: one object");

	message.traceparent = text("00-ab-cd-01");
	message.correlation_id = text("c1");
	message.payload = text(NULL);
	message.payload_binary = (RelayText) {"\0\377ab", 4};
	message.content_type = text("image/png");
	is_event(&message, EVENT_STRUCTURED,
			 "traceparent=00-ab-cd-01; application/cloudevents+json {\"specversion\":\"1.0\",\"id\":\"m-1\","
			 "\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\",\"subject\":\"order-7\","
			 "\"position\":\"42\",\"incarnation\":\"i\",\"correlationid\":\"c1\",\"traceparent\":\"00-ab-cd-01\","
			 "\"datacontenttype\":\"image/png\",\"data_base64\":\"AP9hYg==\"}",
			 "bytes are base64; traceparent is a header too");
	EventMake(&event, &message, EVENT_BINARY, "ce-");
	tap_ok(event.body.len == 4 && memcmp(event.body.data, "\0\377ab", 4) == 0, "bytes as they are");

	message.payload_binary = text(NULL);
	message.content_type = text(NULL);
	is_event(&message, EVENT_PLAIN,
			 "message-id=m-1;message-type=OrderPlaced;correlation-id=c1;traceparent=00-ab-cd-01;  ",
			 "no payload: no body, no content type");
	tap_ok(event.body.data == NULL, "and the body is null");
}

static void
own_headers(const char *json, const char *expected, const char *name)
{
	RelayMessage message = order();

	message.headers = text(json);
	message.payload = text(NULL);
	message.content_type = text(NULL);
	is_event(&message, EVENT_PLAIN, expected, name);
}

static void
test_headers(void)
{
#define IDS "message-id=m-1;message-type=OrderPlaced;"

	own_headers("{}", IDS "  ", "no member");
	own_headers(" {\"a\": \"x\", \"b\": \"\", \"c\": 12.50, \"d\": true, \"e\": null}",
				IDS "a=x;b=;c=12.50;d=true;  ", "text, numbers, booleans; null is left out");
	own_headers("{\"a\": {\"b\": [1, \"}\"], \"c\": {}}, \"d\": [\"]\\\"\"], \"e\": \"z\"}",
				IDS "a={\"b\": [1, \"}\"], \"c\": {}};d=[\"]\\\"\"];e=z;  ", "the rest as JSON");
	own_headers("{\"q\\\"\": \"\\\\ \\/ \\n\\t \\u0041\\u00e9\\u20ac\\ud83d\\ude00.\"}",
				IDS "q\"=\\ / \n\t A\303\251\342\202\254\360\237\230\200.;  ", "escapes");
	own_headers("{\"message-id\": \"other\", \"a\": \"x\"}", IDS "a=x;  ", "ours goes first");
	own_headers("[1, 2]", IDS "  ", "what is no object has no members");
	own_headers(NULL, IDS "  ", "null has none");
}

/* Each is looked for among ours, and not among all others. */
static void
test_many_headers(void)
{
	RelayMessage message = order();
	Buffer		json = {0};

	for (int i = 0; i < 500000; i++)
		BufferAppendf(&json, "%s\"k%06d\": 1", i == 0 ? "{" : ", ", i);
	BufferAppendText(&json, "}");
	message.headers = (RelayText) {json.data, json.len};
	alarm(60);
	EventMake(&event, &message, EVENT_PLAIN, "");
	alarm(0);
	tap_ok(event.nheaders > 500000, "half a million headers");
	BufferFree(&json);
}

int
main(void)
{
	test_templates();
	test_formats();
	test_headers();
	test_many_headers();
	EventFree(&event);
	return tap_done();
}
