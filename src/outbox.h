/*
 * outbox.h
 *		Messages to the outside world: what publishing offers other stems.
 */
#ifndef ES_OUTBOX_H
#define ES_OUTBOX_H

#include "es_pg.h"

#include "datatype/timestamp.h"

#include "columns.h"
#include "horizon.h"

/* Columns of es_outbox and of its chunks. */
enum
{
	Anum_es_outbox_position = 1,
	Anum_es_outbox_created_at,
	Anum_es_outbox_message_id,
	Anum_es_outbox_topic,
	Anum_es_outbox_type,
	Anum_es_outbox_key,
	Anum_es_outbox_payload,
	Anum_es_outbox_payload_binary,
	Anum_es_outbox_content_type,
	Anum_es_outbox_headers,
	Anum_es_outbox_correlation_id,
	Anum_es_outbox_causation_id,
	Anum_es_outbox_traceparent
};

#define Natts_es_outbox		Anum_es_outbox_traceparent

/* Messages to be published; the columns from message_id on, by attribute number. */
typedef struct EsMessages
{
	uint32		n;
	EsColumn	columns[Natts_es_outbox + 1];
} EsMessages;

/* outbox.c */
extern void EsCheckTopic(const text *topic);
extern text *EsArgTopic(FunctionCallInfo fcinfo);
extern void EsMessagesCheckHeaders(const EsMessages *messages);
extern void EsPublishCheck(const char *function);
extern EsPosition EsPublish(const EsMessages *messages);
extern void EsMessageValues(const EsMessages *messages, uint32 i, Datum *values, bool *nulls);

/* outbox_delayed.c: messages that wait for their time */
extern void EsDelayedInit(void);
extern void EsMessagesTaken(EsMessages *messages, int before);
extern void EsDelay(const EsMessages *messages, TimestampTz deliver_after);
extern uint32 EsDelayedPublishDue(uint32 max);
extern TimestampTz EsDelayedNext(EsLog *log);

/* outbox_backlog.c: how far the slowest reader is, and what lies before it */
extern void EsBacklogInit(void);
extern bool EsCursorLowest(EsPosition *lowest);
extern void EsBacklogCheck(void);

#endif							/* ES_OUTBOX_H */
