/*
 * test_kafka.c
 *		The Kafka sink against librdkafka's mock cluster: what is OK, in which
 *		order, and what becomes of messages when requests, brokers or the
 *		producer fail.
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "event.h"
#include "sinks/kafka.h"
#include "test_sink.h"

#define PRODUCE		0			/* the protocol's numbers of requests */
#define INIT_PRODUCER 22

static rd_kafka_t *owner;
static rd_kafka_mock_cluster_t *cluster;
static int	ntopics = 0;
static char topic[32];			/* of the test at hand */

static KafkaSettings settings;
static ConfigPair pairs[8];

static SinkOutcome outcomes[MOST];
static char texts[MOST][512];

/* ---------------------------------------------------------------- the sink's caller */

static void
note(void *context, RelayMessage *message, SinkOutcome outcome, const char *reason)
{
	int			n = message - messages;

	(void) context;
	outcomes[n] = outcome;
	snprintf(texts[n], sizeof(texts[n]), "%s", reason != NULL ? reason : "");
	reported++;
}

static void
set(const char *property, const char *value)
{
	ConfigPair *pair = &pairs[settings.properties.npairs++];

	pair->key = (char *) property;
	pair->value = (char *) value;
}

/* Default settings, a topic of this test's own. */
static void
begin_settings(int partitions)
{
	settings = (KafkaSettings) {
		.brokers = (char *) rd_kafka_mock_cluster_bootstraps(cluster),
		.topic = topic,
		.delivery_timeout_s = 60,
		.properties = {.pairs = pairs}
	};
	snprintf(topic, sizeof(topic), "topic%d", ++ntopics);
	rd_kafka_mock_topic_create(cluster, topic, partitions, 1);
	set("retry.backoff.ms", "10");
	for (int n = 0; n < MOST; n++)
		outcomes[n] = -1;
}

static void
begin_sink(void)
{
	open_sink(&KafkaSink, &settings, note);
}

/* Messages from..to-1, all with this key. */
static void
publish_range(int from, int to, const char *key)
{
	for (int n = from; n < to; n++)
	{
		outcomes[n] = -1;
		publish(message(n, key));
	}
	sink->methods->flush(sink);
}

/*
 * The same, but no further than the sink takes them at once, or has told what became
 * of the first: after a failure it is for the caller to hold back what follows.
 * Returns the first it did not take.
 */
static int
offer_range(int from, int to, const char *key)
{
	int			n = from;

	while (n < to && (n == from || outcomes[from] == (SinkOutcome) -1) &&
		   sink->methods->publish(sink, message(n, key)) == SINK_READY)
		n++;
	published += n - from;
	sink->methods->flush(sink);
	return n;
}

/* How many of from..to-1 have that outcome. */
static int
count(int from, int to, SinkOutcome outcome)
{
	int			found = 0;

	for (int n = from; n < to; n++)
		found += outcomes[n] == outcome;
	return found;
}

/* ---------------------------------------------------------------- the far side */

static rd_kafka_t *
make_client(rd_kafka_type_t type, const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		error[256];

	rd_kafka_conf_set(conf, "log_level", "2", error, sizeof(error));
	if (brokers != NULL)
	{
		rd_kafka_conf_set(conf, "bootstrap.servers", brokers, error, sizeof(error));
		rd_kafka_conf_set(conf, "group.id", "test", error, sizeof(error));
		rd_kafka_conf_set(conf, "enable.partition.eof", "true", error, sizeof(error));
	}
	return rd_kafka_new(type, conf, error, sizeof(error));
}

static void
add_message(Buffer *out, const rd_kafka_message_t *message, bool all)
{
	rd_kafka_headers_t *headers;
	const char *name;
	const void *value;
	size_t		size;

	if (!all)
	{
		BufferAppendf(out, "%.*s ", (int) message->len, (char *) message->payload);
		return;
	}
	if (message->key != NULL)
		BufferAppendf(out, "%.*s\n", (int) message->key_len, (char *) message->key);
	else
		BufferAppendText(out, "(null)\n");
	if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
			BufferAppendf(out, "%s: %.*s\n", name, (int) size, (const char *) value);
	}
	if (message->payload != NULL)
		BufferAppendf(out, "%.*s\n", (int) message->len, (char *) message->payload);
}

