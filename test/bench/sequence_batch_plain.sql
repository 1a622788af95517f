INSERT INTO plain_sequence SELECT 'bench', 'source', nextval('plain_number') FROM generate_series(1, 1000) ON CONFLICT DO NOTHING;
