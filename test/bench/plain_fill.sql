-- The events as plain rows, in the same order on disk; their ids are what a plain PostgreSQL 15 makes.
INSERT INTO plain
SELECT e."position", substr(s.name, 7)::bigint, e.version, e.recorded_at, e.category_id, gen_random_uuid(), e.type,
       e.data, e.metadata, e.schema_version, e.source, e.correlation_id, e.causation_id, e.traceparent, e.occurred_at
  FROM es_events AS e JOIN es_streams AS s USING (stream_id)
 ORDER BY e."position";
SELECT setval('plain_position', max("position")) FROM plain \g /dev/null
