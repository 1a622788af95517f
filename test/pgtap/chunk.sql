-- chunk: what must hold of chunks, whatever was appended.
\ir history.inc
SELECT es_prepare_chunks(2) >= 0;
SELECT plan(17);

CREATE VIEW chunk AS
    SELECT c.oid, p.relname AS parent, c.relname AS name, c.relowner = p.relowner AS same_owner, n.nspname AS schema,
           split_part(bounds, '''', 2)::bigint AS lower, split_part(bounds, '''', 4)::bigint AS upper
      FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid JOIN pg_class AS p ON p.oid = inhparent
      JOIN pg_namespace AS n ON n.oid = c.relnamespace, pg_get_expr(c.relpartbound, c.oid) AS bounds
     WHERE inhparent IN ('es_events'::regclass, 'es_outbox'::regclass);
-- Streams and chunks, as the events have it.
CREATE VIEW lies_in AS
    SELECT stream_id, c.lower AS chunk, min(version) AS first_version
      FROM es_events AS e JOIN chunk AS c ON c.oid = e.tableoid GROUP BY stream_id, c.lower;

SELECT cmp_ok(count(*), '>', 40::bigint, 'there are many chunks') FROM chunk WHERE parent = 'es_events';
SELECT cmp_ok(count(*), '>', 50::bigint, 'and streams that lie in several') FROM es_stream_chunks;
SELECT is_empty('SELECT FROM es_events AS e JOIN chunk AS c ON c.oid = e.tableoid WHERE position < lower OR position >= upper',
    'every event lies in the chunk whose bounds hold its position');
SELECT is_empty('SELECT FROM (SELECT lower - lag(upper) OVER (PARTITION BY parent ORDER BY lower) AS gap FROM chunk) AS g WHERE gap <> 0',
    'chunks follow one another without a gap');
SELECT set_eq($$SELECT min(lower) FROM chunk GROUP BY parent$$, $$VALUES (0::bigint)$$, 'from 0 on');
SELECT is_empty($$SELECT FROM chunk WHERE parent = 'es_events' AND (upper - lower <> 100 OR lower % 100 <> 0)$$, 'each of the size that was set');
SELECT is_empty($$SELECT FROM chunk WHERE name <> parent || '_' || lower OR schema <> 'es_chunks' OR NOT same_owner$$,
    'named by its lower bound, in schema es_chunks, of the parent''s owner');
SELECT cmp_ok(max(upper), '>', es_last_position() + 100, 'there are chunks ahead of ' || parent) FROM chunk GROUP BY parent ORDER BY parent;

SELECT set_eq('SELECT stream_id, chunk, first_version FROM es_stream_chunks',
    'SELECT stream_id, chunk, first_version FROM lies_in JOIN es_streams USING (stream_id) WHERE chunk <> first_chunk',
    'es_stream_chunks is where the events are, but the first chunk');
SELECT set_eq('SELECT stream_id, first_chunk FROM es_streams', 'SELECT stream_id, min(chunk) FROM lies_in GROUP BY stream_id',
    'es_streams.first_chunk is where a stream begins');
SELECT set_eq('SELECT of_table, chunk FROM es_chunk_list', 'SELECT parent, oid::regclass FROM chunk', 'es_chunk_list shows them all');

-- Every chunk of events is like the others.
SELECT set_eq($$SELECT DISTINCT parent, array_agg(regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX .* USING ', '\1') ORDER BY indkey::text)
                  FROM chunk JOIN pg_index ON indrelid = oid WHERE indisvalid GROUP BY parent, oid$$,
    $$VALUES ('es_events'::name, ARRAY['UNIQUE btree ("position")', 'UNIQUE btree (stream_id, version)', 'btree (category_id, "position")', 'btree (event_id)']),
             ('es_outbox', ARRAY['UNIQUE btree ("position")'])$$,
    'all have the same indexes');
SELECT is_empty($$SELECT FROM chunk AS c WHERE parent = 'es_events' AND NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgname = 'es_immutable' AND tgenabled = 'A' AND tgfoid = 'es_refuse_change'::regproc)$$,
    'all refuse changes, always');
SELECT is_empty($$SELECT FROM chunk JOIN pg_class USING (oid) WHERE NOT reloptions @>
    '{autovacuum_vacuum_insert_threshold=100000,autovacuum_vacuum_insert_scale_factor=0.1,autovacuum_freeze_min_age=0}'$$,
    'all have settings of autovacuum for what only grows');
SELECT is_empty($$SELECT FROM pg_index WHERE indrelid IN ('es_events'::regclass, 'es_outbox'::regclass)$$,
    'the parents have no index, or a restore would fail');
SELECT is_empty($$SELECT FROM chunk JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = oid AND deptype = 'e'$$,
    'no chunk is a member of the extension, or its rows would not be dumped');
SELECT * FROM finish();
