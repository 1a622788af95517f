/*
 * config.c
 *		The relay's settings: one table, from which the file, the environment,
 *		--help and --sample-config all read.
 *
 * A sink brings the table of its own settings along (sink.h), in a section
 * that has its name; everything below walks both.
 *
 * The file is INI-like, and what it says is what is meant: a value is the rest
 * of its line, with nothing to quote or to escape and no comment behind it, so
 * that a connection string with # or quotes in it can be pasted.  What is not
 * known is refused, for a mistyped key must not silently mean its default.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "sink.h"

#define ENV_PREFIX		"ES_RELAY_"
#define ENV_NAME_MAX	128

extern char **environ;

/* In the order of RelayCreate and of LogLevel. */
static const char *const create_values[] = {"no", "beginning", "end", NULL};
static const char *const level_values[] = {"error", "warning", "info", "debug", NULL};

#define FIELD(member)	offsetof(RelayConfig, member)

static const ConfigOption options[] = {
	{"database", "conninfo", CONFIG_STRING, FIELD(database.conninfo), "",
		.help = "Where the event store is: a libpq connection string or URI. What it leaves out\n"
		"comes from libpq's own environment (PGHOST, PGSERVICE, ...) and from .pgpass.\n"
		"Several hosts are tried in turn; add target_session_attrs=read-write to them.\n"
		"connect_timeout holds for each host, and is 10 seconds unless given."
	},
	{"pipeline", "subscription", CONFIG_STRING, FIELD(pipeline.subscription), NULL,
		.help = "The subscription to read: es_create_subscription() makes one, or `create` below."
	},
	{"pipeline", "consumer", CONFIG_STRING, FIELD(pipeline.consumer), "",
		.help = "This process's name among the members of the subscription; one that is not\n"
		"given is made of the host's name and the process id."
	},
	{"pipeline", "create", CONFIG_ENUM, FIELD(pipeline.create), "no",
		.help = "What to do when the subscription does not exist: create it to read from the\n"
		"beginning of the log or from its present end, or stop.",
		.values = create_values
	},
	{"pipeline", "batch_size", CONFIG_INT, FIELD(pipeline.batch_size), "1000",
		.help = "Messages to fetch at a time. A batch is acknowledged as a whole, so it is also\n"
		"the most that is delivered again after a crash.",
		.min = 1, .max = 100000
	},
	{"pipeline", "poll_interval_ms", CONFIG_INT, FIELD(pipeline.poll_interval_ms), "1000",
		.help = "How often to look for messages while the database announces none. It announces\n"
		"each at once; behind a connection pooler, where that cannot work, this is the\n"
		"delay.",
		.min = 10, .max = 60000
	},
	{"pipeline", "maintain_interval_s", CONFIG_INT, FIELD(pipeline.maintain_interval_s), "60",
		.help = "How often to call es_maintain(), the database's housekeeping. 0 is never.",
		.min = 0, .max = 86400
	},
	{"pipeline", "source", CONFIG_STRING, FIELD(pipeline.source), "",
		.help = "The CloudEvents source of events that have none of their own, a URI reference;\n"
		"if not given, /es_pg/ and the database's name."
	},
	{"sink", "type", CONFIG_SINK, FIELD(sink.methods), "stdout",
		.help = "Where the messages go."
	},
	{"log", "level", CONFIG_ENUM, FIELD(log.level), "info",
		.help = "The least important messages to write to standard error.",
		.values = level_values
	},
	{NULL}
};

/* Where a value comes from: a line of the file, a variable, or the table. */
typedef struct Origin
{
	const char *file;			/* NULL for a variable */
	int			line;
	const char *variable;
} Origin;

/* The n-th setting of the relay and then of its sinks, NULL after the last. */
static const ConfigOption *
option_at(int n)
{
	const ConfigOption *option;

	for (option = options; option->section != NULL; option++)
	{
		if (n-- == 0)
			return option;
	}
	for (int i = 0; SinkAt(i) != NULL; i++)
	{
		for (option = SinkAt(i)->options; option->section != NULL; option++)
		{
			if (n-- == 0)
				return option;
		}
	}
	return NULL;
}

