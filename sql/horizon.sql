-- horizon: one order of positions, and how far it may be read.
CREATE EXTENSION es_pg;

-- An empty log. Positions begin at 1.
SELECT es_last_position(), es_horizon(), es_incarnation() IS NULL AS no_life_yet;
SELECT count(*) FROM es_in_flight();
SELECT count(*) FROM es_writers();
SELECT position FROM es_append('h-1', 'T', '1');
SELECT es_last_position(), es_horizon();

-- The first write begins an incarnation, and the next ones stay in it.
SELECT es_incarnation() AS life \gset
SELECT :'life' <> '' AS began;
SELECT position FROM es_append('h-1', 'T', '2');
SELECT es_incarnation() = :'life' AS same, count(*), max(ordinal) FROM es_incarnations GROUP BY 1;
SELECT system_identifier = (SELECT system_identifier FROM pg_control_system()) AS this_server,
       database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()) AS this_database,
       after_position
  FROM es_incarnations;

-- The functions of the horizon take no arguments, and stand in prepared statements like any.
PREPARE horizon AS SELECT es_horizon(), es_last_position(), es_incarnation() = $1 FROM es_in_flight() RIGHT JOIN (SELECT 1) AS one ON true;
EXECUTE horizon(:'life');

--
-- An open transaction that has drawn positions holds the horizon below them:
-- its own events are in its stream reads, but not yet in an ordered read, not
-- even its own, for their place in the order is not settled.
--
BEGIN;
SELECT count(*) FROM es_in_flight();
SELECT position FROM es_append('h-2', 'T', '1');
SELECT position FROM es_append('h-2', 'T', '2');
SELECT es_last_position(), es_horizon();
SELECT pid = pg_backend_pid() AS me, position, behind, age >= '0' AS aged, usename = current_user AS mine,
       application_name, state, query LIKE '%es_in_flight%' AS this_query
  FROM es_in_flight();
SELECT pid = pg_backend_pid() AS me, position FROM es_writers();
SELECT version FROM es_read_stream('h-2');
SELECT position, stream, data FROM es_read_all();
SELECT position FROM es_read_category('h');
COMMIT;
SELECT es_last_position(), es_horizon(), (SELECT count(*) FROM es_in_flight()) AS in_flight;
SELECT position, stream, data FROM es_read_all();

-- A rollback frees it too; the positions are lost, for gaps are allowed.
BEGIN;
SELECT position FROM es_append('h-3', 'T', '1');
ROLLBACK;
SELECT es_last_position(), es_horizon(), (SELECT count(*) FROM es_in_flight()) AS in_flight;
SELECT position FROM es_append('h-3', 'T', '1');
SELECT position, stream FROM es_read_all(4);

-- An error frees it as well.
SELECT position, 1 / (position - position) FROM es_append('h-3', 'T', '2');
SELECT es_last_position(), es_horizon();

-- Back to a savepoint frees it where nothing was drawn before; else the first draw counts.
BEGIN;
SAVEPOINT s;
SELECT position FROM es_append('h-3', 'T', '2');
ROLLBACK TO s;
SELECT es_last_position() - es_horizon() AS behind, (SELECT count(*) FROM es_in_flight()) AS in_flight;
SELECT position FROM es_append('h-3', 'T', '2') \gset
SAVEPOINT s;
SELECT FROM es_append('h-3', 'T', '3');
ROLLBACK TO s;
SELECT es_last_position() - es_horizon() AS behind, (SELECT "position" - :position FROM es_in_flight()) AS above_first;
ROLLBACK;
SELECT es_last_position() - es_horizon() AS behind, (SELECT count(*) FROM es_in_flight()) AS in_flight;

-- A refused append has drawn nothing.
SELECT es_last_position() AS before \gset
SELECT position FROM es_append('h-3', 'T', '2', 7);
SELECT position FROM es_append('', 'T', '2');
SELECT es_last_position() - :before AS drawn;

