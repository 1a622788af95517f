/*
 * capture.h
 *		What a trigger on es_capture() was defined with, made ready for firing.
 */
#ifndef ES_CAPTURE_H
#define ES_CAPTURE_H

#include "es_pg.h"

#include "access/tupdesc.h"
#include "commands/trigger.h"

typedef enum EsCaptureOperation
{
	ES_CREATED,
	ES_UPDATED,
	ES_DELETED,
	ES_TRUNCATED
} EsCaptureOperation;

#define ES_CAPTURE_OPERATIONS	4

typedef enum EsCaptureImage
{
	ES_BEFORE,
	ES_AFTER
} EsCaptureImage;

typedef struct EsCapture
{
	Oid			trigger;		/* the key of the cache */
	bool		valid;			/* false: look everything up again at the next firing */
	MemoryContext context;		/* of all that is here */
	int			nrelations;		/* the table and those it is a partition of */
	Oid		   *relations;

	text	   *topic;
	text	   *types[ES_CAPTURE_OPERATIONS];
	Datum		headers[ES_CAPTURE_OPERATIONS]; /* jsonb */
	bool		skip_unchanged;

	int			ncolumns;		/* those that are not excluded */
	AttrNumber *columns;
	int			nkeys;			/* 0: messages have no key */
	Datum	   *key_paths[2];	/* by image: where in the payload, text[] */

	TupleDesc	image;			/* the columns, as a row */
	TupleDesc	payload;		/* before, after, changed */
	bool		settings_matter;	/* to how a column becomes JSON */
	FmgrInfo	to_jsonb;		/* of a row */
} EsCapture;

/* capture_define.c */
extern const EsCapture *EsCaptureGet(const TriggerData *trigger);

extern AttrNumber EsTriggerColumn(Relation rel, const char *name, const char *function);

#endif							/* ES_CAPTURE_H */
