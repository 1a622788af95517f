/*
 * sinks/kafka_producer.c
 *		How the Kafka sink's producers are configured, how they log, how they end.
 *
 * librdkafka's own defaults are those of a client that may lose, repeat and
 * mix up messages, and waits for fuller packets.  The table below has better
 * ones; the user's properties come after it, and what the sink itself depends
 * on is refused from the user.
 */
#define _GNU_SOURCE				/* pthread_timedjoin_np */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../mem.h"
#include "kafka.h"

typedef struct Property
{
	const char *name;
	const char *value;
} Property;

static const Property defaults[] = {
	{"client.id", "es-relay"},

	/* Retries neither repeat nor overtake; brings acks=all and endless retries. */
	{"enable.idempotence", "true"},
	{"max.in.flight.requests.per.connection", "5"},

	/* As the Java client places keys, which librdkafka does not by itself. */
	{"partitioner", "murmur2_random"},

	{"linger.ms", "1"},
	{"socket.nagle.disable", "true"},
	{"socket.keepalive.enable", "true"},
	{"reconnect.backoff.ms", "100"},
	{"reconnect.backoff.max.ms", "5000"},

	/* The relay's window is the bound; this one is above it. */
	{"queue.buffering.max.kbytes", "131072"},
	{NULL, NULL}
};

/* What is not the user's, and where to turn instead; with a value, only that value. */
static const struct
{
	const char *name;
	const char *value;
	const char *reason;
}			refused[] = {
	{"bootstrap.servers", NULL, "\"brokers\" is the setting for it"},
	{"metadata.broker.list", NULL, "\"brokers\" is the setting for it"},
	{"message.timeout.ms", NULL, "\"delivery_timeout_s\" is the setting for it"},
	{"delivery.timeout.ms", NULL, "\"delivery_timeout_s\" is the setting for it"},
	{"transactional.id", NULL, "the relay does not use transactions"},
	{"enable.gapless.guarantee", NULL, "the order of messages depends on it"},
	{"queuing.strategy", NULL, "the order of messages depends on it"},
	{"delivery.report.only.error", NULL, "what was delivered is known from these reports alone"},
	{"acks", "0", "then nobody knows what was delivered"},
	{"request.required.acks", "0", "then nobody knows what was delivered"},
	{"log.queue", NULL, "the relay's log depends on it"},
	{"test.mock.num.brokers", NULL, "it would put an imitation in the place of the brokers"},
	{NULL, NULL, NULL}
};

/* ---------------------------------------------------------------- configuration */

static bool
is_secret(const char *name)
{
	return strstr(name, "password") != NULL || strstr(name, "secret") != NULL ||
		strstr(name, ".pem") != NULL || strcmp(name, "sasl.oauthbearer.config") == 0;
}

/* Why a property is not the user's to set, or NULL. */
static const char *
refusal(const ConfigPair *pair)
{
	for (int i = 0; refused[i].name != NULL; i++)
	{
		if (strcmp(refused[i].name, pair->key) == 0 &&
			(refused[i].value == NULL || strcmp(refused[i].value, pair->value) == 0))
			return refused[i].reason;
	}
	return NULL;
}

static bool
set_property(rd_kafka_conf_t *conf, const char *name, const char *value, LogError *error)
{
	char		text[512];
	rd_kafka_conf_res_t result = rd_kafka_conf_set(conf, name, value, text, sizeof(text));

	if (result == RD_KAFKA_CONF_OK)
		return true;

	/* Its text may have the value in it. */
	if (result == RD_KAFKA_CONF_INVALID && is_secret(name))
		snprintf(text, sizeof(text), "librdkafka does not take this value");
	LogErrorSet(error, "\"kafka.%s\": %s", name, text);
	return false;
}

static bool
set_users(rd_kafka_conf_t *conf, const ConfigPairs *properties, LogError *error)
{
	for (int i = 0; i < properties->npairs; i++)
	{
		const ConfigPair *pair = &properties->pairs[i];
		const char *reason = refusal(pair);

		if (reason != NULL)
		{
			LogErrorSet(error, "\"kafka.%s\" cannot be set%s%s: %s", pair->key,
						pair->value[0] == '0' ? " to " : "", pair->value[0] == '0' ? pair->value : "", reason);
			return false;
		}
		if (!set_property(conf, pair->key, pair->value, error))
			return false;
	}
	return true;
}

static bool
is_set(const ConfigPairs *properties, const char *name)
{
	for (int i = 0; i < properties->npairs; i++)
	{
		if (strcmp(properties->pairs[i].key, name) == 0)
			return true;
	}
	return false;
}

