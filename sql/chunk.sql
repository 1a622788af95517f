-- chunk: events lie in chunks, ranges of positions, that nobody has to think of.
CREATE EXTENSION es_pg;

-- A chunk usually has 16 million positions. Here it has 100, to see some.
SHOW es_pg.event_chunk_size;
SHOW es_pg.outbox_chunk_size;
SET es_pg.event_chunk_size = 100;

-- Which chunks hold events, and how many. (Others are made ahead of need.)
CREATE VIEW filled AS
    SELECT tableoid::regclass AS chunk, count(*) AS events, min(position) AS first, max(position) AS last
      FROM es_events GROUP BY tableoid;
-- Which chunks a stream has entered after its first.
CREATE VIEW entered AS
    SELECT name, first_chunk, array_agg(chunk ORDER BY chunk) AS then_chunks, array_agg(first_version ORDER BY chunk) AS first_versions
      FROM es_streams LEFT JOIN es_stream_chunks USING (stream_id) GROUP BY name, first_chunk;
-- A batch of n events that are numbered.
CREATE FUNCTION numbered(stream text, n int, first int DEFAULT 0) RETURNS bigint LANGUAGE sql AS $$
    SELECT (es_append_batch(stream, array_fill('N'::text, ARRAY[n]), ARRAY(SELECT to_jsonb(first + i) FROM generate_series(0, n - 1) AS i))).version
$$;

--
-- Chunks can be prepared; appends prepare them themselves.
--
SELECT count(*) FROM es_chunk_list;
SELECT es_prepare_chunks(0);
SELECT es_prepare_chunks(0);
SELECT es_prepare_chunks(3);
SELECT of_table, chunk, bounds, bytes > 0 AS sized FROM es_chunk_list ORDER BY of_table::text, length(bounds), bounds;
PREPARE prepare_chunks AS SELECT es_prepare_chunks($1);
EXECUTE prepare_chunks('3');
SELECT es_prepare_chunks('3') + es_prepare_chunks(NULL) + es_prepare_chunks() AS nothing_to_do;

-- A chunk has keys and indexes, the trigger that keeps events as they are, and
-- settings of autovacuum for what only grows. Its parent has no index at all.
\d es_chunks.es_events_0
SELECT unnest(reloptions) FROM pg_class WHERE oid = 'es_chunks.es_events_0'::regclass;
SELECT tgname, tgenabled = 'A' AS always FROM pg_trigger WHERE tgrelid = 'es_chunks.es_events_0'::regclass ORDER BY 1;
SELECT tgname, tgenabled = 'A' AS always FROM pg_trigger WHERE tgrelid = 'es_events'::regclass ORDER BY 1;
\d es_events

--
-- One call may fill several chunks.
--
SELECT numbered('long-1', 250);
SELECT * FROM filled ORDER BY first;
SELECT * FROM entered;
-- The chunk that is written to is full at 299; the next append enters the next.
SELECT version FROM es_append('short-1', 'N', '"first"', -1);
SELECT numbered('long-1', 48, 250);
SELECT version, position FROM es_append('long-1', 'N', '298', 297);
SELECT version, position FROM es_append('short-1', 'N', '"second"', 0);
SELECT * FROM filled ORDER BY first;
SELECT * FROM entered ORDER BY name;

