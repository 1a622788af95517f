/*
 * mock.c
 *		A Kafka cluster for tests: librdkafka's mock, in a process of its own.
 *
 *	  mock OUTPUT BROKERS TOPIC:PARTITIONS...
 *
 * Prints the cluster's bootstrap servers on its first line.  Then it takes
 * commands, a line each, and answers each with "ok" or "error TEXT":
 *
 *	  down BROKER | up BROKER		-1: all of them
 *	  leader TOPIC PARTITION BROKER
 *	  rtt BROKER MILLISECONDS
 *	  error API ERROR [COUNT]		the next COUNT requests of that kind fail; by the
 *									protocol's numbers, -195 is a lost connection
 *	  topic TOPIC ERROR				what requests for the topic's metadata are told
 *
 * Whatever reaches the cluster is written to OUTPUT, a line each: topic,
 * partition, offset, key, headers, payload, with tabs between, as kcat's
 * "%t\t%p\t%o\t%k\t%h\t%s\n" has it; with - for OUTPUT, nowhere.  The mock's log is short (5 MB a
 * partition), so this process consumes all the time and OUTPUT is the truth.
 *
 * Ends at the end of its input, so it does not outlive its test.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

static rd_kafka_mock_cluster_t *cluster;
static rd_kafka_t *consumer;
static FILE *output;
static atomic_bool ending;

static void
die(const char *what, const char *text)
{
	fprintf(stderr, "mock: %s: %s\n", what, text);
	exit(1);
}

static void
set_property(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[256];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		die(name, error);
}

static rd_kafka_t *
make_client(rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		error[256];
	rd_kafka_t *client;

	/* What the mock says of brokers that are down is what the test asked for. */
	set_property(conf, "log_level", "2");
	client = rd_kafka_new(type, conf, error, sizeof(error));
	if (client == NULL)
		die("rd_kafka_new", error);
	return client;
}

/* ---------------------------------------------------------------- consuming */

static void
write_headers(const rd_kafka_message_t *message)
{
	rd_kafka_headers_t *headers;
	const char *name;
	const void *value;
	size_t		size;

	if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
	{
		if (value == NULL)
			fprintf(output, "%s%s=NULL", i > 0 ? "," : "", name);
		else
			fprintf(output, "%s%s=%.*s", i > 0 ? "," : "", name, (int) size, (const char *) value);
	}
}

static void
write_message(const rd_kafka_message_t *message)
{
	fprintf(output, "%s\t%" PRId32 "\t%" PRId64 "\t", rd_kafka_topic_name(message->rkt),
			message->partition, message->offset);
	fwrite(message->key, 1, message->key_len, output);
	putc('\t', output);
	write_headers(message);
	putc('\t', output);
	fwrite(message->payload, 1, message->len, output);
	putc('\n', output);
}

/* Writes all that comes; whole lines only, for the test reads at any time. */
static void *
consume(void *unused)
{
	(void) unused;
	while (!ending)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(consumer, 100);

		if (message == NULL)
		{
			fflush(output);
			continue;
		}
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			write_message(message);
		rd_kafka_message_destroy(message);
	}
	fflush(output);
	return NULL;
}

/* Makes the topics, and what reads them from the first message on. */
static void
start_consumer(int ntopics, char **topics, bool consumes)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_partition_list_t *partitions = rd_kafka_topic_partition_list_new(8);

	set_property(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(cluster));
	set_property(conf, "group.id", "test");
	set_property(conf, "enable.auto.commit", "false");
	set_property(conf, "auto.offset.reset", "error");
	set_property(conf, "fetch.wait.max.ms", "10");
	set_property(conf, "fetch.error.backoff.ms", "10");
	set_property(conf, "reconnect.backoff.ms", "10");
	set_property(conf, "reconnect.backoff.max.ms", "100");
	consumer = make_client(RD_KAFKA_CONSUMER, conf);
	rd_kafka_poll_set_consumer(consumer);

	for (int i = 0; i < ntopics; i++)
	{
		char	   *colon = strchr(topics[i], ':');
		int			count = colon != NULL ? atoi(colon + 1) : 0;

		if (count <= 0)
			die(topics[i], "TOPIC:PARTITIONS is needed");
		*colon = '\0';
		rd_kafka_mock_topic_create(cluster, topics[i], count, 1);
		for (int partition = 0; partition < count; partition++)
			rd_kafka_topic_partition_list_add(partitions, topics[i], partition)->offset = 0;
	}
	if (consumes)
		rd_kafka_assign(consumer, partitions);
	rd_kafka_topic_partition_list_destroy(partitions);
}

/* ---------------------------------------------------------------- commands */

static rd_kafka_resp_err_t
push_errors(int api, int error, int count)
{
	rd_kafka_resp_err_t *errors = calloc(count, sizeof(*errors));

	for (int i = 0; i < count; i++)
		errors[i] = error;
	rd_kafka_mock_push_request_errors_array(cluster, api, count, errors);
	free(errors);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t
run_command(const char *line)
{
	char		name[256];
	int			count = 1;
	int			a,
				b;

	if (sscanf(line, "down %d", &a) == 1)
		return rd_kafka_mock_broker_set_down(cluster, a);
	if (sscanf(line, "up %d", &a) == 1)
		return rd_kafka_mock_broker_set_up(cluster, a);
	if (sscanf(line, "leader %255s %d %d", name, &a, &b) == 3)
		return rd_kafka_mock_partition_set_leader(cluster, name, a, b);
	if (sscanf(line, "rtt %d %d", &a, &b) == 2)
		return rd_kafka_mock_broker_set_rtt(cluster, a, b);
	if (sscanf(line, "error %d %d %d", &a, &b, &count) >= 2)
		return push_errors(a, b, count);
	if (sscanf(line, "topic %255s %d", name, &a) == 2)
	{
		rd_kafka_mock_topic_set_error(cluster, name, a);
		return RD_KAFKA_RESP_ERR_NO_ERROR;
	}
	return RD_KAFKA_RESP_ERR__INVALID_ARG;
}

int
main(int argc, char **argv)
{
	char		line[1024];
	pthread_t	thread;
	rd_kafka_t *owner;

	bool		consumes;

	if (argc < 4)
		die("usage", "mock OUTPUT BROKERS TOPIC:PARTITIONS...");
	consumes = strcmp(argv[1], "-") != 0;
	output = fopen(consumes ? argv[1] : "/dev/null", "w");
	if (output == NULL)
		die(argv[1], "cannot open it");

	owner = make_client(RD_KAFKA_PRODUCER, rd_kafka_conf_new());
	cluster = rd_kafka_mock_cluster_new(owner, atoi(argv[2]));
	if (cluster == NULL)
		die(argv[2], "cannot make the cluster");
	start_consumer(argc - 3, argv + 3, consumes);
	if (consumes && pthread_create(&thread, NULL, consume, NULL) != 0)
		die("pthread_create", "failed");

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		rd_kafka_resp_err_t error = run_command(line);

		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			printf("ok\n");
		else
			printf("error %s\n", rd_kafka_err2str(error));
	}

	ending = true;
	if (consumes)
		pthread_join(thread, NULL);
	rd_kafka_destroy_flags(consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(owner);
	fclose(output);
	return 0;
}
