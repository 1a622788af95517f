-- inbox_durable.sql: messages that are stored first and handled later: a reserved topic of the outbox, and a subscription to it.

CREATE TABLE @extschema@.es_inboxes (
    consumer_id         bigint NOT NULL,
    handler_timeout     interval NOT NULL,
    first_sequence      bigint,
    resequence_timeout  interval,
    on_missing          text COLLATE "C" NOT NULL,
    name                text COLLATE "C" NOT NULL,
    CONSTRAINT es_inboxes_pkey PRIMARY KEY (consumer_id),
    CONSTRAINT es_inboxes_consumer_id_fkey FOREIGN KEY (consumer_id) REFERENCES @extschema@.es_inbox_consumers
);
COMMENT ON TABLE @extschema@.es_inboxes IS
'es_pg: a row a durable inbox; all else of its policy stands in the row of es_subscriptions with its name.';
COMMENT ON COLUMN @extschema@.es_inboxes.name IS 'Of its topic in the outbox and of its subscription: $inbox/ and the consumer''s name';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_inboxes', '');

CREATE TYPE @extschema@.es_inbox_message AS (
    consumer        text COLLATE "C",
    message_id      text COLLATE "C",
    topic           text COLLATE "C",
    type            text COLLATE "C",
    key             text COLLATE "C",
    "sequence"      bigint,
    payload         jsonb,
    headers         jsonb,
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    received_at     timestamptz,
    payload_binary  bytea,
    content_type    text COLLATE "C",
    "position"      bigint,
    attempt         integer
);
COMMENT ON TYPE @extschema@.es_inbox_message IS
'What es_inbox_run gives a handler: a message as es_inbox_put stored it. attempt: how often it has failed before.';

CREATE FUNCTION @extschema@.es_create_inbox(
    consumer text, lanes integer DEFAULT 8, max_attempts integer DEFAULT 10, retry_base interval DEFAULT '1 s',
    retry_max interval DEFAULT '10 min', on_dead text DEFAULT 'block', handler_timeout interval DEFAULT '30 s',
    lease_time interval DEFAULT '10 s', first_sequence bigint DEFAULT 1, resequence_timeout interval DEFAULT NULL,
    on_missing text DEFAULT 'skip')
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
#variable_conflict use_column
DECLARE
    id bigint;
    inbox text := '$inbox/' || $1;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'consumer must not be null' USING ERRCODE = 'null_value_not_allowed';
    ELSIF pg_catalog.octet_length(inbox) > 1024 THEN
        RAISE EXCEPTION 'consumer name is too long for an inbox' USING ERRCODE = 'invalid_parameter_value',
              DETAIL = 'It has 1 to 1,017 bytes.';
    ELSIF COALESCE($11, 'skip') NOT IN ('skip', 'dead') THEN
        RAISE EXCEPTION 'invalid on_missing "%"', $11 USING ERRCODE = 'invalid_parameter_value',
              HINT = 'It is ''skip'' (the key goes on without the missing messages) or ''dead'' (the next one becomes a dead letter).';
    ELSIF $9 < 0 THEN
        RAISE EXCEPTION 'first_sequence must not be negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM @extschema@.es_check_positive(COALESCE($7, '30 s'), 'handler_timeout', '1 day');
    IF $10 IS NOT NULL THEN
        PERFORM @extschema@.es_check_positive($10, 'resequence_timeout', '30 days');
    END IF;
    SELECT c.consumer_id INTO id FROM @extschema@.es_inbox_consumers AS c WHERE c.name = $1;
    IF id IS NULL THEN
        PERFORM @extschema@.es_create_consumer($1);
        SELECT c.consumer_id INTO id FROM @extschema@.es_inbox_consumers AS c WHERE c.name = $1;
    END IF;
    PERFORM @extschema@.es_create_subscription(
        inbox, 'end', 'outbox', topics => ARRAY[inbox], lanes => $2, lease_time => COALESCE($8, '10 s'), max_attempts => $3,
        retry_base => $4, retry_max => $5, on_dead => $6);
    INSERT INTO @extschema@.es_inboxes VALUES (id, COALESCE($7, '30 s'), $9, $10, COALESCE($11, 'skip'), inbox);
END $$;
COMMENT ON FUNCTION @extschema@.es_create_inbox(text, integer, integer, interval, interval, text, interval, interval, bigint, interval, text) IS
'Creates a consumer''s durable inbox, into which es_inbox_put stores messages for es_inbox_run. It is a subscription with the name "$inbox/" and the consumer''s: es_subscription_status, es_dead_letters, es_redrive, es_discard, es_alter_subscription and the like know it by that.
lanes (1 to 1,024): at most so many sessions run it at once; a key always falls into the same lane. max_attempts, retry_base, retry_max, on_dead (''block'' or ''skip''): as in es_create_subscription. lease_time: what a session that does not call again holds up others. handler_timeout: a handler that takes longer on a message has failed.
Messages with a sequence number: the first of a key has first_sequence (NULL: whatever comes first); those that come too early wait for the missing ones, for resequence_timeout (NULL: for ever). Then, on_missing, the key goes on without them (''skip''; what comes later is dropped and counted) or the next message becomes a dead letter (''dead'').
Errors: 42710 exists, 22004, 22023.
Example: SELECT es_create_inbox(''shipping'', lanes => 4);';

