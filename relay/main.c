/*
 * main.c
 *		es-relay: carries the messages of subscriptions to the outside world.
 *
 * Arguments and settings; run.c does the rest.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "pg.h"
#include "relay.h"
#include "run.h"

typedef enum Action
{
	ACTION_RUN,
	ACTION_HELP,
	ACTION_VERSION,
	ACTION_SAMPLE,
	ACTION_CHECK
} Action;

typedef struct Arguments
{
	Action		action;
	const char *config_path;	/* NULL: defaults and environment only */
	bool		once;
} Arguments;

static const char usage[] =
"es-relay carries the messages of es_pg's subscriptions to the outside world.\n"
"\n"
"Usage: es-relay [OPTION]...\n"
"\n"
"  --config FILE    read the settings from FILE\n"
"  --once           deliver everything up to now, acknowledge it, and leave\n"
"  --check-config   check the settings, and leave\n"
"  --sample-config  print a file with all settings and their defaults, and leave\n"
"  --help           print this, and leave\n"
"  --version        print the version, and leave\n"
"\n"
"SIGTERM and SIGINT end it after what the sinks have is delivered and acknowledged,\n"
"and hand its lanes over; a second one ends it at once. Whatever ends it, what was\n"
"not acknowledged is delivered again, with the same ids. SIGHUP reloads the settings.\n"
"\n"
"Exit codes:\n"
"  0  done, and all that was delivered is acknowledged\n"
"  1  it could not go on; the last line of the log says why\n"
"  2  the arguments or the settings are wrong\n"
"\n"
"Settings, with the section of the file and the variable that overrides it:\n";

/* ---------------------------------------------------------------- arguments */

static bool
parse_arguments(int argc, char **argv, Arguments *arguments)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"once", no_argument, NULL, 'o'},
		{"check-config", no_argument, NULL, 'k'},
		{"sample-config", no_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0}
	};
	int			option;

	memset(arguments, 0, sizeof(*arguments));
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (option)
		{
			case 'c':
				arguments->config_path = optarg;
				break;
			case 'o':
				arguments->once = true;
				break;
			case 'k':
				arguments->action = ACTION_CHECK;
				break;
			case 's':
				arguments->action = ACTION_SAMPLE;
				break;
			case 'h':
				arguments->action = ACTION_HELP;
				break;
			case 'v':
				arguments->action = ACTION_VERSION;
				break;
			default:
				return false;
		}
	}
	if (optind < argc)
	{
		fprintf(stderr, "es-relay: unexpected argument \"%s\"\n", argv[optind]);
		return false;
	}
	return true;
}

/* Prints to standard output, where a full disk is a failure too. */
static int
print(Buffer *text)
{
	bool		printed = fwrite(text->data, 1, text->len, stdout) == text->len &&
		fflush(stdout) == 0;

	BufferFree(text);
	if (printed)
		return RELAY_EXIT_OK;
	fprintf(stderr, "es-relay: could not write to standard output: %s\n", strerror(errno));
	return RELAY_EXIT_FAILURE;
}

/* Loads and checks the configuration; prints what is wrong with it. */
static bool
load_config(RelayConfig *config, const char *path)
{
	Buffer		errors = {0};
	LogError	reason;
	bool		valid;

	if (ConfigLoad(config, path, &errors) &&
		!PgCheckConninfo(config->database.conninfo, &reason))
		BufferAppendf(&errors, "\"conninfo\" in section [database]: %s", reason.text);

	valid = errors.len == 0;
	for (char *line = strtok(BufferToText(&errors), "\n"); line != NULL; line = strtok(NULL, "\n"))
		fprintf(stderr, "es-relay: %s\n", line);
	BufferFree(&errors);
	return valid;
}

/*
 * A descriptor of 0 to 2 that is closed would be taken by the next thing that
 * opens, and then the log would be written into the database's connection.
 */
static void
occupy_standard_files(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
	{
		/* Standard output for reading only: writing to it is an error still. */
		if (fcntl(fd, F_GETFD) < 0 &&
			open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY) != fd)
			exit(RELAY_EXIT_FAILURE);
	}
}

int
main(int argc, char **argv)
{
	Arguments	arguments;
	RelayConfig config;
	Buffer		text = {0};
	int			code = RELAY_EXIT_CONFIG;

	occupy_standard_files();
	if (!parse_arguments(argc, argv, &arguments))
	{
		fprintf(stderr, "es-relay: try --help\n");
		return RELAY_EXIT_CONFIG;
	}
	switch (arguments.action)
	{
		case ACTION_HELP:
			BufferAppendText(&text, usage);
			ConfigHelp(&text);
			return print(&text);
		case ACTION_VERSION:
			BufferAppendText(&text, "es-relay " RELAY_VERSION "\n");
			return print(&text);
		case ACTION_SAMPLE:
			ConfigSample(&text);
			return print(&text);
		default:
			break;
	}

	if (load_config(&config, arguments.config_path))
	{
		config.once = arguments.once;
		if (arguments.action == ACTION_CHECK)
		{
			BufferAppendText(&text, "OK\n");
			code = print(&text);
		}
		else
			code = Run(&config, arguments.config_path);
	}
	ConfigFree(&config);
	return code;
}
