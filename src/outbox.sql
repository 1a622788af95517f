-- outbox.sql: the table that messages to the outside world will wait in.

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
'es_pg: messages, partitioned by position into chunks in schema es_chunks. Positions come from the same counter as the events''.';
