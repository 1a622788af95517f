-- Appends until the newest chunk is a large one: the small ones that were made ahead are used up first.
CREATE PROCEDURE bench_large_chunk(data jsonb) LANGUAGE plpgsql AS $$
DECLARE
    upper bigint;
BEGIN
    LOOP
        PERFORM * FROM es_append_batch('filler', array_fill('Filled'::text, '{100}'),
                                       array_fill(data, '{100}'));
        COMMIT;
        SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''?([0-9]+)')::bigint INTO upper
          FROM pg_class AS c
         WHERE c.oid = (SELECT e.tableoid FROM es_events AS e ORDER BY e."position" DESC LIMIT 1);
        EXIT WHEN upper - es_last_position() > 1000000;
    END LOOP;
END $$;
CALL bench_large_chunk(:'data');
DROP PROCEDURE bench_large_chunk;