/* What partition 0 of the topic has, to its end: payloads, or all with headers. */
static char *
consume(bool all)
{
	static Buffer out;
	rd_kafka_t *consumer = make_client(RD_KAFKA_CONSUMER, settings.brokers);
	rd_kafka_topic_partition_list_t *partitions = rd_kafka_topic_partition_list_new(1);
	bool		ended = false;

	out.len = 0;
	rd_kafka_poll_set_consumer(consumer);
	rd_kafka_topic_partition_list_add(partitions, topic, 0)->offset = 0;
	rd_kafka_assign(consumer, partitions);
	while (!ended)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 20000);

		ended = message == NULL || message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
		if (message != NULL && message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			add_message(&out, message, all);
		if (message != NULL)
			rd_kafka_message_destroy(message);
	}
	rd_kafka_topic_partition_list_destroy(partitions);
	rd_kafka_consumer_close(consumer);
	rd_kafka_destroy(consumer);
	return BufferToText(&out);
}

/* "from .. to-1 ", as consume writes it. */
static const char *
range(int from, int to)
{
	static Buffer out;

	out.len = 0;
	for (int n = from; n < to; n++)
		BufferAppendf(&out, "%d ", n);
	return BufferToText(&out);
}

static void
fail_requests(int count, rd_kafka_resp_err_t error)
{
	rd_kafka_resp_err_t errors[100];

	for (int i = 0; i < count; i++)
		errors[i] = error;
	rd_kafka_mock_push_request_errors_array(cluster, PRODUCE, count, errors);
}

/* ---------------------------------------------------------------- what is sent */

static void
test_layout(void)
{
	RelayMessage *full;

	begin_settings(1);
	begin_sink();
	full = message(0, "order-7");
	full->version = text("4");
	full->traceparent = text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
	full->headers = text("{\"tenant\": \"acme\", \"Content-Type\": \"text/evil\", \"n\": 5}");
	publish(full);
	full = message(1, NULL);
	full->payload = full->content_type = text(NULL);
	publish(full);
	tap_ok(settle() && count(0, 2, SINK_OK) == 2, "delivered");
	tap_is(consume(true),
		   "order-7\n"
		   "content-type: application/json\n"
		   "ce_specversion: 1.0\n"
		   "ce_id: 0\n"
		   "ce_source: /es_pg/shop\n"
		   "ce_type: OrderPlaced\n"
		   "ce_subject: order-7\n"
		   "ce_position: 0\n"
		   "ce_incarnation: i\n"
		   "ce_streamversion: 4\n"
		   "ce_traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"
		   "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"
		   "tenant: acme\n"
		   "n: 5\n"
		   "0\n"
		   "(null)\n"
		   "ce_specversion: 1.0\n"
		   "ce_id: 1\n"
		   "ce_source: /es_pg/shop\n"
		   "ce_type: OrderPlaced\n"
		   "ce_position: 1\n"
		   "ce_incarnation: i\n",
		   "binary mode: key, attributes, the message's own headers, the payload as it is");
	end();

	begin_settings(1);
	settings.format = EVENT_STRUCTURED;
	begin_sink();
	publish(message(0, "order-7"));
	tap_ok(settle() && count(0, 1, SINK_OK) == 1, "delivered");
	tap_is(consume(true),
		   "order-7\n"
		   "content-type: application/cloudevents+json\n"
		   "{\"specversion\":\"1.0\",\"id\":\"0\",\"source\":\"/es_pg/shop\",\"type\":\"OrderPlaced\","
		   "\"subject\":\"order-7\",\"position\":\"0\",\"incarnation\":\"i\","
		   "\"datacontenttype\":\"application/json\",\"data\":0}\n",
		   "structured mode: one JSON object");
	end();
}

