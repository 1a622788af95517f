\set k random(1, 1000)
SELECT es_inbox_put('bench', gen_random_uuid()::text, 'orders', 'A', 'key' || :k, :data);
