-- The plain INSERT at its cheapest: constants, one nextval, now(), a random id. No RETURNING, though es_publish does
-- answer with the position.
\set entity random(1, 100000)
INSERT INTO plain_outbox ("position", created_at, message_id, topic, type, key, payload)
VALUES (nextval('plain_outbox_position'), now(), gen_random_uuid(), 'orders', 'OrderNoted', :entity::text, :data);
