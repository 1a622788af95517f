-- Bytes an event: what is measured, in the only chunk that has events, in the plain table.
CREATE TEMP VIEW measured AS
SELECT r.side, c.oid, c.reltoastrelid
  FROM (SELECT 'es' AS side, (SELECT tableoid FROM es_events LIMIT 1) AS oid
        UNION ALL SELECT 'plain', 'plain'::regclass) AS r
  JOIN pg_class AS c USING (oid);

CREATE TEMP VIEW parts AS
SELECT 1 AS place, 'data' AS what, side, avg(size)::float8 AS bytes, true AS an_event
  FROM (SELECT 'es' AS side, pg_column_size(data) AS size FROM es_events
        UNION ALL SELECT 'plain', pg_column_size(data) FROM plain) AS d GROUP BY side
UNION ALL
SELECT 2, 'heap', side, pg_relation_size(oid), false FROM measured
UNION ALL
SELECT 3, 'index (' || (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum)
                          FROM pg_attribute AS a WHERE a.attrelid = i.indexrelid) || ')',
       side, pg_relation_size(i.indexrelid), false
  FROM measured JOIN pg_index AS i ON i.indrelid = oid
UNION ALL
SELECT 4, 'TOAST with its index', side, pg_total_relation_size(reltoastrelid), false FROM measured
UNION ALL
SELECT 5, 'in all', side, pg_total_relation_size(oid), false FROM measured
UNION ALL
SELECT 6, 'streams, 100 events each, with their indexes', side,
       CASE side WHEN 'es' THEN pg_total_relation_size('es_streams')
                          + pg_total_relation_size('es_stream_chunks') ELSE 0 END, false
  FROM measured;

SELECT what,
       round((sum(bytes) FILTER (WHERE side = 'es') / CASE WHEN an_event THEN 1 ELSE :events END)::numeric, 3),
       round((sum(bytes) FILTER (WHERE side = 'plain') / CASE WHEN an_event THEN 1 ELSE :events END)::numeric, 3)
  FROM parts GROUP BY place, what, an_event ORDER BY place, what;