static void
test_unfit(void)
{
	static char large[2000];

	begin_settings(1);
	set("message.max.bytes", "1500");
	begin_sink();
	memset(large, 'x', sizeof(large) - 1);
	publish(message(0, "k"));
	message(1, "k")->payload = text(large);
	publish(&messages[1]);
	publish(message(2, "k"));
	tap_ok(settle() && outcomes[0] == SINK_OK && outcomes[1] == SINK_REJECT && outcomes[2] == SINK_OK,
		   "a message that is too large is rejected, and only that");
	tap_is(texts[1], "1999 bytes of payload, with key and headers, are more than Kafka's message.max.bytes, 1500: "
		   "raise \"kafka.message.max.bytes\" here and the limit of broker and topic, or send less",
		   "... with the limit and what to do");
	end();

	begin_settings(1);
	settings.topic = "{type}";
	begin_sink();
	message(0, "k")->type = text("order placed");
	publish(&messages[0]);
	message(1, "k")->type = text("..");
	publish(&messages[1]);
	message(2, "k")->type = text("");
	publish(&messages[2]);
	tap_ok(settle() && count(0, 3, SINK_REJECT) == 3, "names that Kafka's topics cannot have");
	tap_has(texts[0], "\"order placed\" cannot be the name of a Kafka topic", "... are named");
	end();
}

