/*
 * config.h
 *		The relay's settings: one table, from which the file, the environment,
 *		--help and --sample-config all read.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "mem.h"
#include "relay.h"

typedef enum ConfigType
{
	CONFIG_STRING,				/* char *, of the configuration's own */
	CONFIG_INT,					/* int, from min to max */
	CONFIG_ENUM,				/* int, the index of the word in values */
	CONFIG_SINK					/* const SinkMethods *, by the sink's name */
} ConfigType;

/*
 * One setting: `key = value` below `[section]` in the file, and
 * ES_RELAY_<SECTION>_<KEY> in the environment, which wins.
 */
typedef struct ConfigOption
{
	const char *section;		/* NULL ends a table */
	const char *key;
	ConfigType	type;
	size_t		field;			/* offset in RelayConfig */
	const char *initial;		/* the default, as the file would say it; NULL when
								 * the user must give a value */
	const char *help;			/* sentences; lines end in \n, the last one does not */
	int			min;
	int			max;
	const char *const *values;	/* NULL at the end */
} ConfigOption;

/*
 * Defaults, then the file (none if path is NULL), then the environment.  Each
 * mistake adds a line to errors; false if there was one.  ConfigFree is due in
 * either case.
 */
extern bool ConfigLoad(RelayConfig *config, const char *path, Buffer *errors);
extern void ConfigFree(RelayConfig *config);

extern void ConfigSample(Buffer *out);
extern void ConfigHelp(Buffer *out);

#endif							/* CONFIG_H */
