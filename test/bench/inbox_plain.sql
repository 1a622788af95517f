-- The same by hand. Whether it was new is the command's count of rows.
INSERT INTO plain_inbox (consumer, message_id) VALUES ('shipping', gen_random_uuid()::text) ON CONFLICT DO NOTHING;
