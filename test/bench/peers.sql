-- Other ways to do the same, in our own words after their documented designs.

-- lock_append: an event store in plpgsql with one table. An advisory lock per category, held to the end of the
-- transaction, puts the writers of a category in line, so that a reader of the category who remembers the last
-- position skips nothing. Versions have no holes and an expected version is checked (here none is asked for), as
-- es_append does. Its table has the columns and the number of indexes of a chunk, with the stream's name in the row.
CREATE TABLE lock_events (
    "position"      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version         bigint NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT now(),
    event_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    category        text COLLATE "C" NOT NULL,
    stream          text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    data            jsonb NOT NULL,
    metadata        jsonb,
    schema_version  text COLLATE "C",
    source          text COLLATE "C",
    correlation_id  text COLLATE "C",
    causation_id    text COLLATE "C",
    traceparent     text COLLATE "C",
    occurred_at     timestamptz,
    UNIQUE (stream, version)
) WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.1,
        autovacuum_freeze_min_age = 0);
CREATE INDEX ON lock_events (category, "position");
CREATE INDEX ON lock_events (event_id);

CREATE FUNCTION lock_append(stream text, type text, data jsonb, expected_version bigint DEFAULT NULL)
RETURNS TABLE (version bigint, "position" bigint, event_id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    in_category text := split_part(stream, '-', 1);
    head bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(in_category, 0));
    SELECT e.version INTO head FROM lock_events AS e
     WHERE e.stream = lock_append.stream ORDER BY e.version DESC LIMIT 1;
    head := COALESCE(head, -1);
    IF expected_version <> head THEN
        RAISE EXCEPTION 'stream "%" is at version %, not %', stream, head, expected_version
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN QUERY
    INSERT INTO lock_events AS e (version, category, stream, type, data)
    VALUES (head + 1, in_category, lock_append.stream, lock_append.type, lock_append.data)
    RETURNING e.version, e."position", e.event_id;
END $$;
