/*
 * config.c
 *		Loads the relay's settings: defaults, then the file, then the environment.
 *
 * A sink's `[sink]` section has the keys of its type beside `type` itself.
 * Pipelines and sinks may have names, and be several; whoever needs one of each
 * names none.
 *
 * What is not known is refused, for a mistyped key must not silently mean its
 * default.  Values that may be secrets are never shown, in no error either.
 */
#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "config_file.h"
#include "config_tables.h"
#include "config_value.h"
#include "sink.h"

#define NAME_MAX_LENGTH 63

extern char **environ;

/* A section that there is, and where its values go. */
typedef struct Section
{
	KindNumber	kind;
	const char *name;			/* "" if it has none */
	const FileSection *text;	/* NULL if the file has none */

	/* The options of its kind, and those of the sink's type if that is known. */
	struct
	{
		const ConfigOption *options;
		void	   *base;
	}			parts[2];
	int			nparts;
} Section;

typedef struct Loader
{
	RelayConfig *config;
	ConfigFile	file;
	Section    *sections;
	int			nsections;
	Buffer	   *errors;
} Loader;

/* Where a value comes from: a line of the file, or a variable. */
typedef struct Origin
{
	const char *variable;		/* NULL for a line */
	const char *file;
	int			line;
} Origin;

/* ---------------------------------------------------------------- names */

static void
add_origin(Buffer *errors, const Origin *origin)
{
	if (origin->variable != NULL)
		BufferAppendf(errors, "environment variable %s: ", origin->variable);
	else
		BufferAppendf(errors, "%s:%d: ", origin->file, origin->line);
}

/* `section [pipeline orders]` */
static void
add_section(Buffer *out, const Section *section)
{
	BufferAppendf(out, "section [%s%s%s]", ConfigKinds[section->kind].name,
				  section->name[0] != '\0' ? " " : "", section->name);
}

/* The key of `prefix.` that the end of a variable's name stands for: SASL_PASSWORD is sasl.password. */
static char *
pair_key(const char *prefix, const char *end, size_t len)
{
	Buffer		key = {0};

	BufferAppendText(&key, prefix);
	for (size_t i = 0; i < len; i++)
	{
		char		c = end[i] == '_' ? '.' : tolower((unsigned char) end[i]);

		BufferAppend(&key, &c, 1);
	}
	return BufferToText(&key);
}

static bool
name_is_valid(const char *name)
{
	for (const char *c = name; *c != '\0'; c++)
	{
		if (!isalnum((unsigned char) *c) && *c != '-' && *c != '_')
			return false;
	}
	return strlen(name) <= NAME_MAX_LENGTH;
}

/* The option of a section that a key belongs to, and its part; or NULL. */
static const ConfigOption *
find_option(const Section *section, const char *key, int *part)
{
	for (*part = 0; *part < section->nparts; (*part)++)
	{
		const ConfigOption *option = section->parts[*part].options;

		for (; option->key != NULL; option++)
		{
			if (ConfigValueMatches(option, key))
				return option;
		}
	}
	return NULL;
}

/* ---------------------------------------------------------------- values */

/* Puts a value into its field, or says why not. */
static void
set_option(Loader *loader, const Section *section, int part, const ConfigOption *option,
		   const char *key, const char *value, const Origin *origin)
{
	if (ConfigValueSet(section->parts[part].base, option, key, value))
		return;
	add_origin(loader->errors, origin);
	BufferAppendf(loader->errors, "invalid value \"%s\" for \"%s\" in ", value, key);
	add_section(loader->errors, section);
	BufferAppendText(loader->errors, ", ");
	ConfigValueNeed(loader->errors, option);
	BufferAppendText(loader->errors, "\n");
}

/* The line that gave the same key before, or 0. */
static int
earlier_line(const FileSection *text, const FileSetting *setting)
{
	for (const FileSetting *other = text->settings; other < setting; other++)
	{
		if (strcmp(other->key, setting->key) == 0)
			return other->line;
	}
	return 0;
}

static void
set_from_line(Loader *loader, const Section *section, const FileSetting *setting)
{
	Origin		origin = {.file = loader->file.path,.line = setting->line};
	int			earlier = earlier_line(section->text, setting);
	int			part;
	const ConfigOption *option = find_option(section, setting->key, &part);

	if (option != NULL && earlier == 0)
	{
		set_option(loader, section, part, option, setting->key, setting->value, &origin);
		return;
	}

	/* What a sink of an unknown type would know, nobody can say. */
	if (option == NULL && section->kind == KIND_SINK && section->nparts == 1)
		return;
	add_origin(loader->errors, &origin);
	if (option == NULL)
		BufferAppendf(loader->errors, "unknown key \"%s\" in ", setting->key);
	else
		BufferAppendf(loader->errors, "\"%s\" in ", setting->key);
	add_section(loader->errors, section);
	if (option != NULL)
		BufferAppendf(loader->errors, " was given in line %d already", earlier);
	else if (section->kind == KIND_SINK)
		BufferAppendf(loader->errors, " of type %s",
					  ((SinkConfig *) section->parts[0].base)->methods->name);
	BufferAppendText(loader->errors, "\n");
}

