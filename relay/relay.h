/*
 * relay.h
 *		The data model of es-relay: what travels through it, and what it is told.
 *
 * A source (source.h) yields messages, the dispatcher (dispatch.h) gives them
 * to a sink (sink.h) and tells the source which positions the sink has
 * confirmed.  One thread, one event loop (main.c); nothing here is shared.
 */
#ifndef RELAY_H
#define RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The build passes the extension's version; the relay has the same. */
#ifdef ES_PG_VERSION
#define RELAY_VERSION	ES_PG_VERSION
#else
#define RELAY_VERSION	"0.1.0"
#endif

/* Exit codes, as --help documents them. */
#define RELAY_EXIT_OK		0
#define RELAY_EXIT_FAILURE	1
#define RELAY_EXIT_CONFIG	2

struct SinkMethods;

/* Text that somebody else owns, UTF-8.  data is NULL for an SQL null. */
typedef struct RelayText
{
	const char *data;
	size_t		len;
} RelayText;

/*
 * One message on its way.  The source makes it and frees it (release); in
 * between it belongs to the dispatcher, which lends it to the sink from
 * publish until the outcome is reported.
 */
typedef struct RelayMessage
{
	/* Where it stands in the subscription; an acknowledgement needs these. */
	int			lane;			/* part of the subscription, hash of the key */
	int64_t		epoch;			/* grows when the lane changes hands */
	int64_t		position;		/* place in the database's log, from 1 */

	/* What it says, as text.  Never null: the first five, and source.  No other member between. */
	RelayText	position_text;	/* position, as it came */
	RelayText	incarnation;	/* the life of the log that position is of */
	RelayText	message_id;		/* stable across redelivery: the far side's means of
								 * removing duplicates */
	RelayText	topic;			/* of the outbox; for an event, its category */
	RelayText	type;
	RelayText	source;			/* the event's own, else the configured one */
	RelayText	key;			/* order holds within a key; for an event, its stream */
	RelayText	version;		/* place in the stream, events only */
	RelayText	schema_version;
	RelayText	payload;		/* JSON on a single line */
	RelayText	payload_binary; /* any bytes; at most one of the two is not null */
	RelayText	content_type;	/* of the one there is: a media type; null when there is
								 * none */
	RelayText	headers;		/* a JSON object */
	RelayText	correlation_id;
	RelayText	causation_id;
	RelayText	traceparent;	/* W3C trace context */
	RelayText	occurred_at;	/* RFC 3339, UTC, microseconds */

	/* The source's: what release frees, and the bytes that it holds. */
	void	   *owner;
	size_t		size;

	void	   *item;			/* the dispatcher's own: nobody else reads or writes it */
} RelayMessage;

/* What to do about a subscription that does not exist. */
typedef enum RelayCreate
{
	RELAY_CREATE_NO,
	RELAY_CREATE_BEGINNING,
	RELAY_CREATE_END
} RelayCreate;

/* What a subscription that the relay creates reads. */
typedef enum RelayReads
{
	RELAY_READS_EVENTS,
	RELAY_READS_OUTBOX
} RelayReads;

/*
 * The configuration, one struct a section.  The tables in config.c give each
 * field its name in the file, its default and its meaning in the user's words.
 */
typedef struct DatabaseConfig
{
	char	   *conninfo;		/* for libpq, which fills in what is missing */
	int			maintain_interval_s;	/* 0: never */
} DatabaseConfig;

typedef struct LogConfig
{
	int			level;			/* a LogLevel */
} LogConfig;

/* `[sink NAME]`: where messages can go.  Each pipeline to it has a Sink of its own. */
typedef struct SinkConfig
{
	char	   *name;			/* "" for `[sink]` */
	const struct SinkMethods *methods;
	void	   *settings;		/* methods->settings_size bytes, by methods->options */
} SinkConfig;

/* `[pipeline NAME]`: from one subscription to one sink. */
typedef struct PipelineConfig
{
	char	   *name;			/* "" for `[pipeline]` */
	char	   *subscription;
	char	   *consumer;		/* never empty once loaded */
	char	   *sink_name;
	int			create;			/* a RelayCreate */
	int			create_reads;	/* a RelayReads */
	char	   *create_categories;	/* lists with commas, "" for all */
	char	   *create_topics;
	char	   *create_types;
	int			create_lanes;
	int			batch_size;
	int			window_messages;
	int64_t		window_bytes;
	int			ack_interval_ms;
	int			poll_interval_ms;
	int			drain_limit_s;
	char	   *source;			/* empty: made from the database's name */

	const DatabaseConfig *database;
	const SinkConfig *sink;		/* of sink_name */
	bool		maintains;		/* one of them does */
} PipelineConfig;

typedef struct RelayConfig
{
	DatabaseConfig database;
	LogConfig	log;
	PipelineConfig *pipelines;	/* at least one, once loaded */
	int			npipelines;
	SinkConfig *sinks;
	int			nsinks;

	bool		once;			/* --once: drain what is there, then leave */
} RelayConfig;

#endif							/* RELAY_H */
