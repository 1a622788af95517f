-- n messages of 1,000 keys, in both queues.
SELECT es_inbox_put_batch('bench', array_agg('m' || i), 'orders', array_agg('A'::text), array_agg('key' || i % 1000), array_agg('{"total": 99.99}'::jsonb))
  FROM generate_series(1, :n) AS i GROUP BY i / 1000 \g /dev/null
INSERT INTO plain_queue (message_id, key, payload) SELECT 'm' || i, 'key' || i % 1000, '{"total": 99.99}' FROM generate_series(1, :n) AS i;
