/*
 * config_tables.h
 *		The tables of settings, for those who read them all.
 */
#ifndef CONFIG_TABLES_H
#define CONFIG_TABLES_H

#include "config.h"

#define ENV_PREFIX		"ES_RELAY_"
#define ENV_NAME_MAX	256

/* The kinds of sections, in the order of the sample. */
typedef enum KindNumber
{
	KIND_DATABASE,
	KIND_PIPELINE,
	KIND_SINK,
	KIND_LOG,
	KINDS
} KindNumber;

typedef struct ConfigKind
{
	const char *name;
	const ConfigOption *options;
	bool		several;		/* with a name each */
} ConfigKind;

extern const ConfigKind ConfigKinds[KINDS];

/*
 * ES_RELAY_<SECTION>_[<NAME>_]<KEY>, into ENV_NAME_MAX bytes; for a key that
 * ends in "." the start of it.
 */
extern void ConfigVariable(KindNumber kind, const char *name, const char *key, char *variable);

#endif							/* CONFIG_TABLES_H */
