/*
 * outbox.h
 *		Messages to the outside world: what their table looks like.
 */
#ifndef ES_OUTBOX_H
#define ES_OUTBOX_H

#include "es_pg.h"

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

#endif							/* ES_OUTBOX_H */
