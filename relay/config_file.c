/*
 * config_file.c
 *		The text of a configuration file, as sections of keys and values.
 *
 * The file is INI-like, and what it says is what is meant: a value is the rest
 * of its line, with nothing to quote or to escape and no comment behind it, so
 * that a connection string with # or quotes in it can be pasted.  What the
 * sections and keys mean is config.c's affair.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_file.h"

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

/* Where the reader is. */
typedef struct Reader
{
	ConfigFile *file;
	FileSection *section;		/* NULL before the first, and below a broken one */
	int			line;
	bool		broken;
	Buffer	   *errors;
} Reader;

static void
add_place(Reader *reader)
{
	BufferAppendf(reader->errors, "%s:%d: ", reader->file->path, reader->line);
}

static FileSection *
find_section(ConfigFile *file, const char *kind, const char *name)
{
	for (int i = 0; i < file->nsections; i++)
	{
		if (strcmp(file->sections[i].kind, kind) == 0 &&
			strcmp(file->sections[i].name, name) == 0)
			return &file->sections[i];
	}
	return NULL;
}

/* `[kind name]` */
static void
read_section(Reader *reader, char *text)
{
	ConfigFile *file = reader->file;
	size_t		len = strlen(text);
	char	   *kind;
	char	   *name;

	reader->section = NULL;
	reader->broken = text[len - 1] != ']';
	if (reader->broken)
	{
		add_place(reader);
		BufferAppendText(reader->errors, "a section is missing its \"]\"\n");
		return;
	}
	text[len - 1] = '\0';
	kind = trim(text + 1);
	name = kind + strcspn(kind, " \t");
	if (*name != '\0')
		*name++ = '\0';
	name = trim(name);

	reader->section = find_section(file, kind, name);
	if (reader->section != NULL)
		return;
	file->sections = MemRealloc(file->sections, (file->nsections + 1) * sizeof(FileSection));
	reader->section = &file->sections[file->nsections++];
	*reader->section = (FileSection)
	{
		.kind = MemStrdup(kind),.name = MemStrdup(name),.line = reader->line
	};
}

/* `key = value` */
static void
read_setting(Reader *reader, char *text)
{
	FileSection *section = reader->section;
	char	   *equals = strchr(text, '=');

	if (reader->broken)
		return;
	if (equals == NULL)
	{
		add_place(reader);
		BufferAppendText(reader->errors, "this is neither \"key = value\" nor \"[section]\"\n");	/* nor shown: part of a secret? */
		return;
	}
	*equals = '\0';
	text = trim(text);
	if (section == NULL)
	{
		add_place(reader);
		BufferAppendf(reader->errors, "\"%s\" stands before the first section\n", text);
		return;
	}
	section->settings = MemRealloc(section->settings,
								   (section->nsettings + 1) * sizeof(FileSetting));
	section->settings[section->nsettings++] = (FileSetting)
	{
		MemStrdup(text), MemStrdup(trim(equals + 1)), reader->line
	};
}

static void
read_lines(Reader *reader, FILE *from)
{
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		len;

	while ((len = getline(&line, &size, from)) >= 0)
	{
		char	   *text;

		reader->line++;
		if (strlen(line) != (size_t) len)
		{
			add_place(reader);
			BufferAppendText(reader->errors, "a zero byte: this is not a text file\n");
			break;
		}
		text = trim(line);
		if (text[0] == '\0' || text[0] == '#' || text[0] == ';')
			continue;
		if (text[0] == '[')
			read_section(reader, text);
		else
			read_setting(reader, text);
	}
	free(line);
}

void
ConfigFileRead(ConfigFile *file, const char *path, Buffer *errors)
{
	Reader		reader = {.file = file,.errors = errors};
	FILE	   *from = fopen(path, "r");

	memset(file, 0, sizeof(*file));
	file->path = path;
	if (from == NULL)
	{
		BufferAppendf(errors, "could not open \"%s\": %s\n", path, strerror(errno));
		return;
	}
	read_lines(&reader, from);
	if (ferror(from))
		BufferAppendf(errors, "could not read \"%s\": %s\n", path, strerror(errno));
	fclose(from);
}

void
ConfigFileFree(ConfigFile *file)
{
	for (int i = 0; i < file->nsections; i++)
	{
		FileSection *section = &file->sections[i];

		for (int j = 0; j < section->nsettings; j++)
		{
			free(section->settings[j].key);
			free(section->settings[j].value);
		}
		free(section->settings);
		free(section->kind);
		free(section->name);
	}
	free(file->sections);
	memset(file, 0, sizeof(*file));
}