static void
test_unknown_topic(void)
{
	begin_settings(1);
	set("topic.metadata.propagation.max.ms", "200");
	set("topic.metadata.refresh.fast.interval.ms", "50");
	settings.topic = "{type}";
	rd_kafka_mock_topic_set_error(cluster, "missing", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	begin_sink();
	message(0, "a")->type = text("missing");
	publish(&messages[0]);
	message(1, "b")->type = text(topic);
	publish(&messages[1]);
	tap_ok(settle() && outcomes[0] == SINK_RETRY && outcomes[1] == SINK_OK,
		   "a topic that is not there is for its messages to wait for");
	tap_has(texts[0], "\"missing\"", "... and named");
	fail_requests(1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
	message(2, "c")->type = text(topic);
	publish(&messages[2]);
	tap_ok(settle() && outcomes[2] == SINK_RETRY, "likewise one that we may not write to");
	publish(&messages[2]);
	tap_ok(settle() && outcomes[2] == SINK_OK, "... until we may");
	end();
}

static void
test_two_topics(void)
{
	char		other[64];

	begin_settings(1);
	snprintf(other, sizeof(other), "%s_other", topic);
	rd_kafka_mock_topic_create(cluster, other, 1, 1);
	settings.topic = "{type}";
	begin_sink();
	message(0, "k")->type = text(topic);
	publish(&messages[0]);
	message(1, "k")->type = text(other);
	tap_ok(sink->methods->publish(sink, &messages[1]) == SINK_FULL,
		   "a key's message to another topic waits for those before it");
	message(2, "l")->type = text(other);
	publish(&messages[2]);
	settle();
	publish(&messages[1]);
	tap_ok(settle() && count(0, 3, SINK_OK) == 3, "... and is taken when they are confirmed");
	end();
}

/* ---------------------------------------------------------------- what goes wrong */

static void
test_lasting(const char *name, int requests, rd_kafka_resp_err_t error)
{
	begin_settings(1);
	begin_sink();
	publish_range(0, 100, "k");
	settle();
	fail_requests(requests, error);
	publish_range(100, 1000, "k");
	tap_ok(settle() && count(0, 1000, SINK_OK) == 1000, "%s: all is confirmed in the end", name);
	tap_is(consume(false), range(0, 1000), "... in order, each once");
	end();
}

static void
test_broker_down(void)
{
	begin_settings(1);
	begin_sink();
	publish_range(0, 100, "k");
	settle();
	rd_kafka_mock_broker_set_down(cluster, -1);
	publish_range(100, 500, "k");
	for (int i = 0; i < 20; i++)
		turn();
	tap_ok(reported == 100, "while all brokers are down nothing is confirmed");
	rd_kafka_mock_broker_set_up(cluster, -1);
	tap_ok(settle() && count(0, 500, SINK_OK) == 500, "when they are up again everything is");
	tap_is(consume(false), range(0, 500), "... in order, each once");
	end();
}

static void
test_leader_change(void)
{
	begin_settings(1);
	begin_sink();
	for (int n = 0; n < 10; n++)
	{
		publish_range(n * 100, n * 100 + 100, "k");
		rd_kafka_mock_partition_set_leader(cluster, topic, 0, 1 + n % 3);
	}
	tap_ok(settle() && count(0, 1000, SINK_OK) == 1000, "leaders that change: all is confirmed in the end");
	tap_is(consume(false), range(0, 1000), "... in order, each once");
	end();
}

static void
test_timeout(void)
{
	begin_settings(1);
	settings.delivery_timeout_s = 1;
	begin_sink();
	rd_kafka_mock_broker_set_down(cluster, -1);
	publish_range(0, 50, "k");
	tap_ok(settle() && count(0, 50, SINK_DOWN) == 50, "no confirmation in time: down, no message's fault");
	tap_has(texts[0], "no confirmation within 1 s", "... and says so");
	rd_kafka_mock_broker_set_up(cluster, -1);
	publish_range(0, 50, "k");
	tap_ok(settle() && count(0, 50, SINK_OK) == 50, "given again, it is confirmed");
	tap_is(consume(false), range(0, 50), "... and there");
	end();
}

static void
test_stuck_partition(void)
{
	begin_settings(2);
	settings.delivery_timeout_s = 1;
	set("partitioner", "consistent");
	begin_sink();
	rd_kafka_mock_partition_set_leader(cluster, topic, 1, -1);
	for (int n = 0; n < 100; n++)
	{
		static char keys[100][16];

		snprintf(keys[n], sizeof(keys[n]), "k%d", n);
		publish(message(n, keys[n]));
	}
	tap_ok(settle() && count(0, 100, SINK_OK) > 0 && count(0, 100, SINK_RETRY) > 0 &&
		   count(0, 100, SINK_OK) + count(0, 100, SINK_RETRY) == 100,
		   "a partition without a leader is the fault of its messages, while others are confirmed");
	end();
}

/*
 * The mock takes the requests that are in flight behind the refused one, which a
 * broker does not, for their numbers do not follow (test/kafka/broker.pl tries
 * that). So here, first, one is in flight at a time.
 */
static void
test_refused(void)
{
	int			taken;

	begin_settings(1);
	set("max.in.flight", "1");
	set("batch.num.messages", "10");
	set("linger.ms", "50");
	begin_sink();
	publish_range(0, 10, "k");
	settle();
	fail_requests(1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	taken = offer_range(10, 100, "k");
	tap_ok(settle() && count(0, 10, SINK_OK) == 10 && count(10, 20, SINK_SPLIT) == 10,
		   "a request that is refused for what is in it: its messages are to be split");
	tap_ok(count(20, taken, SINK_DOWN) == taken - 20, "... and what came after them is to be given again");
	tap_is(consume(false), range(0, 10), "... and is not written");
	publish_range(10, 15, "k");
	settle();
	fail_requests(1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	publish(message(15, "k"));
	tap_ok(settle() && count(10, 15, SINK_OK) == 5 && outcomes[15] == SINK_REJECT, "alone it is rejected");
	publish_range(16, 30, "k");
	tap_ok(settle() && count(16, 30, SINK_OK) == 14, "and what follows goes on");
	end();

	begin_settings(1);
	set("batch.num.messages", "10");
	begin_sink();
	publish_range(0, 10, "k");
	settle();
	fail_requests(1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	taken = offer_range(10, 200, "k");
	tap_ok(settle() && count(0, 10, SINK_OK) == 10 && count(10, taken, SINK_OK) == 0,
		   "what was written behind a refused message of its key is not confirmed");
	end();
}

static void
test_fatal(void)
{
	int			taken;

	begin_settings(1);
	begin_sink();
	publish_range(0, 10, "k");
	settle();
	fail_requests(1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
	taken = offer_range(10, 100, "k");
	tap_ok(settle() && count(10, taken, SINK_DOWN) == taken - 10, "a fatal error: all that is not confirmed is to be given again");
	publish_range(10, 100, "k");
	tap_ok(settle() && count(10, 100, SINK_OK) == 90, "... to a new producer, which confirms it");
	tap_is(consume(false), range(0, 100), "... in order");
	end();

	begin_settings(1);
	begin_sink();
	rd_kafka_mock_push_request_errors(cluster, INIT_PRODUCER, 1, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED);
	publish_range(0, 10, "k");
	settle();
	tap_ok(count(0, 10, SINK_DOWN) == 10, "a producer that may not begin is down");
	publish_range(0, 10, "k");
	tap_ok(settle() && count(0, 10, SINK_OK) == 10, "... until it may");
	end();
}

static void
test_revoke(void)
{
	begin_settings(1);
	begin_sink();
	publish_range(0, 10, "k");
	settle();
	rd_kafka_mock_broker_set_rtt(cluster, -1, 300);
	sink->methods->revoke(sink, 1, 1);
	publish_range(10, 200, "k");
	sink->methods->revoke(sink, 1, 2);
	tap_ok(sink->methods->publish(sink, message(200, "k")) == SINK_READY, "a lane of which nothing is on its way is no matter");
	published++;
	sink->methods->revoke(sink, 1, 1);
	tap_ok(sink->methods->publish(sink, message(201, "k")) == SINK_FULL, "one that is lost stops the producer");
	tap_ok(settle() && count(10, 201, SINK_DOWN) > 0, "... what was not sent is down");
	tap_ok(count(10, 201, SINK_DOWN) + count(10, 201, SINK_OK) == 191, "... and the rest confirmed");
	rd_kafka_mock_broker_set_rtt(cluster, -1, 0);
	publish(message(201, "k"));
	tap_ok(settle() && outcomes[201] == SINK_OK, "... and then it goes on");
	end();
}

static void
test_close(void)
{
	begin_settings(1);
	begin_sink();
	rd_kafka_mock_broker_set_down(cluster, -1);
	publish_range(0, 100, "k");
	end();
	rd_kafka_mock_broker_set_up(cluster, -1);
	tap_ok(reported == 0, "closed with messages on their way, which get no outcome");
}

/* ---------------------------------------------------------------- settings */

static void
refuses(const char *property, const char *value, const char *expected)
{
	LogError	error = {.text = "(taken)"};

	begin_settings(1);
	set(property, value);
	KafkaSink.check(&settings, &error);
	tap_is(error.text, expected, property);
}

static void
test_settings(void)
{
	LogError	error = {.text = ""};

	refuses("linger.ms", "5", "(taken)");
	refuses("no.such", "1", "\"kafka.no.such\": No such configuration property: \"no.such\"");
	refuses("linger.ms", "soon", "\"kafka.linger.ms\": Invalid value for configuration property \"queue.buffering.max.ms\"");
	refuses("message.timeout.ms", "5",
			"\"kafka.message.timeout.ms\" cannot be set: \"delivery_timeout_s\" is the setting for it");
	refuses("acks", "0", "\"kafka.acks\" cannot be set to 0: then nobody knows what was delivered");
	refuses("acks", "all", "(taken)");

	begin_settings(1);
	settings.topic = "{no}";
	tap_ok(!KafkaSink.check(&settings, &error), "a template with an unknown field");
	tap_has(error.text, "unknown field {no}", "... is named");

	begin_settings(1);
	set("acks", "1");
	tap_ok(KafkaSink.open(&settings, NULL, &error) == NULL, "properties that contradict each other");
	tap_has(error.text, "acks", "... are named");

	begin_settings(1);
	set("security.protocol", "ssl");
	set("ssl.key.pem", "hunter2");
	tap_ok(KafkaSink.open(&settings, NULL, &error) == NULL, "a key that is none");
	tap_ok(strstr(error.text, "ssl.key.pem") != NULL && strstr(error.text, "hunter2") == NULL,
		   "... is named and not shown");
}

static void
test_without_idempotence(void)
{
	begin_settings(1);
	set("enable.idempotence", "false");
	begin_sink();
	publish_range(0, 100, "k");
	fail_requests(3, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
	publish_range(100, 500, "k");
	tap_ok(settle() && count(0, 500, SINK_OK) == 500, "without idempotence: confirmed");
	tap_is(consume(false), range(0, 500), "... in order still");
	end();
}

int
main(void)
{
	LogSetLevel(getenv("VERBOSE") != NULL ? LOG_DEBUG : LOG_ERROR);
	owner = make_client(RD_KAFKA_PRODUCER, NULL);
	cluster = rd_kafka_mock_cluster_new(owner, 3);

	test_settings();
	test_layout();
	test_unfit();
	test_unknown_topic();
	test_two_topics();
	test_lasting("replicas missing", 3, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
	test_lasting("not the leader", 2, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
	test_lasting("lost connections", 3, RD_KAFKA_RESP_ERR__TRANSPORT);
	test_lasting("a request that timed out at the broker", 2, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT);
	test_broker_down();
	test_leader_change();
	test_timeout();
	test_stuck_partition();
	test_refused();
	test_fatal();
	test_revoke();
	test_close();
	test_without_idempotence();

	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(owner);
	return tap_done();
}