/* What depends on whether the user has left the producer idempotent. */
static bool
set_guarantees(rd_kafka_conf_t *conf, const ConfigPairs *properties, LogError *error)
{
	char		idempotent[8] = "";
	size_t		size = sizeof(idempotent);

	rd_kafka_conf_get(conf, "enable.idempotence", idempotent, &size);
	if (strcmp(idempotent, "true") == 0)
		return set_property(conf, "enable.gapless.guarantee", "true", error);

	/* Then only one request at a time keeps the order, as long as all goes well. */
	if (!is_set(properties, "max.in.flight") &&
		!is_set(properties, "max.in.flight.requests.per.connection") &&
		!set_property(conf, "max.in.flight", "1", error))
		return false;
	return is_set(properties, "acks") || is_set(properties, "request.required.acks") ||
		set_property(conf, "acks", "all", error);
}

static rd_kafka_conf_t *
make_conf(const KafkaSettings *settings, LogError *error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool		good = true;

	for (const Property *property = defaults; property->name != NULL && good; property++)
		good = set_property(conf, property->name, property->value, error);

	good = good && set_users(conf, &settings->properties, error) &&
		set_guarantees(conf, &settings->properties, error) &&
		set_property(conf, "bootstrap.servers", settings->brokers, error) &&

	/* No limit: time is the sink's to watch (see kafka.c). */
		set_property(conf, "message.timeout.ms", "0", error) &&
		set_property(conf, "log.queue", "true", error);
	if (good)
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

bool
KafkaCheckProperties(const KafkaSettings *settings, LogError *error)
{
	rd_kafka_conf_t *conf = make_conf(settings, error);

	if (conf == NULL)
		return false;
	rd_kafka_conf_destroy(conf);
	return true;
}

/* ---------------------------------------------------------------- life */

rd_kafka_t *
KafkaProducerNew(const KafkaSettings *settings, int wake, LogError *error)
{
	static const uint64_t one = 1;	/* what an eventfd takes */
	rd_kafka_conf_t *conf = make_conf(settings, error);
	rd_kafka_queue_t *queue;
	rd_kafka_t *producer;
	char		text[512];

	if (conf == NULL)
		return NULL;
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (producer == NULL)
	{
		rd_kafka_conf_destroy(conf);
		LogErrorSet(error, "could not create a Kafka producer: %s", text);
		return NULL;
	}

	queue = rd_kafka_queue_get_main(producer);
	rd_kafka_set_log_queue(producer, queue);
	rd_kafka_queue_io_event_enable(queue, wake, &one, sizeof(one));
	rd_kafka_queue_destroy(queue);
	return producer;
}

/*
 * syslog's levels: 3 is an error and 7 is for debugging.  That the guarantee
 * which is asked for above is new is no news to the operator.
 */
void
KafkaLogEvent(rd_kafka_event_t *event)
{
	const char *facility;
	const char *text;
	int			level;

	if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
		return;
	if (strcmp(facility, "CONFWARN") == 0 && strstr(text, "enable.gapless.guarantee") != NULL)
		return;
	Log(level <= 4 ? LOG_WARNING : level <= 6 ? LOG_INFO : LOG_DEBUG, "librdkafka: %s: %s", facility, text);
}

static void *
end_producer(void *arg)
{
	static const uint64_t one = 1;
	KafkaEnd   *end = arg;

	rd_kafka_destroy(end->producer);
	__atomic_store_n(&end->ended, 1, __ATOMIC_RELEASE);
	if (write(end->wake, &one, sizeof(one)) < 0)
		return NULL;
	return NULL;
}

KafkaEnd *
KafkaEndStart(rd_kafka_t *producer, int wake)
{
	KafkaEnd   *end = MemAlloc(sizeof(KafkaEnd));

	end->producer = producer;
	end->wake = dup(wake);
	if (end->wake >= 0 && pthread_create(&end->thread, NULL, end_producer, end) == 0)
		return end;
	rd_kafka_destroy(producer);
	if (end->wake >= 0)
		close(end->wake);
	free(end);
	return NULL;
}

bool
KafkaEndIsOver(const KafkaEnd *end)
{
	return __atomic_load_n(&end->ended, __ATOMIC_ACQUIRE) != 0;
}

void
KafkaEndJoin(KafkaEnd *end, int seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	if (pthread_timedjoin_np(end->thread, NULL, &until) != 0)
	{
		pthread_detach(end->thread);
		return;
	}
	close(end->wake);
	free(end);
}