CREATE FUNCTION @extschema@.es_drop_inbox(consumer text)
RETURNS void LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inbox @extschema@.es_inboxes;
BEGIN
    IF consumer IS NULL THEN
        RAISE EXCEPTION 'consumer must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    DELETE FROM @extschema@.es_inboxes AS i WHERE i.name = '$inbox/' || consumer RETURNING i.* INTO inbox;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'consumer "%" has no inbox', consumer USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM @extschema@.es_drop_subscription(inbox.name);
    DELETE FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = inbox.consumer_id;
    DELETE FROM @extschema@.es_inbox_keys AS k WHERE k.consumer_id = inbox.consumer_id;
END $$;
COMMENT ON FUNCTION @extschema@.es_drop_inbox(text) IS
'Drops a durable inbox with the messages that were not handled and its dead letters. The consumer stays, and with it which messages it has seen; es_drop_consumer comes after this.
Errors: 42704 no such inbox, 22004.
Example: SELECT es_drop_inbox(''shipping'');';

CREATE FUNCTION @extschema@.es_inbox_put(
    consumer text, message_id text, topic text, type text, key text, payload jsonb, headers jsonb DEFAULT NULL,
    "sequence" bigint DEFAULT NULL, message_time timestamptz DEFAULT NULL, correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL, payload_binary bytea DEFAULT NULL, content_type text DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_put(text, text, text, text, text, jsonb, jsonb, bigint, timestamptz, text, text, bytea, text) IS
'Stores a message in a consumer''s durable inbox, once, in the caller''s transaction: true the first time that the consumer gets this message id, false ever after (as es_inbox_accept, with its retention and its message_time).
key: messages of one key are handled in the order in which they were put; NULL has no order. headers: a JSON object without keys that begin with "$". Either payload or payload_binary, with content_type, is given.
sequence: its number within its key, rising by 1: a message that comes before earlier ones waits for them, see es_create_inbox; false for one that comes after its key went on without it. Needs a key.
Errors: 42704 the consumer has no inbox; SE004 another message has this sequence; those of es_inbox_accept and es_publish.
Example: SELECT es_inbox_put(''shipping'', ''evt-123'', ''orders'', ''OrderPlaced'', ''42'', ''{"order_id": 42}'');';

CREATE FUNCTION @extschema@.es_inbox_put_batch(
    consumer text, message_ids text[], topic text, types text[], keys text[], payloads jsonb[], headers jsonb[] DEFAULT NULL,
    sequences bigint[] DEFAULT NULL, message_times timestamptz[] DEFAULT NULL)
RETURNS integer[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_put_batch(text, text[], text, text[], text[], jsonb[], jsonb[], bigint[], timestamptz[]) IS
'es_inbox_put for 1 to 1,000,000 messages of one topic, all or none, in the order of the arrays: returns the places in message_ids, from 1 and ascending, of those that were stored. keys may be NULL, and so may each of them.
Errors: those of es_inbox_put; 2202E arrays of different lengths, 54000 too many.
Example: SELECT es_inbox_put_batch(''shipping'', ''{evt-123,evt-124}'', ''orders'', ''{OrderPlaced,OrderPaid}'', ''{42,42}'', ARRAY[''{}'', ''{}'']::jsonb[]);';

CREATE FUNCTION @extschema@.es_inbox_run(
    consumer text, handler regprocedure, max_count integer DEFAULT 50, wait interval DEFAULT NULL,
    OUT handled integer, OUT failed integer)
RETURNS record LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_run(text, regprocedure, integer, interval) IS
'Has a function handle messages of a consumer''s durable inbox, at most max_count, each in a subtransaction of its own, with the caller''s rights: SELECT handler(message). Its effects and the note that the message was handled commit together, with the caller''s transaction. Returns how many were handled and how many failed; 0 and 0: there is nothing to do now.
handler: a function of one argument of type es_inbox_message that returns void. One that raises an error, runs into a deadlock or the handler_timeout, or leaves a deferred constraint violated, has failed: its effects are undone, the error is kept with its SQLSTATE, the message comes again later (retry_base * 2^attempt with full jitter, at most retry_max) and is a dead letter after max_attempts; later messages of its key wait. A query cancel and statement_timeout end the whole call, as if nothing had been done.
wait (at most 30 s; in a transaction that has not written): how long to wait for a message.
Each session that runs an inbox has lanes of its own; call it again and again, each time in a transaction of its own. Deferred constraints are checked at the beginning and after each message, and have their initial mode afterwards. While a handler runs, es_pg.correlation_id, es_pg.causation_id (the message''s id) and es_pg.traceparent are the message''s, for what it appends and publishes.
Errors: 42704 no such inbox, 42883, 42P13 a handler of another signature, 42501, 55006, SE006, SE007, 22004, 22023, 25006.
Example: SELECT * FROM es_inbox_run(''shipping'', ''ship(es_inbox_message)'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_create_inbox(text, integer, integer, interval, interval, text, interval, interval, bigint, interval, text),
    @extschema@.es_drop_inbox(text),
    @extschema@.es_inbox_put(text, text, text, text, text, jsonb, jsonb, bigint, timestamptz, text, text, bytea, text),
    @extschema@.es_inbox_put_batch(text, text[], text, text[], text[], jsonb[], jsonb[], bigint[], timestamptz[]),
    @extschema@.es_inbox_run(text, regprocedure, integer, interval)
FROM PUBLIC;
