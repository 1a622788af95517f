/*
 * config.h
 *		The relay's settings: tables, from which the file, the environment,
 *		--help and --sample-config all read.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include "mem.h"
#include "relay.h"

typedef enum ConfigType
{
	CONFIG_STRING,				/* char *, never NULL once loaded */
	CONFIG_SECRET,				/* as CONFIG_STRING, and never shown to anybody */
	CONFIG_BOOL,				/* bool: on, off, true, false, yes, no */
	CONFIG_INT,					/* int, from min to max */
	CONFIG_SIZE,				/* int64_t, bytes from min to max; kB, MB, GB may follow
								 * the number */
	CONFIG_ENUM,				/* int, the index of the word in values */
	CONFIG_PAIRS,				/* ConfigPairs: every key that begins with the option's
								 * key, which ends in "."; values are never shown */
	CONFIG_SINK					/* const SinkMethods *, by the sink's name */
} ConfigType;

/* `kafka.linger.ms = 5` is, for an option "kafka.", the pair linger.ms and 5. */
typedef struct ConfigPair
{
	char	   *key;
	char	   *value;
} ConfigPair;

typedef struct ConfigPairs
{
	ConfigPair *pairs;			/* in the order of the file, each key once */
	int			npairs;
} ConfigPairs;

/*
 * One setting: `key = value` below its section in the file, and in the
 * environment, which wins, ES_RELAY_<SECTION>_<KEY> or, where the section has a
 * name, ES_RELAY_<SECTION>_<NAME>_<KEY>.
 */
typedef struct ConfigOption
{
	const char *key;			/* NULL ends a table */
	ConfigType	type;
	size_t		field;			/* offset in the section's own struct */
	const char *initial;		/* the default, as the file would say it; NULL when
								 * the user must give a value */
	const char *help;			/* sentences; lines end in \n, the last one does not */
	int64_t		min;
	int64_t		max;
	const char *const *values;	/* NULL at the end */
	bool		reload;			/* SIGHUP can change it */
} ConfigOption;

/*
 * Defaults, then the file (none if path is NULL), then the environment.  Each
 * mistake adds a line to errors; false if there was one.  ConfigFree is due in
 * either case.
 */
extern bool ConfigLoad(RelayConfig *config, const char *path, Buffer *errors);
extern void ConfigFree(RelayConfig *config);

/* Takes over what can change while running, and logs what has changed and what cannot. */
extern void ConfigReload(RelayConfig *running, const char *path);

extern void ConfigSample(Buffer *out);
extern void ConfigHelp(Buffer *out);

#endif							/* CONFIG_H */
