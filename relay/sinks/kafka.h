/*
 * sinks/kafka.h
 *		Between the Kafka sink and what makes and ends its producers.
 */
#ifndef SINKS_KAFKA_H
#define SINKS_KAFKA_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>

#include "../config.h"
#include "../log.h"

typedef struct KafkaSettings
{
	char	   *brokers;
	char	   *topic;			/* a template */
	int			format;			/* an EventFormat */
	int			delivery_timeout_s;
	ConfigPairs properties;		/* of librdkafka, by the user */
} KafkaSettings;

/* Whether the settings make a configuration; the reason names the property. */
extern bool KafkaCheckProperties(const KafkaSettings *settings, LogError *error);

/*
 * A producer whose reports, errors and log come through its main queue, which
 * writes to the eventfd wake when it is not empty any more.  NULL with the
 * reason.
 */
extern rd_kafka_t *KafkaProducerNew(const KafkaSettings *settings, int wake, LogError *error);

/* The log of librdkafka as ours; errors of a client too. */
extern void KafkaLogEvent(rd_kafka_event_t *event);

/* rd_kafka_destroy() waits for threads, which may wait for a name server: so it has one of its own. */
typedef struct KafkaEnd
{
	pthread_t	thread;
	rd_kafka_t *producer;
	int			wake;			/* an eventfd, written at the end; closed by Join */
	int			ended;			/* atomic */
} KafkaEnd;

/* Ends a producer that owes no reports. NULL if there can be no thread: then it has ended here. */
extern KafkaEnd *KafkaEndStart(rd_kafka_t *producer, int wake);
extern bool KafkaEndIsOver(const KafkaEnd *end);

/* Waits so many seconds at most, and leaves what takes longer to itself. */
extern void KafkaEndJoin(KafkaEnd *end, int seconds);

#endif							/* SINKS_KAFKA_H */