--
-- An ordered read takes a snapshot after the horizon. Under an older snapshot
-- its order could not be trusted, so it is refused; reads of a stream are not.
--
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT version FROM es_append('h-4', 'T', '1');
SELECT version FROM es_read_stream('h-4');
SAVEPOINT s;
SELECT position FROM es_read_all();
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT position FROM es_read_all();
ROLLBACK TO s;
SELECT position FROM es_read_category('h');
ROLLBACK TO s;
SELECT position FROM es_fetch('nobody', 'me');
ROLLBACK TO s;
\set VERBOSITY default
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT version FROM es_append('h-4', 'T', '2');
SELECT version FROM es_read_stream('h-4');
SAVEPOINT s;
SELECT position FROM es_read_all();
ROLLBACK TO s;
\set VERBOSITY sqlstate
SELECT position FROM es_read_category('h');
ROLLBACK TO s;
\set VERBOSITY default
COMMIT;
SELECT version FROM es_read_category('h', 4) WHERE stream = 'h-4';

-- A prepared transaction could hold all readers back, for ever: refused.
BEGIN;
SELECT version FROM es_append('h-5', 'T', '1');
PREPARE TRANSACTION 'es_pg h-5';
SELECT count(*) FROM pg_prepared_xacts;
SELECT es_stream_version('h-5'), es_last_position() - es_horizon() AS behind;
\set VERBOSITY sqlstate
BEGIN;
SELECT version FROM es_append('h-5', 'T', '1');
PREPARE TRANSACTION 'es_pg h-5';
\set VERBOSITY default
-- One that wrote no events may be prepared.
BEGIN;
SELECT count(*) FROM es_read_all();
CREATE TABLE other (i int);
PREPARE TRANSACTION 'es_pg other';
SELECT es_last_position() - es_horizon() AS behind;
SELECT version FROM es_append('h-5', 'T', '1');
SELECT es_last_position() - es_horizon() AS behind;
COMMIT PREPARED 'es_pg other';

-- Writers of a transaction of their own, one after the other, in a procedure.
DO $$
BEGIN
    FOR i IN 1..3 LOOP
        PERFORM es_append('h-6', 'T', to_jsonb(i));
        ASSERT es_last_position() - es_horizon() = 1;
        IF i = 2 THEN ROLLBACK; ELSE COMMIT; END IF;
        ASSERT es_last_position() = es_horizon();
    END LOOP;
END $$;
SELECT version, data FROM es_read_stream('h-6');

-- No position is drawn beyond the durable bound; a large batch moves it.
SELECT last_value >= es_last_position() AS covered FROM es_position_bound;
SELECT es_last_position() AS before \gset
SELECT version, position - :before AS drawn
  FROM es_append_batch('h-7', array_fill('T'::text, ARRAY[40000]), array_fill('{}'::jsonb, ARRAY[40000]));
SELECT last_value >= es_last_position() AS covered FROM es_position_bound;
SELECT count(*), min(position) - :before AS first, max(position) - :before AS last FROM es_read_all(:before, 100000);

-- A new session goes on where the log is.
SELECT es_last_position() AS before \gset
\c -
SELECT es_last_position() = :before AS same, es_horizon() = :before AS all_there, es_incarnation() = :'life' AS same_life;
SELECT position - :before AS drawn FROM es_append('h-8', 'T', '1');

--
-- Marks, by which standbys read the log: maintenance leaves where the horizon was.
--
SELECT es_maintain();
SELECT position = es_horizon() AS here FROM es_marks;

--
-- Incarnations. A log that is where it began has nothing to adopt. After an
-- older self was brought back in a way that no server can notice, one says so:
-- a new life begins, far behind the old one, at once.
--
SELECT es_adopt('moved') = :'life' AS same_life;
SELECT es_adopt('copied') AS second_life \gset
SELECT :'second_life' <> :'life' AS another, es_incarnation() = :'second_life' AS in_force;
SELECT ordinal, incarnation = :'life' AS first, after_position > 4294967296 AS beyond FROM es_incarnations ORDER BY ordinal;
SELECT version, position > 4294967296 AS beyond FROM es_append('h-8', 'T', '2');

-- Each position belongs to the life in which it was drawn, and is handed out so.
SELECT es_create_subscription('lives', 'beginning', types => '{T}');
SELECT DISTINCT incarnation = :'life' AS first, incarnation = :'second_life' AS second, position > 4294967296 AS beyond
  FROM es_fetch('lives', 'c', 1000000) ORDER BY beyond;

-- There are two answers.
SELECT es_adopt('Copied');
SELECT es_adopt(NULL);
