/*
 * sinks/kafka.c
 *		Produces to Apache Kafka, or to what speaks its protocol, with librdkafka.
 *
 * A message is OK when its delivery report says so: with acks=all, all in-sync
 * replicas have it.  Nothing else is taken for success.
 *
 * Order and repetition.  Kafka orders within a partition, and a key stays in
 * one.  The idempotent producer numbers what it sends to a partition, and the
 * broker takes only the next number: so its own retries, five requests in
 * flight, neither repeat nor overtake, across lost connections, a broker's
 * restart and a change of leaders.  With enable.gapless.guarantee a request
 * that fails for good ends the producer (a fatal error) before anything behind
 * it can be written.  librdkafka's message.timeout.ms would break this, since a
 * message that timed out is overtaken by the next: it is off, and this file
 * watches the time.
 *
 * What that does not cover, and what is done about it:
 *
 * - A key whose messages go to several topics, by the template: a message waits
 *   until those of its key on their way to another topic are reported.
 * - A topic that does not exist fails its messages without a fatal error.  If it
 *   comes to be in the instant between that and the report, one that was handed
 *   over meanwhile may be written before its predecessor; it is not confirmed,
 *   and given again behind it.
 * - The number of a topic's partitions was changed: keys move to other
 *   partitions, and Kafka has no order between these.
 *
 * Halting.  When the producer is at its end (a fatal error, delivery_timeout_s
 * without a confirmation, a lane that another relay has now), nothing more is
 * given to it; what it has not sent is purged, and requests on the wire get
 * HALT_GRACE to be answered.  Then it is destroyed, and only when its
 * connections are gone the next one begins, so that the old one writes nothing
 * behind the new one's back.  A request that had reached the broker's machine
 * and was not answered may still be written: its messages are given again, with
 * the same ids, so this is where duplicates come from, and if the broker was
 * frozen meanwhile they may even come behind newer ones.  The same holds for what
 * a relay has on the wire that is killed; only transactions could fence it.  First
 * occurrences are in order in any case.  All that was not confirmed is reported
 * as DOWN, or as what it is to blame for.
 *
 * librdkafka has threads of its own; here they are a queue and an eventfd, and
 * no call of this file waits for them.  Payload, key and headers are copied by
 * it, so that a message is free as soon as it is reported.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../event.h"
#include "../inflight.h"
#include "../mem.h"
#include "../sink.h"
#include "../template.h"
#include "kafka.h"

#define HALT_GRACE		WAIT_S(2)
#define PURGE_AGAIN		WAIT_S(1)	/* a message may have moved past a purge */
#define TOPIC_MAX		249		/* Kafka's own limit, in bytes */
#define CLOSE_LIMIT		5		/* seconds */

typedef enum KafkaState
{
	KAFKA_NONE,					/* no producer: publish makes one */
	KAFKA_RUNNING,
	KAFKA_HALTING,				/* waits for the last reports */
	KAFKA_ENDING				/* the producer is being destroyed */
} KafkaState;

typedef struct Topic
{
	char	   *name;
	size_t		len;
	rd_kafka_topic_t *handle;
	struct Topic *next;
} Topic;

typedef struct Kafka
{
	Sink		base;
	const KafkaSettings *settings;
	Template   *template;
	int			wake;			/* an eventfd: there is something for poll */

	KafkaState	state;
	rd_kafka_t *producer;
	rd_kafka_queue_t *queue;
	KafkaEnd   *end;
	Topic	   *topics;			/* of the present producer, the last used first */

	InFlightSet in_flight;
	int64_t		confirmed_at;	/* when something was confirmed last */
	bool		unreachable;	/* no broker could be reached since */
	int64_t		purge_at;		/* while halting: when requests on the wire are given up */
	LogError	reason;			/* of halting */
	LogError	last_error;		/* what librdkafka said of the brokers last */

	Buffer		name;			/* of the topic of the message at hand */
	Event		event;
} Kafka;

#define FIELD(member)	offsetof(KafkaSettings, member)

