/*
 * inbox.h
 *		The inbox: what its parts share, and what others may ask of it.
 *
 *		inbox.c				es_inbox_accept and its batch, settings
 *		inbox_consumer.c	consumers by name
 *		inbox_mark.c		marks: how something is done exactly once
 *		inbox_guard.c		es_inbox_guard, the trigger
 *		inbox_command.c		es_command_begin, es_command_end
 *		inbox_sequence.c	es_inbox_accept_sequence
 */
#ifndef ES_INBOX_H
#define ES_INBOX_H

#include "es_pg.h"

#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "chunk.h"
#include "columns.h"

/* Columns of es_inbox and of its chunks. */
enum
{
	Anum_es_inbox_accepted_at = 1,
	Anum_es_inbox_consumer_id,
	Anum_es_inbox_digest,
	Anum_es_inbox_request,
	Anum_es_inbox_response
};

#define Natts_es_inbox		Anum_es_inbox_response

/* What a mark is of; never change these: they are part of what is stored. */
typedef enum EsInboxMarkKind
{
	ES_MARK_MESSAGE = 1,
	ES_MARK_COMMAND = 2,		/* that it was begun */
	ES_MARK_RESPONSE = 3		/* that it was ended, and its response */
} EsInboxMarkKind;

/* A mark: all that is stored of a message is a digest. */
typedef struct EsInboxMark
{
	int64		consumer;
	pg_uuid_t	digest;
	const text *request;		/* of a response, or NULL */
	const Jsonb *response;		/* or NULL */
} EsInboxMark;

/* Where marks are written; stays open between those of one call. */
typedef struct EsInboxWriter
{
	bool		many;			/* other chunks are kept open between marks, too */
	bool		is_open;
	EsChunk		chunk;			/* that is written to */
	EsPosition	latest;			/* lower bound of the latest one that anybody writes to */
	TimestampTz now;
	EsTarget	target;
	Relation	index;
	TupleTableSlot *slot;
	List	   *arbiters;
	List	   *others;			/* chunks that are kept open */
} EsInboxWriter;

/* inbox.c */
extern bool EsInboxAccept(int64 consumer, const text *message_id, TimestampTz made_at);
extern void EsInboxAcceptMany(int64 consumer, const EsColumn *ids, uint32 n, const EsColumn *times, bool *accepted);
extern ArrayType *EsInboxIndexes(const bool *accepted, uint32 n);
extern void EsInboxCheckAge(TimestampTz made_at);

/* inbox_sequence.c */
extern void EsCheckSequence(int64 sequence);

/* inbox_status.c */
extern void EsInboxCount(int64 consumer, uint32 accepted, uint32 duplicates);

/* inbox_consumer.c */
extern text *EsArgInbox(FunctionCallInfo fcinfo, int arg, const char *otherwise, const char *command);
extern bool EsInboxConsumerFind(const text *name, int64 *id);
extern int64 EsInboxConsumer(const text *name);
extern void EsInboxConsumerInit(void);

/* inbox_mark.c */
extern void EsInboxMarkSet(EsInboxMark *mark, int64 consumer, EsInboxMarkKind kind, const text *id);
extern void EsInboxWriterBegin(EsInboxWriter *writer, bool many);
extern bool EsInboxMarkWrite(EsInboxWriter *writer, const EsInboxMark *mark);
extern void EsInboxWriterEnd(EsInboxWriter *writer);
extern bool EsInboxMarkRead(const EsInboxMark *mark, text **request, Jsonb **response);

/* inbox.c: what the inbox does not know any more */
extern void EsInboxForget(TimestampTz upto);
extern TimestampTz EsInboxForgotten(void);

/* inbox_command.c */
extern void EsCommandInit(void);

#endif							/* ES_INBOX_H */
