-- outbox: what must hold of the table, as long as nothing publishes yet.
\ir history.inc
SELECT es_prepare_chunks(1) >= 0;
SELECT plan(4);

SELECT is_empty('SELECT * FROM es_outbox', 'events put nothing into the outbox');
SELECT is(relkind, 'p', 'it is partitioned') FROM pg_class WHERE oid = 'es_outbox'::regclass;
SELECT is(pg_get_partkeydef('es_outbox'::regclass), 'RANGE ("position")', 'by position');
SELECT cmp_ok(count(*), '>', 0::bigint, 'and has a chunk for the next position')
  FROM es_chunk_list WHERE of_table = 'es_outbox' AND es_last_position() + 1 >= split_part(bounds, '''', 2)::bigint
   AND es_last_position() + 1 < split_part(bounds, '''', 4)::bigint;
SELECT * FROM finish();