static const ConfigOption options[] = {
	{"brokers", CONFIG_STRING, FIELD(brokers), NULL,
		.help = "Where the cluster is: host:port of one broker or of several, with commas. The\n"
		"other brokers are learnt from these (librdkafka's bootstrap.servers)."
	},
	{"topic", CONFIG_STRING, FIELD(topic), "{topic}",
		.help = "The Kafka topic of a message, a template with these fields:\n" TEMPLATE_FIELDS "."
	},
	{"format", CONFIG_ENUM, FIELD(format), "binary",
		.help = EVENT_FORMAT_HELP,
		.values = EventFormatValues
	},
	{"delivery_timeout_s", CONFIG_INT, FIELD(delivery_timeout_s), "120",
		.help = "How long a message may stay unconfirmed, in seconds, before the cluster counts as\n"
		"down, or the message as failed if others are confirmed. Until then librdkafka\n"
		"tries again by itself, without repeating anything.",
		.min = 1, .max = 3600
	},
	{"kafka.", CONFIG_PAIRS, FIELD(properties), "",
		.help = "Any property of librdkafka's producer: kafka.security.protocol = SASL_SSL,\n"
		"kafka.sasl.password = ..., kafka.compression.type = lz4, and so on."
	},
	{NULL}
};

static void close_kafka(Sink *sink);

static bool
check(const void *settings, LogError *error)
{
	const KafkaSettings *kafka = settings;
	Template   *template = TemplateParse(kafka->topic, error);

	if (template == NULL)
		return false;
	TemplateFree(template);
	return KafkaCheckProperties(kafka, error);
}

/* ---------------------------------------------------------------- the producer's life */

static bool
start_producer(Kafka *kafka, LogError *error)
{
	kafka->producer = KafkaProducerNew(kafka->settings, kafka->wake, error);
	if (kafka->producer == NULL)
		return false;
	kafka->queue = rd_kafka_queue_get_main(kafka->producer);
	kafka->state = KAFKA_RUNNING;
	return true;
}

static void
free_topics(Kafka *kafka)
{
	Topic	   *topic;

	while ((topic = kafka->topics) != NULL)
	{
		kafka->topics = topic->next;
		rd_kafka_topic_destroy(topic->handle);
		free(topic->name);
		free(topic);
	}
}

