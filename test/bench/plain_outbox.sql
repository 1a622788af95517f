-- The plain outbox that es_pg's is measured against: the columns of es_outbox in their order, the index and the
-- autovacuum settings of a chunk. It is not partitioned. Its positions come from a sequence with the default cache.
CREATE TABLE plain_outbox (LIKE es_outbox)
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.1,
          autovacuum_freeze_min_age = 0);
ALTER TABLE plain_outbox ADD CONSTRAINT plain_outbox_pkey PRIMARY KEY ("position");
CREATE SEQUENCE plain_outbox_position;
