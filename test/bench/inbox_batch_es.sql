-- 1,000 new messages. A driver would send the array; here it is made in the server, which is part of the figure.
SELECT es_inbox_accept_batch('shipping', ARRAY(SELECT gen_random_uuid()::text FROM generate_series(1, 1000)));