/* Every variable that begins so is a pair. */
static void
set_pairs_from_environment(Loader *loader, const Section *section, int part,
						   const ConfigOption *option, const char *start)
{
	size_t		len = strlen(start);

	for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
	{
		size_t		end = strcspn(*variable, "=");
		Origin		origin = {.variable = start};
		char	   *key;

		if (end <= len || strncmp(*variable, start, len) != 0)
			continue;
		key = pair_key(option->key, *variable + len, end - len);
		set_option(loader, section, part, option, key, *variable + end + 1, &origin);
		free(key);
	}
}

static void
set_from_environment(Loader *loader, const Section *section, int part, const ConfigOption *option)
{
	char		name[ENV_NAME_MAX];
	Origin		origin = {.variable = name};
	const char *value;

	ConfigVariable(section->kind, section->name, option->key, name);
	value = getenv(name);
	if (option->type == CONFIG_PAIRS)
		set_pairs_from_environment(loader, section, part, option, name);
	else if (value != NULL)
		set_option(loader, section, part, option, option->key, value, &origin);
}

static void
set_defaults(Loader *loader, const Section *section, int part)
{
	Origin		origin = {.variable = "(default)"};

	for (const ConfigOption *option = section->parts[part].options; option->key != NULL; option++)
	{
		if (option->initial != NULL && option->type != CONFIG_PAIRS)
			set_option(loader, section, part, option, option->key, option->initial, &origin);
		else if (option->type == CONFIG_STRING || option->type == CONFIG_SECRET)
			ConfigValueSet(section->parts[part].base, option, option->key, "");
	}
}

/* What its type is decides what else a sink may be told, so that comes first. */
static void
find_type(Loader *loader, Section *section)
{
	SinkConfig *sink = section->parts[0].base;
	const char *type = ConfigKinds[KIND_SINK].options[0].initial;
	char		variable[ENV_NAME_MAX];
	const SinkMethods *methods;

	for (int i = 0; section->text != NULL && i < section->text->nsettings; i++)
	{
		if (strcmp(section->text->settings[i].key, ConfigKinds[KIND_SINK].options[0].key) == 0)
			type = section->text->settings[i].value;
	}
	ConfigVariable(KIND_SINK, section->name, ConfigKinds[KIND_SINK].options[0].key, variable);
	if (getenv(variable) != NULL)
		type = getenv(variable);

	methods = SinkFind(type);
	if (methods == NULL)
		return;
	sink->methods = methods;
	sink->settings = MemAlloc(methods->settings_size > 0 ? methods->settings_size : 1);
	section->parts[1].options = methods->options;
	section->parts[1].base = sink->settings;
	section->nparts = 2;
	set_defaults(loader, section, 1);
}

static void
set_section(Loader *loader, Section *section)
{
	set_defaults(loader, section, 0);
	if (section->kind == KIND_SINK)
		find_type(loader, section);
	for (int i = 0; section->text != NULL && i < section->text->nsettings; i++)
		set_from_line(loader, section, &section->text->settings[i]);
	for (int part = 0; part < section->nparts; part++)
	{
		for (const ConfigOption *option = section->parts[part].options; option->key != NULL; option++)
			set_from_environment(loader, section, part, option);
	}
}

/* ---------------------------------------------------------------- sections */

static void
add_to_sections(Loader *loader, KindNumber kind, const char *name, const FileSection *text)
{
	loader->sections = MemRealloc(loader->sections, (loader->nsections + 1) * sizeof(Section));
	loader->sections[loader->nsections++] = (Section)
	{
		.kind = kind,.name = name,.text = text
	};
}

static int
count_sections(const Loader *loader, KindNumber kind)
{
	int			count = 0;

	for (int i = 0; i < loader->nsections; i++)
		count += loader->sections[i].kind == kind;
	return count;
}

