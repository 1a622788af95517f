/*
 * config_reload.c
 *		What SIGHUP can change in a running relay.
 *
 * The file and the environment are loaded anew; of what differs, the settings
 * that are marked so in their table are taken over, and the others are named.
 * Only numbers and words are, so nothing that somebody points to moves.  If
 * anything is wrong nothing changes.
 */
#include <string.h>

#include "config_tables.h"
#include "config_value.h"
#include "log.h"
#include "sink.h"

typedef struct Reload
{
	KindNumber	kind;
	const char *name;			/* of the section */
	int			changed;
} Reload;

static void
log_change(const Reload *reload, const ConfigOption *option, bool taken)
{
	Log(taken ? LOG_INFO : LOG_WARNING, "\"%s\" in section [%s%s%s] %s", option->key,
		ConfigKinds[reload->kind].name, reload->name[0] != '\0' ? " " : "", reload->name,
		taken ? "has changed" : "has changed, which needs a restart");
}

/* The options of a table, from one struct into another. */
static void
take_over(Reload *reload, const ConfigOption *options, void *running, const void *loaded)
{
	for (const ConfigOption *option = options; option->key != NULL; option++)
	{
		if (ConfigValueEqual(running, loaded, option))
			continue;
		if (option->reload)
			ConfigValueCopy(running, loaded, option);
		log_change(reload, option, option->reload);
		reload->changed++;
	}
}

static void
reload_pipelines(Reload *reload, RelayConfig *running, const RelayConfig *loaded)
{
	for (int i = 0; i < running->npipelines; i++)
	{
		PipelineConfig *pipeline = &running->pipelines[i];
		const PipelineConfig *other = &loaded->pipelines[i];

		reload->name = pipeline->name;
		take_over(reload, ConfigKinds[KIND_PIPELINE].options, pipeline, other);
	}
}

static void
reload_sinks(Reload *reload, RelayConfig *running, const RelayConfig *loaded)
{
	for (int i = 0; i < running->nsinks; i++)
	{
		SinkConfig *sink = &running->sinks[i];
		const SinkConfig *other = &loaded->sinks[i];

		reload->name = sink->name;
		take_over(reload, ConfigKinds[KIND_SINK].options, sink, other);
		if (sink->methods == other->methods)
			take_over(reload, sink->methods->options, sink->settings, other->settings);
	}
}

/* Whether both have the same pipelines and sinks, in the same order. */
static bool
same_sections(const RelayConfig *one, const RelayConfig *other)
{
	bool		same = one->npipelines == other->npipelines && one->nsinks == other->nsinks;

	for (int i = 0; same && i < one->npipelines; i++)
		same = strcmp(one->pipelines[i].name, other->pipelines[i].name) == 0;
	for (int i = 0; same && i < one->nsinks; i++)
		same = strcmp(one->sinks[i].name, other->sinks[i].name) == 0;
	return same;
}

void
ConfigReload(RelayConfig *running, const char *path)
{
	RelayConfig loaded;
	Buffer		errors = {0};
	Reload		reload = {0};

	if (!ConfigLoad(&loaded, path, &errors))
	{
		for (char *line = strtok(BufferToText(&errors), "\n"); line != NULL; line = strtok(NULL, "\n"))
			Log(LOG_WARNING, "%s", line);
		Log(LOG_WARNING, "nothing was reloaded");
	}
	else if (!same_sections(running, &loaded))
		Log(LOG_WARNING, "nothing was reloaded: there are other pipelines or sinks, or in another order, which needs a restart");
	else
	{
		reload.name = "";
		reload.kind = KIND_DATABASE;
		take_over(&reload, ConfigKinds[KIND_DATABASE].options, &running->database, &loaded.database);
		reload.kind = KIND_LOG;
		take_over(&reload, ConfigKinds[KIND_LOG].options, &running->log, &loaded.log);
		reload.kind = KIND_PIPELINE;
		reload_pipelines(&reload, running, &loaded);
		reload.kind = KIND_SINK;
		reload_sinks(&reload, running, &loaded);
		if (reload.changed == 0)
			Log(LOG_INFO, "reloaded: nothing has changed");
	}
	ConfigFree(&loaded);
	BufferFree(&errors);
}