/* The setting of that name, or NULL; its number if somebody wants it. */
static const ConfigOption *
find_option(const char *section, const char *key, int *number)
{
	const ConfigOption *option;

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		if (strcmp(option->section, section) == 0 && strcmp(option->key, key) == 0)
		{
			if (number != NULL)
				*number = i;
			return option;
		}
	}
	return NULL;
}

static bool
section_exists(const char *section)
{
	const ConfigOption *option;

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		if (strcmp(option->section, section) == 0)
			return true;
	}
	return false;
}

/* ES_RELAY_<SECTION>_<KEY>, or with no key the start that a section's have. */
static void
variable_name(const char *section, const char *key, char *name)
{
	snprintf(name, ENV_NAME_MAX, ENV_PREFIX "%s_%s", section, key != NULL ? key : "");
	for (char *c = name; *c != '\0'; c++)
		*c = toupper((unsigned char) *c);
}

static void
add_origin(Buffer *errors, const Origin *origin)
{
	if (origin->file != NULL)
		BufferAppendf(errors, "%s:%d: ", origin->file, origin->line);
	else
		BufferAppendf(errors, "environment variable %s: ", origin->variable);
}

/* The words that a setting may have, for people. */
static void
add_choices(Buffer *out, const ConfigOption *option)
{
	const char *separator = "";

	if (option->type == CONFIG_ENUM)
	{
		for (int i = 0; option->values[i] != NULL; i++, separator = ", ")
			BufferAppendf(out, "%s%s", separator, option->values[i]);
	}
	else if (option->type == CONFIG_SINK)
	{
		for (int i = 0; SinkAt(i) != NULL; i++, separator = ", ")
			BufferAppendf(out, "%s%s", separator, SinkAt(i)->name);
	}
}

static bool
parse_int(const ConfigOption *option, const char *value, int *field)
{
	char	   *end;
	long		number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' ||
		number < option->min || number > option->max)
		return false;
	*field = number;
	return true;
}

static bool
parse_enum(const ConfigOption *option, const char *value, int *field)
{
	for (int i = 0; option->values[i] != NULL; i++)
	{
		if (strcmp(option->values[i], value) == 0)
		{
			*field = i;
			return true;
		}
	}
	return false;
}

/* Puts a value into its field, or says why not. */
static void
set_option(RelayConfig *config, const ConfigOption *option, const char *value,
		   const Origin *origin, Buffer *errors)
{
	void	   *field = (char *) config + option->field;
	bool		valid = true;

	switch (option->type)
	{
		case CONFIG_STRING:
			free(*(char **) field);
			*(char **) field = MemStrdup(value);
			break;
		case CONFIG_INT:
			valid = parse_int(option, value, field);
			break;
		case CONFIG_ENUM:
			valid = parse_enum(option, value, field);
			break;
		case CONFIG_SINK:
			valid = SinkFind(value) != NULL;
			if (valid)
				*(const SinkMethods **) field = SinkFind(value);
			break;
	}
	if (valid)
		return;

	add_origin(errors, origin);
	BufferAppendf(errors, "invalid value \"%s\" for \"%s\" in section [%s], ",
				  value, option->key, option->section);
	if (option->type == CONFIG_INT)
		BufferAppendf(errors, "a number from %d to %d is needed", option->min, option->max);
	else
	{
		BufferAppendText(errors, "one of these is needed: ");
		add_choices(errors, option);
	}
	BufferAppendText(errors, "\n");
}

static char *
trim(char *text)
{
	char	   *end = text + strlen(text);

	while (end > text && isspace((unsigned char) end[-1]))
		end--;
	*end = '\0';
	while (isspace((unsigned char) *text))
		text++;
	return text;
}

/* What the reader of the file remembers from line to line. */
typedef struct FileState
{
	Origin		origin;
	char	   *section;		/* NULL before the first, "" below an unknown one */
	int		   *lines;			/* for each setting, the line that gave it, or 0 */
} FileState;