/* Whether a section of the file can be; says why not. */
static bool
check_section(Loader *loader, const FileSection *text, KindNumber kind)
{
	Origin		origin = {.file = loader->file.path,.line = text->line};
	char		own[ENV_NAME_MAX];
	char		other[ENV_NAME_MAX];

	if (kind == KINDS || (text->name[0] != '\0' && !ConfigKinds[kind].several))
	{
		add_origin(loader->errors, &origin);
		BufferAppendf(loader->errors, "unknown section [%s%s%s]\n", text->kind,
					  text->name[0] != '\0' ? " " : "", text->name);
		return false;
	}
	if (!name_is_valid(text->name))
	{
		add_origin(loader->errors, &origin);
		BufferAppendf(loader->errors, "invalid name \"%s\", letters, digits, - and _ are needed, at most %d\n",
					  text->name, NAME_MAX_LENGTH);
		return false;
	}
	ConfigVariable(kind, text->name, "", own);
	for (int i = 0; i < loader->nsections; i++)
	{
		if (loader->sections[i].kind != kind)
			continue;
		ConfigVariable(kind, loader->sections[i].name, "", other);
		if (strcmp(own, other) != 0)
			continue;
		add_origin(loader->errors, &origin);
		BufferAppendf(loader->errors, "\"%s\" and \"%s\" are the same name in environment variables\n",
					  loader->sections[i].name, text->name);
		return false;
	}
	return true;
}

/* The sections of the file, and those that are there without being in it. */
static void
find_sections(Loader *loader)
{
	for (int i = 0; i < loader->file.nsections; i++)
	{
		const FileSection *text = &loader->file.sections[i];
		KindNumber	kind = 0;

		while (kind < KINDS && strcmp(ConfigKinds[kind].name, text->kind) != 0)
			kind++;
		if (check_section(loader, text, kind))
			add_to_sections(loader, kind, text->name, text);
	}
	for (KindNumber kind = 0; kind < KINDS; kind++)
	{
		if (count_sections(loader, kind) == 0)
			add_to_sections(loader, kind, "", NULL);
	}
}

/* Gives each section its struct. */
static void
place_sections(Loader *loader)
{
	RelayConfig *config = loader->config;

	config->pipelines = MemAlloc(count_sections(loader, KIND_PIPELINE) * sizeof(PipelineConfig));
	config->sinks = MemAlloc(count_sections(loader, KIND_SINK) * sizeof(SinkConfig));
	for (int i = 0; i < loader->nsections; i++)
	{
		Section    *section = &loader->sections[i];
		void	   *base = &config->database;

		if (section->kind == KIND_LOG)
			base = &config->log;
		else if (section->kind == KIND_PIPELINE)
		{
			PipelineConfig *pipeline = &config->pipelines[config->npipelines++];

			pipeline->name = MemStrdup(section->name);
			pipeline->database = &config->database;
			base = pipeline;
		}
		else if (section->kind == KIND_SINK)
		{
			SinkConfig *sink = &config->sinks[config->nsinks++];

			sink->name = MemStrdup(section->name);
			base = sink;
		}
		section->parts[0].options = ConfigKinds[section->kind].options;
		section->parts[0].base = base;
		section->nparts = 1;
	}
}

/* Whether a variable is a setting of this section. */
static bool
is_setting(const Section *section, const char *variable, size_t len)
{
	char		name[ENV_NAME_MAX];

	for (int part = 0; part < section->nparts; part++)
	{
		for (const ConfigOption *option = section->parts[part].options; option->key != NULL; option++)
		{
			size_t		known;

			ConfigVariable(section->kind, section->name, option->key, name);
			known = strlen(name);
			if (strncmp(variable, name, known) == 0 &&
				(len == known || (option->type == CONFIG_PAIRS && len > known)))
				return true;
		}
	}
	return false;
}

/*
 * The variables that only look like settings: one whose kind of section exists
 * is a mistyped key.  Others that begin with our prefix are left alone, for
 * Kubernetes makes ES_RELAY_PORT and the like for every service called
 * es-relay.
 */
static void
check_environment(Loader *loader)
{
	char		start[ENV_NAME_MAX];

	for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
	{
		size_t		len = strcspn(*variable, "=");
		bool		looks = false;
		bool		known = false;

		for (KindNumber kind = 0; kind < KINDS; kind++)
		{
			ConfigVariable(kind, "", "", start);
			looks |= strncmp(*variable, start, strlen(start)) == 0;
		}
		for (int i = 0; looks && !known && i < loader->nsections; i++)
			known = is_setting(&loader->sections[i], *variable, len);
		if (looks && !known)
			BufferAppendf(loader->errors, "environment variable %.*s: no such setting\n",
						  (int) len, *variable);
	}
}

/* ---------------------------------------------------------------- the whole */

/* What the user must give. */
static void
check_required(Loader *loader, const Section *section)
{
	char		variable[ENV_NAME_MAX];

	for (int part = 0; part < section->nparts; part++)
	{
		for (const ConfigOption *option = section->parts[part].options; option->key != NULL; option++)
		{
			if (option->initial != NULL || !ConfigValueIsEmpty(section->parts[part].base, option))
				continue;
			ConfigVariable(section->kind, section->name, option->key, variable);
			BufferAppendf(loader->errors, "\"%s\" in ", option->key);
			add_section(loader->errors, section);
			BufferAppendf(loader->errors, " is required: set it in the file given with --config, or as %s\n",
						  variable);
		}
	}
}

