-- stream.sql: events and streams: tables, append, read.

CREATE TABLE @extschema@.es_streams (
    stream_id        bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    first_chunk      bigint NOT NULL,
    category_id      integer NOT NULL,
    deleted          boolean NOT NULL DEFAULT false,
    name             text COLLATE "C" NOT NULL,
    truncate_before  bigint,
    max_count        bigint,
    max_age          interval,
    CONSTRAINT es_streams_pkey PRIMARY KEY (stream_id),
    CONSTRAINT es_streams_name_key UNIQUE (name)
);
COMMENT ON TABLE @extschema@.es_streams IS
'es_pg: a row a stream. An append locks the row and does not update it; the head is found in the events.';
COMMENT ON COLUMN @extschema@.es_streams.stream_id IS 'A position drawn for it, so unique for good';
COMMENT ON COLUMN @extschema@.es_streams.category_id IS 'es_category_id() of the name''s part before the first "-"';
COMMENT ON COLUMN @extschema@.es_streams.first_chunk IS 'Lower bound of the first chunk that may hold its events';
COMMENT ON COLUMN @extschema@.es_streams.deleted IS 'Tombstone: appends and stream reads fail with SE002';
COMMENT ON COLUMN @extschema@.es_streams.truncate_before IS 'Stream reads leave out versions below this';
COMMENT ON COLUMN @extschema@.es_streams.max_count IS 'Stream reads leave out all but the newest so many events';
COMMENT ON COLUMN @extschema@.es_streams.max_age IS 'Stream reads leave out events recorded longer ago';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_streams', '');

CREATE TABLE @extschema@.es_stream_chunks (
    stream_id      bigint NOT NULL,
    chunk          bigint NOT NULL,
    first_version  bigint NOT NULL,
    CONSTRAINT es_stream_chunks_pkey PRIMARY KEY (stream_id, chunk)
);
COMMENT ON TABLE @extschema@.es_stream_chunks IS
'es_pg: a row when a stream enters a chunk after its first: the chunk''s lower bound and the first version there.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_stream_chunks', '');

-- Fixed-width columns first: no padding, and their offsets are constants.
CREATE TABLE @extschema@.es_events (
    position        bigint NOT NULL,
    stream_id       bigint NOT NULL,
    version         bigint NOT NULL,
    recorded_at     timestamptz NOT NULL,
    category_id     integer NOT NULL,
    event_id        uuid NOT NULL,
    type            text COLLATE "C" NOT NULL,
    data            jsonb NOT NULL,
    metadata        jsonb,
    schema_version  text COLLATE "C",
    source          text COLLATE "C",
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    occurred_at     timestamptz
) PARTITION BY RANGE (position);
COMMENT ON TABLE @extschema@.es_events IS
'es_pg: every event, partitioned by position into chunks in schema es_chunks. Written by es_append alone, never changed. Keys and indexes are on the chunks.';

CREATE TYPE @extschema@.es_event AS (
    position        bigint,
    stream          text COLLATE "C",
    version         bigint,
    event_id        uuid,
    type            text COLLATE "C",
    schema_version  text COLLATE "C",
    source          text COLLATE "C",
    data            jsonb,
    metadata        jsonb,
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    occurred_at     timestamptz,
    recorded_at     timestamptz
);
COMMENT ON TYPE @extschema@.es_event IS
'An event as the reads return it. occurred_at is recorded_at where the writer gave none.';

CREATE TYPE @extschema@.es_appended AS (
    version   bigint,
    position  bigint,
    event_id  uuid
);
COMMENT ON TYPE @extschema@.es_appended IS 'The last event of an append: its version in the stream, its position in the log, its id.';

-- Expected versions, as KurrentDB's users know them.
CREATE FUNCTION @extschema@.es_any() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN -2::bigint;
COMMENT ON FUNCTION @extschema@.es_any() IS
'Expected version: append whatever the stream''s version is. Never conflicts.
Example: SELECT * FROM es_append(''order-42'', ''OrderNoted'', ''{}'', es_any());';

CREATE FUNCTION @extschema@.es_no_stream() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN -1::bigint;
COMMENT ON FUNCTION @extschema@.es_no_stream() IS
'Expected version: the stream has no events yet.
Example: SELECT * FROM es_append(''order-42'', ''OrderPlaced'', ''{}'', es_no_stream());';

CREATE FUNCTION @extschema@.es_stream_exists() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN -4::bigint;
COMMENT ON FUNCTION @extschema@.es_stream_exists() IS
'Expected version: the stream has at least one event.
Example: SELECT * FROM es_append(''order-42'', ''OrderPaid'', ''{}'', es_stream_exists());';

