/*
 * main.c
 *		es-relay: carries the messages of a subscription to the outside world.
 *
 * Arguments, signals and the main loop.  The loop has one place to sleep; a
 * signal that comes just before it wakes it by way of a pipe.  SIGTERM and
 * SIGINT finish the batch in hand; a second one leaves as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "dispatch.h"
#include "log.h"
#include "pg.h"
#include "relay.h"
#include "sink.h"
#include "source.h"
#include "waitset.h"

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
"es-relay carries the messages of an es_pg subscription to the outside world.\n"
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
"SIGTERM and SIGINT end it after the batch in hand is delivered and acknowledged;\n"
"a second one ends it at once. Whatever ends it, what was not acknowledged is\n"
"delivered again, with the same ids.\n"
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

/* ---------------------------------------------------------------- running */

static volatile sig_atomic_t stop_requests = 0;
static int	wake_pipe[2];

static void
request_stop(int signal_number)
{
	int			saved_errno = errno;

	(void) signal_number;
	stop_requests++;
	if (write(wake_pipe[1], "", 1) < 0)
	{
		/* Full: then the loop wakes anyway. */
	}
	errno = saved_errno;
}

/* Without SA_RESTART, so that a signal also ends a write that blocks. */
static bool
handle_signals(void)
{
	struct sigaction stop = {.sa_handler = request_stop};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (pipe(wake_pipe) < 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
		fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
	}
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	return true;
}

static int
main_loop(Dispatch *dispatch)
{
	WaitSet		set = {0};
	DispatchStatus status;
	char		drain[64];

	while ((status = DispatchRun(dispatch)) == DISPATCH_WAIT)
	{
		WaitSetClear(&set);
		WaitForFd(&set, wake_pipe[0], POLLIN);
		DispatchWait(dispatch, &set);
		WaitSleep(&set);

		while (read(wake_pipe[0], drain, sizeof(drain)) > 0)
			;
		if (stop_requests > 1)
		{
			Log(LOG_ERROR, "stopped at once; what was not acknowledged will be delivered again");
			return RELAY_EXIT_FAILURE;
		}
		if (stop_requests > 0 && !dispatch->stopping)
		{
			Log(LOG_INFO, "asked to stop: finishing the batch in hand");
			DispatchStop(dispatch);
		}
	}

	WaitSetFree(&set);
	if (status == DISPATCH_FAILED)
	{
		Log(LOG_ERROR, "%s", dispatch->error.text);
		return RELAY_EXIT_FAILURE;
	}
	Log(LOG_INFO, "done: %llu messages delivered", (unsigned long long) dispatch->delivered);
	return RELAY_EXIT_OK;
}

static int
run(const RelayConfig *config)
{
	Dispatch	dispatch;
	Sink	   *sink;
	LogError	error;
	int			code;

	const PipelineConfig *pipeline = &config->pipelines[0];

	LogSetLevel(config->log.level);
	srandom(WaitNow() ^ getpid());
	if (!handle_signals())
	{
		Log(LOG_ERROR, "could not create a pipe: %s", strerror(errno));
		return RELAY_EXIT_FAILURE;
	}
	if (config->npipelines > 1)
	{
		Log(LOG_ERROR, "several pipelines need a process each");
		return RELAY_EXIT_CONFIG;
	}
	sink = pipeline->sink->methods->open(pipeline->sink->settings, pipeline, &error);
	if (sink == NULL)
	{
		Log(LOG_ERROR, "%s", error.text);
		return RELAY_EXIT_FAILURE;
	}

	Log(LOG_INFO, "es-relay %s, subscription \"%s\" to %s, as consumer \"%s\"", RELAY_VERSION,
		pipeline->subscription, sink->methods->name, pipeline->consumer);
	DispatchInit(&dispatch, PollSource.open(pipeline, config->once), sink);
	code = main_loop(&dispatch);
	DispatchClose(&dispatch);
	return code;
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
			code = run(&config);
	}
	ConfigFree(&config);
	return code;
}
