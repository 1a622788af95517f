-- Streams order-1 to order-:streams of category "order": :passes times over all of them, :events events a time. So a
-- stream's events lie scattered over the log, as those of a stream that lives a while do. A transaction is
-- ten calls; nobody waits for the disk yet.
CREATE PROCEDURE bench_fill(streams integer, passes integer, events integer, data jsonb) LANGUAGE plpgsql AS $$
DECLARE
    types text[] := array_fill('OrderPlaced'::text, ARRAY[events]);
    batch jsonb[] := array_fill(data, ARRAY[events]);
BEGIN
    FOR pass IN 1 .. passes LOOP
        FOR stream IN 1 .. streams LOOP
            PERFORM * FROM es_append_batch('order-' || stream, types, batch);
            IF stream % 10 = 0 THEN
                COMMIT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
SET synchronous_commit = off;
CALL bench_fill(:streams, :passes, :events, :'data');
DROP PROCEDURE bench_fill;
