-- inbox_resequence.sql: messages of a durable inbox that wait for earlier ones of their key.

-- Locked by who puts a numbered message of the key. "next": the number that is handled next.
CREATE TABLE @extschema@.es_inbox_keys (
    consumer_id    bigint NOT NULL,
    next           bigint NOT NULL,
    waiting_since  timestamptz,
    late           bigint NOT NULL,
    key            text COLLATE "C" NOT NULL,
    CONSTRAINT es_inbox_keys_pkey PRIMARY KEY (consumer_id, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @extschema@.es_inbox_keys IS
'es_pg: where each key of a durable inbox is whose messages are numbered.';
COMMENT ON COLUMN @extschema@.es_inbox_keys.waiting_since IS 'When the first message came that waits for number "next"; NULL: none does';
COMMENT ON COLUMN @extschema@.es_inbox_keys.late IS 'How many messages came after their key had gone on without them';
CREATE INDEX es_inbox_keys_waiting ON @extschema@.es_inbox_keys (consumer_id, waiting_since) WHERE waiting_since IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_inbox_keys', '');

-- The columns from message_id on are those of es_outbox, in their order.
CREATE TABLE @extschema@.es_inbox_held (
    consumer_id     bigint NOT NULL,
    "sequence"      bigint NOT NULL,
    held_at         timestamptz NOT NULL,
    message_id      uuid NOT NULL,
    topic           text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    payload         jsonb,
    payload_binary  bytea,
    content_type    text COLLATE "C",
    headers         jsonb,
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    CONSTRAINT es_inbox_held_pkey PRIMARY KEY (consumer_id, key, "sequence")
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE @extschema@.es_inbox_held IS
'es_pg: messages of durable inboxes that wait for earlier ones of their key; then they go to es_outbox.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_inbox_held', '');

-- 0: it is this message's turn; 1: it comes too early; -1: its turn is over; 2: it is its turn, and others wait for it.
CREATE FUNCTION @extschema@.es_inbox_turn(consumer_id bigint, key text, "sequence" bigint)
RETURNS integer LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    mine @extschema@.es_inbox_keys;
BEGIN
    INSERT INTO @extschema@.es_inbox_keys AS k (consumer_id, next, late, key)
        SELECT $1, COALESCE(i.first_sequence, $3), 0, $2 FROM @extschema@.es_inboxes AS i WHERE i.consumer_id = $1
    ON CONFLICT DO NOTHING;
    SELECT k.* INTO STRICT mine FROM @extschema@.es_inbox_keys AS k WHERE k.consumer_id = $1 AND k.key = $2 FOR NO KEY UPDATE;
    UPDATE @extschema@.es_inbox_keys AS k
       SET next = CASE WHEN $3 = mine.next THEN $3 + 1 ELSE k.next END,
           late = k.late + CASE WHEN $3 < mine.next THEN 1 ELSE 0 END,
           waiting_since = CASE WHEN $3 > mine.next THEN COALESCE(k.waiting_since, pg_catalog.clock_timestamp()) ELSE k.waiting_since END
     WHERE k.consumer_id = $1 AND k.key = $2;
    RETURN CASE WHEN $3 < mine.next THEN -1 WHEN $3 > mine.next THEN 1 WHEN mine.waiting_since IS NULL THEN 0 ELSE 2 END;
END $$;
COMMENT ON FUNCTION @extschema@.es_inbox_turn(bigint, text, bigint) IS
'es_pg: whether it is a numbered message''s turn (0; 2: and others wait for it), or it comes too early (1) or too late (-1). Locks the key.
Example: SELECT es_inbox_turn(1, ''42'', 7);';

-- The caller has locked the key.
CREATE FUNCTION @extschema@.es_inbox_take_held(consumer_id bigint, key text)
RETURNS SETOF @extschema@.es_inbox_held LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    turn bigint;
    held @extschema@.es_inbox_held;
BEGIN
    SELECT k.next INTO STRICT turn FROM @extschema@.es_inbox_keys AS k WHERE k.consumer_id = $1 AND k.key = $2;
    LOOP
        DELETE FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = $1 AND h.key = $2 AND h."sequence" = turn RETURNING h.* INTO held;
        EXIT WHEN NOT FOUND;
        RETURN NEXT held;
        turn := turn + 1;
    END LOOP;
    UPDATE @extschema@.es_inbox_keys AS k
       SET next = turn,
           waiting_since = (SELECT pg_catalog.min(h.held_at) FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = $1 AND h.key = $2)
     WHERE k.consumer_id = $1 AND k.key = $2;
END $$;
COMMENT ON FUNCTION @extschema@.es_inbox_take_held(bigint, text) IS
'es_pg: takes out the messages of a key whose turn it is.
Example: SELECT es_inbox_take_held(1, ''42'');';

-- Keys that have waited long enough: the missing are passed over, and where the policy says so, the next one is told.
CREATE FUNCTION @extschema@.es_inbox_take_overdue(consumer_id bigint)
RETURNS SETOF @extschema@.es_inbox_held LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
DECLARE
    inbox @extschema@.es_inboxes;
    late @extschema@.es_inbox_keys;
    first bigint;
BEGIN
    SELECT i.* INTO STRICT inbox FROM @extschema@.es_inboxes AS i WHERE i.consumer_id = $1;
    FOR late IN
        SELECT k.* FROM @extschema@.es_inbox_keys AS k
         WHERE k.consumer_id = $1 AND k.waiting_since < pg_catalog.clock_timestamp() - inbox.resequence_timeout
         ORDER BY k.waiting_since LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
    LOOP
        SELECT pg_catalog.min(h."sequence") INTO first FROM @extschema@.es_inbox_held AS h WHERE h.consumer_id = $1 AND h.key = late.key;
        UPDATE @extschema@.es_inbox_keys AS k SET next = first WHERE k.consumer_id = $1 AND k.key = late.key;
        IF inbox.on_missing = 'dead' THEN
            UPDATE @extschema@.es_inbox_held AS h
               SET headers = h.headers || pg_catalog.jsonb_build_object('$missing', pg_catalog.format('%s to %s', late.next, first - 1))
             WHERE h.consumer_id = $1 AND h.key = late.key AND h."sequence" = first;
        END IF;
        RETURN QUERY SELECT t.* FROM @extschema@.es_inbox_take_held($1, late.key) AS t;
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.es_inbox_take_overdue(bigint) IS
'es_pg: takes out messages of a durable inbox that have waited for others longer than its resequence_timeout.
Example: SELECT es_inbox_take_overdue(1);';

REVOKE ALL ON FUNCTION
    @extschema@.es_inbox_turn(bigint, text, bigint),
    @extschema@.es_inbox_take_held(bigint, text),
    @extschema@.es_inbox_take_overdue(bigint)
FROM PUBLIC;
