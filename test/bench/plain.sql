-- The plain table that es_pg is measured against: the columns of es_events in their order, indexes as a chunk has
-- them, and a chunk's autovacuum settings, so that the work in the background is the same for both. It is not
-- partitioned, has no trigger and no stream to be looked up, locked or counted. Its positions come from a sequence
-- with the default cache, as an identity column would draw them.
CREATE TABLE plain (LIKE es_events)
    WITH (autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_insert_scale_factor = 0.1,
          autovacuum_freeze_min_age = 0);
ALTER TABLE plain ADD CONSTRAINT plain_pkey PRIMARY KEY ("position");
ALTER TABLE plain ADD CONSTRAINT plain_stream_version_key UNIQUE (stream_id, version);
CREATE INDEX plain_category_position_idx ON plain (category_id, "position");
CREATE INDEX plain_event_id_idx ON plain (event_id);
CREATE SEQUENCE plain_position;
