-- inbox.sql: effects exactly once: consumers, marks, and the commands whose responses are kept.

CREATE TABLE @extschema@.es_inbox_consumers (
    consumer_id  bigint NOT NULL,
    name         text COLLATE "C" NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT es_inbox_consumers_pkey PRIMARY KEY (consumer_id),
    CONSTRAINT es_inbox_consumers_name_key UNIQUE (name)
);
COMMENT ON TABLE @extschema@.es_inbox_consumers IS
'es_pg: the names under which the inbox tells messages apart. consumer_id is never used again.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_inbox_consumers', '');

-- Every chunk has PRIMARY KEY (digest) of its own; why that is enough: inbox_mark.c.
CREATE TABLE @extschema@.es_inbox (
    accepted_at  timestamptz NOT NULL,
    consumer_id  bigint NOT NULL,
    digest       uuid NOT NULL,
    request      text COLLATE "C",
    response     jsonb
) PARTITION BY RANGE (accepted_at);
COMMENT ON TABLE @extschema@.es_inbox IS
'es_pg: a mark for each message that was accepted, partitioned by time into chunks in schema es_chunks. Written by es_inbox_accept and es_command_begin and their like; never changed, dropped by chunks.';
COMMENT ON COLUMN @extschema@.es_inbox.digest IS 'The first 128 bits of the SHA-256 of consumer, kind and message id';
COMMENT ON COLUMN @extschema@.es_inbox.request IS 'Of a command that has ended: the hash of its request';

-- A row a chunk that was dropped, but for es_maintain(), which leaves the last.
CREATE TABLE @extschema@.es_inbox_forgotten (
    upto  timestamptz NOT NULL,
    CONSTRAINT es_inbox_forgotten_pkey PRIMARY KEY (upto)
);
COMMENT ON TABLE @extschema@.es_inbox_forgotten IS
'es_pg: the times up to which marks of the inbox were dropped; the last counts.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_inbox_forgotten', '');

CREATE FUNCTION @extschema@.es_create_consumer(consumer text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_create_consumer(text) IS
'Creates a consumer of the inbox. Needed only where es_pg.inbox_create_consumers is off; else its first message does.
Errors: 42710 it exists, 22004, 22023 a name has 1 to 1,024 bytes without control characters.
Example: SELECT es_create_consumer(''shipping'');';

CREATE FUNCTION @extschema@.es_drop_consumer(consumer text)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_drop_consumer(text) IS
'Drops a consumer of the inbox: all its messages are new again, also if it is created anew. Its marks go with their chunks.
Errors: 42704 no such consumer, 22004, 22023.
Example: SELECT es_drop_consumer(''shipping'');';

CREATE FUNCTION @extschema@.es_inbox_accept(consumer text, message_id text, message_time timestamptz DEFAULT NULL)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_accept(text, text, timestamptz) IS
'Is this message new to this consumer? True exactly once, in the transaction of the message''s effects: a rollback, also to a savepoint, makes it new again, and another transaction with the same message waits for this one''s end. Known for es_pg.inbox_retention at least.
consumer, message_id: 1 to 1,024 bytes without control characters, compared byte by byte. message_time: when the sender made the message; a new one from before the time that the inbox knows of is refused (SE009) or taken as new, as es_pg.inbox_too_old says. Without it age is not looked at.
Errors: SE009 too old, 42704 unknown consumer and es_pg.inbox_create_consumers is off, 42501, 22004, 22023, 25006 read-only transaction.
Example: SELECT es_inbox_accept(''shipping'', ''evt-123'');';

CREATE FUNCTION @extschema@.es_inbox_accept_batch(consumer text, message_ids text[], message_times timestamptz[] DEFAULT NULL)
RETURNS integer[] LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_accept_batch(text, text[], timestamptz[]) IS
'es_inbox_accept for 1 to 1,000,000 messages: returns the places in message_ids, from 1 and ascending, of those that are new. Of equal ids the first counts. Ids are taken in an order of their own, so batches with the same ids never deadlock with each other.
Errors: those of es_inbox_accept; 2202E arrays of different lengths, 54000 too many.
Example: SELECT es_inbox_accept_batch(''shipping'', ''{evt-123,evt-124,evt-123}'');';

CREATE FUNCTION @extschema@.es_inbox_guard() RETURNS trigger
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_inbox_guard() IS
'A trigger BEFORE INSERT FOR EACH ROW that keeps messages that were seen before out of a table. Arguments: the consumer; the column with the message id, of type text, uuid, integer, bigint or numeric; then skip (the default: the row is left out) or reject (error 23505). The marks are those of es_inbox_accept. A row that something later leaves out, as ON CONFLICT DO NOTHING does, counts as seen. On a partitioned table it must be BEFORE INSERT OR DELETE: an UPDATE that moves a row to another partition deletes and inserts it, and only so is that told from a duplicate.
Errors: 23505, 23502 the id is null, 22023, 42703 no such column, 42804 its type, 39P01 another kind of trigger, or on a partition without DELETE, those of es_inbox_accept.
Example: SELECT tgname FROM pg_trigger WHERE tgfoid = ''es_inbox_guard''::regproc; CREATE TRIGGER once BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION es_inbox_guard(''payments'', ''message_id'');';

CREATE FUNCTION @extschema@.es_command_begin(
    idempotency_key text, request_hash text DEFAULT NULL, consumer text DEFAULT 'commands')
RETURNS jsonb LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_command_begin(text, text, text) IS
'Begins a command that is to be carried out once. NULL: carry it out, then call es_command_end in the same transaction, which cannot commit without. Else the response that es_command_end stored, and nothing is left to do. While another transaction has begun the command this waits for its end. Known for es_pg.inbox_retention at least.
idempotency_key: 1 to 1,024 bytes; request_hash: what tells one request from another, of 1 to 1,024 bytes; consumer: whose keys these are: keys of two consumers, as of two clients, are two keys, and neither gets the other''s responses.
Errors: SE004 the key was used with another request_hash, 25000 begun in this transaction and not ended, or at commit not ended; 42704, 42501, 22004, 22023, 25006 read-only transaction.
Example: SELECT es_command_begin(''pay-4711'', md5(''{"amount": 12}''));';

CREATE FUNCTION @extschema@.es_command_end(idempotency_key text, response jsonb, consumer text DEFAULT 'commands')
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_command_end(text, jsonb, text) IS
'Ends a command that es_command_begin began in this transaction, and stores its response for whoever asks again. response: not NULL; ''null'' where there is nothing to say.
Errors: 25000 not begun in this transaction, or ended already; 42501, 22004, 22023, 25006.
Example: SELECT es_command_end(''pay-4711'', ''{"paid": true}'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_create_consumer(text),
    @extschema@.es_drop_consumer(text),
    @extschema@.es_inbox_accept(text, text, timestamptz),
    @extschema@.es_inbox_accept_batch(text, text[], timestamptz[]),
    @extschema@.es_inbox_guard(),
    @extschema@.es_command_begin(text, text, text),
    @extschema@.es_command_end(text, jsonb, text)
FROM PUBLIC;