-- Reads cross the boundaries and do not show them: a stream forward, backward,
-- from the middle, from the newest; everything; a category; one event.
SELECT count(*), bool_and(data = to_jsonb(version)) AS right_data, min(version), max(version) FROM es_read_stream('long-1');
SELECT array_agg(version) FROM es_read_stream('long-1', 97, 4);
SELECT array_agg(version) FROM es_read_stream('long-1', 101, 4, true);
SELECT array_agg(version) FROM es_read_stream('long-1', 199, 1);
SELECT array_agg(version) FROM es_read_stream('long-1', -1, 2, true);
SELECT count(*), bool_and(version = 299 - n) AS in_order FROM es_read_stream('long-1', -1, backward => true) WITH ORDINALITY AS e (p, s, version, i, t, sv, so, d, m, c, ca, tr, o, r, n);
SELECT array_agg(version) FROM es_read_stream('short-1');
SELECT array_agg(version) FROM es_read_stream('short-1', 1);
SELECT array_agg(version) FROM es_read_stream('short-1', -1, backward => true);
SELECT count(*), bool_and(position = n) AS in_order FROM es_read_all() WITH ORDINALITY AS e (position, s, v, i, t, sv, so, d, m, c, ca, tr, o, r, n);
SELECT array_agg(position) FROM es_read_all(97, 4);
SELECT array_agg(position) FROM es_read_category('long', 197, 4);
SELECT array_agg(position) FROM es_read_category('short');
SELECT array_agg(position) FROM es_read_all(0, 2, categories => '{short,other}');
SELECT event_id FROM es_read_stream('long-1', 150, 1) \gset
SELECT stream, version FROM es_read_event(:'event_id');
SELECT es_stream_version('long-1'), es_stream_version('short-1');
UPDATE es_streams SET max_count = 200 WHERE name = 'long-1';
SELECT count(*), min(version) FROM es_read_stream('long-1');
UPDATE es_streams SET max_count = NULL, truncate_before = 250 WHERE name = 'long-1';
SELECT count(*), min(version) FROM es_read_stream('long-1', -1, 1000, true);
UPDATE es_streams SET truncate_before = NULL WHERE name = 'long-1';

-- A cold stream is appended to after many chunks, which it never entered.
SELECT version FROM es_append('cold-1', 'N', '0', -1, event_id => es_uuid('cold', '0'));
SELECT numbered('other-1', 1000);
SELECT es_stream_version('cold-1');
SELECT version FROM es_append('cold-1', 'N', '1', 0, event_id => es_uuid('cold', '1'));
SELECT * FROM entered WHERE name = 'cold-1';
SELECT version, data FROM es_read_stream('cold-1');
-- A retry is found in the stream's newest two chunks, however far apart they lie...
SELECT version FROM es_append('cold-1', 'N', '0', es_any(), event_id => es_uuid('cold', '0'));
SELECT version FROM es_append('cold-1', 'N', '1', es_any(), event_id => es_uuid('cold', '1'));
SELECT version FROM es_append('cold-1', 'N', '0', -1, event_id => es_uuid('cold', '0'));
SELECT numbered('other-1', 300, 1000);
SELECT version FROM es_append('cold-1', 'N', '2', es_any(), event_id => es_uuid('cold', '2'));
-- ...but not beyond, unless the expected version says where to look.
SELECT version FROM es_append('cold-1', 'N', '0', -1, event_id => es_uuid('cold', '0'));
SELECT version FROM es_append('cold-1', 'N', '0', es_any(), event_id => es_uuid('cold', '0'));
-- A batch's retry may lie in several chunks.
SELECT version FROM es_append_batch('span-1', array_fill('N'::text, ARRAY[120]), array_fill('0'::jsonb, ARRAY[120]), -1,
    event_ids => ARRAY(SELECT es_uuid('span', i::text) FROM generate_series(1, 120) AS i));
SELECT es_last_position() AS before \gset
SELECT version, es_last_position() - :before AS drawn FROM es_append_batch('span-1', array_fill('N'::text, ARRAY[120]), array_fill('0'::jsonb, ARRAY[120]), -1,
    event_ids => ARRAY(SELECT es_uuid('span', i::text) FROM generate_series(1, 120) AS i));
SELECT version FROM es_append_batch('span-1', array_fill('N'::text, ARRAY[121]), array_fill('0'::jsonb, ARRAY[121]), -1,
    event_ids => ARRAY(SELECT es_uuid('span', i::text) FROM generate_series(1, 121) AS i));

