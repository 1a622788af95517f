-- 1,000 rows whose type, key and payload are constants of the statement, which is as cheap as a source of rows can be.
\set entity random(1, 100000)
INSERT INTO plain_outbox ("position", created_at, message_id, topic, type, key, payload)
SELECT nextval('plain_outbox_position'), now(), gen_random_uuid(), 'orders', 'OrderNoted', :entity::text, :data
  FROM generate_series(1, 1000) AS i;
