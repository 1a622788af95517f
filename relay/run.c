/*
 * run.c
 *		The running relay: its pipelines, in one thread with one event loop.
 *
 * The loop has one place to sleep; a signal that comes just before it wakes it
 * by way of a pipe.  SIGTERM and SIGINT stop all pipelines, a second one leaves
 * as it is; SIGHUP reloads.
 *
 * Pipelines share nothing but the loop.  When one of them fails the others are
 * stopped, too: a supervisor restarts a process, and sees one that is gone, but
 * none that does half its work.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "dispatch.h"
#include "log.h"
#include "mem.h"
#include "run.h"
#include "sink.h"
#include "source.h"
#include "waitset.h"

typedef struct Pipeline
{
	const PipelineConfig *config;
	Dispatch	dispatch;
	bool		over;
} Pipeline;

typedef struct Relay
{
	RelayConfig *config;
	const char *path;
	Pipeline   *pipelines;
	int			npipelines;		/* that are open */
	int			nover;			/* of these */
	bool		stopping;
	LogError	error;			/* the first, if code is not 0 */
	int			code;
} Relay;

/* ---------------------------------------------------------------- signals */

static volatile sig_atomic_t stop_requests = 0;
static volatile sig_atomic_t reload_requests = 0;
static int	wake_pipe[2];

static void
handle_signal(int signal_number)
{
	int			saved_errno = errno;

	if (signal_number == SIGHUP)
		reload_requests++;
	else
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
	struct sigaction handle = {.sa_handler = handle_signal};
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	if (pipe(wake_pipe) < 0)
		return false;
	for (int i = 0; i < 2; i++)
	{
		fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
		fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
	}
	sigaction(SIGTERM, &handle, NULL);
	sigaction(SIGINT, &handle, NULL);
	sigaction(SIGHUP, &handle, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	return true;
}

static void
sleep_until_something(Relay *relay, WaitSet *set)
{
	char		drain[64];

	WaitSetClear(set);
	WaitForFd(set, wake_pipe[0], POLLIN);
	for (int i = 0; i < relay->npipelines; i++)
	{
		if (!relay->pipelines[i].over)
			DispatchWait(&relay->pipelines[i].dispatch, set);
	}
	WaitSleep(set);
	while (read(wake_pipe[0], drain, sizeof(drain)) > 0)
		;
}

/* ---------------------------------------------------------------- pipelines */

/* `pipeline orders: `, nothing for the one without a name. */
static const char *
prefix(const PipelineConfig *config)
{
	static char text[128];

	text[0] = '\0';
	if (config->name[0] != '\0')
	{
		strcpy(text, "pipeline ");
		strncat(text, config->name, sizeof(text) - 16);
		strcat(text, ": ");
	}
	return text;
}

static void
fail(Relay *relay, const PipelineConfig *config, const char *text)
{
	if (relay->code == RELAY_EXIT_OK)
		LogErrorSet(&relay->error, "%s%s", prefix(config), text);
	relay->code = RELAY_EXIT_FAILURE;
}

static bool
open_pipeline(Relay *relay, const PipelineConfig *config)
{
	Pipeline   *pipeline = &relay->pipelines[relay->npipelines];
	const SinkConfig *to = config->sink;
	LogError	error;
	Sink	   *sink = to->methods->open(to->settings, config, &error);

	if (sink == NULL)
	{
		fail(relay, config, error.text);
		return false;
	}
	Log(LOG_INFO, "%ssubscription \"%s\" to %s%s%s, as consumer \"%s\"", prefix(config),
		config->subscription, to->methods->name, to->name[0] != '\0' ? " " : "", to->name,
		config->consumer);
	pipeline->config = config;
	DispatchInit(&pipeline->dispatch, config, PollSource.open(config, relay->config->once), sink);
	relay->npipelines++;
	return true;
}

static void
stop_all(Relay *relay)
{
	relay->stopping = true;
	for (int i = 0; i < relay->npipelines; i++)
	{
		if (!relay->pipelines[i].over)
			DispatchStop(&relay->pipelines[i].dispatch);
	}
}

static void
log_end(const Pipeline *pipeline)
{
	const DispatchCounts *counts = &pipeline->dispatch.counts;

	Log(LOG_INFO, "%sdone: %llu messages delivered, %llu failed, %llu rejected, %llu times down, %llu delivered in vain",
		prefix(pipeline->config), (unsigned long long) counts->delivered,
		(unsigned long long) counts->retried, (unsigned long long) counts->rejected,
		(unsigned long long) counts->downs, (unsigned long long) counts->in_vain);
}

static void
run_pipeline(Relay *relay, Pipeline *pipeline)
{
	DispatchStatus status = DispatchRun(&pipeline->dispatch);

	if (status == DISPATCH_WAIT)
		return;
	pipeline->over = true;
	relay->nover++;
	log_end(pipeline);
	if (status == DISPATCH_DONE)
		return;
	fail(relay, pipeline->config, pipeline->dispatch.error.text);
	if (relay->nover < relay->npipelines && !relay->stopping)
		Log(LOG_WARNING, "%s; stopping the other pipelines", relay->error.text);
	stop_all(relay);
}

/* ---------------------------------------------------------------- the loop */

static void
check_signals(Relay *relay)
{
	if (reload_requests > 0)
	{
		reload_requests = 0;
		ConfigReload(relay->config, relay->path);
		LogSetLevel(relay->config->log.level);
	}
	if (stop_requests > 0 && !relay->stopping)
	{
		Log(LOG_INFO, "asked to stop: waiting for what the sinks have");
		stop_all(relay);
	}
}

static void
main_loop(Relay *relay)
{
	WaitSet		set = {0};

	for (;;)
	{
		check_signals(relay);
		for (int i = 0; i < relay->npipelines; i++)
		{
			if (!relay->pipelines[i].over)
				run_pipeline(relay, &relay->pipelines[i]);
		}
		if (relay->nover == relay->npipelines)
			break;
		if (stop_requests > 1)
		{
			LogErrorSet(&relay->error, "stopped at once; what was not acknowledged will be delivered again");
			relay->code = RELAY_EXIT_FAILURE;
			break;
		}
		sleep_until_something(relay, &set);
	}
	WaitSetFree(&set);
}

/*
 * Gives memory back that large messages needed: what is larger than this is
 * mapped by itself, and unmapped when it is freed.
 */
static void
bound_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 128 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
	mallopt(M_ARENA_MAX, 2);
}

int
Run(RelayConfig *config, const char *path)
{
	Relay		relay = {.config = config,.path = path,.code = RELAY_EXIT_OK};
	bool		opened = true;

	bound_memory();
	LogSetLevel(config->log.level);
	srandom(WaitNow() ^ getpid());
	if (!handle_signals())
	{
		Log(LOG_ERROR, "could not create a pipe: %s", strerror(errno));
		return RELAY_EXIT_FAILURE;
	}
	Log(LOG_INFO, "es-relay %s", RELAY_VERSION);
	relay.pipelines = MemAlloc(config->npipelines * sizeof(Pipeline));
	for (int i = 0; i < config->npipelines && opened; i++)
		opened = open_pipeline(&relay, &config->pipelines[i]);
	if (opened)
		main_loop(&relay);
	for (int i = 0; i < relay.npipelines; i++)
		DispatchClose(&relay.pipelines[i].dispatch);
	free(relay.pipelines);
	if (relay.code != RELAY_EXIT_OK)
		Log(LOG_ERROR, "%s", relay.error.text);
	return relay.code;
}