-- A rolled back crossing leaves no trace, and can be done again.
SELECT es_last_position() AS before \gset
BEGIN;
SAVEPOINT s;
SELECT numbered('again-1', 150);
ROLLBACK TO s;
SELECT numbered('again-1', 150);
COMMIT;
BEGIN;
SELECT numbered('again-1', 150, 150);
ROLLBACK;
SELECT count(*), bool_and(data = to_jsonb(version)) AS right_data, max(version) FROM es_read_stream('again-1');
SELECT count(*) AS chunks_entered, min(first_version) > 0 AS after_the_first
  FROM es_stream_chunks JOIN es_streams USING (stream_id) WHERE name = 'again-1';

--
-- A change of the size is for chunks to come; bounds are clamped to what is there.
--
SET es_pg.event_chunk_size = 1000;
SELECT numbered('resized-1', 5000);
SELECT count(*) FROM es_read_stream('resized-1', 0, 10000);
-- And smaller again; there is neither a hole nor an overlap.
SET es_pg.event_chunk_size = 300;
SELECT numbered('resized-1', 5000, 5000);
SELECT count(*), bool_and(data = to_jsonb(version)) AS right_data FROM es_read_stream('resized-1', 0, 20000);
SELECT max(upper - lower) AS largest, bool_and(upper % 100 = 0) AS aligned,
       count(*) FILTER (WHERE hole <> 0) AS holes
  FROM (SELECT lower, upper, lower - lag(upper) OVER (ORDER BY lower) AS hole
          FROM es_chunk_list, LATERAL (SELECT split_part(bounds, '''', 2)::bigint AS lower, split_part(bounds, '''', 4)::bigint AS upper) AS b
         WHERE of_table = 'es_events') AS b;
SELECT e.positions - c.positions AS uncovered
  FROM (SELECT count(*) AS positions FROM es_events) AS e,
       (SELECT sum(events) AS positions FROM filled JOIN es_chunk_list USING (chunk)
         WHERE first >= split_part(bounds, '''', 2)::bigint AND last < split_part(bounds, '''', 4)::bigint) AS c;

--
-- The rest is in a database of its own, where no worker is making chunks now.
--
SELECT current_database() AS own \gset
CREATE DATABASE es_pg_chunk;
\c es_pg_chunk
CREATE EXTENSION es_pg;

--
-- es_pg writes past the executor. What it would pass by with that is refused.
--
SELECT version FROM es_append('fresh-1', 'N', '0', -1);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER mine AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT version FROM es_append('fresh-1', 'N', '1');
\set VERBOSITY sqlstate
SELECT version FROM es_append_batch('fresh-1', '{N,N}', '{1,2}');
DROP TRIGGER mine ON es_events;
CREATE TRIGGER mine BEFORE INSERT ON es_chunks.es_events_0 FOR EACH STATEMENT EXECUTE FUNCTION nothing();
SELECT version FROM es_append('fresh-1', 'N', '1');
DROP TRIGGER mine ON es_chunks.es_events_0;
ALTER TABLE es_chunks.es_events_0 ENABLE ROW LEVEL SECURITY;
SELECT version FROM es_append('fresh-1', 'N', '1');
ALTER TABLE es_chunks.es_events_0 DISABLE ROW LEVEL SECURITY;
ALTER TABLE es_chunks.es_events_0 ADD CONSTRAINT mine CHECK (type <> '');
SELECT version FROM es_append('fresh-1', 'N', '1');
ALTER TABLE es_chunks.es_events_0 DROP CONSTRAINT mine;
ALTER TABLE es_events ADD CONSTRAINT mine CHECK (type <> '');
SELECT version FROM es_append('fresh-1', 'N', '1');
ALTER TABLE es_events DROP CONSTRAINT mine;
ALTER TABLE es_chunks.es_events_0 ADD CONSTRAINT mine EXCLUDE (position WITH =);
SELECT version FROM es_append('fresh-1', 'N', '1');
ALTER TABLE es_chunks.es_events_0 DROP CONSTRAINT mine;
CREATE RULE mine AS ON INSERT TO es_chunks.es_events_0 DO ALSO NOTIFY mine;
SELECT version FROM es_append('fresh-1', 'N', '1');
DROP RULE mine ON es_chunks.es_events_0;
-- The same of es_streams, where a stream is new.
CREATE TRIGGER mine BEFORE INSERT ON es_streams FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT version FROM es_append('fresh-2', 'N', '1');
DROP TRIGGER mine ON es_streams;
ALTER TABLE es_streams ENABLE ROW LEVEL SECURITY;
SELECT version FROM es_append('fresh-2', 'N', '1');
ALTER TABLE es_streams DISABLE ROW LEVEL SECURITY;
ALTER TABLE es_streams ADD CONSTRAINT mine CHECK (name <> '');
SELECT version FROM es_append('fresh-2', 'N', '1');
ALTER TABLE es_streams DROP CONSTRAINT mine;
ALTER TABLE es_streams ADD CONSTRAINT mine EXCLUDE (stream_id WITH =);
SELECT version FROM es_append('fresh-2', 'N', '1');
ALTER TABLE es_streams DROP CONSTRAINT mine;
\set VERBOSITY default
-- With all that gone, it is as before.
SELECT version FROM es_append('fresh-1', 'N', '1', 0);
SELECT version FROM es_append('fresh-2', 'N', '1', -1);
-- A trigger on UPDATE of es_streams, or another index, passes nothing by.
CREATE TRIGGER mine BEFORE UPDATE ON es_streams FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE INDEX mine ON es_chunks.es_events_0 (type, position) WHERE type <> 'N';
CREATE INDEX mine_2 ON es_chunks.es_events_0 ((data ->> 'sku'));
SELECT version FROM es_append('fresh-1', 'Other', '{"sku": 1}', 1);
SELECT version FROM es_append_batch('fresh-1', '{Other,N}', '{"{\"sku\": 2}","{\"sku\": 3}"}', 2);
SET enable_seqscan = off;
SELECT version FROM es_chunks.es_events_0 WHERE type = 'Other' AND type <> 'N' ORDER BY type, position;
SELECT version FROM es_chunks.es_events_0 WHERE data ->> 'sku' = '3';
RESET enable_seqscan;

-- A column of one's own stays null in what es_pg writes. To events nothing can be added.
ALTER TABLE es_streams ADD COLUMN tenant text;
SELECT version FROM es_append('fresh-3', 'N', '1', -1);
SELECT name, tenant FROM es_streams WHERE name = 'fresh-3';
ALTER TABLE es_streams DROP COLUMN tenant;
SELECT version FROM es_append('fresh-4', 'N', '1', -1);
\set VERBOSITY sqlstate
ALTER TABLE es_streams ADD COLUMN upper_name text GENERATED ALWAYS AS (upper(name)) STORED;
SELECT version FROM es_append('fresh-5', 'N', '1', -1);
ALTER TABLE es_streams DROP COLUMN upper_name;
ALTER TABLE es_events ADD COLUMN upper_type text GENERATED ALWAYS AS (upper(type)) STORED;
SELECT version FROM es_append('fresh-1', 'N', '1');
ALTER TABLE es_events DROP COLUMN upper_type;
\set VERBOSITY default

--
-- Created in the transaction that also writes: chunks are made in it, inline.
--
DROP EXTENSION es_pg;
SELECT count(*) FROM pg_namespace WHERE nspname = 'es_chunks';
SELECT es_append('gone-1', 'T', '1');
BEGIN;
CREATE EXTENSION es_pg;
SET LOCAL es_pg.event_chunk_size = 100;
SELECT version, position FROM es_append('first-1', 'T', '1', -1);
SELECT version, position FROM es_append_batch('first-1', array_fill('T'::text, ARRAY[250]), array_fill('1'::jsonb, ARRAY[250]), 0);
SELECT count(*) FROM es_read_stream('first-1');
COMMIT;
SELECT count(*), min(position), max(position) FROM es_read_all();
SELECT es_incarnation() AS life \gset

-- Dropped and created again in one session, the log begins anew.
DROP EXTENSION es_pg;
CREATE EXTENSION es_pg;
SELECT es_last_position(), es_horizon();
SELECT version, position FROM es_append('first-1', 'T', '"anew"', -1);
SELECT position, version, data FROM es_read_all();
SELECT es_incarnation() <> :'life' AS another_life;

-- A prepared statement and a session that knew the old one find the new one.
PREPARE known AS SELECT version FROM es_append('known-1', 'T', '1');
EXECUTE known;
BEGIN;
DROP EXTENSION es_pg;
ROLLBACK;
EXECUTE known;
SELECT es_last_position();

-- It may live in any schema, and need not be on the search_path.
DROP EXTENSION es_pg;
CREATE SCHEMA "Event Store";
CREATE EXTENSION es_pg SCHEMA "Event Store";
SELECT es_append('away-1', 'T', '1');
SELECT version, position FROM "Event Store".es_append('away-1', 'T', '1', "Event Store".es_no_stream());
SET search_path = '';
SELECT version, position FROM "Event Store".es_append_batch('away-1', '{T,T}', '{2,3}');
SELECT version, data FROM "Event Store".es_read_stream('away-1');
SELECT position, stream FROM "Event Store".es_read_all();
SELECT "Event Store".es_create_subscription('away', 'beginning');
SELECT position, key FROM "Event Store".es_fetch('away', 'me');
SELECT "Event Store".es_ack('away', lane, epoch, 2) FROM "Event Store".es_lane_cursors;
SELECT "Event Store".es_maintain();
SELECT position FROM "Event Store".es_fetch('away', 'me');
SELECT "Event Store".es_drop_subscription('away');
SELECT count(*) FROM "Event Store".es_in_flight();
SELECT of_table, chunk FROM "Event Store".es_chunk_list WHERE chunk::text LIKE '%\_0' ORDER BY chunk::text;
UPDATE "Event Store".es_events SET type = 'Other';
RESET search_path;
-- Names on the search_path that look like its own deceive nobody.
CREATE TABLE es_streams (LIKE "Event Store".es_streams);
CREATE TABLE es_events (LIKE "Event Store".es_events);
SELECT version FROM "Event Store".es_append('away-2', 'T', '1');
SELECT (SELECT count(*) FROM es_streams) AS decoy_streams, (SELECT count(*) FROM es_events) AS decoy_events,
       (SELECT count(*) FROM "Event Store".es_events) AS events;
-- It does not move, and its schemas keep their names.
ALTER EXTENSION es_pg SET SCHEMA public;
\set SHOW_CONTEXT never
ALTER SCHEMA "Event Store" RENAME TO other;
ALTER SCHEMA es_chunks RENAME TO other;
ALTER SCHEMA es_chunks OWNER TO CURRENT_USER;
CREATE SCHEMA mine;
ALTER SCHEMA mine RENAME TO yours;

-- A dump of data alone copies into chunks that must be there: made by their names, each up to the next.
DROP EXTENSION es_pg;
CREATE EXTENSION es_pg SCHEMA "Event Store";
SET search_path = "Event Store";
SET es_pg.event_chunk_size = 1000;
SELECT es_restore_chunks('{es_events_0,es_chunks.es_events_4000,es_events_300,es_outbox_0}');
SELECT chunk, bounds FROM es_chunk_list ORDER BY chunk::text COLLATE "C";
PREPARE restore AS SELECT es_restore_chunks($1);
EXECUTE restore('{es_events_300,es_events_5000}');
SELECT es_restore_chunks('{es_events_350}');
SELECT es_restore_chunks('{es_events_}');
SELECT es_restore_chunks('{es_events_1234567890123456789}');
SELECT es_restore_chunks('{orders}');
SELECT es_restore_chunks('{NULL}');
SELECT es_restore_chunks(NULL);
-- The dump brings the incarnation.
SELECT es_incarnation();

-- pg_restore --disable-triggers leaves ordinary triggers, which a session with another role would pass by.
ALTER TABLE es_chunks.es_events_0 DISABLE TRIGGER ALL;
SELECT es_protect_history();
ALTER TABLE es_chunks.es_events_0 ENABLE TRIGGER ALL;
SELECT es_protect_history();
SET session_replication_role = replica;
DELETE FROM es_chunks.es_events_0;
RESET session_replication_role;

\c :own
DROP DATABASE es_pg_chunk;
