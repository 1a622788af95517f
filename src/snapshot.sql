-- snapshot.sql: folding a stream's events to its state, at any moment; snapshots, so that the fold is short.

CREATE TABLE @extschema@.es_snapshots (
    stream_id  bigint NOT NULL,
    identity   uuid NOT NULL,
    version    bigint NOT NULL,
    position   bigint NOT NULL,
    taken_at   timestamptz NOT NULL,
    reducer    text COLLATE "C" NOT NULL,
    state      jsonb,
    CONSTRAINT es_snapshots_pkey PRIMARY KEY (stream_id, identity, version)
);
COMMENT ON TABLE @extschema@.es_snapshots IS
'es_pg: states of streams at some of their versions. Written by es_snapshot and es_state; only what has the reducer''s present identity is used.';
COMMENT ON COLUMN @extschema@.es_snapshots.identity IS 'Of the reducer as it was: name, and body or version';
COMMENT ON COLUMN @extschema@.es_snapshots.version IS 'Of the newest event in the state';
COMMENT ON COLUMN @extschema@.es_snapshots.position IS 'Of that event; the snapshot is not used if the stream has another there';
COMMENT ON COLUMN @extschema@.es_snapshots.reducer IS 'As es_reducer() returns it';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_snapshots', '');

CREATE TABLE @extschema@.es_snapshot_policies (
    category  text COLLATE "C" NOT NULL,
    reducer   text COLLATE "C" NOT NULL,
    every     bigint NOT NULL,
    keep      bigint NOT NULL,
    CONSTRAINT es_snapshot_policies_pkey PRIMARY KEY (category, reducer)
);
COMMENT ON TABLE @extschema@.es_snapshot_policies IS
'es_pg: in which categories es_state keeps what it has folded. Written by es_set_snapshot_policy and es_drop_snapshot_policy.';
COMMENT ON COLUMN @extschema@.es_snapshot_policies.every IS 'Events since the snapshot before';
COMMENT ON COLUMN @extschema@.es_snapshot_policies.keep IS 'Snapshots of each stream that stay, the newest; -1: all';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_snapshot_policies', '');

CREATE TYPE @extschema@.es_folded AS (
    state     jsonb,
    version   bigint,
    snapshot  bigint,
    events    bigint
);
COMMENT ON TYPE @extschema@.es_folded IS
'A stream''s state: at which version (-1: before the first event), with which snapshot''s version the fold began (NULL: none), how many events it folded after that.';

CREATE FUNCTION @extschema@.es_reducer(name text, arguments jsonb DEFAULT NULL)
RETURNS text LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_reducer(text, jsonb) IS
'A reducer''s canonical text, after a check of it: that of a built-in with its arguments, or of a function (state jsonb, event es_event) RETURNS jsonb with its schema. es_fold, es_state and the like take it as well as the form in which it was given: name, or name and a JSON object.
Built-ins: merge_patch (RFC 7396), last_value, last_write, count, sum, pn_counter, combine; see the README for their options. At most 1,536 bytes.
Errors: 42883 no such reducer; 42P13 the function is none; 42501; 22004; 22023 bad options.
Example: SELECT es_reducer(''sum'', ''{"path": "$.amount", "by": "type"}'');';

CREATE FUNCTION @extschema@.es_fold_step(state internal, event @extschema@.es_event, reducer text)
RETURNS internal LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_fold_step(internal, @extschema@.es_event, text) IS
'es_pg: the transition of es_fold.
Example: SELECT es_fold(e, ''count'') FROM es_read_stream(''order-42'') AS e;';

CREATE FUNCTION @extschema@.es_fold_end(state internal)
RETURNS jsonb LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_fold_end(internal) IS
'es_pg: the end of es_fold.
Example: SELECT es_fold(e, ''count'') FROM es_read_stream(''order-42'') AS e;';

CREATE AGGREGATE @extschema@.es_fold(event @extschema@.es_event, reducer text) (
    SFUNC = @extschema@.es_fold_step,
    STYPE = internal,
    FINALFUNC = @extschema@.es_fold_end
);
COMMENT ON AGGREGATE @extschema@.es_fold(@extschema@.es_event, text) IS
'Folds events of one stream to its state, with a built-in reducer or a function (state jsonb, event es_event) RETURNS jsonb, which runs with the caller''s rights and gets a null state first. NULL for no events. Events must come in version order without gaps; the first may have any version. With OVER (ORDER BY version) it is the state after each event. A read returns 1,000 events by default: es_state folds whole streams.
Errors: 22023 events of several streams, out of order, or one missing; 42883, 42501, 42P13 the reducer; 22004.
Example: SELECT es_fold(e, ''merge_patch'' ORDER BY version) FROM es_read_stream(''order-42'') AS e;';

CREATE FUNCTION @extschema@.es_given(events jsonb, stream text DEFAULT NULL, from_version bigint DEFAULT NULL)
RETURNS SETOF @extschema@.es_event LANGUAGE c STABLE PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_given(jsonb, text, bigint) IS
'Events for a test of a reducer or handler, as a read would return them; nothing is written. events: a JSON array as es_append_json takes it. stream: ''given-1'' by default. Versions rise from from_version, 0 by default; position is version + 1, recorded_at 2000-01-01 00:00:00 UTC plus version seconds, occurred_at the same and event_id es_uuid(stream, version) where none is given.
Errors: 22004, 22023 and others of es_append_json.
Example: SELECT es_fold(e, ''count'') FROM es_given(''[{"type": "OrderPlaced", "data": {}}]'') AS e;';

CREATE FUNCTION @extschema@.es_state(
    stream text, reducer text, at_version bigint DEFAULT NULL, at_time timestamptz DEFAULT NULL)
