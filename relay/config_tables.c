/*
 * config_tables.c
 *		The settings there are, a table a kind of section.
 *
 * The file, the environment, --help and --sample-config all read these, so none
 * of them can lie.  A sink brings the table of its own keys along (sink.h).
 */
#include <ctype.h>
#include <stdio.h>

#include "config_tables.h"

/* In the order of RelayCreate, of RelayReads and of LogLevel. */
static const char *const create_values[] = {"no", "beginning", "end", NULL};
static const char *const reads_values[] = {"events", "outbox", NULL};
static const char *const level_values[] = {"error", "warning", "info", "debug", NULL};

static const ConfigOption database_options[] = {
	{"conninfo", CONFIG_SECRET, offsetof(DatabaseConfig, conninfo), "",
		.help = "Where the event store is: a libpq connection string or URI. What it leaves out\n"
		"comes from libpq's own environment (PGHOST, PGSERVICE, ...) and from .pgpass.\n"
		"Several hosts are tried in turn; add target_session_attrs=read-write to them.\n"
		"connect_timeout holds for each host, and is 10 seconds unless given."
	},
	{"maintain_interval_s", CONFIG_INT, offsetof(DatabaseConfig, maintain_interval_s), "60",
		.help = "How often to call es_maintain(), the database's housekeeping. 0 is never.",
		.min = 0, .max = 86400, .reload = true
	},
	{NULL}
};

static const ConfigOption pipeline_options[] = {
	{"subscription", CONFIG_STRING, offsetof(PipelineConfig, subscription), NULL,
		.help = "The subscription to read: es_create_subscription() makes one, or `create` below."
	},
	{"sink", CONFIG_STRING, offsetof(PipelineConfig, sink_name), "",
		.help = "The name of the [sink NAME] to write to; need not be given where there is one\n"
		"sink only."
	},
	{"consumer", CONFIG_STRING, offsetof(PipelineConfig, consumer), "",
		.help = "This process's name among the members of the subscription; one that is not\n"
		"given is made of the host's name, the process id and the pipeline's name."
	},
	{"create", CONFIG_ENUM, offsetof(PipelineConfig, create), "no",
		.help = "What to do when the subscription does not exist: create it to read from the\n"
		"beginning of the log or from its present end, or stop.",
		.values = create_values
	},
	{"create_source", CONFIG_ENUM, offsetof(PipelineConfig, create_reads), "events",
		.help = "What a subscription that is created reads.",
		.values = reads_values
	},
	{"create_categories", CONFIG_STRING, offsetof(PipelineConfig, create_categories), "",
		.help = "Of which categories it reads events, with commas between them; all if not set."
	},
	{"create_topics", CONFIG_STRING, offsetof(PipelineConfig, create_topics), "",
		.help = "Of which topics it reads messages of the outbox, likewise."
	},
	{"create_types", CONFIG_STRING, offsetof(PipelineConfig, create_types), "",
		.help = "Of which types, likewise."
	},
	{"create_lanes", CONFIG_INT, offsetof(PipelineConfig, create_lanes), "1",
		.help = "In how many lanes it is read, which is how many relays can share it.",
		.min = 1, .max = 1024
	},
	{"batch_size", CONFIG_INT, offsetof(PipelineConfig, batch_size), "1000",
		.help = "The most messages to fetch at a time.",
		.min = 1, .max = 100000, .reload = true
	},
	{"window_messages", CONFIG_INT, offsetof(PipelineConfig, window_messages), "10000",
		.help = "The most messages to hold that are not confirmed by the sink; also the most that\n"
		"are delivered again after a crash.",
		.min = 1, .max = 100000, .reload = true
	},
	{"window_bytes", CONFIG_SIZE, offsetof(PipelineConfig, window_bytes), "8MB",
		.help = "The most bytes of such messages to hold in memory; one that is larger passes\n"
		"alone.",
		.min = 64 * 1024, .max = 1024 * 1024 * 1024, .reload = true
	},
	{"ack_interval_ms", CONFIG_INT, offsetof(PipelineConfig, ack_interval_ms), "100",
		.help = "How long to gather confirmations before they are acknowledged to the database,\n"
		"which costs it a small transaction a lane.",
		.min = 0, .max = 60000, .reload = true
	},
	{"poll_interval_ms", CONFIG_INT, offsetof(PipelineConfig, poll_interval_ms), "1000",
		.help = "How often to look for messages while the database announces none. It announces\n"
		"each at once; behind a connection pooler, where that cannot work, this is the\n"
		"delay.",
		.min = 10, .max = 60000, .reload = true
	},
	{"drain_limit_s", CONFIG_INT, offsetof(PipelineConfig, drain_limit_s), "20",
		.help = "How long, when asked to stop, to wait for what the sink has. Less than the\n"
		"supervisor waits before it kills.",
		.min = 0, .max = 3600, .reload = true
	},
	{"source", CONFIG_STRING, offsetof(PipelineConfig, source), "",
		.help = "The CloudEvents source of events that have none of their own, a URI reference;\n"
		"if not given, /es_pg/ and the database's name."
	},
	{NULL}
};

static const ConfigOption sink_options[] = {
	{"type", CONFIG_SINK, offsetof(SinkConfig, methods), "stdout",
		.help = "Where the messages go."
	},
	{NULL}
};

static const ConfigOption log_options[] = {
	{"level", CONFIG_ENUM, offsetof(LogConfig, level), "info",
		.help = "The least important messages to write to standard error.",
		.values = level_values, .reload = true
	},
	{NULL}
};

const ConfigKind ConfigKinds[KINDS] = {
	[KIND_DATABASE] = {"database", database_options, false},
	[KIND_PIPELINE] = {"pipeline", pipeline_options, true},
	[KIND_SINK] = {"sink", sink_options, true},
	[KIND_LOG] = {"log", log_options, false}
};

void
ConfigVariable(KindNumber kind, const char *name, const char *key, char *variable)
{
	snprintf(variable, ENV_NAME_MAX, ENV_PREFIX "%s_%s%s%s", ConfigKinds[kind].name,
			 name, name[0] != '\0' ? "_" : "", key);
	for (char *c = variable; *c != '\0'; c++)
		*c = isalnum((unsigned char) *c) ? toupper((unsigned char) *c) : '_';
}
