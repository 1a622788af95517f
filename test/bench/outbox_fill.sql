-- So many messages of one topic, a thousand a call and a transaction, of 100,000 keys at random.
CREATE PROCEDURE bench_publish(messages integer, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. messages / 1000 LOOP
        PERFORM es_publish_batch('orders', array_fill('OrderNoted'::text, '{1000}'), array_fill(payload, '{1000}'), k.keys)
           FROM (SELECT array_agg((random() * 100000)::integer::text) AS keys FROM generate_series(1, 1000)) AS k;
        COMMIT;
    END LOOP;
END $$;
SET synchronous_commit = off;
CALL bench_publish(:messages, :'data');
DROP PROCEDURE bench_publish;
