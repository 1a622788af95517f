/*
 * config_value.c
 *		What the values of the settings look like, by their type.
 *
 * Every string of a struct is allocated and its own, so that a table says all
 * there is to free.  Setting a value again replaces it.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "config_value.h"
#include "sink.h"

static const char *const bool_values[] = {"off", "on", "false", "true", "no", "yes", NULL};

static const struct
{
	const char *name;
	int64_t		bytes;
}			size_units[] = {
	{"kB", 1024}, {"MB", 1024 * 1024}, {"GB", 1024 * 1024 * 1024}, {NULL, 0}
};

static void *
field_of(const void *base, const ConfigOption *option)
{
	return (char *) base + option->field;
}

bool
ConfigValueMatches(const ConfigOption *option, const char *key)
{
	size_t		len = strlen(option->key);

	if (option->type == CONFIG_PAIRS)
		return strncmp(key, option->key, len) == 0 && key[len] != '\0';
	return strcmp(key, option->key) == 0;
}

/* ---------------------------------------------------------------- setting */

static bool
parse_number(const char *value, char **end, int64_t *number)
{
	errno = 0;
	*number = strtoll(value, end, 10);
	return errno == 0 && *end != value;
}

static bool
set_int(const ConfigOption *option, const char *value, int *field)
{
	char	   *end;
	int64_t		number;

	if (!parse_number(value, &end, &number) || *end != '\0' ||
		number < option->min || number > option->max)
		return false;
	*field = number;
	return true;
}

static bool
set_size(const ConfigOption *option, const char *value, int64_t *field)
{
	char	   *end;
	int64_t		number;
	int64_t		unit = 1;

	if (!parse_number(value, &end, &number))
		return false;
	end += strspn(end, " ");
	for (int i = 0; size_units[i].name != NULL; i++)
	{
		if (strcmp(end, size_units[i].name) == 0)
		{
			unit = size_units[i].bytes;
			end += strlen(end);
		}
	}
	if (*end != '\0' || number < 0 || number > option->max / unit || number * unit < option->min)
		return false;
	*field = number * unit;
	return true;
}

/* The index of a word, or -1. */
static int
find_word(const char *const *words, const char *value)
{
	for (int i = 0; words[i] != NULL; i++)
	{
		if (strcmp(words[i], value) == 0)
			return i;
	}
	return -1;
}

static bool
set_enum(const ConfigOption *option, const char *value, int *field)
{
	int			index = find_word(option->values, value);

	if (index >= 0)
		*field = index;
	return index >= 0;
}

static bool
set_bool(const char *value, bool *field)
{
	int			index = find_word(bool_values, value);

	if (index >= 0)
		*field = index % 2 == 1;
	return index >= 0;
}

static bool
set_sink(const char *value, const SinkMethods **field)
{
	const SinkMethods *methods = SinkFind(value);

	if (methods != NULL)
		*field = methods;
	return methods != NULL;
}

static void
set_string(char **field, const char *value)
{
	char	   *copy = MemStrdup(value);

	free(*field);
	*field = copy;
}

static void
set_pair(ConfigPairs *pairs, const char *key, const char *value)
{
	for (int i = 0; i < pairs->npairs; i++)
	{
		if (strcmp(pairs->pairs[i].key, key) == 0)
		{
			set_string(&pairs->pairs[i].value, value);
			return;
		}
	}
	pairs->pairs = MemRealloc(pairs->pairs, (pairs->npairs + 1) * sizeof(ConfigPair));
	pairs->pairs[pairs->npairs++] = (ConfigPair) {MemStrdup(key), MemStrdup(value)};
}

bool
ConfigValueSet(void *base, const ConfigOption *option, const char *key, const char *value)
{
	void	   *field = field_of(base, option);

	switch (option->type)
	{
		case CONFIG_STRING:
		case CONFIG_SECRET:
			set_string(field, value);
			return true;
		case CONFIG_BOOL:
			return set_bool(value, field);
		case CONFIG_INT:
			return set_int(option, value, field);
		case CONFIG_SIZE:
			return set_size(option, value, field);
		case CONFIG_ENUM:
			return set_enum(option, value, field);
		case CONFIG_PAIRS:
			set_pair(field, key + strlen(option->key), value);
			return true;
		case CONFIG_SINK:
			return set_sink(value, field);
	}
	return false;
}

/* ---------------------------------------------------------------- looking */

static bool
pairs_equal(const ConfigPairs *one, const ConfigPairs *other)
{
	bool		equal = one->npairs == other->npairs;

	for (int i = 0; equal && i < one->npairs; i++)
		equal = strcmp(one->pairs[i].key, other->pairs[i].key) == 0 &&
			strcmp(one->pairs[i].value, other->pairs[i].value) == 0;
	return equal;
}

