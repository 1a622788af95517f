/*
 * config_help.c
 *		The settings for people: --sample-config and --help, made from the tables.
 */
#include <string.h>

#include "config_tables.h"
#include "config_value.h"
#include "sink.h"

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
	ConfigValueHelp(out, option);
	if (option->type == CONFIG_PAIRS)
		BufferAppendText(out, "Any number of them.\n");
	else if (option->initial == NULL)
		BufferAppendText(out, "Required.\n");
	else if (option->initial[0] == '\0')
		BufferAppendText(out, "Default: not set.\n");
	else
		BufferAppendf(out, "Default: %s.\n", option->initial);
}

/* `key =` and its default, as a comment unless the user must fill it in. */
static void
add_sample(Buffer *out, const ConfigOption *option, bool ask)
{
	const char *initial = option->initial != NULL ? option->initial : "";

	BufferAppendText(out, "\n");
	add_help(out, option, "# ");
	BufferAppendf(out, "%s%s%s =%s%s\n", ask && option->initial == NULL ? "" : "#", option->key,
				  option->type == CONFIG_PAIRS ? "NAME" : "",
				  initial[0] != '\0' ? " " : "", initial);
}

/* A file that sets nothing but asks for what is required. */
void
ConfigSample(Buffer *out)
{
	const ConfigOption *option;

	BufferAppendText(out,
					 "# Settings of es-relay, each with its default. A value is the rest of its line:\n"
					 "# there is nothing to quote, and no comment can follow it. The environment\n"
					 "# variable " ENV_PREFIX "<SECTION>_<KEY> overrides a setting.\n"
					 "#\n"
					 "# For several pipelines give them names, [pipeline NAME], and likewise the sinks,\n"
					 "# [sink NAME]. Then it is " ENV_PREFIX "<SECTION>_<NAME>_<KEY>.\n");
	for (KindNumber kind = 0; kind < KINDS; kind++)
	{
		BufferAppendf(out, "\n[%s]\n", ConfigKinds[kind].name);
		for (option = ConfigKinds[kind].options; option->key != NULL; option++)
			add_sample(out, option, true);
		for (int i = 0; kind == KIND_SINK && SinkAt(i) != NULL; i++)
		{
			if (SinkAt(i)->options[0].key == NULL)
				continue;
			BufferAppendf(out, "\n# With type = %s:\n", SinkAt(i)->name);
			for (option = SinkAt(i)->options; option->key != NULL; option++)
				add_sample(out, option, false);
		}
	}
}

static void
add_to_help(Buffer *out, KindNumber kind, const ConfigOption *option, const char *type)
{
	char		variable[ENV_NAME_MAX];

	ConfigVariable(kind, "", option->key, variable);
	BufferAppendf(out, "  [%s] %s%s, or %s%s", ConfigKinds[kind].name, option->key,
				  option->type == CONFIG_PAIRS ? "NAME" : "", variable,
				  option->type == CONFIG_PAIRS ? "NAME" : "");
	if (type != NULL)
		BufferAppendf(out, ", with type = %s", type);
	BufferAppendText(out, "\n");
	add_help(out, option, "      ");
}

/* The settings as --help lists them. */
void
ConfigHelp(Buffer *out)
{
	const ConfigOption *option;

	for (KindNumber kind = 0; kind < KINDS; kind++)
	{
		for (option = ConfigKinds[kind].options; option->key != NULL; option++)
			add_to_help(out, kind, option, NULL);
		for (int i = 0; kind == KIND_SINK && SinkAt(i) != NULL; i++)
		{
			for (option = SinkAt(i)->options; option->key != NULL; option++)
				add_to_help(out, kind, option, SinkAt(i)->name);
		}
	}
}