/* `[section]` */
static void
read_section(FileState *state, char *text, Buffer *errors)
{
	size_t		len = strlen(text);

	free(state->section);
	state->section = NULL;
	if (text[len - 1] == ']')
	{
		text[len - 1] = '\0';
		state->section = MemStrdup(trim(text + 1));
		if (section_exists(state->section))
			return;
	}

	add_origin(errors, &state->origin);
	if (state->section == NULL)
		BufferAppendText(errors, "a section is missing its \"]\"\n");
	else
		BufferAppendf(errors, "unknown section [%s]\n", state->section);

	/* One error is enough for a section that nobody knows. */
	free(state->section);
	state->section = MemStrdup("");
}

/* `key = value` */
static void
read_setting(RelayConfig *config, FileState *state, char *text, Buffer *errors)
{
	char	   *equals = strchr(text, '=');
	const ConfigOption *option;
	int			number;

	if (state->section != NULL && state->section[0] == '\0')
		return;
	if (equals == NULL)
	{
		add_origin(errors, &state->origin);
		BufferAppendf(errors, "\"%s\" is neither \"key = value\" nor \"[section]\"\n", text);
		return;
	}
	*equals = '\0';
	text = trim(text);
	if (state->section == NULL)
	{
		add_origin(errors, &state->origin);
		BufferAppendf(errors, "\"%s\" stands before the first section\n", text);
		return;
	}
	option = find_option(state->section, text, &number);
	if (option == NULL)
	{
		add_origin(errors, &state->origin);
		BufferAppendf(errors, "unknown key \"%s\" in section [%s]\n", text, state->section);
		return;
	}
	if (state->lines[number] != 0)
	{
		add_origin(errors, &state->origin);
		BufferAppendf(errors, "\"%s\" in section [%s] was given in line %d already\n",
					  text, state->section, state->lines[number]);
		return;
	}
	state->lines[number] = state->origin.line;
	set_option(config, option, trim(equals + 1), &state->origin, errors);
}

static void
read_lines(RelayConfig *config, FILE *file, FileState *state, Buffer *errors)
{
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;

	while ((len = getline(&line, &size, file)) >= 0)
	{
		char	   *text;

		state->origin.line++;
		if (strlen(line) != (size_t) len)
		{
			add_origin(errors, &state->origin);
			BufferAppendText(errors, "a zero byte: this is not a text file\n");
			break;
		}
		text = trim(line);
		if (text[0] == '\0' || text[0] == '#' || text[0] == ';')
			continue;
		if (text[0] == '[')
			read_section(state, text, errors);
		else
			read_setting(config, state, text, errors);
	}
	free(line);
}

static void
read_file(RelayConfig *config, const char *path, Buffer *errors)
{
	FileState	state = {.origin.file = path};
	int			noptions = 0;
	FILE	   *file = fopen(path, "r");

	if (file == NULL)
	{
		BufferAppendf(errors, "could not open \"%s\": %s\n", path, strerror(errno));
		return;
	}
	while (option_at(noptions) != NULL)
		noptions++;
	state.lines = MemAlloc(noptions * sizeof(int));

	read_lines(config, file, &state, errors);
	if (ferror(file))
		BufferAppendf(errors, "could not read \"%s\": %s\n", path, strerror(errno));

	fclose(file);
	free(state.section);
	free(state.lines);
}

/*
 * The variables that are set for settings, and those that only look so: one
 * whose section exists is a mistyped key.  Others that begin with our prefix
 * are left alone, for Kubernetes makes ES_RELAY_PORT and the like for every
 * service called es-relay.
 */
static void
read_environment(RelayConfig *config, Buffer *errors)
{
	const ConfigOption *option;
	char		name[ENV_NAME_MAX];

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		Origin		origin = {.variable = name};
		const char *value;

		variable_name(option->section, option->key, name);
		value = getenv(name);
		if (value != NULL)
			set_option(config, option, value, &origin, errors);
	}

	for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
	{
		size_t		len = strcspn(*variable, "=");
		bool		section = false;
		bool		known = false;

		for (int i = 0; (option = option_at(i)) != NULL && !known; i++)
		{
			variable_name(option->section, NULL, name);
			section |= strncmp(*variable, name, strlen(name)) == 0;
			variable_name(option->section, option->key, name);
			known = strlen(name) == len && strncmp(*variable, name, len) == 0;
		}
		if (section && !known)
			BufferAppendf(errors, "environment variable %.*s: no such setting\n",
						  (int) len, *variable);
	}
}