/* What the sinks themselves have to say of their settings. */
static void
check_sink(Loader *loader, const Section *section)
{
	const SinkConfig *sink = section->parts[0].base;
	LogError	error;

	if (sink->methods->check == NULL || sink->methods->check(sink->settings, &error))
		return;
	add_section(loader->errors, section);
	BufferAppendf(loader->errors, ": %s\n", error.text);
}

/* Finds the sink of a pipeline. */
static void
find_sink(Loader *loader, PipelineConfig *pipeline)
{
	RelayConfig *config = loader->config;
	bool		only = config->nsinks == 1 && pipeline->sink_name[0] == '\0';

	for (int i = 0; i < config->nsinks; i++)
	{
		if (only || strcmp(config->sinks[i].name, pipeline->sink_name) == 0)
			pipeline->sink = &config->sinks[i];
	}
	if (pipeline->sink != NULL)
		return;
	BufferAppendf(loader->errors, "section [pipeline%s%s]: ",
				  pipeline->name[0] != '\0' ? " " : "", pipeline->name);
	if (pipeline->sink_name[0] != '\0')
		BufferAppendf(loader->errors, "there is no section [sink %s]\n", pipeline->sink_name);
	else
		BufferAppendText(loader->errors, "there are several sinks: name one of them with \"sink\"\n");
}

/* What depends on the place and the time. */
static void
set_consumer(PipelineConfig *pipeline)
{
	char		host[HOST_NAME_MAX + 1] = "";
	Buffer		consumer = {0};

	if (pipeline->consumer[0] != '\0')
		return;
	gethostname(host, HOST_NAME_MAX);
	BufferAppendf(&consumer, "%s:%d%s%s", host, (int) getpid(),
				  pipeline->name[0] != '\0' ? ":" : "", pipeline->name);
	free(pipeline->consumer);
	pipeline->consumer = BufferToText(&consumer);
}

/* A member's name is one session's: two pipelines of one subscription need two. */
static void
check_consumers(Loader *loader)
{
	const RelayConfig *config = loader->config;

	for (int i = 0; i < config->npipelines; i++)
	{
		for (int j = 0; j < i; j++)
		{
			const PipelineConfig *one = &config->pipelines[j];
			const PipelineConfig *other = &config->pipelines[i];

			if (strcmp(one->subscription, other->subscription) == 0 &&
				strcmp(one->consumer, other->consumer) == 0)
				BufferAppendf(loader->errors,
							  "section [pipeline%s%s]: consumer \"%s\" of subscription \"%s\" is that of [pipeline%s%s] already\n",
							  other->name[0] != '\0' ? " " : "", other->name, other->consumer, other->subscription,
							  one->name[0] != '\0' ? " " : "", one->name);
		}
	}
}

static void
complete(Loader *loader)
{
	for (int i = 0; i < loader->nsections; i++)
		check_required(loader, &loader->sections[i]);
	loader->config->pipelines[0].maintains = true;
	for (int i = 0; i < loader->config->npipelines; i++)
	{
		find_sink(loader, &loader->config->pipelines[i]);
		set_consumer(&loader->config->pipelines[i]);
	}
	check_consumers(loader);
	for (int i = 0; i < loader->nsections; i++)
	{
		if (loader->sections[i].kind == KIND_SINK)
			check_sink(loader, &loader->sections[i]);
	}
}

bool
ConfigLoad(RelayConfig *config, const char *path, Buffer *errors)
{
	Loader		loader = {.config = config,.errors = errors};
	size_t		before = errors->len;

	memset(config, 0, sizeof(*config));
	if (path != NULL)
		ConfigFileRead(&loader.file, path, errors);
	find_sections(&loader);
	place_sections(&loader);
	for (int i = 0; i < loader.nsections; i++)
		set_section(&loader, &loader.sections[i]);
	check_environment(&loader);
	if (errors->len == before)
		complete(&loader);
	ConfigFileFree(&loader.file);
	free(loader.sections);
	return errors->len == before;
}

void
ConfigFree(RelayConfig *config)
{
	ConfigValuesFree(&config->database, ConfigKinds[KIND_DATABASE].options);
	ConfigValuesFree(&config->log, ConfigKinds[KIND_LOG].options);
	for (int i = 0; i < config->npipelines; i++)
	{
		ConfigValuesFree(&config->pipelines[i], ConfigKinds[KIND_PIPELINE].options);
		free(config->pipelines[i].name);
	}
	for (int i = 0; i < config->nsinks; i++)
	{
		SinkConfig *sink = &config->sinks[i];

		if (sink->settings != NULL)
			ConfigValuesFree(sink->settings, sink->methods->options);
		free(sink->settings);
		free(sink->name);
	}
	free(config->pipelines);
	free(config->sinks);
	memset(config, 0, sizeof(*config));
}