CREATE FUNCTION @extschema@.es_append(
    stream text, type text, data jsonb, expected_version bigint DEFAULT -2,
    metadata jsonb DEFAULT NULL, event_id uuid DEFAULT NULL, schema_version text DEFAULT NULL,
    occurred_at timestamptz DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL)
RETURNS @extschema@.es_appended LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_append(text, text, jsonb, bigint, jsonb, uuid, text, timestamptz, text, text) IS
'Appends one event to a stream in the caller''s transaction and returns its version, position and id.
expected_version: the stream''s version before the append, from 0, or es_any() (the default), es_no_stream(), es_stream_exists().
event_id: given, a retry at the same place returns the first answer and writes nothing (with es_any() and es_stream_exists() it is looked for in the stream''s newest two chunks); not given, a UUIDv7 is made.
Names, types and ids: 1 to 1,024 bytes without control characters.
Errors: SE001 version conflict, SE002 stream deleted, SE004 same event id with other content, 22004 required argument is null, 22023 bad value, 25006 read-only transaction.
Example: SELECT * FROM es_append(''order-42'', ''OrderPlaced'', ''{"total": 99.99}'', es_no_stream());';

CREATE FUNCTION @extschema@.es_append_batch(
    stream text, types text[], data jsonb[], expected_version bigint DEFAULT -2,
    metadata jsonb[] DEFAULT NULL, event_ids uuid[] DEFAULT NULL, schema_versions text[] DEFAULT NULL,
    occurred_at timestamptz[] DEFAULT NULL, correlation_id text DEFAULT NULL, causation_id text DEFAULT NULL)
RETURNS @extschema@.es_appended LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_append_batch(text, text[], jsonb[], bigint, jsonb[], uuid[], text[], timestamptz[], text, text) IS
'Appends 1 to 1,000,000 events to a stream, all or none, and returns the last one''s version, position and id. Arrays are of one length; types, data and event_ids hold no nulls.
Errors: those of es_append; 2202E arrays of different lengths.
Example: SELECT * FROM es_append_batch(''order-42'', ''{ItemAdded,ItemAdded}'', ARRAY[''{"sku": 1}'', ''{"sku": 2}'']::jsonb[], 0);';

CREATE FUNCTION @extschema@.es_append_json(
    stream text, events jsonb, expected_version bigint DEFAULT -2)
RETURNS @extschema@.es_appended LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_append_json(text, jsonb, bigint) IS
'Appends the events of a JSON array to a stream, all or none. Each element is an object with type and data, and optionally metadata, id, schema_version, source, occurred_at, correlation_id, causation_id, traceparent; another key is an error.
Errors: those of es_append.
Example: SELECT * FROM es_append_json(''order-42'', ''[{"type": "OrderPaid", "data": {"by": "card"}}]'', es_stream_exists());';

CREATE FUNCTION @extschema@.es_read_stream(
    stream text, from_version bigint DEFAULT 0, max_count bigint DEFAULT 1000, backward boolean DEFAULT false)
RETURNS SETOF @extschema@.es_event LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_read_stream(text, bigint, bigint, boolean) IS
'Reads a stream''s events in version order from from_version on, or with backward from there to older ones; from_version -1 is the newest event. At most max_count rows. A stream that does not exist has no rows. Leaves out what truncate_before, max_count and max_age of es_streams leave out.
Errors: SE002 stream deleted, 22004, 22023.
Example: SELECT version, type, data FROM es_read_stream(''order-42'');';

CREATE FUNCTION @extschema@.es_read_category(
    category text, after_position bigint DEFAULT 0, max_count bigint DEFAULT 1000, types text[] DEFAULT NULL)
RETURNS SETOF @extschema@.es_event LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_read_category(text, bigint, bigint, text[]) IS
'Reads the events of all streams of a category in position order, after after_position and up to the horizon: remember the last position and nothing is ever skipped. Takes a snapshot of its own, newer than the statement''s: do not join it.
Errors: SE006 under REPEATABLE READ or SERIALIZABLE, 22004, 22023.
Example: SELECT position, stream, type FROM es_read_category(''order'', 0);';

CREATE FUNCTION @extschema@.es_read_all(
    after_position bigint DEFAULT 0, max_count bigint DEFAULT 1000, categories text[] DEFAULT NULL, types text[] DEFAULT NULL)
