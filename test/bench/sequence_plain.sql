INSERT INTO plain_sequence VALUES ('bench', 'source', nextval('plain_number')) ON CONFLICT DO NOTHING;
