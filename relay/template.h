/*
 * template.h
 *		Names that are made of a message: `orders.{category}` and the like.
 */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "log.h"
#include "mem.h"
#include "relay.h"

/*
 * Text with fields in braces: {topic} {category} {type} {key} {stream} {id}
 * {lane} {position} {incarnation} {version} {schema_version} {source}
 * {content_type} {correlation_id} {causation_id}.  Of an event, topic and
 * category are the same, and so are key and stream; likewise of a message of
 * the outbox.  What is null is empty.  {{ and }} are braces themselves.
 */
typedef struct Template Template;

/* NULL, with the reason, if a field is not known or a brace has no partner. */
extern Template *TemplateParse(const char *text, LogError *error);

/* Adds the text for a message.  What the far side cannot have in a name is the caller's affair. */
extern void TemplateExpand(const Template *template, const RelayMessage *message, Buffer *out);

/* Whether every message gives the same text. */
extern bool TemplateIsFixed(const Template *template);

extern void TemplateFree(Template *template);

/* The fields, with commas between them, for the help of a setting. */
#define TEMPLATE_FIELDS \
	"{topic}, {category}, {type}, {key}, {stream}, {id}, {lane}, {position},\n" \
	"{incarnation}, {version}, {schema_version}, {source}, {content_type},\n" \
	"{correlation_id}, {causation_id}"

#endif							/* TEMPLATE_H */