/* Has the producer destroyed; it owes no report that anybody wants. */
static void
end_producer(Kafka *kafka)
{
	free_topics(kafka);
	rd_kafka_queue_io_event_enable(kafka->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(kafka->queue);
	kafka->end = KafkaEndStart(kafka->producer, kafka->wake);
	kafka->producer = NULL;
	kafka->queue = NULL;
	kafka->state = kafka->end != NULL ? KAFKA_ENDING : KAFKA_NONE;
}

/* Nothing more for this producer; what was not sent, or after the grace not answered, comes back. */
static void
halt(Kafka *kafka, int64_t grace)
{
	if (kafka->state != KAFKA_RUNNING)
		return;
	kafka->state = KAFKA_HALTING;
	kafka->purge_at = WaitNow() + grace;
	rd_kafka_purge(kafka->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
	Log(LOG_WARNING, "Kafka: what is not confirmed will be given again to a new producer: %s",
		kafka->reason.text);
}

static void
give_up_requests(Kafka *kafka)
{
	if (WaitNow() < kafka->purge_at)
		return;
	kafka->purge_at = WaitNow() + PURGE_AGAIN;
	rd_kafka_purge(kafka->producer,
				   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

static void
halt_if_fatal(Kafka *kafka)
{
	char		text[512];
	rd_kafka_resp_err_t error;

	if (kafka->state != KAFKA_RUNNING)
		return;
	error = rd_kafka_fatal_error(kafka->producer, text, sizeof(text));
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	LogErrorSet(&kafka->reason, "%s: %s", rd_kafka_err2name(error), text);
	halt(kafka, HALT_GRACE);
}

/* ---------------------------------------------------------------- outcomes */

static void
report(Kafka *kafka, InFlight *entry, SinkOutcome outcome, const char *text)
{
	RelayMessage *message = entry->message;

	if (outcome != SINK_OK)
		InFlightFail(&kafka->in_flight, entry);
	InFlightRemove(&kafka->in_flight, entry);
	kafka->base.report(kafka->base.context, message, outcome, text);
}

/*
 * What the broker's word on a message means.  unit says how many messages the
 * request had, since a broker refuses all of them for one.
 */
static SinkOutcome
classify(rd_kafka_resp_err_t error, size_t unit)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
		case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
			return unit > 1 ? SINK_SPLIT : SINK_REJECT;
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			return SINK_REJECT;

			/* Somebody may create the topic, or permit us to write to it. */
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
			return SINK_RETRY;

			/* A producer whose numbers do not fit any more. */
		case RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER:
		case RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID:
		case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
		case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING:
		case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
			return SINK_DOWN;
		default:
			/* The library's own are below zero: purged, timed out, lost connections. */
			if (error < 0)
				return SINK_DOWN;
			return unit > 1 ? SINK_SPLIT : SINK_RETRY;
	}
}

/* A message that came back because the producer was halted. */
static void
report_purged(Kafka *kafka, InFlight *entry)
{
	report(kafka, entry, entry->expired ? SINK_RETRY : SINK_DOWN,
		   kafka->reason.text[0] != '\0' ? kafka->reason.text : "the producer was ended");
}

static void
settle(Kafka *kafka, InFlight *entry, rd_kafka_resp_err_t error, size_t unit)
{
	char		text[512];

	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		kafka->confirmed_at = WaitNow();
		kafka->unreachable = false;
		if (entry->overtook)
			report(kafka, entry, SINK_DOWN, "a message of the same key failed before it");
		else
			report(kafka, entry, SINK_OK, NULL);
	}
	else if (error == RD_KAFKA_RESP_ERR__PURGE_QUEUE || error == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
		report_purged(kafka, entry);
	else
	{
		snprintf(text, sizeof(text), "%s (%s, topic \"%s\")", rd_kafka_err2str(error),
				 rd_kafka_err2name(error), ((Topic *) entry->place)->name);
		report(kafka, entry, classify(error, unit), text);
	}
}

/* A report is of one request, or of what was never sent. */
static void
take_reports(Kafka *kafka, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *message;
	size_t		unit = rd_kafka_event_message_count(event);

	while ((message = rd_kafka_event_message_next(event)) != NULL)
		settle(kafka, message->_private, message->err, unit);
}

static void
note_error(Kafka *kafka, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t error = rd_kafka_event_error(event);

	/* Fatal ones are asked for; this one says less than those before it. */
	if (error == RD_KAFKA_RESP_ERR__FATAL)
		return;
	if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		kafka->unreachable = true;
		Log(LOG_WARNING, "Kafka: no broker can be reached: %s", kafka->last_error.text);
	}
	else
		LogErrorSet(&kafka->last_error, "%s", rd_kafka_event_error_string(event));
}

/* Takes what librdkafka's threads have put into the queue. */
static void
serve(Kafka *kafka)
{
	rd_kafka_event_t *event;

	while (kafka->queue != NULL && (event = rd_kafka_queue_poll(kafka->queue, 0)) != NULL)
	{
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_DR:
				take_reports(kafka, event);
				break;
			case RD_KAFKA_EVENT_ERROR:
				note_error(kafka, event);
				break;
			case RD_KAFKA_EVENT_LOG:
				KafkaLogEvent(event);
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
	halt_if_fatal(kafka);
}

/* ---------------------------------------------------------------- time */

static int64_t
timeout(const Kafka *kafka)
{
	return WAIT_S(kafka->settings->delivery_timeout_s);
}

/*
 * The oldest message has waited too long.  If others were confirmed since, it
 * is to blame, with all that are about as old; if not, it is the cluster.
 */
static void
check_time(Kafka *kafka)
{
	InFlight   *oldest = kafka->in_flight.oldest;
	int64_t		limit = WaitNow() - timeout(kafka);

	if (kafka->state != KAFKA_RUNNING || oldest == NULL || oldest->since > limit)
		return;
	if (kafka->confirmed_at > oldest->since && !kafka->unreachable)
	{
		for (InFlight *entry = oldest; entry != NULL && entry->since <= limit + timeout(kafka) / 2; entry = entry->newer)
			entry->expired = true;
	}
	LogErrorSet(&kafka->reason, "no confirmation within %d s%s%s", kafka->settings->delivery_timeout_s,
				kafka->last_error.text[0] != '\0' ? ": " : "", kafka->last_error.text);
	halt(kafka, 0);
}

/* What is to be done when time has passed or reports have come. */
static void
step(Kafka *kafka)
{
	check_time(kafka);
	if (kafka->state == KAFKA_HALTING)
	{
		if (kafka->in_flight.count > 0)
			give_up_requests(kafka);
		else
			end_producer(kafka);
	}
	if (kafka->state == KAFKA_ENDING && KafkaEndIsOver(kafka->end))
	{
		KafkaEndJoin(kafka->end, CLOSE_LIMIT);
		kafka->end = NULL;
		kafka->state = KAFKA_NONE;
	}
}

/* ---------------------------------------------------------------- producing */

static bool
is_topic_name(const char *name, size_t len)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (len == 0 || len > TOPIC_MAX || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))))
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (name[i] == '\0' || strchr(allowed, name[i]) == NULL)
			return false;
	}
	return true;
}