/* What the user must give, and what depends on the place and the time. */
static void
complete(RelayConfig *config, Buffer *errors)
{
	const ConfigOption *option;

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		char	  **field = (char **) ((char *) config + option->field);
		char		name[ENV_NAME_MAX];

		if (option->initial != NULL || (*field != NULL && (*field)[0] != '\0'))
			continue;
		variable_name(option->section, option->key, name);
		BufferAppendf(errors, "\"%s\" in section [%s] is required: set it in the file given with --config, or as %s\n",
					  option->key, option->section, name);
	}

	if (config->pipeline.consumer[0] == '\0')
	{
		char		host[HOST_NAME_MAX + 1] = "";
		Buffer		consumer = {0};

		gethostname(host, HOST_NAME_MAX);
		BufferAppendf(&consumer, "%s:%d", host, (int) getpid());
		free(config->pipeline.consumer);
		config->pipeline.consumer = BufferToText(&consumer);
	}
}

bool
ConfigLoad(RelayConfig *config, const char *path, Buffer *errors)
{
	const ConfigOption *option;
	size_t		before = errors->len;

	memset(config, 0, sizeof(*config));
	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		Origin		origin = {.variable = "(default)"};

		if (option->initial != NULL)
			set_option(config, option, option->initial, &origin, errors);
	}
	if (path != NULL)
		read_file(config, path, errors);
	read_environment(config, errors);
	if (errors->len == before)
		complete(config, errors);
	return errors->len == before;
}

void
ConfigFree(RelayConfig *config)
{
	const ConfigOption *option;

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		if (option->type == CONFIG_STRING)
			free(*(char **) ((char *) config + option->field));
	}
	memset(config, 0, sizeof(*config));
}

/* The help of a setting, each line behind so much, and what it may be. */
static void
add_help(Buffer *out, const ConfigOption *option, const char *indent)
{
	const char *line = option->help;

	while (*line != '\0')
	{
		size_t		len = strcspn(line, "\n");

		BufferAppendf(out, "%s%.*s\n", indent, (int) len, line);
		line += len + (line[len] == '\n');
	}

	BufferAppendText(out, indent);
	if (option->type == CONFIG_INT)
		BufferAppendf(out, "A number from %d to %d. ", option->min, option->max);
	else if (option->type == CONFIG_ENUM || option->type == CONFIG_SINK)
	{
		BufferAppendText(out, "One of: ");
		add_choices(out, option);
		BufferAppendText(out, ". ");
	}
	if (option->initial == NULL)
		BufferAppendText(out, "Required.\n");
	else if (option->initial[0] == '\0')
		BufferAppendText(out, "Default: not set.\n");
	else
		BufferAppendf(out, "Default: %s.\n", option->initial);
}

/* A file that sets nothing but asks for what is required. */
void
ConfigSample(Buffer *out)
{
	const ConfigOption *option;
	const char *section = "";

	BufferAppendText(out,
					 "# Settings of es-relay, each with its default. A value is the rest of its line:\n"
					 "# there is nothing to quote, and no comment can follow it. The environment\n"
					 "# variable " ENV_PREFIX "<SECTION>_<KEY> overrides a setting.\n");
	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		if (strcmp(section, option->section) != 0)
			BufferAppendf(out, "\n[%s]\n", option->section);
		section = option->section;

		BufferAppendText(out, "\n");
		add_help(out, option, "# ");
		BufferAppendf(out, "%s%s =%s%s\n",
					  option->initial != NULL ? "#" : "", option->key,
					  option->initial != NULL && option->initial[0] != '\0' ? " " : "",
					  option->initial != NULL ? option->initial : "");
	}
}

/* The settings as --help lists them. */
void
ConfigHelp(Buffer *out)
{
	const ConfigOption *option;

	for (int i = 0; (option = option_at(i)) != NULL; i++)
	{
		char		name[ENV_NAME_MAX];

		variable_name(option->section, option->key, name);
		BufferAppendf(out, "  [%s] %s, or %s\n", option->section, option->key, name);
		add_help(out, option, "      ");
	}
}
