-- The plain inbox that es_pg's is measured against: the message ids as they are, unique by consumer, one table, the
-- autovacuum settings of a chunk. Both know the same number of messages before the first sample: es_pg's lie in
-- two chunks, as the default retention and interval leave them, so each new one is looked for in both.
CREATE TABLE plain_inbox (
    accepted_at timestamptz NOT NULL DEFAULT now(), consumer text COLLATE "C", message_id text COLLATE "C",
    CONSTRAINT plain_inbox_pkey PRIMARY KEY (consumer, message_id))
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.1,
          autovacuum_freeze_min_age = 0);
INSERT INTO plain_inbox SELECT now() - i % 7 * interval '1 day' - interval '1 day', 'shipping', gen_random_uuid()::text
  FROM generate_series(1, :known) AS i;
SELECT es_create_consumer('shipping');
SELECT es_restore_chunks(ARRAY(
    SELECT format('es_inbox_%s', (week - i) * 604800000000)
      FROM generate_series(0, 1) AS i, div(extract(epoch FROM now())::numeric - 946684800, 604800) AS week));
INSERT INTO es_inbox SELECT now() - i % 7 * interval '1 day' - interval '1 day', 1, gen_random_uuid()
  FROM generate_series(1, :known) AS i;
SELECT es_prepare_chunks();