bool
ConfigValueEqual(const void *one, const void *other, const ConfigOption *option)
{
	const void *a = field_of(one, option);
	const void *b = field_of(other, option);

	switch (option->type)
	{
		case CONFIG_STRING:
		case CONFIG_SECRET:
			return strcmp(*(char *const *) a, *(char *const *) b) == 0;
		case CONFIG_BOOL:
			return *(const bool *) a == *(const bool *) b;
		case CONFIG_INT:
		case CONFIG_ENUM:
			return *(const int *) a == *(const int *) b;
		case CONFIG_SIZE:
			return *(const int64_t *) a == *(const int64_t *) b;
		case CONFIG_PAIRS:
			return pairs_equal(a, b);
		case CONFIG_SINK:
			return *(const SinkMethods *const *) a == *(const SinkMethods *const *) b;
	}
	return false;
}

void
ConfigValueCopy(void *to, const void *from, const ConfigOption *option)
{
	if (option->type == CONFIG_SIZE)
		*(int64_t *) field_of(to, option) = *(const int64_t *) field_of(from, option);
	else if (option->type == CONFIG_BOOL)
		*(bool *) field_of(to, option) = *(const bool *) field_of(from, option);
	else
		*(int *) field_of(to, option) = *(const int *) field_of(from, option);
}

/* Whether an option that must be given was not. */
bool
ConfigValueIsEmpty(const void *base, const ConfigOption *option)
{
	char	   *text;

	if (option->type != CONFIG_STRING && option->type != CONFIG_SECRET)
		return false;
	text = *(char **) field_of(base, option);
	return text == NULL || text[0] == '\0';
}

static void
free_pairs(ConfigPairs *pairs)
{
	for (int i = 0; i < pairs->npairs; i++)
	{
		free(pairs->pairs[i].key);
		free(pairs->pairs[i].value);
	}
	free(pairs->pairs);
}

void
ConfigValuesFree(void *base, const ConfigOption *options)
{
	for (const ConfigOption *option = options; option->key != NULL; option++)
	{
		void	   *field = field_of(base, option);

		if (option->type == CONFIG_STRING || option->type == CONFIG_SECRET)
			free(*(char **) field);
		else if (option->type == CONFIG_PAIRS)
			free_pairs(field);
	}
}

/* ---------------------------------------------------------------- for people */

static void
add_words(Buffer *out, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
		BufferAppendf(out, "%s%s", i > 0 ? ", " : "", words[i]);
}

static void
add_sinks(Buffer *out)
{
	for (int i = 0; SinkAt(i) != NULL; i++)
		BufferAppendf(out, "%s%s", i > 0 ? ", " : "", SinkAt(i)->name);
}

/* A size in the largest unit that it is a multiple of. */
static void
add_size(Buffer *out, int64_t bytes)
{
	const char *unit = "";

	for (int i = 0; bytes > 0 && size_units[i].name != NULL && bytes % 1024 == 0; i++)
	{
		bytes /= 1024;
		unit = size_units[i].name;
	}
	BufferAppendf(out, "%lld%s", (long long) bytes, unit);
}

static void
add_range(Buffer *out, const ConfigOption *option)
{
	if (option->type == CONFIG_INT)
		BufferAppendf(out, "number from %lld to %lld",
					  (long long) option->min, (long long) option->max);
	else
	{
		BufferAppendText(out, "number of bytes, or of kB, MB, GB, from ");
		add_size(out, option->min);
		BufferAppendText(out, " to ");
		add_size(out, option->max);
	}
}

void
ConfigValueNeed(Buffer *out, const ConfigOption *option)
{
	if (option->type == CONFIG_INT || option->type == CONFIG_SIZE)
	{
		BufferAppendText(out, "a ");
		add_range(out, option);
		BufferAppendText(out, " is needed");
		return;
	}
	BufferAppendText(out, "one of these is needed: ");
	if (option->type == CONFIG_SINK)
		add_sinks(out);
	else
		add_words(out, option->type == CONFIG_BOOL ? bool_values : option->values);
}

void
ConfigValueHelp(Buffer *out, const ConfigOption *option)
{
	switch (option->type)
	{
		case CONFIG_INT:
		case CONFIG_SIZE:
			BufferAppendText(out, "A ");
			add_range(out, option);
			BufferAppendText(out, ". ");
			break;
		case CONFIG_BOOL:
			BufferAppendText(out, "on or off. ");
			break;
		case CONFIG_ENUM:
			BufferAppendText(out, "One of: ");
			add_words(out, option->values);
			BufferAppendText(out, ". ");
			break;
		case CONFIG_SINK:
			BufferAppendText(out, "One of: ");
			add_sinks(out);
			BufferAppendText(out, ". ");
			break;
		case CONFIG_STRING:
		case CONFIG_SECRET:
		case CONFIG_PAIRS:
			break;
	}
}
