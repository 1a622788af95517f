/*
 * test_config.c
 *		The file, the environment, what is refused and how, the sample.
 */
#define _GNU_SOURCE				/* clearenv */
#include <libgen.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "sink.h"
#include "tap.h"

static char path[] = "/tmp/test_config.XXXXXX";

/* Loads a file with that text; errors speak of it as FILE. */
static bool
load(RelayConfig *config, const char *text, size_t len, char *errors, size_t size)
{
	FILE	   *file = fopen(path, "w");
	Buffer		found = {0};
	bool		loaded;
	char	   *from;

	fwrite(text, 1, len, file);
	fclose(file);
	loaded = ConfigLoad(config, path, &found);

	errors[0] = '\0';
	from = BufferToText(&found);
	for (char *at; (at = strstr(from, path)) != NULL; from = at + strlen(path))
	{
		strncat(errors, from, at - from);
		strcat(errors, "FILE");
	}
	strncat(errors, from, size - strlen(errors) - 1);
	BufferFree(&found);
	return loaded;
}

/* A file that is refused, with exactly these errors. */
static void
refused(const char *text, const char *expected, const char *name)
{
	RelayConfig config;
	char		errors[2048];
	bool		loaded = load(&config, text, strlen(text), errors, sizeof(errors));

	ConfigFree(&config);
	tap_is(loaded ? "loaded" : errors, expected, name);
}

/* A file that is accepted. */
static void
accepted(RelayConfig *config, const char *text, const char *name)
{
	char		errors[2048];

	load(config, text, strlen(text), errors, sizeof(errors));
	tap_is(errors, "", name);
}

static void
test_values(void)
{
	RelayConfig config;

	accepted(&config, "[pipeline]\nsubscription = s\n", "a subscription is all that is required");
	tap_is(config.database.conninfo, "", "conninfo defaults to libpq's environment");
	tap_ok(config.pipeline.batch_size == 1000, "batch_size defaults to 1000");
	tap_ok(config.pipeline.poll_interval_ms == 1000, "poll_interval_ms defaults to 1000");
	tap_ok(config.pipeline.maintain_interval_s == 60, "maintain_interval_s defaults to 60");
	tap_ok(config.pipeline.create == RELAY_CREATE_NO, "create defaults to no");
	tap_ok(config.sink.methods == &StdoutSink, "the sink defaults to stdout");
	tap_ok(config.log.level == LOG_INFO, "the log level defaults to info");
	tap_ok(strchr(config.pipeline.consumer, ':') != NULL &&
		   atoi(strrchr(config.pipeline.consumer, ':') + 1) == getpid(),
		   "consumer defaults to host:pid");
	ConfigFree(&config);

	accepted(&config,
			 "# comment\n; comment\n\n"
			 "\t[ database ]\r\n"
			 "  conninfo =  host=a,b password='x # = ;y' \t\r\n"
			 "[pipeline]\nsubscription=caf\303\251\ncreate = end\nbatch_size = 1\nconsumer = me\n"
			 "[log]\nlevel=debug\n"
			 "[pipeline]\nmaintain_interval_s = 0",
			 "white space, comments, CRLF, a section that comes twice, no last line end");
	tap_is(config.database.conninfo, "host=a,b password='x # = ;y'",
		   "a value is the rest of its line, trimmed");
	tap_is(config.pipeline.subscription, "caf\303\251", "UTF-8 passes");
	tap_is(config.pipeline.consumer, "me", "a consumer that is given");
	tap_ok(config.pipeline.create == RELAY_CREATE_END && config.pipeline.batch_size == 1 &&
		   config.pipeline.maintain_interval_s == 0 && config.log.level == LOG_DEBUG,
		   "words and numbers");
	ConfigFree(&config);
}

static void
test_refusals(void)
{
	RelayConfig config;
	char		errors[2048];
	Buffer		found = {0};

	refused("[pipeline]\nsubscription = s\nbatchsize = 5\n",
			"FILE:3: unknown key \"batchsize\" in section [pipeline]\n", "an unknown key");
	refused("[pipline]\nsubscription = s\nbatch_size = x\n[pipeline]\nsubscription = s\n",
			"FILE:1: unknown section [pipline]\n", "an unknown section, once");
	refused("subscription = s\n",
			"FILE:1: \"subscription\" stands before the first section\n", "a key without a section");
	refused("[pipeline]\nsubscription = s\n\njust text\n",
			"FILE:4: \"just text\" is neither \"key = value\" nor \"[section]\"\n", "a line of neither kind");
	refused("[pipeline\n", "FILE:1: a section is missing its \"]\"\n", "half a section");
	refused("[pipeline]\nsubscription = s\nbatch_size = 0\npoll_interval_ms = 10s\n"
			"maintain_interval_s = 99999999999999999999\nbatch_size = 3\n",
			"FILE:3: invalid value \"0\" for \"batch_size\" in section [pipeline], "
			"a number from 1 to 100000 is needed\n"
			"FILE:4: invalid value \"10s\" for \"poll_interval_ms\" in section [pipeline], "
			"a number from 10 to 60000 is needed\n"
			"FILE:5: invalid value \"99999999999999999999\" for \"maintain_interval_s\" in section [pipeline], "
			"a number from 0 to 86400 is needed\n"
			"FILE:6: \"batch_size\" in section [pipeline] was given in line 3 already\n",
			"all mistakes at once, numbers out of range, a key that comes twice");
	refused("[pipeline]\nsubscription = s\ncreate = yes\n[sink]\ntype = kafka9\n",
			"FILE:3: invalid value \"yes\" for \"create\" in section [pipeline], one of these is needed: no, beginning, end\n"
			"FILE:5: invalid value \"kafka9\" for \"type\" in section [sink], one of these is needed: stdout\n",
			"words that are not known");
	refused("[pipeline]\nbatch_size = \n",
			"FILE:2: invalid value \"\" for \"batch_size\" in section [pipeline], "
			"a number from 1 to 100000 is needed\n",
			"an empty number");
	refused("[pipeline]\nsubscription = \n",
			"\"subscription\" in section [pipeline] is required: "
			"set it in the file given with --config, or as ES_RELAY_PIPELINE_SUBSCRIPTION\n",
			"a required value that is empty");

	load(&config, "[pipeline]\nsub\0script", 17, errors, sizeof(errors));
	ConfigFree(&config);
	tap_is(errors, "FILE:2: a zero byte: this is not a text file\n", "a file that is no text");

	tap_ok(!ConfigLoad(&config, "/nonexistent/es-relay.conf", &found), "a file that is not there");
	tap_is(BufferToText(&found),
		   "could not open \"/nonexistent/es-relay.conf\": No such file or directory\n", "is named");
	ConfigFree(&config);
	found.len = 0;
	tap_ok(!ConfigLoad(&config, "/", &found), "a directory");
	tap_is(BufferToText(&found), "could not read \"/\": Is a directory\n", "is named");
	ConfigFree(&config);
	BufferFree(&found);
}

