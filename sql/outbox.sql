-- outbox: the table in which messages to the outside world will wait.
--
-- es_publish is still to come. What is there now is the table, which shares the
-- counter of positions with the events and is partitioned by them.
CREATE EXTENSION es_pg;

\d es_outbox
SELECT count(*) FROM es_outbox;

-- It is there from the first day, so dumps and chunks know it. The install
-- script makes no chunk: a member's rows would not be dumped.
SELECT count(*) FROM es_chunk_list;
-- A partitioned table has no rows of its own, so it is not registered for dumps.
SELECT 'es_outbox'::regclass = ANY (extconfig) AS registered FROM pg_extension WHERE extname = 'es_pg';

-- Its chunks have a size of their own.
SET es_pg.event_chunk_size = 1000;
SET es_pg.outbox_chunk_size = 100;
SELECT es_prepare_chunks(2);
SELECT of_table, chunk, bounds FROM es_chunk_list ORDER BY of_table::text, bounds;
\d es_chunks.es_outbox_0

-- An event draws a position too, so the outbox's chunks follow the log.
SELECT version FROM es_append_batch('o-1', array_fill('T'::text, ARRAY[150]), array_fill('{}'::jsonb, ARRAY[150]));
SELECT es_prepare_chunks(2);
SELECT chunk, bounds FROM es_chunk_list WHERE of_table = 'es_outbox' ORDER BY bounds;

-- Nobody but the owner may touch it.
CREATE ROLE es_pg_outsider;
SET ROLE es_pg_outsider;
SELECT count(*) FROM es_outbox;
SELECT count(*) FROM es_chunks.es_outbox_0;
SELECT es_prepare_chunks();
RESET ROLE;
DROP ROLE es_pg_outsider;