RETURNS @extschema@.es_folded LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_state(text, text, bigint, timestamptz) IS
'The state of a stream now, at a version, or at a time: the newest snapshot that holds and the events after it. at_version -1 is before the first event; at_time goes by recorded_at. A stream without events has a null state at version -1. Keeps a snapshot where es_set_snapshot_policy said so.
Errors: SE002 stream deleted; SE006 under REPEATABLE READ events before the transaction''s own are not seen; 55000 events are left out by the stream''s limits and no snapshot stands for them; 22023 no such version yet; 42883, 42501, 42P13 the reducer; 22004.
Example: SELECT state, version FROM es_state(''order-42'', ''merge_patch'', at_time => ''yesterday 15:00'');';

CREATE FUNCTION @extschema@.es_snapshot(
    stream text, reducer text, version bigint DEFAULT NULL, state jsonb DEFAULT NULL)
RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_snapshot(text, text, bigint, jsonb) IS
'Keeps a stream''s state at a version, by default the newest, so that es_state begins there; returns the version. state: what the caller knows it to be, which is taken for true; by default it is computed. Takes the place of a snapshot of that version, and of all that an older form of the reducer took.
Errors: 22023 no such version yet, or no events; 22004 a state without version; 55000 the reducer was replaced meanwhile; 25006 read-only transaction; those of es_state.
Example: SELECT es_snapshot(''order-42'', ''merge_patch'');';

CREATE FUNCTION @extschema@.es_set_snapshot_policy(
    category text, reducer text, every bigint DEFAULT 100, keep bigint DEFAULT 2)
RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_set_snapshot_policy(text, text, bigint, bigint) IS
'Has es_state keep a snapshot whenever it folded at least so many events (every) of a stream of that category, and remove all but the newest (keep; -1: all stay, and states of the past are kept as well). Of a function only where the caller may call es_snapshot. A second call changes the policy.
Errors: 22004; 22023; 42883, 42501, 42P13 the reducer.
Example: SELECT es_set_snapshot_policy(''order'', ''merge_patch'', every => 500);';

CREATE FUNCTION @extschema@.es_drop_snapshot_policy(category text, reducer text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped bigint;
BEGIN
    IF category IS NULL THEN
        RAISE EXCEPTION 'category must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    DELETE FROM @extschema@.es_snapshot_policies AS p
     WHERE p.category = es_drop_snapshot_policy.category
       AND (es_drop_snapshot_policy.reducer IS NULL OR p.reducer = es_drop_snapshot_policy.reducer);
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END $$;
COMMENT ON FUNCTION @extschema@.es_drop_snapshot_policy(text, text) IS
'Ends the policies of a category, or the one for a reducer, named as es_snapshot_policies and es_reducer() have it; returns how many. The snapshots stay.
Errors: 22004.
Example: SELECT es_drop_snapshot_policy(''order'');';

-- What stands for events that are left out is all there is of them: it stays. max_age is not looked up: what is
-- newest of a stream stays anyway where any of it would be needed.
CREATE FUNCTION @extschema@.es_prune_snapshots(
    keep bigint DEFAULT 1, older_than interval DEFAULT NULL, category text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pruned bigint;
BEGIN
    keep := COALESCE(keep, 1);
    IF keep < 0 THEN
        RAISE EXCEPTION 'keep must not be negative' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM @extschema@.es_snapshots AS s
     USING (SELECT o.stream_id, o.identity, o.version,
                   pg_catalog.row_number() OVER (PARTITION BY o.stream_id, o.reducer ORDER BY o.version DESC, o.taken_at DESC) AS place,
                   n.deleted,
                   COALESCE(n.truncate_before, 0) > 0 OR COALESCE(n.max_count, 0) > 0 OR n.max_age IS NOT NULL AS limited
              FROM @extschema@.es_snapshots AS o
              JOIN @extschema@.es_streams AS n ON n.stream_id = o.stream_id
             WHERE es_prune_snapshots.category IS NULL
                OR n.category_id = @extschema@.es_category_id(es_prune_snapshots.category)
               AND pg_catalog.split_part(n.name, '-', 1) = es_prune_snapshots.category) AS p
     WHERE s.stream_id = p.stream_id AND s.identity = p.identity AND s.version = p.version
       AND (p.deleted OR p.place > CASE WHEN p.limited THEN greatest(es_prune_snapshots.keep, 1) ELSE es_prune_snapshots.keep END)
       AND (es_prune_snapshots.older_than IS NULL OR s.taken_at < pg_catalog.now() - es_prune_snapshots.older_than);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END $$;
COMMENT ON FUNCTION @extschema@.es_prune_snapshots(bigint, interval, text) IS
'Removes snapshots: of each stream and reducer all but the newest (keep, 1 by default, 0 for none), of deleted streams all; with older_than only those taken longer ago, with category only there. The newest of a stream whose limits leave events out always stays, for it stands for them. Returns how many.
Errors: 22023.
Example: SELECT es_prune_snapshots(keep => 1, older_than => ''30 days'');';

REVOKE ALL ON FUNCTION
    @extschema@.es_fold_step(internal, @extschema@.es_event, text),
    @extschema@.es_fold_end(internal),
    @extschema@.es_state(text, text, bigint, timestamptz),
    @extschema@.es_snapshot(text, text, bigint, jsonb),
    @extschema@.es_set_snapshot_policy(text, text, bigint, bigint),
    @extschema@.es_drop_snapshot_policy(text, text),
    @extschema@.es_prune_snapshots(bigint, interval, text)
FROM PUBLIC;