RETURNS SETOF @extschema@.es_event LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_read_all(bigint, bigint, text[], text[]) IS
'Reads the events of the whole log in position order, after after_position and up to the horizon, of the given categories and types if any. Takes a snapshot of its own, newer than the statement''s: do not join it.
Errors: SE006 under REPEATABLE READ or SERIALIZABLE, 22023.
Example: SELECT position, stream, type FROM es_read_all(0, 100, types => ''{OrderPlaced}'');';

CREATE FUNCTION @extschema@.es_read_event(event_id uuid)
RETURNS SETOF @extschema@.es_event LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_read_event(uuid) IS
'Finds events by id, in position order: usually one, for two streams may hold the same id.
Errors: 22004.
Example: SELECT stream, version FROM es_read_event(''0190163d-8694-739b-aea5-966c26f8ad91'');';

CREATE FUNCTION @extschema@.es_stream_version(stream text)
RETURNS bigint LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_stream_version(text) IS
'The version of a stream''s newest event that the statement sees; -1 when there is none.
Errors: SE002 stream deleted, 22004, 22023.
Example: SELECT es_stream_version(''order-42'');';

CREATE FUNCTION @extschema@.es_category(stream text)
RETURNS text LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_category(text) IS
'The category of a stream name: what stands before the first "-", or the whole name where there is none.
Errors: 22004, 22023.
Example: SELECT es_category(''order-42'');';

CREATE FUNCTION @extschema@.es_category_id(category text)
RETURNS integer LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_category_id(text) IS
'The number under which es_events keeps a category: a hash of its name (CRC-32C). Reads compare the name too, so a collision costs time and nothing else.
Errors: 22004, 22023.
Example: SELECT es_category_id(''order'');';

CREATE FUNCTION @extschema@.es_uuid(namespace text, name text)
RETURNS uuid LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_uuid(text, text) IS
'A UUIDv5 (RFC 9562) of a name: the same arguments always give the same id, so an id of another system becomes an event id that makes retries harmless. A namespace in the form of a UUID is that namespace; any other text is first made one.
Errors: 22004.
Example: SELECT es_uuid(''shop'', ''order-4711'');';

CREATE FUNCTION @extschema@.es_refuse_change() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_refuse_change() IS
'es_pg: the trigger that keeps events as they are: every UPDATE, DELETE and TRUNCATE fails with SE003, and so does every INSERT but a restore''s COPY. Rows of es_streams cannot be deleted or renamed.';

CREATE TRIGGER es_immutable BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.es_events
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.es_refuse_change();
ALTER TABLE @extschema@.es_events ENABLE ALWAYS TRIGGER es_immutable;
CREATE TRIGGER es_immutable
    BEFORE DELETE OR TRUNCATE OR UPDATE OF stream_id, created_at, first_chunk, category_id, name ON @extschema@.es_streams
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.es_refuse_change();
ALTER TABLE @extschema@.es_streams ENABLE ALWAYS TRIGGER es_immutable;

-- ALTER TABLE ... ENABLE TRIGGER ALL, as pg_restore --disable-triggers ends with, makes an ALWAYS trigger an ordinary one.
CREATE FUNCTION @extschema@.es_protect_history() RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    weakened pg_catalog.regclass;
    mended integer := 0;
BEGIN
    FOR weakened IN
        SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t
         WHERE t.tgfoid = '@extschema@.es_refuse_change'::pg_catalog.regproc AND t.tgname = 'es_immutable'
           AND t.tgenabled IN ('O', 'R')
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ALWAYS TRIGGER es_immutable', weakened);
        mended := mended + 1;
    END LOOP;
    RETURN mended;
END $$;
COMMENT ON FUNCTION @extschema@.es_protect_history() IS
'Has the triggers that keep events as they are fire always again, under session_replication_role = replica too, on every chunk where a restore with --disable-triggers left them ordinary ones. Returns on how many. A trigger that someone disabled stays so.
Example: SELECT es_protect_history();';

-- The right to write or read is EXECUTE on the function; harmless ones stay open.
REVOKE ALL ON FUNCTION
    @extschema@.es_append(text, text, jsonb, bigint, jsonb, uuid, text, timestamptz, text, text),
    @extschema@.es_append_batch(text, text[], jsonb[], bigint, jsonb[], uuid[], text[], timestamptz[], text, text),
    @extschema@.es_append_json(text, jsonb, bigint),
    @extschema@.es_read_stream(text, bigint, bigint, boolean),
    @extschema@.es_read_category(text, bigint, bigint, text[]),
    @extschema@.es_read_all(bigint, bigint, text[], text[]),
    @extschema@.es_read_event(uuid),
    @extschema@.es_stream_version(text),
    @extschema@.es_refuse_change(),
    @extschema@.es_protect_history()
FROM PUBLIC;
