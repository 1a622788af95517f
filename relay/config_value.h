/*
 * config_value.h
 *		What the values of the settings look like, by their type.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "config.h"

/* Whether a key is an option's: its own, or for pairs one that begins like it. */
extern bool ConfigValueMatches(const ConfigOption *option, const char *key);

/* Puts a value into the struct at base.  false if the option has no such value. */
extern bool ConfigValueSet(void *base, const ConfigOption *option, const char *key,
						   const char *value);

/* Whether two structs of the same table have the same value. */
extern bool ConfigValueEqual(const void *one, const void *other, const ConfigOption *option);
extern bool ConfigValueIsEmpty(const void *base, const ConfigOption *option);

/* Copies the value of an option that can be reloaded. */
extern void ConfigValueCopy(void *to, const void *from, const ConfigOption *option);

/* Frees what the options of a table have allocated. */
extern void ConfigValuesFree(void *base, const ConfigOption *options);

/* For people: what is needed, as in an error; what may be given, as in the help. */
extern void ConfigValueNeed(Buffer *out, const ConfigOption *option);
extern void ConfigValueHelp(Buffer *out, const ConfigOption *option);

#endif							/* CONFIG_VALUE_H */
