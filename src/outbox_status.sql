-- outbox_status.sql: the outbox as an operator sees it.

CREATE VIEW @extschema@.es_outbox_status AS
    SELECT c.chunks, c.chunks_ahead, c.rows, c.bytes,
           d.delayed, d.next_due,
           l.last_position, l.oldest_cursor, l.last_position - l.oldest_cursor AS behind
      FROM (SELECT @extschema@.es_last_position() AS last_position,
                   @extschema@.es_lowest_cursor('outbox') AS oldest_cursor) AS l,
           LATERAL (
           SELECT pg_catalog.count(*) AS chunks,
                  pg_catalog.count(*) FILTER (WHERE pg_catalog.split_part(bounds, '''', 2)::bigint > l.last_position) AS chunks_ahead,
                  COALESCE(pg_catalog.sum(pg_catalog.pg_stat_get_live_tuples(chunk)), 0)::bigint AS rows,
                  COALESCE(pg_catalog.sum(bytes), 0)::bigint AS bytes
             FROM @extschema@.es_chunk_list WHERE of_table = 'es_outbox') AS c,
           (SELECT pg_catalog.count(*) AS delayed, pg_catalog.min(deliver_after) AS next_due FROM @extschema@.es_delayed) AS d;
COMMENT ON VIEW @extschema@.es_outbox_status IS
'The outbox in one row. chunks: all of them; chunks_ahead: those that no position has reached yet; rows: messages in them, as the statistics have it; bytes: with indexes and TOAST; delayed, next_due: messages that wait for their time; oldest_cursor: what every subscription to the outbox has acknowledged, NULL without any; behind: positions from there to last_position, an upper bound of the messages that wait. Needs EXECUTE on es_last_position and es_lowest_cursor.
Example: SELECT * FROM es_outbox_status;';