/* The topic of that name; NULL, with the reason in errno, if librdkafka cannot have it. */
static Topic *
find_topic(Kafka *kafka, const Buffer *name)
{
	Topic	   *topic;

	for (Topic **link = &kafka->topics; (topic = *link) != NULL; link = &topic->next)
	{
		if (topic->len != name->len || memcmp(topic->name, name->data, name->len) != 0)
			continue;
		*link = topic->next;
		break;
	}
	if (topic == NULL)
	{
		topic = MemAlloc(sizeof(Topic));
		topic->len = name->len;
		topic->name = MemAlloc(name->len + 1);
		memcpy(topic->name, name->data, name->len);
		topic->handle = rd_kafka_topic_new(kafka->producer, topic->name, NULL);
		if (topic->handle == NULL)
		{
			free(topic->name);
			free(topic);
			return NULL;
		}
	}
	topic->next = kafka->topics;
	kafka->topics = topic;
	return topic;
}

static rd_kafka_headers_t *
make_headers(const Event *event)
{
	static const char name[] = "content-type";
	rd_kafka_headers_t *headers = rd_kafka_headers_new(event->nheaders + 1);

	if (event->content_type.data != NULL)
		rd_kafka_header_add(headers, name, sizeof(name) - 1, event->content_type.data, event->content_type.len);
	for (int i = 0; i < event->nheaders; i++)
	{
		const EventHeader *header = &event->headers[i];

		if (event->content_type.data != NULL && header->name.len == sizeof(name) - 1 &&
			strncasecmp(header->name.data, name, sizeof(name) - 1) == 0)
			continue;
		rd_kafka_header_add(headers, header->name.data, header->name.len, header->value.data, header->value.len);
	}
	return headers;
}

static rd_kafka_resp_err_t
produce(Kafka *kafka, InFlight *entry)
{
	const RelayMessage *message = entry->message;
	const Event *event = &kafka->event;
	rd_kafka_headers_t *headers = make_headers(event);
	rd_kafka_resp_err_t error;

	error = rd_kafka_producev(kafka->producer,
							  RD_KAFKA_V_RKT(((Topic *) entry->place)->handle),
							  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							  RD_KAFKA_V_KEY(message->key.data, message->key.len),
							  RD_KAFKA_V_VALUE((void *) event->body.data, event->body.len),
							  RD_KAFKA_V_HEADERS(headers),
							  RD_KAFKA_V_OPAQUE(entry),
							  RD_KAFKA_V_END);
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_headers_destroy(headers);
	return error;
}

/* The message is larger than what librdkafka was told to send. */
static void
reject_size(Kafka *kafka, InFlight *entry)
{
	const rd_kafka_conf_t *conf = rd_kafka_conf(kafka->producer);
	char		limit[32] = "";
	size_t		size = sizeof(limit);
	char		text[512];

	rd_kafka_conf_get(conf, "message.max.bytes", limit, &size);
	snprintf(text, sizeof(text), "%zu bytes of payload, with key and headers, are more than Kafka's message.max.bytes, %s: "
			 "raise \"kafka.message.max.bytes\" here and the limit of broker and topic, or send less",
			 kafka->event.body.len, limit);
	report(kafka, entry, SINK_REJECT, text);
}

/* Hands an entry to librdkafka. */
static SinkStatus
give(Kafka *kafka, InFlight *entry)
{
	rd_kafka_resp_err_t error;

	EventMake(&kafka->event, entry->message, kafka->settings->format, "ce_");
	error = produce(kafka, entry);
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return SINK_READY;
		case RD_KAFKA_RESP_ERR__FATAL:
			InFlightRemove(&kafka->in_flight, entry);
			halt_if_fatal(kafka);
			return SINK_FULL;
		case RD_KAFKA_RESP_ERR__QUEUE_FULL:
			InFlightRemove(&kafka->in_flight, entry);
			return SINK_FULL;
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
			reject_size(kafka, entry);
			return SINK_READY;
		default:
			settle(kafka, entry, error, 1);
			return SINK_READY;
	}
}

/* A message that is not even tried. */
static SinkStatus
refuse(Kafka *kafka, RelayMessage *message, SinkOutcome outcome, const char *text)
{
	kafka->base.report(kafka->base.context, message, outcome, text);
	return SINK_READY;
}