static void
test_environment(void)
{
	RelayConfig config;

	setenv("ES_RELAY_PIPELINE_SUBSCRIPTION", "from env", 1);
	setenv("ES_RELAY_PIPELINE_POLL_INTERVAL_MS", "20", 1);
	setenv("ES_RELAY_SERVICE_PORT", "1", 1);
	accepted(&config, "[pipeline]\nsubscription = s\nbatch_size = 7\n",
			 "variables of nobody's section are left alone");
	tap_is(config.pipeline.subscription, "from env", "the environment overrides the file");
	tap_ok(config.pipeline.poll_interval_ms == 20, "and the default");
	tap_ok(config.pipeline.batch_size == 7, "and nothing else");
	ConfigFree(&config);

	setenv("ES_RELAY_PIPELINE_POLL_INTERVAL_MS", "-1", 1);
	refused("", "environment variable ES_RELAY_PIPELINE_POLL_INTERVAL_MS: "
			"invalid value \"-1\" for \"poll_interval_ms\" in section [pipeline], "
			"a number from 10 to 60000 is needed\n",
			"an invalid value names its variable");
	unsetenv("ES_RELAY_PIPELINE_POLL_INTERVAL_MS");

	setenv("ES_RELAY_PIPELINE_BATCHSIZE", "5", 1);
	refused("", "environment variable ES_RELAY_PIPELINE_BATCHSIZE: no such setting\n",
			"a mistyped variable is refused");
	unsetenv("ES_RELAY_PIPELINE_BATCHSIZE");
	unsetenv("ES_RELAY_PIPELINE_SUBSCRIPTION");
	unsetenv("ES_RELAY_SERVICE_PORT");
}

/* The sample file of a directory, into a buffer.  false if there is none. */
static bool
read_sample(const char *directory, Buffer *text)
{
	char		name[4096];
	char		chunk[4096];
	size_t		len;
	FILE	   *file;

	snprintf(name, sizeof(name), "%s/es-relay.conf.sample", directory);
	file = fopen(name, "r");
	if (file == NULL)
		return false;
	while ((len = fread(chunk, 1, sizeof(chunk), file)) > 0)
		BufferAppend(text, chunk, len);
	fclose(file);
	return true;
}

static void
test_sample(char *program)
{
	RelayConfig config;
	Buffer		sample = {0};
	Buffer		shipped = {0};
	Buffer		help = {0};
	char		source[] = __FILE__;

	ConfigSample(&sample);
	if (!read_sample(dirname(program), &shipped))
		read_sample(dirname(source), &shipped);
	tap_is(BufferToText(&shipped), BufferToText(&sample),
		   "es-relay.conf.sample is what --sample-config prints");

	refused(BufferToText(&sample),
			"\"subscription\" in section [pipeline] is required: "
			"set it in the file given with --config, or as ES_RELAY_PIPELINE_SUBSCRIPTION\n",
			"it lacks only what is required");

	/* With every default spelled out it must be valid, and change nothing. */
	for (char *line = BufferToText(&sample); line != NULL; line = strchr(line + 1, '\n'))
	{
		if (line[0] == '\n' && line[1] == '#' && line[2] != ' ')
			line[1] = ' ';
	}
	setenv("ES_RELAY_PIPELINE_SUBSCRIPTION", "s", 1);
	accepted(&config, BufferToText(&sample), "its defaults are valid");
	unsetenv("ES_RELAY_PIPELINE_SUBSCRIPTION");
	tap_ok(config.pipeline.batch_size == 1000 && config.sink.methods == &StdoutSink,
		   "and are the defaults");
	ConfigFree(&config);

	ConfigHelp(&help);
	tap_has(BufferToText(&help), "  [pipeline] batch_size, or ES_RELAY_PIPELINE_BATCH_SIZE\n",
			"--help names the setting and its variable");
	BufferFree(&sample);
	BufferFree(&shipped);
	BufferFree(&help);
}

int
main(int argc, char **argv)
{
	(void) argc;
	clearenv();					/* whoever runs this may have settings of their own */
	close(mkstemp(path));
	test_values();
	test_refusals();
	test_environment();
	test_sample(argv[0]);
	unlink(path);
	return tap_done();
}
