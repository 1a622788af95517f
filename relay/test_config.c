/*
 * test_config.c
 *		The file, the environment, what is refused and how, the sample.
 */
#define _GNU_SOURCE				/* clearenv */
#include <libgen.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "config_value.h"
#include "log.h"
#include "pg.h"
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
	tap_ok(config.pipelines[0].batch_size == 1000, "batch_size defaults to 1000");
	tap_ok(config.pipelines[0].poll_interval_ms == 1000, "poll_interval_ms defaults to 1000");
	tap_ok(config.database.maintain_interval_s == 60, "maintain_interval_s defaults to 60");
	tap_ok(config.pipelines[0].create == RELAY_CREATE_NO, "create defaults to no");
	tap_ok(config.pipelines[0].sink->methods == &StdoutSink, "the sink defaults to stdout");
	tap_ok(config.log.level == LOG_INFO, "the log level defaults to info");
	tap_ok(strchr(config.pipelines[0].consumer, ':') != NULL &&
		   atoi(strrchr(config.pipelines[0].consumer, ':') + 1) == getpid(),
		   "consumer defaults to host:pid");
	ConfigFree(&config);

	accepted(&config,
			 "# comment\n; comment\n\n"
			 "\t[ database ]\r\n"
			 "  conninfo =  host=a,b password='x # = ;y' \t\r\n"
			 "[pipeline]\nsubscription=caf\303\251\ncreate = end\nbatch_size = 1\nconsumer = me\n"
			 "[log]\nlevel=debug\n"
			 "[database]\nmaintain_interval_s = 0",
			 "white space, comments, CRLF, a section that comes twice, no last line end");
	tap_is(config.database.conninfo, "host=a,b password='x # = ;y'",
		   "a value is the rest of its line, trimmed");
	tap_is(config.pipelines[0].subscription, "caf\303\251", "UTF-8 passes");
	tap_is(config.pipelines[0].consumer, "me", "a consumer that is given");
	tap_ok(config.pipelines[0].create == RELAY_CREATE_END && config.pipelines[0].batch_size == 1 &&
		   config.database.maintain_interval_s == 0 && config.log.level == LOG_DEBUG,
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
			"FILE:4: this is neither \"key = value\" nor \"[section]\"\n", "a line of neither kind");
	refused("[pipeline\n", "FILE:1: a section is missing its \"]\"\n", "half a section");
	refused("[pipeline]\nsubscription = s\nbatch_size = 0\npoll_interval_ms = 10s\n"
			"window_messages = 99999999999999999999\nbatch_size = 3\n",
			"FILE:3: invalid value \"0\" for \"batch_size\" in section [pipeline], "
			"a number from 1 to 100000 is needed\n"
			"FILE:4: invalid value \"10s\" for \"poll_interval_ms\" in section [pipeline], "
			"a number from 10 to 60000 is needed\n"
			"FILE:5: invalid value \"99999999999999999999\" for \"window_messages\" in section [pipeline], "
			"a number from 1 to 100000 is needed\n"
			"FILE:6: \"batch_size\" in section [pipeline] was given in line 3 already\n",
			"all mistakes at once, numbers out of range, a key that comes twice");
	refused("[pipeline]\nsubscription = s\ncreate = yes\n[sink]\ntype = kafka9\n",
			"FILE:3: invalid value \"yes\" for \"create\" in section [pipeline], one of these is needed: no, beginning, end\n"
			"FILE:5: invalid value \"kafka9\" for \"type\" in section [sink], one of these is needed: stdout, file, exec, kafka\n",
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
test_several(void)
{
	RelayConfig config;

	accepted(&config,
			 "[pipeline orders]\nsubscription = o\nsink = b\n[sink a]\ntype = stdout\n"
			 "[pipeline bills]\nsubscription = o\nsink = a\n[sink b]\n[pipeline orders]\nbatch_size = 5\n",
			 "pipelines and sinks with names");
	tap_ok(config.npipelines == 2 && config.nsinks == 2, "two of each");
	tap_is(config.pipelines[0].name, "orders", "in the order of the file");
	tap_is(config.pipelines[0].sink->name, "b", "each with its sink");
	tap_is(config.pipelines[1].sink->name, "a", "the other too");
	tap_ok(config.pipelines[0].batch_size == 5 && config.pipelines[1].batch_size == 1000,
		   "and its own settings");
	tap_ok(strstr(config.pipelines[1].consumer, ":bills") != NULL, "consumers differ");
	ConfigFree(&config);

	setenv("ES_RELAY_PIPELINE_A_B_BATCH_SIZE", "9", 1);
	accepted(&config, "[pipeline a-b]\nsubscription = s\n[sink only]\n", "one sink needs no mention");
	tap_ok(config.pipelines[0].batch_size == 9, "a variable with a name in it");
	tap_is(config.pipelines[0].sink->name, "only", "the only sink");
	ConfigFree(&config);
	refused("[pipeline a]\nsubscription = s\n",
			"environment variable ES_RELAY_PIPELINE_A_B_BATCH_SIZE: no such setting\n",
			"a variable for a pipeline that is not there");
	unsetenv("ES_RELAY_PIPELINE_A_B_BATCH_SIZE");

	refused("[pipeline a]\nsubscription = s\nsink = x\n[pipeline b]\nsubscription = s\n[sink c]\n[sink d]\n",
			"section [pipeline a]: there is no section [sink x]\n"
			"section [pipeline b]: there are several sinks: name one of them with \"sink\"\n",
			"a sink that is not there, and a choice of two");
	refused("[pipeline a]\nsubscription = s\nconsumer = me\n[pipeline b]\nsubscription = s\nconsumer = me\n",
			"section [pipeline b]: consumer \"me\" of subscription \"s\" is that of [pipeline a] already\n",
			"two members with one name");
	refused("[pipeline a]\n",
			"\"subscription\" in section [pipeline a] is required: set it in the file given with "
			"--config, or as ES_RELAY_PIPELINE_A_SUBSCRIPTION\n",
			"what is required names section and variable");
	refused("[pipeline a]\nsubscription = s\n[log x]\n[sink a.b]\n[pipeline x_y]\n[pipeline X-Y]\n",
			"FILE:3: unknown section [log x]\n"
			"FILE:4: invalid name \"a.b\", letters, digits, - and _ are needed, at most 63\n"
			"FILE:6: \"x_y\" and \"X-Y\" are the same name in environment variables\n",
			"names that cannot be");
	refused("[sink s]\nbrokers = x\n[pipeline]\nsubscription = s\nwindow_bytes = 5 TB\n",
			"FILE:2: unknown key \"brokers\" in section [sink s] of type stdout\n"
			"FILE:5: invalid value \"5 TB\" for \"window_bytes\" in section [pipeline], "
			"a number of bytes, or of kB, MB, GB, from 64kB to 1GB is needed\n",
			"a key of another type of sink, and a size that is none");
}

/* What only a sink's table has, in a table of our own. */
static void
test_types(void)
{
	struct
	{
		char	   *secret;
		bool		flag;
		int64_t		size;
		ConfigPairs pairs;
	}			one = {0}, other = {0};
	static const ConfigOption options[] = {
		{"password", CONFIG_SECRET, 0,.help = ""},
		{"flag", CONFIG_BOOL, sizeof(char *),.help = ""},
		{"size", CONFIG_SIZE, 2 * sizeof(char *),.max = 4096},
		{"kafka.", CONFIG_PAIRS, 3 * sizeof(char *),.help = ""},
		{NULL}
	};

	ConfigValueSet(&one, &options[0], "password", "x");
	ConfigValueSet(&other, &options[0], "password", "y");
	tap_ok(!ConfigValueEqual(&one, &other, &options[0]), "secrets are compared");
	tap_ok(ConfigValueSet(&one, &options[1], "flag", "yes") && one.flag, "yes is on");
	tap_ok(ConfigValueSet(&one, &options[1], "flag", "off") && !one.flag, "off is off");
	tap_ok(!ConfigValueSet(&one, &options[1], "flag", "1"), "1 is neither");
	tap_ok(ConfigValueSet(&one, &options[2], "size", "4 kB") && one.size == 4096, "a size with its unit");
	tap_ok(!ConfigValueSet(&one, &options[2], "size", "5kB"), "one too large");
	tap_ok(!ConfigValueSet(&one, &options[2], "size", "-1"), "one too small");
	tap_ok(ConfigValueMatches(&options[3], "kafka.linger.ms") &&
		   !ConfigValueMatches(&options[3], "kafka.") && !ConfigValueMatches(&options[3], "kafka"),
		   "any key that begins like it");
	ConfigValueSet(&one, &options[3], "kafka.linger.ms", "5");
	ConfigValueSet(&one, &options[3], "kafka.acks", "all");
	ConfigValueSet(&one, &options[3], "kafka.linger.ms", "6");
	tap_ok(one.pairs.npairs == 2 && strcmp(one.pairs.pairs[0].key, "linger.ms") == 0 &&
		   strcmp(one.pairs.pairs[0].value, "6") == 0, "pairs, each once, the last value");
	tap_ok(!ConfigValueEqual(&one, &other, &options[3]), "and compared");
	ConfigValuesFree(&one, options);
	ConfigValuesFree(&other, options);
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
	tap_is(config.pipelines[0].subscription, "from env", "the environment overrides the file");
	tap_ok(config.pipelines[0].poll_interval_ms == 20, "and the default");
	tap_ok(config.pipelines[0].batch_size == 7, "and nothing else");
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
	bool		other_sink = false;

	ConfigSample(&sample);
	if (!read_sample(dirname(program), &shipped))
		read_sample(dirname(source), &shipped);
	tap_is(BufferToText(&shipped), BufferToText(&sample),
		   "es-relay.conf.sample is what --sample-config prints");

	refused(BufferToText(&sample),
			"\"subscription\" in section [pipeline] is required: "
			"set it in the file given with --config, or as ES_RELAY_PIPELINE_SUBSCRIPTION\n",
			"it lacks only what is required");

	/*
	 * With every default spelled out it must be valid, and change nothing. The
	 * settings of sinks other than the default one are not for this file.
	 */
	for (char *line = BufferToText(&sample); line != NULL; line = strchr(line + 1, '\n'))
	{
		if (strncmp(line, "\n# With type = ", 15) == 0)
			other_sink = true;
		if (strncmp(line, "\n[", 2) == 0)
			other_sink = false;
		if (!other_sink && line[0] == '\n' && line[1] == '#' && line[2] != ' ')
			line[1] = ' ';
	}
	setenv("ES_RELAY_PIPELINE_SUBSCRIPTION", "s", 1);
	accepted(&config, BufferToText(&sample), "its defaults are valid");
	unsetenv("ES_RELAY_PIPELINE_SUBSCRIPTION");
	tap_ok(config.pipelines[0].batch_size == 1000 && config.pipelines[0].sink->methods == &StdoutSink,
		   "and are the defaults");
	ConfigFree(&config);

	ConfigHelp(&help);
	tap_has(BufferToText(&help), "  [pipeline] batch_size, or ES_RELAY_PIPELINE_BATCH_SIZE\n",
			"--help names the setting and its variable");
	BufferFree(&sample);
	BufferFree(&shipped);
	BufferFree(&help);
}

/* What libpq says of a connection string it does not understand is without its parts. */
static void
test_conninfo(void)
{
	LogError	error;

	tap_ok(PgCheckConninfo("host=a password='b c'", &error), "a connection string");
	tap_ok(!PgCheckConninfo("host=a password=b secret", &error), "a broken one");
	tap_is(error.text, "missing \"...\" in connection info string\n", "... is not shown");
	tap_ok(!PgCheckConninfo("postgres://me:secret@[::1/x", &error) && strstr(error.text, "sec") == NULL,
		   "nor is a URI: %s", error.text);
}

int
main(int argc, char **argv)
{
	(void) argc;
	clearenv();					/* whoever runs this may have settings of their own */
	close(mkstemp(path));
	test_values();
	test_refusals();
	test_several();
	test_types();
	test_environment();
	test_sample(argv[0]);
	test_conninfo();
	unlink(path);
	return tap_done();
}