static SinkStatus
publish(Sink *sink, RelayMessage *message)
{
	Kafka	   *kafka = (Kafka *) sink;
	Topic	   *topic;
	InFlight   *entry;
	LogError	error;

	if (kafka->state == KAFKA_NONE && !start_producer(kafka, &error))
		return refuse(kafka, message, SINK_DOWN, error.text);
	if (kafka->state != KAFKA_RUNNING)
		return SINK_FULL;

	kafka->name.len = 0;
	TemplateExpand(kafka->template, message, &kafka->name);
	if (!is_topic_name(kafka->name.data, kafka->name.len))
	{
		LogErrorSet(&error, "\"%.*s\" cannot be the name of a Kafka topic: 1 to %d of A-Z, a-z, 0-9, \".\", \"_\" and \"-\" are needed",
					(int) kafka->name.len, kafka->name.data, TOPIC_MAX);
		return refuse(kafka, message, SINK_REJECT, error.text);
	}
	topic = find_topic(kafka, &kafka->name);
	if (topic == NULL)
		return refuse(kafka, message, SINK_DOWN, rd_kafka_err2str(rd_kafka_last_error()));

	entry = InFlightOfKey(&kafka->in_flight, message);
	if (entry != NULL && entry->place != topic)
		return SINK_FULL;
	entry = InFlightAdd(&kafka->in_flight, message);
	entry->place = topic;
	return give(kafka, entry);
}

/* ---------------------------------------------------------------- callbacks */

static Sink *
open_kafka(const void *settings, const PipelineConfig *pipeline, LogError *error)
{
	Kafka	   *kafka = MemAlloc(sizeof(Kafka));

	(void) pipeline;
	kafka->base.methods = &KafkaSink;
	kafka->settings = settings;
	kafka->template = TemplateParse(kafka->settings->topic, error);
	kafka->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (kafka->wake < 0)
		LogErrorSet(error, "could not create an eventfd: %s", strerror(errno));
	if (kafka->wake < 0 || kafka->template == NULL || !start_producer(kafka, error))
	{
		close_kafka(&kafka->base);
		return NULL;
	}
	return &kafka->base;
}

static SinkStatus
poll_kafka(Sink *sink)
{
	Kafka	   *kafka = (Kafka *) sink;
	uint64_t	count;

	if (read(kafka->wake, &count, sizeof(count)) < 0)
		count = 0;				/* then it is time that has passed */
	serve(kafka);
	step(kafka);
	return SINK_READY;
}

/* linger.ms is when librdkafka sends; what has been answered is taken here. */
static SinkStatus
flush(Sink *sink)
{
	serve((Kafka *) sink);
	return SINK_READY;
}

/* librdkafka purges all or nothing, so other lanes' messages are given again too. */
static void
revoke_lane(Sink *sink, int lane, int64_t epoch)
{
	Kafka	   *kafka = (Kafka *) sink;
	InFlight   *entry = kafka->in_flight.oldest;

	while (entry != NULL && (entry->message->lane != lane || entry->message->epoch != epoch))
		entry = entry->newer;
	if (entry == NULL)
		return;
	LogErrorSet(&kafka->reason, "lane %d was lost with messages of it on their way", lane);
	halt(kafka, HALT_GRACE);
}

static void
wait_for(Sink *sink, WaitSet *set)
{
	Kafka	   *kafka = (Kafka *) sink;

	WaitForFd(set, kafka->wake, POLLIN);
	if (kafka->state == KAFKA_RUNNING && kafka->in_flight.oldest != NULL)
		WaitUntil(set, kafka->in_flight.oldest->since + timeout(kafka));
	if (kafka->state == KAFKA_HALTING)
		WaitUntil(set, kafka->in_flight.count > 0 ? kafka->purge_at : WaitNow());
}

static void
close_kafka(Sink *sink)
{
	Kafka	   *kafka = (Kafka *) sink;

	if (kafka->producer != NULL)
	{
		rd_kafka_purge(kafka->producer,
					   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
		end_producer(kafka);
	}
	if (kafka->end != NULL)
		KafkaEndJoin(kafka->end, CLOSE_LIMIT);
	if (kafka->wake >= 0)
		close(kafka->wake);
	InFlightFree(&kafka->in_flight);
	TemplateFree(kafka->template);
	EventFree(&kafka->event);
	BufferFree(&kafka->name);
	free(kafka);
}

const SinkMethods KafkaSink = {
	.name = "kafka",
	.options = options,
	.settings_size = sizeof(KafkaSettings),
	.check = check,
	.open = open_kafka,
	.publish = publish,
	.poll = poll_kafka,
	.flush = flush,
	.revoke = revoke_lane,
	.wait = wait_for,
	.close = close_kafka
};
