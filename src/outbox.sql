-- outbox.sql: messages to the outside world: tables, publish, delayed messages.

CREATE TABLE @extschema@.es_outbox (
    position        bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    message_id      uuid NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    key             text COLLATE "C",
    payload         jsonb,
    payload_binary  bytea,
    content_type    text COLLATE "C",
    headers         jsonb,
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C"
) PARTITION BY RANGE (position);
COMMENT ON TABLE @extschema@.es_outbox IS
'es_pg: messages, partitioned by position into chunks in schema es_chunks. Positions come from the same counter as the events''. Written by es_publish alone; never changed, dropped by chunks. A message has a payload or a payload_binary.';

-- Messages that wait for their time. The columns from message_id on are those
-- of es_outbox, in their order.
CREATE TABLE @extschema@.es_delayed (
    delayed_id      bigint NOT NULL,
    deliver_after   timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    message_id      uuid NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    key             text COLLATE "C",
    payload         jsonb,
    payload_binary  bytea,
    content_type    text COLLATE "C",
    headers         jsonb,
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    CONSTRAINT es_delayed_pkey PRIMARY KEY (delayed_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @extschema@.es_delayed IS
'es_pg: messages that wait for deliver_after; then es_publish_due() moves them to es_outbox, with a new position. delayed_id tells the order of those of the same time.';
CREATE INDEX es_delayed_due_idx ON @extschema@.es_delayed (deliver_after, delayed_id);
CREATE INDEX es_delayed_message_id_idx ON @extschema@.es_delayed (message_id);
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_delayed', '');

CREATE FUNCTION @extschema@.es_publish(
    topic text, type text, payload jsonb, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    message_id uuid DEFAULT NULL, deliver_after timestamptz DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_publish(text, text, jsonb, text, jsonb, uuid, timestamptz, text, text) IS
'Publishes one message in the caller''s transaction and returns its position.
key: messages of one key are delivered in the order of their positions; NULL has no order. headers: a JSON object. message_id: not given, a UUIDv7 is made; it is handed on for consumers to remove duplicates by and is not checked for uniqueness here.
deliver_after: a time that has not come yet delays the message: it gets its position when it is due, and NULL is returned; a time that has passed publishes at once.
Topic, type and key: 1 to 1,024 bytes without control characters.
Errors: 22004 required argument is null, 22023 bad value, 53400 es_pg.max_outbox_backlog is reached, 25006 read-only transaction.
Example: SELECT es_publish(''orders'', ''OrderPlaced'', ''{"order_id": 42}'', key => ''42'');';

CREATE FUNCTION @extschema@.es_publish_batch(
    topic text, types text[], payloads jsonb[], keys text[] DEFAULT NULL, headers jsonb[] DEFAULT NULL,
    message_ids uuid[] DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_publish_batch(text, text[], jsonb[], text[], jsonb[], uuid[], text, text) IS
'Publishes 1 to 1,000,000 messages to one topic, all or none, at consecutive positions in the order of the arrays, and returns the last position. Arrays are of one length; types and payloads hold no nulls; a key, headers or id that is null is as if not given.
Errors: those of es_publish; 2202E arrays of different lengths, 54000 too many.
Example: SELECT es_publish_batch(''orders'', ''{OrderPlaced,OrderPaid}'', ARRAY[''{"order_id": 42}'', ''{"order_id": 42}'']::jsonb[], ''{42,42}'');';

CREATE FUNCTION @extschema@.es_publish_binary(
    topic text, type text, payload bytea, content_type text, key text DEFAULT NULL, headers jsonb DEFAULT NULL,
    message_id uuid DEFAULT NULL, deliver_after timestamptz DEFAULT NULL,
    correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_publish_binary(text, text, bytea, text, text, jsonb, uuid, timestamptz, text, text) IS
'Publishes one message whose payload is bytes, as Avro or Protobuf make them, and returns its position; otherwise as es_publish.
content_type: what the bytes are, 1 to 1,024 bytes.
Errors: those of es_publish.
Example: SELECT es_publish_binary(''orders'', ''OrderPlaced'', ''\x0a02'', ''application/protobuf'', key => ''42'');';

CREATE FUNCTION @extschema@.es_publish_due(max_count integer DEFAULT 1000) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_publish_due(integer) IS
'Publishes delayed messages that are due, at most max_count (1 to 1,000,000), in the order of their times, in the caller''s transaction; returns how many. 0 while another transaction does so. es_maintain() calls it, and readers have it called when a message is due.
Errors: 22023, 25006 read-only transaction.
Example: SELECT es_publish_due();';

CREATE FUNCTION @extschema@.es_cancel_delayed(topic text, message_id uuid) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_cancel_delayed(text, uuid) IS
'Removes the delayed messages of a topic with this id, in the caller''s transaction. True: they will not be published; false: there is none, or it was published already.
Errors: 22004, 22023, 25006 read-only transaction.
Example: SELECT es_cancel_delayed(''reminders'', ''0190163d-8694-739b-aea5-966c26f8ad91'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_publish(text, text, jsonb, text, jsonb, uuid, timestamptz, text, text),
    @extschema@.es_publish_batch(text, text[], jsonb[], text[], jsonb[], uuid[], text, text),
    @extschema@.es_publish_binary(text, text, bytea, text, text, jsonb, uuid, timestamptz, text, text),
    @extschema@.es_publish_due(integer),
    @extschema@.es_cancel_delayed(text, uuid)
FROM PUBLIC;
