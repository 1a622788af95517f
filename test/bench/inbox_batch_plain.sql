-- The same by hand.
INSERT INTO plain_inbox (consumer, message_id) SELECT 'shipping', gen_random_uuid()::text FROM generate_series(1, 1000)
ON CONFLICT DO NOTHING;
