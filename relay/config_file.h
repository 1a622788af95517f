/*
 * config_file.h
 *		The text of a configuration file, as sections of keys and values.
 */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stdbool.h>

#include "mem.h"

typedef struct FileSetting
{
	char	   *key;
	char	   *value;
	int			line;
} FileSetting;

/* `[kind]` or `[kind name]`; one that comes again goes on. */
typedef struct FileSection
{
	char	   *kind;
	char	   *name;			/* "" if it has none */
	int			line;
	FileSetting *settings;
	int			nsettings;
} FileSection;

typedef struct ConfigFile
{
	const char *path;			/* the caller's */
	FileSection *sections;
	int			nsections;
} ConfigFile;

/* Reads a file; each mistake of form adds a line to errors.  ConfigFileFree is due. */
extern void ConfigFileRead(ConfigFile *file, const char *path, Buffer *errors);
extern void ConfigFileFree(ConfigFile *file);

#endif							/* CONFIG_FILE_H */
