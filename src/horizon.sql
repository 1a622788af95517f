-- horizon.sql: positions, the horizon, and which life of the log this is.

CREATE SCHEMA es_chunks;
COMMENT ON SCHEMA es_chunks IS 'es_pg: the partitions of events and outbox, made at run time.';

-- The durable upper bound of the positions: no position above last_value was
-- ever handed out. The counter itself is in shared memory.
CREATE SEQUENCE @extschema@.es_position_bound AS bigint MINVALUE 0 START 0;
COMMENT ON SEQUENCE @extschema@.es_position_bound IS
'es_pg: the highest position reserved so far; the counter in shared memory never passes it. Never set it by hand.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_position_bound', '');

CREATE FUNCTION @extschema@.es_shared_memory() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_shared_memory() IS
'How many bytes of the server''s shared memory es_pg uses, in all databases together.
Errors: 53200 there is no such memory, 55000 another version of the library has it.
Example: SELECT es_shared_memory();';
REVOKE ALL ON FUNCTION @extschema@.es_shared_memory() FROM PUBLIC;
-- Taken now, before the locks of what follows take what is left.
SELECT @extschema@.es_shared_memory();

CREATE TABLE @extschema@.es_incarnations (
    ordinal            integer PRIMARY KEY,
    incarnation        uuid NOT NULL,
    system_identifier  bigint NOT NULL,
    timeline           bigint NOT NULL,
    database_oid       oid NOT NULL,
    log_oid            oid NOT NULL,
    directory          bigint NOT NULL,
    after_position     bigint NOT NULL,
    began_at           timestamptz NOT NULL
);
COMMENT ON TABLE @extschema@.es_incarnations IS
'es_pg: the lives of this log, the newest with the highest ordinal; where each began, and the position after which. A position belongs to the newest one that begins before it.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_incarnations', '');

-- Insert-only but for es_maintain(), which leaves the marks.
CREATE TABLE @extschema@.es_marks (
    position  bigint NOT NULL,
    CONSTRAINT es_marks_pkey PRIMARY KEY (position)
);
COMMENT ON TABLE @extschema@.es_marks IS
'es_pg: positions that were at or below the horizon when they were written here; up to the newest one a standby reads the log.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.es_marks', '');

CREATE FUNCTION @extschema@.es_horizon() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_horizon() IS
'The highest position at or below which everything that will ever commit has committed and is visible to a snapshot taken after this call. 0 in an empty log. On a standby: the newest mark that the primary has left, by an acknowledgement or by es_maintain(), and the calling statement sees.
Example: SELECT es_horizon();';

CREATE FUNCTION @extschema@.es_last_position() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_last_position() IS
'The highest position drawn so far, committed or not. While it is above es_horizon(), writers are in flight.
Errors: 55000 on a standby.
Example: SELECT es_last_position() - es_horizon() AS behind;';

CREATE FUNCTION @extschema@.es_incarnation() RETURNS uuid
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_incarnation() IS
'Which life of this log positions belong to now; NULL before the first append. Store it beside every position that is kept outside this database.
Example: SELECT es_incarnation();';

CREATE FUNCTION @extschema@.es_adopt(how text) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_adopt(text) IS
'Says what became of a log that appends and fetches refuse with SE008, and lets it go on here. ''moved'': the original is gone for good (pg_upgrade, a restore that replaces it, a data directory on a new disk), and its incarnation is kept. ''copied'': the original lives on, or an older self was brought back (a volume snapshot rolled back), and a new incarnation begins. Either way the next position is 4,294,967,296 further on. A background worker does it, in a transaction of its own, so it stays done whatever becomes of the caller''s. With nothing to adopt ''moved'' only begins the incarnation that the next append would have begun. Returns the incarnation now in force.
Errors: 22004, 22023, 53400 no worker can be had, 55000 ''moved'' where no incarnation came along, or on a standby.
Example: SELECT es_adopt(''moved'');';

CREATE FUNCTION @extschema@.es_writers(OUT pid integer, OUT "position" bigint) RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.es_writers() IS
'The open transactions of this database that have drawn positions, with a lower bound of each. es_in_flight() says more.
Example: SELECT * FROM es_writers();';

CREATE FUNCTION @extschema@.es_in_flight(
    OUT pid integer, OUT "position" bigint, OUT behind bigint, OUT age interval,
    OUT usename name, OUT application_name text, OUT state text, OUT query text)
RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT w.pid, w."position", @extschema@.es_last_position() - w."position" + 1,
           pg_catalog.clock_timestamp() - a.xact_start, a.usename, a.application_name, a.state, a.query
      FROM @extschema@.es_writers() AS w
      LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = w.pid
     ORDER BY w."position";
END;
COMMENT ON FUNCTION @extschema@.es_in_flight() IS
'Who holds the horizon back, worst first: the open transactions that have drawn positions. position: the lowest it may have drawn; behind: how many positions ordered reads wait behind it; age: of its transaction. Query and state follow the rules of pg_stat_activity.
Example: SELECT pid, behind, age, query FROM es_in_flight() LIMIT 1;';

REVOKE ALL ON FUNCTION @extschema@.es_horizon(), @extschema@.es_last_position(), @extschema@.es_incarnation(), @extschema@.es_adopt(text),
    @extschema@.es_writers(), @extschema@.es_in_flight() FROM PUBLIC;
