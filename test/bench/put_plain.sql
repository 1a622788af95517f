\set k random(1, 1000)
INSERT INTO plain_queue (message_id, key, payload) VALUES (gen_random_uuid()::text, 'key' || :k, :data) ON CONFLICT DO NOTHING;
