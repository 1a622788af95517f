-- 1,000 rows of one stream. All that differs between them is a number: type and data are constants of the statement,
-- which is as cheap as a source of rows can be.
\set stream random(1, :streams)
\set version random(1, 1000000000000) * 1000
INSERT INTO plain ("position", stream_id, version, recorded_at, category_id, event_id, type, data)
SELECT nextval('plain_position'), :stream, :version::bigint + i, now(), 7, gen_random_uuid(), 'OrderNoted', :data
  FROM generate_series(1, 1000) AS i;
