/*
 * template.c
 *		Names that are made of a message: `orders.{category}` and the like.
 *
 * A template is a list of parts, each a text and the field behind it, so that
 * to expand it is to copy.
 */
#include <stdlib.h>
#include <string.h>

#include "template.h"

#define NO_FIELD	-1
#define LANE_FIELD	-2			/* the one that is no text of the message */

static const struct
{
	const char *name;
	int			offset;			/* of a RelayText in RelayMessage */
}			fields[] = {
	{"topic", offsetof(RelayMessage, topic)},
	{"category", offsetof(RelayMessage, topic)},
	{"type", offsetof(RelayMessage, type)},
	{"key", offsetof(RelayMessage, key)},
	{"stream", offsetof(RelayMessage, key)},
	{"id", offsetof(RelayMessage, message_id)},
	{"lane", LANE_FIELD},
	{"position", offsetof(RelayMessage, position_text)},
	{"incarnation", offsetof(RelayMessage, incarnation)},
	{"version", offsetof(RelayMessage, version)},
	{"schema_version", offsetof(RelayMessage, schema_version)},
	{"source", offsetof(RelayMessage, source)},
	{"content_type", offsetof(RelayMessage, content_type)},
	{"correlation_id", offsetof(RelayMessage, correlation_id)},
	{"causation_id", offsetof(RelayMessage, causation_id)},
	{NULL, NO_FIELD}
};

typedef struct Part
{
	Buffer		text;
	int			field;			/* behind the text: an offset, or one of the above */
} Part;

struct Template
{
	Part	   *parts;			/* the last has no field */
	int			nparts;
};

static Part *
add_part(Template *template)
{
	template->parts = MemRealloc(template->parts, (template->nparts + 1) * sizeof(Part));
	template->parts[template->nparts] = (Part) {.field = NO_FIELD};
	return &template->parts[template->nparts++];
}

/* The field in front of a closing brace; NO_FIELD if there is none of that name. */
static int
find_field(const char *name, size_t len)
{
	int			i = 0;

	while (fields[i].name != NULL &&
		   (strlen(fields[i].name) != len || strncmp(fields[i].name, name, len) != 0))
		i++;
	return fields[i].offset;
}

Template *
TemplateParse(const char *text, LogError *error)
{
	Template   *template = MemAlloc(sizeof(Template));
	Part	   *part = add_part(template);
	size_t		len;

	for (const char *c = text; *c != '\0'; c += len)
	{
		len = strcspn(c, "{}");
		BufferAppend(&part->text, c, len);
		if (len > 0)
			continue;
		if (c[1] == c[0])
		{
			BufferAppend(&part->text, c, 1);
			len = 2;
			continue;
		}
		len = strcspn(c, "}") + 1;
		if (*c == '}' || c[len - 1] == '\0')
		{
			LogErrorSet(error, "\"%s\" has a brace without its partner", text);
			TemplateFree(template);
			return NULL;
		}
		part->field = find_field(c + 1, len - 2);
		if (part->field == NO_FIELD)
		{
			LogErrorSet(error, "\"%s\" has an unknown field %.*s", text, (int) len, c);
			TemplateFree(template);
			return NULL;
		}
		part = add_part(template);
	}
	return template;
}

void
TemplateExpand(const Template *template, const RelayMessage *message, Buffer *out)
{
	for (int i = 0; i < template->nparts; i++)
	{
		const Part *part = &template->parts[i];

		BufferAppend(out, part->text.data, part->text.len);
		if (part->field == LANE_FIELD)
			BufferAppendf(out, "%d", message->lane);
		else if (part->field != NO_FIELD)
		{
			const RelayText *text = (const RelayText *) ((const char *) message + part->field);

			BufferAppend(out, text->data, text->len);
		}
	}
}

bool
TemplateIsFixed(const Template *template)
{
	return template->nparts == 1;
}

void
TemplateFree(Template *template)
{
	if (template == NULL)
		return;
	for (int i = 0; i < template->nparts; i++)
		BufferFree(&template->parts[i].text);
	free(template->parts);
	free(template);
}
